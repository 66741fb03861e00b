"""Mistakes of a tracker, made in the past maps of a clip, so that a model learns to recover from its own.

Training conditions on true past maps, inference on predicted ones. Only the past maps change; the map to predict and
the present flags never do. T past maps, h w map size, N objects (a class and an instance id) of the past maps.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from pix2seq_d.data.batch import Clip
from pix2seq_d.labels import VOID_ID

_NUM_CLASSES = 256  # segments 0..255 are classes without an instance, objects follow


@dataclass(frozen=True)
class PastCorruption:
    """What may go wrong in the past maps, each on its own; the defaults change nothing.

    Where an object goes, its pixels take the nearest other label of their row (void if there is none): a missed car
    becomes the road, or part of the car beside it. Absent past maps stay as they are.

    Attributes:
        drop_rate: probability per object of vanishing from one past map or from all of them, with equal chances for
            each map and for all. Imitates a missed object: the model must find it again, with its own code.
        swap_rate: probability per clip that two neighbours of one class exchange their ids in one past map. Imitates an
            identity switch; the other past maps tell the truth, so clips with fewer than two present ones have none.
        shift: largest displacement of an object in either direction, in map pixels, drawn per object and past map.
            Imitates a mask that lags behind or lies beside its object.
        edge_rate: probability per object and past map that its mask is a pixel too wide or (equally often) too narrow.
            Imitates borders blurred by the mask's size and by few denoising steps.

    Raises:
        ValueError: a rate outside 0..1 or a negative shift.
    """

    drop_rate: float = 0.0
    swap_rate: float = 0.0
    shift: int = 0
    edge_rate: float = 0.0

    def __post_init__(self) -> None:
        for name in ("drop_rate", "swap_rate", "edge_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"expected {name} in 0..1, got {getattr(self, name)}")
        if self.shift < 0:
            raise ValueError(f"expected shift >= 0, got {self.shift}")

    def __bool__(self) -> bool:
        """Whether anything can change."""
        return any(getattr(self, f.name) for f in fields(self))

    def apply(self, clip: Clip, seed: int) -> Clip:
        """The clip with its present past maps corrupted; the same seed makes the same mistakes.

        Args:
            clip: maps of any size; not changed.
            seed: of every draw, not negative. A clip takes the same draws whatever the settings.

        Returns:
            A clip with new maps. A label of a past map is one that the past maps held, or void.
        """
        present = np.flatnonzero(clip.present[:-1])
        segments, objects = _number(clip.class_map[:-1], clip.instance_map[:-1])
        rng, t, n = np.random.default_rng(seed), len(segments), len(objects)
        dropped = (rng.random(n) < self.drop_rate) & _one_or_all(rng.integers(0, t + 1, n), t)
        u = rng.random((t, n))
        edge = (u < self.edge_rate / 2).astype(np.int8) - (u > 1 - self.edge_rate / 2)
        shift = (rng.random((t, n, 2)) * (2 * self.shift + 1)).astype(np.int64) - self.shift
        place, swap = rng.random(2)
        for k in present:
            segments[k] = _corrupt(segments[k], dropped[k], shift[k], edge[k])
        if len(present) > 1 and swap < self.swap_rate:
            k = present[int(place * len(present))]
            segments[k] = _swap(segments[k], objects & 255, rng)
        class_map, instance_map = clip.class_map.copy(), clip.instance_map.copy()
        class_map[:-1] = np.concatenate([np.arange(_NUM_CLASSES), objects & 255])[segments]
        instance_map[:-1] = np.concatenate([np.zeros(_NUM_CLASSES, np.int64), objects >> 8])[segments]
        return replace(clip, class_map=class_map, instance_map=instance_map)


def _number(class_map: np.ndarray, instance_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, h, w) int32 segments (class, or 256 + number of the object); (N,) int64 objects, instance * 256 + class."""
    segments = class_map.astype(np.int32)
    pixels = instance_map != 0
    objects, numbers = np.unique(instance_map[pixels].astype(np.int64) * 256 + class_map[pixels], return_inverse=True)
    segments[pixels] = numbers + _NUM_CLASSES
    return segments, objects


