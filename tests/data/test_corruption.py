"""Mistakes in past maps, drawn by hand: rows of one or a few pixels, one kind of mistake at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seq_d.data.batch import Clip
from pix2seq_d.data.corruption import PastCorruption

ROAD, CAR, PERSON, VOID = 0, 13, 11, 255
EVERYTHING = PastCorruption(drop_rate=0.4, swap_rate=0.7, shift=2, edge_rate=0.6)


def clip_of(*rows: str, present: tuple[bool, ...] | None = None) -> Clip:
    """One map per text: "." road, "A".."H" cars 1.., "a".."h" persons 1.., "?" void; lines are parted by "/"."""
    letters = np.array([[list(line) for line in row.split("/")] for row in rows])
    numbers = np.vectorize(ord)(letters)
    classes = np.select([letters == ".", letters == "?", numbers < 97], [ROAD, VOID, CAR], PERSON)
    instances = np.where(classes == CAR, numbers - 64, np.where(classes == PERSON, numbers - 96, 0))
    shown = np.ones(len(rows), bool) if present is None else np.array(present)
    frames = np.zeros((1, *letters.shape[1:], 3), np.uint8)
    return Clip(frames, classes.astype(np.uint8), instances.astype(np.int32), shown, "a", 0)


def drawn(clip: Clip) -> list[str]:
    """The inverse of `clip_of`."""

    def letter(c: int, i: int) -> str:
        return {ROAD: ".", VOID: "?", CAR: chr(64 + i), PERSON: chr(96 + i)}[c]

    maps = zip(clip.class_map.tolist(), clip.instance_map.tolist())
    return ["/".join("".join(map(letter, *line)) for line in zip(*pair)) for pair in maps]


def outcomes(corruption: PastCorruption, *rows: str, seeds: int = 60) -> set[tuple[str, ...]]:
    """Every past that some seed makes; the last map is checked to stay."""
    results = [drawn(corruption.apply(clip_of(*rows), seed)) for seed in range(seeds)]
    assert {r[-1] for r in results} == {rows[-1]}
    return {tuple(r[:-1]) for r in results}


def test_nothing_is_asked_for() -> None:
    assert not PastCorruption()
    assert outcomes(PastCorruption(), ".AA.b", ".AA.b") == {(".AA.b",)}
    assert all([PastCorruption(drop_rate=0.1), PastCorruption(swap_rate=0.1), PastCorruption(shift=1)])
    assert PastCorruption(edge_rate=0.1)


def test_dropped_objects_become_what_is_nearest_in_their_row() -> None:
    """B gone: two pixels are nearer to A, two to the road. A gone: only B is left. Both: road. A tie goes left."""
    past = outcomes(PastCorruption(drop_rate=0.5), "AABBBB..", "........")
    assert past == {("AABBBB..",), ("AAAA....",), ("BBBBBB..",), ("........",)}
    assert outcomes(PastCorruption(drop_rate=1), "..A?/AAAA", "..../....") == {("...?/????",)}


def test_objects_are_dropped_from_one_map_or_from_all() -> None:
    past = outcomes(PastCorruption(drop_rate=1), ".A.", ".A.", ".A.")
    assert past == {("...", ".A."), (".A.", "..."), ("...", "...")}
    assert len(outcomes(PastCorruption(drop_rate=0.5), ".A.", ".A.", ".A.")) == 4


def test_neighbours_of_one_class_swap_in_one_map() -> None:
    """A's nearest car is B, B's is A, C's is B; the person stays out of it though it stands between."""
    past = outcomes(PastCorruption(swap_rate=1), "AaB...C", "AaB...C", "AaB...C")
    swapped, same = {"BaA...C", "AaC...B"}, "AaB...C"
    assert past == {(s, same) for s in swapped} | {(same, s) for s in swapped}
    assert len(outcomes(PastCorruption(swap_rate=0.5), "A.B", "A.B", "A.B")) == 3


def test_no_swap_without_a_witness_or_a_pair() -> None:
    assert outcomes(PastCorruption(swap_rate=1), "A.B", "A.B") == {("A.B",)}
    assert outcomes(PastCorruption(swap_rate=1), "A.b", "A.b", "A.b") == {("A.b", "A.b")}
    one_present = clip_of("A.B", "A.B", "A.B", present=(False, True, True))
    assert drawn(PastCorruption(swap_rate=1).apply(one_present, 0)) == ["A.B"] * 3


def test_objects_are_shifted_and_leave_their_surroundings_behind() -> None:
    """Rows move too: up and down the only row is left, and the object with it."""
    past = outcomes(PastCorruption(shift=1), "..AA..", "......")
    assert past == {("..AA..",), (".AA...",), ("...AA.",), ("......",)}
    tall = outcomes(
        PastCorruption(shift=2), "...../...../..A../...../.....", "...../...../...../...../.....", seeds=300
    )
    assert len(tall) == 25


