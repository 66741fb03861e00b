"""The forward process x_t = sqrt(gamma) x0 + sqrt(1 - gamma) eps and its algebra (DDPM, arXiv 2006.11239, eq. 4).

gamma (B,) is broadcast over (B, ...) here, nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None  # one for the batch, or one per sample


def broadcast(gamma: Tensor, x: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...) with as many dimensions as `x`; 0-dimensional gamma passes."""
    return gamma.view(-1, *[1] * (x.ndim - 1)) if gamma.ndim else gamma


def add_noise(x0: Tensor, gamma: Tensor, eps: Tensor) -> Tensor:
    """x_t from clean x0 (B, ...), signal power gamma (B,) and unit noise eps (B, ...)."""
    gamma = broadcast(gamma, x0)
    return gamma.sqrt() * x0 + (1 - gamma).sqrt() * eps


def eps_from_x0(x_t: Tensor, gamma: Tensor, x0: Tensor) -> Tensor:
    """The noise that leads from x0 to x_t; gamma < 1."""
    gamma = broadcast(gamma, x_t)
    return (x_t - gamma.sqrt() * x0) / (1 - gamma).sqrt()


def x0_from_eps(x_t: Tensor, gamma: Tensor, eps: Tensor) -> Tensor:
    """The clean signal that becomes x_t with noise eps; gamma > 0."""
    gamma = broadcast(gamma, x_t)
    return (x_t - (1 - gamma).sqrt() * eps) / gamma.sqrt()
