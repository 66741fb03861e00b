"""What a user knows of a frame's map -> the codes that its pixels may have.

H W frame size, h w mask size, S logit planes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pix2seq_d.bits import BitCodec
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.labels import LABEL_DIVISOR, VOID_ID, LabelSpec
from pix2seq_d.video.code_denoiser import FORBIDDEN
from pix2seq_d.video.decode import CodeProbabilities
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracks import TrackIds


@dataclass(frozen=True)
class KnownMap:
    """Pixels of a frame that are known, in whole or in part.

    Attributes:
        class_map: (H, W) integers, train ids; 255 (void) where nothing is known.
        instance_map: (H, W) integers, ids of the objects, of each class its own; 0 on a thing where only the class is
            known. Ids are kept: an object of a track has the track's id, any other id begins a track.
    """

    class_map: np.ndarray
    instance_map: np.ndarray

    def check(self, spec: LabelSpec, size: tuple[int, int]) -> None:
        """Raises ValueError for another size than the frame's, an unknown class, or an id that no map can hold."""
        for name in ("class_map", "instance_map"):
            values = getattr(self, name)
            if values.shape != size:
                raise ValueError(f"known {name}: expected {size} as the frame, got {values.shape}")
            if not np.issubdtype(values.dtype, np.integer):
                raise ValueError(f"known {name}: expected integers, got {values.dtype}")
        spec.check_class_ids(self.class_map)
        low, high = int(self.instance_map.min(initial=0)), int(self.instance_map.max(initial=0))
        if low < 0 or high >= LABEL_DIVISOR:
            raise ValueError(f"known instance_map: expected ids in 0..{LABEL_DIVISOR - 1}, got {low}..{high}")

    def last_id(self, spec: LabelSpec) -> int:
        """The largest id of its objects, 0 = none."""
        return int(self.instance_map[spec.is_thing(self.class_map)].max(initial=0))

    def has_instances(self, spec: LabelSpec) -> np.ndarray:
        """(H, W) bool, pixels of which class and object are known; stuff has no object."""
        return (self.class_map != VOID_ID) & (~spec.is_thing(self.class_map) | (self.instance_map > 0))

    def force_classes(self, probabilities: CodeProbabilities) -> CodeProbabilities:
        """Probabilities at the frame's size with the known classes certain, so that their objects are chosen to fit."""
        classes, codes = probabilities.planes[0], probabilities.codes[0]
        known = torch.from_numpy(self.class_map.astype(np.int64) + 1).to(classes.device)
        planes, codes = _certain(classes, codes, known * (known <= VOID_ID))
        return replace(
            probabilities, planes=(planes, *probabilities.planes[1:]), codes=(codes, *probabilities.codes[1:])
        )

    def over(self, result: PanopticMap, spec: LabelSpec) -> PanopticMap:
        """A prediction with what is known in its place, at confidence 1 where class and object are."""
        whole, of_class = self.has_instances(spec), self.class_map != VOID_ID
        class_map = np.where(of_class, self.class_map, result.class_map).astype(np.uint8)
        known_ids = np.where(spec.is_thing(self.class_map), self.instance_map, 0)
        instance_map = np.where(whole, known_ids, result.instance_map * spec.is_thing(class_map)).astype(np.int32)
        confidence = np.where(whole, np.float32(1), result.confidence)
        uncertainty = result.uncertainty
        if uncertainty is not None:
            segments = np.unique(np.stack([class_map[whole], instance_map[whole]]), axis=1).T.tolist()
            uncertainty = uncertainty.outside(of_class, whole, [(class_id, i) for class_id, i in segments])
        return PanopticMap(class_map, instance_map, confidence, uncertainty)


