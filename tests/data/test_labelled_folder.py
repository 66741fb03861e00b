"""One's own data: videos and stills, with splits and without, maps with instances and without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2seq_d.data.formats import DataError, write_image, write_kitti_step
from pix2seq_d.data.labelled_folder import LabelledFolder, read_own_map
from pix2seq_d.labels import LabelSpec

SPEC = LabelSpec("fruit", ("table", "apple"), ((9, 9, 9), (99, 0, 0)), thing_ids=(1,))
WITH_IDS = LabelSpec("fruit", ("table", "apple"), ((9, 9, 9), (99, 0, 0)), thing_ids=(1,), dataset_ids=(1, 7))


def add_frame(base: Path, name: str, *, apple: int = 1, suffix: str = ".png") -> None:
    """A table with one apple, and a pixel of void, 4x6; the image's red and the apple's id are `apple`."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0] = apple % 256
    class_map, instance_map = np.zeros((4, 6), int), np.zeros((4, 6), int)
    class_map[1:3, 2:4], instance_map[1:3, 2:4] = 1, apple
    class_map[0, 0] = 255
    write_image(base / "images" / f"{name}{suffix}", image)
    write_kitti_step(base / "panoptic" / f"{name}.png", class_map, instance_map)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "labels.json").write_text(json.dumps({"class_names": ["table", "apple"], "things": ["apple"]}))
    return tmp_path


def test_videos_with_splits(root: Path) -> None:
    for number in (8, 9, 10, 12):
        add_frame(root / "train", f"kitchen/frame_{number}", apple=number)
    add_frame(root / "train", "garden/000000", suffix=".jpg")
    add_frame(root / "test", "cellar/7", apple=700)
    data = LabelledFolder(root, "train", past_offsets=(-2, -1), all_frames=True)
    assert data.label_spec.class_names == ("table", "apple")
    assert data.label_spec.thing_ids == (1,)
    assert data.sequence_ids == ("garden", "kitchen")
    assert data.frame_ids("kitchen") == (8, 9, 10, 12)
    clips = {clip.name: clip for clip in (data[i] for i in range(len(data)))}
    assert clips["kitchen/000010"].present.tolist() == [True, True, True]
    assert clips["kitchen/000010"].instance_map[:, 1, 2].tolist() == [8, 9, 10]
    assert clips["kitchen/000010"].frames[:, 0, 0, 0].tolist() == [8, 9, 10]
    assert clips["kitchen/000012"].present.tolist() == [True, False, True], "by number, 11 is missing"
    clip = LabelledFolder(root, "test")[0]
    assert clip.class_map[0].tolist() == [[255, *[0] * 5], *[[0, 0, 1, 1, 0, 0]] * 2, [0] * 6]
    assert clip.instance_map[0, 1].tolist() == [0, 0, 700, 700, 0, 0]
    assert (clip.class_map.dtype, clip.instance_map.dtype) == (np.uint8, np.int32)


def test_stills_without_splits(root: Path) -> None:
    """Of 21 images the last tenth (2, in natural order) is held out; an image is a video of its own."""
    for number in range(21):
        add_frame(root, f"image {number}", apple=number + 1)
    train, val = (LabelledFolder(root, split, past_offsets=(-1,)) for split in ("train", "val"))
    assert val.sequence_ids == ("image 19", "image 20")
    assert train.sequence_ids == tuple(f"image {number}" for number in range(19))
    assert (len(train), len(val)) == (19, 2)
    assert val[1].name == "image 20/000000"
    assert val[1].present.tolist() == [False, True]
    assert val[1].instance_map[1, 1, 2] == 21


def test_videos_without_splits(root: Path) -> None:
    for video in ("a1", "a2", "a10"):
        for number in range(3):
            add_frame(root, f"{video}/{number}")
    assert LabelledFolder(root, "train").sequence_ids == ("a1", "a2")
    assert LabelledFolder(root, "val").sequence_ids == ("a10",)


