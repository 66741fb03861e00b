"""KITTI-STEP in both layouts, drawn small and as two real frames."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pix2seq_d.data.formats import DataError, write_image, write_kitti_step
from pix2seq_d.data.kitti_step import KittiStep

FRAMES = {2: (9, 10, 12), 10: (0, 1), 1: (5,)}


def class_and_instance(sequence: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
    class_map = np.full((4, 6), 7)
    class_map[:, :2], class_map[0, 5] = 13, 255
    instance_map = np.zeros((4, 6), int)
    instance_map[:, 0] = 256 * sequence + frame
    return class_map, instance_map


def write_frame(image: Path, label: Path, sequence: int, frame: int) -> None:
    write_image(image, np.full((4, 6, 3), 10 * sequence + frame, np.uint8))
    write_kitti_step(label, *class_and_instance(sequence, frame))


def make_official(root: Path, split: str = "train") -> Path:
    for sequence, frames in FRAMES.items():
        for frame in frames:
            name = f"{split}/{sequence:04d}/{frame:06d}.png"
            write_frame(root / "images" / name, root / "panoptic_maps" / name, sequence, frame)
    return root


def make_hub(root: Path, split: str = "train") -> Path:
    folder = root / "video_sequence" / split
    for sequence, frames in FRAMES.items():
        for frame in frames:
            stem = f"{sequence:06d}_{frame:06d}"
            write_frame(folder / f"{stem}_leftImg8bit.png", folder / f"{stem}_panoptic.png", sequence, frame)
    return root


@pytest.fixture
def fixture_root() -> Path:
    folder = os.environ.get("PIX2SEQ_D_TEST_DATA")
    if not folder:
        pytest.skip("PIX2SEQ_D_TEST_DATA is not set: no real KITTI-STEP frames")
    return Path(folder) / "kitti_step_fixture"


def assert_same_clips(a: KittiStep, b: KittiStep) -> None:
    assert len(a) == len(b) > 0
    for i in range(len(a)):
        assert a[i].name == b[i].name
        for key in ("frames", "class_map", "instance_map", "present"):
            np.testing.assert_array_equal(getattr(a[i], key), getattr(b[i], key))


# Layouts


@pytest.mark.parametrize("outer", ["", "kitti-step", "kitti_out"])
def test_both_layouts_with_and_without_outer_folder(tmp_path: Path, outer: str) -> None:
    make_official(tmp_path / "official" / outer)
    make_hub(tmp_path / "hub" / outer)
    official = KittiStep(tmp_path / "official", "train", all_frames=True)
    hub = KittiStep(tmp_path / "hub", "train", all_frames=True)
    assert official.sequence_ids == hub.sequence_ids == ("0001", "0002", "0010")
    assert_same_clips(official, hub)
    assert_same_clips(hub, KittiStep(tmp_path / "hub" / outer / "video_sequence", "train", all_frames=True))


def test_archives_of_the_authors_side_by_side(tmp_path: Path) -> None:
    """data_tracking_image_2.zip has the frames of train and val together; kitti-step.tar.gz says whose they are."""
    expected = KittiStep(make_official(tmp_path / "expected"), "train", all_frames=True)
    root = tmp_path / "kitti"
    make_official(root, "train")
    (root / "panoptic_maps").rename(tmp_path / "panoptic_maps")
    (root / "images").rename(root / "training")
    (root / "training/train").rename(root / "training/image_02")
    shutil.copytree(root / "training/image_02/0001", root / "training/image_02/0018")
    shutil.copytree(tmp_path / "panoptic_maps/train/0001", tmp_path / "panoptic_maps/val/0018")
    (root / "kitti-step").mkdir()
    (tmp_path / "panoptic_maps").rename(root / "kitti-step/panoptic_maps")
    assert_same_clips(KittiStep(root, "train", all_frames=True), expected)
    assert KittiStep(root, "val").sequence_ids == ("0018",)
    with pytest.raises(DataError, match="found neither"):
        KittiStep(root, "test")
    (root / "training").rename(root / "testing")
    test = KittiStep(root, "test")
    assert (test.has_labels, test.sequence_ids) == (False, ("0001", "0002", "0010", "0018"))


def test_frames_are_keyed_by_number(tmp_path: Path) -> None:
    """Sequence 2 has frames 9 10 12: no frame 11, so 12 has its frame -2 (10) but not -1."""
    dataset = KittiStep(make_official(tmp_path), "train", sequences=["0002"])
    assert dataset.frame_ids("0002") == (9, 10, 12)
    clip = dataset[2]
    assert (clip.name, clip.present.tolist()) == ("0002/000012", [True, False, True])
    assert clip.instance_map[:, 0, 0].tolist() == [512 + 10, 0, 512 + 12]
    assert (clip.class_map[1] == 255).all()
    assert clip.frames.shape == (1, 4, 6, 3)
    assert clip.frames[0, 0, 0, 0] == 32


def test_read_frame(tmp_path: Path) -> None:
    image, class_map, instance_map = KittiStep(make_hub(tmp_path), "train").read_frame("0010", 1)
    expected = class_and_instance(10, 1)
    assert (image == 101).all()
    np.testing.assert_array_equal(class_map, expected[0])
    np.testing.assert_array_equal(instance_map, expected[1])
    assert (class_map.dtype, instance_map.dtype) == (np.uint8, np.int32)


def test_arguments_have_effects(tmp_path: Path) -> None:
    make_official(tmp_path)
    make_official(tmp_path / "b", "val")
    assert len(KittiStep(tmp_path, "train")) == 6
    assert len(KittiStep(tmp_path, "train", sequences=["0010", "0001"])) == 3
    assert KittiStep(tmp_path, "train", past_offsets=(-1,))[0].present.shape == (2,)
    assert KittiStep(tmp_path, "train", all_frames=True)[0].frames.shape == (3, 4, 6, 3)
    assert len(KittiStep(tmp_path / "b", "val")) == 6


@pytest.mark.parametrize("make", [make_official, make_hub])
def test_the_test_split_has_images_and_void_maps(tmp_path: Path, make: Callable[[Path, str], Path]) -> None:
    root = make(tmp_path, "test")
    for label in (*root.glob("panoptic_maps/test/*/*.png"), *root.glob("video_sequence/test/*_panoptic.png")):
        label.unlink()
    dataset = KittiStep(root, "test", all_frames=True)
    assert not dataset.has_labels
    assert dataset.sequence_ids == ("0001", "0002", "0010")
    assert dataset.frame_ids("0002") == (9, 10, 12)
    image, class_map, instance_map = dataset.read_frame("0002", 12)
    assert (image == 32).all()
    assert (class_map == 255).all()
    assert class_map.shape == instance_map.shape == (4, 6)
    assert not instance_map.any()
    clip = dataset[3]
    assert (clip.name, clip.present.tolist()) == ("0002/000012", [False, False, False])
    assert clip.frames[:, 0, 0, 0].tolist() == [30, 0, 32], "a past frame without a map may have an image"
    for one, other in zip(dataset.read_maps("0002", 12), (class_map, instance_map)):
        np.testing.assert_array_equal(one, other)
    make_official(tmp_path / "labelled")
    assert KittiStep(tmp_path / "labelled", "train").has_labels


# Bad data


@pytest.mark.parametrize("folder", ["none", "empty", "no_frames"])
def test_missing_root_says_what_was_looked_for(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_frames" / "video_sequence" / "train").mkdir(parents=True)
    root = tmp_path / folder
    with pytest.raises(
        DataError, match=r"images/train.*video_sequence/train.*python -m pix2seq_d download kitti-step"
    ) as error:
        KittiStep(root, "train")
    assert str(root) in str(error.value)
    assert "\n" not in str(error.value)


def test_official_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "images" / "train" / "0000").mkdir(parents=True)
    with pytest.raises(DataError, match="found no image"):
        KittiStep(tmp_path, "train")


@pytest.mark.parametrize(
    ("make", "label"),
    [
        (make_official, "panoptic_maps/train/0002/000010.png"),
        (make_hub, "video_sequence/train/000002_000010_panoptic.png"),
    ],
)
def test_missing_map(tmp_path: Path, make: Callable[[Path], Path], label: str) -> None:
    make(tmp_path)
    (tmp_path / label).unlink()
    with pytest.raises(DataError, match=f"{label}: expected the label map of .*1 of 6 frames") as error:
        KittiStep(tmp_path, "train")
    assert "\n" not in str(error.value)


def test_bad_maps_are_named(tmp_path: Path) -> None:
    label = make_official(tmp_path) / "panoptic_maps/train/0001/000005.png"
    dataset = KittiStep(tmp_path, "train")
    write_kitti_step(label, np.full((4, 6), 19), np.zeros((4, 6), int))
    with pytest.raises(DataError, match=r"0001/000005\.png: .*got 19"):
        dataset[0]
    write_kitti_step(label, np.zeros((5, 6), int), np.zeros((5, 6), int))
    with pytest.raises(DataError, match=r"0001/000005\.png: expected the size of .*4x6, got 5x6"):
        dataset[0]
    write_image(label, np.zeros((4, 6), np.uint8))
    with pytest.raises(DataError, match=r"0001/000005\.png: expected an 8-bit RGB PNG, got 8-bit greyscale"):
        dataset[0]


def test_unknown_split_and_sequence(tmp_path: Path) -> None:
    make_official(tmp_path)
    with pytest.raises(ValueError, match="got 'training'"):
        KittiStep(tmp_path, "training")
    with pytest.raises(ValueError, match="got '0003'"):
        KittiStep(tmp_path, "train", sequences=["0003"])


# Real frames


def test_real_frames_agree_in_both_layouts(fixture_root: Path) -> None:
    official = KittiStep(fixture_root / "official", "train")
    hub = KittiStep(fixture_root / "videoknet", "train")
    assert official.sequence_ids == ("0001",)
    assert_same_clips(official, hub)
    clip = official[1]
    assert clip.frames.shape == (1, 375, 1242, 3)
    assert clip.present.tolist() == [False, True, True]
    assert np.unique(clip.class_map[-1]).tolist() == [13, 255]
    assert len(np.unique(clip.instance_map[-1])) == 8  # seven cars
