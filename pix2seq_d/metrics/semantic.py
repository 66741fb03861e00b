"""Confusion matrix over classes and the mean intersection over union."""

from __future__ import annotations

from typing import Any

import numpy as np

from pix2seq_d.metrics.counts import INSTANCE_BITS, ClassLayout, JointCounts, SegmentationMetric, SequenceId
from pix2seq_d.metrics.maps import sum_by


def confusion_matrix(counts: JointCounts) -> np.ndarray:
    """Pixels per pair of classes.

    Returns:
        (C + 1, C + 1) int64, row = target, column = prediction, the last ones void.
    """
    void_id, n = counts.layout.void_id, counts.layout.num_classes + 1
    target, pred = (
        np.where(classes == void_id, n - 1, classes)[index]
        for classes, index in (
            (counts.targets >> INSTANCE_BITS, counts.target_index),
            (counts.preds >> INSTANCE_BITS, counts.pred_index),
        )
    )
    return sum_by(target * n + pred, counts.area, n * n).reshape(n, n)


def intersections_and_unions(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C + 1,) int64 each, over the labelled pixels; the last one is void, whose intersection is 0."""
    labelled = confusion.copy()
    labelled[-1] = 0
    intersection = labelled.diagonal()
    return intersection, labelled.sum(0) + labelled.sum(1) - intersection


class MeanIoU(SegmentationMetric):
    """Mean over the classes of intersection over union, IoU = tp / (tp + fp + fn) in pixels pooled over all frames.

    As in cityscapesScripts, unlabelled target pixels are left out, void predicted on a labelled pixel is a miss of that
    pixel's class, and a class that neither side has on labelled pixels is left out of the mean.

    Args:
        num_classes: classes are 0 ... num_classes - 1.
        void_id: class of unlabelled pixels.
    """

    shares_sequences = True
    interleaves = True

    def __init__(self, num_classes: int = 19, void_id: int = 255) -> None:
        super().__init__(ClassLayout(num_classes, (), void_id), {})

    def compute(self) -> dict[str, Any]:
        """Scores as fractions.

        Returns:
            `miou`: mean over the classes that occur in target or prediction on labelled pixels (0 if none does);
            `pixel_accuracy`: correct among labelled pixels; `n`: number of classes in the mean; `per_class[c]` with
            `iou` and `valid`; `num_frames`.
        """
        intersection, union = intersections_and_unions(self.confusion)
        per_class = {
            c: {"iou": int(intersection[c]) / max(int(union[c]), 1), "valid": bool(union[c])}
            for c in self.layout.class_ids
        }
        ious = [s["iou"] for s in per_class.values() if s["valid"]]
        labelled = int(self.confusion[:-1].sum())
        return {
            "miou": sum(ious) / max(len(ious), 1),
            "pixel_accuracy": int(intersection.sum()) / max(labelled, 1),
            "n": len(ious),
            "per_class": per_class,
            "num_frames": sum(self.num_frames.values()),
        }

    def _accepts(self, layout: ClassLayout) -> bool:
        return (layout.num_classes, layout.void_id) == (self.layout.num_classes, self.layout.void_id)

    def _add(self, counts: JointCounts, sequence_id: SequenceId) -> None:
        self.confusion += confusion_matrix(counts)

    def _merge(self, other: MeanIoU) -> None:
        self.confusion += other.confusion

    def _clear(self) -> None:
        n = self.layout.num_classes + 1
        self.confusion = np.zeros((n, n), np.int64)
