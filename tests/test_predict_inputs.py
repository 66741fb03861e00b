"""Frames that cannot be read, and video files, from inputs to maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predict_runs import picture, refused, run, write_frames, written
from videos import damage, write_video

from pix2seq_d.data.formats import DataError, write_image
from pix2seq_d.data.video_file import open_video
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.result_files import AnimationSettings, OutputSettings
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor

Build = Callable[..., Pix2SeqD]


@pytest.fixture
def predictor(tiny_model: Build) -> VideoPredictor:
    return VideoPredictor(tiny_model(), num_steps=2, num_steps_next=1)


# frames that cannot be read


class Seeing:
    """A stand-in that notes the brightness of the frames that it is shown; its object's id is their count."""

    def __init__(self, model: Pix2SeqD) -> None:
        self.model, self.frame_size, self.seen = model, None, list[int]()

    def reset(self) -> None:
        self.seen.append(-1)

    def step(self, frame: np.ndarray) -> PanopticMap:
        self.seen.append(int(frame[0, 0, 0]))
        classes = np.full(frame.shape[:2], 13, np.uint8)
        return PanopticMap(classes, classes.astype(np.int32), np.full(classes.shape, 0.5, np.float32))


def grey_frames(folder: Path, count: int = 5, *, broken: int | None = 2) -> Path:
    for k in range(count):
        write_image(folder / "v" / f"{k}.png", np.full((32, 64, 3), 10 * k, np.uint8))
    if broken is not None:
        (folder / "v" / f"{broken}.png").write_bytes(b"")
    return folder


def test_skipped_frames_are_not_shown_and_tracks_stay_alive(
    tiny_model: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames, out, stand_in = grey_frames(tmp_path / "in"), tmp_path / "out", Seeing(tiny_model())
    assert run(stand_in, frames, out, on_error="skip") == 4
    assert stand_in.seen == [-1, 0, 10, 30, 40]  # one reset: what it remembers goes on
    assert {p.name for p in (out / "panoptic" / "v").iterdir()} == {"0.png", "1.png", "3.png", "4.png"}
    assert f"{frames}/v/2.png: expected an image, got an empty file; skipped" in caplog.text
    assert json.loads((out / "inference.json").read_text())["skipped"] == {"v": ["2"]}


def test_skipping_is_as_if_the_frame_were_not_there(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "in")
    whole = (frames / "a" / "9.png").read_bytes()
    (frames / "a" / "9.png").write_text("x")
    run(predictor, frames, tmp_path / "skipped", on_error="skip")
    (frames / "a" / "9.png").unlink()
    run(predictor, frames, tmp_path / "without")
    assert written(tmp_path / "skipped" / "panoptic") == written(tmp_path / "without" / "panoptic")
    (frames / "a" / "9.png").write_bytes(whole)


def test_a_run_with_skipped_frames_is_finished_until_one_does_not_skip(tiny_model: Build, tmp_path: Path) -> None:
    frames, out, stand_in = grey_frames(tmp_path / "in"), tmp_path / "out", Seeing(tiny_model())
    run(stand_in, frames, out, on_error="skip")
    assert run(stand_in, frames, out, on_error="skip") == 0
    assert "2.png" in refused(stand_in, frames, out)  # type: ignore[arg-type]
    grey_frames(tmp_path / "in", broken=None)
    assert run(stand_in, frames, out) == 5
    assert json.loads((out / "inference.json").read_text())["skipped"] == {}


def test_a_skipped_frame_loses_its_older_map(tiny_model: Build, tmp_path: Path) -> None:
    frames, out, stand_in = grey_frames(tmp_path / "in", broken=None), tmp_path / "out", Seeing(tiny_model())
    run(stand_in, frames, out)
    grey_frames(tmp_path / "in")
    run(stand_in, frames, out, on_error="skip", overwrite=True)
    assert not (out / "panoptic" / "v" / "2.png").exists()
    assert not (out / "overlay" / "v" / "2.png").exists()


def test_a_sequence_without_a_readable_frame(tiny_model: Build, tmp_path: Path) -> None:
    frames = grey_frames(tmp_path / "in", 1, broken=0)
    with pytest.raises(DataError, match="v: expected at least one readable frame, found none in 1"):
        run(Seeing(tiny_model()), frames, tmp_path / "out", on_error="skip")
    with pytest.raises(ValueError, match="on_error: expected one of stop, skip, got 'ignore'"):
        run(Seeing(tiny_model()), frames, tmp_path / "out", on_error="ignore")


def test_frames_of_another_size_are_not_skipped(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "in")
    write_image(frames / "a" / "11.png", picture((41, 70)))
    with pytest.raises(DataError, match=r"11\.png: expected 40x70 pixels"):
        run(predictor, frames, tmp_path / "out", on_error="skip")


def test_unreadable_stills_are_skipped_one_by_one(tiny_model: Build, tmp_path: Path) -> None:
    frames, out, stand_in = grey_frames(tmp_path / "in", 3, broken=0), tmp_path / "out", Seeing(tiny_model())
    assert run(stand_in, frames, out, on_error="skip", stills=True) == 2
    assert stand_in.seen == [-1, -1, 10, -1, 20]  # a reset before each
    record = json.loads((out / "inference.json").read_text())
    assert (record["finished"], record["skipped"]) == (["v/0", "v/1", "v/2"], {"v/0": ["0"]})
    assert run(stand_in, frames, out, on_error="skip", stills=True) == 0
    with pytest.raises(DataError, match=r"0\.png: expected an image, got an empty file"):
        run(stand_in, frames, out, stills=True)
    grey_frames(tmp_path / "in", 3, broken=None)
    assert run(stand_in, frames, out, stills=True) == 1
    assert json.loads((out / "inference.json").read_text())["skipped"] == {}


def test_stills_without_a_readable_one(tiny_model: Build, tmp_path: Path) -> None:
    frames = grey_frames(tmp_path / "in", 1, broken=0)
    for _ in range(2):
        with pytest.raises(DataError, match="out: expected at least one readable image, found none in 1"):
            run(Seeing(tiny_model()), frames, tmp_path / "out", on_error="skip", stills=True)


def test_stills_of_patterns_lists_and_files(predictor: VideoPredictor, tmp_path: Path) -> None:
    """The same maps, whatever names the images; sizes and order do not matter."""
    frames = write_frames(tmp_path / "in")
    write_image(frames / "a" / "11.png", picture((50, 30)))
    paths = sorted(frames.rglob("*.png"), reverse=True)
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)))
    inputs: dict[str, Any] = {"folder": frames, "pattern": frames / "*/*.png", "list": tmp_path / "list.txt"}
    inputs["files"] = paths
    for name, given in inputs.items():
        assert run(predictor, given, tmp_path / name, stills=True) == 7
        assert written(tmp_path / name / "panoptic") == written(tmp_path / "folder" / "panoptic")


