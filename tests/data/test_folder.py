"""Folders of frames: natural order, sequences, numbers."""

from pathlib import Path

import pytest

from pix2seq_d.data.folder import frame_number, list_images, list_sequences, natural_key, search_roots
from pix2seq_d.data.formats import DataError, read_image
from pix2seq_d.labels import get_label_spec

SPEC = get_label_spec("kitti-step")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def listed(root: Path) -> dict[str, list[str]]:
    return {s.sequence_id: [p.name for p in s.paths] for s in list_sequences(root)}


def test_a_folder_that_may_not_be_entered_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lost+found, where a disk is the root of a dataset; to look into it would raise PermissionError."""
    touch(tmp_path, "lost+found/x", "data/x")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "lost+found")
    assert search_roots(tmp_path) == [tmp_path, tmp_path / "data"]


def test_a_link_that_leads_nowhere_is_a_frame_that_cannot_be_read(tmp_path: Path) -> None:
    """Of a disk that is not there; left out it would make the data smaller and say nothing."""
    touch(tmp_path, "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "gone" / "2.png")
    (tmp_path / "3.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["1.png", "2.png"]
    with pytest.raises(DataError, match=r"2\.png: expected an image, found no such file"):
        read_image(tmp_path / "2.png")


# Order and numbers


def test_natural_order() -> None:
    names = ["frame10", "frame9", "Frame1", "frame01", "frame", "b2a10", "b2a9", "10", "9"]
    assert sorted(names, key=natural_key) == [
        "9", "10", "b2a9", "b2a10", "frame", "Frame1", "frame01", "frame9", "frame10"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("000012_leftImg8bit.png", 12),
        ("0001_0002_frankfurt_000000_000284_newImg8bit.png", 284),
        ("000002_000345_leftImg8bit.png", 345),
        ("0006R0_f00930.jpg", 930),
        ("0000000015.png", 15),
        ("a/7/frame-3b.jpg", 3),
        ("clip.v2.0004.png", 4),
    ],
)
def test_frame_number(name: str, number: int) -> None:
    assert frame_number(name) == number


def test_frame_number_needs_a_digit() -> None:
    with pytest.raises(DataError, match=r"12/frame\.png: expected a frame number"):
        frame_number("12/frame.png")


# Sequences


def test_one_folder_of_frames(tmp_path: Path) -> None:
    root = touch(tmp_path / "drive", "10.png", "9.JPG", "8.jpeg", "11.webp", "12.BMP", "notes.txt", ".7.png", "x.gif")
    (root / "folder.png").mkdir()
    assert listed(root) == {"drive": ["8.jpeg", "9.JPG", "10.png", "11.webp", "12.BMP"]}


def test_names_without_numbers_are_frames_too(tmp_path: Path) -> None:
    assert listed(touch(tmp_path / "v", "b.png", "a.png", "a1.png")) == {"v": ["a.png", "a1.png", "b.png"]}


def test_nested_folders_are_sequences(tmp_path: Path) -> None:
    root = touch(tmp_path / "in", "0010/1.png", "0002/1.png", "0002/2.png", "a/b/1.png", ".hidden/1.png", "empty/x.txt")
    touch(root, "3.png")
    assert list(listed(root).items()) == [
        ("0002", ["1.png", "2.png"]),
        ("0010", ["1.png"]),
        ("a/b", ["1.png"]),
        ("in", ["3.png"]),
    ]


def test_several_videos_in_one_folder(tmp_path: Path) -> None:
    root = touch(tmp_path / "val", *(f"000002_00000{i}_leftImg8bit.png" for i in (1, 0)))
    touch(root, "000010_000000_leftImg8bit.png", "000002_000000_panoptic.png")
    assert listed(root) == {
        "000002": ["000002_000000_leftImg8bit.png", "000002_000001_leftImg8bit.png"],
        "000010": ["000010_000000_leftImg8bit.png"],
    }
    assert list(listed(tmp_path)) == ["val/000002", "val/000010"]
    touch(tmp_path / "out", "000002/000002_000000_leftImg8bit.png", "000010/000010_000000_leftImg8bit.png")
    assert list(listed(tmp_path / "out")) == ["000002", "000010"], "what was predicted has the names of its frames"
    assert list(listed(tmp_path / "out" / "000010")) == ["000010"]


def test_a_link_that_leads_back_ends(tmp_path: Path) -> None:
    root = touch(tmp_path / "in", "a/1.png")
    (root / "a" / "back").symlink_to(root, target_is_directory=True)
    (root / "b").symlink_to(touch(tmp_path / "elsewhere", "1.png"), target_is_directory=True)
    assert listed(root) == {"a": ["1.png"], "b": ["1.png"]}


def test_two_sequences_of_one_name(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "1.png", "v/1.png")
    with pytest.raises(DataError, match="'v' twice"):
        list_sequences(root)


@pytest.mark.parametrize(("name", "says"), [("none", "found nothing"), ("file", "found a file"), ("empty", r"\.png")])
def test_no_frames(tmp_path: Path, name: str, says: str) -> None:
    touch(tmp_path, "file", "empty/.hidden.png", "empty/readme.txt")
    with pytest.raises(DataError, match=says) as error:
        list_sequences(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)
