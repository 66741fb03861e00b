"""Building blocks of the encoder and the denoiser; they know nothing of masks or diffusion.

B batch, C channels, H W map size, N tokens, D token width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with up to 32 groups of at least 8 channels."""
    groups = max(g for g in range(1, 33) if channels % g == 0 and (g == 1 or channels // g >= 8))
    return nn.GroupNorm(groups, channels)


def conv3x3(channels_in: int, channels_out: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """3x3 convolution that keeps the size (or halves it with stride 2)."""
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=bias)


def zero_init(module: nn.Conv2d | nn.Linear) -> None:
    """Near-zero weights: a residual branch or an output starts as (almost) nothing."""
    nn.init.normal_(module.weight, std=1e-4)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class RecomputedBlock(nn.Module):
    """A block that can keep its inputs alone for the backward pass, and compute the rest anew there.

    Activation checkpointing (arXiv 1604.06174): equal loss and gradients, less memory, about a third more computation.
    `set_recompute` switches it; it acts in training mode only.
    """

    recompute = False

    def __call__(self, *inputs: Any) -> Any:
        return recomputed(super().__call__, *inputs, active=self.recompute and self.training)


def recomputed(function: Callable[..., Any], *inputs: Any, active: bool) -> Any:
    """`function(*inputs)`; where `active`, only `inputs` are kept for the backward pass."""
    if active and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False)
    return function(*inputs)


def set_recompute(model: nn.Module, active: bool) -> None:
    """Switches activation checkpointing of every module of `model` that knows it."""
    for module in model.modules():
        if hasattr(module, "recompute"):
            module.recompute = active  # type: ignore[assignment]


class SampleDropout(nn.Module):
    """Dropout whose mask of a sample comes from the sample's own seed: the rest of its batch does not matter.

    Without seeds (see `seed_dropout`) masks come from PyTorch's global stream, as those of nn.Dropout.

    Args:
        rate: share of the values that become 0.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout: expected a rate in [0, 1), got {rate}")
        self.rate = rate
        self.seeds: Sequence[int] = ()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        return x * self._mask(x) if self.seeds else F.dropout(x, self.rate)

    def _mask(self, x: Tensor) -> Tensor:
        if len(self.seeds) != len(x):
            raise ValueError(f"seeds of dropout: expected {len(x)}, one per sample, got {len(self.seeds)}")
        generators = (torch.Generator(x.device).manual_seed(seed) for seed in self.seeds)
        drawn = torch.stack([torch.rand(x.shape[1:], generator=g, device=x.device) for g in generators])
        return (drawn >= self.rate).to(x.dtype) / (1 - self.rate)


def seed_dropout(model: nn.Module, seeds: Sequence[int]) -> None:
    """Gives every SampleDropout of `model` a seed per sample of the next batch, its own in each layer."""
    layers = [module for module in model.modules() if isinstance(module, SampleDropout)]
    for number, layer in enumerate(layers, 1):
        layer.seeds = [seed + number for seed in seeds]


def compile_around_dropout(model: nn.Module) -> None:
    """Leaves the masks of every SampleDropout out of torch.compile, which does not trace generators."""
    for module in model.modules():
        if isinstance(module, SampleDropout):
            module._mask = torch.compiler.disable(module._mask)  # type: ignore[method-assign]


class NoiseEmbedding(nn.Module):
    """gamma (B,) -> (B, D): sinusoids of the noise level, then an MLP (gamma, not t, as in Google's network)."""

    frequencies: Tensor

    def __init__(self, dim: int, *, num_frequencies: int = 32, max_frequency: float = 1000.0) -> None:
        super().__init__()
        frequencies = torch.exp(torch.linspace(0, math.log(max_frequency), num_frequencies))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * num_frequencies, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())

    def forward(self, gamma: Tensor) -> Tensor:
        angle = gamma[:, None].float() * self.frequencies  # (B, F)
        waves = torch.cat([angle.sin(), angle.cos()], 1)  # (B, 2F)
        return self.mlp(waves.to(next(self.mlp.parameters()).dtype))  # (B, D)


class ResidualBlock(RecomputedBlock):
    """Pre-activation residual block whose second norm is scaled and shifted by the noise embedding."""

    def __init__(self, channels_in: int, channels_out: int, embedding_dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(channels_in), conv3x3(channels_in, channels_out)
        self.modulation = nn.Linear(embedding_dim, 2 * channels_out)
        self.norm2, self.conv2 = group_norm(channels_out), conv3x3(channels_out, channels_out)
        self.dropout = SampleDropout(dropout)
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # (B, C, H, W)
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)  # (B, C, 1, 1) each
        h = F.silu(self.norm2(h) * (1 + scale) + shift)  # (B, C, H, W)
        return self.skip(x) + self.conv2(self.dropout(h))  # (B, C, H, W)


class Attention(nn.Module):
    """Multi-head attention from tokens to given keys and values."""

    def __init__(self, dim: int, context_dim: int, *, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads: expected a divisor of {dim}, got {num_heads}")
        self.num_heads = num_heads
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(context_dim, 2 * dim)
        self.output = nn.Linear(dim, dim)

    def project(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the context (B, N, D): what does not depend on the query."""
        k, v = rearrange(self.key_value(context), "b n (two h d) -> two b h n d", two=2, h=self.num_heads)
        return k, v

    def forward(self, x: Tensor, key_value: tuple[Tensor, Tensor]) -> Tensor:
        q = rearrange(self.query(x), "b n (h d) -> b h n d", h=self.num_heads)
        y = F.scaled_dot_product_attention(q, *key_value)  # (B, heads, N, D / heads)
        return self.output(rearrange(y, "b h n d -> b n (h d)"))  # (B, N, D)


class TransformerLayer(RecomputedBlock):
    """Pre-norm transformer layer: self-attention, cross-attention where there is a context, MLP."""

    def __init__(
        self, dim: int, *, num_heads: int, context_dim: int | None = None, mlp_ratio: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1, self.self_attention = nn.LayerNorm(dim), Attention(dim, dim, num_heads=num_heads)
        if context_dim is not None:
            self.norm2 = nn.LayerNorm(dim)
            self.cross_attention = Attention(dim, context_dim, num_heads=num_heads)
        self.norm3 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_ratio * dim), nn.GELU(), SampleDropout(dropout), nn.Linear(mlp_ratio * dim, dim)
        )

    def forward(self, x: Tensor, key_value: tuple[Tensor, Tensor] | None = None) -> Tensor:
        y = self.norm1(x)  # (B, N, D)
        x = x + self.self_attention(y, self.self_attention.project(y))  # (B, N, D)
        if key_value is not None:
            x = x + self.cross_attention(self.norm2(x), key_value)  # (B, N, D)
        return x + self.mlp(self.norm3(x))  # (B, N, D)


class Upsample(nn.Module):
    """Doubles the size by nearest neighbours, then a 3x3 convolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))  # (B, C, 2H, 2W)


def position_encoding(height: int, width: int, dim: int, *, device: torch.device) -> Tensor:
    """(H * W, D) fixed sine-cosine encoding of the relative position, rows then columns; D is a multiple of 4.

    Positions run over (0, 1) whatever the size, so that a model meets familiar values at other resolutions.
    """
    assert dim % 4 == 0
    frequencies = math.pi * 2 ** torch.linspace(0, 6, dim // 4, device=device)  # half a turn ... 32 turns a side
    rows = (torch.arange(height, device=device) + 0.5)[:, None] / height * frequencies  # (H, D/4)
    columns = (torch.arange(width, device=device) + 0.5)[:, None] / width * frequencies  # (W, D/4)
    rows = rows[:, None].expand(height, width, dim // 4)
    columns = columns[None].expand(height, width, dim // 4)
    waves = torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], -1)
    return waves.flatten(0, 1)
