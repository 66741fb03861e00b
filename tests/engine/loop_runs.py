"""Runs of the loop on a tiny model and made-up batches, as the tests of trainer.py watch them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
from accelerate import Accelerator
from ema_pytorch import EMA
from torch import Tensor

from pix2seq_d.data.batch import Batch
from pix2seq_d.data.loaders import collate
from pix2seq_d.diffusion.loss import DiffusionLoss
from pix2seq_d.diffusion.schedule import CosineSchedule
from pix2seq_d.engine.checkpoint import Progress
from pix2seq_d.engine.ema import build_ema
from pix2seq_d.engine.optim import build_optimizer
from pix2seq_d.engine.runlog import RunLog
from pix2seq_d.engine.trainer import LoopSettings, TrainingLoss, fit
from pix2seq_d.models.pix2seq_d import Pix2SeqD

ROAD, CAR = 1, 14  # class codes


def sample(number: int) -> Batch:
    """A clip of road with one car (code 3) that stands elsewhere in each clip; images 32x64, masks 16x32."""
    generator = torch.Generator().manual_seed(number)
    classes = torch.full((1, 3, 16, 32), ROAD)
    left = 4 + 3 * (number % 6)
    classes[..., 6:12, left : left + 8] = CAR
    return Batch(
        frame=torch.randint(0, 256, (1, 3, 32, 64), dtype=torch.uint8, generator=generator),
        class_codes=classes,
        instance_codes=(classes == CAR) * 3,
        crowd=torch.zeros(1, 16, 32, dtype=torch.bool),
        present=torch.ones(1, 3, dtype=torch.bool),
        names=[f"s/{number:06d}"],
    )


def batches(size: int, *, first: int = 0) -> Iterator[Batch]:
    """Endless batches of samples 0, 1, 2, ..."""
    for k in count(first):
        yield collate([sample(k * size + row) for row in range(size)])


def training_loss(model: Pix2SeqD, **options: Any) -> TrainingLoss:
    return TrainingLoss(model, DiffusionLoss(CosineSchedule(), model.codec, target=model.target), **options)


class Run:
    """A run of `fit` on a model; `weights[k]` are those after step k."""

    def __init__(
        self,
        model: Pix2SeqD,
        data: Iterator[Batch],
        settings: LoopSettings,
        *,
        lr: Callable[[int], float] = lambda step: 1e-3,
        sgd: bool = False,
        log: RunLog | None = None,
        start: int = 0,
        **options: Any,
    ) -> None:
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=settings.accumulation)
        module = training_loss(model, **options)
        optimizer: torch.optim.Optimizer = build_optimizer(module, lr=1.0, betas=(0.9, 0.99), weight_decay=0.0)
        if sgd:
            optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
        self.model, self.settings = model, settings
        self.ema: EMA = build_ema(model, decay=0.9)
        self.weights = {start: self._copy()}
        self.validated: list[int] = []
        self.progress = Progress()
        wrapped, optimizer = accelerator.prepare(module, optimizer)
        fit(
            wrapped,
            data,
            optimizer,
            accelerator=accelerator,
            ema=self.ema,
            lr_schedule=lr,
            settings=settings,
            log=log,
            save=self._save,
            validate=self._validate,
            start=start,
            progress=self.progress,
        )

    def _save(self, step: int) -> None:
        self.weights[step] = self._copy()

    def _validate(self, step: int) -> None:
        self.validated.append(step)
        self.model.eval()

    def _copy(self) -> dict[str, Tensor]:
        return {k: v.clone() for k, v in self.model.state_dict().items()}

    def last(self) -> dict[str, Tensor]:
        return self.weights[max(self.weights)]
