"""MOTChallenge-STEP, drawn small, with the frames beside each other and in img1/."""

from pathlib import Path

import numpy as np
import pytest

from pix2seq_d.data.formats import DataError, write_image, write_kitti_step
from pix2seq_d.data.motchallenge_step import MotChallengeStep

FRAMES = (("0009", 1), ("0002", 1), ("0002", 2), ("0002", 4))


def make_mot(root: Path, *, inner: str = "", split: str = "train") -> Path:
    for sequence, frame in FRAMES:
        class_map = np.full((4, 6), 1)
        class_map[0, :3] = 4, 255, 6
        image = root / "images" / split / sequence / inner / f"{frame:06d}.jpg"
        write_image(image, np.full((4, 6, 3), 50 * frame, np.uint8))
        maps = class_map, np.where(class_map == 4, 300 + frame, 0)
        write_kitti_step(root / "panoptic_maps" / split / sequence / f"{frame:06d}.png", *maps)
    return root


@pytest.mark.parametrize(("outer", "inner"), [("", ""), ("", "img1"), ("motchallenge-step", "")])
def test_layouts(tmp_path: Path, outer: str, inner: str) -> None:
    make_mot(tmp_path / outer, inner=inner)
    dataset = MotChallengeStep(tmp_path, "train", past_offsets=(-2, -1))
    assert dataset.sequence_ids == ("0002", "0009")
    assert dataset.frame_ids("0002") == (1, 2, 4)
    clip = dataset[2]
    assert (clip.name, clip.present.tolist()) == ("0002/000004", [True, False, True])
    assert abs(int(clip.frames[0, 0, 0, 0]) - 200) <= 1
    assert clip.class_map[-1, 0].tolist() == [4, 255, 6, 1, 1, 1]
    assert clip.instance_map[:, 0, 0].tolist() == [302, 0, 304]


def test_folders_as_mots_calls_them(tmp_path: Path) -> None:
    """MOTS.zip has MOTS20-02/img1, the maps are in 0002/."""
    for folder in (make_mot(tmp_path, inner="img1") / "images/train").iterdir():
        folder.rename(folder.with_name(f"MOTS20-{folder.name[2:]}"))
    dataset = MotChallengeStep(tmp_path, "train", past_offsets=(-1,))
    assert (dataset.sequence_ids, len(dataset)) == (("0002", "0009"), 4)
    assert dataset[1].instance_map[:, 0, 0].tolist() == [301, 302]


def test_arguments_have_effects(tmp_path: Path) -> None:
    make_mot(tmp_path, split="val")
    assert len(MotChallengeStep(tmp_path, "val", sequences=["0009"])) == 1
    assert MotChallengeStep(tmp_path, "val", past_offsets=(-1,), all_frames=True)[1].frames.shape == (2, 4, 6, 3)


def test_bad_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'all'"):
        MotChallengeStep(tmp_path, "all")
    with pytest.raises(DataError, match="test are secret"):
        MotChallengeStep(tmp_path, "test")
    with pytest.raises(DataError, match=r"expected MOTChallenge-STEP as images/train/0002/000001\.jpg"):
        MotChallengeStep(tmp_path, "train")
    (tmp_path / "images/train/0002").mkdir(parents=True)
    with pytest.raises(DataError, match="expected folders of frames, found no image"):
        MotChallengeStep(tmp_path, "train")
    label = make_mot(tmp_path) / "panoptic_maps/train/0009/000001.png"
    dataset = MotChallengeStep(tmp_path, "train")
    write_kitti_step(label, np.full((4, 6), 7), np.zeros((4, 6), int))
    with pytest.raises(DataError, match=r"0009/000001\.png: .*got 7"):
        dataset[3]
    label.unlink()
    with pytest.raises(DataError, match=r"0009/000001\.png: expected the label map of .*1 of 4 frames"):
        MotChallengeStep(tmp_path, "train")
