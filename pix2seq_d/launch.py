"""One training run from a configuration: build, resume or initialise, fit. What train.py and pretrain.py share."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from torch import nn

from pix2seq_d.build import (
    build_clips,
    build_label_spec,
    build_loop_settings,
    build_lr_schedule,
    build_model,
    build_train_loader,
    build_training_loss,
    build_videos,
    describe_label_mapping,
    prepare_data,
)
from pix2seq_d.config import RunConfig, TrainConfig
from pix2seq_d.data.formats import write_bytes, write_image
from pix2seq_d.data.loader_faults import OpenedFiles
from pix2seq_d.engine import checkpoint
from pix2seq_d.engine.ema import WholeEMA, build_ema
from pix2seq_d.engine.handover import copy_weights
from pix2seq_d.engine.health import explain
from pix2seq_d.engine.interrupts import Interrupted, StopSignals
from pix2seq_d.engine.optim import build_optimizer
from pix2seq_d.engine.post_hoc import (
    PowerAverages,
    check_same_widths,
    check_widths,
    remove_later_snapshots,
    write_snapshot,
)
from pix2seq_d.engine.runlog import RunLog
from pix2seq_d.engine.tables import class_rows, write_csv
from pix2seq_d.engine.tracking import (
    choose_trackers,
    finish_trackers,
    start_trackers,
    track,
    track_picture,
    track_table,
)
from pix2seq_d.engine.trainer import fit, validation_is_missing
from pix2seq_d.engine.validation import NEED_THINGS, Validation, summary, validate
from pix2seq_d.models.layers import compile_around_dropout, set_recompute
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.models.pretrained import load_encoder_weights
from pix2seq_d.pictures import grid
from pix2seq_d.video.tracker import VideoPredictor

logger = logging.getLogger(__name__)


def run_training(config: RunConfig) -> Path:
    """Trains as `config` says; returns the run folder, whose `model/` holds the averaged weights."""
    settings = build_loop_settings(config)
    check_numbers(config)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    check_data(config)
    accelerator = build_accelerator(config)
    set_seed(config.train.seed)
    if accelerator.is_main_process and (mapping := describe_label_mapping(config.data)):
        logger.info(mapping)
    run_dir, values = Path(config.train.output_dir), dataclasses.asdict(config)
    resuming = config.train.resume and bool(checkpoint.list_checkpoints(run_dir))
    tell = accelerator.is_main_process
    module = build_training_loss(config, build_model(config) if resuming else initial_model(config, tell=tell))
    model, optimizer = module.model, _build_optimizer(config.train, module)
    ema, others = _build_averages(config.train, model, accelerator.device)
    _switch_memory_and_speed(model, config.train)
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    accelerator.register_for_checkpointing(*filter(None, (ema, others)))
    progress = checkpoint.Progress()
    start = checkpoint.resume(run_dir, accelerator=accelerator, config=values, progress=progress) if resuming else 0
    if start and accelerator.is_main_process:
        logger.info("resumed %s at step %d", run_dir, start)
    loader = build_train_loader(
        config, model, start=start, num_processes=accelerator.num_processes, samples=progress.samples
    )
    opened: OpenedFiles = loader.worker_init_fn  # type: ignore[assignment]
    prepared = accelerator.prepare(loader)
    redo = ("validation",) if validation_is_missing(progress, start, settings) else ()
    log = _open_log(accelerator, run_dir, values, start, redo)
    state = _RunState(config, run_dir, accelerator, ema.ema_model, others, progress, log)
    with StopSignals() as signals, _explained_end(accelerator, opened):
        fit(
            wrapped,
            iter(prepared),
            optimizer,
            accelerator=accelerator,
            ema=ema,
            lr_schedule=build_lr_schedule(config),
            settings=settings,
            log=log,
            save=state.save,
            validate=state.validate,
            start=start,
            progress=progress,
            received=lambda: signals.received,
        )
    if accelerator.is_main_process:
        logger.info("model with averaged weights: %s", checkpoint.export(run_dir))
    finish_trackers(accelerator)
    # the order that lets gloo processes end cleanly
    accelerator.free_memory()
    del module, wrapped, optimizer, loader, prepared
    gc.collect()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return run_dir


@contextmanager
def _explained_end(accelerator: Accelerator, opened: OpenedFiles) -> Iterator[None]:
    """Closes the trackers of a run that a signal ends; says of errors of PyTorch what to do about them."""
    try:
        yield
    except Interrupted:
        finish_trackers(accelerator)
        raise
    except RuntimeError as error:
        if (fault := explain(error, last_opened=opened.last())) is None:
            raise
        raise fault from error


@dataclasses.dataclass
class _RunState:
    """What checkpoints and validations of a run need."""

    config: RunConfig
    run_dir: Path
    accelerator: Accelerator
    averaged: Pix2SeqD
    others: PowerAverages | None
    progress: checkpoint.Progress
    log: RunLog | None

    def save(self, step: int) -> None:
        """Writes a checkpoint, after the snapshot of other averages where one is due."""
        train = self.config.train
        due = step % train.post_hoc_every == 0 or step == train.steps
        if self.others is not None and due and self.others.updates:
            write_snapshot(self.run_dir, step, self.others, self.accelerator)
        checkpoint.save(
            self.run_dir,
            step,
            accelerator=self.accelerator,
            averaged=self.averaged,
            config=dataclasses.asdict(self.config),
            keep=self.config.train.keep_checkpoints,
            progress=self.progress,
        )

    def validate(self, step: int) -> None:
        """Scores the averaged model; the first of equal scores stays the best."""
        scores = _score(self.config, self.averaged, self.accelerator, self.log, self.run_dir, step)
        metric, progress = self.config.validation.best, self.progress
        progress.validated = step
        if metric and (progress.best is None or scores[metric] > progress.best):
            progress.best, progress.best_step = scores[metric], step
            if self.accelerator.is_main_process:
                checkpoint.export_best(self.run_dir, self.averaged)
        if self.accelerator.is_main_process:
            checkpoint.note_progress(self.run_dir, step, progress)


def check_numbers(config: RunConfig) -> None:
    """Refuses now what the first validation, or whoever loads the trained model, would refuse hours later.

    Raises:
        ValueError: a number of steps, frames, pixels or of the optimizer that is too small; averages that are none, or
            whose snapshots belong to no checkpoint.
    """
    least = {"sampling.num_steps": 1, "sampling.num_steps_next": 1, "sampling.td_steps": 0, "sampling.min_pixels": 0}
    least |= {f"train.{name}": 0 for name in ("lr", "warmup_steps", "lr_final", "weight_decay", "threads")}
    least |= {"train.save_every": 1, "train.keep_checkpoints": 1}  # the last checkpoint is what the run is for
    if config.validation.every:
        names = ("num_sequences", "num_frames", "num_steps", "num_steps_next")
        least |= {f"validation.{name}": 1 for name in names}
    for name, bound in least.items():
        section, field = name.split(".")
        value = getattr(getattr(config, section), field)
        if not value >= bound:
            raise ValueError(f"{name}: expected at least {bound}, got {value}")
    train = config.train
    if train.post_hoc_ema:
        check_widths(train.post_hoc_ema)
        if train.post_hoc_every < 1 or train.post_hoc_every % train.save_every:
            raise ValueError(
                f"train.post_hoc_every: expected a multiple of train.save_every {train.save_every}, "
                f"got {train.post_hoc_every}"
            )


def check_data(config: RunConfig) -> None:
    """Finds out before anything is built whether the data of training and validation are there; fetches what it can.

    Before the processes of a run are connected: none of them then waits so long for another that the run ends.

    Raises:
        ValueError: they are not, naming what is missing, or they share no class with the label spec.
        OSError: they could not be fetched.
        CheckpointError: the run is to be resumed, and its classes or averages were others; or weights were put into
            its folder by hand, which nothing would read.
    """
    data, model, run_dir = config.data, config.model, Path(config.train.output_dir)
    spec = build_label_spec(data)
    if config.train.resume:
        checkpoint.check_same_classes(run_dir, spec)
        check_same_widths(run_dir, config.train.post_hoc_ema)
    if not config.train.init_from and not checkpoint.list_checkpoints(run_dir):
        checkpoint.refuse_weights_by_hand(run_dir)
    prepare_data(data)
    build_clips(data, data.train_split, past_offsets=model.past_offsets, size=model.image_size)
    if config.validation.every:
        if config.validation.best in NEED_THINGS and not spec.thing_ids:
            raise ValueError(
                f"validation.best: expected a metric of a spec without things, got {config.validation.best!r}"
            )
        videos = build_videos(config)
        sequence_id = videos.sequence_ids[0]
        videos.read_frame(sequence_id, videos.frame_ids(sequence_id)[0])  # some readers look at nothing before


def build_accelerator(config: RunConfig) -> Accelerator:
    """The Accelerator of the run; refuses precisions that would silently be another one, and a lost process group."""
    cpu = config.train.cpu or not torch.cuda.is_available()
    if cpu and config.train.precision == "fp16":
        raise ValueError('train.precision: expected "no" or "bf16" on the CPU, got "fp16"')
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=config.train.precision,
        gradient_accumulation_steps=config.train.accumulation,
        log_with=choose_trackers(config.train.trackers) or None,  # it warns of an empty list
        project_config=ProjectConfiguration(logging_dir=str(Path(config.train.output_dir) / "trackers")),
    )
    expected = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != expected:
        raise ValueError(
            f"WORLD_SIZE: expected {expected} processes, Accelerate started {accelerator.num_processes}; "
            "on the CPU use torchrun --standalone --nproc_per_node N"
        )
    deepspeed = getattr(accelerator.state, "deepspeed_plugin", None) if expected > 1 else None
    if deepspeed is not None:  # it wants to know this before the loader, which comes last, is there
        deepspeed.deepspeed_config["train_micro_batch_size_per_gpu"] = config.train.batch_size
    return accelerator


def initial_model(config: RunConfig, *, tell: bool = True) -> Pix2SeqD:
    """The model at step 0: random, or with the weights that the configuration names; the log lists which, if `tell`."""
    model = build_model(config)
    if config.train.init_from:
        source = Pix2SeqD.from_pretrained(checkpoint.find_model(config.train.init_from))
        copy_weights(source, model, name=config.train.init_from, tell=tell)
    elif config.train.encoder_weights:
        load_encoder_weights(model.encoder.resnet, config.train.encoder_weights)
    elif config.model.norm == "frozen_batch":
        raise ValueError('model.norm: expected "group" for an encoder with random weights, got "frozen_batch"')
    return model


def _switch_memory_and_speed(model: Pix2SeqD, train: TrainConfig) -> None:
    set_recompute(model, train.activation_checkpointing)
    if train.compile:  # in place: names of weights stay, and the average is a copy that is not compiled
        compile_around_dropout(model)
        model.encoder.compile()
        model.denoiser.compile()


def _build_optimizer(train: TrainConfig, module: nn.Module) -> torch.optim.Optimizer:
    betas = train.beta1, train.beta2
    return build_optimizer(module, lr=train.lr, betas=betas, weight_decay=train.weight_decay)


def _build_averages(train: TrainConfig, model: Pix2SeqD, device: torch.device) -> tuple[WholeEMA, PowerAverages | None]:
    """The average of the run, and those that follow it for snapshots, if there are any."""
    others = PowerAverages(model, train.post_hoc_ema).to(device) if train.post_hoc_ema else None
    return build_ema(model, decay=train.ema_decay, also=others.update if others else None).to(device), others


def _open_log(
    accelerator: Accelerator, run_dir: Path, values: dict[str, Any], start: int, redo: tuple[str, ...]
) -> RunLog | None:
    """Trackers on every process, the log on the main process; what the run will write again goes."""
    start_trackers(accelerator, run_dir, values, start=start)
    if not accelerator.is_main_process:
        return None
    remove_later_snapshots(run_dir, start)
    log = RunLog(run_dir, start=start, redo=redo, also=partial(track, accelerator))
    write_bytes(run_dir / "config.json", json.dumps(values, indent=2).encode())
    return log


def _score(
    config: RunConfig, model: Pix2SeqD, accelerator: Accelerator, log: RunLog | None, run_dir: Path, step: int
) -> dict[str, float]:
    """Validates on all processes, and writes the result down where there is a log."""
    settings = config.validation
    predictor = VideoPredictor(
        model.eval(), num_steps=settings.num_steps, num_steps_next=settings.num_steps_next, seed=config.train.seed
    )
    found = validate(
        predictor,
        build_videos(config),
        build_label_spec(config.data),
        num_sequences=settings.num_sequences,
        num_frames=settings.num_frames,
        independent=config.loss.past_dropout_all == 1,  # it has never seen a past map
        accelerator=accelerator,
    )
    scores = summary(found.result)
    if log is not None:
        log.write("validation", step, **scores)
        _show(found, accelerator, run_dir / "samples" / f"step-{step:08d}", step)
    return scores


def _show(found: Validation, accelerator: Accelerator, path: Path, step: int) -> None:
    """Pictures and scores by class, into files whose names begin with `path` and to the trackers."""
    sheet = grid([[picture] for picture in found.pictures])
    for name, suffix, picture in (("samples", ".png", sheet), ("denoising", "-denoising.png", found.panels)):
        if picture is not None:
            write_image(path.with_name(path.name + suffix), picture)
            track_picture(accelerator, step, name, picture)
    rows = class_rows(found.result)
    write_csv(path.with_suffix(".csv"), rows)
    track_table(accelerator, step, "validation/classes", rows)