def _one_or_all(choice: np.ndarray, t: int) -> np.ndarray:
    """(N,) numbers 0..t -> (t, N) bool: map number `choice`, or every map where it is t."""
    return (choice == np.arange(t)[:, None]) | (choice == t)


def _per_segment(values: np.ndarray) -> np.ndarray:
    """(N, ...) values of the objects -> (256 + N, ...) by segment, zero for classes without an instance."""
    return np.concatenate([np.zeros((_NUM_CLASSES, *values.shape[1:]), values.dtype), values])


def _corrupt(segments: np.ndarray, dropped: np.ndarray, shift: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """One (h, w) map with its objects dropped, moved, grown and shrunk."""
    dropped, shift, edge = _per_segment(dropped), _per_segment(shift), _per_segment(edge)
    gone, moved = dropped[segments], (shift != 0).any(axis=1)[segments]
    out = _fill(segments, gone | moved)
    rows, cols = np.nonzero(moved & ~gone)
    numbers = segments[rows, cols]
    rows, cols = rows + shift[numbers, 0], cols + shift[numbers, 1]
    inside = (rows >= 0) & (rows < out.shape[0]) & (cols >= 0) & (cols < out.shape[1])
    out[rows[inside], cols[inside]] = numbers[inside]
    return _move_borders(out, edge[out]) if edge.any() else out


def _fill(segments: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """The map with every hole given the label of the nearest pixel of its row that is none, void if there is none."""
    out, rows = segments.copy(), np.flatnonzero(holes.any(axis=1))
    holes, cols, width = holes[rows], np.arange(segments.shape[1]), segments.shape[1]
    left = np.maximum.accumulate(np.where(holes, -width, cols), axis=1)
    right = np.minimum.accumulate(np.where(holes, 2 * width, cols)[:, ::-1], axis=1)[:, ::-1]
    nearest = np.where(cols - left <= right - cols, left, right)
    empty = (nearest < 0) | (nearest >= width)
    filled = np.take_along_axis(segments[rows], np.where(empty, 0, nearest), axis=1)
    out[rows] = np.where(empty, VOID_ID, filled)
    return out


def _move_borders(segments: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The map with every border moved by a pixel from the stronger into the weaker of its two sides."""
    out = segments.copy()
    for to, of in ((np.s_[1:], np.s_[:-1]), (np.s_[:-1], np.s_[1:]), (np.s_[:, 1:], np.s_[:, :-1]),
                   (np.s_[:, :-1], np.s_[:, 1:])):  # fmt: skip
        taken = strength[of] > strength[to]
        out[to][taken] = segments[of][taken]
    return out


def _swap(segments: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One (h, w) map with the numbers of two objects of one class exchanged: a random one and the nearest to it."""
    rows, cols = np.nonzero(segments >= _NUM_CLASSES)
    numbers = segments[rows, cols] - _NUM_CLASSES
    areas = np.bincount(numbers, minlength=len(classes))
    seen = np.flatnonzero(areas)
    paired = seen[np.bincount(classes[seen], minlength=_NUM_CLASSES)[classes[seen]] > 1]
    if not len(paired):
        return segments
    centres = np.stack([np.bincount(numbers, weights=w, minlength=len(classes))[paired] for w in (rows, cols)], axis=1)
    centres /= areas[paired, None]
    one = int(rng.integers(len(paired)))
    distances = np.square(centres - centres[one]).sum(axis=1)
    distances[(classes[paired] != classes[paired[one]]) | (np.arange(len(paired)) == one)] = np.inf
    pair = paired[[one, int(distances.argmin())]] + _NUM_CLASSES
    renamed = np.arange(_NUM_CLASSES + len(classes), dtype=segments.dtype)
    renamed[pair] = pair[::-1]
    return renamed[segments]
