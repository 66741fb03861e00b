"""TransUNet mask denoiser of Pix2Seq-D (arXiv 2210.06366, section 3.1): UNet levels, transformer at the bottom.

Conditioned by concatenation (image features and past maps at mask size) and by cross-attention (image tokens).
B batch, K bit planes, C conditioning channels, h w mask size, N tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from pix2seq_d.models.layers import (
    NoiseEmbedding,
    ResidualBlock,
    TransformerLayer,
    Upsample,
    conv3x3,
    group_norm,
    position_encoding,
    recomputed,
    zero_init,
)


@dataclass
class DenoiserCondition:
    """What does not change between denoising steps, computed once per frame.

    Attributes:
        stem: (B, widths[0], h, w), the conditioning's share of the first convolution.
        key_values: per transformer layer the keys and values of the image tokens.
    """

    stem: Tensor
    key_values: list[tuple[Tensor, Tensor]]

    def repeat(self, n: int) -> DenoiserCondition:
        """(B n, ...): every frame's n times side by side."""
        if n == 1:
            return self
        key_values = [(k.repeat_interleave(n, 0), v.repeat_interleave(n, 0)) for k, v in self.key_values]
        return DenoiserCondition(self.stem.repeat_interleave(n, 0), key_values)


class TransUNet(nn.Module):
    """(x_t, gamma, cond, self_cond) -> logits, or x0 bits when `out_channels` = K.

    Args:
        num_bits: K, planes of x_t.
        out_channels: logit planes S, or K.
        cond_channels: channels C of the conditioning map.
        token_dim: width of the image tokens.
        data_std: standard deviation of the clean bits (their scale b); x_t is divided by its own standard deviation
            sqrt(gamma b^2 + 1 - gamma) at the input (arXiv 2301.10972, section 2.3).
        widths: channels per UNet level, each level half the size of the one before.
        num_blocks: residual blocks per level.
        dim: transformer width D at the bottom.
        num_layers: transformer layers.
        num_heads: attention heads.
        self_cond: whether a self_cond input exists.
        dropout: in residual blocks and MLPs.
        code_bits: (out_channels, K) bits of the code of each logit plane (BitCodec.code_bits). The log-likelihood of a
            code under Gaussian noise is linear in its bits, so part of the logits is: evidence for a bit, learned once,
            counts for every code that has it. None where the output is bits.
    """

    code_bits: Tensor | None
    recompute = False  # see `set_recompute`

    def __init__(
        self,
        *,
        num_bits: int,
        out_channels: int,
        cond_channels: int,
        token_dim: int,
        data_std: float,
        widths: tuple[int, ...] = (128, 128, 256, 256),
        num_blocks: int = 1,
        dim: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        self_cond: bool = False,
        dropout: float = 0.0,
        code_bits: Tensor | None = None,
    ) -> None:
        super().__init__()
        if dim % 4:
            raise ValueError(f"dim: expected a multiple of 4, got {dim}")
        self.data_std, self.self_cond = data_std, self_cond
        self.size_divisor = 2 ** (len(widths) - 1)
        embedding_dim = 4 * widths[0]
        self.embedding = NoiseEmbedding(embedding_dim)
        self.stem_cond = conv3x3(cond_channels, widths[0])
        self.stem = conv3x3(num_bits * (2 if self_cond else 1), widths[0], bias=False)

        def blocks(first: int, width: int) -> nn.ModuleList:
            ins = [first] + [width] * (num_blocks - 1)
            return nn.ModuleList(ResidualBlock(c, width, embedding_dim, dropout=dropout) for c in ins)

        self.down = nn.ModuleList(blocks(w, w) for w in widths)
        self.downsample = nn.ModuleList(conv3x3(a, b, stride=2) for a, b in pairwise(widths))
        self.bottom_in = nn.Conv2d(widths[-1], dim, 1)
        self.layers = nn.ModuleList(
            TransformerLayer(dim, num_heads=num_heads, context_dim=token_dim, dropout=dropout)
            for _ in range(num_layers)
        )
        self.layer_modulation = nn.Linear(embedding_dim, dim)
        self.bottom_out = nn.Conv2d(dim, widths[-1], 1)
        self.up = nn.ModuleList(blocks(2 * w, w) for w in reversed(widths))
        self.upsample = nn.ModuleList(Upsample(b, a) for a, b in reversed(list(pairwise(widths))))
        self.register_buffer("code_bits", code_bits, persistent=False)
        shared = 0 if code_bits is None else num_bits
        self.out_norm, self.out = group_norm(widths[0]), conv3x3(widths[0], out_channels + shared)
        self.initialise()

    def initialise(self) -> None:
        """Near-zero last layers of the residual blocks and of the network; all else keeps PyTorch's initialisation."""
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                zero_init(module.conv2)
        zero_init(self.bottom_out)
        zero_init(self.out)

    def precompute(self, cond_map: Tensor, tokens: Tensor) -> DenoiserCondition:
        """Everything that depends on the conditioning alone.

        Args:
            cond_map: (B, C, h, w) image features and past-map planes; h and w multiples of `size_divisor`.
            tokens: (B, N, token_dim) image tokens.
        """
        if cond_map.shape[2] % self.size_divisor or cond_map.shape[3] % self.size_divisor:
            raise ValueError(f"mask size: expected multiples of {self.size_divisor}, got {tuple(cond_map.shape[2:])}")
        layers = [cast(TransformerLayer, layer) for layer in self.layers]
        key_values = [layer.cross_attention.project(tokens) for layer in layers]
        return DenoiserCondition(self.stem_cond(cond_map), key_values)

    def forward(self, x_t: Tensor, gamma: Tensor, cond: DenoiserCondition, self_cond: Tensor | None = None) -> Tensor:
        """One evaluation.

        Args:
            x_t: (B, K, h, w) noised bits.
            gamma: (B,) their signal power.
            cond: result of `precompute`.
            self_cond: (B, K, h, w) previous x0 estimate; None = zeros.

        Returns:
            (B, out_channels, h, w).
        """
        embedding = self.embedding(gamma)  # (B, E)
        x = self.stem(self._scaled_input(x_t, gamma, self_cond)) + cond.stem  # (B, C0, h, w)
        skips = []
        for level, blocks in enumerate(self.down):
            for block in cast(nn.ModuleList, blocks):
                x = block(x, embedding)  # (B, Ci, h/2^i, w/2^i)
            skips.append(x)
            if level < len(self.downsample):
                x = self.downsample[level](x)
        x = x + self._bottom(x, embedding, cond)  # (B, Cn, h/2^n, w/2^n)
        for level, blocks in enumerate(self.up):
            x = torch.cat([x, skips.pop()], 1)  # (B, 2 Ci, ...)
            for block in cast(nn.ModuleList, blocks):
                x = block(x, embedding)  # (B, Ci, ...)
            if level < len(self.upsample):
                x = self.upsample[level](x)
        return recomputed(self._logits, x, active=self.recompute and self.training)  # (B, S, h, w)

    def _logits(self, x: Tensor) -> Tensor:
        return self._share_bits(self.out(F.silu(self.out_norm(x))))

    def _share_bits(self, x: Tensor) -> Tensor:
        if self.code_bits is None:
            return x
        logits, evidence = x.split(self.code_bits.shape, 1)  # (B, S, h, w), (B, K, h, w)
        return logits + F.conv2d(evidence, self.code_bits[:, :, None, None])

    def _scaled_input(self, x_t: Tensor, gamma: Tensor, self_cond: Tensor | None) -> Tensor:
        gamma = gamma.view(-1, 1, 1, 1)
        x = x_t / (gamma * self.data_std**2 + 1 - gamma).sqrt()
        if not self.self_cond:
            return x
        fed_back = torch.zeros_like(x) if self_cond is None else self_cond / self.data_std
        return torch.cat([x, fed_back], 1)  # (B, 2K, h, w)

    def _bottom(self, x: Tensor, embedding: Tensor, cond: DenoiserCondition) -> Tensor:
        height, width = x.shape[2:]
        tokens = rearrange(self.bottom_in(x), "b d h w -> b (h w) d")
        positions = position_encoding(height, width, tokens.shape[2], device=x.device).to(x.dtype)
        tokens = tokens + positions + self.layer_modulation(embedding)[:, None]  # (B, N, D)
        for layer, key_value in zip(self.layers, cond.key_values):
            tokens = layer(tokens, key_value)  # (B, N, D)
        return self.bottom_out(rearrange(tokens, "b (h w) d -> b d h w", h=height))
