"""Overlays, overviews, legends, the denoising strip, and the animations of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2seq_d import visualize
from pix2seq_d.labels import get_label_spec
from pix2seq_d.visualize import (
    colour_classes,
    colour_panoptic,
    denoising_strip,
    draw_boundaries,
    legend,
    overlay,
    overview,
    pair_by_stem,
    uncertainty_overlay,
    write_result_animations,
)

SPEC = get_label_spec("kitti-step")
ROAD, SKY, PERSON, CAR, VOID = 0, 10, 11, 13, 255
WHITE = [255, 255, 255]


def street(t: int = 0, height: int = 24, width: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frame and maps: sky over road, two touching cars that move right, a person, two rows of void at the foot."""
    class_map = np.full((height, width), SKY, np.uint8)
    class_map[height // 2 :] = ROAD
    class_map[-2:] = VOID
    instance_map = np.zeros((height, width), np.int32)
    for k, (left, class_id) in enumerate([(4, CAR), (14, CAR), (40, PERSON)], start=1):
        part = np.s_[height // 2 - 4 : height // 2 + 4, left + t : left + t + 10]
        class_map[part], instance_map[part] = class_id, k
    frame = np.random.default_rng(t).integers(0, 256, (height, width, 3), np.uint8)
    return frame, class_map, instance_map


def shows(sheet: np.ndarray, panel: np.ndarray) -> bool:
    """Whether the picture stands somewhere in the sheet, pixel by pixel."""
    height, width = panel.shape[:2]
    for top in range(sheet.shape[0] - height + 1):
        start = sheet[top].tobytes().find(panel[0].tobytes())
        while start >= 0:
            if np.array_equal(sheet[top : top + height, start // 3 : start // 3 + width], panel):
                return True
            start = sheet[top].tobytes().find(panel[0].tobytes(), start + 1)
    return False


# On the frame


def test_boundaries_stand_where_ids_change() -> None:
    # instances 1 1 2 2 / class changes in the second row from left to right half
    class_map = np.array([[CAR, CAR, CAR, CAR], [ROAD, ROAD, SKY, SKY]])
    instance_map = np.array([[1, 1, 2, 2], [0, 0, 0, 0]])
    drawn = draw_boundaries(np.zeros((2, 4, 3), np.uint8), class_map, instance_map)
    # the top row borders on the bottom row everywhere; below, only the pixel before the change
    np.testing.assert_array_equal((drawn == 255).all(axis=-1), [[1, 1, 1, 1], [0, 1, 0, 0]])


def test_boundaries_colour_and_strength() -> None:
    image, classes = np.full((1, 2, 3), 100, np.uint8), np.array([[0, 1]])
    assert draw_boundaries(image, classes, classes, colour=(255, 0, 0))[0].tolist() == [[255, 0, 0], [100] * 3]
    assert draw_boundaries(image, classes, classes, colour=(200, 0, 0), strength=0.25)[0, 0].tolist() == [125, 75, 75]
    np.testing.assert_array_equal(draw_boundaries(image, classes, classes, strength=0), image)
    assert (image == 100).all()  # the argument is left alone


def test_overlay_blends_and_outlines() -> None:
    frame, class_map, instance_map = street()
    picture = overlay(frame, class_map, instance_map, SPEC, alpha=0.25)
    colours = colour_panoptic(class_map, instance_map, SPEC)
    inside = np.s_[10:13, 6:12]  # of the first car
    np.testing.assert_allclose(picture[inside], 0.75 * frame[inside] + 0.25 * colours[inside], atol=1)
    assert picture[12, 13].tolist() == WHITE  # between the cars
    np.testing.assert_array_equal(picture[-2:], frame[-2:])  # void
    horizon = picture[11, 60].astype(float)  # sky on road: faint
    np.testing.assert_allclose(horizon, 0.65 * (0.75 * frame[11, 60] + 0.25 * colours[11, 60]) + 0.35 * 255, atol=2)


def test_overlay_alpha_ends() -> None:
    frame, class_map, instance_map = street()
    inner = np.s_[1:7, 2:30]  # sky
    np.testing.assert_array_equal(overlay(frame, class_map, instance_map, SPEC, alpha=0)[inner], frame[inner])
    full = overlay(frame, class_map, instance_map, SPEC, alpha=1)
    np.testing.assert_array_equal(full[inner], np.broadcast_to(SPEC.colours[SKY], (6, 28, 3)))


def test_overlay_ignores_ids_on_stuff() -> None:
    frame, class_map, instance_map = street()
    noisy = np.where(SPEC.is_thing(class_map), instance_map, np.arange(instance_map.size).reshape(instance_map.shape))
    np.testing.assert_array_equal(overlay(frame, class_map, noisy, SPEC), overlay(frame, class_map, instance_map, SPEC))


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.uint64])
def test_overlay_of_any_integer_dtype(dtype: type) -> None:
    frame, class_map, instance_map = (values[:-2] for values in street())  # no void: int8 cannot hold it
    expected = overlay(frame, class_map, instance_map, SPEC)
    picture = overlay(frame, class_map.astype(dtype), instance_map.astype(dtype), SPEC)
    np.testing.assert_array_equal(picture, expected)


def test_errors_on_the_frame() -> None:
    frame, class_map, instance_map = street()
    with pytest.raises(ValueError, match=r"frame: expected the size of class_map, \(24, 80\), got \(23, 80\)"):
        overlay(frame[1:], class_map, instance_map, SPEC)
    with pytest.raises(TypeError, match="frame: expected a uint8 array"):
        overlay(frame / 255, class_map, instance_map, SPEC)
    with pytest.raises(ValueError, match=r"alpha: expected 0\.\.1, got 1\.5"):
        overlay(frame, class_map, instance_map, SPEC, alpha=1.5)
    with pytest.raises(ValueError, match="got 99"):
        overlay(frame, np.full_like(class_map, 99), instance_map, SPEC)
    with pytest.raises(ValueError, match="image: expected the size of class_map"):
        draw_boundaries(frame[1:], class_map, instance_map)
    with pytest.raises(ValueError, match=r"strength: expected 0\.\.1"):
        draw_boundaries(frame, class_map, instance_map, strength=-1)
    with pytest.raises(TypeError, match="instance_map: expected an array of integers"):
        draw_boundaries(frame, class_map, instance_map.astype(float))


def test_uncertainty_over_the_grey_frame() -> None:
    """0.299 * 200 + 0.587 * 100 + 0.114 * 0 = 118.5; a quarter shows its colour by half."""
    frame = np.full((2, 2, 3), (200, 100, 0), np.uint8)
    values = np.array([[0, 1], [0.25, 0]], np.float32)
    picture = uncertainty_overlay(frame, values)
    assert np.abs(picture[0, 0].astype(float) - 118.5).max() <= 0.5
    assert picture[0, 1].tolist() == [255, 240, 90]
    quarter = np.rint((118.5 + visualize.colour_heat(values)[1, 0].astype(float)) / 2)
    assert np.abs(picture[1, 0] - quarter).max() <= 1
    assert picture.dtype == np.uint8


def test_uncertainty_overlay_refuses() -> None:
    frame = np.zeros((2, 3, 3), np.uint8)
    with pytest.raises(ValueError, match=r"frame: expected the size of values, \(3, 2\), got \(2, 3\)"):
        uncertainty_overlay(frame, np.zeros((3, 2)))
    with pytest.raises(TypeError, match="frame: expected a uint8 array"):
        uncertainty_overlay(frame.astype(float), np.zeros((2, 3)))


# Sheets


def test_overview_holds_every_panel() -> None:
    frame, class_map, instance_map = street(width=640, height=100)
    sheet = overview(frame, class_map, instance_map, SPEC)
    panels = [
        frame,
        colour_panoptic(class_map, instance_map, SPEC),
        colour_classes(class_map, SPEC),
        visualize.colour_instances(class_map, instance_map, SPEC),
        overlay(frame, class_map, instance_map, SPEC),
    ]
    assert all(shows(sheet, panel) for panel in panels)
    gap, caption = 7, 21  # a font of 14 pixels
    assert sheet.shape == (4 * gap + 3 * (caption + 100), 3 * gap + 2 * 640, 3)
    assert not shows(sheet, colour_panoptic(*street(9, 100, 640)[1:], SPEC))


def test_overview_enlarges_small_frames() -> None:
    frame, class_map, instance_map = street()
    sheet = overview(frame, class_map, instance_map, SPEC)
    large = [values.repeat(8, axis=0).repeat(8, axis=1) for values in (class_map, instance_map)]
    assert shows(sheet, colour_panoptic(large[0], large[1], SPEC))  # 80 -> 640
    assert not shows(sheet, frame.repeat(8, axis=0).repeat(8, axis=1))  # bicubic


def test_overview_with_target_and_for_narrow_frames() -> None:
    frame, class_map, instance_map = street(width=640, height=100)
    target = street(5, 100, 640)[1:]
    sheet = overview(frame, class_map, instance_map, SPEC, target=target)
    assert shows(sheet, colour_panoptic(*target, SPEC))
    assert sheet.shape[0] > overview(frame, class_map, instance_map, SPEC).shape[0]  # the legend stands below
    square = overview(*street(height=640, width=640), SPEC)
    assert square.shape[1] > 3 * 640
    assert square.shape[0] < 3 * 640


def test_overview_errors() -> None:
    frame, class_map, instance_map = street()
    with pytest.raises(ValueError, match="frame: expected the size of class_map"):
        overview(frame, class_map[1:], instance_map[1:], SPEC)
    with pytest.raises(ValueError, match="frame: expected the size of class_map"):
        overview(frame, class_map, instance_map, SPEC, target=(class_map[1:], instance_map[1:]))
    with pytest.raises(TypeError, match="class_map: expected an array of integers"):
        overview(frame, class_map / 2, instance_map, SPEC)


def test_legend_shows_the_colours_of_its_classes() -> None:
    picture = legend(SPEC, [ROAD, CAR, VOID], width=200)
    assert picture.shape == (48, 200, 3)  # two columns
    found = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
    shades = colour_panoptic(np.full((1, 3), CAR), np.array([[1, 2, 3]]), SPEC)[0]
    assert {SPEC.colours[ROAD], SPEC.colours[CAR], (0, 0, 0), *map(tuple, shades.tolist())} <= found
    assert SPEC.colours[SKY] not in found
    assert legend(SPEC, range(19), width=300).shape[0] > legend(SPEC, range(19), width=900).shape[0]
    assert legend(SPEC, [ROAD], size=30).shape == (45, 640, 3)
    assert (legend(SPEC, [ROAD, SKY]) != legend(SPEC, [SKY, ROAD])).any()


def test_legend_errors() -> None:
    with pytest.raises(ValueError, match="class_ids: expected at least one"):
        legend(SPEC, [])
    with pytest.raises(ValueError, match="got 20"):
        legend(SPEC, [20])


def test_denoising_strip_picks_steps_with_first_and_last() -> None:
    class_maps = [np.full((20, 200), k % 19) for k in range(11)]
    strip = denoising_strip(class_maps, SPEC, max_panels=3)
    panels = [colour_classes(class_maps[k], SPEC) for k in range(11)]
    assert [k for k in range(11) if shows(strip, panels[k])] == [0, 5, 10]
    assert strip.shape == (2 * 8 + 24 + 20, 4 * 8 + 3 * 200, 3)
    assert denoising_strip(class_maps, SPEC).shape[1] == 7 * 8 + 6 * 200
    assert denoising_strip(class_maps, SPEC, max_panels=3, columns=1).shape == (4 * 8 + 3 * 44, 216, 3)
    assert denoising_strip(class_maps[:1], SPEC).shape[1] == 216


def test_denoising_strip_with_instances() -> None:
    _, class_map, instance_map = street(width=200)
    strip = denoising_strip([class_map] * 2, SPEC, x0_instance_maps=[instance_map, 0 * instance_map])
    assert shows(strip, colour_panoptic(class_map, instance_map, SPEC))
    assert shows(strip, colour_classes(class_map, SPEC))  # no instances yet: the class colour


def test_denoising_strip_errors() -> None:
    maps = [np.zeros((4, 4), int)] * 3
    with pytest.raises(ValueError, match="x0_class_maps: expected at least one map"):
        denoising_strip([], SPEC)
    with pytest.raises(ValueError, match="x0_instance_maps: expected 3, one a step, got 2"):
        denoising_strip(maps, SPEC, x0_instance_maps=maps[:2])
    with pytest.raises(ValueError, match="max_panels: expected at least 2, got 1"):
        denoising_strip(maps, SPEC, max_panels=1)
    with pytest.raises(ValueError, match="columns: expected at least 1, got 0"):
        denoising_strip(maps, SPEC, columns=0)


# Results of a video


def test_pair_by_stem(tmp_path: Path) -> None:
    for name in ("000002.png", "000010.png", "000099.png"):
        (tmp_path / name).touch()
    frames = [Path("in") / name for name in ("000002.jpg", "000003.jpg", "000010.jpg")]
    assert pair_by_stem(frames, tmp_path) == [
        (frames[0], tmp_path / "000002.png"),
        (frames[2], tmp_path / "000010.png"),
    ]
    assert pair_by_stem(frames, tmp_path / "nothing") == []


def test_result_animations(tmp_path: Path) -> None:
    paths = write_result_animations((street(t) for t in range(3)), tmp_path / "new", SPEC, fps=5)
    assert list(paths) == ["frame", "panoptic", "semantic", "instance", "overlay"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"{name}.gif" for name in paths}
    for path in paths.values():
        with Image.open(path) as image:
            assert (getattr(image, "n_frames", 1), image.size, image.info["duration"]) == (3, (80, 24), 200)
    with Image.open(paths["panoptic"]) as image:
        image.seek(2)
        np.testing.assert_array_equal(np.array(image.convert("RGB")), colour_panoptic(*street(2)[1:], SPEC))


def test_result_animations_are_scaled_down_without_new_colours(tmp_path: Path) -> None:
    paths = write_result_animations([street(t) for t in range(2)], tmp_path, SPEC, max_width=40, suffix=".webp")
    assert {path.suffix for path in paths.values()} == {".webp"}
    paths = write_result_animations([street(t) for t in range(2)], tmp_path, SPEC, max_width=40)
    with Image.open(paths["semantic"]) as image:
        picture = np.array(image.convert("RGB"))
    assert picture.shape == (12, 40, 3)
    known = {(0, 0, 0), *SPEC.colours}
    assert {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()} <= known


def test_result_animations_write_nothing_on_errors(tmp_path: Path) -> None:
    good, (frame, class_map, instance_map) = street(), street()
    for results, message in (
        ([], "expected at least one picture"),
        ([good, (frame[1:], class_map, instance_map)], "frame: expected the size of class_map"),
        ([good, (frame, np.full_like(class_map, 77), instance_map)], "got 77"),
        ([good, street(height=30)], "expected pictures of one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            write_result_animations(results, tmp_path, SPEC)
    with pytest.raises(ValueError, match="max_width: expected at least 1, got 0"):
        write_result_animations([good], tmp_path, SPEC, max_width=0)
    assert not list(tmp_path.iterdir())
