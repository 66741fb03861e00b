"""What people drop on the page: frames in order, limits that are told, and messages that name the file alone."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from videos import SIZE, number_of, write_video

from pix2seq_d.app import uploads
from pix2seq_d.app.uploads import EXAMPLE_FRAMES, example_clip, read_clip
from pix2seq_d.data.formats import DataError, write_image


def write_frame(path: Path, value: int = 0, size: tuple[int, int] = (8, 16)) -> Path:
    write_image(path, np.full((*size, 3), value, np.uint8))
    return path


def refused(paths: list[Path], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_clip(paths, **{"max_frames": 9, **options})
    return str(caught.value)


def test_images_come_in_natural_order_whatever_their_folders(tmp_path: Path) -> None:
    paths = [write_frame(tmp_path / folder / f"{k}.png", k) for folder, k in (("c", 10), ("a", 9), ("b", 2))]
    clip = read_clip(paths, max_frames=3)
    assert clip.names == ("2", "9", "10")
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [2, 9, 10]
    assert clip.size == (8, 16)
    assert clip.note == ""


def test_further_frames_are_left_out_and_that_is_told(tmp_path: Path) -> None:
    clip = read_clip([write_frame(tmp_path / f"{k}.png", k) for k in range(5)], max_frames=3)
    assert clip.names == ("0", "1", "2")
    assert clip.note == "The first 3 of 5 frames; the page takes no more."


def test_pixels_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_CLIP_PIXELS", 300)  # two frames of 128
    paths = [write_frame(tmp_path / f"{k}.png") for k in range(3)]
    assert read_clip(paths, max_frames=9).note.startswith("The first 2 of 3 frames")
    large = write_frame(tmp_path / "large.png", size=(20, 20))
    assert refused([large]) == "large.png: expected at most 300 pixels, got more"


def test_a_video(tmp_path: Path) -> None:
    clip = read_clip([write_video(tmp_path / "drive.mp4", 6)], max_frames=4)
    assert clip.names == ("000000", "000001", "000002", "000003")
    assert [number_of(frame) for frame in clip.frames] == [0, 1, 2, 3]
    assert clip.size == SIZE
    assert clip.note == "The first 4 of 6 frames; the page takes no more."


def test_a_video_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "drive.mp4").write_bytes(b"x")

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"pip install pix2seq_d\[video\]"):
        read_clip([tmp_path / "drive.mp4"], max_frames=4)


def test_messages_name_the_file_and_no_folder(tmp_path: Path) -> None:
    text, empty, odd = (tmp_path / name for name in ("notes.png", "empty.jpg", "notes.txt"))
    text.write_text("no image")
    empty.touch()
    odd.write_text("no image")
    assert refused([]) == "upload: expected images or a video, got nothing"
    assert refused([text]) == "notes.png: expected a PNG, JPEG, BMP or WebP image, got something else"
    assert refused([empty]) == "empty.jpg: expected an image, got an empty file"
    assert refused([odd]).startswith("notes.txt: expected an image (.png, ")
    assert refused([odd]).endswith("got another file")


def test_broken_and_empty_videos(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 99)
    assert refused([tmp_path / "empty.mp4"]) == "empty.mp4: expected a video, got an empty file"
    assert refused([tmp_path / "broken.mp4"]).startswith("broken.mp4: expected a readable video")


def test_what_does_not_go_together(tmp_path: Path) -> None:
    one, two = write_frame(tmp_path / "1.png"), write_frame(tmp_path / "2.png", size=(8, 17))
    assert refused([one, two]) == "2.png: expected 16x8 pixels as 1.png, got 17x8"
    assert refused([one, tmp_path / "a.mp4"]) == "upload: expected images or one video, got a.mp4 and 1.png"
    assert refused([tmp_path / "a.mp4", tmp_path / "b.mp4"]).endswith("got a.mp4 and b.mp4")
    twin = write_frame(tmp_path / "1.jpg")
    assert "expected frames of different names" in refused([one, twin])


def test_the_example_needs_no_file() -> None:
    clip = example_clip()
    assert len(clip.frames) == len(set(clip.names)) == EXAMPLE_FRAMES
    assert clip.size == (96, 320)
    assert (clip.frames[0] != clip.frames[-1]).any()
