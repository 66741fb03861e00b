"""What goes into metrics: the classes, and integer maps (arrays or tensors), checked and indexed by distinct value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

IntegerMap: TypeAlias = np.ndarray | Tensor

MAX_CLASS_ID = (1 << 16) - 1
TABLE_SIZE = 1 << 17  # entries up to which a table costs less than sorting, however few values there are


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


def check_maps(maps: Mapping[str, IntegerMap], *, target: str, where: str) -> None:
    """Raises where the maps are not 2-D integer arrays or tensors of one shape.

    Args:
        maps: name in error messages -> map.
        target: name of the map that sets the shape.
        where: the beginning of error messages.

    Raises:
        TypeError: neither array nor tensor, or not of an integer dtype.
        ValueError: not 2-D, empty, or of unequal shapes.
    """
    for name, m in maps.items():
        if not isinstance(m, np.ndarray | Tensor):
            raise TypeError(f"{where}: expected {name} as a NumPy array or a tensor, got {type(m).__name__}")
        if not _is_integer(m):
            raise TypeError(f"{where}: expected {name} of an integer dtype, got {m.dtype}")
    shape = tuple(maps[target].shape)
    for name, m in maps.items():
        if m.ndim != 2 or 0 in m.shape:
            raise ValueError(f"{where}: expected {name} of shape (H, W), got {tuple(m.shape)}")
        if tuple(m.shape) != shape:
            raise ValueError(f"{where}: expected {name} of the target's shape {shape}, got {tuple(m.shape)}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError where a setting is none of its choices."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def as_array(m: IntegerMap) -> np.ndarray:
    """The map as a NumPy array, copied only from a device."""
    return m.cpu().numpy() if isinstance(m, Tensor) else m


def index_values(values: np.ndarray, *, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values and where they are; by a table where the range is small, else by sorting.

    Args:
        values: (R,) integers in 0..size - 1.
        size: length of that range.

    Returns:
        The sorted distinct values, and the (R,) index of every value into them, int64 each.
    """
    if size > max(4 * values.size, TABLE_SIZE):
        distinct, index = np.unique(values, return_inverse=True)
        return distinct.astype(np.int64), index.reshape(-1)
    seen = np.zeros(size, bool)
    seen[values] = True
    distinct = np.flatnonzero(seen)
    table = np.empty(size, np.int64)
    table[distinct] = np.arange(len(distinct))
    return distinct, table[values]


def sum_by(index: np.ndarray, weights: np.ndarray | None, size: int) -> np.ndarray:
    """(size,) int64 sums of the integer weights per index, exact below 2^53; None counts."""
    return np.bincount(index, weights=weights, minlength=size).astype(np.int64)


def _is_integer(m: IntegerMap) -> bool:
    if isinstance(m, np.ndarray):
        return bool(np.issubdtype(m.dtype, np.integer))
    return not (m.dtype.is_floating_point or m.dtype.is_complex or m.dtype == torch.bool)
