"""Confusions, id switches as CLEAR counts them, scores of frames, and the map of errors: drawings worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pix2seq_d.engine.failures import (
    CORRECT,
    OTHER_CLASS,
    OTHER_OBJECT,
    UNLABELLED,
    FailureLog,
    FrameScore,
    IdSwitch,
    SequenceFailures,
    error_map,
)
from pix2seq_d.labels import get_label_spec
from pix2seq_d.metrics.counts import ClassLayout, joint_counts

KITTI, CAMVID = get_label_spec("kitti-step"), get_label_spec("camvid")
ROAD, PERSON, CAR, VOID = 0, 11, 13, 255


def row(*pixels: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(class, instance) of every pixel as a class map and an instance map of one row."""
    classes, ids = np.array(pixels).T
    return classes[None], ids[None]


def log(*frames: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> SequenceFailures:
    """What is gathered of (prediction, target) frames called "0", "1", ..."""
    gathered = FailureLog(KITTI)
    layout = ClassLayout(KITTI.num_classes, KITTI.thing_ids, KITTI.void_id)
    for k, (prediction, target) in enumerate(frames):
        gathered.update(joint_counts(*prediction, *target, layout=layout, where="test"), str(k))
    return gathered.result


def cars(*ids: int) -> tuple[np.ndarray, np.ndarray]:
    """Three pixels for each car, in this order."""
    return row(*[(CAR, i) for i in ids for _ in range(3)])


def test_an_id_switch_is_a_match_with_another_id_than_the_last_match() -> None:
    target = cars(1, 2)
    failures = log(
        (cars(5, 6), target),  # the first match is no switch
        (cars(6, 5), target),  # both change
        (row(*[(ROAD, 0)] * 6), target),  # missed: no match, no switch
        (cars(6, 9), target),  # one goes on where it was, one is new
        (cars(6, 9), target),
    )
    assert failures.switches == [
        IdSwitch("1", CAR, 1, 5, 6),
        IdSwitch("1", CAR, 2, 6, 5),
        IdSwitch("3", CAR, 2, 5, 9),
    ]


@pytest.mark.parametrize(
    ("second", "switches"),
    [
        ([(CAR, 7)] * 3 + [(ROAD, 0)], 1),  # 3/4 of the pixels
        ([(CAR, 7)] * 2 + [(ROAD, 0)] * 2, 0),  # 2/4 is no match: above one half is asked for
        ([(PERSON, 7)] * 4, 0),  # another class
        ([(CAR, 0)] * 4, 0),  # no object
    ],
)
def test_what_matches(second: list[tuple[int, int]], switches: int) -> None:
    target = row(*[(CAR, 1)] * 4)
    assert len(log((target, target), (row(*second), target)).switches) == switches


def test_masks_are_compared_over_all_pixels() -> None:
    """As in MOTS, and other than in PQ: 2 shared pixels, 2 more on void, union 4."""
    target = row((CAR, 1), (CAR, 1), (VOID, 0), (VOID, 0))
    assert log((target, target), (row(*[(CAR, 7)] * 4), target)).switches == []


def test_crowds_have_no_id() -> None:
    crowd = row(*[(CAR, 0)] * 3)
    assert log((cars(1), crowd), (cars(2), crowd)).switches == []


def test_confusion_and_scores_of_frames() -> None:
    """Frame 0: 3 of 4 road pixels (PQ 3/4), a car of 1 pixel too many (PQ 0). Frame 1: right. Frame 2: nothing is."""
    road = [(ROAD, 0)] * 4
    failures = log(
        (row(*road[:3], (CAR, 1)), row(*road)),
        (row(*road), row(*road)),
        (row(*road), row(*[(VOID, 0)] * 4)),
    )
    assert failures.frames == [
        FrameScore("0", 0, 3 / 8, 3 / 4),
        FrameScore("1", 1, 1.0, 1.0),
        FrameScore("2", 2, 1.0, 1.0),
    ]
    assert {(t, p): int(failures.confusion[t, p]) for t, p in np.argwhere(failures.confusion).tolist()} == {
        (ROAD, ROAD): 7,
        (ROAD, CAR): 1,
        (19, ROAD): 4,
    }


def test_error_map() -> None:
    target = row((ROAD, 0), (ROAD, 0), (VOID, 0), (CAR, 1), (CAR, 1), (CAR, 1), (CAR, 2), (CAR, 0), (PERSON, 1))
    pred = row((ROAD, 0), (CAR, 4), (ROAD, 0), (CAR, 4), (CAR, 4), (CAR, 4), (CAR, 4), (CAR, 4), (PERSON, 0))
    # car 4 is 3 of 3 + 6 - 3 pixels of car 1: one half, no match
    assert error_map(pred, target, KITTI)[0].tolist() == [
        CORRECT, OTHER_CLASS, UNLABELLED, OTHER_OBJECT, OTHER_OBJECT, OTHER_OBJECT, OTHER_OBJECT, CORRECT, OTHER_OBJECT,
    ]  # fmt: skip
    pred[1][0, 7] = 5  # 3 of 5 now
    assert error_map(pred, target, KITTI)[0, 3:8].tolist() == [CORRECT] * 3 + [OTHER_OBJECT, CORRECT]


def test_error_map_without_instances() -> None:
    errors = error_map((np.array([[0, 1, 1]]), None), (np.array([[0, 0, 255]]), None), CAMVID)
    assert errors.tolist() == [[CORRECT, OTHER_CLASS, UNLABELLED]]
