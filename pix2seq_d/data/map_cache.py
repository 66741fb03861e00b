"""Label maps in memory, as runs of equal pixels: every map belongs to several clips, and all come again every epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

Maps = tuple[np.ndarray, np.ndarray]


def find_runs(*maps: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs in which all maps of one size are constant, in the order of memory; none goes on in another row of `row`.

    A label map has some hundredths as many runs as pixels: what is computed for them alone costs next to nothing.

    Returns:
        (R,) starts and (R,) lengths, int64.
    """
    begins = np.zeros(maps[0].size, bool)
    for flat in (m.reshape(-1) for m in maps):
        begins[1:] |= flat[1:] != flat[:-1]
    begins[::row] = True
    starts = np.flatnonzero(begins)
    return starts, np.diff(starts, append=begins.size)


class _Runs(NamedTuple):
    """A class map and an instance map by their runs."""

    lengths: np.ndarray
    classes: np.ndarray
    instances: np.ndarray
    size: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.lengths.nbytes + self.classes.nbytes + self.instances.nbytes


class MapCache:
    """Keeps maps until `max_bytes` are in use, those that were read first; a file that changes later is not noticed.

    Clips are drawn in a random order, each once an epoch: to throw one map out for another would gain nothing.

    Args:
        max_bytes: limit, of the runs alone; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"expected max_bytes of 0 or more, got {max_bytes}")
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._kept: dict[Path, _Runs] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, path: Path, reader: Callable[[Path], Maps]) -> Maps:
        """The class map and instance map of a file: new arrays where it is kept, else what `reader` makes of it."""
        if (runs := self._kept.get(path)) is not None:
            class_map, instance_map = (np.repeat(v, runs.lengths) for v in (runs.classes, runs.instances))
            return class_map.reshape(runs.size), instance_map.reshape(runs.size)
        maps = reader(path)
        if self.used_bytes < self.max_bytes:
            self._keep(path, *maps)
        return maps

    def _keep(self, path: Path, class_map: np.ndarray, instance_map: np.ndarray) -> None:
        starts, lengths = find_runs(class_map, instance_map, row=class_map.size)
        classes, instances = (m.reshape(-1)[starts] for m in (class_map, instance_map))
        runs = _Runs(lengths.astype(np.int32), classes, instances, class_map.shape)
        if self.used_bytes + runs.nbytes <= self.max_bytes:
            self._kept[path] = runs
            self.used_bytes += runs.nbytes
