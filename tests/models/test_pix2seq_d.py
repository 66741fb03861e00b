"""The whole model: what each argument does, what runs once per frame, folders and the Hub there and back."""

from __future__ import annotations

import inspect
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from loopback_hub import LoopbackHub, running_hub
from safetensors.torch import load_file, save_file
from torch import Tensor

from pix2seq_d.config import MODEL_SIZES
from pix2seq_d.diffusion.samplers import sample_ddim
from pix2seq_d.diffusion.schedule import CosineSchedule
from pix2seq_d.labels import LabelSpec, get_label_spec
from pix2seq_d.models.pix2seq_d import Pix2SeqD

Build = Callable[..., Pix2SeqD]
TOY = LabelSpec("toy", ("road", "car"), ((0, 0, 0), (9, 9, 9)), thing_ids=(1,))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(model: Pix2SeqD, *, present: bool = True, code: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A frame, past codes that are `code` everywhere, and whether they are present."""
    t, g = len(model.past_offsets), len(model.codec.group_bits)
    frame = torch.rand(1, 3, *model.image_size, generator=torch.Generator().manual_seed(1))
    codes = torch.full((1, t, g, *model.mask_size), code)
    codes[:, :, 1:] = 0
    return frame, codes, torch.full((1, t), present)


@torch.no_grad()
def predict(model: Pix2SeqD, *, seed: int = 0, gamma: float = 0.5, **options: Any) -> Tensor:
    """(1, S, h, w) logits of one denoising step."""
    denoise = model.bind(model.condition(*inputs(model, **options)))
    denoise(randn(1, model.codec.num_bits, *model.mask_size, seed=seed), torch.tensor([gamma]), None)
    assert denoise.logits is not None
    return denoise.logits


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
SETTINGS = (
    "label_spec",
    "past_offsets",
    "schedule",
    "sampler",
    "num_steps",
    "num_steps_next",
    "td_steps",
    "min_pixels",
)


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


# folders


@pytest.fixture
def folder(tiny_model: Build, tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    tiny_model().save_pretrained(path)
    return path


def change_config(folder: Path, **changes: Any) -> None:
    """Changes keys of config.json; None removes one."""
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def load_error(folder: Path | str, **options: Any) -> str:
    """The message of the ValueError that loading raises, checked to be one line."""
    with pytest.raises(ValueError) as info:
        Pix2SeqD.from_pretrained(folder, **options)
    message = str(info.value)
    assert "\n" not in message
    assert info.value.__suppress_context__ or info.value.__context__ is None
    return message


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"past_offsets": (), "num_instance_bits": 0, "target": "mse"},
        {"norm": "frozen_batch", "self_cond": True, "schedule": "sigmoid", "label_spec": TOY, "num_class_bits": 2},
        {"sampler": "ddpm", "num_steps": 7, "num_steps_next": 4, "td_steps": 0.25, "min_pixels": 30},
    ],
)
def test_folder_round_trip(tiny_model: Build, tmp_path: Path, overrides: dict[str, Any]) -> None:
    model = tiny_model(**overrides)
    model.save_pretrained(tmp_path / "saved")
    loaded = Pix2SeqD.from_pretrained(tmp_path / "saved")
    assert torch.equal(predict(loaded), predict(model))
    assert not loaded.training
    for name in (*SETTINGS, "image_size", "codec", "target", "mask_stride"):
        assert getattr(loaded, name) == getattr(model, name), name
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/config.json").read_text() == (tmp_path / "saved/config.json").read_text()
    assert sorted(os.listdir(tmp_path / "saved")) == ["README.md", "config.json", "model.safetensors"]


def test_config_holds_every_argument(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    assert set(values) == set(CHANGES)
    assert values["label_spec"]["class_names"][0] == "road"


def test_saving_again_replaces(tiny_model: Build, folder: Path) -> None:
    other = tiny_model(seed=1, num_steps=9)
    other.save_pretrained(folder)
    loaded = Pix2SeqD.from_pretrained(folder)
    assert loaded.num_steps == 9
    assert torch.equal(predict(loaded), predict(other))


def test_half_precision_weights_load_as_float32(tiny_model: Build, folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({k: v.half() for k, v in state.items()}, folder / "model.safetensors")
    loaded = Pix2SeqD.from_pretrained(folder)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.allclose(predict(loaded), predict(tiny_model()), atol=0.1)


def test_unknown_and_missing_keys_are_named(folder: Path) -> None:
    change_config(folder, num_layers=3, attention="flash")
    assert (
        load_error(folder)
        == f"{folder / 'config.json'}: unknown keys attention, num_layers: not a Pix2SeqD of this version"
    )
    change_config(folder, num_layers=None, attention=None, target=None, sampler=None)
    assert load_error(folder) == f"{folder / 'config.json'}: missing keys sampler, target"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "expected JSON, got "),
        (b"", "expected JSON, got "),
        (b"\xff\xfe\x00", "expected JSON, got "),
        (b"[1, 2]", "expected a JSON object, got list"),
    ],
)
def test_broken_json_is_named(folder: Path, text: bytes, reason: str) -> None:
    (folder / "config.json").write_bytes(text)
    assert load_error(folder).startswith(f"{folder / 'config.json'}: {reason}")


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "eps"},
        {"block": "wide"},
        {"image_size": 32},
        {"num_class_bits": "five"},
        {"label_spec": {"name": "toy"}},
        {"label_spec": "kitti-step"},
        {"stage_depths": [1, 1, 1]},
    ],
)
def test_values_that_build_no_model_name_the_file(folder: Path, changes: dict[str, Any]) -> None:
    change_config(folder, **changes)
    assert load_error(folder).startswith(f"{folder / 'config.json'}: ")


def test_weights_of_another_model_are_named(folder: Path) -> None:
    change_config(folder, encoder_layers=2)
    message = load_error(folder)
    assert message.startswith(
        f"{folder / 'model.safetensors'}: weights of another model: 14 tensors differ: encoder.layers.1."
    )
    change_config(folder, encoder_layers=1, cond_channels=16)
    assert "denoiser.stem_cond.weight (expected (8, 32, 3, 3), got (8, 24, 3, 3))" in load_error(folder)


def test_foreign_tensors_are_named(folder: Path) -> None:
    save_file({"conv.weight": torch.zeros(1)}, folder / "model.safetensors")
    message = load_error(folder)
    assert message.startswith(f"{folder / 'model.safetensors'}: weights of another model: ")
    assert "conv.weight (expected None, got (1,))" in message


def test_truncated_weights_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    for size in (path.stat().st_size // 2, 20, 0):
        path.write_bytes(path.read_bytes()[:size])
        assert load_error(folder).startswith(f"{path}: expected a safetensors file, got ")


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path, protocol: int) -> None:
    path, trace = folder / "model.safetensors", tmp_path / "unpickled"
    path.write_bytes(pickle.dumps(Bomb(trace), protocol))
    assert load_error(folder).startswith(f"{path}: expected a safetensors file, got ")
    torch.save({"a": torch.zeros(1), "b": Bomb(trace)}, path)
    assert load_error(folder).startswith(f"{path}: expected a safetensors file, got ")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert load_error(folder) == f"{folder}: expected config.json and model.safetensors, found no {name}"


@pytest.mark.parametrize("name", ["results/no such/folder", "/no/such/folder", "a--b"])
def test_a_missing_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    assert load_error(name, cache_dir=tmp_path).startswith(f"{name}: neither a folder nor a model on the Hub")


# the Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with running_hub(monkeypatch) as server:
        yield server


def test_offline_without_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_error("me/model", cache_dir=tmp_path).startswith("me/model: neither a folder nor a model on the Hub")


def test_download_then_cache(tiny_model: Build, hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        hub.files["me/model", name] = (folder / name).read_bytes()
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache", "token": False}
    loaded = Pix2SeqD.from_pretrained("me/model", revision="main", **options)
    assert torch.equal(predict(loaded), predict(tiny_model()))
    asked = len(hub.requests)
    cached = Pix2SeqD.from_pretrained("me/model", local_files_only=True, **options)
    assert torch.equal(predict(cached), predict(loaded))
    assert len(hub.requests) == asked


def test_hub_errors_are_one_line(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache", "token": False}
    assert load_error("me/none", **options).startswith("me/none: neither a folder nor a model on the Hub")
    hub.files["me/model", "config.json"] = (folder / "config.json").read_bytes()
    assert load_error("me/model", **options).startswith("me/model: neither a folder nor a model on the Hub")
    assert load_error("me/model", revision="v9", **options).startswith(
        "me/model: neither a folder nor a model on the Hub"
    )


def test_a_connection_that_breaks_is_one_line(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        hub.files["me/model", name] = (folder / name).read_bytes()
    hub.cut = True
    message = load_error("me/model", cache_dir=tmp_path / "cache", token=False)
    assert message.startswith("me/model: neither a folder nor a model on the Hub")


def test_push_to_hub_uploads_what_from_pretrained_reads(tiny_model: Build, hub: LoopbackHub, tmp_path: Path) -> None:
    model = tiny_model(seed=3)
    model.push_to_hub("me/pushed", token="hf_loopback")
    assert {name for repo, name in hub.files if repo == "me/pushed"} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    loaded = Pix2SeqD.from_pretrained("me/pushed", cache_dir=tmp_path, token=False)
    assert torch.equal(predict(loaded), predict(model))
