"""Every format of a submission: the rules of its official tool, and back through the reader of its dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from submission_rules import (
    Maps,
    check_segments,
    draw_maps,
    dump,
    joint,
    read,
    rgb_ids,
    same_segments,
    write_predictions,
)

from pix2seq_d.data.bdd100k import Bdd100k, read_bitmask
from pix2seq_d.data.cityscapes_ids import read_panoptic_png
from pix2seq_d.data.cityscapes_vps import CityscapesVps
from pix2seq_d.data.coco import Coco
from pix2seq_d.data.coco_format import PanopticIndex
from pix2seq_d.data.formats import DataError, read_kitti_step, write_image
from pix2seq_d.data.kitti_step import KittiStep
from pix2seq_d.data.motchallenge_step import MotChallengeStep
from pix2seq_d.data.rle import decode_mask
from pix2seq_d.data.submission import export_predictions
from pix2seq_d.labels import get_label_spec

GREY = np.zeros((24, 40, 3), np.uint8)
CITY = ("frankfurt_000000_000294", "munster_000173_000019")
VPS = tuple(f"0001_{k + 1:04d}_frankfurt_000000_{279 + 5 * k:06d}" for k in range(3))


def maps_of(spec_name: str, names: tuple[str, ...], **options: Any) -> dict[str, Maps]:
    return {name: draw_maps(get_label_spec(spec_name), seed=k, **options) for k, name in enumerate(names)}


def export(tmp_path: Path, maps: dict[str, Maps], name: str, **options: Any) -> Path:
    write_predictions(tmp_path / "predictions", maps)
    assert export_predictions(tmp_path / "predictions", tmp_path / "out", name=name, **options) == len(maps)
    return tmp_path / "out"


# KITTI-STEP and MOTChallenge-STEP: ids are kept


@pytest.mark.parametrize(
    ("name", "reader", "suffix"), [("kitti-step", KittiStep, ".png"), ("motchallenge-step", MotChallengeStep, ".jpg")]
)
def test_step(tmp_path: Path, name: str, reader: Any, suffix: str) -> None:
    frames = ("0002/000000", "0002/000001", "000010/000010_000007_leftImg8bit", "MOTS20-09/img1/000003")
    maps = maps_of(name, frames, instances=60000)
    out = export(tmp_path, maps, name)
    written = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png"))
    assert written == ["0002/000000.png", "0002/000001.png", "0009/000003.png", "0010/000007.png"]
    out.rename(tmp_path / "train")
    (tmp_path / "panoptic_maps").mkdir()
    (tmp_path / "train").rename(tmp_path / "panoptic_maps/train")
    for path in written:
        write_image((tmp_path / "images/train" / path).with_suffix(suffix), GREY)
    dataset = reader(tmp_path, "train")
    for frame, (sequence, number) in zip(frames, (("0002", 0), ("0002", 1), ("0010", 7), ("0009", 3))):
        np.testing.assert_array_equal(joint(dataset.read_maps(sequence, number)), joint(maps[frame]))


def test_things_of_another_spec_have_no_instances_in_kitti_step(tmp_path: Path) -> None:
    """Cityscapes' truck (14) has instances, KITTI-STEP's has none; the car (13) has in both."""
    maps = {"0002/000000": (np.array([[13, 14, 0]]), np.array([[5, 6, 7]]))}
    out = export(tmp_path, maps, "kitti-step", label_spec=get_label_spec("cityscapes"))
    class_map, instance_map = read_kitti_step(out / "0002/000000.png")
    assert (class_map.tolist(), instance_map.tolist()) == ([[13, 14, 0]], [[5, 0, 0]])


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (("video/000000",), r"video/000000\.png: expected a folder called by the number of its sequence"),
        (("000000",), r"000000\.png: expected a folder called by the number"),
        (("0002/first",), r"first\.png: expected a frame number in the file name"),
        (("0002/000001", "2/1"), r"2/1\.png: expected one map of 0002/000001, found .*000001\.png too"),
    ],
)
def test_names_that_are_no_step_frames(tmp_path: Path, frames: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        export(tmp_path, maps_of("kitti-step", frames), "kitti-step")
    assert not (tmp_path / "out").exists()


# COCO


def as_coco(tmp_path: Path, out: Path) -> Coco:
    """The exported JSON and PNGs as a dataset."""
    (tmp_path / "coco").mkdir()
    (out / "out").rename(tmp_path / "coco/panoptic_val2017")
    (out / "out.json").rename(tmp_path / "coco/panoptic_val2017.json")
    write_image(tmp_path / "coco/val2017/000000000009.jpg", GREY)
    return Coco(tmp_path / "coco", "val")


def test_coco(tmp_path: Path) -> None:
    spec = get_label_spec("coco")
    maps = maps_of("coco", ("val2017/000000000139", "val2017/000000000009"), instances=60000, size=(48, 80))
    out = export(tmp_path, maps, "coco")
    annotations = read(out / "out.json")["annotations"]
    assert [a["image_id"] for a in annotations] == [9, 139]
    for a in annotations:
        check_segments(out / "out" / a["file_name"], a["segments_info"], set(spec.dataset_ids))
    dataset = as_coco(tmp_path, out)
    for frame, expected in maps.items():
        assert same_segments(dataset.read_maps(frame.rpartition("/")[2], 0), expected)


def test_the_ground_truth_decides_which_frames_and_their_order(tmp_path: Path) -> None:
    truth = {"images": [{"id": i, "file_name": f"{i}.jpg", "height": 24, "width": 40} for i in (139, 9)]}
    maps = maps_of("coco", ("a/000000000009", "a/000000000010", "a/000000000139"))
    out = export(tmp_path, maps, "coco", ground_truth=dump(tmp_path / "truth.json", truth))
    assert [a["image_id"] for a in read(out / "out.json")["annotations"]] == [139, 9]
    assert sorted(p.name for p in (out / "out").iterdir()) == ["000000000009.png", "000000000139.png"]


def test_the_ground_truth_of_coco_has_two_orders(tmp_path: Path) -> None:
    """As panoptic_val2017.json: annotations by id, images as they came; an image without annotation is not scored."""
    truth = {"images": [{"id": 139}, {"id": 5}, {"id": 9}], "annotations": [{"image_id": 9}, {"image_id": 139}]}
    maps = maps_of("coco", ("a/000000000009", "a/000000000139"))
    out = export(tmp_path, maps, "coco", ground_truth=dump(tmp_path / "truth.json", truth))
    assert [a["image_id"] for a in read(out / "out.json")["annotations"]] == [9, 139]


@pytest.mark.parametrize(
    ("frame", "truth", "message"),
    [
        ("a/street", None, r"street\.png: expected a COCO frame called by its image id"),
        (
            "a/000000000009",
            {"images": [{"id": 9}, {"id": 5}]},
            r"^ground_truth: .* each of the 2 images .*none for 1 of them \(5\)",
        ),
        ("a/000000000009", {"images": [{"id": 9, "height": 48, "width": 40}]}, r"009\.png: .* 48x40, got 24x40"),
        ("a/000000000009", {"images": []}, r"truth\.json: expected images with numbers or names as ids, found 0"),
        ("a/000000000009", {"images": [{"id": [9]}]}, r"truth\.json: expected images with numbers or names as ids"),
        ("a/000000000009", {"images": [{"id": 9, "height": 1e999, "width": 1}]}, "their ids, got OverflowError"),
        ("a/000000000009", {"images": [{}]}, r"truth\.json: expected a JSON with images and their ids, got KeyError"),
        (
            "a/000000000009",
            {"images": [{"id": 9}], "annotations": [{"image_id": 5}, {"image_id": 9}]},
            r"truth\.json: expected an image for every annotation, found none for 5",
        ),
    ],
)
def test_coco_frames_that_do_not_fit(tmp_path: Path, frame: str, truth: Any, message: str) -> None:
    options = {"ground_truth": dump(tmp_path / "truth.json", truth)} if truth else {}
    with pytest.raises(DataError, match=message):
        export(tmp_path, maps_of("coco", (frame,)), "coco", **options)
    assert not (tmp_path / "out").exists()


# Cityscapes


def test_cityscapes(tmp_path: Path) -> None:
    """The reader of the ground truth gives the maps back, bit for bit."""
    spec = get_label_spec("cityscapes")
    maps = maps_of("cityscapes", tuple(f"{name[:-7]}/{name}_leftImg8bit" for name in CITY), instances=1000)
    out = export(tmp_path, maps, "cityscapes")
    annotations = read(out / "out.json")["annotations"]
    assert [a["image_id"] for a in annotations] == list(CITY)
    index = PanopticIndex(out / "out.json", spec)
    for k, (a, expected) in enumerate(zip(annotations, maps.values())):
        check_segments(out / "out" / a["file_name"], a["segments_info"], set(spec.dataset_ids))
        assert all(s["category_id"] == (s["id"] // 1000 or s["id"]) for s in a["segments_info"])
        back = read_panoptic_png(out / "out" / index.label_names[k], index.rows(k), spec)
        np.testing.assert_array_equal(joint(back), joint(expected))


def test_large_instance_ids_are_numbered_anew_in_their_class(tmp_path: Path) -> None:
    """Cars 70 and 1001 become 1 and 2 (0 and 1 on disk); the car without instance and the persons keep theirs."""
    class_map, instance_map = np.array([[13, 13, 13, 11, 11, 0]]), np.array([[1001, 0, 70, 70, 1000, 0]])
    out = export(tmp_path, {f"a/{CITY[0]}": (class_map, instance_map)}, "cityscapes")
    assert rgb_ids(out / "out" / f"{CITY[0]}.png").tolist() == [[26001, 26, 26000, 24069, 24999, 7]]


def test_more_instances_than_a_class_can_have(tmp_path: Path) -> None:
    instance_map = np.arange(1, 1026).reshape(25, 41)
    maps = {f"a/{CITY[0]}": (np.full((25, 41), 13), instance_map)}
    with pytest.raises(DataError, match=rf"{CITY[0]}\.png: expected at most 1000 instances of car, got 1025"):
        export(tmp_path, maps, "cityscapes")


def test_predictions_of_kitti_step_as_cityscapes(tmp_path: Path) -> None:
    """The classes are the same; the ids are the eval ids, not the train ids that KITTI-STEP has on disk."""
    maps = maps_of("kitti-step", (f"a/{CITY[0]}",))
    out = export(tmp_path, maps, "cityscapes", label_spec=get_label_spec("kitti-step"))
    known = set(get_label_spec("cityscapes").dataset_ids)
    assert {s["category_id"] for s in read(out / "out.json")["annotations"][0]["segments_info"]} <= known
    with pytest.raises(DataError, match=r"0000\.png: expected a frame called like frankfurt_000000_000294_leftImg8bit"):
        export(tmp_path / "b", maps_of("kitti-step", ("a/0000",)), "cityscapes")


# Cityscapes-VPS


def vps_truth(path: Path) -> Path:
    images = [{"id": n, "file_name": f"{n}_newImg8bit.png", "height": 24, "width": 40} for n in VPS]
    return dump(path, {"images": images, "annotations": [{"image_id": n, "segments_info": []} for n in VPS]})


@pytest.mark.parametrize("original", [False, True])
def test_cityscapes_vps(tmp_path: Path, original: bool) -> None:
    """Predicted from img/ or, every frame of it, from img_all/ under Cityscapes' names; read back as ground truth."""
    dense = ["frankfurt_000000_000280"] if original else []
    stems = {n: f"{n[10:]}_leftImg8bit" if original else f"{n}_newImg8bit" for n in VPS}
    maps = maps_of("cityscapes-vps", tuple(f"v/{s}" for s in [*stems.values(), *dense]), instances=60000)
    out = export(tmp_path, maps, "cityscapes-vps", ground_truth=vps_truth(tmp_path / "truth.json"))
    annotations = read(out / "pred.json")["annotations"]
    assert [set(a) for a in annotations] == [{"segments_info"}] * 3
    for name, a in zip(VPS, annotations):
        check_segments(out / "pan_pred" / f"{name}.png", a["segments_info"], set(range(19)))
        a |= {"image_id": name, "file_name": f"{name}.png"}
        write_image(tmp_path / "vps/val/img" / f"{name}.png", GREY)
    (out / "pan_pred").rename(tmp_path / "vps/val/panoptic_video")
    dump(tmp_path / "vps/panoptic_gt_val_city_vps.json", {"annotations": annotations})
    dataset = CityscapesVps(tmp_path / "vps", "val")
    back = [dataset.read_maps("0001", number) for number in dataset.frame_ids("0001")]
    whole = [tuple(map(np.concatenate, zip(*frames))) for frames in (back, [maps[f"v/{stems[n]}"] for n in VPS])]
    assert same_segments(whole[0], whole[1]), "also over the frames: an object keeps its id"