# video files


def test_a_video_has_no_stills(tiny_model: Build, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 3)
    with pytest.raises(ValueError, match=r"stills: expected images of their own, got the video .*v\.mp4"):
        run(Seeing(tiny_model()), path, tmp_path / "out", stills=True)
    assert not (tmp_path / "out").exists()


def test_a_video_goes_in_and_comes_out_at_its_rate(tiny_model: Build, tmp_path: Path) -> None:
    path, out = write_video(tmp_path / "v.mp4", 6, rate=Fraction(30000, 1001)), tmp_path / "out"
    stand_in = Seeing(tiny_model())
    settings = OutputSettings(AnimationSettings(".mp4", shows="overlay"))
    assert run(stand_in, path, out, outputs=settings) == 6
    assert len(stand_in.seen) == 7
    assert {p.name for p in (out / "panoptic" / "v").iterdir()} == {f"{k:06d}.png" for k in range(6)}
    film = open_video(out / "overlay" / "v.mp4")
    assert (len(film), film.fps) == (6, pytest.approx(30000 / 1001))
    before = written(out)
    assert run(stand_in, path, out, outputs=settings) == 0
    assert run(stand_in, path, out, outputs=settings, overwrite=True) == 6
    assert written(out) == before


def test_a_damaged_video(tiny_model: Build, tmp_path: Path) -> None:
    path, out = write_video(tmp_path / "v.avi", 6, codec="mjpeg", pix_fmt="yuvj420p"), tmp_path / "out"
    damage(path, 3)
    with pytest.raises(DataError, match=r"v\.avi, frame 3 at 0\.12 s: expected a readable frame \("):
        run(Seeing(tiny_model()), path, out)
    assert run(Seeing(tiny_model()), path, out, on_error="skip") == 5
    names = {p.stem for p in (out / "panoptic" / "v").iterdir()}
    assert names == {f"{k:06d}" for k in (0, 1, 2, 4, 5)}