def test_what_is_wrong_with_the_layout(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected val/images with val/panoptic, or images with panoptic, found neither"
    ):
        LabelledFolder(root, "val")
    add_frame(root, "kitchen/1")
    with pytest.raises(DataError, match=r"expected two videos or stills or more, .* found 1; or make train/images"):
        LabelledFolder(root, "train")
    with pytest.raises(DataError, match=r"expected the split train or val where no folder .* holds images, got 'test'"):
        LabelledFolder(root, "test")
    write_image(root / "images" / "still.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match=r"images: expected still .* found both \(still\.png and kitchen/\)"):
        LabelledFolder(root, "train")
    add_frame(root / "train", "kitchen/1")
    with pytest.raises(DataError, match=r"expected val/images, found only train with images in them"):
        LabelledFolder(root, "val")
    (root / "train" / "images" / "empty").mkdir()
    with pytest.raises(DataError, match=r"images/empty: expected the frames of a video, found no image"):
        LabelledFolder(root, "train")
    (root / "val" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match=r"val/images: expected images \(\.png, .*\), or folders of frames, found none"):
        LabelledFolder(root, "val")


def test_what_is_wrong_with_the_files(root: Path) -> None:
    add_frame(root / "train", "kitchen/1")
    add_frame(root / "train", "kitchen/2")
    path = root / "train" / "panoptic" / "kitchen" / "2.png"
    data = LabelledFolder(root, "train")
    write_kitti_step(path, np.full((4, 6), 2), np.zeros((4, 6), int))
    with pytest.raises(DataError, match=r"kitchen/2\.png: label spec .*: expected class ids 0\.\.1 or 255 .*, got 2"):
        data[1]
    write_kitti_step(path, np.zeros((4, 5), int), np.zeros((4, 5), int))
    with pytest.raises(DataError, match=r"kitchen/2\.png: expected the size of .*, 4x6, got 4x5"):
        data[1]
    path.unlink()
    with pytest.raises(DataError, match=r"kitchen/2\.png: expected the label map of .* \(1 of 2 frames"):
        LabelledFolder(root, "train")
    (root / "labels.json").unlink()
    with pytest.raises(DataError, match=r"labels\.json: expected a readable file"):
        LabelledFolder(root, "train")


# Maps


def test_class_ids_alone_are_crowd_without_instances(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[0, 1, 255]], np.uint8))
    class_map, instance_map = read_own_map(tmp_path / "a.png", SPEC)
    assert (class_map.tolist(), instance_map.tolist()) == ([[0, 1, 255]], [[0, 0, 0]])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_maps_give_their_indices(tmp_path: Path, bits: int) -> None:
    """Programs for annotation write as few bits as the palette needs."""
    image = Image.fromarray(np.array([[0, 1, 1, 0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", bits=bits)
    assert read_own_map(tmp_path / "a.png", SPEC)[0].tolist() == [[0, 1, 1, 0, 1]]


def test_ids_of_ones_own(tmp_path: Path) -> None:
    """What labels.json does not list is void; without such a list it would be a mistake."""
    write_kitti_step(tmp_path / "a.png", np.array([[1, 7, 0, 255, 9]]), np.array([[0, 258, 0, 0, 3]]))
    class_map, instance_map = read_own_map(tmp_path / "a.png", WITH_IDS)
    assert class_map.tolist() == [[0, 1, 255, 255, 255]]
    assert instance_map.tolist() == [[0, 258, 0, 0, 3]]
    with pytest.raises(DataError, match=r"a\.png: label spec fruit: expected class ids 0\.\.1 or 255"):
        read_own_map(tmp_path / "a.png", SPEC)


@pytest.mark.parametrize(
    ("array", "found"),
    [(np.zeros((3, 4), np.uint16), "16-bit greyscale"), (np.zeros((3, 4, 4), np.uint8), "8-bit RGBA")],
)
def test_other_pngs_are_refused(tmp_path: Path, array: np.ndarray, found: str) -> None:
    Image.fromarray(array).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png: expected an 8-bit RGB or greyscale or palette PNG, got {found}$"):
        read_own_map(tmp_path / "a.png", SPEC)
    Image.fromarray(np.zeros((3, 4), bool)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="got 1-bit greyscale"):
        read_own_map(tmp_path / "a.png", SPEC)
