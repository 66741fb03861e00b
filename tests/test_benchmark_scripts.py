"""The benchmarks run on the package as it is; their figures are not looked at."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny_config

from pix2seq_d.build import build_model
from pix2seq_d.data.synthetic_videos import SyntheticVideos

BENCHMARKS = sorted((Path(__file__).resolve().parents[1] / "benchmarks").glob("*.py"))


def load(name: str) -> dict[str, Any]:
    (path,) = (p for p in BENCHMARKS if p.stem == name)
    return runpy.run_path(str(path), run_name=f"benchmark_{name}")


def test_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, speed = tiny_config(tmp_path), load("speed")
    speed["training"](config, 1)
    assert "| backward, clipping, AdamW |" in capsys.readouterr().out
    speed["inference"](build_model(config).eval(), np.zeros((*config.model.image_size, 3), np.uint8), 2, 1)
    assert "| 2 denoising steps |" in capsys.readouterr().out


@pytest.mark.parametrize("name", [path.stem for path in BENCHMARKS])
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        load(name)["main"]()
    assert "usage" in capsys.readouterr().out


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