def test_objects_are_a_pixel_wider_or_narrower() -> None:
    past = outcomes(
        PastCorruption(edge_rate=1), "....../.AAAA./.AAAA./.AAAA./......", "....../....../....../....../......"
    )
    assert past == {("....../....../..AA../....../......",), (".AAAA./AAAAAA/AAAAAA/AAAAAA/.AAAA.",)}
    assert len(outcomes(PastCorruption(edge_rate=0.5), ".AAA.", ".....")) == 3


def test_borders_between_objects() -> None:
    """Both grow or both shrink: their common border stays. One grows, the other shrinks: it moves by one pixel."""
    past = outcomes(PastCorruption(edge_rate=1), ".AABB.", "......")
    assert past == {("AAABBB",), ("..AB..",), ("AAAA..",), ("..BBBB",)}


def test_absent_maps_stay() -> None:
    clip = clip_of("??A", ".AA", ".AA", present=(False, True, True))
    maps = {drawn(PastCorruption(drop_rate=1).apply(clip, seed))[0] for seed in range(20)}
    assert maps == {"??A"}


def test_images_and_clips_without_a_past() -> None:
    assert drawn(EVERYTHING.apply(clip_of("A.B"), 0)) == ["A.B"]


@pytest.mark.parametrize("change", [{"drop_rate": 1.0}, {"swap_rate": 1.0}, {"shift": 1}, {"edge_rate": 1.0}])
def test_every_setting_acts_and_repeats_itself(change: dict[str, float]) -> None:
    clip, corruption = clip_of(*["..AA..BB.."] * 3), PastCorruption(**change)  # type: ignore[arg-type]
    results = [drawn(corruption.apply(clip, seed)) for seed in range(9)]
    assert any(result != drawn(clip) for result in results)
    assert results == [drawn(corruption.apply(clip, seed)) for seed in range(9)]


def test_switching_one_mistake_on_leaves_the_draws_of_the_others() -> None:
    """Whether objects are moved as well or not, the same ones are missing from the same maps."""
    clip = clip_of(*["......./.A...B./......."] * 3)
    for seed in range(12):
        alone, moved = (drawn(PastCorruption(drop_rate=0.5, shift=s).apply(clip, seed)) for s in (0, 1))
        assert [set(one) for one in alone] == [set(other) for other in moved]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    past=st.integers(0, 3),
    rates=st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 3),
    shift=st.integers(0, 12),
)
def test_no_label_is_invented_and_the_rest_is_untouched(
    seed: int, size: tuple[int, int], past: int, rates: tuple[float, float, float], shift: int
) -> None:
    rng = np.random.default_rng(seed)
    class_map = rng.choice(np.array([ROAD, PERSON, CAR, VOID], np.uint8), (past + 1, *size))
    ids = rng.choice(np.array([0, 1, 2, 70000], np.int32), class_map.shape)
    instance_map = np.where(np.isin(class_map, (PERSON, CAR)), ids, 0).astype(np.int32)
    present = np.append(rng.random(past) < 0.7, True)
    clip = Clip(np.zeros((1, *size, 3), np.uint8), class_map, instance_map, present, "a", 0)
    before = class_map.copy(), instance_map.copy()
    out = PastCorruption(rates[0], rates[1], shift, rates[2]).apply(clip, seed)
    still = np.append(~present[:-1], True)
    np.testing.assert_array_equal(out.class_map[still], class_map[still])
    np.testing.assert_array_equal(out.instance_map[still], instance_map[still])
    assert (out.class_map.dtype, out.instance_map.dtype) == (np.uint8, np.int32)
    labels = set(zip(class_map[:-1].ravel().tolist(), instance_map[:-1].ravel().tolist()))
    assert set(zip(out.class_map[:-1].ravel().tolist(), out.instance_map[:-1].ravel().tolist())) <= labels | {(VOID, 0)}
    assert out.present is clip.present
    assert out.frames is clip.frames
    np.testing.assert_array_equal(clip.class_map, before[0])
    np.testing.assert_array_equal(clip.instance_map, before[1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"drop_rate": 1.1}, r"^expected drop_rate in 0..1, got 1.1"),
        ({"swap_rate": -0.1}, r"^expected swap_rate in 0..1, got -0.1"),
        ({"edge_rate": float("nan")}, r"^expected edge_rate in 0..1, got nan"),
        ({"shift": -1}, r"^expected shift >= 0, got -1"),
    ],
)
def test_bad_settings(arguments: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PastCorruption(**arguments)  # type: ignore[arg-type]
