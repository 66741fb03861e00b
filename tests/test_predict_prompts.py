"""Runs with given maps: what comes out as it is, both directions, ids, pictures in time order, resuming, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predict_runs import run, written
from videos import number_of, write_video

from pix2seq_d.data.formats import DataError, read_kitti_step, read_png, write_image, write_kitti_step
from pix2seq_d.data.sources import open_sources
from pix2seq_d.labels import get_label_spec
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.prompt_maps import PromptMaps
from pix2seq_d.result_files import AnimationSettings, OutputSettings
from pix2seq_d.video.known import KnownMap
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor

Build = Callable[..., Pix2SeqD]
SPEC = get_label_spec("kitti-step")
SIZE = (32, 64)
ROAD, CAR, VOID = 0, 13, 255
PICTURES = OutputSettings(AnimationSettings(".gif", shows="overlay"), contact_sheet=3)


class Tracking:
    """A stand-in that notes what it is shown; its one car keeps its id, a new one takes the next that is free."""

    def __init__(self, model: Pix2SeqD) -> None:
        self.model, self.frame_size, self.seen = model, None, list[Any]()

    def reset(self, *, first_id: int = 1) -> None:
        self.seen.append(f"from {first_id}")
        self.next_id, self.id = first_id, 0

    def reserve_ids(self, last_id: int) -> None:
        self.next_id = max(self.next_id, last_id + 1)

    def step(self, frame: np.ndarray, *, known: KnownMap | None = None) -> PanopticMap:
        self.seen.append((number_of(frame), None if known is None else int(known.instance_map.max())))
        if known is not None:
            self.id = int(known.instance_map.max())
        elif number_of(frame) == 1 or not self.id:  # frame 1 shows another car
            self.id = self.next_id
        self.next_id = min(max(self.next_id, self.id + 1), 65535)
        ids = np.full(frame.shape[:2], self.id, np.int32)
        return PanopticMap(np.full(ids.shape, CAR, np.uint8), ids, np.ones(ids.shape, np.float32))


def clip(folder: Path, count: int = 6, *, broken: int | None = None) -> Path:
    """Frames 0.png ... whose brightness says their number."""
    for k in range(count):
        write_image(folder / "v" / f"{k}.png", np.full((*SIZE, 3), 10 * k, np.uint8))
    if broken is not None:
        (folder / "v" / f"{broken}.png").write_bytes(b"")
    return folder


def give(folder: Path, **ids: int) -> Path:
    """Maps k{frame} of one car with the given id."""
    for name, car in ids.items():
        write_kitti_step(folder / f"{name[1:]}.png", np.full(SIZE, CAR, np.uint8), np.full(SIZE, car, np.int32))
    return folder


def go(predictor: Any, source: Path, maps: Path, target: Path, **options: Any) -> int:
    of_maps = {name: options.pop(name) for name in ("reverse", "first_id") if name in options}
    prompts = PromptMaps.find(maps, open_sources(source), SPEC, **of_maps)
    return run(predictor, source, target, prompts=prompts, **options)


def ids(target: Path) -> dict[str, int]:
    """The car's id by frame."""
    paths = sorted((target / "panoptic" / "v").iterdir())
    return {path.stem: int(read_kitti_step(path)[1].max()) for path in paths}


# what is predicted


