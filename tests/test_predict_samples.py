"""Several samples of every frame: what is written beside the maps, what a run that goes on keeps, what is removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from predict_runs import SIZES, picture, run, write_frames, written

from pix2seq_d import __main__ as entry
from pix2seq_d.data.formats import read_kitti_step, read_png
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.result_files import read_segments
from pix2seq_d.video.known import KnownMap
from pix2seq_d.video.tracker import VideoPredictor

Build = Callable[..., Pix2SeqD]


def predictor(tiny_model: Build, *, num_samples: int = 2, seed: int = 0) -> VideoPredictor:
    return VideoPredictor(tiny_model(), num_steps=2, num_steps_next=1, num_samples=num_samples, seed=seed)


def test_files_say_what_the_predictor_says(tiny_model: Build, tmp_path: Path) -> None:
    drawn, out = predictor(tiny_model, num_samples=3), tmp_path / "out"
    run(drawn, write_frames(tmp_path / "in", 2), out)
    for sequence, size in SIZES.items():
        drawn.reset()
        for k in range(2):
            expected, name = drawn.step(picture(size, seed=k)), f"{sequence}/{8 + k}"
            assert expected.uncertainty is not None
            class_map, instance_map = read_kitti_step(out / f"panoptic/{name}.png")
            assert np.array_equal(class_map, expected.class_map)
            values = read_png(out / f"uncertainty/{name}.png", kinds=("RGB",))
            assert np.array_equal(values[..., 0], np.rint(255 * expected.uncertainty.class_entropy))
            assert np.array_equal(values[..., 1], np.rint(255 * expected.uncertainty.instance_disagreement))
            segments = read_segments(out / f"segments/{name}.json")
            assert sum(s["area"] for s in segments) == class_map.size
            found = [(s["class_id"], s["instance_id"]) for s in segments]
            assert found == [(s["label_id"], s["instance_id"]) for s in expected.segments_info]
            assert [s["agreement"] for s in segments] == [round(s["agreement"], 4) for s in expected.segments_info]
            for class_id, instance_id in found:
                assert ((class_map == class_id) & (instance_map == instance_id)).any()


def test_a_run_that_is_cut_off_goes_on(tiny_model: Build, tmp_path: Path) -> None:
    frames, drawn = write_frames(tmp_path / "in", 2), predictor(tiny_model)
    run(drawn, frames, tmp_path / "whole")
    whole = (frames / "b" / "9.png").read_bytes()
    (frames / "b" / "9.png").write_text("x")
    with pytest.raises(ValueError, match=r"9\.png"):
        run(drawn, frames, tmp_path / "out")
    (frames / "b" / "9.png").write_bytes(whole)
    assert run(drawn, frames, tmp_path / "out") == 2
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def test_a_skipped_frame_loses_all_its_files(tiny_model: Build, tmp_path: Path) -> None:
    frames, drawn, out = write_frames(tmp_path / "in", 2), predictor(tiny_model), tmp_path / "out"
    run(drawn, frames, out)
    assert len([p for p in written(out) if "/a/9." in f"/{p}"]) == 4
    (frames / "a" / "9.png").write_bytes(b"")
    run(drawn, frames, out, on_error="skip", overwrite=True)
    assert not [p for p in written(out) if "/a/9." in f"/{p}"]


def test_one_sample_after_several_leaves_nothing_of_them(tiny_model: Build, tmp_path: Path) -> None:
    frames, out = write_frames(tmp_path / "in", 2), tmp_path / "out"
    run(predictor(tiny_model), frames, out)
    run(predictor(tiny_model, num_samples=1), frames, out, overwrite=True)
    run(predictor(tiny_model, num_samples=1), frames, tmp_path / "alone")
    assert written(out) == written(tmp_path / "alone")


def test_the_command(tiny_model: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames, out = write_frames(tmp_path / "in", 1), tmp_path / "out"
    tiny_model().save_pretrained(tmp_path / "model")

    def infer(num_samples: int) -> int:
        places = ["--input", frames, "--output_folder", out, "--checkpoint", tmp_path / "model", "--device", "cpu"]
        options = ["--num_steps", 1, "--animation", "none", "--report", "--num_samples", num_samples]
        return entry.main([str(a) for a in ("infer", *places, *options)])

    assert infer(2) == 0
    assert json.loads((out / "inference.json").read_text())["settings"]["num_samples"] == 2
    assert {"uncertainty/a/8.png", "segments/a/8.json", "confidence/a/8.png"} <= set(written(out))
    assert '"uncertainty-R"' in (out / "report.html").read_text()
    assert infer(3) == 1
    assert "holds results of other settings (num_samples 2 -> 3)" in capsys.readouterr().err
    assert infer(0) == 1
    assert "num_samples: expected at least 1, got 0" in capsys.readouterr().err.splitlines()[-1]


def test_stills(tiny_model: Build, tmp_path: Path) -> None:
    run(predictor(tiny_model), write_frames(tmp_path / "in", 2), tmp_path / "out", stills=True)
    assert {p.name for p in (tmp_path / "out/segments/a").iterdir()} == {"8.json", "9.json"}


def test_a_frame_that_is_known_is_certain(tiny_model: Build) -> None:
    drawn, frame = predictor(tiny_model), picture((30, 50))
    told = KnownMap(np.full((30, 50), 13), np.repeat([4, 5], 25)[None].repeat(30, axis=0))
    drawn.step(frame)
    known = drawn.step(frame, known=told)
    assert known.uncertainty is not None
    assert not known.uncertainty.class_entropy.any()
    assert not known.uncertainty.instance_disagreement.any()
    assert [s["agreement"] for s in known.segments_info] == [1, 1]
