"""Runs of equal pixels, and label maps kept as runs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seq_d.data.map_cache import MapCache, Maps, find_runs

RUN_BYTES = 4 + 1 + 4  # length, uint8 class, int32 instance


class Files:
    """Maps by name; counts what is read."""

    def __init__(self, **maps: list[list[int]]) -> None:
        self.maps, self.reads = {Path(name): np.array(values) for name, values in maps.items()}, []

    def read(self, path: Path) -> Maps:
        self.reads.append(path.name)
        return self.maps[path].astype(np.uint8), self.maps[path].astype(np.int32) * 1000


def test_runs_end_where_any_map_changes_and_at_rows() -> None:
    one, other = np.array([[5, 5, 5, 7], [7, 7, 7, 7]]), np.array([[0, 0, 1, 1], [1, 1, 1, 2]], np.uint8)
    starts, lengths = find_runs(one, other, row=4)
    assert starts.tolist() == [0, 2, 3, 4, 7]
    assert lengths.tolist() == [2, 1, 1, 3, 1]
    assert find_runs(one, row=8)[0].tolist() == [0, 3]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 6), width=st.integers(1, 6), strided=st.booleans())
def test_kept_maps_are_those_that_were_read(seed: int, height: int, width: int, strided: bool) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 3, (height, width, 3), dtype=np.uint8)
    maps = samples[..., 0], samples[..., 1:].view(">u2")[..., 0]
    maps = maps if strided else (maps[0].copy(), maps[1].astype(np.int32))
    cache = MapCache(10_000)
    for _ in range(2):
        for kept, expected in zip(cache.read(Path("a"), lambda path: maps), maps):
            np.testing.assert_array_equal(kept, expected)
            assert kept.dtype == expected.dtype
    assert len(cache) == 1


def test_files_are_read_once_and_arrays_are_new() -> None:
    files, cache = Files(a=[[1, 1], [2, 2]]), MapCache(1000)
    cache.read(Path("a"), files.read)
    cache.read(Path("a"), files.read)[0][:] = 9
    class_map, instance_map = cache.read(Path("a"), files.read)
    assert class_map.tolist() == [[1, 1], [2, 2]]
    assert instance_map.tolist() == [[1000, 1000], [2000, 2000]]
    assert files.reads == ["a"]
    assert cache.used_bytes == 2 * RUN_BYTES


def test_the_limit_holds_and_the_first_stay() -> None:
    """Three runs of room: a takes two, b needs two, c fits."""
    files, cache = Files(a=[[1, 2]], b=[[3, 4]], c=[[5, 5]]), MapCache(3 * RUN_BYTES)
    for name in "abcabc":
        cache.read(Path(name), files.read)
    assert files.reads == ["a", "b", "c", "b"]
    assert (cache.used_bytes, len(cache)) == (3 * RUN_BYTES, 2)


@pytest.mark.parametrize("max_bytes", [0, 1])
def test_nothing_is_kept_without_room(max_bytes: int) -> None:
    files, cache = Files(a=[[1, 2]]), MapCache(max_bytes)
    for _ in range(2):
        cache.read(Path("a"), files.read)
    assert files.reads == ["a", "a"]
    assert len(cache) == 0


def test_errors_of_the_reader_pass_and_keep_nothing() -> None:
    def fail(path: Path) -> Maps:
        raise OSError(path.name)

    cache = MapCache(100)
    with pytest.raises(OSError, match=r"^a$"):
        cache.read(Path("a"), fail)
    assert len(cache) == 0


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^expected max_bytes of 0 or more, got -1$"):
        MapCache(-1)
