"""Every dataset from end to end: predictions as inference writes them and as they are handed in, worked by hand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import CLASSES, IMAGE, VPS_JSON, read_dataset, spec_of, target_maps, write_predictions

from pix2seq_d.build import READERS
from pix2seq_d.data.formats import DataError, write_image, write_kitti_step
from pix2seq_d.data.submission import export_predictions
from pix2seq_d.engine.benchmarks import BENCHMARKS, BenchmarkPairs
from pix2seq_d.engine.scoring import Scores, Scoring, score
from pix2seq_d.labels import get_label_spec

VIDEOS = ("kitti-step", "motchallenge-step", "cityscapes-vps", "folder")
SUBMISSIONS = {name: name for name in CLASSES if name not in ("camvid", "folder")} | {"cityscapes-step": "cityscapes"}


def scores_of(pairs: BenchmarkPairs) -> Scores:
    return score(pairs, Scoring(metrics=pairs.metrics, windows=(1, 2), options=pairs.options), num_workers=0)


def evaluate(tmp_path: Path, name: str, predictions: Path, **options: Any) -> dict[str, Any]:
    pairs = BenchmarkPairs(name, predictions, read_dataset(tmp_path / "data", name), **options)
    return scores_of(pairs).evaluator.compute()


def check(name: str, result: dict[str, Any]) -> None:
    """The values of dataset_trees' drawing.

    Stuff: 3 of 4 pixels. Thing: 3 shared, 5 predicted, 3 labelled, and one of the predicted on void: 3/4, or 3/5 where
    void stays in the union. Pixels by class: 3/4 and 3/4. Tubes of two frames, the thing's id changed: 3 of 3 + 3 + 5 -
    3 - 1 = 7, no match. Tracks: 2 * 3 * 3/8 / 6 = 3/8.
    """
    thing = 3 / 5 if name == "bdd100k" else 3 / 4
    assert result["pq"]["pq"] == pytest.approx((3 / 4 + thing) / 2)
    assert result["miou"]["miou"] == pytest.approx(3 / 4)
    assert result["num_frames"] == 2
    assert ("stq" in result) == ("vpq" in result) == (name in VIDEOS)
    if name in VIDEOS:
        assert result["vpq"]["per_window"]["1"]["pq"] == pytest.approx(3 / 4)
        assert result["vpq"]["per_window"]["2"]["pq"] == pytest.approx((3 / 4 + 0) / 2)
        assert (result["stq"]["aq"], result["stq"]["iou"]) == (pytest.approx(3 / 8), pytest.approx(3 / 4))
        assert result["stq"]["num_tracks"] == 1


def test_every_dataset_has_rules() -> None:
    assert BENCHMARKS.keys() == READERS.keys() == CLASSES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_what_inference_writes(tmp_path: Path, name: str) -> None:
    read_dataset(tmp_path / "data", name)
    check(name, evaluate(tmp_path, name, write_predictions(tmp_path / "data", tmp_path / "out", name)))


@pytest.mark.parametrize(("name", "submission"), [*SUBMISSIONS.items(), ("bdd100k", "bdd100k-json")])
def test_what_export_writes(tmp_path: Path, name: str, submission: str) -> None:
    read_dataset(tmp_path / "data", name)
    own = write_predictions(tmp_path / "data", tmp_path / "out", name)
    truth = {"ground_truth": tmp_path / "data" / VPS_JSON} if name == "cityscapes-vps" else {}
    export_predictions(own, tmp_path / "handed in", name=submission, label_spec=spec_of(name), **truth)
    check(name, evaluate(tmp_path, name, tmp_path / "handed in"))


def test_predictions_in_other_classes(tmp_path: Path) -> None:
    """A model of KITTI-STEP, scored on Cityscapes-VPS, where trucks are things too: its trucks have no ids."""
    data = tmp_path / "data"
    read_dataset(data, "cityscapes-vps")
    own = write_predictions(data, tmp_path / "out", "cityscapes-vps")
    source = get_label_spec("kitti-step")
    pairs = BenchmarkPairs("cityscapes-vps", own, READERS["cityscapes-vps"](data, "val"), source=source)
    check("cityscapes-vps", scores_of(pairs).evaluator.compute())
    assert pairs.notes() == ["labels kitti-step -> cityscapes-vps: become void: none; classes without data: none"]
    export_predictions(own, tmp_path / "sub", name="cityscapes-vps", ground_truth=data / VPS_JSON)
    with pytest.raises(ValueError, match=r"expected predictions in the classes of cityscapes-vps, .* got those of kit"):
        evaluate(tmp_path, "cityscapes-vps", tmp_path / "sub", source=source)


def test_crowds_are_as_the_tool_of_the_dataset_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd of cars that is missed: no segment in Cityscapes-VPS, a missed one in KITTI-STEP's VPQ."""
    missed = {}
    for name in ("cityscapes-vps", "kitti-step"):
        dataset = read_dataset(tmp_path / name, name)
        class_map, _ = target_maps(name)
        crowd = class_map, np.zeros((1, 8), np.int32)
        monkeypatch.setattr(dataset, "read_maps", lambda *key, crowd=crowd: crowd)
        empty = np.where(class_map == CLASSES[name][1], 255, class_map).astype(np.uint8)
        own = write_predictions(tmp_path / name, tmp_path / f"{name} out", name)
        for path in own.rglob("*.png"):
            write_kitti_step(path, empty, 0 * empty)
        result = scores_of(BenchmarkPairs(name, own, dataset)).evaluator.compute()
        missed[name] = result["vpq"]["per_window"]["1"]["per_class"]["car"]["fn"]
        assert result["pq"]["per_class"]["car"]["fn"] == 0
    assert missed == {"cityscapes-vps": 0, "kitti-step": 2}


