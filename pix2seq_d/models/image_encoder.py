"""Image encoder of Pix2Seq-D (arXiv 2210.06366, section 3.1): ResNet, transformer layers, top-down merge to mask size.

The ResNet has torchvision's key names, so ImageNet weights fit. B batch, H W image, h w mask size, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from pix2seq_d.models.layers import (
    RecomputedBlock,
    TransformerLayer,
    conv3x3,
    group_norm,
    position_encoding,
    recomputed,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass
class ImageFeatures:
    """`map` (B, C, h, w) at mask size, to concatenate; `tokens` (B, N, D) to attend to."""

    map: Tensor
    tokens: Tensor


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics and affine part, for pretrained ResNets at small batch sizes."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.to(x.dtype).view(1, -1, 1, 1) + shift.to(x.dtype).view(1, -1, 1, 1)


NORMS: dict[str, Callable[[int], nn.Module]] = {"group": group_norm, "frozen_batch": FrozenBatchNorm}


class BasicBlock(RecomputedBlock):
    """Two 3x3 convolutions (ResNet, arXiv 1512.03385, figure 5 left)."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, *, stride: int, dilation: int, norm: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3x3(channels_in, channels, stride, dilation), NORMS[norm](channels)
        self.conv2, self.bn2 = _conv3x3(channels, channels, 1, dilation), NORMS[norm](channels)
        self.downsample = _shortcut(channels_in, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


class Bottleneck(RecomputedBlock):
    """1x1, 3x3, 1x1 convolutions, stride in the middle (ResNet V1.5)."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, *, stride: int, dilation: int, norm: str) -> None:
        super().__init__()
        channels_out = channels * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(channels_in, channels, 1, bias=False), NORMS[norm](channels)
        self.conv2, self.bn2 = _conv3x3(channels, channels, stride, dilation), NORMS[norm](channels)
        self.conv3, self.bn3 = nn.Conv2d(channels, channels_out, 1, bias=False), NORMS[norm](channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """Feature maps of a ResNet: the stem at stride 2, then one map per stage.

    Args:
        block: "basic" or "bottleneck".
        stem_width: channels of the 7x7 stem.
        widths: channels per stage before the block's expansion.
        depths: blocks per stage.
        strides: stride of each stage after the stem and its max pooling (stage 1 counts from image / 4); a stage of
            bottleneck blocks with stride 1 after the first is dilated, as in DeepLab.
        norm: "group" (from scratch) or "frozen_batch" (pretrained).
    """

    def __init__(
        self,
        *,
        block: str = "bottleneck",
        stem_width: int = 64,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        depths: tuple[int, ...] = (3, 4, 6, 3),
        strides: tuple[int, ...] = (1, 2, 2, 1),
        norm: str = "group",
    ) -> None:
        super().__init__()
        if not len(widths) == len(depths) == len(strides):
            raise ValueError(f"expected equally many widths, depths and strides, got {widths}, {depths}, {strides}")
        if block not in BLOCKS:
            raise ValueError(f"block: expected one of {', '.join(BLOCKS)}, got {block!r}")
        if norm not in NORMS:
            raise ValueError(f"norm: expected one of {', '.join(NORMS)}, got {norm!r}")
        kind = BLOCKS[block]
        self.conv1 = nn.Conv2d(3, stem_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = NORMS[norm](stem_width)
        self.channels, self.strides = [stem_width], [2]
        channels, dilation, total = stem_width, 1, 4
        for number, (width, depth, stride) in enumerate(zip(widths, depths, strides), 1):
            first = dilation
            dilation = dilation * 2 if number > 1 and stride == 1 and block == "bottleneck" else dilation
            blocks = []
            for i in range(depth):
                s, d = (stride, first) if i == 0 else (1, dilation)
                blocks.append(kind(channels, width, stride=s, dilation=d, norm=norm))
                channels = width * kind.expansion
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            total *= stride
            self.channels.append(channels)
            self.strides.append(total)
        self.num_stages = len(widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps at `self.strides` with `self.channels`; the stem's first."""
        x = F.relu(self.bn1(self.conv1(x)))
        maps = [x]
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for number in range(1, self.num_stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
            maps.append(x)
        return maps


class ImageEncoder(nn.Module):
    """Frame -> conditioning features.

    Args:
        resnet: backbone arguments as of `ResNet`.
        dim: token width D.
        num_layers: transformer layers on the coarsest map.
        num_heads: attention heads.
        pyramid_dim: channels of the merge below the coarsest level.
        out_channels: channels of the map at mask size.
        mask_stride: image size / mask size, one of the backbone's strides below its last.
        dropout: in the transformer's MLPs.
    """

    mean: Tensor
    std: Tensor
    recompute = False  # see `set_recompute`

    def __init__(
        self,
        resnet: ResNet,
        *,
        dim: int = 512,
        num_layers: int = 12,
        num_heads: int = 8,
        pyramid_dim: int = 256,
        out_channels: int = 256,
        mask_stride: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % 4:
            raise ValueError(f"dim: expected a multiple of 4, got {dim}")
        self.resnet = resnet
        self.stride = resnet.strides[-1]
        finer = [s for s in resnet.strides if s < self.stride]
        if mask_stride not in finer:
            raise ValueError(f"mask_stride: expected one of {finer}, got {mask_stride}")
        self.project = nn.Conv2d(resnet.channels[-1], dim, 1)
        self.layers = nn.ModuleList(
            TransformerLayer(dim, num_heads=num_heads, dropout=dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)

        # top-down merge: one lateral and one smoothing convolution per finer level
        self.levels = _finer_levels(resnet.strides, mask_stride)
        self.top = nn.Conv2d(dim, pyramid_dim, 1)
        self.laterals = nn.ModuleList(nn.Conv2d(resnet.channels[i], pyramid_dim, 1) for i in self.levels)
        outs = [pyramid_dim] * (len(self.levels) - 1) + [out_channels]
        self.smooth = nn.ModuleList(conv3x3(pyramid_dim, c) for c in outs)
        self.smooth_norms = nn.ModuleList(group_norm(c) for c in outs)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, frame: Tensor) -> ImageFeatures:
        """(B, 3, H, W) RGB in [0, 1], H and W multiples of `stride` -> features; ValueError for other sizes."""
        if frame.shape[2] % self.stride or frame.shape[3] % self.stride:
            raise ValueError(f"frame: expected a size divisible by {self.stride}, got {tuple(frame.shape[2:])}")
        maps = self.resnet((frame - self.mean) / self.std)  # strides 2, 4, ...
        x = self.project(maps[-1])  # (B, D, H/s, W/s)
        height, width = x.shape[2:]
        tokens = rearrange(x, "b d h w -> b (h w) d")
        tokens = tokens + position_encoding(height, width, tokens.shape[2], device=x.device).to(x.dtype)
        for layer in self.layers:
            tokens = layer(tokens)  # (B, N, D)
        tokens = self.norm(tokens)  # (B, N, D)
        merged = self.top(rearrange(tokens, "b (h w) d -> b d h w", h=height))  # (B, P, H/s, W/s)
        for level, lateral, smooth, norm in zip(self.levels, self.laterals, self.smooth, self.smooth_norms):
            active = self.recompute and self.training
            merged = recomputed(_merge, merged, maps[level], lateral, smooth, norm, active=active)
        return ImageFeatures(merged, tokens)  # (B, C, h, w), (B, N, D)


def _merge(coarse: Tensor, finer: Tensor, lateral: nn.Module, smooth: nn.Module, norm: nn.Module) -> Tensor:
    merged = F.interpolate(coarse, size=finer.shape[2:], mode="nearest") + lateral(finer)
    return F.silu(norm(smooth(merged)))


def _finer_levels(strides: list[int], mask_stride: int) -> list[int]:
    """Backbone levels finer than the coarsest, down to `mask_stride`, coarse to fine: the deepest of each stride."""
    deepest = {stride: i for i, stride in enumerate(strides)}
    return [deepest[s] for s in sorted(deepest, reverse=True) if mask_stride <= s < strides[-1]]


def _conv3x3(channels_in: int, channels_out: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


def _shortcut(channels_in: int, channels_out: int, stride: int, norm: str) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), NORMS[norm](channels_out))
