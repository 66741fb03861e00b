"""The joint histogram of target and predicted segments of one frame, from which every metric of this room is computed.

A segment is a pair (class, instance), held as one int64 key = class * 2^47 + instance. R is the number of runs (pixels
in a row that are equal in every map), G of target and P of predicted segments, N of pairs of them that overlap.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pix2seq_d.metrics.base import SequenceId, StreamingMetric
from pix2seq_d.metrics.maps import (
    TABLE_SIZE,
    ClassLayout,
    IntegerMap,
    as_array,
    check_maps,
    index_values,
    sum_by,
)

__all__ = [
    "INSTANCE_BITS",
    "ClassLayout",
    "IntegerMap",
    "JointCounts",
    "SegmentationMetric",
    "SequenceId",
    "joint_counts",
    "pool",
]

INSTANCE_BITS = 47
_FEW_KEYS = 1 << 10  # segments up to which those that do not occur are kept until pairs are known
_MAP_NAMES = ("pred_semantic", "pred_instance", "target_semantic", "target_instance")


@dataclass(frozen=True, eq=False)
class JointCounts:
    """How many pixels every pair of a target segment and a predicted segment shares; pairs without pixels are left out.

    Stuff and void have instance 0. Pairs are sorted by target key, then by predicted key, and none occurs twice, so
    equal maps give equal arrays.

    Attributes:
        layout: the classes.
        targets: (G,) int64 keys of the target segments, ascending.
        preds: (P,) int64 keys of the predicted segments, ascending.
        target_index: (N,) int64 target segment of every pair, in 0..G - 1.
        pred_index: (N,) int64 predicted segment of every pair, in 0..P - 1.
        area: (N,) int64 shared pixels, all positive.
    """

    layout: ClassLayout
    targets: np.ndarray
    preds: np.ndarray
    target_index: np.ndarray
    pred_index: np.ndarray
    area: np.ndarray

    @property
    def target_key(self) -> np.ndarray:
        """(N,) int64 target segment of every pair."""
        return self.targets[self.target_index]

    @property
    def pred_key(self) -> np.ndarray:
        """(N,) int64 predicted segment of every pair."""
        return self.preds[self.pred_index]

    @property
    def target_class(self) -> np.ndarray:
        """(N,) int64 class of the target segment, or void_id."""
        return (self.targets >> INSTANCE_BITS)[self.target_index]

    @property
    def pred_class(self) -> np.ndarray:
        """(N,) int64 class of the predicted segment, or void_id."""
        return (self.preds >> INSTANCE_BITS)[self.pred_index]

    @property
    def target_crowd(self) -> np.ndarray:
        """(N,) bool, the target is a region of a thing class with instance 0."""
        return self.crowds[self.target_index]

    @property
    def crowds(self) -> np.ndarray:
        """(G,) bool, target regions of a thing class with instance 0."""
        no_instance = (self.targets & ((1 << INSTANCE_BITS) - 1)) == 0
        return self.layout.is_thing[self.targets >> INSTANCE_BITS] & no_instance


def joint_counts(
    pred_semantic: IntegerMap,
    pred_instance: IntegerMap | None,
    target_semantic: IntegerMap,
    target_instance: IntegerMap | None,
    *,
    layout: ClassLayout,
    where: str,
) -> JointCounts:
    """Counts the pixels of every overlapping pair of segments of one frame.

    Four maps on one accelerator are counted there, and only the pairs leave it.

    Args:
        pred_semantic: (H, W) predicted class ids, any integer dtype; NumPy array or tensor on any device.
        pred_instance: (H, W) predicted instance ids; None (no instances) only where the layout has no things.
        target_semantic: (H, W) target class ids.
        target_instance: (H, W) target instance ids, 0 = crowd in thing classes; None as above.
        layout: the classes.
        where: what the maps belong to, the beginning of every error message.

    Raises:
        TypeError: a map that is neither array nor tensor, or not of integers.
        ValueError: not 2-D, empty, unequal shapes, negative or too large ids, unknown classes.
    """
    if layout.thing_ids and (pred_instance is None or target_instance is None):
        raise TypeError(f"{where}: expected instance maps for the thing classes {layout.thing_ids}, got None")
    given = dict(zip(_MAP_NAMES, (pred_semantic, pred_instance, target_semantic, target_instance)))
    # Without things the instance ids have no say
    maps = {name: m for name, m in given.items() if m is not None}
    check_maps(maps, target="target_semantic", where=where)
    tensors = {name: m for name, m in maps.items() if isinstance(m, Tensor)}
    devices = {m.device for m in tensors.values()}
    if len(tensors) == len(maps) and len(devices) == 1 and devices != {torch.device("cpu")}:
        return _count_tensors(tensors, layout, where)
    return _count_arrays({name: as_array(m) for name, m in maps.items()}, layout, where)


def pool(counts: Sequence[JointCounts]) -> JointCounts:
    """The histogram of several frames seen as one: the areas of equal pairs are added."""
    if len(counts) == 1:
        return counts[0]
    target_keys, pred_keys = _union([c.targets for c in counts]), _union([c.preds for c in counts])
    targets = [np.searchsorted(target_keys, c.targets)[c.target_index] for c in counts]
    preds = [np.searchsorted(pred_keys, c.preds)[c.pred_index] for c in counts]
    area = np.concatenate([c.area for c in counts])
    sides = (target_keys, np.concatenate(targets)), (pred_keys, np.concatenate(preds))
    return _tally(*sides, area, counts[0].layout)


class SegmentationMetric(StreamingMetric):
    """A metric of class and instance maps: it is updated with maps, or with ready-made counts.

    Attributes:
        layout: the classes.
        options: the settings, which must be equal where two metrics merge.
        num_frames: frames seen, per sequence.
    """

    def __init__(self, layout: ClassLayout, options: dict[str, Any]) -> None:
        self.layout = layout
        super().__init__(options)

    def update(
        self,
        pred_semantic: IntegerMap,
        pred_instance: IntegerMap | None,
        target_semantic: IntegerMap,
        target_instance: IntegerMap | None,
        sequence_id: SequenceId = "0",
        *,
        frame: int | None = None,
    ) -> None:
        """Adds one frame. Frames of one sequence come in order; what raises is not counted.

        Args:
            pred_semantic: (H, W) integers, as all maps; see `joint_counts` for them and for what raises.
            pred_instance: predicted instance ids.
            target_semantic: target class ids.
            target_instance: target instance ids.
            sequence_id: the video.
            frame: its number, for error messages and to have the order checked; gaps are allowed. None: unknown.

        Raises:
            ValueError: `frame` is not above the last one of its sequence, or the sequence has been left for another
                where its frames belong together.
        """
        self._check_order(sequence_id, frame)
        maps = pred_semantic, pred_instance, target_semantic, target_instance
        counts = joint_counts(*maps, layout=self.layout, where=self._where(sequence_id, frame))
        self.update_counts(counts, sequence_id=sequence_id, frame=frame)

    def update_counts(self, counts: JointCounts, *, sequence_id: SequenceId = "0", frame: int | None = None) -> None:
        """Adds one frame whose histogram is known already; raises ValueError if it was made for other classes."""
        if not self._accepts(counts.layout):
            raise ValueError(f"counts: expected {self.layout}, got {counts.layout}")
        self._check_order(sequence_id, frame)
        self._add(counts, sequence_id)
        self._count(sequence_id, frame)

    def merge(self, other: Any) -> None:
        """As `StreamingMetric.merge`; metrics of other classes are refused as well."""
        if type(other) is type(self) and other.layout != self.layout:
            raise ValueError(f"merge: expected {self.layout}, got {other.layout}")
        super().merge(other)

    def _accepts(self, layout: ClassLayout) -> bool:
        return layout == self.layout

    @abstractmethod
    def _add(self, counts: JointCounts, sequence_id: SequenceId) -> None: ...


# Arrays: pixels are collapsed into runs, unless the maps are so noisy that runs are hardly longer than pixels


def _count_arrays(maps: Mapping[str, np.ndarray], layout: ClassLayout, where: str) -> JointCounts:
    values, lengths = _runs([m.reshape(-1) for m in maps.values()])
    runs = dict(zip(maps, values))
    highest = {name: _check_ids(ids, name=name, where=where, layout=layout) for name, ids in runs.items()}
    target, pred = (
        _segments(runs[classes], runs.get(instances), (highest[classes], highest.get(instances, 0)), layout)
        for classes, instances in (("target_semantic", "target_instance"), ("pred_semantic", "pred_instance"))
    )
    return _tally(target, pred, lengths, layout)


def _runs(flat: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The values of every map per run, and the (R,) lengths of the runs; None where every pixel stands for itself."""
    change = np.ones(flat[0].size, bool)
    np.not_equal(flat[0][1:], flat[0][:-1], out=change[1:])
    for m in flat[1:]:
        change[1:] |= m[1:] != m[:-1]
    if 2 * np.count_nonzero(change) > change.size:
        return flat, None
    starts = np.flatnonzero(change)
    return [m[starts] for m in flat], np.diff(starts, append=change.size)


