"""Analog bits (Bit Diffusion, arXiv 2208.04202, section 2): integer codes <-> real planes in {-scale, +scale}.

The only file that knows bit count, order (most significant bit first) and scale.
B batch, G groups (class code, instance code), K all groups' bits, S all groups' 2^bits logits, h w map size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def int_to_bits(codes: Tensor, num_bits: int, scale: float = 1.0) -> Tensor:
    """Writes integer codes as analog bits.

    Args:
        codes: (B, H, W) integers in [0, 2^num_bits).
        num_bits: planes per code.
        scale: amplitude b.

    Returns:
        (B, num_bits, H, W) float32 in {-scale, +scale}, most significant bit first.

    Raises:
        ValueError: a code out of range.
    """
    low, high = (int(v) for v in torch.aminmax(codes)) if codes.numel() else (0, 0)
    if low < 0 or high >= 1 << num_bits:
        raise ValueError(f"codes: expected integers in [0, {1 << num_bits}) for {num_bits} bits, got {low} to {high}")
    shifts = torch.arange(num_bits - 1, -1, -1, device=codes.device)
    bits = (codes.long().unsqueeze(1) >> shifts.view(-1, 1, 1)) & 1
    return (bits.float() * 2 - 1) * scale


def bits_to_int(bits: Tensor) -> Tensor:
    """Reads analog bits by their sign (> 0 is one): (B, num_bits, H, W) float -> (B, H, W) int64."""
    weights = 1 << torch.arange(bits.shape[1] - 1, -1, -1, device=bits.device)
    return ((bits > 0).long() * weights.view(-1, 1, 1)).sum(1)


@dataclass(frozen=True)
class BitCodec:
    """Several codes per pixel side by side as one stack of analog bits, each code predicted by its own softmax.

    Attributes:
        group_bits: bits of each group, for example (5, 4) for class and instance codes.
        scale: amplitude b of the bits; 0.1 in the paper's best setting (arXiv 2210.06366, section 3.3).
    """

    group_bits: tuple[int, ...]
    scale: float = 0.1

    def __post_init__(self) -> None:
        if not self.group_bits or any(not 1 <= n <= 16 for n in self.group_bits):
            raise ValueError(f"group_bits: expected one or more numbers in 1..16, got {self.group_bits}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale: expected a positive number, got {self.scale}")

    @property
    def num_bits(self) -> int:
        """K, the number of bit planes."""
        return sum(self.group_bits)

    @property
    def group_codes(self) -> tuple[int, ...]:
        """Number of codes (softmax classes) of each group."""
        return tuple(1 << n for n in self.group_bits)

    @property
    def num_logits(self) -> int:
        """S, the number of logit planes."""
        return sum(self.group_codes)

    def encode(self, codes: Tensor) -> Tensor:
        """(B, G, h, w) integer codes -> (B, K, h, w) analog bits; a code out of range raises ValueError."""
        if codes.shape[1] != len(self.group_bits):
            raise ValueError(f"codes: expected {len(self.group_bits)} groups, got {codes.shape[1]}")
        groups = [int_to_bits(c, n, self.scale) for c, n in zip(codes.unbind(1), self.group_bits)]
        return torch.cat(groups, 1)

    def decode(self, bits: Tensor) -> Tensor:
        """(B, K, h, w) analog bits -> (B, G, h, w) int64 codes, by sign."""
        return torch.stack([bits_to_int(b) for b in bits.split(self.group_bits, 1)], 1)

    def split_logits(self, logits: Tensor) -> tuple[Tensor, ...]:
        """(B, S, h, w) logits -> one (B, 2^bits, h, w) per group."""
        return logits.split(self.group_codes, 1)

    def expected_bits(self, logits: Tensor) -> Tensor:
        """x0 estimate of the softmax head, the mean bits of each softmax: (B, S, h, w) logits -> (B, K, h, w)."""
        groups = zip(self.split_logits(logits), self.group_bits)
        return torch.cat([_expected_bits(g, n, self.scale) for g, n in groups], 1)

    def code_bits(self) -> Tensor:
        """(S, K) float32: the bits, +-1, of the code that each logit plane stands for; 0 in other groups' planes."""
        return torch.block_diag(*[_table(n, 1.0, torch.device("cpu")) for n in self.group_bits])

    def bit_logits(self, bits: Tensor) -> Tensor:
        """(B, K, h, w) estimated bits -> (B, S, h, w) logits whose argmax is the code nearest to the bits."""
        return torch.einsum("bkhw,sk->bshw", bits.float(), self.code_bits().to(bits.device)) / self.scale

    def argmax_codes(self, logits: Tensor, *, existing: Sequence[Sequence[int] | None] = ()) -> Tensor:
        """The most probable code of each group.

        Args:
            logits: (B, S, h, w).
            existing: per group the codes that may be chosen; None (or a shorter sequence) admits all.

        Returns:
            (B, G, h, w) int64.
        """
        groups = self.split_logits(logits)
        admitted = [*existing, *[None] * (len(groups) - len(existing))]
        return torch.stack([_argmax(g, codes) for g, codes in zip(groups, admitted)], 1)


def _expected_bits(logits: Tensor, num_bits: int, scale: float) -> Tensor:
    return torch.einsum("bchw,cn->bnhw", logits.float().softmax(1), _table(num_bits, scale, logits.device))


def _table(num_bits: int, scale: float, device: torch.device) -> Tensor:
    """(2^n, n) bits of every code."""
    codes = torch.arange(1 << num_bits, device=device)
    return int_to_bits(codes.view(-1, 1, 1), num_bits, scale).flatten(1)


def _argmax(logits: Tensor, codes: Sequence[int] | None) -> Tensor:
    if codes is None:
        return logits.argmax(1)
    index = torch.as_tensor(codes, device=logits.device)
    return index[logits[:, index].argmax(1)]
