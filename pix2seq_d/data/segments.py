"""Maps as runs of equal pixels: what COCO's formats say of a segment, without a pass over the pixels per segment.

H, W size of the map, R runs, S segments. A run is a stretch of one row; street scenes have some ten thousand of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Segments(NamedTuple):
    """The distinct values of a map, ascending, and where they lie.

    Attributes:
        keys: (S,) values.
        areas: (S,) int64, pixels of each.
        boxes: (S, 4) int64, smallest boxes around them: x, y, width, height.
        owners: (R,) int64, segment of every run.
        lengths: (R,) int64, pixels of every run.
        shape: (H, W).
    """

    keys: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    owners: np.ndarray
    lengths: np.ndarray
    shape: tuple[int, ...]

    def paint(self, values: np.ndarray) -> np.ndarray:
        """(S, ...) values, one per segment, as a map (H, W, ...) of the same dtype."""
        return np.repeat(values[self.owners], self.lengths, axis=0).reshape(*self.shape, *values.shape[1:])


def find_segments(values: np.ndarray) -> Segments:
    """The segments of a (H, W) integer map; each value is one segment, connected or not."""
    starts, lengths = _runs(values)
    rows, cols = np.divmod(starts, values.shape[1])
    keys, owners = np.unique(values.reshape(-1)[starts], return_inverse=True)
    areas = np.bincount(owners, weights=lengths, minlength=len(keys)).astype(np.int64)
    order = np.argsort(owners, kind="stable")
    first = np.searchsorted(owners[order], np.arange(len(keys)))
    left, top = (np.minimum.reduceat(v[order], first) for v in (cols, rows))
    right, bottom = (np.maximum.reduceat(v[order], first) for v in (cols + lengths, rows + 1))
    boxes = np.stack([left, top, right - left, bottom - top], axis=1)
    return Segments(keys, areas, boxes, owners, lengths, values.shape)


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs of a (H, W) map begin in its flat order, and their lengths; a run ends with its row."""
    if values.ndim != 2 or not values.size:
        raise ValueError(f"expected a (H, W) map with pixels, got shape {values.shape}")
    changes = np.ones(values.shape, bool)
    changes[:, 1:] = values[:, 1:] != values[:, :-1]
    starts = np.flatnonzero(changes)
    return starts, np.diff(starts, append=values.size)
