"""Denoisers in closed form, and one that keeps what it was asked.

Gaussian data N(mu, s^2) has the exact denoiser E[x0 | x_t] = mu + sqrt(g) s^2 / (g s^2 + 1 - g) (x_t - sqrt(g) mu).
Two-point data, +b with probability p and -b else, has the posterior odds p / (1 - p) exp(2 sqrt(g) b x_t / (1 - g)), so
E[x0 | x_t] = b tanh(sqrt(g) b x_t / (1 - g) + log(p / (1 - p)) / 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pix2seq_d.diffusion.samplers import SAMPLERS

MU, S = 0.3, 0.5
every_sampler = pytest.mark.parametrize("sample", list(SAMPLERS.values()), ids=list(SAMPLERS))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_denoiser(x_t: Tensor, gamma: Tensor, self_cond: Tensor | None) -> Tensor:
    g = gamma.view(-1, 1, 1, 1)
    return MU + g.sqrt() * S**2 / (g * S**2 + 1 - g) * (x_t - g.sqrt() * MU)


def two_point_denoiser(b: float, p: float) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    def denoise(x_t: Tensor, gamma: Tensor, self_cond: Tensor | None) -> Tensor:
        g = gamma.view(-1, 1, 1, 1)
        return b * torch.tanh(g.sqrt() * b * x_t / (1 - g) + math.log(p / (1 - p)) / 2)

    return denoise


class Recorder:
    """A denoiser that answers `answer` and keeps what it was asked."""

    def __init__(self, answer: float) -> None:
        self.answer = answer
        self.x_t: list[Tensor] = []
        self.gamma: list[Tensor] = []
        self.self_cond: list[Tensor | None] = []

    def __call__(self, x_t: Tensor, gamma: Tensor, self_cond: Tensor | None) -> Tensor:
        self.x_t.append(x_t)
        self.gamma.append(gamma)
        self.self_cond.append(self_cond)
        return torch.full_like(x_t, self.answer * len(self.x_t))
