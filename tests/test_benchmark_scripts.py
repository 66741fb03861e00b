"""The benchmarks run on the package as it is; their figures are not looked at."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny_config

from pix2seq_d.build import build_model

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