def test_a_missing_frame_of_cityscapes_vps(tmp_path: Path) -> None:
    maps = maps_of("cityscapes-vps", tuple(f"v/{n}_newImg8bit" for n in VPS[:1]))
    with pytest.raises(DataError, match=rf"each of the 3 images .*none for 2 of them \({VPS[1]}, {VPS[2]}\)"):
        export(tmp_path, maps, "cityscapes-vps", ground_truth=vps_truth(tmp_path / "truth.json"))


def test_a_ground_truth_of_cityscapes_vps_in_two_orders(tmp_path: Path) -> None:
    """Its evaluator takes PNGs in the order of the images and segments in that of the annotations."""
    path = vps_truth(tmp_path / "truth.json")
    truth = read(path)
    dump(path, {**truth, "images": truth["images"][::-1]})
    maps = maps_of("cityscapes-vps", tuple(f"v/{n}_newImg8bit" for n in VPS))
    with pytest.raises(DataError, match=r"truth\.json: expected images and annotations in one order, got two orders"):
        export(tmp_path, maps, "cityscapes-vps", ground_truth=path)


# Predictions in other classes than the format's


def test_kitti_step_as_motchallenge_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sidewalk 1 -> 0, person 11 -> 4 with its id, road 0 and car 13 -> void."""
    caplog.set_level("INFO")
    maps = {"0002/000001": (np.array([[1, 11, 13, 0, 255]]), np.array([[0, 7, 8, 0, 0]]))}
    out = export(tmp_path, maps, "motchallenge-step", label_spec=get_label_spec("kitti-step"))
    class_map, instance_map = read_kitti_step(out / "0002/000001.png")
    assert (class_map.tolist(), instance_map.tolist()) == ([[0, 4, 255, 255, 255]], [[0, 7, 0, 0, 0]])
    assert caplog.messages == [
        "labels kitti-step -> motchallenge-step: become void: road, wall, fence, pole, traffic light, traffic sign, "
        "terrain, car, truck, bus, train, motorcycle; classes without data: none"
    ]


def test_cityscapes_as_cityscapes_vps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same classes, which have class ids on one disk and train ids on the other: nothing to say."""
    caplog.set_level("INFO")
    options = {"ground_truth": vps_truth(tmp_path / "truth.json"), "label_spec": get_label_spec("cityscapes")}
    maps = {f"v/{n}_newImg8bit": (np.array([[0, 13, 13]] * 24), np.array([[0, 1, 2]] * 24)) for n in VPS}
    maps = {n: tuple(np.pad(m, ((0, 0), (0, 37))) for m in both) for n, both in maps.items()}
    out = export(tmp_path, maps, "cityscapes-vps", **options)
    for annotation in read(out / "pred.json")["annotations"]:
        assert [s["category_id"] for s in annotation["segments_info"]] == [0, 13, 13]
    assert not caplog.messages


