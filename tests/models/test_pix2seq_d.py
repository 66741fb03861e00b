"""The whole model: what each argument does, what the conditioning does, what runs once per frame."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from model_probes import SETTINGS, inputs, predict, randn

from pix2seq_d.diffusion.samplers import sample_ddim
from pix2seq_d.diffusion.schedule import CosineSchedule
from pix2seq_d.labels import get_label_spec
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.presets import MODEL_SIZES

Build = Callable[..., Pix2SeqD]


# shapes and arguments


@pytest.mark.parametrize("image_size", [(32, 64), (64, 40)])
@pytest.mark.parametrize("past_offsets", [(), (-1,), (-2, -1)])
def test_shapes(tiny_model: Build, image_size: tuple[int, int], past_offsets: tuple[int, ...]) -> None:
    model = tiny_model(image_size=image_size, past_offsets=past_offsets)
    assert model.mask_size == (image_size[0] // 2, image_size[1] // 2)
    assert predict(model).shape == (1, 32 + 8, *model.mask_size)


def test_semantic_only(tiny_model: Build) -> None:
    model = tiny_model(num_instance_bits=0, past_offsets=())
    assert model.codec.group_bits == (5,)
    assert model.num_instance_codes == 0
    assert predict(model).shape == (1, 32, 16, 32)


def test_number_of_instance_codes(tiny_model: Build) -> None:
    assert tiny_model(num_instance_bits=3).num_instance_codes == 7


@pytest.mark.parametrize("target", ["softmax", "mse"])
def test_bound_denoiser_returns_bits(tiny_model: Build, target: str) -> None:
    model = tiny_model(target=target)
    denoise = model.bind(model.condition(*inputs(model)))
    with torch.no_grad():
        x0 = denoise(randn(1, 8, 16, 32), torch.tensor([0.5]))
    assert x0.shape == (1, 8, 16, 32)
    assert denoise.logits is not None
    if target == "softmax":
        assert torch.equal(x0, model.codec.expected_bits(denoise.logits))
        assert x0.abs().max() <= 0.1
    else:
        assert torch.equal(x0, denoise.logits)


CHANGES: dict[str, Any] = {
    "label_spec": get_label_spec("cityscapes"),
    "image_size": (32, 96),
    "mask_stride": 4,
    "num_class_bits": 6,
    "num_instance_bits": 4,
    "bit_scale": 1.0,
    "target": "mse",
    "schedule": "linear",
    "self_cond": True,
    "past_offsets": (-1,),
    "block": "bottleneck",
    "stem_width": 12,
    "stage_widths": (8, 24),
    "stage_depths": (2, 1),
    "stage_strides": (1, 1),
    "norm": "frozen_batch",
    "encoder_dim": 32,
    "encoder_layers": 2,
    "encoder_heads": 4,
    "pyramid_dim": 24,
    "cond_channels": 16,
    "denoiser_widths": (8, 24),
    "denoiser_blocks": 2,
    "denoiser_dim": 32,
    "denoiser_layers": 2,
    "denoiser_heads": 4,
    "dropout": 0.5,
    "sampler": "ddpm",
    "num_steps": 9,
    "num_steps_next": 9,
    "td_steps": 0.5,
    "min_pixels": 9,
}


def test_the_list_of_changes_is_complete() -> None:
    assert set(CHANGES) == set(inspect.signature(Pix2SeqD.__init__).parameters) - {"self"}


@pytest.fixture(scope="module")
def reference(tiny_model: Build) -> tuple[object, ...]:
    return summary(tiny_model())


def summary(model: Pix2SeqD) -> tuple[object, ...]:
    """Settings, parameters, and what comes out of a step in training mode."""
    settings = [getattr(model, name) for name in SETTINGS]
    torch.manual_seed(0)  # for dropout
    logits = predict(model.train())
    return settings, sum(p.numel() for p in model.parameters()), logits.shape, logits.sum().item()


def test_the_same_arguments_give_the_same(tiny_model: Build, reference: tuple[object, ...]) -> None:
    assert summary(tiny_model()) == reference


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_argument_has_an_effect(tiny_model: Build, reference: tuple[object, ...], name: str) -> None:
    assert summary(tiny_model(**{name: CHANGES[name]})) != reference


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_class_bits": 4}, "num_class_bits: expected at least 5, got 4"),
        ({"past_offsets": (-1, 0)}, r"past_offsets: expected negative numbers, got \(-1, 0\)"),
        ({"image_size": (36, 64)}, r"image_size: expected multiples of 8, got \(36, 64\)"),
        ({"denoiser_widths": (8,) * 5}, r"image_size: expected multiples of 32, got \(48, 64\)"),
        ({"target": "eps"}, "target: expected one of softmax, mse, got 'eps'"),
        ({"block": "wide"}, "block: expected one of"),
        ({"norm": "layer"}, "norm: expected one of"),
        ({"mask_stride": 8}, "mask_stride: expected one of"),
        ({"denoiser_heads": 3}, "num_heads: expected a divisor"),
        ({"encoder_dim": 6}, "dim: expected a multiple of 4, got 6"),
        ({"denoiser_dim": 6}, "dim: expected a multiple of 4, got 6"),
        ({"bit_scale": 0.0}, "scale: expected a positive number"),
        ({"num_instance_bits": 17}, "group_bits: expected"),
    ],
)
def test_wrong_arguments_raise(tiny_model: Build, overrides: dict[str, Any], message: str) -> None:
    if "denoiser_widths" in overrides:
        overrides = {**overrides, "image_size": (48, 64)}
    with pytest.raises(ValueError, match=message):
        tiny_model(**overrides)


def test_paper_size_has_about_94_million_parameters() -> None:
    """Without classifier ResNet-50 has 23.5 M of them; the paper's figure is 94.5 M."""
    with torch.device("meta"):
        model = Pix2SeqD(label_spec=get_label_spec("kitti-step"), **vars(MODEL_SIZES["base"]))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(94e6, rel=0.1)
    assert model.mask_size == (192, 624)


