"""The benchmarks run on the package as it is; their figures are not looked at."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_config

from pix2seq_d.build import build_model, build_train_loader
from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.video.step_grid import read_step_grid, write_step_grid
from pix2seq_d.video.tracker import VideoPredictor

BENCHMARKS = sorted((Path(__file__).resolve().parents[1] / "benchmarks").glob("*.py"))


@pytest.fixture(autouse=True)
def as_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python puts the folder of a script into its path: benchmarks share what they have in common."""
    monkeypatch.syspath_prepend(BENCHMARKS[0].parent)


def load(name: str) -> dict[str, Any]:
    (path,) = (p for p in BENCHMARKS if p.stem == name)
    return runpy.run_path(str(path), run_name=f"benchmark_{name}")


def test_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, speed = tiny_config(tmp_path), load("speed")
    speed["training"](config, 1)
    assert "| backward, clipping, AdamW |" in capsys.readouterr().out
    speed["inference"](build_model(config).eval(), np.zeros((*config.model.image_size, 3), np.uint8), 2, 1)
    assert "| 2 denoising steps |" in capsys.readouterr().out


def test_reuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run checks that the naive network predicts the same, and costs the sum of the parts."""
    config = tiny_config(tmp_path, "--sampling.num_steps", "3", "--sampling.num_steps_next", "2")
    load("reuse")["run"](config, (40, 70), 1, 2)
    printed = capsys.readouterr().out
    assert "| keys and values of cross-attention | 0.00 | 1 | 2 |" in printed
    assert "| later frame, default steps | 2 |" in printed
    assert "CPU s for 2 steps, times 50) | 100 |" in printed


def test_reuse_sees_a_network_that_differs(tmp_path: Path) -> None:
    reuse = load("reuse")
    model = reuse["enliven"](build_model(tiny_config(tmp_path)).eval())
    naive = reuse["naive_model"](model)
    assert reuse["compare"](model, naive) < 1e-5
    for part in ("stem.weight", "layers.0.cross_attention.key_value.weight"):
        other = reuse["naive_model"](model)
        with torch.no_grad():
            dict(other.denoiser.named_parameters())[part].mul_(1.1)
        assert reuse["compare"](model, other) > 1e-4, part


def test_reuse_times_frames_without_speckles(tmp_path: Path) -> None:
    reuse = load("reuse")
    model = reuse["enliven"](build_model(tiny_config(tmp_path)).eval())
    reuse["calm"](model)
    result = VideoPredictor(model, num_steps=2).step(np.zeros((*model.image_size, 3), np.uint8))
    assert np.unique(result.class_map).tolist() == [0]
    assert not result.instance_map.any()


@pytest.mark.parametrize("frames", ["first", "later", "both"])
def test_step_grid(
    frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights whose error rises with the noise
        model = load("reuse")["enliven"](build_model(tiny_config(tmp_path)))
    model.save_pretrained(tmp_path / "model")
    arguments = (
        f"--checkpoint {tmp_path}/model --num_clips 2 --num_times 3 --frames {frames} --output {tmp_path}/g.json"
    )
    monkeypatch.setattr("sys.argv", ["step_grid", *arguments.split()])
    load("step_grid")["main"]()
    assert capsys.readouterr().out.count("\n| 0.500 | ") == 1
    assert len(read_step_grid(tmp_path / "g.json")) == 33


def test_errors_by_time(tmp_path: Path) -> None:
    """Past maps show, the noise is the same at all times, and all samples are there."""
    config, script = tiny_config(tmp_path), load("step_grid")
    model = load("reuse")["enliven"](build_model(config).eval())
    batch = next(iter(build_train_loader(config, model, start=0, num_processes=1))).to("cpu")
    times = np.array([0.0, 0.5, 1.0])
    first, later = (script["errors_by_time"](model, batch, times, frames=kind) for kind in ("first", "later"))
    assert first.shape == (3, len(batch))
    assert np.array_equal(script["errors_by_time"](model, batch, times[1:], frames="first"), first[1:])
    assert not np.allclose(first, later, rtol=1e-3)


@pytest.mark.parametrize("name", [path.stem for path in BENCHMARKS])
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        load(name)["main"]()
    assert "usage" in capsys.readouterr().out


def test_quality_tradeoff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path, "--sampling.num_steps", "1", "--sampling.num_steps_next", "1")
    build_model(config).save_pretrained(tmp_path / "model")
    write_step_grid(tmp_path / "grid.json", (1, 0.8, 0), {})
    options = (
        f"--checkpoint {tmp_path}/model --tradeoff --num_sequences 1 --num_frames 2 --step_grid {tmp_path}/grid.json"
    )
    monkeypatch.setattr("sys.argv", ["quality", *options.split()])
    quality = load("quality")
    quality["main"].__globals__["TRADEOFF"].update(num_steps=(1, 2), num_steps_next=(1,))
    quality["main"]()
    printed = capsys.readouterr().out
    names = [line.split(" | ")[0] for line in printed.splitlines() if "steps, td" in line]
    row, pairs = "| renoise, {}, {} steps, td 2{}", [(1, 1, ", codes"), (1, 1, ""), (1, 1, ""), (2, 1, ""), (1, 1, "")]
    assert names == [row.format(*pair) for pair in pairs] + [
        row.format(1, 1, last) for last in (", warm 0.8", ", 2 samples", ", 4 samples")
    ]
    assert printed.count("| knee |") == 2


def test_knee() -> None:
    """Costs 1, 2, 3, 11, qualities 0, 7, 9, 10: the second point lies 0.7 - 0.1 above the line, the third 0.9 - 0.2."""
    knee = load("quality")["knee"]
    assert knee([(1, 0), (2, 7), (3, 9), (11, 10)]) == 2
    assert knee([(0, 0), (1, 8), (2, 7), (3, 10)]) == 1  # what another step loses does not count
    assert knee([(5, 1)]) == 0


def test_tracking_compares_every_method(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tracking = load("tracking")
    arguments = "--num_sequences 1 --num_frames 6 --mistakes all --methods".split()
    monkeypatch.setattr("sys.argv", ["tracking", *arguments, *tracking["METHODS"]])
    tracking["main"]()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == list(tracking["METHODS"])


def test_tracking_endures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["tracking", "--endurance", "5"])
    load("tracking")["main"]()
    assert len(capsys.readouterr().out.splitlines()) == 2 + 5


def test_uncertainty_compares_segments() -> None:
    """Car 1 has 3 of the 4 pixels of car 7: a match. Road has 2 of 4: not above 1/2, so all of its pixels are wrong.

    Car 2 lies on road: false. Car 3 lies where nothing is labelled: neither false nor right.
    """
    road, car = 0, 13 << 16
    truth = np.array([[road, road, road, car + 7, car + 7, car + 7, car + 7, 255 << 16]])
    pred = np.array([[road, road, car + 2, road, car + 1, car + 1, car + 1, car + 3]])
    wrong, false = load("uncertainty")["compare"](pred, truth, truth < 255 << 16)
    assert wrong[0, :7].tolist() == [True, True, True, True, False, False, False]
    assert false == {road, car + 2}


def test_uncertainty_measures_and_draws(tmp_path: Path) -> None:
    module = load("uncertainty")
    videos = SyntheticVideos(split="val", num_sequences=1, num_frames=2, height=32, width=64)
    model = build_model(tiny_config(tmp_path)).eval()
    results = {n: module["measure"](videos, model, n, 0) for n in (1, 2)}
    assert [len(module["doubt_rows"](n, found)) for n, found in results.items()] == [3, 8]
    assert all(found["calibration"]["num_frames"] == 2 for found in results.values())
    assert module["draw"](results).shape[2] == 3