@dataclass
class KnownCodes:
    """A KnownMap at mask size.

    Attributes:
        class_codes: (h, w) int64, 0 = unknown.
        instance_codes: (h, w) int64, 0 = unknown or none.
        is_thing: (h, w) bool, of the known classes.
        ids: {(class code, instance code): id} of the objects.
        last_id: the largest id of the frame, also of objects too small for the mask; 0 = none.
        complete: every pixel of the frame is known, and so is every object.
    """

    class_codes: np.ndarray
    instance_codes: np.ndarray
    is_thing: np.ndarray
    ids: dict[tuple[int, int], int]
    last_id: int
    complete: bool

    @classmethod
    def of(
        cls, known: KnownMap, spec: LabelSpec, box: Letterbox, mask_size: tuple[int, int], tracks: TrackIds
    ) -> KnownCodes:
        """Objects in the codes by which the model knows them, new ones in codes that are free.

        A complete map goes on over the canvas's padding.

        Raises:
            ValueError: as KnownMap.check, or more objects of a class than the model has codes.
        """
        known.check(spec, box.source_size)
        whole = known.has_instances(spec) if tracks.num_codes else known.class_map != VOID_ID
        class_map, ids, seen = (
            box.map(values, mask_size, fill=fill)
            for values, fill in ((known.class_map, VOID_ID), (known.instance_map, 0), (whole | True, False))
        )
        if complete := bool(whole.all()):
            inside = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
            rows, cols = (np.minimum(np.arange(n), i[-1]) for n, i in zip(mask_size, inside))
            class_map, ids = (values[rows[:, None], cols] for values in (class_map, ids))
        class_codes, ids = spec.to_codes(class_map, ids)
        objects = _objects(class_codes, ids) if tracks.num_codes else []
        for class_code, count in Counter(class_code for class_code, _ in objects).items():
            if count > tracks.num_codes:
                name = spec.class_names[class_code - 1]
                raise ValueError(
                    f"known objects: expected at most {tracks.num_codes} of class {name}, one per instance code, "
                    f"got {count}"
                )
        codes = tracks.codes_of(objects)
        instance_codes = np.zeros_like(ids)
        for (class_code, object_id), code in codes.items():
            instance_codes[(class_codes == class_code) & (ids == object_id)] = code
        by_code = {(class_code, code): object_id for (class_code, object_id), code in codes.items()}
        return cls(class_codes, instance_codes, spec.is_thing(class_map), by_code, known.last_id(spec), complete)

    def stacked(self, device: torch.device | str) -> Tensor:
        """(2, h, w) int64 codes."""
        return torch.from_numpy(np.stack([self.class_codes, self.instance_codes])).to(device)

    def force(self, probabilities: CodeProbabilities) -> CodeProbabilities:
        """Probabilities with what is known certain."""
        known = self.stacked(probabilities.planes[0].device)
        forced = [_certain(*group) for group in zip(probabilities.planes, probabilities.codes, known)]
        return replace(probabilities, planes=tuple(p for p, _ in forced), codes=tuple(c for _, c in forced))


def code_penalty(
    codec: BitCodec,
    mask_size: tuple[int, int],
    *,
    known: KnownCodes | None = None,
    without_classes: Collection[int] = (),
    device: torch.device | str = "cpu",
) -> Tensor | None:
    """(1, S, h, w) for CodeDenoiser; None where every code is possible.

    Args:
        codec: bit layout.
        mask_size: (h, w).
        known: pixels whose codes are known.
        without_classes: train ids of classes that no pixel has, unless it is known to.
        device: of the result.
    """
    if known is None and not without_classes:
        return None
    groups = [torch.zeros(n, *mask_size, device=device) for n in codec.group_codes]
    for class_id in without_classes:
        groups[0][class_id + 1] = FORBIDDEN
    if known is not None:
        class_codes, instance_codes = known.stacked(device)
        groups[0] = torch.where(class_codes > 0, _all_but(class_codes, len(groups[0])), groups[0])
        if len(groups) > 1:
            of_thing = torch.from_numpy(known.is_thing).to(device)
            object_known = (class_codes > 0) & (~of_thing | (instance_codes > 0))
            groups[1] = torch.where(object_known, _all_but(instance_codes, len(groups[1])), groups[1])
            groups[1][0][of_thing] = FORBIDDEN  # a thing is some object
    return torch.cat(groups)[None]


def _all_but(codes: Tensor, num_codes: int) -> Tensor:
    """(num_codes, h, w), 0 at each pixel's code and FORBIDDEN at all others."""
    planes = torch.arange(num_codes, device=codes.device).view(-1, 1, 1)
    return (planes != codes) * FORBIDDEN


def _certain(planes: Tensor, codes: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """(n, h, w) planes and their codes (n,) with the (h, w) codes that are not 0 in them at probability 1."""
    names = torch.cat([codes, known[known > 0]]).unique()
    result = planes.new_zeros(len(names), *planes.shape[1:])
    result[torch.searchsorted(names, codes)] = planes
    return torch.where(known > 0, (names.view(-1, 1, 1) == known).to(planes), result), names


def _objects(class_codes: np.ndarray, ids: np.ndarray) -> list[tuple[int, int]]:
    """(class code, id) of the objects, the largest first."""
    keys, areas = np.unique(class_codes[ids > 0] * LABEL_DIVISOR + ids[ids > 0], return_counts=True)
    pairs: Mapping[int, tuple[int, int]] = {k: (k // LABEL_DIVISOR, k % LABEL_DIVISOR) for k in keys.tolist()}
    return [pairs[k] for k in keys[np.argsort(-areas, kind="stable")].tolist()]
