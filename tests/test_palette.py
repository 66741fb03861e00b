"""Colours of maps: void, stability over frames, separation, errors."""

from __future__ import annotations

import numpy as np
import pytest

from pix2seq_d.labels import LabelSpec, get_label_spec
from pix2seq_d.palette import (
    CROWD_COLOUR,
    PERIOD,
    STUFF_COLOUR,
    class_colours,
    colour_classes,
    colour_heat,
    colour_instances,
    colour_panoptic,
    instance_table,
    oklab_to_rgb,
    panoptic_table,
    rgb_to_oklab,
)

SPEC = get_label_spec("kitti-step")
ROAD, PERSON, CAR, VOID = 0, 11, 13, 255


def row(*values: int, dtype: type = np.int64) -> np.ndarray:
    return np.array([values], dtype)


def test_oklab_round_trip_and_known_values() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (200, 3))
    np.testing.assert_array_equal(oklab_to_rgb(rgb_to_oklab(colours)), colours)
    # white and pure red, from the table in Ottosson's "A perceptual color space for image processing"
    np.testing.assert_allclose(rgb_to_oklab(np.array([255, 255, 255])), [1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(rgb_to_oklab(np.array([255, 0, 0])), [0.628, 0.2249, 0.1258], atol=1e-3)


def test_classes_in_their_colours_and_void_black() -> None:
    picture = colour_classes(row(ROAD, CAR, VOID), SPEC)
    assert picture.dtype == np.uint8
    assert picture.tolist() == [[list(SPEC.colours[ROAD]), list(SPEC.colours[CAR]), [0, 0, 0]]]


def test_instances() -> None:
    # road with an id that means nothing, two cars, a crowd of cars, void with an id
    picture = colour_instances(row(ROAD, CAR, CAR, CAR, VOID), row(7, 1, 2, 0, 3), SPEC)[0]
    assert tuple(picture[0]) == STUFF_COLOUR
    assert tuple(picture[3]) == CROWD_COLOUR
    assert tuple(picture[4]) == (0, 0, 0)
    assert len({tuple(pixel) for pixel in picture.tolist()}) == 5
    # the id alone decides: a person with the id of a car has its colour
    np.testing.assert_array_equal(colour_instances(row(PERSON), row(2), SPEC)[0, 0], picture[2])


def test_panoptic() -> None:
    picture = colour_panoptic(row(ROAD, CAR, CAR, CAR, VOID, PERSON), row(7, 1, 2, 0, 3, 1), SPEC)[0]
    assert tuple(picture[0]) == SPEC.colours[ROAD]
    assert tuple(picture[3]) == SPEC.colours[CAR]
    assert tuple(picture[4]) == (0, 0, 0)
    assert len({tuple(pixel) for pixel in picture.tolist()}) == 6


@pytest.mark.parametrize("colour", [colour_panoptic, colour_instances])
def test_colours_of_an_id_are_the_same_in_every_frame(colour: object) -> None:
    assert callable(colour)
    early = colour(row(CAR, CAR, PERSON), row(4, 9, 2), SPEC)[0]
    late = colour(row(PERSON, PERSON, CAR, ROAD, CAR), row(2, 77, 9, 0, 4), SPEC)[0]
    np.testing.assert_array_equal(late[[4, 2, 0]], early)


def test_ids_that_meet_are_well_separated() -> None:
    """Any 20 successive ids differ by at least 0.05 in Oklab (a just noticeable difference is about 0.02)."""
    for table, least in ((instance_table(), 0.09), (panoptic_table(SPEC)[CAR + 1], 0.05)):
        lab = rgb_to_oklab(table[1:129])
        distance = np.linalg.norm(lab[:, None] - lab, axis=-1)
        near = np.abs(np.arange(128)[:, None] - np.arange(128)) < 20
        assert distance[near & ~np.eye(128, dtype=bool)].min() > least


def test_shades_stay_near_their_class_and_off_the_other_classes() -> None:
    """Cars (dark blue) are bluish, persons (crimson) reddish, and no car is taken for a class."""
    cars, persons = (rgb_to_oklab(panoptic_table(SPEC)[c + 1, 1:129]) for c in (CAR, PERSON))
    assert (cars[:, 2] < -0.05).all()  # b < 0: blue
    assert (persons[:, 1] > 0.02).all()  # a > 0: red
    classes = rgb_to_oklab(np.array(SPEC.colours))
    assert np.linalg.norm(cars[:, None] - classes, axis=-1).min() > 0.04


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64])
def test_any_integer_dtype(dtype: type) -> None:
    ids = row(1, 2, 3, dtype=dtype)
    expected = colour_panoptic(row(CAR, ROAD, PERSON), row(1, 2, 3), SPEC)
    np.testing.assert_array_equal(colour_panoptic(row(CAR, ROAD, PERSON, dtype=dtype), ids, SPEC), expected)
    assert ids.dtype == dtype
    assert ids.tolist() == [[1, 2, 3]]