def test_maps_are_shown_with_their_frames(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in"), give(tmp_path / "maps", k2=7, k4=9), Tracking(tiny_model())
    assert go(stand_in, source, maps, tmp_path / "out") == 6
    assert stand_in.seen == ["from 1", (0, None), (1, None), (2, 7), (3, None), (4, 9), (5, None)]
    assert ids(tmp_path / "out") == {"0": 1, "1": 2, "2": 7, "3": 7, "4": 9, "5": 9}


def test_back_from_the_first_map(tiny_model: Build, tmp_path: Path) -> None:
    """The way back begins with what the way there made of the first map; its new car gets an id that nobody has."""
    source, maps, stand_in = clip(tmp_path / "in"), give(tmp_path / "maps", k2=7, k4=9), Tracking(tiny_model())
    assert go(stand_in, source, maps, tmp_path / "out", reverse=True) == 6
    there, back = [(2, 7), (3, None), (4, 9), (5, None)], [(2, 7), (1, None), (0, None)]
    assert stand_in.seen == ["from 1", *there, "from 10", *back]
    assert ids(tmp_path / "out") == {"0": 10, "1": 10, "2": 7, "3": 7, "4": 9, "5": 9}
    record = json.loads((tmp_path / "out" / "inference.json").read_text())
    assert record["settings"]["reverse"] is True


def test_back_from_the_last_frame_of_a_video_file(
    tiny_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, maps, stand_in = write_video(tmp_path / "v.mp4", 6), give(tmp_path / "maps", k5=7), Tracking(tiny_model())
    monkeypatch.setattr("pix2seq_d.data.sources.STORED_BYTES", 2 * 32 * 64 * 3)
    assert go(stand_in, video, maps, tmp_path / "out", reverse=True, outputs=PICTURES) == 6
    assert stand_in.seen == ["from 1", (5, 7), "from 8", (5, 7), *((k, None) for k in (4, 3, 2, 1, 0))]
    assert list(ids(tmp_path / "out").values()) == [8, 8, 7, 7, 7, 7]


def test_reverse_with_a_map_of_the_first_frame_is_forward(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in", 2), give(tmp_path / "maps", k0=7), Tracking(tiny_model())
    go(stand_in, source, maps, tmp_path / "out", reverse=True)
    assert stand_in.seen == ["from 1", (0, 7), (1, None)]


def test_new_ids_begin_where_they_are_told_to(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in"), give(tmp_path / "maps", k2=7), Tracking(tiny_model())
    go(stand_in, source, maps, tmp_path / "out", first_id=100)
    assert ids(tmp_path / "out") == {"0": 100, "1": 101, "2": 7, "3": 7, "4": 7, "5": 7}
    go(stand_in, source, maps, tmp_path / "back", first_id=100, reverse=True)
    assert ids(tmp_path / "back")["0"] == 100
    go(stand_in, source, give(tmp_path / "high", k2=65535), tmp_path / "most", reverse=True)
    assert "from 65535" in stand_in.seen, "there is no id above it"


def test_new_objects_leave_the_ids_of_later_maps_alone(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in"), give(tmp_path / "maps", k0=7, k4=8), Tracking(tiny_model())
    go(stand_in, source, maps, tmp_path / "out")
    assert ids(tmp_path / "out") == {"0": 7, "1": 9, "2": 9, "3": 9, "4": 8, "5": 8}


def test_a_complete_map_comes_out_as_it_is_and_changes_what_follows(tiny_model: Build, tmp_path: Path) -> None:
    predictor = VideoPredictor(tiny_model(), num_steps=2, num_steps_next=1)
    source, maps = clip(tmp_path / "in", 4), tmp_path / "maps"
    class_map, instance_map = np.full(SIZE, ROAD, np.uint8), np.zeros(SIZE, np.int32)
    class_map[8:24, 8:32], instance_map[8:24, 8:32] = CAR, 500
    write_kitti_step(maps / "1.png", class_map, instance_map)
    run(predictor, source, tmp_path / "plain")
    go(predictor, source, maps, tmp_path / "out")
    plain, out = ({p.stem: p.read_bytes() for p in (tmp_path / name).glob("panoptic/v/*")} for name in ("plain", "out"))
    assert out["1"] == (maps / "1.png").read_bytes()
    assert out["0"] == plain["0"]
    assert out["2"] != plain["2"]
    go(predictor, source, maps, tmp_path / "back", reverse=True)
    back = {p.stem: p.read_bytes() for p in (tmp_path / "back").glob("panoptic/v/*")}
    assert back["1"] == out["1"]
    assert back["0"] != out["0"]


def test_an_incomplete_map_is_completed(tiny_model: Build, tmp_path: Path) -> None:
    predictor = VideoPredictor(tiny_model(), num_steps=2, num_steps_next=1)
    source, maps = clip(tmp_path / "in", 2), tmp_path / "maps"
    class_map, instance_map = np.full(SIZE, VOID, np.uint8), np.zeros(SIZE, np.int32)
    class_map[:, :32], instance_map[:16, :32] = CAR, 5  # an object above, only its class below, nothing to the right
    write_kitti_step(maps / "0.png", class_map, instance_map)
    go(predictor, source, maps, tmp_path / "out")
    classes, instances = read_kitti_step(tmp_path / "out/panoptic/v/0.png")
    assert (classes[:, :32] == CAR).all()
    assert (instances[:16, :32] == 5).all()
    assert (classes != VOID).all()


def test_maps_of_stills(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in", 3), give(tmp_path / "maps", k1=7), Tracking(tiny_model())
    go(stand_in, source, maps, tmp_path / "out", stills=True)
    assert stand_in.seen == ["from 1", (0, None), "from 1", (1, 7), "from 1", (2, None)]
    with pytest.raises(ValueError, match=r"^reverse: expected a video, stills have no order$"):
        go(stand_in, source, maps, tmp_path / "other", stills=True, reverse=True)


# pictures


class Stateless(Tracking):
    """A stand-in whose maps depend on the frame alone."""

    def step(self, frame: np.ndarray, *, known: KnownMap | None = None) -> PanopticMap:
        classes = np.full(frame.shape[:2], number_of(frame), np.uint8)
        return PanopticMap(classes, np.zeros(classes.shape, np.int32), np.ones(classes.shape, np.float32))


def test_pictures_show_time_forward(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in"), give(tmp_path / "maps", k4=7), Stateless(tiny_model())
    for name, reverse in (("forward", False), ("reverse", True)):
        go(stand_in, source, maps, tmp_path / name, reverse=reverse, outputs=PICTURES)
    forward, reverse_ = (written(tmp_path / name) for name in ("forward", "reverse"))
    assert {"overlay/v.gif", "contact_sheet/v.png", "overlay/v/0.png"} <= set(forward)
    del forward["inference.json"], reverse_["inference.json"]
    assert forward == reverse_


def test_confidence_is_written_on_the_way_back_too(tiny_model: Build, tmp_path: Path) -> None:
    source, maps = clip(tmp_path / "in", 3), give(tmp_path / "maps", k2=7)
    outputs = OutputSettings(AnimationSettings(""), confidence=True)
    go(Tracking(tiny_model()), source, maps, tmp_path / "out", reverse=True, outputs=outputs)
    assert (read_png(tmp_path / "out/confidence/v/0.png", kinds=("greyscale",)) == 255).all()


# frames that cannot be read


def test_a_skipped_frame_takes_its_map_with_it(
    tiny_model: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The way back then begins with the first frame of the way there."""
    source, maps, stand_in = clip(tmp_path / "in", broken=3), give(tmp_path / "maps", k3=7), Tracking(tiny_model())
    assert go(stand_in, source, maps, tmp_path / "out", reverse=True, on_error="skip", outputs=PICTURES) == 5
    assert stand_in.seen == ["from 1", (4, None), (5, None), "from 2", (4, 1), (2, None), (1, None), (0, None)]
    assert f"v/3.png: expected an image, got an empty file; skipped, and with it {maps / '3.png'}" in caplog.text
    with pytest.raises(DataError, match=r"v/3\.png: expected an image, got an empty file"):
        go(stand_in, source, maps, tmp_path / "stop", reverse=True)


def test_skipped_frames_of_both_ways_are_recorded_in_order(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in", broken=4), give(tmp_path / "maps", k2=7), Tracking(tiny_model())
    (source / "v" / "1.png").write_bytes(b"")
    go(stand_in, source, maps, tmp_path / "out", reverse=True, on_error="skip")
    assert json.loads((tmp_path / "out" / "inference.json").read_text())["skipped"] == {"v": ["1", "4"]}
    assert go(stand_in, source, maps, tmp_path / "out", reverse=True, on_error="skip") == 0


def test_no_readable_frame_after_the_map(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in", 2, broken=1), give(tmp_path / "maps", k1=7), Tracking(tiny_model())
    assert go(stand_in, source, maps, tmp_path / "out", reverse=True, on_error="skip") == 1
    assert stand_in.seen == ["from 1", "from 1", (0, None)]


# going on


def test_a_run_that_is_cut_off_on_the_way_back_goes_on(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in"), give(tmp_path / "maps", k3=7), Tracking(tiny_model())
    go(stand_in, source, maps, tmp_path / "straight", reverse=True, outputs=PICTURES)
    step = stand_in.step

    def cut(frame: np.ndarray, *, known: KnownMap | None = None) -> PanopticMap:
        if number_of(frame) == 1:
            raise KeyboardInterrupt
        return step(frame, known=known)

    stand_in.step = cut  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        go(stand_in, source, maps, tmp_path / "out", reverse=True, outputs=PICTURES)
    stand_in.step = step  # type: ignore[method-assign]
    assert go(stand_in, source, maps, tmp_path / "out", reverse=True, outputs=PICTURES) == 6
    assert written(tmp_path / "out") == written(tmp_path / "straight")
    assert go(stand_in, source, maps, tmp_path / "out", reverse=True, outputs=PICTURES) == 0


def test_corrected_maps_are_other_settings(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in"), give(tmp_path / "maps", k2=7), Tracking(tiny_model())
    run(stand_in, source, tmp_path / "out")
    with pytest.raises(ValueError, match=r"other settings \(past_maps None -> 1 map, \w+\).* --overwrite"):
        go(stand_in, source, maps, tmp_path / "out")
    go(stand_in, source, maps, tmp_path / "out", overwrite=True)
    assert go(stand_in, source, maps, tmp_path / "out") == 0
    give(maps, k2=8)
    with pytest.raises(ValueError, match=r"other settings \(past_maps 1 map, \w+ -> 1 map, \w+\)"):
        go(stand_in, source, maps, tmp_path / "out")
    assert go(stand_in, source, maps, tmp_path / "out", overwrite=True) == 6
    assert ids(tmp_path / "out")["5"] == 8


# what is refused before anything is predicted


def test_a_map_of_another_size(tiny_model: Build, tmp_path: Path) -> None:
    source, maps, stand_in = clip(tmp_path / "in"), tmp_path / "maps", Tracking(tiny_model())
    write_kitti_step(maps / "5.png", np.zeros((31, 64), np.uint8), np.zeros((31, 64), np.int32))
    with pytest.raises(DataError, match=r"5\.png: expected 32x64 pixels \(height x width\) as its frame, found 31x64$"):
        go(stand_in, source, maps, tmp_path / "out")
    assert not stand_in.seen
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", [".", "panoptic/v", ".."])
def test_maps_and_results_in_one_folder(tiny_model: Build, tmp_path: Path, place: str) -> None:
    """Results must not replace the maps that they come from."""
    out = tmp_path / "deep" / "out"
    source, maps, stand_in = clip(tmp_path / "in"), give(out / place, k2=7), Tracking(tiny_model())
    with pytest.raises(ValueError, match=r": expected given maps outside of the output folder .*out$"):
        go(stand_in, source, maps, out)
    assert not stand_in.seen
