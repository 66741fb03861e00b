"""Configuration to objects: every part gets the numbers meant for it, in every preset."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_config

from pix2seq_d import build
from pix2seq_d.config import MODEL_SIZES, PRESETS, DataConfig, RunConfig
from pix2seq_d.data.batch import Batch
from pix2seq_d.data.pseudo_video import PseudoVideo
from pix2seq_d.models.pix2seq_d import Pix2SeqD


def on_meta(config: RunConfig) -> Pix2SeqD:
    with torch.device("meta"):
        return build.build_model(config)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds(name: str) -> None:
    config = PRESETS[name]
    model = on_meta(config)
    assert model.label_spec.name == config.data.label_spec
    assert model.image_size == config.model.image_size
    assert model.num_steps == config.sampling.num_steps
    module = build.build_training_loss(config, model)
    assert module.weight_power == config.loss.weight_power
    assert (module.past_dropout, module.past_dropout_all) == (config.loss.past_dropout, config.loss.past_dropout_all)
    settings = build.build_loop_settings(config)
    assert (settings.steps, settings.save_every) == (config.train.steps, config.train.save_every)
    assert settings.validate_every == config.validation.every


def test_sizes_of_the_models() -> None:
    millions = {}
    for name, size in MODEL_SIZES.items():
        model = on_meta(RunConfig(model=size))
        millions[name] = sum(p.numel() for p in model.parameters()) / 1e6
    assert 85 < millions["base"] < 105, "the paper's has about 94 million"
    assert millions["tiny"] < 6 < millions["small"] < 30, "12 MB in float16 hold 6 million"


def test_model_settings_reach_the_model(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "--model.target", "mse", "--sampling.min_pixels", "9", "--model.bit_scale", "0.5")
    model = build.build_model(config)
    assert (model.target, model.min_pixels, model.codec.scale) == ("mse", 9, 0.5)
    assert build.build_training_loss(config, model).loss.target == "mse"


def test_self_conditioning_needs_a_model_for_it() -> None:
    config = RunConfig(loss=replace(RunConfig().loss, self_cond_rate=0.5))
    with pytest.raises(ValueError, match=r"^loss.self_cond_rate: expected 0 where model.self_cond is false"):
        build.build_training_loss(config, on_meta(config))
    both = replace(config, model=replace(config.model, self_cond=True))
    assert build.build_training_loss(both, on_meta(both)).loss.self_cond_rate == 0.5


def test_the_learning_rate_is_that_of_the_settings() -> None:
    config = PRESETS["synthetic-tiny"]
    lr = build.build_lr_schedule(config)
    assert lr(config.train.warmup_steps) == config.train.lr
    assert lr(0) == pytest.approx(config.train.lr / config.train.warmup_steps)
    assert lr(config.train.steps) == pytest.approx(config.train.lr * config.train.lr_final)


# data


@pytest.mark.parametrize("dataset", ["kitti-step", "camvid"])
@pytest.mark.parametrize("videos", [False, True])
def test_missing_data_is_named(dataset: Any, videos: bool, tmp_path: Path) -> None:
    config = RunConfig(data=DataConfig(dataset=dataset, root=str(tmp_path / "nowhere")))
    clips = partial(build.build_clips, config.data, "train", past_offsets=(), size=(32, 64))
    with pytest.raises(ValueError, match=rf"^data.root: \S+nowhere does not exist.*{dataset}"):
        _ = build.build_videos(config) if videos else clips()


def test_an_unknown_dataset() -> None:
    data = DataConfig(dataset="nothing")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^data.dataset: expected synthetic, .*kitti-step.*, got 'nothing'"):
        build.build_clips(data, "train", past_offsets=(), size=(32, 64))


@pytest.mark.xfail(strict=True, reason="the reader of Cityscapes is not there yet")
def test_every_dataset_of_the_presets_has_a_reader() -> None:
    assert {config.data.dataset for config in PRESETS.values()} <= {"synthetic", *build.READERS}


def test_videos_are_those_of_the_validation_split(tmp_path: Path) -> None:
    options = "--validation.num_sequences 3 --validation.num_frames 5".split()
    videos = build.build_videos(tiny_config(tmp_path, *options))
    assert videos.sequence_ids == ("0000", "0001", "0002")
    assert videos.frame_ids("0002") == (0, 1, 2, 3, 4)
    image, class_map, _ = videos.read_frame("0001", 0)
    assert image.shape == (32, 64, 3)
    other = build.build_videos(tiny_config(tmp_path, *options, "--data.val_split", "test"))
    assert not (other.read_frame("0001", 0)[1] == class_map).all()


def test_augmentation_settings_reach_the_transform() -> None:
    """Every one of them, to the argument of its name."""
    names = {"past_drop_rate": "drop_rate", "past_swap_rate": "swap_rate", "past_edge_rate": "edge_rate"}
    values = {"hue": 0.1, "blur": 0.2, "noise": 0.3, "brightness": 0.4, "contrast": 0.5, "saturation": 0.6}
    rates = {"past_drop_rate": 0.15, "past_swap_rate": 0.25, "past_edge_rate": 0.35}
    config = DataConfig(scale_min=1.5, scale_max=2.5, flip_rate=0.7, past_shift=3, **values, **rates)
    transform = build.build_transform(config, (32, 64), (16, 32))
    assert {name: getattr(transform, name) for name in values} == values
    assert {name: getattr(transform.corruption, names[name]) for name in rates} == rates
    assert (transform.scale_range, transform.flip_rate, transform.corruption.shift) == ((1.5, 2.5), 0.7, 3)
    assert (transform.image_size, transform.mask_size) == ((32, 64), (16, 32))
    assert not build.build_transform(DataConfig(), (32, 64), (16, 32)).corruption


def test_pseudo_video_settings_reach_the_clips() -> None:
    """The clips inside have no past of their own; without the switch there is nothing around them."""
    values = {"camera_motion": 0.3, "paste_rate": 0.6, "paste_max": 7, "paste_motion": 0.9, "seed": 5}
    options: Any = {"past_offsets": (-3, -1), "size": (32, 64)}
    clips = build.build_clips(DataConfig(pseudo_video=True, **values), "train", **options)
    assert isinstance(clips, PseudoVideo)
    assert {name: getattr(clips, name) for name in values} == values
    assert (clips.past_offsets, clips.dataset.past_offsets) == ((-3, -1), ())
    assert clips[7].class_map.shape == (3, 32, 64)
    assert not isinstance(build.build_clips(DataConfig(), "train", **options), PseudoVideo)


def first_batches(config: RunConfig, count: int, **options: int) -> list[Batch]:
    model = build.build_model(config)
    batches = iter(build.build_train_loader(config, model, **{"start": 0, "num_processes": 1, **options}))
    return [next(batches) for _ in range(count)]


def same(a: Batch, b: Batch) -> bool:
    return a.names == b.names and all(
        torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Batch) if f.name != "names"
    )


def test_the_loader_begins_where_a_step_begins(tmp_path: Path) -> None:
    """Step 1 of runs with two micro-steps, on one process and on two."""
    config = tiny_config(tmp_path, "--train.accumulation", "2")
    batches = first_batches(config, 5)
    assert len(batches[0]) == 2
    assert batches[0].frame.shape == (2, 3, 32, 64)
    assert batches[0].class_codes.shape == (2, 3, 16, 32)
    assert same(first_batches(config, 1, start=1)[0], batches[2])
    assert same(first_batches(config, 1, start=1, num_processes=2)[0], batches[4])
    assert not same(batches[0], batches[2])
