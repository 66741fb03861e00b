"""Video files: order, numbers, rates, rotation, damage, and a memory that does not grow."""

from __future__ import annotations

import importlib
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from videos import SIZE, damage, number_of, write_video

from pix2seq_d.data import video_file
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.video_file import open_video


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("b.avi", "mjpeg", "yuvj420p"),
    ],
)
def test_frames_come_in_order(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    video = open_video(write_video(tmp_path / name, codec=codec, pix_fmt=pix_fmt))
    assert (len(video), video.fps, video.varies) == (12, 25.0, False)
    frames = list(video.read())
    assert [f.number for f in frames] == [number_of(f.image) for f in frames if f.image is not None] == [*range(12)]
    assert all(f.image is not None and f.image.shape == (*SIZE, 3) and f.image.dtype == np.uint8 for f in frames)


def test_some_frames_only(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "a.mp4"))
    assert [(f.number, number_of(f.image)) for f in video.read({3, 7}) if f.image is not None] == [(3, 3), (7, 7)]


def test_the_rate_is_exact(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):  # mkv rounds times to milliseconds
        video = open_video(write_video(tmp_path / name, rate=Fraction(30000, 1001)))
        assert video.fps == pytest.approx(30000 / 1001, abs=1e-9)
        assert not video.varies


def test_a_rate_that_varies(tmp_path: Path) -> None:
    """Frames at 0, 1, 2, 12, 13, ... of 25ths of a second: 11 gaps in 20 / 25 s, 13.75 a second."""
    video = open_video(write_video(tmp_path / "a.mp4", times=[0, 1, 2, *range(12, 21)]))
    assert video.varies
    assert video.fps == pytest.approx(11 / 0.8)
    assert [number_of(f.image) for f in video.read() if f.image is not None] == [*range(12)]
    assert video.seconds(3) == pytest.approx(12 / 25)
    assert video.describe(3) == f"{tmp_path / 'a.mp4'}, frame 3 at 0.48 s"


def test_one_frame_has_a_rate(tmp_path: Path) -> None:
    assert open_video(write_video(tmp_path / "a.mp4", 1)).fps == 25


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_video_comes_upright(tmp_path: Path, degrees: int) -> None:
    """The white corner is in the upper left of what was stored; shown, it is turned counter-clockwise."""
    video = open_video(write_video(tmp_path / "a.mp4", 2, rotation=degrees))
    shown = next(video.read()).image
    assert shown is not None
    stored = np.zeros(SIZE, bool)
    stored[:8, :16] = True
    assert np.array_equal(shown[..., 0] > 128, np.rot90(stored, degrees // 90))


def test_mirrored_video_comes_upright(tmp_path: Path) -> None:
    """(x, y) goes to (-x, y) and to (y, x)."""
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    video, one = open_video(write_video(tmp_path / "a.mp4", 2)), 1 << 16
    assert np.array_equal(video._upright(image, np.array([-one, 0, 0, 0, one]), 0), image[:, ::-1])
    assert np.array_equal(video._upright(image, np.array([0, one, 0, one, 0]), 0), image.swapaxes(0, 1))


def test_a_rotation_by_no_quarter_turn(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "a.mp4", 2, rotation=30))
    with pytest.raises(DataError, match=r"a\.mp4, frame 0 at 0\.00 s: expected a rotation by quarter turns"):
        list(video.read())


def test_a_damaged_frame_keeps_its_number(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p"))
    damage(video.path, 5)
    frames = list(video.read())
    assert [f.number for f in frames] == [*range(12)]
    lost = [f for f in frames if f.image is None]
    assert [f.number for f in lost] == [5]
    assert lost[0].reason
    assert all(f.image is None or number_of(f.image) == f.number for f in frames)


def test_damage_between_frames_that_need_each_other(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 24)
    damage(path, 9)
    frames = list(open_video(path).read())
    assert [f.number for f in frames] == [*range(24)]
    lost = [f.number for f in frames if f.image is None]
    assert 9 in lost
    assert set(lost) <= {8, 9, 10, 11}  # up to the next key frame, 12
    assert frames[lost[0]].reason == "Invalid data found when processing input"


def test_a_video_that_is_cut_off(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.avi: expected 12 frames, as its header says, found \d: it is cut off"):
        open_video(path)


def test_a_cut_stream_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "a.mkv", 100)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert 0 < len(open_video(path)) < 75
    assert "of 4.0 seconds; it may be cut off" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no video at all", None])
def test_files_that_are_no_video(tmp_path: Path, content: bytes | None) -> None:
    pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_video(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_raw_stream_has_no_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", 4)
    with pytest.raises(DataError, match=r"a\.h264: expected frames with times, found a raw stream"):
        open_video(path)


def test_sound_alone(tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match=r"a\.mp4: expected a video, found no picture stream in it"):
        open_video(tmp_path / "a.mp4")


def test_a_playlist_in_disguise_reaches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.mp4").write_text(playlist)
    with pytest.raises(DataError, match=r"a\.mp4: expected a"):
        open_video(tmp_path / "a.mp4")


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = open_video(write_video(tmp_path / "a.mp4", 2))
    monkeypatch.setattr(video_file, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    with pytest.raises(DataError, match=r"expected at most 2047 pixels, got 64x32"):
        list(video.read())


def test_frames_are_not_held(tmp_path: Path) -> None:
    video, seen, most = open_video(write_video(tmp_path / "a.mp4", 24)), [], 0
    for decoded in video.read():
        assert decoded.image is not None
        seen.append(weakref.ref(decoded.image))
        most = max(most, sum(image() is not None for image in seen))
    assert (len(seen), most) == (24, 1)


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"video files need PyAV.* pip install pix2seq_d\[video\]"):
        open_video(tmp_path / "a.mp4")
