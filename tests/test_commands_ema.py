"""`python -m pix2seq_d ema`: what it writes is a model that every other command loads, and its errors are one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_runs import files_below

from pix2seq_d import __main__ as entry
from pix2seq_d.engine.post_hoc import PowerAverages, write_snapshot
from pix2seq_d.models.pix2seq_d import Pix2SeqD

Build = Callable[..., Pix2SeqD]
Capture = pytest.CaptureFixture[str]
ALONE: Any = SimpleNamespace(is_main_process=True, num_processes=1)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny_model: Build) -> Path:
    """A run of 8 steps, in which every weight is the step's number; snapshots of every second."""
    folder, model = tmp_path_factory.mktemp("run"), tiny_model(num_steps=7)
    averages = PowerAverages(model, (0.05, 0.2))
    for step in range(1, 9):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(step)
        averages.update()
        if step % 2 == 0:
            write_snapshot(folder, step, averages, ALONE)
    model.save_pretrained(folder / "model")
    return folder


def ema(run_dir: Path, output: Path, *options: str) -> int:
    return entry.main(["ema", "--run", str(run_dir), "--output", str(output), *options])


def test_the_model_is_the_average(run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Width sqrt(2)/6 is gamma 1: step k of 6 counts (k^2 - (k-1)^2) / 36, and the mean of k is 161/36."""
    with caplog.at_level("INFO"):
        assert ema(run_dir, tmp_path / "out", "--sigma_rel", str(2**0.5 / 6), "--step", "6") == 0
    model = Pix2SeqD.from_pretrained(tmp_path / "out")
    assert model.num_steps == 7
    expected = sum(k * (2 * k - 1) for k in range(1, 7)) / 36
    assert expected == pytest.approx(161 / 36)
    for parameter in model.parameters():
        assert torch.allclose(parameter, torch.tensor(expected), rtol=0.02)  # of so few steps
    (message,) = [r.getMessage() for r in caplog.records if "width" in r.getMessage()]
    assert message.startswith(f"{tmp_path / 'out'}: width 0.235702 at step 6, from 3 snapshots, profile ")


def test_other_commands_load_it(run_dir: Path, tmp_path: Path) -> None:
    assert ema(run_dir, tmp_path / "out", "--sigma_rel", "0.2") == 0
    assert {"config.json", "model.safetensors"} <= files_below(tmp_path / "out")
    assert entry.main(["save", "--checkpoint", str(tmp_path / "out"), "--output", str(tmp_path / "small")]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sigma_rel", "0.3"], "--sigma_rel: expected a relative width in (0, 0.28], got 0.3"),
        (["--sigma_rel", "0.005"], "--sigma_rel: expected a width that the 4 snapshots up to step 8 can be mixed to"),
        (["--sigma_rel", "0.2", "--step", "9"], "expected a step with a snapshot, 2, 4, 6, 8, got 9"),
    ],
)
def test_errors_are_one_line(run_dir: Path, tmp_path: Path, capsys: Capture, options: list[str], message: str) -> None:
    assert ema(run_dir, tmp_path / "out", *options) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["checkpoints", "log.jsonl", "checkpoint.json"])
@pytest.mark.parametrize("command", ["ema", "save"])
def test_a_run_keeps_its_settings(run_dir: Path, tmp_path: Path, capsys: Capture, command: str, name: str) -> None:
    """A model among a run's files would be taken for the run's newest one."""
    (tmp_path / name).mkdir()
    (tmp_path / "config.json").write_text("those of the run")
    source = {"ema": ["--run", str(run_dir), "--sigma_rel", "0.2"], "save": ["--checkpoint", str(run_dir)]}[command]
    assert entry.main([command, *source, "--output", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error == f"error: --output: expected a folder for a model, got that of a run or checkpoint, {tmp_path}\n"
    assert files_below(tmp_path) == {"config.json"}
    assert (tmp_path / "config.json").read_text() == "those of the run"


def test_a_run_without_snapshots(tmp_path: Path, capsys: Capture) -> None:
    assert ema(tmp_path / "nothing", tmp_path / "out", "--sigma_rel", "0.1") == 1
    assert "nothing: expected a run with snapshots (train.post_hoc_ema), found none" in capsys.readouterr().err


def test_snapshots_of_another_model(run_dir: Path, tmp_path: Path, capsys: Capture, tiny_model: Build) -> None:
    (tmp_path / "post_hoc").symlink_to(run_dir / "post_hoc")
    tiny_model(encoder_dim=32, denoiser_dim=32).save_pretrained(tmp_path / "model")
    assert ema(tmp_path, tmp_path / "out", "--sigma_rel", "0.2") == 1
    assert "expected snapshots of its model, found those of another" in capsys.readouterr().err