def test_a_crowd_of_bdd100k_excuses_other_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicted cars on a crowd of people are wrong for panopticapi, and not for BDD100K's tool."""
    dataset = read_dataset(tmp_path / "data", "bdd100k")
    own = write_predictions(tmp_path / "data", tmp_path / "out", "bdd100k")
    thing = CLASSES["bdd100k"][1]
    class_map, ids = target_maps("bdd100k")
    crowd = np.where(class_map == thing, thing + 1, class_map), 0 * ids
    monkeypatch.setattr(dataset, "read_maps", lambda *key: crowd)
    pq = scores_of(BenchmarkPairs("bdd100k", own, dataset)).evaluator.compute()["pq"]
    assert pq["per_class"][dataset.label_spec.class_names[thing]]["fp"] == 0
    assert pq["n_things"] == 0, "neither a match nor a mistake"


# Which frames


def test_frames_between_the_labelled_ones_are_left_out(tmp_path: Path) -> None:
    """Inference over all 30 frames of a video; those of another video are too many."""
    dataset = read_dataset(tmp_path / "data", "cityscapes-vps")
    own = write_predictions(tmp_path / "data", tmp_path / "out", "cityscapes-vps")
    between = own / "panoptic/0001/0001_0003_frankfurt_000000_000281_newImg8bit.png"
    write_kitti_step(between, np.array([[77]]), np.array([[0]]))  # nobody opens it
    pairs = BenchmarkPairs("cityscapes-vps", own, dataset)
    assert pairs.notes() == ["1 predicted frames between the labelled ones are left out"]
    check("cityscapes-vps", scores_of(pairs).evaluator.compute())
    between.rename(own / "panoptic/0001/0002_0003_frankfurt_000001_000281_newImg8bit.png")
    with pytest.raises(ValueError, match=r"got 1 extra frames \(frankfurt_000001_000281\)$"):
        BenchmarkPairs("cityscapes-vps", own, dataset)


@pytest.mark.parametrize("name", CLASSES)
def test_missing_and_extra_frames(tmp_path: Path, name: str) -> None:
    dataset = read_dataset(tmp_path / "data", name)
    own = write_predictions(tmp_path / "data", tmp_path / "out", name)
    first, second = sorted((own / "panoptic").rglob("*.png"))
    new = {
        "cityscapes": "ulm_000000_000019",
        "cityscapes-step": "ulm_000000_000019",
        "cityscapes-vps": "a_000000_000001",
    }
    second.rename(second.with_name(f"{new.get(name, '0016E5_777777' if name == 'camvid' else '777777')}.png"))
    with pytest.raises(ValueError) as error:
        BenchmarkPairs(name, own, dataset)
    text = str(error.value)
    assert text.startswith(f"{own}: expected one map for each frame of the ground truth, got 1 missing frames (")
    assert "1 extra frames (" in text
    assert "\n" not in text
    first.unlink()
    with pytest.raises(ValueError, match=r"2 missing frames \("):
        BenchmarkPairs(name, own, dataset)


@pytest.mark.parametrize("name", CLASSES)
def test_maps_of_another_size_or_space_are_named(tmp_path: Path, name: str) -> None:
    dataset = read_dataset(tmp_path / "data", name)
    own = write_predictions(tmp_path / "data", tmp_path / "out", name)
    path = sorted((own / "panoptic").rglob("*.png"))[1]
    write_kitti_step(path, np.zeros((2, 8), int), np.zeros((2, 8), int))
    with pytest.raises(ValueError) as error:
        scores_of(BenchmarkPairs(name, own, dataset))
    assert str(error.value) == f"{path}: expected pred_semantic of the target's shape (1, 8), got (2, 8)"
    write_kitti_step(path, np.full((1, 8), 200), np.zeros((1, 8), int))
    with pytest.raises(DataError) as error:
        scores_of(BenchmarkPairs(name, own, dataset))
    assert (
        str(error.value).startswith(f"{path}: label spec {spec_of(name).name}: expected class ids ") or name == "folder"
    )
    assert str(error.value).endswith("got 200")


def test_a_split_without_labels(tmp_path: Path) -> None:
    read_dataset(tmp_path / "data", "kitti-step")
    shutil.copytree(tmp_path / "data/images/val", tmp_path / "data/images/test")
    with pytest.raises(DataError, match="kitti-step: expected a split with public label maps, found one without"):
        BenchmarkPairs("kitti-step", tmp_path, READERS["kitti-step"](tmp_path / "data", "test"))


