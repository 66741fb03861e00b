"""Labelled videos on disk: clips, past frames, pixels picked from maps, maps in memory."""

from pathlib import Path

import numpy as np
import pytest

from pix2seq_d.data.formats import DataError, read_kitti_step, write_image, write_kitti_step
from pix2seq_d.data.labelled_videos import FrameFiles, LabelledVideos, PickPixels, pair_labels
from pix2seq_d.labels import get_label_spec

SPEC = get_label_spec("kitti-step")


class KittiLike(LabelledVideos):
    def read_label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        return read_kitti_step(path)


def frame_files(root: Path, number: int, *, class_id: int = 13, size: tuple[int, int] = (4, 6)) -> FrameFiles:
    """A frame of grey `number` whose map is `class_id` with instance `number` everywhere."""
    image, label = root / f"{number}.jpg", root / f"{number}_map.png"
    write_image(image.with_suffix(".png"), np.full((*size, 3), number, np.uint8))
    write_kitti_step(label, np.full(size, class_id), np.full(size, number))
    return FrameFiles(image.with_suffix(".png"), label)


def test_clips_follow_frame_numbers(tmp_path: Path) -> None:
    """Frames 9 10 12: at 12 the frame -1 is missing, -2 is frame 10; at 10 the frame -2 is missing."""
    files = {"b": {n: frame_files(tmp_path, n) for n in (12, 9, 10)}}
    videos = KittiLike(files, SPEC, past_offsets=(-2, -1), all_frames=True)
    assert videos.frame_ids("b") == (9, 10, 12)
    clips = [videos[i] for i in range(len(videos))]
    assert [c.name for c in clips] == ["b/000009", "b/000010", "b/000012"]
    assert [c.present.tolist() for c in clips] == [[False, False, True], [False, True, True], [True, False, True]]
    assert clips[2].instance_map[:, 0, 0].tolist() == [10, 0, 12]
    assert clips[2].class_map[:, 0, 0].tolist() == [13, 255, 13]
    assert clips[2].frames[:, 0, 0, 0].tolist() == [10, 0, 12]
    assert (clips[2].class_map.dtype, clips[2].instance_map.dtype) == (np.uint8, np.int32)


def test_only_the_last_image_unless_asked(tmp_path: Path) -> None:
    files = {"a": {n: frame_files(tmp_path, n) for n in (0, 1)}}
    clip = KittiLike(files, SPEC, past_offsets=(-1,))[1]
    assert clip.frames.shape == (1, 4, 6, 3)
    assert clip.class_map.shape == (2, 4, 6)
    assert KittiLike(files, SPEC)[1].class_map.shape == (1, 4, 6)


def test_frames_are_read_when_asked_for(tmp_path: Path) -> None:
    videos = KittiLike({"a": {5: frame_files(tmp_path, 5)}}, SPEC)
    image, class_map, instance_map = videos.read_frame("a", 5)
    assert (image[0, 0].tolist(), class_map[0, 0], instance_map[0, 0]) == ([5, 5, 5], 13, 5)
    with pytest.raises(ValueError, match="got 'x'"):
        videos.frame_ids("x")
    with pytest.raises(ValueError, match="got 6"):
        videos.read_frame("a", 6)
    with pytest.raises(IndexError):
        videos[1]


@pytest.mark.parametrize("offsets", [(-1, -2), (0,), (1,), (-1, -1)])
def test_past_offsets_are_checked(offsets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="past_offsets"):
        KittiLike({}, SPEC, past_offsets=offsets)


def test_class_id_outside_the_spec_names_the_file(tmp_path: Path) -> None:
    files = {"a": {0: frame_files(tmp_path, 0), 1: frame_files(tmp_path, 1, class_id=19)}}
    with pytest.raises(DataError, match=r"1_map\.png: .*got 19"):
        KittiLike(files, SPEC)[1]


def test_sizes_must_agree(tmp_path: Path) -> None:
    big, small = frame_files(tmp_path, 0), frame_files(tmp_path, 1, size=(4, 5))
    with pytest.raises(DataError, match=r"1_map\.png: expected the size of .*0\.png, 4x6, got 4x5"):
        KittiLike({"a": {0: FrameFiles(big.image, small.label)}}, SPEC)[0]
    with pytest.raises(DataError, match=r"0_map\.png: expected the size of the frame to predict, 4x5, got 4x6"):
        KittiLike({"a": {0: big, 1: small}}, SPEC, past_offsets=(-1,))[1]


def test_a_map_that_vanished_is_named(tmp_path: Path) -> None:
    files = frame_files(tmp_path, 0)
    videos = KittiLike({"a": {0: files}}, SPEC)
    files.label.unlink()
    with pytest.raises(DataError, match=r"0_map\.png"):
        videos[0]


def test_pair_labels_counts_missing_maps(tmp_path: Path) -> None:
    pairs = [("a", n, tmp_path / f"{n}.png", tmp_path / f"{n}_map.png") for n in range(3)]
    (tmp_path / "1_map.png").touch()
    with pytest.raises(DataError, match=r"0_map\.png: expected the label map of .*2 of 3 frames"):
        pair_labels(pairs, root=tmp_path)
    with pytest.raises(DataError, match=r"1\.png: expected one image for frame 1"):
        pair_labels([pairs[1], pairs[1]], root=tmp_path)


