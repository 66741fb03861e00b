"""A folder of frames to maps: what is written, what is kept, what stops it, and that nothing grows with the video."""

from __future__ import annotations

import errno
import json
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from predict_runs import SIZES, picture, refused, run, write_frames, written

from pix2seq_d import predict, result_files
from pix2seq_d.data import formats
from pix2seq_d.data.formats import DataError, read_image, read_kitti_step, write_image
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.result_files import AnimationSettings
from pix2seq_d.run_record import RunRecord
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor
from pix2seq_d.visualize import overview

Build = Callable[..., Pix2SeqD]


@pytest.fixture
def predictor(tiny_model: Build) -> VideoPredictor:
    return VideoPredictor(tiny_model(), num_steps=2, num_steps_next=1)


# what is written


def test_files_and_sizes(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "in")
    assert run(predictor, frames, tmp_path / "out", animation=AnimationSettings()) == 6
    names = [f"{s}/{k}.png" for s in SIZES for k in (8, 9, 10)]
    expected = {f"{kind}/{name}" for kind in ("panoptic", "overlay") for name in names}
    assert set(written(tmp_path / "out")) == {*expected, "overview/a.gif", "overview/b.gif", "inference.json"}
    for sequence, size in SIZES.items():
        class_map, instance_map = read_kitti_step(tmp_path / "out" / "panoptic" / sequence / "10.png")
        assert class_map.shape == instance_map.shape == size
        predictor.model.label_spec.check_class_ids(class_map)
        assert read_image(tmp_path / "out" / "overlay" / sequence / "10.png").shape == (*size, 3)
    record = json.loads((tmp_path / "out" / "inference.json").read_text())
    spec = predictor.model.label_spec.to_dict()
    assert record == {
        "settings": {"steps": 2},
        "label_spec": json.loads(json.dumps(spec)),
        "finished": ["a", "b"],
        "skipped": {},
    }


def test_maps_are_those_of_the_predictor_in_natural_order(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "in")
    run(predictor, frames, tmp_path / "out")
    for sequence, size in SIZES.items():
        predictor.reset()
        for k in range(3):
            expected = predictor.step(picture(size, seed=k))
            class_map, instance_map = read_kitti_step(tmp_path / "out" / "panoptic" / sequence / f"{8 + k}.png")
            assert np.array_equal(class_map, expected.class_map)
            assert np.array_equal(instance_map, expected.instance_map)


def test_two_runs_write_the_same_bytes(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "in")
    for name in ("one", "two"):
        run(predictor, frames, tmp_path / name, animation=AnimationSettings())
    assert written(tmp_path / "one") == written(tmp_path / "two")


def test_frames_in_the_folder_itself(predictor: VideoPredictor, tmp_path: Path) -> None:
    write_image(tmp_path / "clip" / "1.png", picture((32, 64)))
    assert run(predictor, tmp_path / "clip", tmp_path / "out") == 1
    assert (tmp_path / "out" / "panoptic" / "clip" / "1.png").is_file()


def test_frames_of_every_kind_of_png(predictor: VideoPredictor, tmp_path: Path) -> None:
    grey = picture((40, 70))[..., 0]
    kinds = {
        "16-bit": Image.fromarray(grey.astype(np.uint16) * 257),
        "rgba": Image.fromarray(np.dstack([grey, grey, grey, grey])),
        "grey": Image.fromarray(grey),
        "palette": Image.fromarray(np.dstack([grey] * 3)).convert("P", palette=Image.Palette.ADAPTIVE),
    }
    for name, image in kinds.items():
        (tmp_path / "in" / name).mkdir(parents=True)
        image.save(tmp_path / "in" / name / "0.png")
    assert run(predictor, tmp_path / "in", tmp_path / "out") == 4
    maps = {name: (tmp_path / "out" / "panoptic" / name / "0.png").read_bytes() for name in kinds}
    assert maps["16-bit"] == maps["rgba"] == maps["grey"]
    assert read_kitti_step(tmp_path / "out" / "panoptic" / "palette" / "0.png")[0].shape == (40, 70)


# earlier results


