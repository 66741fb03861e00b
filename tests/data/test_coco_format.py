"""COCO's panoptic PNG and JSON: by hand, there and back, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from submission_rules import check_segments, dump, rgb_ids

from pix2seq_d.data.coco_format import (
    PanopticIndex,
    SegmentRows,
    number_instances,
    read_coco_panoptic,
    read_panoptic_ids,
    segments_info,
    write_panoptic_ids,
)
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.segments import find_segments
from pix2seq_d.labels import LabelSpec

SPEC = LabelSpec("toy", ("car", "road", "dog"), ((0, 0, 0),) * 3, thing_ids=(0, 2), dataset_ids=(3, 149, 18))


def segment(number: Any, category: Any, crowd: int = 0) -> dict[str, Any]:
    return {"id": number, "category_id": category, "iscrowd": crowd, "area": 1, "bbox": [0, 0, 1, 1]}


def content(*segments: Any, **changes: Any) -> dict[str, Any]:
    image = {"id": 7, "file_name": "7.jpg", "height": 2, "width": 3, "coco_url": "https://example.org/7.jpg"}
    annotation = {"image_id": 7, "file_name": "7.png", "segments_info": list(segments)}
    return {"images": [image], "annotations": [annotation], **changes}


# The PNG


def test_ids_by_hand(tmp_path: Path) -> None:
    """1 + 2 * 256 + 3 * 65536 = 197121."""
    write_panoptic_ids(tmp_path / "a.png", np.array([[0, 197121], [255, 256]]))
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[[0, 0, 0], [1, 2, 3]], [[255, 0, 0], [0, 1, 0]]]
    assert read_panoptic_ids(tmp_path / "a.png").tolist() == [[0, 197121], [255, 256]]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2**24 - 1), min_size=6, max_size=6))
def test_ids_round_trip(tmp_path_factory: pytest.TempPathFactory, ids: list[int]) -> None:
    path = tmp_path_factory.mktemp("ids") / "a.png"
    write_panoptic_ids(path, np.array(ids).reshape(2, 3))
    np.testing.assert_array_equal(read_panoptic_ids(path), np.array(ids).reshape(2, 3))
    np.testing.assert_array_equal(rgb_ids(path), np.array(ids).reshape(2, 3))


@pytest.mark.parametrize("ids", [np.array([[-1]]), np.array([[1 << 24]]), np.zeros((2, 2)), np.zeros(3, int)])
def test_ids_that_do_not_fit(tmp_path: Path, ids: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a\.png: expected (segment ids in 0\.\.16777215|\(H, W\) integers), got"):
        write_panoptic_ids(tmp_path / "a.png", ids)
    assert not (tmp_path / "a.png").exists()


# The JSON


def test_rows_by_ascending_id(tmp_path: Path) -> None:
    path = dump(tmp_path / "a.json", content(segment(900, 149), segment(20, 3, 1), segment(300, 18), segment(30, 3)))
    index = PanopticIndex(path, SPEC)
    assert (index.label_names, index.image_names, len(index)) == (["7.png"], ["7.jpg"], 1)
    rows = index.rows(0)
    assert rows.ids.tolist() == [20, 30, 300, 900]
    assert rows.class_ids.tolist() == [0, 0, 2, 1]
    assert rows.crowd.tolist() == [True, False, False, False]
    assert number_instances(rows, SPEC).tolist() == [0, 1, 2, 0], "the crowd and the road have none"
    assert number_instances(rows, SPEC, np.array([10, 30, 40, 300])).tolist() == [0, 2, 4, 0]


def test_images_without_segments_and_a_json_without_images(tmp_path: Path) -> None:
    annotations = [{"image_id": 1, "file_name": "1.png", "segments_info": []}, content(segment(5, 3))["annotations"][0]]
    index = PanopticIndex(dump(tmp_path / "a.json", {"annotations": annotations}), SPEC)
    assert index.image_names == ["1.png", "7.png"]
    assert [len(index.rows(k).ids) for k in (0, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (content(segment(5, 4)), "expected categories of label spec toy, got segment 5 of category 4 in 7.png"),
        (content(segment(0, 3)), r"expected segment ids in 1\.\.16777215, got segment 0"),
        (content(segment(1 << 24, 3)), r"expected segment ids in 1\.\.16777215, got segment 16777216"),
        (content(segment(5, 3), segment(5, 149)), "expected segment ids of their own, got segment 5"),
        (content(segment("five", 3)), "expected a panoptic JSON with images and annotations"),
        (content(segment(None, 3)), "expected a panoptic JSON with images and annotations"),
        (content([], segment(5, 3)), "expected a panoptic JSON .*a segment without id and category_id"),
        (content({"id": 5}), "expected a panoptic JSON with images and annotations"),
        (content(annotations=None), "expected a panoptic JSON with images and annotations"),
        (content(annotations=2 * content()["annotations"]), "expected one annotation for each PNG, got two for 7.png"),
        ({"images": []}, "expected a panoptic JSON with images and annotations, got KeyError"),
        (content(annotations=[{**content()["annotations"][0], "file_name": "../7.png"}]), r"file_name '\.\./7\.png'"),
        (content(annotations=[{**content()["annotations"][0], "file_name": "7\0.png"}]), "file_name '7"),
        (content(annotations=[{**content()["annotations"][0], "file_name": "7" * 256}]), r"file_name '7+\.\.\.7+'"),
        ([1, 2], "expected a panoptic JSON with an object at its top"),
    ],
)
def test_files_that_are_none(tmp_path: Path, broken: Any, message: str) -> None:
    path = dump(tmp_path / "a.json", broken)
    with pytest.raises(DataError, match=rf"^{path}: .*{message}") as error:
        PanopticIndex(path, SPEC)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: expected a panoptic JSON, cannot open it"):
        PanopticIndex(tmp_path / "a.json", SPEC)
    for text in (b'{"images": [', b"\xff\xfe\x00", b"[" * 100_000):
        (tmp_path / "a.json").write_bytes(text)
        with pytest.raises(DataError, match=r"a\.json: expected a JSON file, got one that is broken"):
            PanopticIndex(tmp_path / "a.json", SPEC)


# Both together


def test_maps_by_hand(tmp_path: Path) -> None:
    ids = np.array([[0, 20, 20], [900, 300, 20]])
    write_panoptic_ids(tmp_path / "7.png", ids)
    rows = SegmentRows(np.array([20, 300, 900]), np.array([0, 2, 1], np.uint8), np.array([True, False, False]))
    class_map, instance_map = read_coco_panoptic(tmp_path / "7.png", rows, number_instances(rows, SPEC))
    assert class_map.tolist() == [[255, 0, 0], [1, 2, 0]]
    assert instance_map.tolist() == [[0, 0, 0], [0, 1, 0]]
    assert (class_map.dtype, instance_map.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("unlisted", [19, 21, 901])
def test_a_segment_that_the_json_does_not_list(tmp_path: Path, unlisted: int) -> None:
    write_panoptic_ids(tmp_path / "7.png", np.array([[0, 20], [900, unlisted]]))
    rows = SegmentRows(np.array([20, 900]), np.array([0, 1], np.uint8), np.array([False, False]))
    with pytest.raises(DataError, match=rf"7\.png: expected segments that the JSON lists, got {unlisted} \(1 unlisted"):
        read_coco_panoptic(tmp_path / "7.png", rows, number_instances(rows, SPEC))


def test_entries_keep_the_official_rules(tmp_path: Path) -> None:
    ids = np.array([[0, 20, 20], [900, 300, 20]])
    write_panoptic_ids(tmp_path / "7.png", ids)
    found = find_segments(ids)
    entries = segments_info(found, found.keys, np.array([0, 3, 18, 149]))
    assert [s["id"] for s in entries] == [20, 300, 900]
    check_segments(tmp_path / "7.png", entries, {3, 18, 149})
