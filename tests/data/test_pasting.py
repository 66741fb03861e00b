"""Things cut out and pasted: which ones, where they stand, what hides them."""

from __future__ import annotations

import numpy as np
import pytest

from pix2seq_d.data.pasting import Cutout, PastedThing, cut_out, lowest_rows
from pix2seq_d.data.warps import pack_labels
from pix2seq_d.labels import get_label_spec

SPEC = get_label_spec("kitti-step")  # things 11 and 13
ROAD, PERSON, CAR = 0, 11, 13


def street(*boxes: tuple[int, int, int, int, int, int]) -> np.ndarray:
    """Labels of 40x60 road with boxes of (top, left, bottom, right, class, instance)."""
    class_map, instance_map = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.int32)
    for top, left, bottom, right, class_id, instance_id in boxes:
        class_map[top:bottom, left:right] = class_id
        instance_map[top:bottom, left:right] = instance_id
    return pack_labels(class_map, instance_map)


def coloured(labels: np.ndarray) -> np.ndarray:
    return np.stack([labels % 251, labels % 241, labels % 239], axis=-1).astype(np.uint8)


def found(labels: np.ndarray, seed: int = 0) -> list[Cutout]:
    return list(cut_out(coloured(labels), labels, SPEC, np.random.default_rng(seed)))


def square(side: int = 10) -> Cutout:
    return Cutout(np.full((side, side, 3), 200, np.uint8), np.ones((side, side), bool), CAR, 0.5, 1 / 40)


# Cutting out


def test_a_thing_is_cut_out_by_its_mask() -> None:
    labels = street((10, 20, 20, 30, CAR, 7), (12, 25, 18, 40, ROAD, 0))
    (car,) = found(labels)
    assert car.mask.shape == (10, 10)
    assert car.mask.sum() == 100 - 6 * 5
    np.testing.assert_array_equal(car.image, coloured(labels)[10:20, 20:30])
    assert (car.class_id, car.bottom, car.scale) == (CAR, 20 / 40, 1 / 40)


def test_only_whole_things_of_a_good_size() -> None:
    """Cut off by each edge, a crowd, stuff with an id, one pixel (of 2400), a fifth of the image: none of them."""
    labels = street(
        (0, 5, 6, 11, CAR, 1), (34, 5, 40, 11, CAR, 2), (10, 0, 16, 6, CAR, 3), (10, 54, 16, 60, CAR, 4),
        (10, 10, 16, 16, CAR, 0), (10, 20, 16, 26, ROAD, 5), (8, 30, 9, 31, CAR, 6), (18, 10, 33, 42, CAR, 7),
    )  # fmt: skip
    assert found(labels) == []
    assert [thing.class_id for thing in found(labels | street((20, 50, 25, 55, PERSON, 1)))] == [PERSON]


def test_things_come_once_each_in_random_order() -> None:
    labels = street(*[(10, 10 * k + 2, 15 + k, 10 * k + 8, CAR, k + 1) for k in range(5)])
    orders = {tuple(thing.mask.shape[0] for thing in found(labels, seed)) for seed in range(20)}
    assert len(orders) > 10
    assert {tuple(sorted(order)) for order in orders} == {(5, 6, 7, 8, 9)}


def test_lowest_rows() -> None:
    labels = street((5, 5, 9, 20, CAR, 2), (20, 5, 31, 20, PERSON, 1), (35, 5, 40, 9, CAR, 0), (33, 9, 40, 20, ROAD, 3))
    things, bottoms = lowest_rows(labels, SPEC)
    assert dict(zip(things.tolist(), bottoms.tolist())) == {2 * 256 + CAR: 9, 256 + PERSON: 31}
    large = np.zeros((1300, 20), np.uint32)
    large[200:777, 4:9] = 256 + CAR
    assert abs(int(lowest_rows(large, SPEC)[1][0]) - 777) <= 5
    assert len(lowest_rows(street(), SPEC)[0]) == 0


# Pasting


def test_a_thing_keeps_its_height_in_the_image() -> None:
    """Bottom at half of the height; a size of 10 rows of 40 becomes 20 of 80, up to exp(+-0.25) of that."""
    for seed in range(10):
        thing = PastedThing(square(), 9, size=(80, 400), speed=1.0, rng=np.random.default_rng(seed))
        matrix = thing.placement(0)
        (x0, top, _), (x1, bottom, _) = (matrix @ (x, y, 1) for x, y in ((0, 0), (10, 10)))
        assert bottom == pytest.approx(thing.bottom) == 40
        assert 20 * np.exp(-0.25) <= bottom - top <= 20 * np.exp(0.25)
        assert abs(x1 - x0) == pytest.approx(bottom - top)
        assert 0 <= (x0 + x1) / 2 <= 400


def test_a_thing_moves_with_its_speed() -> None:
    still, moving = (
        PastedThing(square(), 9, size=(80, 400), speed=s, rng=np.random.default_rng(3)) for s in (0.0, 1.0)
    )
    np.testing.assert_array_equal(still.placement(-4), still.placement(0))
    np.testing.assert_array_equal(moving.placement(0), still.placement(0))
    assert np.abs(moving.placement(-4) - still.placement(0)).max() > 1


def test_things_are_mirrored_and_placed_at_random() -> None:
    matrices = [
        PastedThing(square(), 9, size=(80, 400), speed=1.0, rng=np.random.default_rng(s)).placement(0)
        for s in range(30)
    ]
    assert {np.sign(m[0, 0]) for m in matrices} == {-1, 1}
    assert np.std([(m @ (5, 5, 1))[0] for m in matrices]) > 60


def painted(thing: PastedThing, labels: np.ndarray, *, nearer: tuple[int, ...] = (), pan: float = 0.0) -> np.ndarray:
    """Where the thing shows; its image must show in the same pixels."""
    labels, image = labels.copy(), np.zeros((*labels.shape, 3), np.uint8)
    homography = np.array([[1, 0, pan], [0, 1, 0], [0, 0, 1]], float)
    thing.paint(labels, image, homography=homography, time=0, nearer=np.array(nearer, np.uint32))
    np.testing.assert_array_equal(labels == thing.label, (image > 150).all(axis=2))
    return labels == thing.label


def test_painting() -> None:
    """The mask's pixels where the placement says, as many as its area, moved by the camera; none beyond the frame."""
    thing = PastedThing(square(), 9 << 8 | CAR, size=(40, 60), speed=0.0, rng=np.random.default_rng(1))
    matrix = thing.placement(0)
    shown = painted(thing, street())
    rows, cols = np.nonzero(shown)
    assert rows.max() + 1 == 20
    assert abs(shown.sum() - abs(np.linalg.det(matrix)) * 100) < 2 * 12
    assert abs((cols.mean() + 0.5) - (matrix @ (5, 5, 1))[0]) < 1
    np.testing.assert_array_equal(painted(thing, street(), pan=3)[:, :-3], shown[:, 3:])
    assert not painted(thing, street(), pan=500).any()


def test_nearer_things_hide_it() -> None:
    thing = PastedThing(square(), 9 << 8 | CAR, size=(40, 60), speed=0.0, rng=np.random.default_rng(1))
    alone, wall = painted(thing, street()), street((0, 0, 15, 60, CAR, 5))
    np.testing.assert_array_equal(painted(thing, wall), alone)
    hidden = painted(thing, wall, nearer=(5 << 8 | CAR,))
    assert not hidden[:15].any()
    np.testing.assert_array_equal(hidden[15:], alone[15:])
