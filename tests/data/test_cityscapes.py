"""Cityscapes from disk: four kinds of labels, snippets, splits without labels, and trees with something missing."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cityscapes_tree import FRAMES, city_file, maps_of, write_fine, write_images, write_panoptic, write_parts

from pix2seq_d.data.cityscapes import Cityscapes
from pix2seq_d.data.formats import DataError, write_image
from pix2seq_d.labels import get_label_spec

FULL, STEP = get_label_spec("cityscapes"), get_label_spec("cityscapes-step")
WRITERS = {
    "instance_ids": write_fine,
    "panoptic": write_panoptic,
    "panoptic_train_ids": partial(write_panoptic, train_ids=True),
    "panoptic_parts": write_parts,
}


def labels_of(kind: str) -> str:
    return kind.removesuffix("_train_ids")


def assert_one_line(error: pytest.ExceptionInfo[BaseException], path: Path) -> None:
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# What is read


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("auto", [False, True])
def test_every_kind_of_labels_gives_the_same_maps(tmp_path: Path, kind: str, auto: bool) -> None:
    WRITERS[kind](write_images(tmp_path))
    dataset = Cityscapes(tmp_path, "train", labels="auto" if auto else labels_of(kind))
    assert dataset.sequence_ids == ("aachen_000000", "aachen_000010", "frankfurt_000001")
    assert dataset.frame_ids("frankfurt_000001") == (294, 576)
    assert dataset.has_labels
    for index, image_id in enumerate(FRAMES):
        clip = dataset[index]
        assert clip.name == f"{image_id[:-7]}/{image_id[-6:]}"
        assert (clip.frames == 10 + index).all()
        class_map, instance_map = maps_of(image_id)
        np.testing.assert_array_equal(clip.class_map[-1], class_map)
        np.testing.assert_array_equal(clip.instance_map[-1], instance_map)


@pytest.mark.parametrize("kind", WRITERS)
def test_step_has_two_things(tmp_path: Path, kind: str) -> None:
    """The truck is stuff; the crowd of persons has instance 0 in either spec."""
    dataset = Cityscapes(WRITERS[kind](write_images(tmp_path)), "train", spec=STEP)
    assert dataset.label_spec is STEP
    _, class_map, instance_map = dataset.read_frame("aachen_000010", 19)
    assert class_map[0].tolist() == [255, 13, 13, 14, 14, 11, 0, 0]
    assert instance_map[0].tolist() == [0, 1, 3, 0, 0, 0, 0, 0]


def test_the_order_of_preference(tmp_path: Path) -> None:
    """Every kind is broken but the one that is to be taken: instance ids, panoptic, with train ids, parts."""
    write_images(tmp_path)
    for kind in reversed(WRITERS):
        WRITERS[kind](tmp_path)
        assert Cityscapes(tmp_path, "train")[0].class_map.shape == (1, 4, 8)
        for path in (p for p in tmp_path.rglob("*_gtFine*") if p.is_file()):
            path.write_bytes(b"")
        with pytest.raises(DataError, match=r"empty file|got no PNG"):
            Cityscapes(tmp_path, "train")[0]


def test_coarse_labels_are_taken_where_asked_for_or_without_others(tmp_path: Path) -> None:
    for split in ("train", "train_extra"):
        write_fine(write_images(tmp_path, split), split, kind="gtCoarse")
    with pytest.raises(DataError, match="expected the labels of Cityscapes' train split as gtFine"):
        Cityscapes(tmp_path, "train")
    for dataset in (Cityscapes(tmp_path, "train", labels="coarse"), Cityscapes(tmp_path, "train_extra")):
        np.testing.assert_array_equal(dataset[3].instance_map[-1], maps_of(FRAMES[3])[1])


def test_the_labels_of_test_are_dummies(tmp_path: Path) -> None:
    dataset = Cityscapes(write_fine(write_images(tmp_path, "test"), "test"), "test")
    assert not dataset.has_labels
    assert len(dataset) == 4
    assert (dataset[1].class_map == 255).all()
    assert dataset[1].present.tolist() == [False]
    assert (dataset[1].frames == 11).all()
    with pytest.raises(ValueError, match='labels: expected "auto" for the test split'):
        Cityscapes(tmp_path, "test", labels="instance_ids")


@pytest.mark.parametrize("outer", ["", "download"])
def test_archives_in_folders_of_their_own(tmp_path: Path, outer: str) -> None:
    """What a file manager makes of the zips: one more folder around leftImg8bit and another around gtFine."""
    write_images(tmp_path / (outer and "leftImg8bit_trainvaltest"))
    write_fine(tmp_path / (outer and "gtFine_trainvaltest"))
    assert len(Cityscapes(tmp_path, "train")) == 4


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    write_fine(write_images(tmp_path))
    for name in ("notes.txt", "._aachen_000000_000019_leftImg8bit.png", "aachen_000000_000019_leftImg8bit_foggy.png"):
        (tmp_path / "leftImg8bit" / "train" / "aachen" / name).touch()
    (tmp_path / "leftImg8bit" / "train" / "license.txt").touch()
    assert len(Cityscapes(tmp_path, "train")) == 4


def test_a_reader_crosses_to_a_worker(tmp_path: Path) -> None:
    dataset = pickle.loads(pickle.dumps(Cityscapes(write_panoptic(write_images(tmp_path)), "train")))
    assert (dataset[2].frames == 12).all()


# Snippets


def test_past_frames_of_a_snippet_have_images_and_no_maps(tmp_path: Path) -> None:
    write_fine(write_images(tmp_path))
    root = tmp_path / "leftImg8bit_sequence" / "train"
    write_image(root / "frankfurt" / "frankfurt_000001_000574_leftImg8bit.png", np.full((4, 8, 3), 74, np.uint8))
    clip = Cityscapes(tmp_path, "train", past_offsets=(-2, -1), all_frames=True)[3]
    assert clip.frames[:, 0, 0, 0].tolist() == [74, 0, 13]
    assert clip.present.tolist() == [False, False, True]
    assert (clip.class_map[:2] == 255).all()
    assert not clip.instance_map[:2].any()
    still = Cityscapes(tmp_path, "train", past_offsets=(-2, -1))[3]
    assert (still.frames.shape, still.class_map.shape) == ((1, 4, 8, 3), (3, 4, 8))


def test_a_labelled_past_frame_keeps_its_map(tmp_path: Path) -> None:
    """576 - 294 = 282: a frame of the same long recording."""
    dataset = Cityscapes(write_fine(write_images(tmp_path)), "train", past_offsets=(-282,), all_frames=True)
    assert dataset[3].present.tolist() == [True, True]
    assert dataset[3].frames[:, 0, 0, 0].tolist() == [12, 13]
    assert dataset[3].instance_map[:, 0, 2].tolist() == [4, 5]
    assert dataset[2].present.tolist() == [False, True]


# Something is missing


def test_no_data_says_how_to_get_it(tmp_path: Path) -> None:
    says = (
        r"expected Cityscapes as leftImg8bit/train/\.\.\., found no such folder; get it with: pip install "
        r"cityscapesscripts; csDownload -d \S+ leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip; training unpacks "
        r"these, or unpack them there$"
    )
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match=says) as error:
            Cityscapes(root, "train")
        assert_one_line(error, root)
    with pytest.raises(DataError, match=r"csDownload -d \S+ leftImg8bit_trainextra\.zip gtCoarse\.zip"):
        Cityscapes(tmp_path, "train_extra")
    (tmp_path / "leftImg8bit" / "train").mkdir(parents=True)
    (tmp_path / "gtFine_trainvaltest.zip").touch()
    with pytest.raises(
        DataError,
        match=r"expected the labels of .* or .*, found none; unpack \S+/gtFine_trainvaltest\.zip in \S+ first$",
    ):
        Cityscapes(tmp_path, "train")
    write_fine(tmp_path)
    with pytest.raises(DataError, match="leftImg8bit/train: expected the frames of the train split, found none"):
        Cityscapes(tmp_path, "train")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_missing_label_is_named(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](write_images(tmp_path))
    (path,) = (p for p in tmp_path.rglob(f"{FRAMES[1]}_gtFine*") if p.is_file())
    path.unlink()
    with pytest.raises(DataError, match=r"expected the label map of .*, found no such file \(1 of 4 frames") as error:
        Cityscapes(tmp_path, "train")
    assert_one_line(error, path)


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    write_fine(write_images(tmp_path))
    for labels, place in (
        ("panoptic", "gtFine/cityscapes_panoptic_train.json with the folder of that name"),
        ("panoptic_parts", r"gtFinePanopticParts/train/\*/\*_gtFinePanopticParts.tif"),
        ("coarse", r"gtCoarse/train/\*/\*_gtCoarse_instanceIds.png"),
    ):
        with pytest.raises(DataError, match=f"expected the labels of Cityscapes' train split as {place}, found none"):
            Cityscapes(tmp_path, "train", labels=labels)


def test_a_panoptic_file_without_an_entry(tmp_path: Path) -> None:
    write_panoptic(write_images(tmp_path))
    folder = tmp_path / "gtFine" / "cityscapes_panoptic_train"
    (folder.with_suffix(".json")).write_text('{"annotations": []}')
    with pytest.raises(DataError, match=r"expected an entry in cityscapes_panoptic_train\.json, found none") as error:
        Cityscapes(tmp_path, "train")[0]
    assert_one_line(error, folder / f"{FRAMES[0]}_gtFine_panoptic.png")


def test_sizes_must_agree(tmp_path: Path) -> None:
    write_fine(write_images(tmp_path), size=(4, 9))
    with pytest.raises(DataError, match=r"instanceIds\.png: expected the size of .*4x8, got 4x9"):
        Cityscapes(tmp_path, "train")[0]


def test_a_name_with_other_fields(tmp_path: Path) -> None:
    path = city_file(write_fine(write_images(tmp_path)), "leftImg8bit", "train", "aachen_x", "leftImg8bit.png")
    path.touch()
    with pytest.raises(DataError, match=r"expected a name like aachen_000000_000019_leftImg8bit\.png") as error:
        Cityscapes(tmp_path, "train")
    assert_one_line(error, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"split": "training"}, "got 'training'"),
        ({"labels": "fine"}, "expected labels to be one of auto, instance_ids, .*, got 'fine'"),
        ({"split": "train_extra", "labels": "panoptic"}, 'labels: expected "auto" or "coarse" for train_extra'),
        ({"spec": get_label_spec("camvid")}, "label spec camvid: expected the ids of Cityscapes' classes"),
    ],
)
def test_bad_arguments(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    write_fine(write_images(tmp_path))
    with pytest.raises(ValueError, match=says):
        Cityscapes(tmp_path, **{"split": "train", **change})


# Speed


def test_listing_asks_for_no_file_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fine(write_images(tmp_path))
    seen: list[Path] = []
    stat: Callable[..., os.stat_result] = os.stat

    def watched(path: Any, *arguments: Any, **named: Any) -> os.stat_result:
        seen.append(Path(path))
        return stat(path, *arguments, **named)

    monkeypatch.setattr(os, "stat", watched)
    assert len(Cityscapes(tmp_path, "train")) == 4
    assert seen, "folders are asked for"
    assert not [path for path in seen if path.suffix]


# A real frame


def test_real_frame(tmp_path: Path) -> None:
    root = os.environ.get("PIX2SEQ_D_TEST_DATA")
    if not root:
        pytest.skip("PIX2SEQ_D_TEST_DATA is not set: no real Cityscapes frame")
    vectors = Path(root) / "vectors" / "deeplab2_cityscapes"
    image = tmp_path / "leftImg8bit" / "val" / "dummy" / "dummy_000000_000000_leftImg8bit.png"
    image.parent.mkdir(parents=True)
    shutil.copyfile(vectors / "leftImg8bit" / image.name, image)
    labels = tmp_path / "gtFine" / "cityscapes_panoptic_val_trainId"
    labels.mkdir(parents=True)
    for path in (vectors / "gtFine" / "cityscapes_panoptic_dummy_trainId").iterdir():
        shutil.copyfile(path, labels / path.name)
    shutil.copyfile(vectors / "gtFine" / "cityscapes_panoptic_dummy_trainId.json", labels.with_suffix(".json"))
    clip = Cityscapes(tmp_path, "val")[0]
    assert (clip.name, clip.frames.shape) == ("dummy_000000/000000", (1, 800, 800, 3))
    cars = clip.class_map[-1] == 13
    assert cars.sum() == 958 + 6178 + 10496 + 5534 + 32768 + 19906  # areas of the JSON
    assert ((clip.instance_map[-1] == 0) & cars).sum() == 6178, "the crowd"
    assert clip.instance_map.max() == 5