def test_a_listing_may_say_which_maps_exist(tmp_path: Path) -> None:
    pairs = [("a", n, tmp_path / f"{n}.png", tmp_path / f"{n}_map.png") for n in range(2)]
    index = pair_labels(pairs, root=tmp_path, exists={pair[3] for pair in pairs}.__contains__)
    assert index["a"][1] == FrameFiles(tmp_path / "1.png", tmp_path / "1_map.png")


# Some pixels, and maps in memory


def test_picked_pixels_are_those_of_the_whole_maps(tmp_path: Path) -> None:
    """Every second column of frames 0 1 and of an absent one; pixels are chosen once, by the size of the frame."""
    videos = KittiLike({"a": {n: frame_files(tmp_path, n) for n in range(2)}}, SPEC, past_offsets=(-2, -1))
    labels = np.arange(24).reshape(4, 6)
    write_kitti_step(tmp_path / "1_map.png", labels % 19, labels * 2000)
    sizes, fills = [], []

    def choose(size: tuple[int, int]) -> PickPixels:
        sizes.append(size)
        return lambda values, fill: fills.append(fill) or values[:, ::2]

    whole, picked = videos[1], videos.read_clip(1, choose)
    assert (sizes, fills) == ([(4, 6)], [255, 0] * 3)
    np.testing.assert_array_equal(picked.class_map, whole.class_map[..., ::2])
    np.testing.assert_array_equal(picked.instance_map, whole.instance_map[..., ::2])
    np.testing.assert_array_equal(picked.frames, whole.frames)
    assert picked.present.tolist() == whole.present.tolist() == [False, True, True]
    for clip in (whole, picked):
        assert (clip.class_map.dtype, clip.instance_map.dtype) == (np.uint8, np.int32)


def test_an_id_outside_the_picked_pixels_is_noticed(tmp_path: Path) -> None:
    videos = KittiLike({"a": {0: frame_files(tmp_path, 0)}}, SPEC)
    class_map = np.zeros((4, 6), int)
    class_map[3, 5] = 19
    write_kitti_step(tmp_path / "0_map.png", class_map, class_map * 0)
    with pytest.raises(DataError, match=r"0_map\.png: .*got 19"):
        videos.read_clip(0, lambda size: lambda values, fill: values[:1, :1])


def test_maps_are_read_once_where_they_are_cached(tmp_path: Path) -> None:
    """Maps of frames 0 1 2 with their past: two readings each without a cache, one with it."""

    class Counting(KittiLike):
        def read_label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
            read.append(path.name)
            return super().read_label(path)

    files = {"a": {n: frame_files(tmp_path, n) for n in range(3)}}
    for cached, expected in ((False, [1, 2, 2]), (True, [1, 1, 1])):
        read: list[str] = []
        videos = Counting(files, SPEC, past_offsets=(-1,))
        videos.cache_maps(1000 * cached)
        clips = [videos[i] for i in range(3)]
        assert sorted(read.count(f"{n}_map.png") for n in range(3)) == expected
        assert [c.instance_map[:, 0, 0].tolist() for c in clips] == [[0, 0], [0, 1], [1, 2]]
        assert clips[2].instance_map.dtype == np.int32


# Frames without labels


def test_frames_without_a_label_file_are_void_and_not_present(tmp_path: Path) -> None:
    """Frame 1 of 0 1 2 has no map: void wherever it stands, but its image is there."""
    files = {"a": {n: frame_files(tmp_path, n) for n in range(3)}}
    files["a"][1] = files["a"][1]._replace(label=None)
    videos = KittiLike(files, SPEC, past_offsets=(-2, -1), all_frames=True)
    assert not videos.has_labels
    assert videos[1].present.tolist() == [False, True, False]
    assert videos[1].class_map[:, 0, 0].tolist() == [255, 13, 255]
    assert videos[2].present.tolist() == [True, False, True]
    assert videos[2].class_map[:, 0, 0].tolist() == [13, 255, 13]
    assert videos[2].frames[:, 0, 0, 0].tolist() == [0, 1, 2]


class WithNeighbours(KittiLike):
    def past_image(self, sequence_id: str, frame_id: int, offset: int) -> Path | None:
        return self.neighbours.get(frame_id + offset)

    neighbours: dict[int, Path]


def test_past_images_may_come_from_elsewhere(tmp_path: Path) -> None:
    videos = WithNeighbours({"a": {5: frame_files(tmp_path, 5)}}, SPEC, past_offsets=(-2, -1), all_frames=True)
    videos.neighbours = {4: frame_files(tmp_path, 4).image}
    assert videos[0].frames[:, 0, 0, 0].tolist() == [0, 4, 5]
    assert videos[0].present.tolist() == [False, False, True]
    videos.neighbours = {4: frame_files(tmp_path, 4, size=(4, 7)).image}
    with pytest.raises(DataError, match=r"4\.png: expected the size of the frame to predict, 4x6, got 4x7"):
        videos[0]
