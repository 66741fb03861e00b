"""Configuration -> objects. The only module of the package that reads a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from pix2seq_d.config import DataConfig, RunConfig
from pix2seq_d.data.archive import unpack_found_zips
from pix2seq_d.data.batch import Batch
from pix2seq_d.data.bdd100k import Bdd100k
from pix2seq_d.data.camvid import CamVid
from pix2seq_d.data.cityscapes import Cityscapes, how_to_get, zips_of
from pix2seq_d.data.cityscapes_vps import CityscapesVps
from pix2seq_d.data.coco import Coco
from pix2seq_d.data.corruption import PastCorruption
from pix2seq_d.data.download import DOWNLOADS, fetch_dataset
from pix2seq_d.data.kitti_step import KittiStep
from pix2seq_d.data.labelled_folder import LabelledFolder
from pix2seq_d.data.labelled_videos import VideoDataset
from pix2seq_d.data.labels_json import LABELS_NAME, read_labels_json
from pix2seq_d.data.loaders import ClipDataset, build_loader
from pix2seq_d.data.motchallenge_step import MotChallengeStep
from pix2seq_d.data.pseudo_video import PseudoVideo
from pix2seq_d.data.remapped import RemappedClips, RemappedVideos
from pix2seq_d.data.synthetic import SyntheticClips
from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.data.transforms import ClipTransform
from pix2seq_d.diffusion.loss import DiffusionLoss
from pix2seq_d.diffusion.schedule import SCHEDULES
from pix2seq_d.engine.optim import lr_at
from pix2seq_d.engine.trainer import LoopSettings, TrainingLoss
from pix2seq_d.label_mapping import describe_mapping, same_space, shares_classes
from pix2seq_d.labels import LabelSpec, get_label_spec
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.conditioning import clip_offsets

READERS: dict[str, Callable[..., Any]] = {
    "kitti-step": KittiStep,
    "camvid": CamVid,
    "cityscapes": Cityscapes,
    "cityscapes-step": partial(Cityscapes, spec=get_label_spec("cityscapes-step")),
    "cityscapes-vps": CityscapesVps,
    "motchallenge-step": MotChallengeStep,
    "bdd100k": Bdd100k,
    "coco": Coco,
    "folder": LabelledFolder,
}
# what their maps hold; a "folder" says so itself
LABEL_SPECS_OF = {"synthetic": "kitti-step", **{name: name for name in READERS if name != "folder"}}
ZIPS_OF = {"cityscapes": zips_of, "cityscapes-step": zips_of}  # archives that users fetch themselves, by splits


def build_label_spec(config: DataConfig) -> LabelSpec:
    """The label spec the run works in: that of data.label_spec or, for the dataset "folder", of its labels.json.

    Raises:
        ValueError: no class of the dataset has a counterpart in it, or labels.json is missing or broken.
    """
    if config.dataset == "folder":
        _check_root(config)
        return read_labels_json(Path(config.root) / LABELS_NAME)
    target, source = get_label_spec(config.label_spec), LABEL_SPECS_OF.get(config.dataset)
    if source is not None and not shares_classes(get_label_spec(source), target):
        raise ValueError(
            f"data.label_spec: expected a spec that shares classes with data.dataset {config.dataset} "
            f"({source}), got {target.name!r}"
        )
    return target


def describe_label_mapping(config: DataConfig) -> str:
    """How the classes of the dataset become those of the run, in one line; empty where they are the same."""
    name = LABEL_SPECS_OF.get(config.dataset)
    return "" if name is None else describe_mapping(get_label_spec(name), build_label_spec(config))


def build_model(config: RunConfig) -> Pix2SeqD:
    """The model with random weights."""
    arguments = {**dataclasses.asdict(config.model), **dataclasses.asdict(config.sampling)}
    spec = build_label_spec(config.data)
    if config.model.num_class_bits < spec.num_class_bits:
        raise ValueError(
            f"model.num_class_bits: expected at least {spec.num_class_bits} for void and the {spec.num_classes} "
            f"classes of label spec {spec.name}, got {config.model.num_class_bits}"
        )
    return Pix2SeqD(label_spec=spec, **arguments)


def build_training_loss(config: RunConfig, model: Pix2SeqD) -> TrainingLoss:
    """The model with its loss."""
    if config.loss.self_cond_rate and not config.model.self_cond:
        raise ValueError("loss.self_cond_rate: expected 0 where model.self_cond is false, got a positive rate")
    if config.loss.own_past_rate and not config.model.past_offsets:
        raise ValueError("loss.own_past_rate: expected 0 where model.past_offsets is empty, got a positive rate")
    loss = DiffusionLoss(
        SCHEDULES[config.model.schedule](),
        model.codec,
        target=config.model.target,
        self_cond_rate=config.loss.self_cond_rate,
        self_aligned_rate=config.loss.self_aligned_rate,
    )
    return TrainingLoss(
        model,
        loss,
        weight_power=config.loss.weight_power,
        past_dropout=config.loss.past_dropout,
        past_dropout_all=config.loss.past_dropout_all,
        own_past_rate=config.loss.own_past_rate,
        own_past_steps=config.loss.own_past_steps,
    )


def prepare_data(config: DataConfig) -> None:
    """Fetches a dataset of the Hub whose folder is missing, unpacks archives that the user has put beside the data.

    Only those that hold a split of the run: archives of Cityscapes fill hundreds of gigabytes.

    Every process of a run may call it: one works, the others wait until it is done.

    Raises:
        DataError, OSError: as `fetch_dataset` and `unpack_found_zips`.
    """
    if config.download and config.dataset in DOWNLOADS:
        fetch_dataset(config.dataset, config.root)
    if config.dataset in ZIPS_OF:
        unpack_found_zips(config.root, ZIPS_OF[config.dataset]({config.train_split, config.val_split}))


def build_clips(
    config: DataConfig, split: str, *, past_offsets: Sequence[int], size: tuple[int, int], all_frames: bool = False
) -> ClipDataset:
    """Clips of a split for training, in the label spec of the run; synthetic frames are rendered at `size` (H, W).

    With `all_frames` they carry the images of the past frames too.
    """
    if not config.pseudo_video:
        return _real_clips(config, split, past_offsets=past_offsets, size=size, all_frames=all_frames)
    return PseudoVideo(
        _real_clips(config, split, past_offsets=(), size=size),
        build_label_spec(config),
        past_offsets=past_offsets,
        seed=config.seed,
        camera_motion=config.camera_motion,
        paste_rate=config.paste_rate,
        paste_max=config.paste_max,
        paste_motion=config.paste_motion,
        all_frames=all_frames,
    )


def _real_clips(
    config: DataConfig, split: str, *, past_offsets: Sequence[int], size: tuple[int, int], all_frames: bool = False
) -> ClipDataset:
    target = build_label_spec(config)
    if config.dataset == "synthetic":
        source = SyntheticVideos.label_spec
        clips: ClipDataset = SyntheticClips(
            split=split,
            num_sequences=config.num_sequences,
            num_frames=config.num_frames,
            past_offsets=tuple(past_offsets),
            height=size[0],
            width=size[1],
            seed=config.seed,
            difficulty=config.difficulty,
            all_frames=all_frames,
        )
    else:
        reader = _read_split(config, split, past_offsets=tuple(past_offsets), all_frames=all_frames)
        reader.cache_maps(config.map_cache_mb * 1_000_000)
        clips, source = reader, reader.label_spec
    return clips if same_space(source, target) else RemappedClips(clips, source, target)


def build_videos(config: RunConfig) -> VideoDataset:
    """Whole labelled videos of the validation split in the label spec of the run."""
    target = build_label_spec(config.data)
    if config.data.dataset == "synthetic":
        height, width = config.model.image_size
        videos: VideoDataset = SyntheticVideos(
            split=config.data.val_split,
            num_sequences=config.validation.num_sequences,
            num_frames=config.validation.num_frames,
            height=height,
            width=width,
            seed=config.data.seed,
            difficulty=config.data.difficulty,
        )
    else:
        videos = _read_split(config.data, config.data.val_split)
    return videos if same_space(videos.label_spec, target) else RemappedVideos(videos, target)


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


def build_train_loader(
    config: RunConfig, model: Pix2SeqD, *, start: int, num_processes: int, samples: int | None = None
) -> DataLoader[Batch]:
    """The training loader, beginning where optimizer step `start` begins.

    Args:
        config: of the run.
        model: whose sizes the samples get.
        start: optimizer steps done.
        num_processes: processes of the run.
        samples: taken from the data before, which counts if batches were of another size; None = `start` of today's.
            What is left of a batch that was begun comes in the next epoch.
    """
    first = start * config.train.accumulation * num_processes
    if start and samples is not None:
        first = -(-samples // config.train.batch_size)
    offsets, own_past = config.model.past_offsets, config.loss.own_past_rate > 0
    maps = clip_offsets(offsets) if own_past else offsets
    clips = build_clips(
        config.data, config.data.train_split, past_offsets=maps, size=config.model.image_size, all_frames=own_past
    )
    return build_loader(
        clips,
        build_transform(config.data, config.model.image_size, model.mask_size),
        build_label_spec(config.data),
        batch_size=config.train.batch_size,
        num_instance_codes=model.num_instance_codes,
        seed=config.train.seed,
        start=first,
        num_workers=config.data.num_workers,
        skip_listing=Path(config.train.output_dir) / "bad_files.txt" if config.data.on_error == "skip" else None,
        past_images=sum(offset >= min(offsets) for offset in maps) if own_past else 0,
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
        max_skips=config.train.max_skips,
        t_sampling=config.loss.t_sampling,
        own_ramp=config.loss.own_ramp,
    )


def _read_split(config: DataConfig, split: str, *, past_offsets: tuple[int, ...] = (), all_frames: bool = False) -> Any:
    dataset = _reader(config)(config.root, split, past_offsets=past_offsets, all_frames=all_frames)
    if not dataset.has_labels:
        names = "data.train_split, data.val_split"
        raise ValueError(f"{names}: expected splits with public label maps, got {split!r} of {config.dataset}")
    return dataset


def _reader(config: DataConfig) -> Callable[..., Any]:
    if config.dataset not in READERS:
        raise ValueError(f"data.dataset: expected {', '.join(('synthetic', *READERS))}, got {config.dataset!r}")
    _check_root(config)
    return READERS[config.dataset]


def _check_root(config: DataConfig) -> None:
    if not Path(config.root).exists():
        how = f"docs/datasets.md says how to get {config.dataset}"
        if config.dataset in ZIPS_OF:
            how = how_to_get(Path(config.root))
        raise ValueError(f"data.root: {config.root} does not exist; {how}")
