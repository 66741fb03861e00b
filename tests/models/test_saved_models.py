"""Saved models: folders and the Hub there and back, and one-line errors for everything that can be wrong with them."""

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
from model_probes import SETTINGS, predict
from safetensors.torch import load_file, save_file

from pix2seq_d.labels import LabelSpec
from pix2seq_d.models.pix2seq_d import Pix2SeqD

Build = Callable[..., Pix2SeqD]
TOY = LabelSpec("toy", ("road", "car"), ((0, 0, 0), (9, 9, 9)), thing_ids=(1,))


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
    assert set(values) == set(inspect.signature(Pix2SeqD.__init__).parameters) - {"self"}
    assert values["label_spec"]["class_names"][0] == "road"


def test_saving_again_replaces(tiny_model: Build, folder: Path) -> None:
    other = tiny_model(seed=1, num_steps=9)
    other.save_pretrained(folder)
    loaded = Pix2SeqD.from_pretrained(folder)
    assert loaded.num_steps == 9
    assert torch.equal(predict(loaded), predict(other))


def test_weights_can_be_read_by_whoever_can_read_the_folder(tiny_model: Build, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    tiny_model().save_pretrained(tmp_path / "shared")
    assert (tmp_path / "shared" / "model.safetensors").stat().st_mode & 0o777 == 0o644


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
        {"image_size": []},
        {"denoiser_widths": []},
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
