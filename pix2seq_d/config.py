"""The settings of a run as frozen dataclasses. Standard library only; build.py and scripts read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SpecName = Literal[
    "kitti-step", "cityscapes-step", "cityscapes", "cityscapes-vps", "motchallenge-step", "bdd100k", "coco", "camvid"
]


@dataclass(frozen=True)
class ModelConfig:
    """The network and its bits.

    Attributes:
        image_size: (height, width) in pixels that frames are fitted into; multiples of the network's stride.
        mask_stride: image size / mask size.
        num_class_bits: bits of the class code.
        num_instance_bits: bits of the instance code, room for 2^n - 1 objects at a time; 0 = semantic only.
        bit_scale: amplitude b of the analog bits.
        target: what the denoiser predicts: "softmax" over codes or "mse" on bits.
        schedule: noise schedule: "cosine", "linear" or "sigmoid".
        self_cond: feed the previous estimate back (a second input of the denoiser).
        past_offsets: past frames whose maps condition the next, oldest first; [] for images.
        block: backbone block: "basic" or "bottleneck".
        stem_width: channels of the backbone's stem.
        stage_widths: channels per backbone stage, before the block's expansion.
        stage_depths: blocks per backbone stage.
        stage_strides: stride per backbone stage; the first counts from image / 4.
        norm: backbone norm: "group" from scratch, "frozen_batch" for ImageNet weights.
        encoder_dim: width of the encoder's transformer.
        encoder_layers: layers of the encoder's transformer.
        encoder_heads: heads of the encoder's transformer.
        pyramid_dim: channels of the top-down merge.
        cond_channels: channels of the image features at mask size.
        denoiser_widths: channels per UNet level.
        denoiser_blocks: residual blocks per UNet level.
        denoiser_dim: width of the denoiser's transformer.
        denoiser_layers: layers of the denoiser's transformer.
        denoiser_heads: heads of the denoiser's transformer.
        dropout: dropout rate in both transformers and the residual blocks.
    """

    image_size: tuple[int, int] = (384, 1248)
    mask_stride: int = 2
    num_class_bits: int = 5
    num_instance_bits: int = 6
    bit_scale: float = 0.1
    target: Literal["softmax", "mse"] = "softmax"
    schedule: Literal["cosine", "linear", "sigmoid"] = "cosine"
    self_cond: bool = False
    past_offsets: tuple[int, ...] = (-2, -1)
    block: Literal["basic", "bottleneck"] = "bottleneck"
    stem_width: int = 64
    stage_widths: tuple[int, ...] = (64, 128, 256, 512)
    stage_depths: tuple[int, ...] = (3, 4, 6, 3)
    stage_strides: tuple[int, ...] = (1, 2, 2, 1)
    norm: Literal["group", "frozen_batch"] = "group"
    encoder_dim: int = 512
    encoder_layers: int = 12
    encoder_heads: int = 8
    pyramid_dim: int = 256
    cond_channels: int = 256
    denoiser_widths: tuple[int, ...] = (128, 128, 256, 256)
    denoiser_blocks: int = 1
    denoiser_dim: int = 512
    denoiser_layers: int = 6
    denoiser_heads: int = 8
    dropout: float = 0.0


@dataclass(frozen=True)
class SamplingConfig:
    """How masks are generated, in validation and as the saved model's defaults.

    Attributes:
        sampler: "ddim", "ddpm", "dpmpp_2m" or "renoise".
        num_steps: denoising steps of a first frame.
        num_steps_next: denoising steps of later frames, which see past maps.
        td_steps: asymmetric time interval, in steps.
        min_pixels: smallest segment kept, in pixels of the frame; smaller ones go to their neighbours.
    """

    sampler: Literal["ddim", "ddpm", "dpmpp_2m", "renoise"] = "ddim"
    num_steps: int = 20
    num_steps_next: int = 10
    td_steps: float = 1.0
    min_pixels: int = 0


@dataclass(frozen=True)
class DataConfig:
    """Where clips come from and how they are varied.

    Attributes:
        dataset: "synthetic" or a dataset on disk; "folder" is your own (docs/own_dataset.md).
        root: folder of the dataset (unused for "synthetic").
        download: fetch the dataset from the Hub where root is missing or empty ("kitti-step" only).
        label_spec: name of the label spec of the run; where the dataset has another, its classes are mapped by name
            (unused for "folder", whose labels.json is the label spec).
        train_split: split to train on.
        val_split: split to validate on.
        scale_min: smallest random enlargement of a clip.
        scale_max: largest random enlargement of a clip; 1 and 1 switch scale jitter off.
        flip_rate: probability of mirroring a clip.
        brightness: largest relative change of brightness.
        contrast: largest relative change of contrast.
        saturation: largest relative change of saturation.
        hue: largest rotation of the colours, in turns.
        blur: largest standard deviation of a Gaussian blur, in pixels of the model's image.
        noise: largest standard deviation of the image noise, in grey levels.
        past_drop_rate: probability per object of missing from one past map or from all.
        past_swap_rate: probability per clip that two neighbours exchange their ids in one past map.
        past_shift: largest displacement of an object in a past map, in mask pixels.
        past_edge_rate: probability per object and past map of a mask one pixel too wide or too narrow.
        pseudo_video: train on clips made of single labelled images; the dataset's own past maps are not used.
        camera_motion: factor on the camera's speed in such clips; 0 = it stands.
        paste_rate: probability that things of another image move through such a clip.
        paste_max: most things pasted into a clip.
        paste_motion: factor on their speed; 0 = they stand.
        num_workers: loader processes; 0 loads in the training process.
        on_error: a training clip that cannot be read stops the run ("stop"), or is listed in bad_files.txt ("skip").
        map_cache_mb: memory of each loader process for label maps that it has read, in MB; 0 reads them again.
        num_sequences: sequences of the synthetic training set.
        num_frames: frames per synthetic sequence.
        difficulty: of the synthetic data: "easy", "default" or "hard".
        seed: of the synthetic data and of clips made of single images.
    """

    dataset: Literal[SpecName, "synthetic", "folder"] = "synthetic"
    root: str = "data/kitti_step"
    download: bool = True
    label_spec: SpecName = "kitti-step"
    train_split: str = "train"
    val_split: str = "val"
    scale_min: float = 1.0
    scale_max: float = 1.0
    flip_rate: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    past_drop_rate: float = 0.0
    past_swap_rate: float = 0.0
    past_shift: int = 0
    past_edge_rate: float = 0.0
    pseudo_video: bool = False
    camera_motion: float = 1.0
    paste_rate: float = 0.5
    paste_max: int = 3
    paste_motion: float = 1.0
    num_workers: int = 4
    on_error: Literal["stop", "skip"] = "stop"
    map_cache_mb: int = 0
    num_sequences: int = 1000
    num_frames: int = 40
    difficulty: Literal["easy", "default", "hard"] = "default"
    seed: int = 0


@dataclass(frozen=True)
class LossConfig:
    """The training loss.

    Attributes:
        weight_power: p of the inverse-area pixel weight; 0 = uniform.
        self_cond_rate: probability per sample of self-conditioning; needs model.self_cond.
        past_dropout: probability of nulling each past map.
        past_dropout_all: probability of nulling all past maps of a sample.
        t_sampling: times "uniform" for every sample by itself, or "stratified" over the global batch.
        self_aligned_rate: probability per sample of noising the model's own estimate of the map, not the map.
        own_past_rate: probability per sample of past maps that the model has predicted, in place of the true ones.
        own_past_steps: denoising steps of such a past map.
        own_ramp: steps between which both of these rates rise from 0 to their values; [0, 0] = from the start.
    """

    weight_power: float = 0.2
    self_cond_rate: float = 0.0
    past_dropout: float = 0.15
    past_dropout_all: float = 0.1
    t_sampling: Literal["uniform", "stratified"] = "uniform"
    self_aligned_rate: float = 0.0
    own_past_rate: float = 0.0
    own_past_steps: int = 2
    own_ramp: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation and bookkeeping.

    Attributes:
        steps: optimizer steps of the whole run.
        batch_size: clips per process and micro-step.
        accumulation: micro-steps per optimizer step.
        lr: peak learning rate of AdamW.
        warmup_steps: steps of linear warm-up.
        lr_decay: "constant" or "cosine" (to lr_final over the run).
        lr_final: learning rate at the last step of a cosine decay, as a fraction of lr.
        weight_decay: of AdamW, on matrices and kernels only.
        beta1: first-moment decay of AdamW.
        beta2: second-moment decay of AdamW.
        clip_norm: gradient norm limit.
        ema_decay: final decay of the averaged weights.
        post_hoc_ema: relative widths of further averages, at least two (0.05 0.1), of whose snapshots
            `python -m pix2seq_d ema` makes others after the run; [] = none.
        post_hoc_every: steps between these snapshots, a multiple of save_every.
        precision: "no" (float32), "bf16" or "fp16".
        seed: of weights, noise, data order and augmentation.
        log_every: steps between log lines.
        save_every: steps between checkpoints.
        keep_checkpoints: newest checkpoints kept.
        output_dir: run folder; empty = the script's own.
        init_from: run folder, checkpoint, saved model or Hub id to take weights from at step 0; empty = none.
        encoder_weights: Hub id of ImageNet ResNet weights (safetensors, torchvision's names); empty = random.
        resume: continue from the newest complete checkpoint of output_dir.
        compile: compile encoder and denoiser with torch.compile (takes minutes at the start).
        activation_checkpointing: less memory for about a third more computation, equal results.
        max_skips: stop when so many steps in a row had a loss or gradient that is not finite; such steps are skipped.
        cpu: stay on the CPU although a GPU is there.
        threads: CPU threads per process for torch; 0 leaves torch's choice.
        trackers: tensorboard, wandb or another of Accelerate's; auto = tensorboard where it is installed; [] = none.
    """

    steps: int = 50_000
    batch_size: int = 4
    accumulation: int = 1
    lr: float = 1e-4
    warmup_steps: int = 1000
    lr_decay: Literal["constant", "cosine"] = "constant"
    lr_final: float = 0.01
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    post_hoc_ema: tuple[float, ...] = ()
    post_hoc_every: int = 1000
    precision: Literal["no", "bf16", "fp16"] = "no"
    seed: int = 0
    log_every: int = 10
    save_every: int = 1000
    keep_checkpoints: int = 2
    output_dir: str = ""
    init_from: str = ""
    encoder_weights: str = ""
    resume: bool = True
    compile: bool = False
    activation_checkpointing: bool = False
    max_skips: int = 10
    cpu: bool = False
    threads: int = 0
    trackers: tuple[str, ...] = ("auto",)


@dataclass(frozen=True)
class ValidationConfig:
    """Scoring during training: averaged weights, own past predictions.

    Attributes:
        every: steps between validations; 0 = never.
        num_sequences: sequences scored.
        num_frames: first frames of each sequence scored.
        num_steps: denoising steps of a first frame.
        num_steps_next: denoising steps of later frames.
        best: metric whose best averaged model is kept as best/ of the run folder; empty = none.
    """

    every: int = 5000
    num_sequences: int = 4
    num_frames: int = 20
    num_steps: int = 5
    num_steps_next: int = 5
    best: Literal["", "miou", "pq", "pq_things", "pq_stuff", "vpq", "stq", "aq", "iou"] = ""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
