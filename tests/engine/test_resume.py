"""A run that is cut off and resumed equals the straight one; two processes make one run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY_OPTIONS, accelerate_state, equal, files_below, read_records, tiny_config  # noqa: F401

from pix2seq_d import launch
from pix2seq_d.engine import trainer
from pix2seq_d.engine.checkpoint import list_checkpoints
from pix2seq_d.models.pix2seq_d import Pix2SeqD

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    pass


@pytest.mark.usefixtures("accelerate_state")
def test_a_resumed_run_equals_the_straight_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 steps against 7 steps, an end without warning, and a resume from step 5; dropout included."""
    options = "--train.steps 12 --train.save_every 5 --model.dropout 0.1 --train.lr_decay cosine".split()
    straight = tiny_config(tmp_path / "straight", *options)
    cut_off = tiny_config(tmp_path / "cut", *options)
    launch.run_training(straight)

    def until_seven(optimizer: torch.optim.Optimizer, lr: float, *, count: list[int] = [0]) -> None:  # noqa: B006
        count[0] += 1
        if count[0] > 7:
            raise Killed
        set_lr(optimizer, lr)

    set_lr = trainer.set_lr
    monkeypatch.setattr(trainer, "set_lr", until_seven)
    with pytest.raises(Killed):
        launch.run_training(cut_off)
    assert steps(tmp_path / "cut") == [5]
    assert [record["step"] for record in read_records(tmp_path / "cut")] == list(range(1, 8))
    monkeypatch.setattr(trainer, "set_lr", set_lr)
    launch.run_training(cut_off)
    check_same_runs(tmp_path / "straight", tmp_path / "cut")


def check_same_runs(one: Path, other: Path) -> None:
    assert read_records(one) == read_records(other)
    assert [r["step"] for r in read_records(one)] == list(range(1, 13))
    assert files_below(one) == files_below(other)
    assert steps(one) == [12, 10]
    for name in files_below(one):
        a, b = one / name, other / name
        if name.endswith(".safetensors"):
            assert a.read_bytes() == b.read_bytes(), name
        elif name.endswith((".bin", ".pkl")) and "random" not in name:
            assert equal(*(torch.load(path, weights_only=True) for path in (a, b))), name


def steps(run_dir: Path) -> list[int]:
    return [int(folder.name.removeprefix("step-")) for folder in list_checkpoints(run_dir)]


# processes


def train(run_dir: Path, *options: str) -> list[str]:
    return [sys.executable, "train.py", *TINY_OPTIONS, "--train.output_dir", str(run_dir), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL somewhere after the second checkpoint; the rerun ends with the bytes of a run that was left in peace."""
    options = "--train.steps 40 --train.save_every 4 --train.keep_checkpoints 2 --train.threads 1".split()
    run(train(tmp_path / "straight", *options))
    process = subprocess.Popen(
        train(tmp_path / "cut", *options), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while len(list_checkpoints(tmp_path / "cut")) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = steps(tmp_path / "cut")[0]
    assert 8 <= reached < 40
    assert not (tmp_path / "cut" / "model").exists()
    assert f"at step {reached}" in run(train(tmp_path / "cut", *options))
    assert read_records(tmp_path / "straight") == read_records(tmp_path / "cut")
    assert files_below(tmp_path / "straight") == files_below(tmp_path / "cut")
    for name in files_below(tmp_path / "straight"):
        if name.endswith((".safetensors", "model/config.json")):
            assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("resume", [False, True])
def test_two_processes(tmp_path: Path, resume: bool) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = "--validation.every 3 --validation.num_sequences 3 --validation.num_frames 2 --train.cpu true".split()
    if resume:
        run([*launcher, *train(tmp_path, *options, "--train.save_every", "2")[1:]])
        for path in list_checkpoints(tmp_path)[0].rglob("*"):
            if path.name == "checkpoint.json":
                path.unlink()
    run([*launcher, *train(tmp_path, *options)[1:]])
    records = read_records(tmp_path)
    assert [(r["kind"], r["step"]) for r in records] == [("train", 1), ("train", 2), ("train", 3), ("validation", 3)]
    assert steps(tmp_path) == ([3, 2] if resume else [3])
    assert (tmp_path / "samples" / "step-00000003.png").is_file()
    assert not [name for name in files_below(tmp_path) if "partial" in name]
    Pix2SeqD.from_pretrained(tmp_path / "model")
