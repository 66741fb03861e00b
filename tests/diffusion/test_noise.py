"""Random numbers of a batch and of its samples."""

from __future__ import annotations

import pytest
import torch

from pix2seq_d.diffusion.noise import draw

LIKE = torch.zeros(3, 2)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_a_sample_depends_on_its_own_generator_only() -> None:
    one, other = (draw(torch.randn, (3, 2), LIKE, generators(*seeds)) for seeds in ((1, 2, 3), (4, 2, 5)))
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], other[0])
    assert torch.equal(one[2:], draw(torch.randn, (1, 2), LIKE, generators(3)))


def test_a_sequence_of_one_draws_what_the_generator_alone_draws() -> None:
    shape = (1, 5, 8, 16)
    alone = draw(torch.randn, shape, LIKE, torch.Generator().manual_seed(7))
    assert torch.equal(draw(torch.randn, shape, LIKE, generators(7)), alone)


def test_dtype_is_the_one_asked_for() -> None:
    assert draw(torch.rand, (3, 2), LIKE, generators(1, 2, 3), torch.float64).dtype == torch.float64
    assert draw(torch.rand, (3, 2), LIKE, None).dtype == torch.float32


def test_one_generator_per_sample_is_expected() -> None:
    with pytest.raises(ValueError, match="generators: expected 3, one per sample, got 1"):
        draw(torch.rand, (3, 2), LIKE, generators(1))