def test_large_ids_wrap_around_without_becoming_crowd() -> None:
    large = colour_instances(row(CAR, CAR, CAR), row(PERIOD, PERIOD + 1, 2**40), SPEC)[0]
    assert tuple(large[0]) == tuple(instance_table()[1])
    assert tuple(large[1]) == tuple(instance_table()[2])
    assert CROWD_COLOUR not in {tuple(pixel) for pixel in large.tolist()}


def test_spec_without_things() -> None:
    camvid = get_label_spec("camvid")
    np.testing.assert_array_equal(colour_instances(row(0, 10), row(1, 2), camvid)[0], [STUFF_COLOUR, STUFF_COLOUR])
    np.testing.assert_array_equal(colour_panoptic(row(0, 10), row(1, 2), camvid), colour_classes(row(0, 10), camvid))


def test_spec_decides_void_and_colours() -> None:
    spec = LabelSpec("two", ("floor", "ball"), ((1, 2, 3), (200, 0, 0)), thing_ids=(1,), void_id=9)
    np.testing.assert_array_equal(colour_classes(row(0, 9), spec)[0], [(1, 2, 3), (0, 0, 0)])
    reddish = colour_panoptic(row(1, 1), row(1, 2), spec)[0].astype(int)
    assert (reddish[:, 0] > reddish[:, 1]).all()


@pytest.mark.parametrize(
    ("class_map", "instance_map", "error", "message"),
    [
        (row(19), row(0), ValueError, "got 19"),
        (row(-1), row(0), ValueError, "got -1"),
        (row(CAR), row(-3), ValueError, "instance_map: expected ids from 0 on, got -3"),
        (row(CAR, CAR), row(1), ValueError, "instance_map: expected the shape of class_map"),
        (np.zeros((1, 2, 3), int), np.zeros((1, 2, 3), int), ValueError, r"class_map: expected shape \(H, W\)"),
        (np.zeros((0, 3), int), np.zeros((0, 3), int), ValueError, r"class_map: expected shape \(H, W\)"),
        (row(1).astype(float), row(1), TypeError, "class_map: expected an array of integers"),
        (row(1), row(1).astype(bool), TypeError, "instance_map: expected an array of integers"),
        ([[1]], row(1), TypeError, "class_map: expected an array of integers .* got list"),
    ],
)
def test_errors(class_map: np.ndarray, instance_map: np.ndarray, error: type[Exception], message: str) -> None:
    for colour in (colour_panoptic, colour_instances):
        with pytest.raises(error, match=message):
            colour(class_map, instance_map, SPEC)


def test_class_errors() -> None:
    with pytest.raises(ValueError, match="kitti-step: expected class ids"):
        colour_classes(row(19), SPEC)
    with pytest.raises(TypeError, match="class_map"):
        colour_classes(row(1).astype(np.float32), SPEC)


def test_made_up_class_colours() -> None:
    """As far apart as those of Cityscapes for its 19 classes, and a new class changes none of them."""
    colours = class_colours(19)
    lab = rgb_to_oklab(np.array([(0, 0, 0), *colours]))
    apart = np.linalg.norm(lab[:, None] - lab, axis=-1)[np.triu_indices(20, 1)]
    assert apart.min() > 0.1
    assert class_colours(40)[:19] == colours
    assert len(set(class_colours(255))) == 255


def test_heat_gets_lighter_all_the_way() -> None:
    ramp = colour_heat(np.linspace(0, 1, 256)[None])[0]
    assert ramp[0].tolist() == [70, 15, 110]
    assert ramp[-1].tolist() == [255, 240, 90]
    assert ramp[85].tolist() == [190, 40, 90]  # a third
    luma = ramp @ [0.299, 0.587, 0.114]
    assert (luma[4:] > luma[:-4]).all()  # single steps are rounded


def test_heat_refuses() -> None:
    for wrong in ([[0.5, 1.5]], [[-0.1]], [[np.nan]]):
        with pytest.raises(ValueError, match=r"values: expected numbers in \[0, 1\], got"):
            colour_heat(np.array(wrong))
    with pytest.raises(ValueError, match=r"values: expected shape \(H, W\), got \(3,\)"):
        colour_heat(np.zeros(3))
