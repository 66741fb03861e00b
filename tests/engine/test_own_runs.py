"""Runs that train on own estimates and own past maps: the same for any number of processes, and when they resume.

A predicted map is a choice among codes: where rounding decides it, as it may where float32 sums are taken in another
order, one pixel of a past map differs, and with it a loss. Seen: no such pixel, losses 1e-7 of themselves apart.
Allowed: 1e-3. Noise that depends on the micro-step moves losses by 4.5e-3 within 12 steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY_OPTIONS, accelerate_state, files_below, read_records, tiny_config  # noqa: F401

from pix2seq_d import launch
from pix2seq_d.build import build_model, build_train_loader, build_training_loss
from pix2seq_d.engine import trainer
from pix2seq_d.engine.trainer import LoopSettings, TrainingLoss, ramp_at, step_generators

ROOT = Path(__file__).parents[2]
SWITCHES = (
    "--loss.self_aligned_rate 0.5 --loss.own_past_rate 0.5 --loss.own_past_steps 2 --loss.own_ramp [1,4] "
    "--loss.t_sampling stratified --model.self_cond true --loss.self_cond_rate 0.5 --model.dropout 0.1 "
    "--train.threads 1 --train.save_every 20"
).split()


def losses(run_dir: Path) -> list[float]:
    return [record["loss"] for record in read_records(run_dir) if record["kind"] == "train"]


# the ramp


@pytest.mark.parametrize(
    ("step", "ramp", "share"),
    [
        (0, (0, 0), 1),
        (0, (0, 4), 0),
        (1, (0, 4), 0.25),
        (4, (5, 5), 0),
        (5, (5, 5), 1),
        (10, (10, 20), 0),
        (15, (10, 20), 0.5),
        (20, (10, 20), 1),
        (99, (10, 20), 1),
    ],
)
def test_ramp(step: int, ramp: tuple[int, int], share: float) -> None:
    assert ramp_at(step, ramp) == share


@pytest.mark.usefixtures("accelerate_state")
def test_the_loop_ramps_the_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = TrainingLoss.forward

    def noted(self: TrainingLoss, batch: Any, generators: Any, times: Any, ramp: float) -> Any:
        seen.append(ramp)
        return forward(self, batch, generators, times, ramp)

    monkeypatch.setattr(TrainingLoss, "forward", noted)
    launch.run_training(tiny_config(tmp_path, "--train.steps", "4", "--loss.own_ramp", "[1,3]"))
    assert seen == [0, 0, 0.5, 1]


@pytest.mark.parametrize("ramp", [(3, 2), (-1, 2)])
def test_a_ramp_that_falls(ramp: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"^own_ramp: expected two steps, not negative and not falling"):
        LoopSettings(steps=1, batch_size=1, own_ramp=ramp)


# parity


def sample_losses(run_dir: Path, cut: Callable[[int], list[tuple[int, int]]]) -> list[float]:
    """Losses of the 8 samples of step 5, cut into batches of (micro-step, process)."""
    whole = tiny_config(run_dir, *SWITCHES, "--train.batch_size", "8")
    torch.manual_seed(0)
    model = build_model(whole)
    module = build_training_loss(whole, model).train()
    batch = next(iter(build_train_loader(whole, model, start=0, num_processes=1))).to("cpu")
    found = []
    places = cut(8)
    size = 8 // len(places)
    for number, (micro_step, process) in enumerate(places):
        settings = LoopSettings(steps=9, batch_size=size, accumulation=1 + max(m for m, _ in places))
        rows = slice(number * size, (number + 1) * size)
        values = {k: v[rows] for k, v in vars(batch).items()}
        place = micro_step, size, process, 1 + max(p for _, p in places)
        times = trainer.step_times(settings, 5, *place)
        found += module(type(batch)(**values), step_generators(settings, 5, *place), times).per_sample.tolist()
    return found


def test_a_sample_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    """8 samples as one batch, as two processes of 4, and as two micro-steps of two processes of 2."""
    one = sample_losses(tmp_path, lambda size: [(0, 0)])
    assert sample_losses(tmp_path, lambda size: [(0, 0), (0, 1)]) == pytest.approx(one, rel=1e-3)
    assert sample_losses(tmp_path, lambda size: [(0, 0), (0, 1), (1, 0), (1, 1)]) == pytest.approx(one, rel=1e-3)
    assert len(set(one)) == 8


@pytest.mark.usefixtures("accelerate_state")
def test_accumulation_trains_like_one_batch(tmp_path: Path) -> None:
    for name, options in {
        "whole": "--train.batch_size 8",
        "cut": "--train.batch_size 4 --train.accumulation 2",
    }.items():
        launch.run_training(tiny_config(tmp_path / name, *SWITCHES, "--train.steps", "6", *options.split()))
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("accelerate_state")
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """Gradients are exchanged as ever, although each process evaluates the model more often, and not equally so."""
    launch.run_training(tiny_config(tmp_path / "alone", *SWITCHES, "--train.steps", "20", "--train.batch_size", "8"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = ["--train.steps", "20", "--train.batch_size", "4", "--train.cpu", "true"]
    command = [*launcher, "train.py", *TINY_OPTIONS, "--train.output_dir", str(tmp_path / "two"), *SWITCHES, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "two")) == 20
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "alone"), rel=1e-3)


# resuming


class Killed(BaseException):
    pass


@pytest.mark.usefixtures("accelerate_state")
def test_a_resumed_run_equals_the_straight_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """7 steps, an end without warning, and 6 more against 13 steps: every record and every weight, bit for bit."""
    options = [*SWITCHES, "--train.steps", "13", "--train.save_every", "7"]
    straight, cut_off = (tiny_config(tmp_path / name, *options) for name in ("straight", "cut"))
    launch.run_training(straight)
    set_lr, count = trainer.set_lr, [0]

    def until_seven(optimizer: torch.optim.Optimizer, lr: float) -> None:
        count[0] += 1
        if count[0] > 7:
            raise Killed
        set_lr(optimizer, lr)

    monkeypatch.setattr(trainer, "set_lr", until_seven)
    with pytest.raises(Killed):
        launch.run_training(cut_off)
    monkeypatch.setattr(trainer, "set_lr", set_lr)
    launch.run_training(cut_off)
    assert read_records(tmp_path / "straight") == read_records(tmp_path / "cut")
    assert len(losses(tmp_path / "cut")) == 13
    weights = [name for name in files_below(tmp_path / "straight") if name.endswith(".safetensors")]
    assert len(weights) >= 3
    for name in weights:
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name


@pytest.mark.usefixtures("accelerate_state")
def test_each_switch_changes_the_training(tmp_path: Path) -> None:
    """A switch that is off, by its rate or because its ramp has not begun, leaves every loss as it was."""
    runs = {
        "plain": "",
        "before": "--loss.self_aligned_rate 1 --loss.own_ramp [9,9]",
        "aligned": "--loss.self_aligned_rate 1",
        "past": "--loss.own_past_rate 1",
        "steps": "--loss.own_past_rate 1 --loss.own_past_steps 1",
    }
    found = {}
    for name, options in runs.items():
        options += " --train.lr 1e-2 --loss.past_dropout 0 --loss.past_dropout_all 0"
        launch.run_training(tiny_config(tmp_path / name, *options.split()))
        found[name] = tuple(losses(tmp_path / name))
    assert found["before"] == found["plain"]
    assert len(set(found.values())) == 4