def test_stills_of_ones_own(tmp_path: Path) -> None:
    """Their names are those of the files, whatever folder inference has put them in; they have no VPQ and STQ."""
    data = tmp_path / "data"
    read_dataset(data, "folder")
    for kind, suffix in (("images", "jpg"), ("panoptic", "png")):
        for k, name in enumerate(("left", "right")):
            (data / f"val/{kind}/walk/{k}.{suffix}").rename(data / f"val/{kind}/{name}.{suffix}")
        (data / f"val/{kind}/walk").rmdir()
    own = write_predictions(data, tmp_path / "out", "folder")
    pairs = BenchmarkPairs("folder", own, READERS["folder"](data, "val"))
    assert pairs.metrics == ("pq", "miou")
    assert list(pairs.sequences) == ["left", "right"]
    assert scores_of(pairs).evaluator.compute()["pq"]["pq"] == pytest.approx(3 / 4)


def test_images_where_they_are(tmp_path: Path) -> None:
    dataset = read_dataset(tmp_path / "data", "coco")
    own = write_predictions(tmp_path / "data", tmp_path / "out", "coco")
    pairs = BenchmarkPairs("coco", own, dataset)
    frame = pairs.sequences["000000000009"][0]
    assert np.abs(pairs.read_image(frame).astype(int) - IMAGE).max() < 3  # a JPEG
    (tmp_path / "data/val2017/000000000009.jpg").unlink()
    assert pairs.read_image(frame) is None


# Published vectors

DATA = os.environ.get("PIX2SEQ_D_TEST_DATA")
needs_vectors = pytest.mark.skipif(DATA is None, reason="PIX2SEQ_D_TEST_DATA names no folder with the vectors")


def vectors(name: str) -> Path:
    return Path(str(DATA)) / "vectors" / name


@needs_vectors
def test_bdd100k_of_its_own_evaluator(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"images/10k/val/{name}.jpg", IMAGE)
    shutil.copytree(vectors("bdd100k_pan_seg") / "gt", tmp_path / "labels/pan_seg/bitmasks/val")
    pairs = BenchmarkPairs("bdd100k", vectors("bdd100k_pan_seg") / "pred", READERS["bdd100k"](tmp_path, "val"))
    pq = scores_of(pairs).evaluator.compute()["pq"]
    assert [100 * pq[key] for key in ("pq", "pq_stuff", "pq_things", "sq", "rq")] == pytest.approx(
        [66.46278879, 64.38602381, 82.03852616, 68.35183709, 85.29411765], abs=1e-7
    )


@needs_vectors
def test_coco_sample_against_itself(tmp_path: Path) -> None:
    sample = vectors("panopticapi_sample")
    for folder, stem in ((tmp_path / "coco", "panoptic_val2017"), (tmp_path / "handed in", "anything")):
        shutil.copytree(sample / "panoptic_examples", folder / stem)
        shutil.copyfile(sample / "panoptic_examples.json", folder / f"{stem}.json")
    shutil.copytree(sample / "input_images", tmp_path / "coco/val2017")
    pairs = BenchmarkPairs("coco", tmp_path / "handed in", READERS["coco"](tmp_path / "coco", "val"))
    result = scores_of(pairs).evaluator.compute()
    assert (result["pq"]["pq"], result["miou"]["miou"], result["num_frames"]) == (1, 1, 2)


@needs_vectors
def test_cityscapes_sample_of_deeplab2(tmp_path: Path) -> None:
    """Its ground truth as prediction, through our own form and the server's: one crowd, 9 segments, all found."""
    sample, image_id = vectors("deeplab2_cityscapes"), "dummy_000000_000000"
    (tmp_path / "leftImg8bit/val/dummy").mkdir(parents=True)
    shutil.copy(sample / f"leftImg8bit/{image_id}_leftImg8bit.png", tmp_path / "leftImg8bit/val/dummy")
    stem = "cityscapes_panoptic_{}_trainId"
    shutil.copytree(sample / "gtFine" / stem.format("dummy"), tmp_path / "gtFine" / stem.format("val"))
    source = sample / "gtFine" / f"{stem.format('dummy')}.json"
    shutil.copy(source, tmp_path / "gtFine" / f"{stem.format('val')}.json")
    dataset = READERS["cityscapes"](tmp_path, "val")
    maps = dataset.read_maps("dummy_000000", 0)
    write_kitti_step(tmp_path / f"own/panoptic/dummy/{image_id}_leftImg8bit.png", *maps)
    export_predictions(tmp_path / "own", tmp_path / "handed in", name="cityscapes")
    for predictions in ("own", "handed in"):
        pq = scores_of(BenchmarkPairs("cityscapes", tmp_path / predictions, dataset)).evaluator.compute()["pq"]
        assert (pq["pq"], sum(c["tp"] for c in pq["per_class"].values())) == (1, 9)
        assert pq["per_class"]["car"] == {"pq": 1, "sq": 1, "rq": 1, "tp": 5, "fp": 0, "fn": 0, "valid": True}