def _check_ids(ids: np.ndarray, *, name: str, where: str, layout: ClassLayout) -> int:
    """The largest id; raises ValueError for unknown classes and for instance ids that no key can hold."""
    low, high = int(ids.min()), int(ids.max())
    if name.endswith("instance"):
        if low < 0 or high >= 1 << INSTANCE_BITS:
            expected = f"ids in 0..2^{INSTANCE_BITS} - 1"
            raise ValueError(f"{where}: expected {name} {expected}, got {low if low < 0 else high}")
        return high
    if low >= 0 and (high < layout.num_classes or ((ids < layout.num_classes) | (ids == layout.void_id)).all()):
        return high
    known = {*range(layout.num_classes), layout.void_id}
    wrong = next(i for i in np.unique(ids).tolist() if i not in known)
    expected = f"class ids 0..{layout.num_classes - 1} or {layout.void_id} (void)"
    raise ValueError(f"{where}: expected {name} {expected}, got {wrong}")


def _segments(
    classes: np.ndarray, instances: np.ndarray | None, highest: tuple[int, int], layout: ClassLayout
) -> tuple[np.ndarray, np.ndarray]:
    """Keys that segments may have, ascending, and the (R,) index of the runs into them; `highest` bounds both ids."""
    codes, stride = classes.astype(np.int64), highest[1] + 1
    if instances is not None:
        codes *= stride
        np.add(codes, instances, out=codes, dtype=np.int64, casting="same_kind")
    size = (highest[0] + 1) * stride
    if size > min(4 * codes.size, TABLE_SIZE):
        possible, codes = index_values(codes, size=size)
    else:
        possible = np.arange(size)
    owner, instance = np.divmod(possible, stride)
    keys = (owner << INSTANCE_BITS) + layout.is_thing[owner] * instance
    is_new = (np.diff(keys, prepend=-1) > 0) & layout.is_known[owner]  # all instances of stuff have one key
    keys, codes = keys[is_new], (np.cumsum(is_new) - 1).take(codes)
    if len(keys) > _FEW_KEYS:
        used, codes = index_values(codes, size=len(keys))
        keys = keys[used]
    return keys, codes


