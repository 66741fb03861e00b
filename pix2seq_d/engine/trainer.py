"""The training loop: nothing is built here. B batch, L maps of a clip, G code groups, h w mask size.

All randomness of a step is a function of (seed, step, position in the global batch), never of earlier steps nor of how
that batch is cut into processes and micro-steps, so a resumed run equals the straight one, on any number of processes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from ema_pytorch import EMA
from torch import Tensor, nn
from tqdm.auto import tqdm

from pix2seq_d.data.batch import Batch
from pix2seq_d.diffusion.loss import DiffusionLoss, LossOutput, inverse_area_weight, stratified_times
from pix2seq_d.engine.checkpoint import Progress
from pix2seq_d.engine.ema import ema_distance, whole
from pix2seq_d.engine.health import Meter, any_process, mean_by_bin, over_processes, peak_memory_mb
from pix2seq_d.engine.interrupts import Interrupted
from pix2seq_d.engine.optim import set_lr
from pix2seq_d.engine.own_past import own_past
from pix2seq_d.engine.runlog import RunLog
from pix2seq_d.models.layers import seed_dropout
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.conditioning import drop_past

logger = logging.getLogger(__name__)

T_SAMPLINGS = ("uniform", "stratified")


class TrainingLoss(nn.Module):
    """Batch -> loss as one module, so that the distributed wrapper sees a single forward.

    Args:
        model: the model to train.
        loss: the diffusion loss.
        weight_power: p of the inverse-area pixel weight.
        past_dropout: probability of nulling each past map.
        past_dropout_all: probability of nulling all past maps of a sample.
        own_past_rate: probability per sample of past maps that the model has predicted, see `own_past`; batches hold
            the maps of `clip_offsets` and the past images then.
        own_past_steps: denoising steps of such a past map.

    Raises:
        ValueError: a probability outside of 0..1, a negative power, no steps.
    """

    def __init__(
        self,
        model: Pix2SeqD,
        loss: DiffusionLoss,
        *,
        weight_power: float = 0.2,
        past_dropout: float = 0.15,
        past_dropout_all: float = 0.1,
        own_past_rate: float = 0.0,
        own_past_steps: int = 2,
    ) -> None:
        super().__init__()
        if not 0 <= weight_power < math.inf:
            raise ValueError(f"weight_power: expected at least 0, got {weight_power}")
        rates = {"past_dropout": past_dropout, "past_dropout_all": past_dropout_all, "own_past_rate": own_past_rate}
        for name, rate in rates.items():
            if not 0 <= rate <= 1:
                raise ValueError(f"{name}: expected a probability, got {rate}")
        if own_past_steps < 1:
            raise ValueError(f"own_past_steps: expected at least 1, got {own_past_steps}")
        self.model, self.loss = model, loss
        self.weight_power = weight_power
        self.past_dropout, self.past_dropout_all = past_dropout, past_dropout_all
        self.own_past_rate, self.own_past_steps = own_past_rate, own_past_steps

    def forward(
        self,
        batch: Batch,
        generators: Sequence[torch.Generator],
        times: Sequence[float] | None = None,
        ramp: float = 1.0,
    ) -> LossOutput:
        """Loss of a batch.

        Args:
            batch: of B clips.
            generators: B CPU generators.
            times: B of them, no tensor, which wrappers for half precision would round; None draws them uniformly.
            ramp: factor on the rates at which the model sees its own estimates and past maps, in [0, 1].
        """
        seed_dropout(self.model, [g.initial_seed() for g in generators])
        groups = [batch.class_codes, batch.instance_codes][: len(self.model.codec.group_bits)]
        codes = torch.stack(groups, 2)  # (B, L, G, h, w)
        past, present = codes[:, :-1], batch.present[:, :-1]
        if self.own_past_rate:
            rate, steps = self.own_past_rate * ramp, self.own_past_steps
            past, present = own_past(
                self.model, self.loss.schedule, batch, codes, generators, rate=rate, num_steps=steps
            )
        present = drop_past(present, rate=self.past_dropout, rate_all=self.past_dropout_all, generators=generators)
        cond = self.model.condition(batch.frame.float() / 255, past, present)
        target = codes[:, -1]  # (B, G, h, w)
        x0 = self.model.codec.encode(target)
        weight = self._pixel_weight(batch)[:, : target.shape[1]]
        t = None if times is None else torch.tensor(times, dtype=torch.float32, device=x0.device)
        return self.loss(self.model.denoiser, x0, target, cond, weight, t, generators, ramp=ramp)

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
        max_skips: the run stops when so many steps in a row were skipped because a loss or gradient was not finite.
        stall_seconds: a batch that takes longer to arrive is reported.
        t_sampling: "uniform" or "stratified" over the global batch.
        own_ramp: steps between which the rates of the model's own estimates and past maps rise from 0.
    """

    steps: int
    batch_size: int
    accumulation: int = 1
    clip_norm: float = 1.0
    seed: int = 0
    log_every: int = 10
    save_every: int = 1000
    validate_every: int = 0
    max_skips: int = 10
    stall_seconds: float = 60.0
    t_sampling: str = "uniform"
    own_ramp: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        positive = ("steps", "batch_size", "accumulation", "max_skips")
        for name in (*positive, "seed", "log_every", "save_every", "validate_every"):
            least = 1 if name in positive else 0
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("clip_norm", "stall_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if self.t_sampling not in T_SAMPLINGS:
            raise ValueError(f"t_sampling: expected one of {', '.join(T_SAMPLINGS)}, got {self.t_sampling!r}")
        if not 0 <= self.own_ramp[0] <= self.own_ramp[1]:
            raise ValueError(f"own_ramp: expected two steps, not negative and not falling, got {self.own_ramp}")


class Loop:
    """What one optimizer step needs; `fit` runs it.

    Args:
        module: prepared TrainingLoss.
        batches: batches of this process.
        optimizer: prepared.
        accelerator: of all prepared objects.
        settings: numbers of the loop.
        received: signal noted on this process, 0 = none.
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Iterator[Batch],
        optimizer: torch.optim.Optimizer,
        *,
        accelerator: Accelerator,
        settings: LoopSettings,
        received: Callable[[], int],
    ) -> None:
        self.module, self.batches, self.optimizer = module, batches, optimizer
        self.accelerator, self.settings, self.received = accelerator, settings, received
        self.meter = Meter(stall_seconds=settings.stall_seconds)

    def step(self, step: int) -> StepOutcome:
        """One optimizer step, on every process: it is taken if the losses and gradients of all are finite."""
        accelerator, settings = self.accelerator, self.settings
        losses, drawn, names = [], [], []
        for micro_step in range(settings.accumulation):
            with self.meter.waiting():
                batch = next(self.batches).to(accelerator.device)
            names += batch.names
            with accelerator.accumulate(self.module):
                place = micro_step, len(batch), accelerator.process_index, accelerator.num_processes
                generators = step_generators(settings, step, *place)
                torch.manual_seed(generators[0].initial_seed())  # for layers that draw from the global stream
                times, ramp = step_times(settings, step, *place), ramp_at(step, settings.own_ramp)
                output = self.module(batch, generators, times, ramp)
                losses.append(output.loss.detach())
                drawn.append((output.t, output.per_sample))
                accelerator.backward(output.loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.module.parameters(), settings.clip_norm)
                    norm = whole(torch.as_tensor(0.0 if norm is None else norm))  # DeepSpeed may not tell it
                    bad = not bool(torch.isfinite(torch.stack([*losses, norm.to(losses[0])])).all())
                    bad_anywhere, signal_number = any_process([bad, self.received()], accelerator)
                    if not bad_anywhere or accelerator.scaler is not None:  # the scaler skips by itself, and adapts
                        self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        frames = len(names) * accelerator.num_processes
        for loss, samples in zip(losses, drawn):
            self.meter.add(None if bad_anywhere else loss, frames // len(losses), samples)
        return StepOutcome(not bad_anywhere, torch.stack(losses).mean(), norm, names, frames, signal_number)


@dataclass
class StepOutcome:
    """What a step tells the loop: `taken`, loss and gradient norm of this process, its samples, the count of all
    processes' samples, and the signal that any process has received (0 = none).
    """

    taken: bool
    loss: Tensor
    grad_norm: Tensor
    names: list[str]
    frames: int
    signal_number: int


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
    progress: Progress | None = None,
    received: Callable[[], int] = lambda: 0,
) -> None:
    """Trains until `settings.steps` optimizer steps are done.

    A step whose loss or gradient is not finite on any process changes no weights, on none of them: it is counted, and
    written to the log with its samples.

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
        validate: the same every `validate_every` steps and at the end; after `save`, so that its failure costs no step.
        start: optimizer steps done before.
        progress: counts of the run, kept up to date here; None begins with zeros.
        received: signal that this process is to stop for, 0 = none; see `StopSignals`.

    Raises:
        FloatingPointError: `settings.max_skips` steps in a row were skipped, naming the last one's samples.
        Interrupted: a process has received a signal; the step is finished and saved.
    """
    module.train()
    accelerator.step = start * settings.accumulation  # restored, it counts micro-steps of the accumulation of before
    progress = Progress(samples=None if start else 0) if progress is None else progress
    loop = Loop(module, batches, optimizer, accelerator=accelerator, settings=settings, received=received)

    def validated(done: int) -> None:
        validate(done)
        module.train()
        loop.meter.reset()

    if validation_is_missing(progress, start, settings):  # the run was cut off in it
        validated(start)
    quiet = not accelerator.is_main_process
    with tqdm(total=settings.steps, initial=start, disable=quiet, unit="step", dynamic_ncols=True) as bar:
        for step in range(start, settings.steps):
            set_lr(optimizer, lr_schedule(step))
            outcome = loop.step(step)
            done = step + 1
            progress.samples = None if progress.samples is None else progress.samples + outcome.frames
            if outcome.taken:
                progress.skipped_in_a_row = 0
                ema.update()
            else:
                _skip(outcome, step, progress, accelerator, settings, log)
            bar.update()
            if settings.log_every and done % settings.log_every == 0:
                record = _record(outcome, done, loop, ema, progress) | {"lr": lr_schedule(step)}
                if log is not None:
                    log.write("train", done, **record)
                bar.set_postfix(loss=f"{record['loss']:.4f}", frames_per_s=f"{record['frames_per_s']:.1f}")
            if _due(done, settings.save_every, settings.steps) or outcome.signal_number:
                save(done)
            if outcome.signal_number and done < settings.steps:
                raise Interrupted(outcome.signal_number, done)
            if _due(done, settings.validate_every, settings.steps):
                validated(done)


def validation_is_missing(progress: Progress, start: int, settings: LoopSettings) -> bool:
    """Whether a run that resumes after step `start` was cut off before that step's validation was done."""
    due = start > 0 and _due(start, settings.validate_every, settings.steps)
    return due and progress.samples is not None and (progress.validated or 0) < start


def _record(outcome: StepOutcome, done: int, loop: Loop, ema: EMA, progress: Progress) -> dict[str, Any]:
    """A log line over all processes; `eta_s` counts training alone."""
    accelerator = loop.accelerator
    sums = loop.meter.sums_by_t()
    values = loop.meter.read() | {"memory_mb": peak_memory_mb(accelerator.device)}
    record: dict[str, Any] = {**over_processes(values, accelerator), "loss_by_t": mean_by_bin(sums, accelerator)}
    record |= {"grad_norm": float(outcome.grad_norm), "ema_distance": ema_distance(ema), "skipped": progress.skipped}
    left = (loop.settings.steps - done) * outcome.frames
    return record | {"eta_s": left / record["frames_per_s"] if record["frames_per_s"] else float("nan")}


def _skip(
    outcome: StepOutcome,
    step: int,
    progress: Progress,
    accelerator: Accelerator,
    settings: LoopSettings,
    log: RunLog | None,
) -> None:
    """Counts a step that was not taken, and writes it down."""
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    values = {"loss": float(outcome.loss), "grad_norm": float(outcome.grad_norm)}
    names = gather_object(outcome.names) if accelerator.num_processes > 1 else outcome.names
    if log is not None:
        log.write("skipped", step + 1, **values, samples=names)
        logger.warning("step %d skipped: loss %s, gradient norm %s", step, *values.values())
    if progress.skipped_in_a_row >= settings.max_skips:
        raise FloatingPointError(
            f"step {step}: a loss or gradient was not finite, {progress.skipped_in_a_row} times in a row, here on "
            f"{', '.join(names)}; log.jsonl lists the samples of every skipped step"
        )


def step_generators(
    settings: LoopSettings, step: int, micro_step: int, batch_size: int, process_index: int, num_processes: int = 1
) -> list[torch.Generator]:
    """One CPU generator per sample, seeded by (seed, step, position of the sample in the step's global batch).

    Accelerate deals whole batches to the processes in turn, so process p's micro-step m is batch `m * processes + p`
    of the step: however a global batch is cut into processes and micro-steps, a sample keeps its position.
    """
    first = (micro_step * num_processes + process_index) * batch_size
    return [_generator(settings.seed, step, 0, 0, position) for position in range(first, first + batch_size)]


def step_times(
    settings: LoopSettings, step: int, micro_step: int, batch_size: int, process_index: int, num_processes: int = 1
) -> list[float] | None:
    """The samples' times where they are stratified; None where each sample's generator is to draw its own.

    Every process draws those of the whole global batch and takes its part, by the positions of `step_generators`.
    """
    if settings.t_sampling == "uniform":
        return None
    first = (micro_step * num_processes + process_index) * batch_size
    times = stratified_times(batch_size * num_processes * settings.accumulation, _generator(settings.seed, step, 1))
    return times[first : first + batch_size].tolist()


def ramp_at(step: int, ramp: tuple[int, int]) -> float:
    """The share of their values that rates have at a step: 0 up to the first step of the ramp, 1 from its last on."""
    first, last = ramp
    return float(step >= last) if step <= first or step >= last else (step - first) / (last - first)


def _generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def _due(done: int, every: int, steps: int) -> bool:
    return every > 0 and (done % every == 0 or done == steps)
