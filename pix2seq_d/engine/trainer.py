"""The training loop: nothing is built here. B batch, L maps of a clip, G code groups, h w mask size.

All randomness of a step is a function of (seed, step, position in the global batch), never of earlier steps, so a
resumed run equals the straight one and nothing random has to be saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from ema_pytorch import EMA
from torch import Tensor, nn
from tqdm.auto import tqdm

from pix2seq_d.data.batch import Batch
from pix2seq_d.diffusion.loss import DiffusionLoss, LossOutput, inverse_area_weight
from pix2seq_d.engine.optim import set_lr
from pix2seq_d.engine.runlog import RunLog
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.conditioning import drop_past


class TrainingLoss(nn.Module):
    """Batch -> loss as one module, so that the distributed wrapper sees a single forward.

    Args:
        model: the model to train.
        loss: the diffusion loss.
        weight_power: p of the inverse-area pixel weight.
        past_dropout: probability of nulling each past map.
        past_dropout_all: probability of nulling all past maps of a sample.
    """

    def __init__(
        self,
        model: Pix2SeqD,
        loss: DiffusionLoss,
        *,
        weight_power: float = 0.2,
        past_dropout: float = 0.15,
        past_dropout_all: float = 0.1,
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.weight_power = weight_power
        self.past_dropout, self.past_dropout_all = past_dropout, past_dropout_all

    def forward(self, batch: Batch, generators: Sequence[torch.Generator]) -> LossOutput:
        """Loss of a batch; one CPU generator per sample."""
        groups = [batch.class_codes, batch.instance_codes][: len(self.model.codec.group_bits)]
        codes = torch.stack(groups, 2)  # (B, L, G, h, w)
        present = drop_past(
            batch.present[:, :-1], rate=self.past_dropout, rate_all=self.past_dropout_all, generators=generators
        )
        cond = self.model.condition(batch.frame.float() / 255, codes[:, :-1], present)
        target = codes[:, -1]  # (B, G, h, w)
        x0 = self.model.codec.encode(target)
        weight = self._pixel_weight(batch)[:, : target.shape[1]]
        return self.loss(self.model.denoiser, x0, target, cond, weight, generator=generators)

    def _pixel_weight(self, batch: Batch) -> Tensor:
        """(B, 2, h, w): inverse area, 0 on void; the instance code of crowds is unknown and carries no loss."""
        weight = inverse_area_weight(batch.class_codes[:, -1], batch.instance_codes[:, -1], self.weight_power)
        return torch.stack([weight, weight * ~batch.crowd], 1)


@dataclass(frozen=True)
class LoopSettings:
    """Numbers of the loop.

    Attributes:
        steps: optimizer steps of the whole run.
        batch_size: samples per process and micro-step.
        accumulation: micro-steps per optimizer step.
        clip_norm: gradient norm limit.
        seed: of noise and dropout.
        log_every, save_every, validate_every: steps between log lines, checkpoints and validations; 0 = never.
    """

    steps: int
    batch_size: int
    accumulation: int = 1
    clip_norm: float = 1.0
    seed: int = 0
    log_every: int = 10
    save_every: int = 1000
    validate_every: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "seed", "log_every", "save_every", "validate_every"):
            least = 1 if name in ("steps", "batch_size", "accumulation") else 0
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected a positive number, got {self.clip_norm}")


def fit(
    module: nn.Module,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    accelerator: Accelerator,
    ema: EMA,
    lr_schedule: Callable[[int], float],
    settings: LoopSettings,
    log: RunLog | None,
    save: Callable[[int], Any],
    validate: Callable[[int], Any],
    start: int = 0,
) -> None:
    """Trains until `settings.steps` optimizer steps are done.

    Args:
        module: prepared TrainingLoss.
        batches: endless batches of this process, the first one being that of micro-step `start * accumulation`.
        optimizer: prepared.
        accelerator: of all prepared objects, with `gradient_accumulation_steps` as in `settings`.
        ema: average of the unwrapped model.
        lr_schedule: step -> learning rate.
        settings: numbers of the loop.
        log: where records go; None on other processes than the main one.
        save: called with the number of steps done, on every process, every `save_every` steps and at the end.
        validate: the same every `validate_every` steps and at the end.
        start: optimizer steps done before.

    Raises:
        FloatingPointError: a loss that is not finite, naming the step and the samples.
    """
    module.train()
    accelerator.step = start * settings.accumulation  # restored, it counts micro-steps of the accumulation of before
    meter, quiet = Meter(), not accelerator.is_main_process
    with tqdm(total=settings.steps, initial=start, disable=quiet, unit="step", dynamic_ncols=True) as bar:
        for step in range(start, settings.steps):
            set_lr(optimizer, lr_schedule(step))
            for micro_step in range(settings.accumulation):
                with meter.waiting():
                    batch = next(batches).to(accelerator.device)
                with accelerator.accumulate(module):
                    generators = step_generators(settings, step, micro_step, len(batch), accelerator.process_index)
                    torch.manual_seed(generators[0].initial_seed())  # dropout draws from the global stream
                    output = module(batch, generators)
                    _check_finite(output.loss, step, batch)
                    accelerator.backward(output.loss)
                    if accelerator.sync_gradients:
                        grad_norm = accelerator.clip_grad_norm_(module.parameters(), settings.clip_norm)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                meter.add(float(output.loss.detach()), len(batch) * accelerator.num_processes)
            ema.update()
            done = step + 1
            bar.update()
            if log is not None and settings.log_every and done % settings.log_every == 0:
                record = meter.read() | {"lr": lr_schedule(step), "grad_norm": float(grad_norm)}
                log.write("train", done, **record)
                bar.set_postfix(loss=f"{record['loss']:.4f}", frames_per_s=f"{record['frames_per_s']:.1f}")
            if _due(done, settings.save_every, settings.steps):
                save(done)
            if _due(done, settings.validate_every, settings.steps):
                validate(done)
                module.train()
                meter.reset()


class Meter:
    """Running averages between two log lines."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts anew."""
        self.losses: list[float] = []
        self.frames, self.waited, self.since = 0, 0.0, time.perf_counter()

    def add(self, loss: float, frames: int) -> None:
        """Counts one micro-step."""
        self.losses.append(loss)
        self.frames += frames

    def waiting(self) -> _Stopwatch:
        """Context whose time counts as waiting for data."""
        return _Stopwatch(self)

    def read(self) -> dict[str, float]:
        """loss, frames_per_s and data_wait (share of the time) since the last call."""
        elapsed = time.perf_counter() - self.since
        values = {
            "loss": float(np.mean(self.losses)),
            "frames_per_s": self.frames / elapsed,
            "data_wait": self.waited / elapsed,
        }
        self.reset()
        return values


class _Stopwatch:
    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def __enter__(self) -> None:
        self.begin = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.meter.waited += time.perf_counter() - self.begin


def step_generators(
    settings: LoopSettings, step: int, micro_step: int, batch_size: int, process_index: int
) -> list[torch.Generator]:
    """One CPU generator per sample, seeded by (seed, step, position of the sample in the step's global batch).

    Accelerate deals whole batches to the processes in turn, so process p's micro-step m is batch `m * processes + p`
    of the data order; the position only has to be unique, not contiguous: (micro_step, process, row).
    """
    keys = ([settings.seed, step, micro_step, process_index, row] for row in range(batch_size))
    seeds = (int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1) for key in keys)
    return [torch.Generator().manual_seed(s) for s in seeds]


def _check_finite(loss: Tensor, step: int, batch: Batch) -> None:
    if not bool(torch.isfinite(loss.detach())):
        raise FloatingPointError(f"step {step}: loss is {float(loss.detach())} on {', '.join(batch.names)}")


def _due(done: int, every: int, steps: int) -> bool:
    return every > 0 and (done % every == 0 or done == steps)