def _tally(
    target: tuple[np.ndarray, np.ndarray],
    pred: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray | None,
    layout: ClassLayout,
) -> JointCounts:
    """Adds up the weights (None: ones) per pair, of which both sides are (keys, index into them)."""
    (target_keys, target_index), (pred_keys, pred_index) = target, pred
    codes, size = target_index * len(pred_keys), len(target_keys) * len(pred_keys)
    codes += pred_index
    if size <= max(4 * codes.size, TABLE_SIZE):
        table = sum_by(codes, weights, size)
        pairs = np.flatnonzero(table)
        area = table[pairs]
    else:
        pairs, index = np.unique(codes, return_inverse=True)
        area = sum_by(index, weights, len(pairs))
    targets, target_index = index_values(pairs // len(pred_keys), size=len(target_keys))
    preds, pred_index = index_values(pairs % len(pred_keys), size=len(pred_keys))
    return JointCounts(layout, target_keys[targets], pred_keys[preds], target_index, pred_index, area)


def _union(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Distinct keys of ascending arrays; a stable sort only merges these, which np.unique does not."""
    merged = np.sort(np.concatenate(keys), kind="stable")
    return merged[np.diff(merged, prepend=-1) > 0]


# Tensors: the same on their device, sorted instead of tabulated


def _count_tensors(maps: Mapping[str, Tensor], layout: ClassLayout, where: str) -> JointCounts:
    flat = torch.stack([m.reshape(-1).long() for m in maps.values()])
    starts = torch.cat([flat.new_zeros(1), (flat[:, 1:] != flat[:, :-1]).any(0).nonzero()[:, 0] + 1])
    lengths = torch.diff(starts, append=starts.new_full((1,), flat.shape[1]))
    runs = dict(zip(maps, flat[:, starts]))
    _check_tensors(runs, layout, where)
    is_thing = torch.from_numpy(layout.is_thing).to(flat.device)
    sides = []
    for side in ("target", "pred"):
        keys = runs[f"{side}_semantic"] << INSTANCE_BITS
        if layout.thing_ids:
            keys = keys + is_thing[runs[f"{side}_semantic"]] * runs[f"{side}_instance"]
        sides.append(torch.unique(keys, return_inverse=True))
    (targets, target_index), (preds, pred_index) = sides
    pairs, index = torch.unique(target_index * len(preds) + pred_index, return_inverse=True)
    area = torch.zeros_like(pairs).index_add_(0, index, lengths)
    found = targets, preds, pairs // len(preds), pairs % len(preds), area
    return JointCounts(layout, *(t.cpu().numpy() for t in found))


def _check_tensors(runs: Mapping[str, Tensor], layout: ClassLayout, where: str) -> None:
    """As `_check_ids` for every map, with a single answer from the device."""
    is_known = torch.from_numpy(layout.is_known)
    legal = []
    for name, ids in runs.items():
        limit = 1 << INSTANCE_BITS if name.endswith("instance") else len(is_known)
        legal.append((ids >= 0) & (ids < limit))
        if not name.endswith("instance"):
            legal.append(is_known.to(ids.device)[ids.clamp(0, limit - 1)])
    if not torch.stack(legal).all():
        for name, ids in runs.items():
            _check_ids(ids.cpu().numpy(), name=name, where=where, layout=layout)
