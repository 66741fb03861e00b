"""Predictions in the forms of the benchmarks: what other tools write as well, and what is no such form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from submission_rules import draw_maps, dump, joint, same_segments, write_predictions

from pix2seq_d.data.bdd100k import Bitmask, write_bitmask
from pix2seq_d.data.coco_format import write_panoptic_ids
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.rle import encode_segments
from pix2seq_d.data.submission import export_predictions
from pix2seq_d.data.submission_formats import Prediction, cityscapes_id, coco_id
from pix2seq_d.data.submission_readers import (
    Bitmasks,
    OwnMaps,
    PanopticPngs,
    ScalabelMasks,
    find_predictions,
    read_panoptic_predictions,
    read_vps_predictions,
)
from pix2seq_d.labels import get_label_spec

COCO, CITY, VPS, BDD, CAMVID = map(get_label_spec, ("coco", "cityscapes", "cityscapes-vps", "bdd100k", "camvid"))
SIZE = (24, 40)
FRAME = "frankfurt_000000_000294"


def coco_name(frame: Prediction) -> str:
    return f"{coco_id(frame):012d}"


def stem(frame: Prediction) -> str:
    return frame.stem


@pytest.mark.parametrize(
    ("submission", "spec", "name", "frame", "kind"),
    [
        ("coco", COCO, coco_name, "val2017/000000000139", PanopticPngs),
        ("cityscapes", CITY, cityscapes_id, f"frankfurt/{FRAME}_leftImg8bit", PanopticPngs),
        ("bdd100k", BDD, stem, "val/b1c66a42", Bitmasks),
        ("bdd100k-json", BDD, stem, "val/b1c66a42", ScalabelMasks),
    ],
)
def test_what_export_has_written_has_the_same_segments(
    tmp_path: Path, submission: str, spec: Any, name: Any, frame: str, kind: type
) -> None:
    maps = draw_maps(spec, seed=0)
    own = write_predictions(tmp_path / "own", {frame: maps})
    export_predictions(own, tmp_path / "sub", name=submission)
    (key,) = (handed_in := find_predictions(tmp_path / "sub", spec, name)).files
    assert isinstance(handed_in, kind)
    assert same_segments(handed_in.read(key, SIZE), maps)
    ours = find_predictions(own, spec, name)
    assert isinstance(ours, OwnMaps)
    np.testing.assert_array_equal(joint(ours.read(key, SIZE)), joint(maps))


def test_annotations_say_which_image_they_are_of(tmp_path: Path) -> None:
    """Another tool calls its PNGs as it likes; `iscrowd` of a prediction means nothing."""
    write_panoptic_ids(tmp_path / "mine/x.png", np.array([[3, 3, 9, 0]]))
    segments = [{"id": 9, "category_id": 26, "iscrowd": 1}, {"id": 3, "category_id": 7}]
    path = dump(
        tmp_path / "mine.json", {"annotations": [{"image_id": FRAME, "file_name": "x.png", "segments_info": segments}]}
    )
    maps = read_panoptic_predictions(path, CITY, cityscapes_id)
    assert maps.files == {FRAME: tmp_path / "mine/x.png"}
    class_map, instance_map = maps.read(FRAME, (1, 4))
    assert (class_map.tolist(), instance_map.tolist()) == ([[0, 0, 13, 255]], [[0, 0, 9, 0]])


def test_greyscale_maps_where_nothing_has_instances(tmp_path: Path) -> None:
    from pix2seq_d.data.formats import write_png

    write_png(tmp_path / "a.png", np.array([[0, 10, 11]], np.uint8))
    maps = find_predictions(tmp_path, CAMVID, stem)
    class_map, instance_map = maps.read("a", (1, 3))
    assert (class_map.tolist(), instance_map) == ([[0, 10, 255]], None)


# Scalabel


def scalabel(path: Path, *labels: tuple[str, list[list[int]]], **more: Any) -> Path:
    """A JSON of one frame, with a mask for every (category, mask)."""
    entries = []
    for category, mask in labels:
        counts = dict(encode_segments(np.array(mask)))[1]
        entries.append({"category": category, "rle": {"counts": counts, "size": [len(mask), len(mask[0])]}})
    return dump(path / "pan_seg.json", {"frames": [{"name": "a.jpg", "labels": entries, **more}]})


def test_scalabel(tmp_path: Path) -> None:
    path = scalabel(tmp_path, ("road", [[1, 1, 0, 0]]), ("car", [[0, 0, 1, 0]]))
    maps = find_predictions(tmp_path, BDD, stem)
    assert maps.files == {"a": path}
    class_map, instance_map = maps.read("a", (1, 4))
    assert (class_map.tolist(), instance_map.tolist()) == ([[6, 6, 34, 255]], [[0, 0, 2, 0]])


def test_scalabel_without_segments(tmp_path: Path) -> None:
    scalabel(tmp_path, labels=None)
    class_map, instance_map = find_predictions(tmp_path, BDD, stem).read("a", (2, 3))
    assert (class_map.tolist(), instance_map.tolist()) == ([[255] * 3] * 2, [[0] * 3] * 2)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            [("road", [[1, 1, 0]]), ("car", [[0, 1, 1]])],
            r"a: expected masks that do not overlap, got label 2 on others",
        ),
        ([("road", [[1, 1, 0]]), ("car", [[0, 1]])], r"a: expected labels of one size \[height, width\], got others"),
        ([("roof", [[1]])], r"a: expected categories of bdd100k, got 'roof'"),
    ],
)
def test_scalabel_that_is_no_panoptic_map(tmp_path: Path, labels: list[Any], words: str) -> None:
    path = scalabel(tmp_path, *labels)
    with pytest.raises(DataError, match=f"^{path}: {words}$"):
        find_predictions(tmp_path, BDD, stem).read("a", (1, 3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", r"expected a JSON file, got one that is broken or cut off"),
        ('{"frames": 3}', r"expected a Scalabel JSON of frames and labels with rle, got TypeError"),
        ('[{"name": "a", "labels": [{"category": "car"}]}]', r"expected a Scalabel JSON .*, got KeyError\('rle'\)"),
        ('[{"name": "a", "labels": []}, {"name": "a", "labels": []}]', r"expected one map of a, found two"),
    ],
)
def test_jsons_that_are_no_scalabel(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=f"x.json: {words}"):
        find_predictions(tmp_path, BDD, stem)


def test_a_broken_mask_names_its_frame(tmp_path: Path) -> None:
    labels = [{"category": "car", "rle": {"counts": "0", "size": [1, 3]}}]
    path = dump(tmp_path / "x.json", [{"name": "a", "labels": labels}])
    with pytest.raises(DataError, match=f"^{path}: a: expected an RLE string of 1x3 pixels"):
        ScalabelMasks(path, BDD).read("a", (1, 3))


# Bitmasks, panoptic JSONs


def test_bitmasks_of_other_categories(tmp_path: Path) -> None:
    plane = np.array([[41]], np.uint8)
    write_bitmask(tmp_path / "a.png", Bitmask(plane, 0 * plane, 0 * plane))
    with pytest.raises(DataError, match=r"a\.png: expected categories 0\.\.40, got 41"):
        find_predictions(tmp_path, BDD, stem).read("a", (1, 1))


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ([{"file_name": "x.png", "segments_info": []}], "expected annotations with 'image_id', got one without"),
        ([{"image_id": "a", "file_name": "x.png", "segments_info": []}], "a.png: expected a frame called like frankf"),
        ([{"image_id": FRAME, "file_name": n, "segments_info": []} for n in "xy"], f"expected one map of {FRAME}"),
        (
            [{"image_id": FRAME, "file_name": "x", "segments_info": [{"id": 1, "category_id": 1}]}],
            "expected categories",
        ),
    ],
)
def test_panoptic_jsons_that_are_none(tmp_path: Path, annotations: list[Any], words: str) -> None:
    path = dump(tmp_path / "mine.json", {"annotations": annotations})
    with pytest.raises(DataError, match=words):
        read_panoptic_predictions(path, CITY, cityscapes_id)


def test_two_submissions_in_one_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        dump(tmp_path / f"{name}.json", {})
    with pytest.raises(DataError, match=r"expected one JSON with its folder, found one\.json and two\.json"):
        find_predictions(tmp_path, COCO, coco_name)


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        (None, "expected 1 annotations, those of truth.json, got 0"),
        ([{"id": 1, "category_id": 19}], "got segment 1 of category 19 in 0001_0001_a_000000_000004"),
        ([{"id": 0, "category_id": 1}], "expected different ids in 1..2\\^24 - 1 .*, got segment 0 of category 1"),
        ([{"id": 4, "category_id": 1}] * 2, "expected different ids .*, got segment 4 of category 1"),
        (["x"], "expected annotations with segments_info, got ValueError"),
    ],
)
def test_vps_jsons_that_do_not_fit(tmp_path: Path, segments: list[Any] | None, words: str) -> None:
    truth = dump(tmp_path / "truth.json", {"images": [{"id": "0001_0001_a_000000_000004", "file_name": "x.png"}]})
    entries = [] if segments is None else [{"segments_info": segments}]
    path = dump(tmp_path / "pred.json", {"annotations": entries})
    with pytest.raises(DataError, match=f"^{path}: .*{words}"):
        read_vps_predictions(path, truth, VPS)
