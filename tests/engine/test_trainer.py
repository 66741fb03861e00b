"""The loop: it learns, repeats itself, stops at nonsense, and applies rate, clipping and accumulation as it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from loop_runs import CAR, Run, batches, sample, training_loss
from tiny_runs import accelerate_state, equal  # noqa: F401

from pix2seq_d.data.batch import Batch
from pix2seq_d.data.loaders import collate
from pix2seq_d.engine.checkpoint import Progress
from pix2seq_d.engine.ema import build_ema
from pix2seq_d.engine.interrupts import Interrupted
from pix2seq_d.engine.runlog import RunLog, read_log
from pix2seq_d.engine.trainer import LoopSettings, fit, step_generators, step_times, validation_is_missing
from pix2seq_d.models.pix2seq_d import Pix2SeqD

pytestmark = pytest.mark.usefixtures("accelerate_state")
Build = Callable[..., Pix2SeqD]


STEPWISE = LoopSettings(steps=3, batch_size=2, log_every=1, save_every=1)


# learning


def test_learns_one_clip(tiny_model: Build, tmp_path: Path) -> None:
    settings = LoopSettings(steps=60, batch_size=2, log_every=1, save_every=0)
    clip = collate([sample(0), sample(0)])
    Run(tiny_model(lively=False), repeat(clip), settings, lr=lambda step: 3e-3, log=RunLog(tmp_path))
    losses = [record["loss"] for record in read_log(tmp_path, "train")]
    assert len(losses) == 60
    assert sum(losses[-10:]) / 10 < 0.3 * losses[0]


def test_the_same_run_twice(tiny_model: Build) -> None:
    first, second = (Run(tiny_model(), batches(2), STEPWISE) for _ in range(2))
    assert equal(first.weights, second.weights)
    other = Run(tiny_model(), batches(2), replace(STEPWISE, seed=1))
    assert not equal(first.last(), other.last())


def test_a_step_does_not_depend_on_the_steps_before(tiny_model: Build) -> None:
    """Noise, dropout and data of step 2 are the same for a run that begins there."""
    rate = {"lr": lambda step: 1e-3 * (step == 2), "sgd": True}
    straight = Run(tiny_model(dropout=0.2), batches(2), STEPWISE, **rate)
    torch.rand(7)  # whatever happened to the global stream
    late = Run(tiny_model(dropout=0.2), batches(2, first=2), STEPWISE, start=2, **rate)
    assert equal(straight.weights[2], late.weights[2])
    assert equal(straight.weights[3], late.weights[3])
    assert not equal(straight.weights[2], straight.weights[3])


@pytest.mark.parametrize("options", [{"num_instance_bits": 0, "past_offsets": (-2, -1)}, {"target": "mse"}])
def test_other_kinds_of_model_train(tiny_model: Build, options: dict[str, Any], tmp_path: Path) -> None:
    Run(tiny_model(**options), batches(2), STEPWISE, log=RunLog(tmp_path))
    assert [record["step"] for record in read_log(tmp_path, "train")] == [1, 2, 3]


def test_image_model_trains(tiny_model: Build) -> None:
    def stills() -> Iterator[Batch]:
        for b in batches(2):
            past_free = {k: getattr(b, k)[:, -1:] for k in ("class_codes", "instance_codes", "present")}
            yield replace(b, **past_free)

    run = Run(tiny_model(past_offsets=()), stills(), STEPWISE)
    assert not equal(run.weights[0], run.weights[3])


# odd batches


def test_a_batch_of_void_is_harmless(tiny_model: Build, tmp_path: Path) -> None:
    void = sample(0)
    void = replace(void, class_codes=void.class_codes * 0, instance_codes=void.instance_codes * 0)
    run = Run(tiny_model(), repeat(collate([void, void])), STEPWISE, log=RunLog(tmp_path))
    assert [record["loss"] for record in read_log(tmp_path, "train")] == [0.0, 0.0, 0.0]
    assert all(bool(torch.isfinite(w).all()) for w in run.last().values())


def test_void_beside_a_labelled_sample(tiny_model: Build) -> None:
    void = replace(sample(0), class_codes=sample(0).class_codes * 0)
    output = training_loss(tiny_model())(collate([void, sample(1)]), step_generators(STEPWISE, 0, 0, 2, 0))
    assert output.per_sample[0] == 0
    assert output.per_sample[1] > 0


def test_crowds_carry_no_instance_loss(tiny_model: Build) -> None:
    module = training_loss(tiny_model())
    crowd = sample(0)
    crowd = replace(crowd, crowd=crowd.class_codes[:, -1] == CAR, instance_codes=crowd.instance_codes * 0)
    weight = module._pixel_weight(crowd)
    car = crowd.crowd[0]
    assert (weight[0, 0][car] > 0).all()
    assert (weight[0, 1][car] == 0).all()
    assert (weight[0, 1][~car] > 0).all()


class Poisoned:
    """Batches that come with weights that are not finite at the given steps, and with right ones at the others."""

    def __init__(self, model: Pix2SeqD, poison: float, at: set[int]) -> None:
        self.poison, self.at = poison, at
        self.weight = next(p for p in model.encoder.parameters() if p.ndim > 1)
        self.step, self.right = -1, self.weight.detach().clone()
        self.data = batches(2)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        with torch.no_grad():
            self.weight.copy_(self.right) if self.step in self.at else self.right.copy_(self.weight)
            self.step += 1
            if self.step in self.at:
                self.weight.fill_(self.poison)
        return next(self.data)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_is_skipped_and_counted(tiny_model: Build, poison: float, tmp_path: Path) -> None:
    """Step 1 of 4: its samples are in the log, and the other steps move the weights and the average as ever."""
    model = tiny_model()
    settings = LoopSettings(steps=4, batch_size=2, log_every=1, save_every=1)
    run = Run(model, Poisoned(model, poison, {1}), settings, log=RunLog(tmp_path))
    records = read_log(tmp_path, "train")
    assert [record["skipped"] for record in records] == [0, 1, 1, 1]
    assert [record["loss"] is None for record in records] == [False, True, False, False]
    (skipped,) = read_log(tmp_path, "skipped")
    assert (skipped["step"], skipped["samples"]) == (2, ["s/000002", "s/000003"])
    assert skipped["loss"] is None
    assert int(run.ema.step) == 3
    assert all(bool(torch.isfinite(v).all()) for v in run.last().values())
    assert not equal(run.weights[3], run.weights[4])


def test_steps_that_are_not_finite_in_a_row_stop_the_run(tiny_model: Build, tmp_path: Path) -> None:
    """With a limit of 2: one at step 1 is survived, those at 3 and 4 are not."""
    model = tiny_model()
    settings = LoopSettings(steps=9, batch_size=2, log_every=1, save_every=0, max_skips=2)
    message = r"^step 4: a loss or gradient was not finite, 2 times in a row, here on s/000008, s/000009; log.jsonl"
    with pytest.raises(FloatingPointError, match=message):
        Run(model, Poisoned(model, float("nan"), {1, 3, 4}), settings, log=RunLog(tmp_path))
    assert [record["step"] for record in read_log(tmp_path, "skipped")] == [2, 4, 5]


def test_a_gradient_that_is_not_finite_is_skipped_too(tiny_model: Build, tmp_path: Path) -> None:
    """The loss of the step is finite, its gradient is not."""
    model = tiny_model()
    weight = next(model.parameters())
    weight.register_hook(lambda gradient: gradient * float("inf"))
    run = Run(model, batches(2), STEPWISE, log=RunLog(tmp_path))
    assert equal(run.weights[0], run.weights[3])
    skipped = read_log(tmp_path, "skipped")
    assert [record["loss"] is None or record["grad_norm"] is None for record in skipped] == [True] * 3
    assert all(isinstance(record["loss"], float) for record in skipped)


# past maps


@pytest.mark.parametrize("rate_all", [0.0, 1.0])
def test_past_dropout(tiny_model: Build, rate_all: float) -> None:
    module = training_loss(tiny_model(), past_dropout=0.0, past_dropout_all=rate_all)
    with_past = collate([sample(0), sample(1)])
    codes = with_past.class_codes.clone()
    codes[:, :-1] = 5
    other = replace(with_past, class_codes=codes)
    losses = [module(b, step_generators(STEPWISE, 0, 0, 2, 0)).per_sample for b in (with_past, other)]
    assert torch.equal(*losses) == (rate_all == 1.0)


# what the loop applies


def test_learning_rate_of_each_step(tiny_model: Build, tmp_path: Path) -> None:
    run = Run(tiny_model(), batches(2), STEPWISE, lr=lambda step: 0.1 * (step == 1), sgd=True, log=RunLog(tmp_path))
    assert equal(run.weights[0], run.weights[1])
    assert not equal(run.weights[1], run.weights[2])
    assert equal(run.weights[2], run.weights[3])
    assert [record["lr"] for record in read_log(tmp_path, "train")] == [0.0, 0.1, 0.0]


def test_gradient_norm_is_clipped(tiny_model: Build, tmp_path: Path) -> None:
    def moved(clip_norm: float) -> tuple[float, float]:
        settings = LoopSettings(steps=1, batch_size=2, log_every=1, save_every=1, clip_norm=clip_norm)
        run_dir = tmp_path / str(clip_norm)
        run = Run(tiny_model(), batches(2), settings, lr=lambda step: 1.0, sgd=True, log=RunLog(run_dir))
        squares = [(run.weights[1][k] - v).square().sum() for k, v in run.weights[0].items()]
        return float(sum(squares)) ** 0.5, read_log(run_dir, "train")[0]["grad_norm"]

    free, norm = moved(1e6)
    assert free == pytest.approx(norm, rel=1e-4)
    clipped, same_norm = moved(norm / 4)
    assert same_norm == pytest.approx(norm, rel=1e-6)
    assert clipped == pytest.approx(norm / 4, rel=1e-3)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_two_micro_steps_of_two_equal_one_of_four(tiny_model: Build, dropout: float) -> None:
    """Guaranteed: the same samples with the same noise and dropout masks, so the same update but for rounding."""
    runs = [
        Run(
            tiny_model(dropout=dropout),
            batches(4 // k),
            replace(STEPWISE, batch_size=4 // k, accumulation=k),
            sgd=True,
            past_dropout=0.5,
        )
        for k in (1, 2)
    ]
    for name, value in runs[0].last().items():
        assert torch.allclose(value, runs[1].last()[name], rtol=0, atol=1e-6), name
    assert not equal(runs[0].weights[0], runs[0].last())


def test_accumulation_takes_its_own_batches(tiny_model: Build) -> None:
    taken = []

    def noted() -> Iterator[Batch]:
        for b in batches(1):
            taken.append(b.names[0])
            yield b

    Run(tiny_model(), noted(), replace(STEPWISE, batch_size=1, accumulation=3))
    assert taken == [f"s/{k:06d}" for k in range(9)]


def test_saves_validates_and_averages_when_due(tiny_model: Build, tmp_path: Path) -> None:
    settings = LoopSettings(steps=7, batch_size=1, log_every=2, save_every=3, validate_every=2)
    run = Run(tiny_model(), batches(1), settings, log=RunLog(tmp_path))
    assert list(run.weights) == [0, 3, 6, 7]
    assert run.validated == [2, 4, 6, 7]
    assert [record["step"] for record in read_log(tmp_path, "train")] == [2, 4, 6]
    assert int(run.ema.step) == 7
    assert run.model.training


def test_zero_means_never(tiny_model: Build, tmp_path: Path) -> None:
    settings = LoopSettings(steps=2, batch_size=1, log_every=0, save_every=0)
    run = Run(tiny_model(), batches(1), settings, log=RunLog(tmp_path))
    assert list(run.weights) == [0]
    assert run.validated == []
    assert not (tmp_path / "log.jsonl").exists()


def test_a_finished_run_does_nothing(tiny_model: Build) -> None:
    run = Run(tiny_model(), iter(()), STEPWISE, start=3)
    assert list(run.weights) == [3]


# generators and settings


def test_every_sample_of_a_run_has_noise_of_its_own() -> None:
    seeds = [
        g.initial_seed()
        for step in range(20)
        for micro_step in range(3)
        for process in range(3)
        for g in step_generators(STEPWISE, step, micro_step, 4, process, 3)
    ]
    assert len(set(seeds)) == len(seeds) == 20 * 3 * 3 * 4


def test_generators_are_a_function_of_seed_and_place_in_the_global_batch() -> None:
    """12 samples as one batch, as 3 processes of 4, as 2 processes of 2 with 3 micro-steps each."""

    def seeds(settings: LoopSettings, size: int, micro_steps: int = 1, processes: int = 1) -> list[int]:
        return [
            g.initial_seed()
            for micro_step in range(micro_steps)
            for process in range(processes)
            for g in step_generators(settings, 5, micro_step, size, process, processes)
        ]

    whole = seeds(STEPWISE, 12)
    assert seeds(STEPWISE, 4, processes=3) == seeds(replace(STEPWISE, steps=99), 2, 3, 2) == whole
    assert not set(whole) & set(seeds(replace(STEPWISE, seed=1), 12))


def test_generators_are_those_of_the_first_release() -> None:
    """Computed by commit 0622244 for seed 0, step 7, the rows 0 and 3 of one process without accumulation."""
    drawn = [g.initial_seed() for g in step_generators(STEPWISE, 7, 0, 4, 0)]
    assert [drawn[0], drawn[3]] == [729170941609874707, 1909282533393402090]


def test_stratified_times_are_those_of_the_global_batch() -> None:
    """8 samples as one batch, as 2 processes of 4, and as 2 micro-steps of 4."""

    def times(settings: LoopSettings, step: int, size: int, processes: int = 1) -> list[float]:
        places = [(m, size, p, processes) for m in range(settings.accumulation) for p in range(processes)]
        return [t for place in places for t in step_times(settings, step, *place) or []]

    stratified = replace(STEPWISE, t_sampling="stratified")
    whole = times(stratified, 5, 8)
    assert times(stratified, 5, 4, 2) == times(replace(stratified, accumulation=2), 5, 4) == whole
    assert len(set(whole)) == 8
    assert not set(whole) & {*times(stratified, 6, 8), *times(replace(stratified, seed=1), 5, 8)}
    assert step_times(STEPWISE, 5, 0, 8, 0) is None


def test_stratified_times_reach_the_loss(tiny_model: Build, tmp_path: Path) -> None:
    """The bins of the log that hold a loss are those of the times of both steps, and the weights move otherwise."""
    module = training_loss(tiny_model())
    given = [0.25, 0.75]
    assert module(collate([sample(0), sample(1)]), step_generators(STEPWISE, 0, 0, 2, 0), given).t.tolist() == given
    settings = LoopSettings(steps=2, batch_size=10, log_every=2, save_every=2, t_sampling="stratified")
    run = Run(tiny_model(), batches(10), settings, log=RunLog(tmp_path))
    (record,) = read_log(tmp_path, "train")
    filled = {int(10 * t) for step in range(2) for t in step_times(settings, step, 0, 10, 0) or []}
    assert [value is not None for value in record["loss_by_t"]] == [k in filled for k in range(10)]
    assert not equal(run.last(), Run(tiny_model(), batches(10), replace(settings, t_sampling="uniform")).last())


def test_another_sampling_of_times() -> None:
    with pytest.raises(ValueError, match=r"^t_sampling: expected one of uniform, stratified, got 'sobol'"):
        replace(STEPWISE, t_sampling="sobol")


@pytest.mark.parametrize(
    ("name", "value"),
    [("past_dropout", 1.5), ("past_dropout_all", -0.1), ("weight_power", -1.0), ("weight_power", math.nan)],
)
def test_wrong_rates_and_powers_raise(tiny_model: Build, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        training_loss(tiny_model(), **{name: value})


@pytest.mark.parametrize("name", ["steps", "batch_size", "accumulation", "clip_norm", "max_skips", "stall_seconds"])
def test_settings_below_their_least(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        replace(STEPWISE, **{name: 0})


@pytest.mark.parametrize("name", ["seed", "log_every", "save_every", "validate_every"])
def test_settings_below_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected at least 0, got -1"):
        replace(STEPWISE, **{name: -1})


# stopping and going on


def test_a_signal_ends_the_run_after_a_checkpoint(tiny_model: Build) -> None:
    run_settings = LoopSettings(steps=5, batch_size=1, save_every=5)
    saved: list[int] = []
    signals = iter([0, 0, 15, 15, 15])
    accelerator = Accelerator(cpu=True)
    module = training_loss(tiny_model())
    wrapped, optimizer = accelerator.prepare(module, torch.optim.SGD(module.parameters(), lr=1.0))
    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM after step 3, with a checkpoint") as stop:
        fit(
            wrapped,
            batches(1),
            optimizer,
            accelerator=accelerator,
            ema=build_ema(module.model, decay=0.9),
            lr_schedule=lambda step: 1e-3,
            settings=run_settings,
            log=None,
            save=saved.append,
            validate=lambda step: None,
            received=lambda: next(signals),
        )
    assert saved == [3]
    assert stop.value.exit_code == 143


@pytest.mark.parametrize(
    ("start", "samples", "validated", "missing"),
    [
        (4, 8, None, True),
        (4, 8, 2, True),
        (4, 8, 4, False),
        (3, 6, 2, False),
        (0, 0, None, False),
        (4, None, None, False),
    ],
)
def test_whether_a_validation_is_missing(start: int, samples: int | None, validated: int | None, missing: bool) -> None:
    """Every 2 steps; a checkpoint that does not count samples does not know of validations either."""
    settings = LoopSettings(steps=9, batch_size=2, validate_every=2)
    progress = Progress(samples=samples, validated=validated)
    assert validation_is_missing(progress, start, settings) == missing


def test_samples_are_counted(tiny_model: Build) -> None:
    run = Run(tiny_model(), batches(2), replace(STEPWISE, accumulation=2))
    assert run.progress.samples == 3 * 2 * 2