def test_two_kinds_of_things_that_become_one_stay_apart(tmp_path: Path) -> None:
    """Person 5 and rider 5 of Cityscapes are two persons of COCO; ids double, and 40000 no longer fits."""
    options: Any = {"name": "coco", "label_spec": get_label_spec("cityscapes")}
    out = export(tmp_path, {"a/9": (np.array([[11, 12, 11]]), np.array([[5, 5, 0]]))}, **options)
    assert [s["category_id"] for s in read(out / "out.json")["annotations"][0]["segments_info"]] == [1, 1, 1]
    with pytest.raises(DataError, match=r"a/9\.png: expected instance ids below 65536 as coco counts, got 79999"):
        export(tmp_path / "b", {"a/9": (np.array([[11]]), np.array([[40000]]))}, **options)


# BDD100K


def test_bdd100k(tmp_path: Path) -> None:
    maps = maps_of("bdd100k", ("val/b1-a", "val/b2-b"), instances=60000)
    out = export(tmp_path, maps, "bdd100k")
    for name in ("b1-a", "b2-b"):
        write_image(tmp_path / "images/10k/val" / f"{name}.jpg", GREY)
        categories, flags, ids = read_bitmask(out / f"{name}.png")
        assert not flags.any()
        assert not ids[categories == 0].any()
        assert (ids == categories)[(categories > 0) & (categories <= 30)].all()
        for number in set(np.unique(ids).tolist()) - {0}:  # the evaluator asserts this
            assert len(np.unique(categories[ids == number])) == 1
        areas = [int((ids == n).sum()) for n in range(31, ids.max() + 1)]
        assert areas == sorted(areas, reverse=True)
        assert min(areas) > 0
    (tmp_path / "labels/pan_seg/bitmasks").mkdir(parents=True)
    out.rename(tmp_path / "labels/pan_seg/bitmasks/val")
    dataset = Bdd100k(tmp_path, "val")
    for name, expected in maps.items():
        assert same_segments(dataset.read_maps(name[4:], 0), expected)


