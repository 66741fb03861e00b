"""Cityscapes' encodings: one scene in all of them, inverse pairs, the official table of ids, and bad files."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cityscapes_tree import write_panoptic_png
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pix2seq_d.data.cityscapes_ids import (
    decode_ids,
    encode_ids,
    read_instance_ids,
    read_panoptic_parts,
    read_panoptic_png,
    write_instance_ids,
    write_panoptic_parts,
)
from pix2seq_d.data.coco_format import PanopticIndex, SegmentRows, write_json, write_panoptic_ids
from pix2seq_d.data.formats import DataError, write_image
from pix2seq_d.labels import get_label_spec

FULL, STEP = get_label_spec("cityscapes"), get_label_spec("cityscapes-step")
VOID = 255

# One scene by hand: id on disk -> train id and instance of the full spec, then instance of the STEP spec.
SCENE = {
    0: (VOID, 0, 0),  # unlabelled
    1: (VOID, 0, 0),  # ego vehicle, ignored in evaluation
    7: (0, 0, 0),  # road
    18: (VOID, 0, 0),  # polegroup, ignored
    21: (8, 0, 0),  # vegetation
    24: (11, 0, 0),  # a crowd of persons
    24000: (11, 1, 1),  # the first person has number 0 on disk
    24001: (11, 2, 2),
    26999: (13, 1000, 1000),  # the last number
    27: (14, 0, 0),  # a group of trucks
    27002: (14, 3, 0),  # a truck: stuff in STEP
    29001: (VOID, 0, 0),  # a caravan, ignored
    33000: (18, 1, 0),  # a bicycle
}


def scene(column: int) -> np.ndarray:
    """(2, 13): both rows hold every entry of the scene once."""
    values = list(SCENE) if column < 0 else [entry[column] for entry in SCENE.values()]
    return np.array([values, values[::-1]])


def one_line(error: pytest.ExceptionInfo[BaseException], path: Path) -> bool:
    return str(path) in str(error.value) and "\n" not in str(error.value)


def assert_maps(maps: tuple[np.ndarray, np.ndarray], class_map: np.ndarray, instance_map: np.ndarray) -> None:
    assert [m.dtype for m in maps] == [np.uint8, np.int32]
    np.testing.assert_array_equal(maps[0], class_map)
    np.testing.assert_array_equal(maps[1], instance_map)


# One scene in three encodings, made here as the official tools make them


def official_files(folder: Path, ids: np.ndarray, *, train_ids: bool = False) -> dict[str, Path]:
    """The scene as instanceIds.png, panoptic PNG (ignored ids 0) with its JSON, and parts (two objects with parts)."""
    files = {name: folder / name for name in ("ids.png", "panoptic.png", "panoptic.json", "parts.tif")}
    Image.fromarray(ids.astype(np.uint16)).save(files["ids.png"])
    parts = ids.copy()
    parts[parts == 24001] = 2400104  # its legs
    parts[0][parts[0] == 27002] = 2700200  # part 0 in one row, no part in the other
    Image.fromarray(parts.astype(np.int32)).save(files["parts.tif"])
    segments = []
    for i, (train_id, _, _) in SCENE.items():
        class_id = i if i < 1000 else i // 1000
        if train_id != VOID:
            crowd = int(i < 1000 and train_id >= 11)
            category = train_id if train_ids else class_id
            segments.append({"id": i, "category_id": category, "iscrowd": crowd, "area": 2, "bbox": [0, 0, 1, 1]})
    kept = np.where(np.isin(ids, [s["id"] for s in segments]), ids, 0)
    Image.fromarray(np.stack([kept % 256, kept // 256, kept * 0], -1).astype(np.uint8)).save(files["panoptic.png"])
    annotations = [{"file_name": "panoptic.png", "image_id": "a", "segments_info": segments}]
    files["panoptic.json"].write_text(json.dumps({"images": [], "annotations": annotations, "categories": []}))
    return files


def read_rows(path: Path, *, train_ids: bool = False, number: int = 0) -> SegmentRows:
    return PanopticIndex(path, get_label_spec("cityscapes-vps" if train_ids else "cityscapes")).rows(number)


@pytest.mark.parametrize(("spec", "column"), [(FULL, 1), (STEP, 2)])
@pytest.mark.parametrize("train_ids", [False, True])
def test_three_encodings_of_one_scene(tmp_path: Path, spec: Any, column: int, train_ids: bool) -> None:
    files = official_files(tmp_path, scene(-1), train_ids=train_ids)
    rows = read_rows(files["panoptic.json"], train_ids=train_ids)
    expected = scene(0), scene(column)
    assert_maps(read_instance_ids(files["ids.png"], spec), *expected)
    assert_maps(read_panoptic_png(files["panoptic.png"], rows, spec), *expected)
    assert_maps(read_panoptic_parts(files["parts.tif"], spec), *expected)


def test_ids_of_no_class_are_void() -> None:
    """License plates (-1, or 65535 in 16 bits), ids above the table, and 255."""
    ids = np.array([-1, 65535, 34, 255, 999, 34000, 70000])
    assert_maps(decode_ids(ids, FULL), np.full(7, VOID), np.zeros(7))
    assert_maps(decode_ids(np.array([65535, 65000], np.uint16), FULL), np.full(2, VOID), np.zeros(2))


def test_a_crowd_of_the_json_has_no_instance(tmp_path: Path) -> None:
    files = official_files(tmp_path, scene(-1))
    rows = read_rows(files["panoptic.json"])
    rows = rows._replace(crowd=rows.crowd | (rows.ids == 24001))
    _, instances = read_panoptic_png(files["panoptic.png"], rows, FULL)
    np.testing.assert_array_equal(instances, np.where(scene(-1) == 24001, 0, scene(1)))


def test_stuff_with_a_number_of_its_own_is_stuff(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7003, 7]], np.uint16)).save(tmp_path / "a.png")
    assert_maps(read_instance_ids(tmp_path / "a.png", FULL), np.array([[0, 0]]), np.array([[0, 0]]))


# Inverse pairs


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), spec=st.sampled_from([FULL, STEP]))
def test_round_trips(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shape: tuple, spec: Any) -> None:
    folder = tmp_path_factory.mktemp("maps")
    class_map = data.draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([*range(19), VOID])))
    instance_map = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 1000)))
    kept = np.where(spec.is_thing(class_map), instance_map, 0)
    write_instance_ids(folder / "a.png", class_map, instance_map, spec)
    assert_maps(read_instance_ids(folder / "a.png", spec), class_map, kept)
    write_panoptic_parts(folder / "a.tif", class_map, instance_map, spec)
    assert_maps(read_panoptic_parts(folder / "a.tif", spec), class_map, kept)
    for train_ids in (False, True):
        entry = write_panoptic_png(folder / "b.png", class_map, instance_map, train_ids)
        write_json(folder / "b.json", {"annotations": [entry]})
        rows = read_rows(folder / "b.json", train_ids=train_ids)
        assert_maps(read_panoptic_png(folder / "b.png", rows, spec), class_map, kept)


def test_written_files_are_the_official_ones(tmp_path: Path) -> None:
    """Void and the crowd of trucks in; a car is number k - 1 of 26."""
    class_map, instance_map = np.array([[13, 13, 255], [14, 0, 0]]), np.array([[1, 300, 7], [0, 5, 0]])
    ids = [[26000, 26299, 0], [27, 7, 7]]
    assert encode_ids(class_map, instance_map, FULL).tolist() == ids
    write_instance_ids(tmp_path / "a.png", class_map, instance_map, FULL)
    write_panoptic_parts(tmp_path / "a.tif", class_map, instance_map, FULL)
    with Image.open(tmp_path / "a.png") as png, Image.open(tmp_path / "a.tif") as tif:
        assert (png.mode, np.asarray(png).tolist()) == ("I;16", ids)
        assert (tif.mode, np.asarray(tif).tolist()) == ("I", ids)


# Bad files


def bad_tiff(values: Any, dtype: type = np.int32) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(np.array(values, dtype)).save(path, "TIFF")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (bad_tiff([[7, 101]]), "expected ids of 1, 2 or 4 to 7 digits, got 101"),
        (bad_tiff([[10_000_000]]), "got 10000000"),
        (bad_tiff([[-2]]), "got -2"),
        (bad_tiff([[7]], np.uint8), "expected a TIFF of 32-bit integers, got Pillow's mode L"),
        (bad_tiff([[7]], np.float32), "got Pillow's mode F"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_bytes(b"II*\0" + b"\xff" * 40), "expected a TIFF image|expected a readable image"),
        (lambda path: write_image(path.with_suffix(".png"), np.zeros((2, 2), np.uint8)), "no such file"),
        (lambda path: Image.new("L", (2, 2)).save(path, "PNG"), "expected a TIFF image, got something else"),
    ],
)
def test_bad_parts(tmp_path: Path, make: Callable[[Path], Any], says: str) -> None:
    path = tmp_path / "a.tif"
    make(path)
    with pytest.raises(DataError, match=says) as error:
        read_panoptic_parts(path, FULL)
    assert one_line(error, path)


def test_damaged_parts_without_compression_raise_data_errors_only(tmp_path: Path, capfd: Any) -> None:
    rng, path, messages = np.random.default_rng(0), tmp_path / "a.tif", []
    Image.fromarray(rng.integers(0, 30, (6, 9)).astype(np.int32)).save(path)
    content = path.read_bytes()
    for _ in range(120):
        data = bytearray(content[: rng.integers(len(content)) if rng.random() < 0.3 else None])
        for place in rng.integers(0, max(1, len(data)), 4):
            data[place : place + 1] = bytes([rng.integers(256)])
        path.write_bytes(data)
        try:
            read_panoptic_parts(path, FULL)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 60
    assert not [message for message in messages if "\n" in message]


def test_parts_with_a_tag_of_another_type(tmp_path: Path) -> None:
    """Where the pixels begin (tag 273) as text instead of a number: type 2 in its entry of 12 bytes."""
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((2, 3), np.int32)).save(path)
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    (entry,) = (p for k in range(count) if struct.unpack_from("<H", data, p := start + 2 + 12 * k) == (273,))
    struct.pack_into("<H", data, entry + 2, 2)
    path.write_bytes(data)
    with pytest.raises(DataError, match="expected a readable image, got one that is not") as error:
        read_panoptic_parts(path, FULL)
    assert one_line(error, path)


def test_label_ids_are_no_instance_ids(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match="expected an 16-bit greyscale PNG, got 8-bit greyscale") as error:
        read_instance_ids(tmp_path / "a.png", FULL)
    assert one_line(error, tmp_path / "a.png")


def test_a_panoptic_png_that_its_json_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_panoptic_ids(path, np.array([[26001, 7]]))
    rows = SegmentRows(np.array([7, 26001]), np.array([0, 13], np.uint8), np.zeros(2, bool))
    assert_maps(read_panoptic_png(path, rows, FULL), np.array([[13, 0]]), np.array([[2, 0]]))
    for change, says in (
        ({"class_ids": np.array([0, 14])}, "expected segments of the class in their id, got 26001 of another"),
        ({"ids": np.array([7, 65536 + 26001])}, "expected segments of the class in their id, got 91537"),
        ({"ids": np.array([7, 26002])}, r"expected segments that the JSON lists, got 26001"),
    ):
        with pytest.raises(DataError, match=says) as error:
            read_panoptic_png(path, rows._replace(**change), FULL)
        assert one_line(error, path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    class_map, zeros = np.full((2, 2), 13), np.zeros((2, 2), int)
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match=r"a\.tif: expected a path that ends in \.png"):
        write_instance_ids(path.with_suffix(".tif"), class_map, zeros, FULL)
    with pytest.raises(ValueError, match=r"a\.png: expected \(H, W\) maps"):
        write_instance_ids(path, class_map[0], zeros[0], FULL)
    with pytest.raises(ValueError, match=r"a\.png: expected maps of one shape"):
        write_instance_ids(path, class_map, zeros[:1], FULL)
    with pytest.raises(ValueError, match=r"a\.png: expected instances in 0\.\.1000, got 0\.\.1001"):
        write_instance_ids(path, class_map, np.array([[0, 1001], [0, 0]]), FULL)
    with pytest.raises(ValueError, match=r"a\.png: .*got 19"):
        write_instance_ids(path, class_map + 6, zeros, FULL)
    assert not list(tmp_path.iterdir())


def test_a_spec_needs_the_ids_of_the_disk() -> None:
    for function in (decode_ids, lambda ids, spec: encode_ids(ids, ids, spec)):
        with pytest.raises(ValueError, match="label spec kitti-step: expected the ids of Cityscapes' classes"):
            function(np.zeros((1, 1), int), get_label_spec("kitti-step"))


# A real frame


def test_real_frame_equals_its_published_video_form() -> None:
    """deeplab2's sample: the same map as PNG + JSON and as train id * 1000 + instance (0 = crowd), void 255."""
    root = os.environ.get("PIX2SEQ_D_TEST_DATA")
    if not root:
        pytest.skip("PIX2SEQ_D_TEST_DATA is not set: no real Cityscapes labels")
    vectors = Path(root) / "vectors" / "deeplab2_cityscapes"
    folder, name = vectors / "gtFine" / "cityscapes_panoptic_dummy_trainId", "dummy_000000_000000_gtFine_panoptic.png"
    maps = read_panoptic_png(folder / name, read_rows(folder.with_suffix(".json"), train_ids=True), FULL)
    with Image.open(vectors / "dummy_gt_for_vps.png") as image:
        red, green, blue = np.moveaxis(np.asarray(image).astype(int), -1, 0)
    values = red + 256 * green + 65536 * blue
    assert_maps(maps, values // 1000, values % 1000)
    assert len(np.unique(maps[1])) == 6
