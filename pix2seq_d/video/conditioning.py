"""Past maps -> conditioning planes (arXiv 2210.06366, section 3.4): the analog bits of the maps at the past offsets.

A missing past map is 0 in every plane, in training and inference alike: bits are +-1, so 0 is no class, not even void.
B batch, T past frames, K bit planes, h w mask size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pix2seq_d.bits import BitCodec


def clip_offsets(past_offsets: Sequence[int]) -> tuple[int, ...]:
    """Offsets of the maps that a clip needs whose past maps are to be predicted: theirs, and of the maps before them.

    For example (-2, -1) -> (-4, -3, -2, -1): the frame at -2 is conditioned on the maps at -4 and -3.
    """
    own = {one + other for one in past_offsets for other in past_offsets}
    return tuple(sorted(own.union(past_offsets)))


def encode_past(codes: Tensor, present: Tensor, codec: BitCodec) -> Tensor:
    """Conditioning planes of the past maps.

    Args:
        codes: (B, T, G, h, w) int64, oldest first.
        present: (B, T) bool; False nulls a map.
        codec: bit layout.

    Returns:
        (B, T * K, h, w) float32 in {-1, 0, +1}.
    """
    b, t, g, h, w = codes.shape
    if t == 0:
        return codes.new_zeros((b, 0, h, w), dtype=torch.float32)
    bits = codec.encode(codes.reshape(b * t, g, h, w)) / codec.scale
    return (bits.view(b, t, -1, h, w) * present.view(b, t, 1, 1, 1)).flatten(1, 2)


def null_past(shape: tuple[int, int, int, int]) -> Tensor:
    """(B, T * K, h, w) planes that say "no past map"."""
    return torch.zeros(shape)


def drop_past(
    present: Tensor, *, rate: float, rate_all: float = 0.0, generators: Sequence[torch.Generator] | None = None
) -> Tensor:
    """Past-frame dropout of training.

    Args:
        present: (B, T) bool.
        rate: probability of nulling each past map on its own.
        rate_all: probability of nulling all past maps of a sample, as on the first frame of a video.
        generators: one CPU generator per sample; None uses the global one.

    Returns:
        (B, T) bool, a subset of `present`.

    Raises:
        ValueError: not one generator per sample.
    """
    b, t = present.shape
    if generators is not None and len(generators) != b:
        raise ValueError(f"generators: expected {b}, one per sample, got {len(generators)}")
    rows = [torch.rand(t + 1, generator=g) for g in generators] if generators else torch.rand(b, t + 1).unbind()
    u = torch.stack(tuple(rows)).to(present.device)
    return present & (u[:, 1:] >= rate) & (u[:, :1] >= rate_all)