def test_bdd100k_json_agrees_with_the_bitmasks(tmp_path: Path) -> None:
    spec, maps = get_label_spec("bdd100k"), maps_of("bdd100k", ("val/b1-a", "val/b2-b"))
    frames = read(export(tmp_path, maps, "bdd100k-json") / "pan_seg.json")
    export_predictions(tmp_path / "predictions", tmp_path / "masks", name="bdd100k")
    assert [f["name"] for f in frames] == ["b1-a.jpg", "b2-b.jpg"]
    for frame in frames:
        bitmask = read_bitmask(tmp_path / "masks" / f"{frame['name'][:-4]}.png")
        covered = np.zeros((24, 40), int)
        for label in frame["labels"]:
            mask = decode_mask(label["rle"]["counts"], tuple(label["rle"]["size"]))
            covered += mask
            np.testing.assert_array_equal(mask, bitmask.annotation_ids == int(label["id"]))
            assert set(bitmask.categories[mask]) == {spec.class_names.index(label["category"]) + 1}
        np.testing.assert_array_equal(covered, bitmask.categories > 0)


def test_more_segments_than_a_bitmask_numbers(tmp_path: Path) -> None:
    """Cars 1..65535 and one person are 65536 things; 30 ids are stuff's."""
    instance_map = np.arange(1, 65537).reshape(256, 256)
    class_map = np.where(instance_map > 65535, 30, 34)
    with pytest.raises(DataError, match=r"a\.png: expected at most 65535 segments, got 65566"):
        export(tmp_path, {"v/a": (class_map, np.minimum(instance_map, 65535))}, "bdd100k")


def test_the_draws_hold_what_is_to_be_tested() -> None:
    class_map, instance_map = draw_maps(get_label_spec("kitti-step"), seed=0)
    assert {11, 13, 255} <= set(np.unique(class_map).tolist())
    assert {0, 1, 2, 3} == set(np.unique(instance_map[np.isin(class_map, (11, 13))]).tolist())
