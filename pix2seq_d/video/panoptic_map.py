"""What is predicted of a frame. H W frame size."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pix2seq_d.labels import LABEL_DIVISOR, VOID_ID


@dataclass
class Uncertainty:
    """Where several samples of a frame differ.

    Attributes:
        class_entropy: (H, W) float32 in [0, 1], entropy of the mean class probabilities over that of no knowledge.
        instance_disagreement: (H, W) float32 in [0, 1], share of the samples whose object at the pixel, or its absence,
            is another one than in the consensus.
        agreement: of the segments (class id, instance id) the IoU with the most similar segment of its class in a
            sample, mean over the samples.
    """

    class_entropy: np.ndarray
    instance_disagreement: np.ndarray
    agreement: dict[tuple[int, int], float] = field(default_factory=dict)

    @classmethod
    def none(cls, size: tuple[int, ...]) -> Uncertainty:
        """Of a frame (H, W) of which everything is known; without segments."""
        return cls(np.zeros(size, np.float32), np.zeros(size, np.float32))

    def outside(self, of_class: np.ndarray, of_object: np.ndarray, segments: Iterable[tuple[int, int]]) -> Uncertainty:
        """This outside of what is known; segments of which nothing is told are agreed on.

        Args:
            of_class: (H, W) bool, where the class is known.
            of_object: (H, W) bool, where the object is known, or that there is none.
            segments: (class id, instance id) of what is known.
        """
        agreement = {**dict.fromkeys(segments, 1.0), **self.agreement}
        return Uncertainty(self.class_entropy * ~of_class, self.instance_disagreement * ~of_object, agreement)


@dataclass
class PanopticMap:
    """The prediction of one frame at the frame's own size.

    Attributes:
        class_map: (H, W) uint8 train ids; 255 (void) only where `only_classes` leaves a pixel out.
        instance_map: (H, W) int32 track ids, 0 on stuff and where a thing is told that is too small for the mask.
        confidence: (H, W) float32 in [0, 1], probability of the chosen codes.
        uncertainty: None of a single sample.
    """

    class_map: np.ndarray
    instance_map: np.ndarray
    confidence: np.ndarray
    uncertainty: Uncertainty | None = None

    @property
    def segmentation(self) -> np.ndarray:
        """(H, W) int32 panoptic ids class_id * 65536 + instance_id, which a video keeps; -1 on void."""
        ids = self.class_map.astype(np.int32) * LABEL_DIVISOR + self.instance_map
        return np.where(self.class_map == VOID_ID, np.int32(-1), ids)

    @property
    def segments_info(self) -> list[dict[str, Any]]:
        """The segments of `segmentation`, as panoptic post-processing in transformers lists them.

        Returns:
            Of each `id` (its value in `segmentation`), `label_id` (train id), `was_fused` (False: every object is a
            segment of its own) and `score` (mean confidence); besides `instance_id` (0 = stuff), `area` in pixels, and
            with several samples `agreement` (see Uncertainty).
        """
        values, index, areas = np.unique(self.segmentation, return_inverse=True, return_counts=True)
        scores = np.bincount(index.ravel(), weights=self.confidence.ravel()) / areas
        segments = []
        for value, area, score in zip(values.tolist(), areas.tolist(), scores.tolist()):
            if value < 0:
                continue
            class_id, instance_id = divmod(value, LABEL_DIVISOR)
            segment = {"id": value, "label_id": class_id, "was_fused": False, "score": score}
            segment |= {"instance_id": instance_id, "area": area}
            if self.uncertainty is not None:
                segment["agreement"] = self.uncertainty.agreement.get((class_id, instance_id), 0.0)
            segments.append(segment)
        return segments

    def only(self, class_ids: Collection[int]) -> PanopticMap:
        """The segments of these classes; all else is void."""
        kept = np.isin(self.class_map, list(class_ids))
        class_map = np.where(kept, self.class_map, np.uint8(VOID_ID))
        return replace(self, class_map=class_map, instance_map=self.instance_map * kept)
