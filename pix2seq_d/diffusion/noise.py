"""Random numbers of a batch: from one generator, or from one per sample, so that a sample's depend on no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None  # one for the batch, or one per sample


def draw(
    kind: Callable[..., Tensor],
    shape: Sequence[int],
    like: Tensor,
    generator: Generators,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Random numbers (`torch.rand` or `torch.randn`) of `shape`, drawn where the generator lives.

    They end up on `like`'s device; dimension 0 is the sample. A sequence that has not one generator per sample raises
    ValueError.
    """
    if generator is None or isinstance(generator, torch.Generator):
        device = like.device if generator is None else generator.device
        return kind(tuple(shape), generator=generator, device=device, dtype=dtype).to(like.device)
    if len(generator) != shape[0]:
        raise ValueError(f"generators: expected {shape[0]}, one per sample, got {len(generator)}")
    rows = [kind(tuple(shape[1:]), generator=g, device=g.device, dtype=dtype) for g in generator]
    return torch.stack(rows).to(like.device)
