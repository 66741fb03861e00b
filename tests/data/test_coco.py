"""COCO panoptic: drawn small in both layouts, and panopticapi's two images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from submission_rules import dump

from pix2seq_d.data.coco import Coco
from pix2seq_d.data.coco_format import write_panoptic_ids
from pix2seq_d.data.formats import DataError, write_image
from pix2seq_d.labels import get_label_spec

IDS = np.array([[0, 500, 500, 9], [70000, 500, 12, 12]])
SEGMENTS = [(500, 1, 0), (9, 1, 0), (12, 3, 1), (70000, 149, 0)]  # two persons, a crowd of cars, a road


def make_coco(root: Path, images: str = "", labels: str = "annotations", *, numbers: tuple[int, ...] = (40, 9)) -> Path:
    for number in numbers:
        write_image(root / images / "val2017" / f"{number:012d}.jpg", np.full((2, 4, 3), number, np.uint8))
        write_panoptic_ids(root / labels / "panoptic_val2017" / f"{number:012d}.png", IDS)
    dump(
        root / labels / "panoptic_val2017.json",
        {
            "images": [{"id": n, "file_name": f"{n:012d}.jpg", "height": 2, "width": 4} for n in numbers],
            "annotations": [
                {
                    "image_id": n,
                    "file_name": f"{n:012d}.png",
                    "segments_info": [dict(zip(("id", "category_id", "iscrowd"), s)) for s in SEGMENTS],
                }
                for n in numbers
            ],
        },
    )
    return root


@pytest.mark.parametrize(("images", "labels"), [("", "annotations"), ("images", "")])
def test_both_layouts(tmp_path: Path, images: str, labels: str) -> None:
    dataset = Coco(make_coco(tmp_path, images, labels), "val")
    assert dataset.sequence_ids == ("000000000009", "000000000040")
    assert dataset.frame_ids("000000000040") == (0,)
    clip = dataset[1]
    assert clip.name == "000000000040/000000"
    assert abs(int(clip.frames[0, 0, 0, 0]) - 40) <= 1
    assert clip.class_map[0].tolist() == [[255, 0, 0, 0], [100, 0, 2, 2]]
    assert clip.instance_map[0].tolist() == [[0, 2, 2, 1], [0, 2, 0, 0]], "by ascending segment id; the crowd has none"
    assert get_label_spec("coco").class_names[100] == "road"


def test_no_image_has_a_past(tmp_path: Path) -> None:
    clip = Coco(make_coco(tmp_path, numbers=(1, 2, 3)), "val", past_offsets=(-1,), all_frames=True)[2]
    assert clip.present.tolist() == [False, True]
    assert (clip.class_map[0] == 255).all()
    assert clip.frames.shape == (2, 2, 4, 3)
    assert not clip.frames[0].any()


def test_files_are_opened_when_they_are_asked_for(tmp_path: Path) -> None:
    root = make_coco(tmp_path)
    (root / "val2017" / "000000000009.jpg").unlink()
    write_panoptic_ids(root / "annotations/panoptic_val2017/000000000040.png", IDS + 1)
    dataset = Coco(root, "val")
    assert len(dataset) == 2
    with pytest.raises(DataError, match=r"000000000009\.jpg: expected an image, found no such file"):
        dataset[0]
    with pytest.raises(DataError, match=r"000000000040\.png: expected segments that the JSON lists, got 1 "):
        dataset[1]


def test_chosen_sequences(tmp_path: Path) -> None:
    dataset = Coco(make_coco(tmp_path, numbers=tuple(range(30))), "val")
    with pytest.raises(ValueError, match=r"expected a sequence of 000000000000, .*, \.\.\., got '31'"):
        dataset.keep_sequences(["31"])
    dataset.keep_sequences(["000000000007"])
    assert (dataset.sequence_ids, len(dataset), dataset[0].sequence_id) == (("000000000007",), 1, "000000000007")


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'valid'"):
        Coco(tmp_path, "valid")
    with pytest.raises(DataError, match="expected a split with labels"):
        Coco(tmp_path, "test")
    with pytest.raises(DataError, match=r"expected COCO as val2017/ with .*panoptic_val2017\.zip.* found no images"):
        Coco(tmp_path, "val")
    (tmp_path / "val2017").mkdir()
    with pytest.raises(DataError, match="found no panoptic labels"):
        Coco(tmp_path, "val")
    for content, message in (
        ([], r"val2017\.json: expected annotations, found none"),
        ([{"image_id": k, "file_name": f"{k}/a.png", "segments_info": []} for k in (1, 2)], "two of one name"),
    ):
        (tmp_path / "panoptic_val2017").mkdir(exist_ok=True)
        dump(tmp_path / "panoptic_val2017.json", {"annotations": content})
        with pytest.raises(DataError, match=message):
            Coco(tmp_path, "val")


def test_two_real_images(tmp_path: Path) -> None:
    """Areas as the JSON of panopticapi's sample states them; the first image has ten persons."""
    folder = os.environ.get("PIX2SEQ_D_TEST_DATA")
    if not folder:
        pytest.skip("PIX2SEQ_D_TEST_DATA is not set: no real COCO images")
    sample = Path(folder) / "vectors" / "panopticapi_sample"
    shutil.copytree(sample / "input_images", tmp_path / "val2017")
    shutil.copytree(sample / "panoptic_examples", tmp_path / "panoptic_val2017")
    shutil.copy(sample / "panoptic_examples.json", tmp_path / "panoptic_val2017.json")
    dataset, spec = Coco(tmp_path, "val"), get_label_spec("coco")
    annotations = {
        a["file_name"][:-4]: a for a in json.loads((sample / "panoptic_examples.json").read_text())["annotations"]
    }
    assert dataset.sequence_ids == tuple(sorted(annotations))
    for clip in (dataset[0], dataset[1]):
        stated: dict[int, list[int]] = {}
        for s in annotations[clip.sequence_id]["segments_info"]:
            stated.setdefault(spec.dataset_ids.index(s["category_id"]), []).append(s["area"])
        for class_id, areas in stated.items():
            instances = clip.instance_map[0][clip.class_map[0] == class_id]
            assert sorted(np.unique(instances, return_counts=True)[1].tolist()) == sorted(areas)
        assert set(np.unique(clip.class_map).tolist()) - {255} == set(stated)
