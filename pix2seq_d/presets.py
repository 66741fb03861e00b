"""Model sizes and presets: runs with a name. Standard library only, as config.py."""

from __future__ import annotations

from dataclasses import replace

from pix2seq_d.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    RunConfig,
    SamplingConfig,
    TrainConfig,
    ValidationConfig,
)

# model sizes: `base` is the paper's

BASE = ModelConfig()
SMALL = replace(
    BASE,
    block="basic",
    stem_width=32,
    stage_widths=(64, 128, 256),
    stage_depths=(2, 2, 2),
    stage_strides=(1, 2, 2),
    encoder_dim=256,
    encoder_layers=4,
    pyramid_dim=128,
    cond_channels=64,
    denoiser_widths=(48, 96, 192, 256),
    denoiser_dim=256,
    denoiser_layers=4,
)
TINY = replace(
    BASE,
    image_size=(96, 320),
    bit_scale=0.3,  # objects have about 15 times fewer mask pixels to average the noise over than in the paper
    block="basic",
    stem_width=24,
    stage_widths=(48, 96, 128),
    stage_depths=(1, 1, 1),
    stage_strides=(1, 2, 1),
    encoder_dim=128,
    encoder_layers=2,
    encoder_heads=4,
    pyramid_dim=64,
    cond_channels=32,
    denoiser_widths=(32, 64, 96, 160),
    denoiser_dim=160,
    denoiser_layers=4,
    denoiser_heads=4,
)
MODEL_SIZES = {"tiny": TINY, "small": SMALL, "base": BASE}

_SYNTHETIC_TINY = RunConfig(
    model=TINY,
    sampling=SamplingConfig(sampler="renoise", num_steps=40, num_steps_next=3, td_steps=2.0, min_pixels=16),
    data=DataConfig(num_workers=1, num_sequences=4000),
    loss=LossConfig(past_dropout=0.3, past_dropout_all=0.4),
    train=TrainConfig(
        steps=6000,
        batch_size=8,
        lr=1e-3,
        warmup_steps=100,
        lr_decay="cosine",
        save_every=100,
    ),
    validation=ValidationConfig(every=1000, num_sequences=4, num_frames=10, num_steps=20),
)
_KITTI_STEP = RunConfig(  # the bits of _CITYSCAPES, so that its weights fit
    model=replace(BASE, num_instance_bits=8, norm="frozen_batch"),
    data=DataConfig(dataset="kitti-step", scale_max=2.0, brightness=0.2, contrast=0.2, saturation=0.2),
    train=TrainConfig(
        lr=3e-5, ema_decay=0.99, precision="bf16", encoder_weights="timm/resnet50.tv_in1k", save_every=1000
    ),
)
_KITTI_STEP_SMALL = replace(
    _KITTI_STEP,
    model=replace(SMALL, num_instance_bits=8),
    train=replace(_KITTI_STEP.train, lr=1e-4, encoder_weights=""),
)
_CAMVID = RunConfig(
    model=replace(TINY, image_size=(192, 256), num_class_bits=4, num_instance_bits=0, past_offsets=(), mask_stride=2),
    sampling=SamplingConfig(num_steps=5, num_steps_next=5),
    data=DataConfig(
        dataset="camvid",
        root="data/camvid",
        label_spec="camvid",
        scale_max=1.6,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        num_workers=1,
    ),
    train=TrainConfig(
        steps=3000,
        batch_size=8,
        lr=1e-3,
        warmup_steps=100,
        lr_decay="cosine",
        save_every=200,
        output_dir="results/camvid",
    ),
    validation=ValidationConfig(every=500, num_sequences=1, num_frames=101, num_steps=2, num_steps_next=2),
)
_CITYSCAPES = RunConfig(
    model=replace(BASE, image_size=(512, 1024), num_instance_bits=8, norm="frozen_batch"),
    data=DataConfig(
        dataset="cityscapes",
        root="data/cityscapes",
        label_spec="cityscapes",
        scale_max=3.0,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        pseudo_video=True,
    ),
    loss=LossConfig(past_dropout_all=0.5),  # half of the clips are images, as validation sees them
    train=TrainConfig(
        steps=100_000,
        lr=1e-4,
        precision="bf16",
        encoder_weights="timm/resnet50.tv_in1k",
    ),
)
PRESETS = {
    "synthetic-tiny": _SYNTHETIC_TINY,
    "camvid": _CAMVID,
    "kitti-step": _KITTI_STEP,
    "kitti-step-small": _KITTI_STEP_SMALL,
    "cityscapes": _CITYSCAPES,
}
