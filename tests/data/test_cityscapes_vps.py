"""Cityscapes-VPS, drawn small: two videos of labelled frames five numbers apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from submission_rules import dump

from pix2seq_d.data.cityscapes_vps import CityscapesVps
from pix2seq_d.data.coco_format import write_panoptic_ids
from pix2seq_d.data.folder import list_sequences
from pix2seq_d.data.formats import DataError, write_image

NAMES = tuple(
    f"{video:04d}_{number:04d}_frankfurt_000000_{frame:06d}"
    for video, number, frame in ((1, 1, 279), (1, 2, 284), (1, 3, 289), (2, 7, 569), (2, 8, 574))
)


def ids_of(name: str) -> np.ndarray:
    """Road 1, car 5000 in all frames of video 1, a second car 300 from its second frame on; video 2 has car 300."""
    ids = np.ones((4, 6), int)
    ids[0, 0] = 0
    if name.startswith("0001"):
        ids[1:3, 0] = 5000
    if name >= NAMES[1]:
        ids[1:3, 5] = 300
    return ids


def annotation(name: str) -> dict[str, Any]:
    categories = {1: 0, 300: 13, 5000: 13}
    segments = [
        {"id": int(i), "category_id": categories[int(i)], "iscrowd": 0, "area": 1} for i in np.unique(ids_of(name)) if i
    ]
    return {"image_id": name, "file_name": f"{name}_final_mask.png", "segments_info": segments}


def make_vps(root: Path, *, original: bool = False) -> Path:
    """`original`: the images under Cityscapes' own names in img_all/ only."""
    for k, name in enumerate(NAMES):
        place = f"img_all/{name[10:]}_leftImg8bit.png" if original else f"img/{name}_newImg8bit.png"
        write_image(root / "val" / place, np.full((4, 6, 3), k, np.uint8))
        write_panoptic_ids(root / "val/panoptic_video" / f"{name}_final_mask.png", ids_of(name))
    images = [{"id": n, "file_name": f"{n}_newImg8bit.png", "height": 4, "width": 6} for n in NAMES]
    content = {"images": images, "annotations": [annotation(n) for n in NAMES]}
    dump(root / "panoptic_gt_val_city_vps.json", content)
    return root


@pytest.mark.parametrize("outer", ["", "cityscapes_vps"])
@pytest.mark.parametrize("original", [False, True])
def test_layouts(tmp_path: Path, outer: str, original: bool) -> None:
    make_vps(tmp_path / outer, original=original)
    dataset = CityscapesVps(tmp_path, "val")
    assert dataset.sequence_ids == ("0001", "0002")
    assert dataset.frame_ids("0001") == (279, 284, 289)
    image, class_map, _ = dataset.read_frame("0002", 574)
    assert (image == 4).all()
    assert class_map[:2].tolist() == [[255, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 13]]


def test_objects_keep_their_ids_in_a_video(tmp_path: Path) -> None:
    """Segment ids 300 and 5000 are instances 1 and 2 of video 1, also in the frame that has 5000 only."""
    dataset = CityscapesVps(make_vps(tmp_path), "val")
    assert [dataset.read_maps("0001", n)[1][1].tolist() for n in (279, 284)] == [[2, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 1]]
    assert dataset.read_maps("0002", 569)[1].max() == 1


def test_past_frames_are_labelled_ones(tmp_path: Path) -> None:
    clip = CityscapesVps(make_vps(tmp_path), "val", past_offsets=(-2, -1), all_frames=True)[2]
    assert (clip.name, clip.present.tolist()) == ("0001/000289", [True, True, True])
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert clip.instance_map[:, 1, 5].tolist() == [0, 1, 1]
    first = CityscapesVps(tmp_path, "val", past_offsets=(-1,))[3]
    assert (first.name, first.present.tolist()) == ("0002/000569", [False, True])


def test_frames_for_inference_are_grouped_by_video(tmp_path: Path) -> None:
    make_vps(tmp_path)
    name = "0002_0009_frankfurt_000000_000579"
    write_image(tmp_path / "val/img" / f"{name}_leftImg8bit.png", np.zeros((4, 6, 3), np.uint8))
    found = {s.sequence_id: [p.name for p in s.paths] for s in list_sequences(tmp_path / "val/img")}
    assert list(found) == ["0001", "0002"]
    assert found["0002"] == [f"{NAMES[3]}_newImg8bit.png", f"{NAMES[4]}_newImg8bit.png", f"{name}_leftImg8bit.png"]


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'valid'"):
        CityscapesVps(tmp_path, "valid")
    with pytest.raises(DataError, match="test are secret"):
        CityscapesVps(tmp_path, "test")
    with pytest.raises(
        DataError, match=r"expected Cityscapes-VPS as panoptic_gt_val_city_vps\.json with .*found no such"
    ):
        CityscapesVps(tmp_path, "val")
    make_vps(tmp_path)
    (tmp_path / "val/img" / f"{NAMES[0]}_newImg8bit.png").unlink()
    with pytest.raises(DataError, match=rf"{NAMES[0]}_newImg8bit\.png: expected a file that panoptic_gt_val"):
        CityscapesVps(tmp_path, "val")


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([], "expected annotations, found none"),
        ([{**annotation(NAMES[0]), "file_name": "frankfurt.png"}], "expected PNGs called like 0001_0001_frankfurt"),
        (
            [annotation(NAMES[0]), {**annotation(NAMES[0]), "file_name": f"{NAMES[0]}_gtFine_color.png"}],
            "expected one PNG for each frame of video 0001, got two",
        ),
    ],
)
def test_bad_annotations(tmp_path: Path, annotations: list[Any], message: str) -> None:
    make_vps(tmp_path)
    write_panoptic_ids(tmp_path / "val/panoptic_video" / f"{NAMES[0]}_gtFine_color.png", ids_of(NAMES[0]))
    dump(tmp_path / "panoptic_gt_val_city_vps.json", {"annotations": annotations})
    for name in NAMES:
        for label in ("final_mask", "gtFine_color"):
            write_image(tmp_path / "val/img" / f"{name}_{label}.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match=rf"panoptic_gt_val_city_vps\.json: {message}"):
        CityscapesVps(tmp_path, "val")
