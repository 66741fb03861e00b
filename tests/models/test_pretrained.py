"""ImageNet weights for the backbone: torchvision's names, one-line errors, the Hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from loopback_hub import running_hub
from safetensors.torch import save, save_file
from torch import Tensor

from pix2seq_d.models.image_encoder import ResNet
from pix2seq_d.models.pretrained import load_encoder_weights


def resnet(*, norm: str = "frozen_batch", block: str = "bottleneck", width: int = 8) -> ResNet:
    return ResNet(block=block, stem_width=8, widths=(8, width), depths=(1, 1), strides=(1, 2), norm=norm)


def torchvision_like(net: ResNet) -> dict[str, Tensor]:
    """Random weights under torchvision's names, with the entries that only a classifier or a training norm has."""
    generator = torch.Generator().manual_seed(0)
    state = {k: torch.rand(v.shape, generator=generator) + 0.1 for k, v in net.state_dict().items()}
    counters = {k.replace("running_mean", "num_batches_tracked"): torch.tensor(5) for k in state if "running_mean" in k}
    return {**state, **counters, "fc.weight": torch.rand(10, 32), "fc.bias": torch.rand(10)}


def error_of(net: ResNet, name: str) -> str:
    """The message of the ValueError, checked to be one line."""
    with pytest.raises(ValueError) as info:
        load_encoder_weights(net, name)
    assert "\n" not in str(info.value)
    return str(info.value)


def test_a_local_file_is_loaded_without_its_classifier(tmp_path: Path) -> None:
    net, path = resnet(), tmp_path / "resnet.safetensors"
    state = torchvision_like(net)
    save_file(state, path)
    load_encoder_weights(net, str(path))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize(
    ("other", "first"),
    [
        (resnet(width=12), "layer2.0.bn1.bias"),
        (resnet(block="basic"), "layer1.0.bn3.bias"),
        (resnet(norm="group"), "bn1.running_mean"),
    ],
)
def test_another_resnet_is_refused_and_left_alone(tmp_path: Path, other: ResNet, first: str) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file(torchvision_like(resnet()), path)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    message = error_of(other, str(path))
    assert message.startswith(f"{path}: weights of another ResNet, ")
    assert f"the first is {first}" in message
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    path.write_bytes(b"not safetensors at all")
    assert error_of(resnet(), str(path)).startswith(f"{path}: expected a safetensors file, got ")


def test_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = error_of(resnet(), "me/resnet50")
    assert message.startswith("encoder weights me/resnet50/model.safetensors: could not be fetched from the Hub (")
    assert "--train.encoder_weights ''" in message


def test_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    net = resnet()
    state = torchvision_like(net)
    with running_hub(monkeypatch) as hub:
        hub.files["me/resnet", "weights.safetensors"] = save({**state, "fc.bias": torch.zeros(10)})
        load_encoder_weights(net, "me/resnet", filename="weights.safetensors")
        assert torch.equal(net.state_dict()["conv1.weight"], state["conv1.weight"])
        assert "could not be fetched" in error_of(net, "me/resnet")  # no model.safetensors there
        hub.files["me/resnet", "model.safetensors"] = save(state)
        hub.cut = True
        assert "could not be fetched" in error_of(net, "me/resnet")
