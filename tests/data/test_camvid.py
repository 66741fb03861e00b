"""CamVid in both layouts, drawn small and as the real folder."""

import os
from pathlib import Path

import numpy as np
import pytest

from pix2seq_d.data.camvid import CamVid
from pix2seq_d.data.formats import DataError, write_image

NAMES = ("0006R0_f00930", "0006R0_f00960", "0006R0_f01020", "0001TP_006690")


def make_camvid(root: Path, images: str, labels: str, suffix: str) -> Path:
    """Frames of grey 100, 101, ... labelled 3 with one pixel of class 0, 1, ... and one of 11 (void)."""
    for number, name in enumerate(NAMES):
        label_map = np.full((4, 6), 3, np.uint8)
        label_map[0, :2] = number, 11
        write_image(root / images / f"{name}{suffix}", np.full((4, 6, 3), 100 + number, np.uint8))
        write_image(root / labels / f"{name}.png", label_map)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_camvid(tmp_path, "train/images", "train/labels", ".jpg")


@pytest.mark.parametrize(
    ("images", "labels", "suffix"), [("train/images", "train/labels", ".jpg"), ("train", "trainannot", ".png")]
)
def test_both_layouts(tmp_path: Path, images: str, labels: str, suffix: str) -> None:
    dataset = CamVid(make_camvid(tmp_path, images, labels, suffix), "train")
    assert dataset.sequence_ids == ("0001TP", "0006R0")
    assert dataset.frame_ids("0006R0") == (930, 960, 1020)
    clip = dataset[1]
    assert clip.name == "0006R0/000930"
    assert abs(int(clip.frames[0, 0, 0, 0]) - 100) <= 1
    assert clip.class_map[0, 0].tolist() == [0, 255, 3, 3, 3, 3]
    assert not clip.instance_map.any()
    assert (clip.class_map.dtype, clip.instance_map.dtype) == (np.uint8, np.int32)


def test_past_frames_are_earlier_keyframes_of_the_drive(root: Path) -> None:
    dataset = CamVid(root, "train", past_offsets=(-2, -1), all_frames=True)
    clips = {clip.frame_id: clip for clip in (dataset[i] for i in range(len(dataset)))}
    assert clips[1020].class_map[:, 0, 0].tolist() == [0, 1, 2]
    assert clips[1020].present.tolist() == [True, True, True]
    assert clips[960].present.tolist() == [False, True, True]
    assert clips[960].class_map[:, 0, 0].tolist() == [255, 0, 1]
    assert clips[6690].present.tolist() == [False, False, True]
    assert clips[1020].frames.shape == (3, 4, 6, 3)


def test_bad_data_is_named(root: Path) -> None:
    label = root / "train/labels/0001TP_006690.png"
    dataset = CamVid(root, "train")
    write_image(label, np.full((4, 6), 12, np.uint8))
    with pytest.raises(DataError, match=r"0001TP_006690\.png: .*got 12"):
        dataset[0]
    write_image(label, np.full((4, 5), 1, np.uint8))
    with pytest.raises(DataError, match=r"0001TP_006690\.png: expected the size of .*4x6, got 4x5"):
        dataset[0]
    label.unlink()
    with pytest.raises(DataError, match=r"0001TP_006690\.png: expected the label map of .*1 of 4 frames"):
        CamVid(root, "train")


def test_missing_folders_are_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"val/images with val/labels.*valannot, found neither"):
        CamVid(root, "val")
    with pytest.raises(ValueError, match="got 'all'"):
        CamVid(root, "all")
    (root / "test/images").mkdir(parents=True)
    (root / "test/labels").mkdir()
    with pytest.raises(DataError, match=r"test/images: .*found no image"):
        CamVid(root, "test")
    write_image(root / "test/images/frame1.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=r"frame1\.png: expected a name like 0001TP_006690"):
        CamVid(root, "test")


def test_real_folder() -> None:
    folder = os.environ.get("PIX2SEQ_D_TEST_DATA")
    if not folder:
        pytest.skip("PIX2SEQ_D_TEST_DATA is not set: no real CamVid frames")
    train = CamVid(Path(folder) / "camvid", "train", past_offsets=(-1,))
    val = CamVid(Path(folder) / "camvid", "val")
    assert (len(train), len(val)) == (367, 101)
    assert train.sequence_ids == ("0001TP", "0006R0", "0016E5")
    assert val.sequence_ids == ("0016E5",)
    clip = train[70]
    assert clip.frames.shape == (1, 360, 480, 3)
    assert clip.present.all()
    assert set(np.unique(clip.class_map).tolist()) <= {*range(11), 255}
