"""One process with batch 8, two with batch 4 each, and accumulation 2 x 4 are one training.

Tolerance: a gradient is a sum over 8 samples, and float32 sums in another order differ by about 1e-7 of it. Adam
divides by its size, so the difference of a weight stays such a share of the learning rate (1e-3), except where
a gradient is hardly more than its own rounding. Seen: losses 1e-7 of themselves apart, weights 1.2e-7 at most, 1e-9 on
average. Allowed, for processors that add otherwise: 1e-5, 1e-4 (a tenth of one step) and 1e-6. Noise that depends on
the micro-step, see the last test, moves them by 1.6e-2, 1.2e-2 and 1.1e-3.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from tiny_runs import PARITY_OPTIONS, accelerate_state, files_below, read_records, tiny_config  # noqa: F401
from torch import Tensor

from pix2seq_d import launch
from pix2seq_d.engine import trainer
from pix2seq_d.models.pix2seq_d import Pix2SeqD

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process with batch 8."""
    run_dir = tmp_path_factory.mktemp("alone")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    launch.run_training(tiny_config(run_dir, *PARITY_OPTIONS, "--train.batch_size", "8"))
    return run_dir


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two gloo processes with batch 4 each, with the report of two_processes.py."""
    run_dir = tmp_path_factory.mktemp("together")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    done = subprocess.run(
        [*launcher, str(ROOT / "tests" / "engine" / "two_processes.py"), str(run_dir)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return run_dir


def losses(run_dir: Path) -> list[float]:
    return [record["loss"] for record in read_records(run_dir) if record["kind"] == "train"]


def weights(run_dir: Path) -> dict[str, Tensor]:
    return dict(Pix2SeqD.from_pretrained(run_dir / "model").state_dict())


def differences(one: Path, other: Path) -> tuple[float, float, float]:
    """Largest relative difference of a loss, largest and mean difference of an averaged weight."""
    pairs = zip(losses(one), losses(other), strict=True)
    a, b = weights(one), weights(other)
    apart = torch.cat([(a[name] - b[name]).abs().flatten() for name in a])
    return max(abs(x - y) / x for x, y in pairs), float(apart.max()), float(apart.mean())


def check_same_training(one: Path, other: Path) -> None:
    loss, largest, mean = differences(one, other)
    assert loss < 1e-5
    assert largest < 1e-4
    assert mean < 1e-6


def test_two_processes_train_like_one(alone: Path, together: Path) -> None:
    assert len(losses(alone)) == 20
    check_same_training(alone, together)


def test_two_processes_validate_like_one(alone: Path, together: Path) -> None:
    """Three videos on two processes: every metric, but for a pixel here and there, and pictures of all of them."""
    one, two = (next(r for r in read_records(run) if r["kind"] == "validation") for run in (alone, together))
    assert one.keys() == two.keys()
    assert one["miou"] > 1e-3
    assert all(two[name] == pytest.approx(one[name], abs=1e-4) for name in one.keys() - {"kind", "step"})
    names = {"step-00000020.png", "step-00000020-denoising.png", "step-00000020.csv"}
    assert files_below(together / "samples") == files_below(alone / "samples") == names


def test_averages_samples_and_faults_of_two_processes(together: Path) -> None:
    report = json.loads((together / "report.json").read_text())
    assert report["processes"] == 2
    assert (together / "average-0").read_text() == (together / "average-1").read_text()
    names = [name for part in report["names"] for name in part]
    assert len(names) == len(set(names)) == 16, "an epoch of 16 clips: every one of them once"
    assert len(report["faults"]) == 2
    assert all("could not be written, earlier checkpoints are kept" in fault for fault in report["faults"])
    assert all("No space left on device" in fault for fault in report["faults"])
    assert not files_below(together / "failing")
    assert len(report["snapshot_faults"]) == 2
    assert all("step-00000001.safetensors: could not be written" in fault for fault in report["snapshot_faults"])
    for difference, whole, sharded in report["sharded"]:
        assert difference < 1e-6
        assert sharded == pytest.approx(whole, rel=1e-5)
        assert whole > 0.1


def test_gradients_are_exchanged_once_per_optimizer_step(together: Path) -> None:
    """Not in the first of two micro-steps."""
    exchanges = json.loads((together / "report.json").read_text())["exchanges"]
    assert len(exchanges) == 2
    assert all(first == 0 < last for first, last in exchanges)


def test_two_processes_write_one_snapshot(alone: Path, together: Path) -> None:
    """One file each, and averages within float16's rounding (2^-11 of a weight) of each other."""
    assert files_below(together / "post_hoc") == files_below(alone / "post_hoc") == {"step-00000020.safetensors"}
    one, two = (load_file(run / "post_hoc" / "step-00000020.safetensors") for run in (alone, together))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name].float(), two[name].float(), rtol=2**-10, atol=1e-4) for name in one)
    assert any(not torch.equal(one[f"0{name[1:]}"], one[name]) for name in one if name.startswith("1/"))


@pytest.mark.usefixtures("accelerate_state")
def test_accumulation_trains_like_one_batch(alone: Path, tmp_path: Path) -> None:
    options = "--train.batch_size 4 --train.accumulation 2".split()
    launch.run_training(tiny_config(tmp_path, *PARITY_OPTIONS, *options))
    check_same_training(alone, tmp_path)


@pytest.mark.usefixtures("accelerate_state")
def test_noise_by_micro_step_would_be_noticed(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerance is no blindfold: the samples of the second micro-step with noise and masks of the first."""
    original = trainer.step_generators
    monkeypatch.setattr(
        trainer, "step_generators", lambda settings, step, micro_step, *rest: original(settings, step, 0, *rest)
    )
    options = "--train.batch_size 4 --train.accumulation 2".split()
    launch.run_training(tiny_config(tmp_path, *PARITY_OPTIONS, *options))
    loss, _, mean = differences(alone, tmp_path)
    assert loss > 1e-2
    assert mean > 1e-4
