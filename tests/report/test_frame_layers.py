"""The pictures of a report and its rows of segments, against the maps they are made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_data import picture
from result_folder import SIZE, SPEC, doubt, frame, maps

from pix2seq_d.data.formats import DataError, write_png
from pix2seq_d.palette import colour_classes, colour_instances, colour_panoptic
from pix2seq_d.report.frame_layers import (
    HEAT_LAYERS,
    MAP_LAYERS,
    HeatLayer,
    frame_uri,
    heat_uri,
    map_uris,
    segment_rows,
    small_size,
)

RED = HeatLayer("confidence", "Low confidence", (255, 0, 0), inverted=True)


def test_small_size() -> None:
    assert small_size((375, 1242), 640) == (193, 640)
    assert small_size((1242, 375), 640) == (640, 193)
    assert small_size((20, 40), 640) == (20, 40)
    assert small_size((1, 5000), 100) == (1, 100)


def test_maps_keep_their_colours_and_void_is_transparent() -> None:
    class_map, instance_map, _ = maps(2)
    uris = map_uris(class_map, instance_map, SPEC, SIZE)
    expected = {
        "panoptic": colour_panoptic(class_map, instance_map, SPEC),
        "class": colour_classes(class_map, SPEC),
        "instance": colour_instances(class_map, instance_map, SPEC),
    }
    assert set(uris) == set(expected)
    for key, uri in uris.items():
        pixels = picture(uri)
        assert np.array_equal(pixels[..., :3][class_map != 255], expected[key][class_map != 255])
        assert np.array_equal(pixels[..., 3], np.where(class_map == 255, 0, 255))


def test_a_black_class_stays_visible() -> None:
    class_map, instance_map, _ = maps(0)
    black = replace(SPEC, colours=((0, 0, 0), (0, 0, 200)))
    assert (picture(map_uris(class_map, instance_map, black, SIZE)["class"])[..., 3] == 255).all()


def test_maps_are_made_small_by_picking_pixels() -> None:
    class_map, instance_map, _ = maps(2)
    small = picture(map_uris(class_map, instance_map, SPEC, (10, 20))["class"])
    colours = np.dstack([colour_classes(class_map, SPEC), np.where(class_map == 255, 0, 255)])
    assert np.array_equal(small, colours[1::2, 1::2])


def test_a_frame_is_near() -> None:
    pixels = picture(frame_uri(frame(3), (10, 20)), "RGB")
    assert pixels.shape == (10, 20, 3)
    assert np.abs(pixels.astype(int) - (200, 60, 10)).max() <= 4


def test_heat_is_opacity() -> None:
    values = np.array([[255, 0], [128, 51]], np.uint8)
    pixels = picture(heat_uri(values, RED, (2, 2)))
    assert (pixels[..., :3] == (255, 0, 0)).all()
    assert np.abs(pixels[..., 3].astype(int) - (255 - values.astype(int))).max() <= 8  # 32 levels
    upright = picture(heat_uri(values, replace(RED, inverted=False), (2, 2)))
    assert np.abs(upright[..., 3].astype(int) - values.astype(int)).max() <= 8


def test_segment_rows() -> None:
    """20 x 40 pixels: object 7 has 4 x 6 = 24 with confidence 51 / 255 = 0.2; ground has 20 x 39 - 24 = 756."""
    class_map, instance_map, confidence = maps(2)
    instance_map[0, 0] = 9  # on stuff: says nothing
    rows = segment_rows(class_map, instance_map, confidence, SPEC)
    shade = "#{:02x}{:02x}{:02x}".format(*colour_panoptic(class_map, instance_map, SPEC)[8, 2])
    assert rows == [[7, 1, 24, 0.2, None, 2, 8, 6, 4, shade], [0, 0, 756, 1.0, None, 0, 0, 39, 20, "#008000"]]
    assert [row[3] for row in segment_rows(class_map, instance_map, None, SPEC)] == [None, None]
    rows = segment_rows(class_map, instance_map, confidence, SPEC, agreement={(1, 7): 0.75, (0, 9): 0.5})
    assert [row[4] for row in rows] == [0.75, None]


def test_a_channel_is_a_heat_map(tmp_path: Path) -> None:
    green = HeatLayer("uncertainty", "Uncertain", (255, 0, 0), channel=1)
    assert green.key == "uncertainty-G"
    write_png(tmp_path / "uncertainty/a/0.png", doubt(3))
    values = green.read(tmp_path, "a/0.png", SIZE)
    assert np.array_equal(values, doubt(3)[..., 1])
    assert picture(heat_uri(values, green, SIZE))[10, 4, 3] > 190
    with pytest.raises(DataError, match=r"0\.png: expected 20x41 pixels as its map, got 20x40"):
        green.read(tmp_path, "a/0.png", (20, 41))
    write_png(tmp_path / "uncertainty/a/0.png", doubt(3)[..., 1])
    with pytest.raises(DataError, match=r"0\.png: expected an 8-bit RGB PNG"):
        green.read(tmp_path, "a/0.png", SIZE)


def test_layers_have_different_names() -> None:
    names = [*MAP_LAYERS, *(layer.key for layer in HEAT_LAYERS)]
    assert len(set(names)) == len(names) <= 9  # keys of the page


def test_reading_a_heat_map(tmp_path: Path) -> None:
    assert RED.read(tmp_path, "a/0.png", SIZE) is None
    write_png(tmp_path / "confidence/a/0.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(DataError, match=r"0\.png: expected 20x40 pixels as its map, got 3x4"):
        RED.read(tmp_path, "a/0.png", SIZE)
    (tmp_path / "confidence/a/0.png").write_text("x")
    with pytest.raises(DataError, match=r"0\.png: expected an 8-bit greyscale PNG"):
        RED.read(tmp_path, "a/0.png", SIZE)
