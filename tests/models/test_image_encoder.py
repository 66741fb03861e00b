"""Image encoder: strides and sizes, torchvision's key names, frozen batch norm, which argument does what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pix2seq_d.models.image_encoder import IMAGENET_MEAN, IMAGENET_STD, FrozenBatchNorm, ImageEncoder, ResNet

SMALL: dict[str, Any] = {"block": "basic", "stem_width": 8, "widths": (8, 16), "depths": (1, 1), "strides": (1, 2)}
TINY: dict[str, Any] = {"dim": 16, "num_layers": 1, "num_heads": 2, "pyramid_dim": 12, "out_channels": 10}


def small_resnet(**changes: Any) -> ResNet:
    torch.manual_seed(0)
    return ResNet(**{**SMALL, **changes})


def small_encoder(resnet: dict[str, Any] | None = None, **changes: Any) -> ImageEncoder:
    return ImageEncoder(small_resnet(**(resnet or {})), **{**TINY, **changes}).eval()


def frame(height: int = 32, width: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


# backbone


def test_resnet50_has_torchvisions_keys_and_shapes() -> None:
    """A few of the 318 tensors of torchvision's resnet50 without `fc` and `num_batches_tracked`: 265 remain."""
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in ResNet(norm="frozen_batch").state_dict().items()}
    known = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.weight": (64,),
        "bn1.bias": (64,),
        "bn1.running_mean": (64,),
        "bn1.running_var": (64,),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.running_var": (256,),
        "layer1.2.bn3.bias": (256,),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer2.3.conv3.weight": (512, 128, 1, 1),
        "layer3.0.downsample.0.weight": (1024, 512, 1, 1),
        "layer3.5.conv2.weight": (256, 256, 3, 3),
        "layer4.0.conv1.weight": (512, 1024, 1, 1),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "layer4.2.bn2.running_mean": (512,),
    }
    assert {k: shapes.get(k) for k in known} == known
    assert len(shapes) == 265  # 53 convolutions and four tensors for each of 53 norms
    assert "layer1.1.downsample.0.weight" not in shapes
    weights = sum(torch.Size(s).numel() for k, s in shapes.items() if "running" not in k)
    assert weights == 25_557_032 - 2_049_000  # torchvision's count without the classifier


