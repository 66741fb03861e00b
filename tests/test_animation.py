"""GIF, WebP and MP4: round trips through their readers, and nothing half-written."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pix2seq_d import animation
from pix2seq_d.animation import AnimationWriter, save_animation


def pictures(count: int, height: int = 24, width: int = 40) -> list[np.ndarray]:
    """A square of another colour at another place in each, on grey."""
    result = []
    for t in range(count):
        picture = np.full((height, width, 3), 90, np.uint8)
        picture[4:12, 3 * t : 3 * t + 8] = (40 * t % 256, 200, 250 - 30 * t % 256)
        result.append(picture)
    return result


def frames(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """RGB pictures and their durations in ms."""
    with Image.open(path) as image:
        shown = [(np.array(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(image)]
    return [picture for picture, _ in shown], [duration for _, duration in shown]


def test_gif_round_trip_is_exact_for_few_colours(tmp_path: Path) -> None:
    save_animation(tmp_path / "new" / "a.gif", pictures(6), fps=5)
    shown, durations = frames(tmp_path / "new" / "a.gif")
    np.testing.assert_array_equal(shown, pictures(6))
    assert durations == [200] * 6
    with Image.open(tmp_path / "new" / "a.gif") as image:
        assert image.info["loop"] == 0  # for ever
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_gif_keeps_neighbouring_colours_apart(tmp_path: Path) -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.mgrid[:16, :16]  # 256 colours one step apart
    save_animation(tmp_path / "a.gif", [picture, picture[::-1].copy()])
    np.testing.assert_array_equal(frames(tmp_path / "a.gif")[0], [picture, picture[::-1]])


def test_gif_of_photographs_is_near_and_colours_decide_how_near(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(2)]
    errors = []
    for colours in (256, 8):
        with AnimationWriter(tmp_path / "a.gif", colours=colours) as writer:
            for picture in noise:
                writer.add(picture)
        errors.append(np.abs(np.array(frames(tmp_path / "a.gif")[0]).astype(int) - noise).mean())
    assert errors[0] < 25 < 35 < errors[1]


def test_equal_pictures_keep_their_time(tmp_path: Path) -> None:
    first, second = pictures(2)
    save_animation(tmp_path / "a.gif", [first, first, first, second], fps=10)
    assert sum(frames(tmp_path / "a.gif")[1]) == 400


def test_webp_round_trip(tmp_path: Path) -> None:
    save_animation(tmp_path / "a.webp", pictures(4), fps=20)
    shown, durations = frames(tmp_path / "a.webp")
    assert len(shown) == 4
    assert durations == [50] * 4
    assert np.abs(np.array(shown).astype(int) - pictures(4)).mean() < 8


@pytest.mark.parametrize(("height", "width"), [(24, 40), (25, 41)])
def test_mp4_round_trip(tmp_path: Path, height: int, width: int) -> None:
    av = pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    save_animation(tmp_path / "a.mp4", pictures(7, height, width), fps=25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == 25
        assert container.streams.video[0].codec_context.colorspace == 5  # BT.601
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [picture.shape for picture in shown] == [(24 + height % 2 * 2, 40 + width % 2 * 2, 3)] * 7
    for picture, original in zip(shown, pictures(7, height, width)):
        assert np.abs(picture[:height, :width].astype(int) - original).mean() < 8
        assert np.abs(picture.astype(int)[-1, -8:] - 90).max() < 8  # the grey goes on to the even edge
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_mp4_without_pyav_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"pip install pix2seq_d\[video\]"):
        AnimationWriter(tmp_path / "a.mp4")
    AnimationWriter(tmp_path / "a.gif")  # needs nothing
    assert not list(tmp_path.iterdir())


def stopping() -> Iterator[np.ndarray]:
    """So many pictures that the video encoder has begun to write, then an error."""
    yield from pictures(1) * 100
    raise RuntimeError("stop")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    if suffix == ".mp4":
        pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    path = tmp_path / f"a{suffix}"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"):
        save_animation(path, stopping())
    with pytest.raises(ValueError, match="expected at least one picture, got none"):
        save_animation(path, [])
    with pytest.raises(ValueError, match="expected pictures of one shape"):
        save_animation(path, [*pictures(2), *pictures(1, 30, 40)])
    with pytest.raises(TypeError, match="picture: expected a uint8 array"):
        save_animation(path, [pictures(1)[0].astype(float)])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_pixels_held_are_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation, "MAX_HELD_BYTES", 3 * 24 * 40)
    save_animation(tmp_path / "a.gif", pictures(3))
    with pytest.raises(ValueError, match=r"a\.gif: expected at most .* got more at picture 4; write \.mp4"):
        save_animation(tmp_path / "a.gif", pictures(4))
    with pytest.raises(ValueError, match="at picture 2"):
        save_animation(tmp_path / "a.webp", pictures(2))
    assert len(frames(tmp_path / "a.gif")[0]) == 3


def test_argument_errors(tmp_path: Path) -> None:
    for name, arguments, message in (
        ("a.avi", {}, r"a\.avi: expected a suffix of \.gif, \.webp, \.mp4"),
        ("a.gif", {"fps": 0}, "fps: expected above 0 and at most 100, got 0"),
        ("a.gif", {"fps": 101}, "fps: expected above 0 and at most 100"),
        ("a.gif", {"colours": 257}, "colours: expected 2..256, got 257"),
    ):
        with pytest.raises(ValueError, match=message):
            AnimationWriter(tmp_path / name, **arguments)
    with pytest.raises(ValueError, match=r"add\(\) inside the `with` block"):
        AnimationWriter(tmp_path / "a.gif").add(pictures(1)[0])