def stamps(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*.png")}


def test_finished_videos_are_kept_and_the_others_come_out_the_same(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames, out = write_frames(tmp_path / "in"), tmp_path / "out"
    run(predictor, frames, out)
    before, times = written(out), stamps(out)
    record = json.loads((out / "inference.json").read_text())
    (out / "inference.json").write_text(json.dumps({**record, "finished": ["a"]}))
    (out / "panoptic" / "b" / "9.png").unlink()
    assert run(predictor, frames, out) == 3
    assert written(out) == before
    assert {k: t for k, t in stamps(out).items() if "/a/" in k} == {k: t for k, t in times.items() if "/a/" in k}
    assert all(stamps(out)[k] > t for k, t in times.items() if "/b/" in k)
    assert run(predictor, frames, out) == 0


def test_a_finished_video_that_has_grown_or_lost_a_map_is_predicted_anew(
    predictor: VideoPredictor, tmp_path: Path
) -> None:
    frames, out = write_frames(tmp_path / "in"), tmp_path / "out"
    run(predictor, frames, out)
    write_image(frames / "a" / "11.png", picture(SIZES["a"]))
    assert run(predictor, frames, out) == 4
    (out / "panoptic" / "b" / "8.png").unlink()
    assert run(predictor, frames, out) == 3
    assert json.loads((out / "inference.json").read_text())["finished"] == ["a", "b"]


def interrupt_at(call: int, predictor: VideoPredictor) -> None:
    step, calls = predictor.step, []

    def interrupted(frame: np.ndarray) -> PanopticMap:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return step(frame)

    predictor.step = interrupted  # type: ignore[assignment,method-assign]


def test_a_run_that_is_cut_off_goes_on(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames, out = write_frames(tmp_path / "in"), tmp_path / "out"
    run(predictor, frames, tmp_path / "straight")
    interrupt_at(5, predictor)
    with pytest.raises(KeyboardInterrupt):
        run(predictor, frames, out)
    assert json.loads((out / "inference.json").read_text())["finished"] == ["a"]
    assert run(predictor, frames, out) == 3
    assert written(out) == written(tmp_path / "straight")


def test_stills_that_are_cut_off_go_on_image_by_image(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames, out = write_frames(tmp_path / "in"), tmp_path / "out"
    write_image(frames / "a" / "11.png", picture((50, 30)))
    assert run(predictor, frames, tmp_path / "straight", stills=True, animation=AnimationSettings()) == 7
    interrupt_at(6, predictor)
    with pytest.raises(KeyboardInterrupt):
        run(predictor, frames, out, stills=True)
    record = json.loads((out / "inference.json").read_text())
    assert record["settings"] == {"steps": 2, "stills": True}
    assert (record["finished"], record["skipped"]) == (["a/8", "a/9", "a/10", "a/11", "b/8"], {})
    (out / "panoptic" / "a" / "9.png").unlink()
    assert run(predictor, frames, out, stills=True) == 3
    assert written(out) == written(tmp_path / "straight")
    assert not (out / "overview").exists()
    with pytest.raises(ValueError, match=r"other settings \(stills True -> None\)"):
        run(predictor, frames, out)


def test_the_record_of_stills_is_written_now_and_then(
    predictor: VideoPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [], RunRecord.save

    def count(record: RunRecord) -> None:
        saved.append(len(record.finished))
        save(record)

    monkeypatch.setattr(RunRecord, "save", count)
    monkeypatch.setattr(predict, "SAVE_EVERY", 4)
    assert run(predictor, write_frames(tmp_path / "in"), tmp_path / "out", stills=True) == 6
    assert saved == [0, 4, 6]


def test_results_of_other_settings_are_refused(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames, out = write_frames(tmp_path / "in"), tmp_path / "out"
    run(predictor, frames, out)
    before = written(out)
    with pytest.raises(ValueError, match=r"other settings \(seed None -> 1, steps 2 -> 3\).* --overwrite") as caught:
        run(predictor, frames, out, settings={"steps": 3, "seed": 1})
    assert "\n" not in str(caught.value)
    assert written(out) == before
    assert run(predictor, frames, out, settings={"steps": 3, "seed": 1}, overwrite=True) == 6
    assert run(predictor, frames, out, settings={"steps": 3, "seed": 1}) == 0


def test_overwrite_loses_nothing_where_the_input_is_bad(predictor: VideoPredictor, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(predictor, write_frames(tmp_path / "in"), out)
    before = written(out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        run(predictor, tmp_path / "empty", out, overwrite=True)
    assert written(out) == before


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"settings": {}}', '{"settings": 3, "finished": []}', "\x00"])
def test_a_record_that_cannot_be_read(predictor: VideoPredictor, tmp_path: Path, record: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "inference.json").write_text(record)
    with pytest.raises(ValueError, match=r"inference\.json: not readable as the record of an earlier run"):
        run(predictor, write_frames(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out" / "inference.json").read_text() == record


# what stops it


@pytest.mark.parametrize("kind", ["empty", "missing", "file", "no pictures"])
def test_no_frames(predictor: VideoPredictor, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in"
    if kind == "file":
        source.write_text("x")
    elif kind != "missing":
        source.mkdir()
    if kind == "no pictures":
        (source / "notes.txt").write_text("x")
    assert str(source) in refused(predictor, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["text", "cut", "empty"])
def test_a_broken_frame_is_named_and_what_is_finished_stays(
    predictor: VideoPredictor, tmp_path: Path, kind: str
) -> None:
    frames, out = write_frames(tmp_path / "in"), tmp_path / "out"
    path = frames / "b" / "9.png"
    whole = path.read_bytes()
    path.write_bytes({"text": b"no picture", "cut": whole[: len(whole) // 2], "empty": b""}[kind])
    assert str(path) in refused(predictor, frames, out)
    assert {p.name for p in (out / "panoptic" / "a").iterdir()} == {"8.png", "9.png", "10.png"}
    assert not list(out.rglob("*partial*"))
    path.write_bytes(whole)
    assert run(predictor, frames, out) == 3


def test_frames_of_different_size_in_a_video(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "in")
    write_image(frames / "a" / "11.png", picture((41, 70)))
    assert refused(predictor, frames, tmp_path / "out") == (
        f"{frames / 'a' / '11.png'}: expected 40x70 pixels (height x width) as the frames before it, found 41x70"
    )


def test_two_frames_of_one_name(predictor: VideoPredictor, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "in")
    write_image(frames / "a" / "9.jpg", picture(SIZES["a"]))
    assert "expected one frame per name, found 2 called 9" in refused(predictor, frames, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file(predictor: VideoPredictor, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert str(tmp_path / "out") in refused(predictor, write_frames(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("place", [".", "out", "a/out"])
def test_an_output_folder_in_the_input_folder(predictor: VideoPredictor, tmp_path: Path, place: str) -> None:
    frames = write_frames(tmp_path / "in")
    before = written(frames)
    assert "outside of the input folder" in refused(predictor, frames, frames / place)
    assert written(frames) == before


def test_a_full_disk(predictor: VideoPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, out = write_frames(tmp_path / "in"), tmp_path / "out"
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).parent == out / "panoptic" / "b" and Path(target).name == "9.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(formats.os, "replace", full)
    message = refused(predictor, frames, out)
    assert "No space left on device" in message
    assert str(out / "panoptic" / "b" / "9.png") in message
    assert not list(out.rglob("*partial*"))
    assert json.loads((out / "inference.json").read_text())["finished"] == ["a"]
    monkeypatch.setattr(formats.os, "replace", replace)
    assert run(predictor, frames, out) == 3


# the animation


def frames_of(path: Path) -> tuple[int, tuple[int, int]]:
    with Image.open(path) as animation:
        return getattr(animation, "n_frames", 1), animation.size


def test_an_animation_ends_where_it_would_not_fit_in_memory(
    predictor: VideoPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = write_frames(tmp_path / "in", count=4)
    run(predictor, frames, tmp_path / "out", animation=AnimationSettings())
    count, (width, height) = frames_of(tmp_path / "out" / "overview" / "a.gif")
    assert count == 4
    monkeypatch.setattr(result_files, "MAX_HELD_BYTES", 3 * width * height - 1)
    run(predictor, frames, tmp_path / "less", animation=AnimationSettings())
    assert frames_of(tmp_path / "less" / "overview" / "a.gif") == (2, (width, height))
    assert len(written(tmp_path / "less" / "panoptic")) == 8


class Growing:
    """A stand-in whose frames show 4, 8, ... 19 classes, so that the legend of the overview grows."""

    def __init__(self, model: Pix2SeqD) -> None:
        self.model, self.frame_size, self.alive, self.most = model, None, weakref.WeakSet[Any](), 0

    def reset(self) -> None:
        self.count = 0

    def step(self, frame: np.ndarray) -> PanopticMap:
        self.count += 1
        classes = np.zeros(frame.shape[:2], np.uint8)
        classes[:, :19] = np.arange(19) % min(4 * self.count, 19)
        result = PanopticMap(classes, np.zeros(classes.shape, np.int32), np.ones(classes.shape, np.float32))
        self.alive.add(Held(result))
        self.most = max(self.most, len(self.alive))
        return result


class Held:
    """Lives as long as the class map of a result."""

    def __init__(self, result: PanopticMap) -> None:
        weakref.finalize(result.class_map, self.keep)

    def keep(self) -> None:
        """The finalizer holds this object until the map is gone."""


def test_pictures_with_more_classes_than_the_first(tiny_model: Build, tmp_path: Path) -> None:
    for k in range(5):
        write_image(tmp_path / "in" / "v" / f"{k}.png", picture((32, 640), seed=k))
    stand_in = Growing(tiny_model())
    run(stand_in, tmp_path / "in", tmp_path / "out", animation=AnimationSettings())
    stand_in.reset()
    heights = []
    for _ in range(5):
        maps = stand_in.step(picture((32, 640)))
        heights.append(
            overview(picture((32, 640)), maps.class_map, maps.instance_map, stand_in.model.label_spec).shape[0]
        )
    assert heights[0] < heights[-1]
    count, (_, height) = frames_of(tmp_path / "out" / "overview" / "v.gif")
    assert (count, height) == (5, heights[0])


def test_results_are_not_held(tiny_model: Build, tmp_path: Path) -> None:
    for k in range(6):
        write_image(tmp_path / "in" / "v" / f"{k}.png", picture((32, 64), seed=k))
    stand_in = Growing(tiny_model())
    run(stand_in, tmp_path / "in", tmp_path / "out", animation=AnimationSettings())
    assert 0 < stand_in.most <= 2


def test_the_predictor_holds_as_many_maps_as_it_looks_back(predictor: VideoPredictor) -> None:
    sizes = []
    for k in range(12):
        predictor.step(picture((40, 70), seed=k))
        sizes.append(len(predictor.memory))
    assert sizes[:3] == [1, 2, 2]
    assert set(sizes[2:]) == {2}
