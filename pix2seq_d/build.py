"""Configuration -> objects. The only module of the package that reads a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from pix2seq_d.config import DataConfig, RunConfig
from pix2seq_d.data.batch import Batch
from pix2seq_d.data.camvid import CamVid
from pix2seq_d.data.corruption import PastCorruption
from pix2seq_d.data.folder import VideoDataset
from pix2seq_d.data.kitti_step import KittiStep
from pix2seq_d.data.loaders import ClipDataset, build_loader
from pix2seq_d.data.pseudo_video import PseudoVideo
from pix2seq_d.data.synthetic import SyntheticClips
from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.data.transforms import ClipTransform
from pix2seq_d.diffusion.loss import DiffusionLoss
from pix2seq_d.diffusion.schedule import SCHEDULES
from pix2seq_d.engine.optim import lr_at
from pix2seq_d.engine.trainer import LoopSettings, TrainingLoss
from pix2seq_d.labels import LabelSpec, get_label_spec
from pix2seq_d.models.pix2seq_d import Pix2SeqD

READERS = {"kitti-step": KittiStep, "camvid": CamVid}
LABEL_SPECS_OF = {"synthetic": "kitti-step", "kitti-step": "kitti-step", "camvid": "camvid"}  # what their maps hold


def build_label_spec(config: RunConfig) -> LabelSpec:
    """The label spec the run works in; raises ValueError where the dataset's maps hold other classes."""
    expected, name = LABEL_SPECS_OF.get(config.data.dataset), config.data.label_spec
    if expected not in (None, name):
        raise ValueError(f"data.label_spec: expected {expected} for data.dataset {config.data.dataset}, got {name!r}")
    return get_label_spec(name)


def build_model(config: RunConfig) -> Pix2SeqD:
    """The model with random weights."""
    arguments = {**dataclasses.asdict(config.model), **dataclasses.asdict(config.sampling)}
    return Pix2SeqD(label_spec=build_label_spec(config), **arguments)


def build_training_loss(config: RunConfig, model: Pix2SeqD) -> TrainingLoss:
    """The model with its loss."""
    if config.loss.self_cond_rate and not config.model.self_cond:
        raise ValueError("loss.self_cond_rate: expected 0 where model.self_cond is false, got a positive rate")
    loss = DiffusionLoss(
        SCHEDULES[config.model.schedule](),
        model.codec,
        target=config.model.target,
        self_cond_rate=config.loss.self_cond_rate,
    )
    return TrainingLoss(
        model,
        loss,
        weight_power=config.loss.weight_power,
        past_dropout=config.loss.past_dropout,
        past_dropout_all=config.loss.past_dropout_all,
    )


def build_clips(config: DataConfig, split: str, *, past_offsets: Sequence[int], size: tuple[int, int]) -> ClipDataset:
    """Clips of a split for training; `size` (H, W) is what synthetic frames are rendered at."""
    if not config.pseudo_video:
        return _real_clips(config, split, past_offsets=past_offsets, size=size)
    return PseudoVideo(
        _real_clips(config, split, past_offsets=(), size=size),
        get_label_spec(config.label_spec),
        past_offsets=past_offsets,
        seed=config.seed,
        camera_motion=config.camera_motion,
        paste_rate=config.paste_rate,
        paste_max=config.paste_max,
        paste_motion=config.paste_motion,
    )


def _real_clips(config: DataConfig, split: str, *, past_offsets: Sequence[int], size: tuple[int, int]) -> ClipDataset:
    if config.dataset == "synthetic":
        return SyntheticClips(
            split=split,
            num_sequences=config.num_sequences,
            num_frames=config.num_frames,
            past_offsets=tuple(past_offsets),
            height=size[0],
            width=size[1],
            seed=config.seed,
            difficulty=config.difficulty,
        )
    return _reader(config)(config.root, split, past_offsets=tuple(past_offsets))


def build_videos(config: RunConfig) -> VideoDataset:
    """Whole labelled videos of the validation split."""
    if config.data.dataset == "synthetic":
        height, width = config.model.image_size
        return SyntheticVideos(
            split=config.data.val_split,
            num_sequences=config.validation.num_sequences,
            num_frames=config.validation.num_frames,
            height=height,
            width=width,
            seed=config.data.seed,
            difficulty=config.data.difficulty,
        )
    return _reader(config.data)(config.data.root, config.data.val_split)


def build_transform(config: DataConfig, image_size: tuple[int, int], mask_size: tuple[int, int]) -> ClipTransform:
    """The augmentation of training clips."""
    return ClipTransform(
        image_size,
        mask_size,
        scale_range=(config.scale_min, config.scale_max),
        flip_rate=config.flip_rate,
        brightness=config.brightness,
        contrast=config.contrast,
        saturation=config.saturation,
        hue=config.hue,
        blur=config.blur,
        noise=config.noise,
        corruption=PastCorruption(
            drop_rate=config.past_drop_rate,
            swap_rate=config.past_swap_rate,
            shift=config.past_shift,
            edge_rate=config.past_edge_rate,
        ),
    )


def build_train_loader(config: RunConfig, model: Pix2SeqD, *, start: int, num_processes: int) -> DataLoader[Batch]:
    """The training loader, beginning where optimizer step `start` begins."""
    clips = build_clips(
        config.data, config.data.train_split, past_offsets=config.model.past_offsets, size=config.model.image_size
    )
    return build_loader(
        clips,
        build_transform(config.data, config.model.image_size, model.mask_size),
        build_label_spec(config),
        batch_size=config.train.batch_size,
        num_instance_codes=model.num_instance_codes,
        seed=config.train.seed,
        start=start * config.train.accumulation * num_processes,
        num_workers=config.data.num_workers,
    )


def build_lr_schedule(config: RunConfig) -> Callable[[int], float]:
    """The learning rate of a step."""
    train = config.train

    def lr(step: int) -> float:
        return lr_at(
            step,
            lr=train.lr,
            warmup_steps=train.warmup_steps,
            steps=train.steps,
            decay=train.lr_decay,
            final=train.lr_final,
        )

    return lr


def build_loop_settings(config: RunConfig) -> LoopSettings:
    """Numbers of the training loop."""
    return LoopSettings(
        steps=config.train.steps,
        batch_size=config.train.batch_size,
        accumulation=config.train.accumulation,
        clip_norm=config.train.clip_norm,
        seed=config.train.seed,
        log_every=config.train.log_every,
        save_every=config.train.save_every,
        validate_every=config.validation.every,
    )


def _reader(config: DataConfig) -> Any:
    if config.dataset not in READERS:
        known = ", ".join(("synthetic", *READERS))
        raise ValueError(f"data.dataset: expected {known} (others have no reader yet), got {config.dataset!r}")
    if not Path(config.root).exists():
        raise ValueError(f"data.root: {config.root} does not exist; see the README for how to get {config.dataset}")
    return READERS[config.dataset]
