"""The joint histogram of target and predicted segments of one frame, from which every metric of this room is computed.

A segment is a pair (class, instance), held as one int64 key = class * 2^47 + instance. Maps are run-length encoded
first, so that all later work is on runs, not on pixels. R is the number of runs, N of pairs of segments that overlap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

IntegerMap: TypeAlias = np.ndarray | Tensor
SequenceId: TypeAlias = str | int

INSTANCE_BITS = 47
MAX_CLASS_ID = (1 << 16) - 1
_MAP_NAMES = ("pred_semantic", "pred_instance", "target_semantic", "target_instance")


@dataclass(frozen=True)
class ClassLayout:
    """What a metric knows of the classes.

    Attributes:
        num_classes: classes are 0 ... num_classes - 1.
        thing_ids: the classes whose instance ids count; all others are stuff, one segment per class.
        void_id: the class id of unlabelled pixels, inside or outside the range of the classes.
    """

    num_classes: int
    thing_ids: tuple[int, ...]
    void_id: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= MAX_CLASS_ID:
            raise ValueError(f"num_classes: expected 1..{MAX_CLASS_ID}, got {self.num_classes}")
        if not 0 <= self.void_id <= MAX_CLASS_ID:
            raise ValueError(f"void_id: expected 0..{MAX_CLASS_ID}, got {self.void_id}")
        wrong = [c for c in self.thing_ids if not 0 <= c < self.num_classes or c == self.void_id]
        if wrong:
            raise ValueError(f"thing_ids: expected classes 0..{self.num_classes - 1} other than void, got {wrong[0]}")

    @property
    def class_ids(self) -> tuple[int, ...]:
        """All classes, void left out."""
        return tuple(c for c in range(self.num_classes) if c != self.void_id)

    @cached_property
    def is_thing(self) -> np.ndarray:
        """Boolean lookup table over class ids, void included."""
        table = np.zeros(max(self.num_classes, self.void_id + 1), bool)
        table[list(self.thing_ids)] = True
        return table

    @cached_property
    def is_known(self) -> np.ndarray:
        """Boolean lookup table over class ids: a class or void."""
        table = np.zeros(len(self.is_thing), bool)
        table[: self.num_classes] = True
        table[self.void_id] = True
        return table


@dataclass(frozen=True)
class JointCounts:
    """How many pixels every pair of a target segment and a predicted segment shares; pairs without pixels are left out.

    Stuff and void have instance 0. Pairs are sorted by target key, then by predicted key, and none occurs twice, so
    equal maps give equal arrays.

    Attributes:
        layout: the classes.
        target_key: (N,) int64 target segments.
        pred_key: (N,) int64 predicted segments.
        area: (N,) int64 shared pixels, all positive.
    """

    layout: ClassLayout
    target_key: np.ndarray
    pred_key: np.ndarray
    area: np.ndarray

    @cached_property
    def target_class(self) -> np.ndarray:
        """(N,) int64 class of the target segment, or void_id."""
        return self.target_key >> INSTANCE_BITS

    @cached_property
    def pred_class(self) -> np.ndarray:
        """(N,) int64 class of the predicted segment, or void_id."""
        return self.pred_key >> INSTANCE_BITS

    @cached_property
    def target_crowd(self) -> np.ndarray:
        """(N,) bool, the target is a region of a thing class with instance 0."""
        no_instance = (self.target_key & ((1 << INSTANCE_BITS) - 1)) == 0
        return self.layout.is_thing[self.target_class] & no_instance


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
    maps = {name: m for name, m in given.items() if m is not None}
    _check_maps(maps, where=where)
    lengths, runs = _run_lengths(list(maps.values()))
    values = dict(zip(maps, runs))
    for name, ids in values.items():
        _check_ids(ids, name=name, where=where, layout=layout if name.endswith("semantic") else None)
    target = _segments(values["target_semantic"], values.get("target_instance"), layout)
    pred = _segments(values["pred_semantic"], values.get("pred_instance"), layout)
    return _tally(target, pred, lengths, layout)


def pool(counts: Sequence[JointCounts]) -> JointCounts:
    """The histogram of several frames seen as one: the areas of equal pairs are added."""
    if len(counts) == 1:
        return counts[0]
    target, pred, area = (np.concatenate([getattr(c, f) for c in counts]) for f in ("target_key", "pred_key", "area"))
    return _tally(_index(target), _index(pred), area, counts[0].layout)


class SegmentationMetric(ABC):
    """What all metrics share: updates with maps or with ready-made counts, frames per sequence, merging.

    Attributes:
        layout: the classes.
        options: the other settings that must be equal where two metrics merge.
        num_frames: frames seen, per sequence.
    """

    shares_sequences = True  # whether two merged metrics may have seen frames of one sequence

    def __init__(self, layout: ClassLayout, options: dict[str, Any]) -> None:
        self.layout = layout
        self.options = options
        self.reset()

    def update(
        self,
        pred_semantic: IntegerMap,
        pred_instance: IntegerMap | None,
        target_semantic: IntegerMap,
        target_instance: IntegerMap | None,
        sequence_id: SequenceId = "0",
    ) -> None:
        """Adds one frame; see `joint_counts` for the maps and what raises. Frames of one sequence come in order."""
        where = f"sequence {sequence_id!r}, frame {self.num_frames.get(sequence_id, 0)}"
        maps = pred_semantic, pred_instance, target_semantic, target_instance
        self.update_counts(joint_counts(*maps, layout=self.layout, where=where), sequence_id=sequence_id)

    def update_counts(self, counts: JointCounts, *, sequence_id: SequenceId = "0") -> None:
        """Adds one frame whose histogram is known already; raises ValueError if it was made for other classes."""
        if not self._accepts(counts.layout):
            raise ValueError(f"counts: expected {self.layout}, got {counts.layout}")
        self._add(counts, sequence_id)
        self.num_frames[sequence_id] = self.num_frames.get(sequence_id, 0) + 1

    def merge(self, other: SegmentationMetric) -> None:
        """Adds what `other` has seen; the result is exactly that of one metric that has seen everything.

        Raises:
            TypeError: `other` is another kind of metric.
            ValueError: other settings, or a sequence that both have seen where frames of a sequence belong together.
        """
        if type(other) is not type(self):
            raise TypeError(f"merge: expected a {type(self).__name__}, got a {type(other).__name__}")
        if (other.layout, other.options) != (self.layout, self.options):
            raise ValueError(f"merge: expected {self.layout} {self.options}, got {other.layout} {other.options}")
        shared = sorted(str(s) for s in self.num_frames.keys() & other.num_frames.keys())
        if shared and not self.shares_sequences:
            raise ValueError(f"merge: expected disjoint sequences, got {', '.join(shared[:10])} in both")
        self._merge(other)
        for sequence_id, n in other.num_frames.items():
            self.num_frames[sequence_id] = self.num_frames.get(sequence_id, 0) + n

    def reset(self) -> None:
        """Forgets everything that was added."""
        self.num_frames: dict[SequenceId, int] = {}
        self._clear()

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """The result for everything that was added."""

    def _accepts(self, layout: ClassLayout) -> bool:
        return layout == self.layout

    @abstractmethod
    def _add(self, counts: JointCounts, sequence_id: SequenceId) -> None: ...

    @abstractmethod
    def _merge(self, other: Any) -> None: ...

    @abstractmethod
    def _clear(self) -> None: ...


# Validation: shapes and types on the maps, ranges on the values of their runs


def _check_maps(maps: dict[str, IntegerMap], *, where: str) -> None:
    for name, m in maps.items():
        if not isinstance(m, np.ndarray | Tensor):
            raise TypeError(f"{where}: expected {name} as a NumPy array or a tensor, got {type(m).__name__}")
        if not _is_integer(m):
            raise TypeError(f"{where}: expected {name} of an integer dtype, got {m.dtype}")
    shape = tuple(maps["target_semantic"].shape)
    for name, m in maps.items():
        if m.ndim != 2 or 0 in m.shape:
            raise ValueError(f"{where}: expected {name} of shape (H, W), got {tuple(m.shape)}")
        if tuple(m.shape) != shape:
            raise ValueError(f"{where}: expected {name} of the target's shape {shape}, got {tuple(m.shape)}")


def _is_integer(m: IntegerMap) -> bool:
    if isinstance(m, np.ndarray):
        return bool(np.issubdtype(m.dtype, np.integer))
    return not (m.dtype.is_floating_point or m.dtype.is_complex or m.dtype == torch.bool)


def _check_ids(ids: np.ndarray, *, name: str, where: str, layout: ClassLayout | None) -> None:
    low, high = int(ids.min()), int(ids.max())
    if layout is None:
        if low < 0 or high >= 1 << INSTANCE_BITS:
            raise ValueError(
                f"{where}: expected {name} ids in 0..2^{INSTANCE_BITS} - 1, got {low if low < 0 else high}"
            )
        return
    known = layout.is_known
    if low >= 0 and high < len(known) and known[ids].all():
        return
    wrong = next(i for i in np.unique(ids).tolist() if not (0 <= i < len(known) and known[i]))
    expected = f"0..{layout.num_classes - 1} or {layout.void_id} (void)"
    raise ValueError(f"{where}: expected {name} class ids {expected}, got {wrong}")


# Maps to runs: a run ends where one of the maps changes


def _run_lengths(maps: list[IntegerMap]) -> tuple[np.ndarray, list[np.ndarray]]:
    """(R,) int64 lengths of the runs, and the (R,) values of every map."""
    devices = {m.device.type if isinstance(m, Tensor) else "cpu" for m in maps}
    if devices == {"cpu"} or len(devices) > 1:
        starts, values = _runs_numpy([m.cpu().numpy() if isinstance(m, Tensor) else m for m in maps])
    else:
        starts, values = _runs_torch([m for m in maps if isinstance(m, Tensor)])
    num_pixels = int(np.prod(maps[0].shape))
    return np.diff(starts, append=num_pixels), values


def _runs_numpy(maps: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    flat = [m.reshape(-1) for m in maps]
    change = np.ones(flat[0].size, bool)
    np.not_equal(flat[0][1:], flat[0][:-1], out=change[1:])
    for m in flat[1:]:
        change[1:] |= m[1:] != m[:-1]
    starts = np.flatnonzero(change)
    return starts, [m[starts] for m in flat]


def _runs_torch(maps: list[Tensor]) -> tuple[np.ndarray, list[np.ndarray]]:
    stacked = torch.stack([m.reshape(-1).long() for m in maps])
    change = (stacked[:, 1:] != stacked[:, :-1]).any(0)
    starts = torch.cat([change.new_zeros(1, dtype=torch.long), change.nonzero()[:, 0] + 1])
    values = torch.cat([starts[None], stacked[:, starts]]).cpu().numpy()  # one transfer
    return values[0], list(values[1:])


# Runs to segments, segments to pairs


def _segments(classes: np.ndarray, instances: np.ndarray | None, layout: ClassLayout) -> tuple[np.ndarray, np.ndarray]:
    """Keys of the segments, sorted, and the (R,) index of the runs into them."""
    codes = classes.astype(np.int64)
    stride = 1
    if instances is not None:
        kept = np.where(layout.is_thing[codes], instances, 0).astype(np.int64)
        stride = int(kept.max()) + 1
        codes = codes * stride + kept
    codes, index = _index(codes)
    return (codes // stride << INSTANCE_BITS) + codes % stride, index


def _tally(
    target: tuple[np.ndarray, np.ndarray], pred: tuple[np.ndarray, np.ndarray], weights: np.ndarray, layout: ClassLayout
) -> JointCounts:
    (target_keys, target_index), (pred_keys, pred_index) = target, pred
    pairs, index = _index(target_index * len(pred_keys) + pred_index)
    area = np.bincount(index, weights=weights).astype(np.int64)  # float64 sums of integers, exact below 2^53
    return JointCounts(layout, target_keys[pairs // len(pred_keys)], pred_keys[pairs % len(pred_keys)], area)


def _index(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct codes and the index of every code into them; by a table where it is small, else by sorting."""
    size = int(codes.max()) + 1
    if size > 4 * codes.size + 4096:
        return np.unique(codes, return_inverse=True)
    seen = np.zeros(size, bool)
    seen[codes] = True
    values = np.flatnonzero(seen)
    table = np.empty(size, np.int64)
    table[values] = np.arange(len(values))
    return values, table[codes]
