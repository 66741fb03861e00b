"""The presets: frozen, JSON-able, and consistent with the label spaces and sizes they name."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args, get_type_hints

import pytest

from pix2seq_d import config as settings
from pix2seq_d.config import RunConfig
from pix2seq_d.data.synthetic import DIFFICULTIES
from pix2seq_d.diffusion.samplers import SAMPLERS
from pix2seq_d.diffusion.schedule import SCHEDULES
from pix2seq_d.labels import LABEL_SPECS, get_label_spec
from pix2seq_d.presets import MODEL_SIZES, PRESETS

preset = pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().train.lr = 1.0  # type: ignore[misc]
    assert len({hash(config) for config in PRESETS.values()}) == len(PRESETS)


@preset
def test_settings_are_json_and_of_their_types(config: RunConfig) -> None:
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    for section in dataclasses.fields(RunConfig):
        part = getattr(config, section.name)
        hints = get_type_hints(type(part))
        assert set(values[section.name]) == set(hints)
        for name, hint in hints.items():
            value = getattr(part, name)
            if isinstance(hint, type):
                assert type(value) is hint, name
            elif isinstance(value, tuple):
                assert all(type(v) is get_args(hint)[0] for v in value), name
            else:
                assert value in get_args(hint), name


def literal(section: type, name: str) -> tuple[str, ...]:
    return get_args(get_type_hints(section)[name])


def test_choices_are_the_registered_names() -> None:
    assert set(literal(settings.ModelConfig, "schedule")) == set(SCHEDULES)
    assert set(literal(settings.SamplingConfig, "sampler")) == set(SAMPLERS)
    assert set(literal(settings.DataConfig, "label_spec")) == set(LABEL_SPECS)
    assert set(literal(settings.DataConfig, "difficulty")) == set(DIFFICULTIES)


@preset
def test_presets_fit_their_label_space(config: RunConfig) -> None:
    spec = get_label_spec(config.data.label_spec)
    assert config.model.num_class_bits == spec.num_class_bits
    assert (config.model.num_instance_bits > 0) == bool(spec.thing_ids)


@preset
def test_presets_are_sensible(config: RunConfig) -> None:
    assert list(config.model.past_offsets) == sorted(config.model.past_offsets)
    assert all(offset < 0 for offset in config.model.past_offsets)
    assert config.train.warmup_steps < config.train.steps
    assert 1 <= config.data.scale_min <= config.data.scale_max
    assert config.model.self_cond or not config.loss.self_cond_rate
    assert (config.model.norm == "frozen_batch") == bool(config.train.encoder_weights)
    assert min(config.train.save_every, config.train.keep_checkpoints, config.validation.num_sequences) >= 1


def test_still_images_get_a_past_and_videos_keep_theirs() -> None:
    assert [name for name, config in PRESETS.items() if config.data.pseudo_video] == ["cityscapes"]
    assert PRESETS["cityscapes"].loss.past_dropout_all < 1, "a past that is always dropped teaches nothing"


def test_model_sizes_grow() -> None:
    assert list(MODEL_SIZES) == ["tiny", "small", "base"]
    sizes = [(m.encoder_dim, m.encoder_layers, m.denoiser_dim, m.denoiser_layers) for m in MODEL_SIZES.values()]
    assert sizes == sorted(sizes)
    assert MODEL_SIZES["base"] == settings.ModelConfig()
