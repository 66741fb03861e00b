"""Datasets seen through another label spec: everything but the maps stays."""

import numpy as np
import pytest

from pix2seq_d.data.batch import Clip
from pix2seq_d.data.loaders import TrainingClips
from pix2seq_d.data.remapped import RemappedClips, RemappedVideos
from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.data.transforms import ClipTransform
from pix2seq_d.label_mapping import remap
from pix2seq_d.labels import get_label_spec

CITY, KITTI, CAMVID = map(get_label_spec, ("cityscapes", "kitti-step", "camvid"))


class OneClip:
    """A truck (14) and a car (13) over two frames, with a void map before them."""

    has_labels = True

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Clip:
        class_map = np.array([[[255, 255]], [[14, 13]], [[14, 13]]], np.uint8)
        instance_map = np.array([[[0, 0]], [[4, 5]], [[4, 5]]], np.int32)
        return Clip(np.full((1, 1, 2, 3), 9, np.uint8), class_map, instance_map, np.array([0, 1, 1], bool), "a", 7)


def test_clips() -> None:
    clips = RemappedClips(OneClip(), CITY, KITTI)
    clip = clips[0]
    assert len(clips) == 1
    assert clips.label_spec is KITTI
    assert clip.class_map.tolist() == [[[255, 255]], [[14, 13]], [[14, 13]]]
    assert clip.instance_map.tolist() == [[[0, 0]], [[0, 5]], [[0, 5]]]
    assert (clip.class_map.dtype, clip.instance_map.dtype) == (np.uint8, np.int32)
    assert (clip.name, clip.present.tolist(), int(clip.frames.max())) == ("a/000007", [False, True, True], 9)
    assert RemappedClips(OneClip(), CITY, CAMVID)[0].class_map[2].tolist() == [[255, 8]]


def test_a_split_without_labels_stays_one() -> None:
    source = OneClip()
    source.has_labels = False
    with pytest.raises(ValueError, match="expected frames with label maps"):
        TrainingClips(
            RemappedClips(source, CITY, KITTI), ClipTransform((2, 2), (1, 1)), KITTI, num_instance_codes=1, seed=0
        )


def test_videos() -> None:
    plain = SyntheticVideos(split="val", num_sequences=2, num_frames=3, height=32, width=64)
    videos = RemappedVideos(plain, CAMVID)
    assert videos.sequence_ids == plain.sequence_ids
    assert videos.frame_ids("0001") == (0, 1, 2)
    assert videos.label_spec is CAMVID
    assert not videos.stills
    image, class_map, instance_map = videos.read_frame("0001", 2)
    expected = plain.read_frame("0001", 2)
    np.testing.assert_array_equal(image, expected[0])
    for one, other in zip((class_map, instance_map), remap(*expected[1:], KITTI, CAMVID)):
        np.testing.assert_array_equal(one, other)
    CAMVID.check_class_ids(class_map)
