"""Instance codes -> track ids, drawn as pixels in a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pix2seq_d.video.tracker import TrackIds

ROAD, PERSON, CAR = 0, 11, 13

# track ids: pixels in a row, one string a frame; letters are classes (c car, p person, . road), digits codes


def track(frames: Sequence[str], memory: int) -> list[str]:
    """Track ids of the frames as strings of digits, 0 = none."""
    tracks = TrackIds(memory=memory)
    shown = []
    for frame in frames:
        pixels = frame.split()
        classes = np.array([[{"c": CAR, "p": PERSON, ".": ROAD}[p[0]] for p in pixels]])
        codes = np.array([[int(p[1:] or 0) for p in pixels]])
        shown.append("".join(str(i) for i in tracks.update(classes, codes)[0]))
    return shown


def test_codes_keep_their_track_while_seen() -> None:
    assert track([". c4 c4 p2 .", ". . c4 c4 p2", "p2 . . . c4"], memory=2) == ["02210", "00221", "10002"]


def test_a_track_survives_frames_within_memory() -> None:
    """Unseen in one frame and back in the next: two frames apart, as far as memory 2 reaches."""
    assert track(["c1 .", ". .", "c1 ."], memory=2) == ["10", "00", "10"]


def test_a_code_back_after_memory_is_a_new_object() -> None:
    assert track(["c1 .", ". .", ". .", "c1 ."], memory=2) == ["10", "00", "00", "20"]
    assert track(["c1 .", ". .", "c1 ."], memory=1) == ["10", "00", "20"]


def test_a_code_of_another_class_is_a_new_object() -> None:
    assert track(["c1 .", "p1 .", "c1 ."], memory=2) == ["10", "20", "10"]  # the car was seen two frames ago


def test_tracks_are_never_given_twice() -> None:
    frames = [f"c{k % 3 + 1} ." for k in range(30)]  # every code comes back after three frames
    ids = [int(row[: len(row) - 1]) for row in track(frames, memory=2)]
    assert ids == list(range(1, 31))


def test_a_code_of_two_classes_is_two_objects() -> None:
    """A person and a car that share a code stay apart, and each keeps its id."""
    assert track(["c1 c1 p1 .", ". c1 p1 p1"], memory=2) == ["2210", "0211"]
