"""Accidents on purpose: after each one the same command ends with the bytes of a run that was left in peace."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from faulty_runs import FAULTS, run
from tiny_runs import TINY_OPTIONS, equal, files_below, read_records

from pix2seq_d.engine.checkpoint import list_checkpoints
from pix2seq_d.models.pix2seq_d import Pix2SeqD

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--train.steps 30 --train.save_every 5 --train.threads 1 --train.lr_decay cosine --model.dropout 0.1 "
    "--train.keep_checkpoints 2 --validation.every 10 --validation.num_sequences 1 --validation.num_frames 2 "
    "--validation.num_steps 1 --validation.num_steps_next 1 --validation.best miou "
    "--train.post_hoc_ema [0.05,0.1] --train.post_hoc_every 5"
).split()
CODES = {"kill": -signal.SIGKILL, "disk": 1, "SIGTERM": 143, "SIGINT": 130, "none": 0}
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pix2seq_d.commands", "pix2seq_d.launch"])


def train(run_dir: Path, fault: str = "none", *options: str) -> None:
    """A run in a process of its own, which must end as the fault has it."""
    arguments = [*TINY_OPTIONS, *OPTIONS, "--train.output_dir", str(run_dir), *options]
    process = CONTEXT.Process(target=run, args=(fault, arguments))
    process.start()
    process.join(300)
    assert process.exitcode == CODES[fault.split()[0]], fault


def steps(run_dir: Path) -> list[int]:
    return [int(folder.name.removeprefix("step-")) for folder in list_checkpoints(run_dir)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 steps without a fault, with checkpoints every 5 and validations every 10."""
    run_dir = tmp_path_factory.mktemp("straight")
    train(run_dir)
    assert steps(run_dir) == [30, 25]
    return run_dir


def check_same_runs(one: Path, other: Path) -> None:
    """Weights, averages and their snapshots, optimizer, counts, best model, samples and log, bit for bit."""
    assert read_records(one) == read_records(other)
    assert files_below(one) == files_below(other)
    for name in files_below(one):
        a, b = one / name, other / name
        if name.endswith((".safetensors", ".png", ".csv")):
            assert a.read_bytes() == b.read_bytes(), name
        elif name.endswith((".bin", ".pkl")) and "random" not in name:
            assert equal(*(torch.load(path, weights_only=True) for path in (a, b))), name
        elif name.endswith("checkpoint.json"):
            assert len({json.dumps(json.loads(path.read_text())["progress"]) for path in (a, b)}) == 1


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "none"])
def test_a_run_survives(straight: Path, tmp_path: Path, fault: str) -> None:
    train(tmp_path, fault)
    assert steps(tmp_path), "an older checkpoint is there, whatever happened to the newest"
    assert not (tmp_path / "model").exists()
    train(tmp_path)
    check_same_runs(straight, tmp_path)


@pytest.mark.parametrize(("fault", "step"), [("SIGTERM at step 13", 14), ("SIGINT at step 13", 14)])
def test_a_signal_costs_no_step(tmp_path: Path, fault: str, step: int) -> None:
    """It comes when step 14 begins: that one is finished and saved."""
    train(tmp_path, fault)
    assert steps(tmp_path)[0] == step


def truncate(folder: Path) -> None:
    os.truncate(folder / "optimizer.bin", 1000)


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "custom_checkpoint_0.pkl").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "custom_checkpoint_0.pkl").write_bytes(content)


def lose_a_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def empty_the_manifest(folder: Path) -> None:
    (folder / "checkpoint.json").write_text("")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lose_a_file, empty_the_manifest])
def test_a_damaged_newest_checkpoint(straight: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    train(tmp_path, "kill -9 at step 13")
    assert steps(tmp_path) == [10, 5]
    damage(list_checkpoints(tmp_path)[0])
    train(tmp_path)
    check_same_runs(straight, tmp_path)


# processes


def torchrun(run_dir: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py"]
    options = *TINY_OPTIONS, *OPTIONS, "--train.cpu", "true", "--train.output_dir", str(run_dir), *options
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*command, *options], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_processes_stop_together_and_one_goes_on(straight: Path, tmp_path: Path) -> None:
    """SIGTERM reaches torchrun, which passes it on; one process with the same global batch ends with the same model.

    Tolerance: as in test_parity.py.
    """
    process = torchrun(tmp_path, "--train.batch_size", "1")
    wait_for(lambda: process.poll() is not None or bool(list_checkpoints(tmp_path)))
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) != 0
    reached = steps(tmp_path)[0]
    assert 5 <= reached < 30
    train(tmp_path)
    pairs = zip(*(Pix2SeqD.from_pretrained(folder / "model").state_dict().values() for folder in (straight, tmp_path)))
    apart = torch.cat([(a - b).abs().flatten() for a, b in pairs])
    assert float(apart.mean()) < 1e-6
    assert float(apart.max()) < 1e-4
    assert not [name for name in files_below(tmp_path) if "partial" in name]
