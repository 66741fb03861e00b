"""The forward process: conversions are inverse pairs, gamma is broadcast, moments are as written."""

from __future__ import annotations

import pytest
import torch

from pix2seq_d.diffusion.process import add_noise, broadcast, eps_from_x0, x0_from_eps

G = torch.Generator().manual_seed(0)
X0, EPS = torch.randn(3, 2, 4, 5, generator=G).double(), torch.randn(3, 2, 4, 5, generator=G).double()
GAMMA = torch.tensor([0.9, 0.5, 0.01], dtype=torch.float64)


def test_conversions_are_inverse_pairs() -> None:
    x_t = add_noise(X0, GAMMA, EPS)
    assert torch.allclose(eps_from_x0(x_t, GAMMA, X0), EPS, atol=1e-12)
    assert torch.allclose(x0_from_eps(x_t, GAMMA, EPS), X0, atol=1e-12)


def test_each_sample_has_its_own_gamma() -> None:
    """At gamma = 0.25: half of x0 plus sqrt(3)/2 of the noise."""
    x_t = add_noise(X0, torch.tensor([1.0, 0.25, 0.0], dtype=torch.float64), EPS)
    assert torch.equal(x_t[0], X0[0])
    assert torch.allclose(x_t[1], 0.5 * X0[1] + 0.75**0.5 * EPS[1])
    assert torch.equal(x_t[2], EPS[2])


@pytest.mark.parametrize("ndim", [1, 2, 4])
def test_broadcast(ndim: int) -> None:
    x = torch.zeros(3, *[2] * (ndim - 1))
    assert broadcast(GAMMA, x).shape == (3, *[1] * (ndim - 1))
    assert broadcast(torch.tensor(0.5), x).shape == ()


def test_unit_data_keeps_unit_variance() -> None:
    x0 = torch.randn(1, 100_000, generator=G).sign()
    eps = torch.randn(1, 100_000, generator=G)
    for gamma in (0.1, 0.5, 0.9):
        assert add_noise(x0, torch.tensor([gamma]), eps).var().item() == pytest.approx(1, abs=0.02)