def test_resnet18_keys() -> None:
    with torch.device("meta"):
        net = ResNet(block="basic", depths=(2, 2, 2, 2), strides=(1, 2, 2, 2), norm="frozen_batch")
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    assert shapes["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert shapes["layer4.1.conv2.weight"] == (512, 512, 3, 3)
    assert "layer1.0.downsample.0.weight" not in shapes
    assert sum(torch.Size(s).numel() for k, s in shapes.items() if "running" not in k) == 11_689_512 - 513_000


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("strides", [(1, 2, 2), (1, 2, 1), (2, 1, 1)])
def test_maps_have_the_announced_strides_and_channels(block: str, strides: tuple[int, ...]) -> None:
    net = small_resnet(block=block, widths=(8, 8, 16), depths=(1, 2, 1), strides=strides)
    maps = net(frame(64, 96))
    assert len(maps) == len(net.strides) == len(net.channels) == 4
    for x, stride, channels in zip(maps, net.strides, net.channels):
        assert x.shape == (2, channels, 64 // stride, 96 // stride)


def test_dilation_replaces_a_stride() -> None:
    """A bottleneck stage of stride 1 looks as far as one of stride 2: dilation 2 from its second block on."""
    net = small_resnet(block="bottleneck", widths=(8, 8, 8), depths=(2, 2, 2), strides=(1, 1, 1))
    dilations = [getattr(net, f"layer{s}")[i].conv2.dilation[0] for s in (1, 2, 3) for i in (0, 1)]
    assert dilations == [1, 1, 1, 2, 2, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (1,)}, "equally many widths, depths and strides"),
        ({"block": "wide"}, "block: expected one of basic, bottleneck, got 'wide'"),
        ({"norm": "batch"}, "norm: expected one of group, frozen_batch, got 'batch'"),
    ],
)
def test_wrong_backbone_arguments_raise(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_resnet(**changes)


def test_frozen_batch_norm_equals_batch_norm_in_eval_mode() -> None:
    generator = torch.Generator().manual_seed(0)
    reference, frozen = nn.BatchNorm2d(6).eval(), FrozenBatchNorm(6)
    state = {k: torch.rand(6, generator=generator) + 0.1 for k in ("weight", "bias", "running_mean", "running_var")}
    reference.load_state_dict(state, strict=False)
    frozen.load_state_dict(state)
    x = torch.randn(2, 6, 4, 5, generator=generator)
    assert torch.allclose(frozen(x), reference(x), atol=1e-6)
    assert torch.allclose(frozen.train()(x), reference(x), atol=1e-6)  # frozen in training too
    assert not list(frozen.parameters())
    assert frozen(x.bfloat16()).dtype == torch.bfloat16


def test_frozen_batch_norm_eps_has_an_effect() -> None:
    x = torch.ones(1, 2, 1, 1)
    assert FrozenBatchNorm(2, eps=3.0)(x).flatten().tolist() == pytest.approx([0.5, 0.5])  # 1 / sqrt(1 + 3)


# encoder


@pytest.mark.parametrize("size", [(32, 64), (48, 40)])
@pytest.mark.parametrize("mask_stride", [2, 4])
def test_sizes(size: tuple[int, int], mask_stride: int) -> None:
    features = small_encoder(mask_stride=mask_stride)(frame(*size))
    assert features.map.shape == (2, 10, size[0] // mask_stride, size[1] // mask_stride)
    assert features.tokens.shape == (2, size[0] * size[1] // 64, 16)


@pytest.mark.parametrize("size", [(30, 64), (32, 60)])
def test_other_sizes_raise(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"frame: expected a size divisible by 8, got"):
        small_encoder()(frame(*size))


@pytest.mark.parametrize("resnet", [{}, {"widths": (8, 8, 16), "depths": (1, 1, 1), "strides": (1, 2, 1)}])
@pytest.mark.parametrize("mask_stride", [1, 3, 8, 16])
def test_mask_stride_lies_below_the_backbones(resnet: dict[str, Any], mask_stride: int) -> None:
    with pytest.raises(ValueError, match=rf"mask_stride: expected one of \[2, 4\], got {mask_stride}"):
        small_encoder(resnet, mask_stride=mask_stride)


def test_one_lateral_per_finer_stride_from_its_deepest_map() -> None:
    """Strides 2, 4, 8, 8: laterals at 4 (8 channels) and at 2 (the stem's 8), the dilated last map is the top."""
    encoder = small_encoder({"widths": (12, 8, 16), "depths": (1, 1, 1), "strides": (1, 2, 1)})
    assert [c.in_channels for c in encoder.laterals] == [12, 8]
    assert encoder.project.in_channels == 16


def test_frames_are_normalised_inside() -> None:
    encoder, seen = small_encoder(), []
    encoder.resnet.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(frame())
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    expected = (frame() - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    assert torch.allclose(seen[0], expected, atol=1e-6)


def test_samples_of_a_batch_do_not_meet() -> None:
    encoder = small_encoder()
    both, one = encoder(frame()), encoder(frame()[1:])
    assert torch.allclose(both.map[1:], one.map, atol=1e-5)
    assert torch.allclose(both.tokens[1:], one.tokens, atol=1e-5)


def test_every_pixel_can_reach_every_token() -> None:
    encoder = small_encoder()
    changed = frame()
    changed[:, :, :8, :8] = 1 - changed[:, :, :8, :8]
    before, after = encoder(frame()), encoder(changed)
    assert bool(((before.tokens - after.tokens).abs().amax(2) > 0).all())
    assert not torch.equal(before.map[:, :, -1, -1], after.map[:, :, -1, -1])


@pytest.mark.parametrize(
    ("resnet", "changes"),
    [
        ({"block": "bottleneck"}, {}),
        ({"stem_width": 12}, {}),
        ({"widths": (8, 24)}, {}),
        ({"depths": (2, 1)}, {}),
        ({"strides": (1, 4)}, {}),
        ({"norm": "frozen_batch"}, {}),
        ({}, {"dim": 32}),
        ({}, {"num_layers": 2}),
        ({}, {"num_heads": 4}),
        ({}, {"pyramid_dim": 16}),
        ({}, {"out_channels": 12}),
        ({}, {"mask_stride": 4}),
    ],
)
def test_every_argument_has_an_effect(resnet: dict[str, Any], changes: dict[str, Any]) -> None:
    def summary(encoder: ImageEncoder) -> tuple[object, ...]:
        features = encoder(frame(32, 32))
        return features.map.shape, features.tokens.shape, features.map.sum().item(), features.tokens[0, 0, 0].item()

    assert summary(small_encoder()) == summary(small_encoder())
    assert summary(small_encoder()) != summary(small_encoder(resnet, **changes))


def test_dropout_acts_in_training_only() -> None:
    encoder = small_encoder(dropout=0.5).train()
    assert not torch.equal(encoder(frame()).tokens, encoder(frame()).tokens)
    assert torch.equal(encoder.eval()(frame()).tokens, encoder(frame()).tokens)


def test_gradients_reach_every_parameter() -> None:
    encoder = small_encoder().train()
    features = encoder(frame())
    (features.map.square().mean() + features.tokens.square().mean()).backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []
