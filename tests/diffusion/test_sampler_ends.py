"""Samplers that start later than at t = 1 and stop before their last step."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from denoisers import MU, Recorder, S, every_sampler, gaussian_denoiser, generator, noise
from torch import Tensor

from pix2seq_d.diffusion.samplers import sample_ddim, sample_dpmpp_2m
from pix2seq_d.diffusion.schedule import CosineSchedule, LinearSchedule


@every_sampler
def test_t_start_is_where_the_first_estimate_is_made(sample: Callable[..., Tensor]) -> None:
    """Four steps from t = 1/2; the start is taken as it is."""
    recorder, x = Recorder(0.0), noise(1, 1, 2, 2)
    sample(recorder, x, LinearSchedule(), 4, t_start=0.5, generator=generator())
    assert torch.cat(recorder.gamma).tolist() == pytest.approx([0.5, 0.625, 0.75, 0.875])
    assert torch.equal(recorder.x_t[0], x)


@pytest.mark.parametrize(("sample", "num_steps"), [(sample_ddim, 400), (sample_dpmpp_2m, 50)])
def test_the_flow_from_noised_data_keeps_their_quantile(sample: Callable[..., Tensor], num_steps: int) -> None:
    """From x_t = sqrt(g) mu + sqrt(g s^2 + 1 - g) z at t = 0.3, Gaussian data end at mu + s z."""
    z, g = noise(1, 1, 8, 8), math.cos(math.pi * 0.15) ** 2
    x_t = math.sqrt(g) * MU + math.sqrt(g * S**2 + 1 - g) * z
    x0 = sample(gaussian_denoiser, x_t, CosineSchedule(), num_steps, t_start=0.3)
    assert torch.allclose(x0, MU + S * z, atol=0.005)


def answers(*rows: list[float]) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """A denoiser of two bits of one pixel or more (B, 2, 1, pixels) that answers one row after the other."""
    left = iter(rows)
    return lambda x_t, gamma, self_cond: torch.tensor(next(left), dtype=x_t.dtype).view(x_t.shape)


def estimates(sample: Callable[..., Tensor], start: Tensor, rows: list[list[float]], share: float | None) -> int:
    """Number of estimates made of the rows; the last one is what comes back."""
    seen: list[Tensor] = []
    x0 = sample(
        answers(*rows),
        start,
        CosineSchedule(),
        len(rows),
        generator=generator(),
        stop_unchanged=share,
        callback=lambda step, x_t, estimate: seen.append(estimate),
    )
    assert x0.flatten().tolist() == rows[len(seen) - 1]
    return len(seen)


@every_sampler
def test_stops_where_no_code_has_changed(sample: Callable[..., Tensor]) -> None:
    """Bits count by their sign: the second estimate differs from the first, the third decodes as the second."""
    rows = [[0.1, 0.1], [0.1, -0.1], [0.3, -0.2], [-0.1, 0.1]]
    assert estimates(sample, noise(1, 2, 1, 1), rows, 1.0) == 3
    assert estimates(sample, noise(1, 2, 1, 1), rows, None) == 4


@every_sampler
@pytest.mark.parametrize(("share", "count"), [(0.5, 2), (0.51, 4)])
def test_stops_where_that_share_of_pixels_has_not_changed(
    sample: Callable[..., Tensor], share: float, count: int
) -> None:
    """Two pixels, of which one changes in one bit at every step."""
    rows = [[0.1, 0.1, 0.1, 0.1], [0.1, -0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, -0.1]]
    assert estimates(sample, noise(1, 2, 1, 2), rows, share) == count


@every_sampler
def test_a_batch_goes_on_while_one_sample_changes(sample: Callable[..., Tensor]) -> None:
    rows = [[0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, -0.1], [0.1, 0.1, 0.1, 0.1], [0.2, 0.2, 0.2, 0.2]]
    assert estimates(sample, noise(2, 2, 1, 1), rows, 0.5) == 4
    assert estimates(sample, noise(1, 2, 1, 2), rows, 0.5) == 2


@every_sampler
@pytest.mark.parametrize("share", [0.0, -0.5, 1.1, math.nan])
def test_a_share_out_of_range_raises(sample: Callable[..., Tensor], share: float) -> None:
    with pytest.raises(ValueError, match=r"stop_unchanged: expected a share in \(0, 1\], got"):
        sample(gaussian_denoiser, noise(1, 1, 2, 2), CosineSchedule(), 2, stop_unchanged=share)


@every_sampler
def test_a_start_out_of_range_raises(sample: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"t_start: expected a time in \(0, 1\], got 0"):
        sample(gaussian_denoiser, noise(1, 1, 2, 2), CosineSchedule(), 2, t_start=0)
