"""The files of one sequence: names, sizes, rates, the contact sheet, and what is left out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pix2seq_d import result_files
from pix2seq_d.data.formats import DataError, read_image, read_png
from pix2seq_d.labels import get_label_spec
from pix2seq_d.result_files import FRAME_FILES, AnimationSettings, OutputSettings, ResultFiles, read_segments
from pix2seq_d.video.panoptic_map import PanopticMap, Uncertainty

SPEC = get_label_spec("kitti-step")
SIZE = (30, 40)
STILL = AnimationSettings("")


def result(confidence: float = 0.5) -> PanopticMap:
    return PanopticMap(np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.int32), np.full(SIZE, confidence, np.float32))


def write_all(files: ResultFiles, frames: list[np.ndarray]) -> None:
    with files:
        for k, frame in enumerate(frames):
            files.add(k, f"{k:02d}", frame, result())


def write(output: Path, settings: OutputSettings, *, count: int, fps: float | None = None) -> set[str]:
    frames = [np.full((*SIZE, 3), 9 * k, np.uint8) for k in range(count)]
    write_all(ResultFiles(output, "v", SPEC, settings, num_frames=count, fps=fps), frames)
    return {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    assert write(tmp_path / "a", OutputSettings(STILL), count=1) == {"panoptic/v/00.png", "overlay/v/00.png"}
    everything = OutputSettings(AnimationSettings(".webp", shows="overlay"), contact_sheet=1, confidence=True)
    assert write(tmp_path / "b", everything, count=1) == {
        *(f"{kind}/v/00.png" for kind in ("panoptic", "overlay", "confidence")),
        "overlay/v.webp",
        "contact_sheet/v.png",
    }


def test_confidence_is_written_in_255ths(tmp_path: Path) -> None:
    write(tmp_path, OutputSettings(STILL, confidence=True), count=1)
    assert (read_png(tmp_path / "confidence/v/00.png", kinds=("greyscale",)) == 128).all()  # 127.5, to even


def sampled() -> PanopticMap:
    """Road, and in the lower half car 4; two samples agree on three quarters of the car."""
    drawn = result()
    drawn.class_map[15:], drawn.instance_map[15:] = 13, 4
    entropy, disagreement = np.zeros((2, *SIZE), np.float32)
    entropy[0], disagreement[15:] = 1, 0.5
    drawn.uncertainty = Uncertainty(entropy, disagreement, {(0, 0): 1.0, (13, 4): 0.75, (13, 9): 0.1})
    return drawn


def test_several_samples_leave_their_differences(tmp_path: Path) -> None:
    with ResultFiles(tmp_path, "v", SPEC, OutputSettings(STILL), num_frames=1) as files:
        files.add(0, "00", np.zeros((*SIZE, 3), np.uint8), sampled())
    values = read_png(tmp_path / "uncertainty/v/00.png", kinds=("RGB",))
    assert values[0, 0].tolist() == [255, 0, 0]
    assert values[20, 0].tolist() == [0, 128, 0]  # 127.5, to even
    assert json.loads((tmp_path / "segments/v/00.json").read_text()) == {
        "segments": read_segments(tmp_path / "segments/v/00.json")
    }
    road = {"class_id": 0, "class": "road", "instance_id": 0, "area": 600, "score": 0.5, "agreement": 1.0}
    car = {"class_id": 13, "class": "car", "instance_id": 4, "area": 600, "score": 0.5, "agreement": 0.75}
    assert read_segments(tmp_path / "segments/v/00.json") == [road, car]


def test_what_is_not_written_any_more_is_removed(tmp_path: Path) -> None:
    settings = OutputSettings(STILL, confidence=True)
    with ResultFiles(tmp_path, "v", SPEC, settings, num_frames=2) as files:
        for k in range(2):
            files.add(k, f"{k:02d}", np.zeros((*SIZE, 3), np.uint8), sampled())
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 10
    assert write(tmp_path, OutputSettings(STILL), count=1) == {
        *(f"{kind}/v/00.png" for kind in ("panoptic", "overlay")),
        *(f"{kind}/v/01{suffix}" for kind, suffix in FRAME_FILES.items()),
    }
    ResultFiles(tmp_path, "v", SPEC, OutputSettings(STILL), num_frames=1).drop("01")
    assert not list(tmp_path.rglob("01.*"))


@pytest.mark.parametrize("text", ["{", "[]", '{"segments": [{"class_id": 1}]}', '{"segments": [3]}', '{"segments": 3}'])
def test_broken_segments(tmp_path: Path, text: str) -> None:
    (tmp_path / "0.json").write_text(text)
    with pytest.raises(DataError, match=r"0\.json: expected the segments of a frame, found none that can be read"):
        read_segments(tmp_path / "0.json")


def test_segments_out_of_range(tmp_path: Path) -> None:
    segment = {"class_id": 0, "class": "road", "instance_id": 0, "area": 3, "score": 0.5, "agreement": 0.5}
    for key, value in (("score", 1.5), ("agreement", math.nan)):
        (tmp_path / "0.json").write_text(json.dumps({"segments": [segment | {key: value}]}))
        with pytest.raises(DataError, match=rf"0\.json: expected {key} in \[0, 1\], found {value}"):
            read_segments(tmp_path / "0.json")
    (tmp_path / "0.json").write_text(json.dumps({"segments": [segment | {"area": math.inf}]}))
    with pytest.raises(DataError, match=r"none that can be read"):
        read_segments(tmp_path / "0.json")


def test_contact_sheet_of_evenly_spaced_frames(tmp_path: Path) -> None:
    """Four of 10 frames, 0 3 6 9, each 40 wide and 21 (caption) + 30 high, in three columns with gaps of 8."""
    files = ResultFiles(tmp_path, "v", SPEC, OutputSettings(STILL, contact_sheet=4), num_frames=10)
    assert files.sheet.places == {0, 3, 6, 9}
    write(tmp_path, OutputSettings(STILL, contact_sheet=4), count=10)
    assert read_image(tmp_path / "contact_sheet/v.png").shape == (3 * 8 + 2 * (21 + 30), 4 * 8 + 3 * 40, 3)


def test_a_sheet_shows_what_there_is(tmp_path: Path) -> None:
    assert "contact_sheet/v.png" in write(tmp_path, OutputSettings(STILL, contact_sheet=9), count=2)


def test_pictures_of_a_sheet_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_files, "SHEET_WIDTH", 20)
    write(tmp_path, OutputSettings(STILL, contact_sheet=1), count=1)
    assert read_image(tmp_path / "contact_sheet/v.png").shape == (2 * 8 + 21 + 15, 2 * 8 + 20, 3)


def test_a_failure_leaves_neither_animation_nor_sheet(tmp_path: Path) -> None:
    settings = OutputSettings(contact_sheet=2)
    frames = [np.zeros((*SIZE, 3), np.uint8), np.zeros((9, 9, 3), np.uint8)]
    with pytest.raises(ValueError, match="frame: expected the size"):
        write_all(ResultFiles(tmp_path, "v", SPEC, settings, num_frames=2), frames)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"00.png", "01.png"}
    assert not (tmp_path / "contact_sheet").exists()
    assert not list((tmp_path / "overview").iterdir())


def test_dropping_a_frame(tmp_path: Path) -> None:
    write(tmp_path, OutputSettings(STILL, confidence=True), count=1)
    ResultFiles(tmp_path, "v", SPEC, OutputSettings(STILL), num_frames=1).drop("00")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_rates() -> None:
    assert [AnimationSettings(suffix).rate(None) for suffix in (".gif", ".mp4")] == [10, 10]
    assert AnimationSettings(".gif").rate(25) == AnimationSettings(".mp4").rate(25) == 25
    assert (AnimationSettings(".gif").rate(120), AnimationSettings(".mp4").rate(120)) == (50, 120)
    assert AnimationSettings(".mp4").rate(90_000) == 1000
    assert AnimationSettings(".gif", fps=5).rate(25) == 5
    assert AnimationSettings(".gif", fps=60).rate(25) == 60


def test_room_for_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_files, "MAX_HELD_BYTES", 1000)
    small, large = np.zeros((4, 5, 3), np.uint8), np.zeros((100, 100, 3), np.uint8)
    assert AnimationSettings(".gif").room_for(small) == 50
    assert AnimationSettings(".webp").room_for(small) == 16
    assert AnimationSettings(".mp4", max_frames=7).room_for(large) == 7
    assert AnimationSettings(".mp4").room_for(large) > 10**9
    assert AnimationSettings(".gif", max_frames=7).room_for(small) == 7
    assert AnimationSettings(".gif").room_for(large) == 1
    assert AnimationSettings(".gif").room_for(np.zeros((1, 1, 3), np.uint8)) == 200


def test_stills_have_neither_animation_nor_sheet() -> None:
    settings = OutputSettings(confidence=True).of_stills()
    assert (settings.animation.suffix, settings.confidence, settings.of_stills()) == ("", True, settings)
    with pytest.raises(ValueError, match="contact_sheet: expected 0, stills have sizes of their own, got 6"):
        OutputSettings(contact_sheet=6).of_stills()


def test_argument_errors() -> None:
    with pytest.raises(ValueError, match="shows: expected overview or overlay, got 'frame'"):
        AnimationSettings(shows="frame")
    with pytest.raises(ValueError, match="contact_sheet: expected at least 0 frames, got -1"):
        OutputSettings(contact_sheet=-1)


def test_frames_that_were_written_in_another_order_are_drawn_in_theirs(tmp_path: Path) -> None:
    """The same files as of frames that come in order."""
    settings = OutputSettings(AnimationSettings(".gif", shows="overlay"), contact_sheet=2)
    frames = [np.full((*SIZE, 3), 60 * k, np.uint8) for k in range(3)]
    write_all(ResultFiles(tmp_path / "a", "v", SPEC, settings, num_frames=3), frames)
    with ResultFiles(tmp_path / "b", "v", SPEC, settings, num_frames=3) as files:
        for k in (2, 0, 1):
            files.add(k, f"{k:02d}", frames[k], result(), drawn=False)
        assert files.film is not None
        assert (files.film.count, files.sheet.cells) == (0, [])
        for k, frame in enumerate(frames):
            files.draw(k, f"{k:02d}", frame)
    one, other = ({p.relative_to(o): p.read_bytes() for p in o.rglob("*.*")} for o in (tmp_path / "a", tmp_path / "b"))
    assert one == other
    with ResultFiles(tmp_path / "c", "v", SPEC, OutputSettings(STILL), num_frames=1) as files:
        files.draw(0, "00", frames[0])  # nothing to draw on: the map is not even read