# conditioning


def test_starts_near_zero(tiny_model: Build) -> None:
    assert 0 < predict(tiny_model(lively=False)).abs().max().item() < 0.02


def test_gamma_noise_and_frame_show(tiny_model: Build) -> None:
    model = tiny_model()
    reference = predict(model)
    assert (predict(model, gamma=0.6) - reference).abs().max().item() > 1e-3
    assert (predict(model, seed=1) - reference).abs().max().item() > 1e-3
    frame, codes, present = inputs(model)
    stem = model.condition(frame, codes, present).stem
    assert (model.condition(1 - frame, codes, present).stem - stem).abs().max().item() > 1e-3


def test_a_missing_past_map_is_no_class_not_even_void(tiny_model: Build) -> None:
    model = tiny_model()
    missing = model.condition(*inputs(model, present=False)).stem
    for code in range(32):
        stem = model.condition(*inputs(model, code=code)).stem
        assert (stem - missing).abs().max().item() > 1e-3
    assert torch.equal(model.condition(*inputs(model, present=False, code=7)).stem, missing)


def test_each_past_map_shows_on_its_own(tiny_model: Build) -> None:
    model = tiny_model()
    frame, codes, _ = inputs(model)
    stems = [model.condition(frame, codes, torch.tensor([[a, b]])).stem for a in (False, True) for b in (False, True)]
    for i, one in enumerate(stems):
        for other in stems[:i]:
            assert (one - other).abs().max().item() > 1e-3


def test_the_encoder_runs_once_per_frame(tiny_model: Build) -> None:
    model, calls = tiny_model(), []
    model.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    model.denoiser.stem_cond.register_forward_hook(lambda *_: calls.append("stem"))
    model.denoiser.register_forward_hook(lambda *_: calls.append("step"))
    with torch.no_grad():
        denoise = model.bind(model.condition(*inputs(model)))
        sample_ddim(denoise, randn(1, 8, 16, 32), CosineSchedule(), 5, clip=0.1)
    assert calls == ["encoder", "stem", *["step"] * 5]


@pytest.mark.parametrize("overrides", [{}, {"self_cond": True, "target": "mse", "num_instance_bits": 0}])
def test_gradients_reach_every_parameter(tiny_model: Build, overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides).train()
    cond = model.condition(*inputs(model))
    x = randn(1, model.codec.num_bits, *model.mask_size)
    model.denoiser(x, torch.tensor([0.5]), cond, x * 0.1).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
