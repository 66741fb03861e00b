"""Settings and accidents at the edge of a training run: refused before it begins, or survived and named."""

from __future__ import annotations

import errno
import json
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny_runs import accelerate_state, tiny_config  # noqa: F401
from torch import nn

from pix2seq_d import build
from pix2seq_d.data.batch import Batch
from pix2seq_d.diffusion.loss import LossOutput
from pix2seq_d.engine.ema import build_ema
from pix2seq_d.engine.runlog import RunLog
from pix2seq_d.engine.trainer import LoopSettings, fit
from pix2seq_d.labels import LABEL_SPECS, LabelSpec
from pix2seq_d.launch import run_training

# refused


def test_a_run_that_would_keep_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^train.save_every: expected at least 1, got 0$"):
        run_training(tiny_config(tmp_path / "run", "--train.save_every", "0"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dataset", ["synthetic", "kitti-step", "camvid"])
def test_a_spec_without_any_class_of_the_dataset_is_refused(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fruit = LabelSpec("camvid", ("apple",), ((0, 0, 0),), ())
    monkeypatch.setitem(LABEL_SPECS, "fruit", LABEL_SPECS[build.LABEL_SPECS_OF[dataset]])
    monkeypatch.setitem(build.LABEL_SPECS_OF, dataset, "fruit")
    monkeypatch.setitem(LABEL_SPECS, "camvid", fruit)
    options = ["--data.dataset", dataset, "--data.label_spec", "camvid", "--data.root", str(tmp_path)]
    message = (
        rf"^data.label_spec: expected a spec that shares classes with data.dataset {dataset} \(fruit\), got 'camvid'$"
    )
    with pytest.raises(ValueError, match=message):
        run_training(tiny_config(tmp_path / "run", *options))


# the log


def test_numbers_that_are_not_finite_stay_json(tmp_path: Path) -> None:
    RunLog(tmp_path).write("train", 1, loss=0.5, grad_norm=float("inf"), lr=float("nan"))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)
    assert record == {"kind": "train", "step": 1, "loss": 0.5, "grad_norm": None, "lr": None}


def test_a_full_disk_names_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = RunLog(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"cannot write the log: No space left on device.*log\.jsonl") as caught:
        log.write("train", 1, loss=0.5)
    assert caught.value.errno == errno.ENOSPC


# accumulation


class _Slope(nn.Module):
    """Loss = weight, so that its gradient is 1 whatever the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch, generators: object, times: object = None, ramp: float = 1.0) -> LossOutput:
        return LossOutput(self.weight * 1.0, self.weight.detach()[None], torch.zeros(1))


def _batch() -> Batch:
    codes = torch.ones(1, 1, 2, 2, dtype=torch.long)
    present, crowd = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 2, 2, dtype=torch.bool)
    return Batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), codes, codes, crowd, present, ["s/000000"])


@pytest.mark.usefixtures("accelerate_state")
def test_accumulation_changed_on_resume_still_updates_after_whole_steps() -> None:
    """3 steps of 1 micro-step, then 1 step of 2: it moves by the mean of both gradients, 1 * lr, after the second."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    accelerator.step = 3  # what a checkpoint of the first run restores
    module = _Slope()
    wrapped, optimizer = accelerator.prepare(module, torch.optim.SGD(module.parameters(), lr=1.0))
    fit(
        wrapped,
        repeat(_batch()),
        optimizer,
        accelerator=accelerator,
        ema=build_ema(module, decay=0.9),
        lr_schedule=lambda step: 0.25,
        settings=LoopSettings(steps=4, batch_size=1, accumulation=2),
        log=None,
        save=lambda step: None,
        validate=lambda step: None,
        start=3,
    )
    assert module.weight.item() == pytest.approx(-0.25, rel=1e-4)
