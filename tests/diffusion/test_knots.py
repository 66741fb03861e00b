"""Knots from measured errors by hand, and samplers on warped times against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from denoisers import MU, Recorder, S, every_sampler, gaussian_denoiser, generator, noise, two_point_denoiser
from torch import Tensor

from pix2seq_d.diffusion.knots import matched_knots
from pix2seq_d.diffusion.samplers import sample_ddim, sample_ddpm, sample_dpmpp_2m
from pix2seq_d.diffusion.schedule import CosineSchedule, LinearSchedule, check_knots, time_grid

LATE = (1.0, 0.9, 0.75, 0.5, 0.0)  # most of the way near t = 1

# knots


@pytest.mark.parametrize(("power", "middle"), [(1.0, 13 / 18), (0.5, 2 / 3), (0.0, 1 / 2)])
def test_knots_by_hand(power: float, middle: float) -> None:
    """Errors 0, 1/2, 5 at t = 0, 1/2, 1 have slopes 1 and 9.

    So the half of the time near t = 1 gets 9/10 of the steps with power 1, 3/4 with power 1/2, 1/2 with power 0. Half
    of the steps are done after (1/2) / (9/10) = 5/9 of it, 2/3 of it, all of it.
    """
    knots = matched_knots((0, 0.5, 1), (0, 0.5, 5), power=power, num_knots=3, uniform_share=1e-9)
    assert knots == pytest.approx((1, middle, 0), abs=1e-6)


def test_with_power_1_every_step_takes_the_same_share_of_the_error() -> None:
    times = np.linspace(0, 1, 201)
    knots = matched_knots(times.tolist(), (times**3).tolist(), power=1, num_knots=401, uniform_share=1e-9)
    error = np.array([[now, ahead] for now, ahead in time_grid(10, knots=knots)]) ** 3
    assert error[:, 0] - error[:, 1] == pytest.approx(np.full(10, 0.1), abs=0.002)


def test_with_power_one_half_the_sum_of_the_errors_of_the_steps_is_smallest() -> None:
    """The sum of slope * step^2, slope 3 t^2, against other powers."""
    times = np.linspace(0, 1, 201)

    def cost(power: float) -> float:
        knots = matched_knots(times.tolist(), (times**3).tolist(), power=power, num_knots=401, uniform_share=1e-3)
        steps = np.array(time_grid(50, knots=knots))
        return float((3 * steps.mean(1) ** 2 * (steps[:, 0] - steps[:, 1]) ** 2).sum())

    costs = {power: cost(power) for power in (0.0, 0.25, 0.5, 0.75, 1.0)}
    assert min(costs, key=lambda power: costs[power]) == 0.5


def test_what_falls_with_the_noise_is_flat_and_a_flat_stretch_keeps_its_uniform_share() -> None:
    """All of the rise lies in the later half: it gets 0.8 + 0.2 / 2 of the steps, so 1/10 are left at t = 1/2."""
    for bump in (0.0, 0.3):  # the error returns to what it was before it rises
        knots = matched_knots((0, 0.25, 0.5, 1), (bump, 0, bump, 1), num_knots=11, uniform_share=0.2)
        assert knots[9] == pytest.approx(0.5)
        assert check_knots(knots) == knots


def test_straight_errors_and_a_share_of_1_give_uniform_times() -> None:
    uniform = pytest.approx(np.linspace(1, 0, 33))
    assert matched_knots((0, 0.3, 1), (1, 1.3, 2)) == uniform
    assert matched_knots((0, 0.3, 1), (0, 0.1, 2), uniform_share=1) == uniform


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        (((0, 1, 0.5), (0, 1, 2)), {}, "times: expected two or more, ascending from 0 to 1, got"),
        (((0.1, 1), (0, 1)), {}, "times: expected"),
        (((0,), (0,)), {}, "times: expected"),
        (((0, math.nan, 1), (0, 1, 2)), {}, "times: expected"),
        (((0, 1), (0, 1, 2)), {}, "errors: expected 2 finite numbers, one for each time, got"),
        (((0, 1), (0, math.inf)), {}, "errors: expected 2 finite"),
        (((0, 0.5, 1), (2, 1, 1)), {}, "errors: expected some that rise with the noise, got none"),
        (((0, 1), (0, 1)), {"power": -1}, "power: expected at least 0, got -1"),
        (((0, 1), (0, 1)), {"power": math.nan}, "power: expected at least 0"),
        (((0, 1), (0, 1)), {"num_knots": 1}, "num_knots: expected at least 2, got 1"),
        (((0, 1), (0, 1)), {"uniform_share": 0}, r"uniform_share: expected a share in \(0, 1\], got 0"),
        (((0, 1), (0, 1)), {"uniform_share": 1.1}, "uniform_share: expected"),
    ],
)
def test_wrong_arguments_raise(arguments: tuple[Any, Any], named: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matched_knots(*arguments, **named)


# samplers on warped times


@every_sampler
def test_estimates_are_made_at_the_warped_times(sample: Callable[..., Tensor]) -> None:
    recorder = Recorder(0.0)
    sample(recorder, noise(1, 1, 2, 2), LinearSchedule(), 4, knots=LATE, generator=generator())
    assert torch.cat(recorder.gamma).tolist() == pytest.approx([0, 0.1, 0.25, 0.5], abs=1e-6)


@every_sampler
@pytest.mark.parametrize("named", [{}, {"td_steps": 1.5}, {"t_start": 0.8}])
def test_uniform_knots_give_the_same_bits(sample: Callable[..., Tensor], named: dict[str, float]) -> None:
    x_T, results = noise(2, 1, 4, 4).float(), []
    for knots in (None, (1, 0), (1, 0.75, 0.5, 0.25, 0), LATE):
        named_knots = {**named, "knots": knots, "generator": generator()}
        results.append(sample(gaussian_denoiser, x_T, CosineSchedule(), 7, **named_knots))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert not torch.allclose(results[0], results[3], atol=1e-4)


@every_sampler
def test_wrong_knots_raise(sample: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="knots: expected two times or more, falling from 1 to 0, got"):
        sample(gaussian_denoiser, noise(1, 1, 2, 2), CosineSchedule(), 3, knots=(1, 0.5))


def test_ddim_limit_on_gaussian_data() -> None:
    """The flow does not depend on its times: x_T of N(0, 1) becomes mu + s x_T; half the steps, twice the error."""
    x_T, errors = noise(1, 1, 8, 8), []
    for num_steps in (100, 200, 400):
        x0 = sample_ddim(gaussian_denoiser, x_T, CosineSchedule(), num_steps, knots=LATE)
        errors.append((x0 - (MU + S * x_T)).abs().max().item())
    assert errors[-1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.15)


def test_dpmpp_2m_limit_on_gaussian_data() -> None:
    """The extrapolation allows for steps of different lengths: far nearer than DDIM with as many."""
    x_T = noise(1, 1, 8, 8)
    ddim, ours = (
        (sample(gaussian_denoiser, x_T, CosineSchedule(), 200, knots=LATE) - (MU + S * x_T)).abs().max().item()
        for sample in (sample_ddim, sample_dpmpp_2m)
    )
    assert ours < 0.004 < ddim / 5


@pytest.mark.parametrize("sample", [sample_ddim, sample_ddpm, sample_dpmpp_2m])
def test_two_point_data_come_back_with_their_frequency(sample: Callable[..., Tensor]) -> None:
    """P(+) = 0.7; 20,000 draws have a standard deviation of 0.0032, of which four are allowed."""
    x_T, denoise = noise(1, 1, 100, 200), two_point_denoiser(1.0, 0.7)
    x0 = sample(denoise, x_T, CosineSchedule(), 200, knots=LATE, clip=1.0, generator=generator())
    assert (x0 > 0).double().mean().item() == pytest.approx(0.7, abs=4 * 0.0032)


def test_matched_times_of_gaussian_data_beat_uniform_ones() -> None:
    """The exact denoiser's error is s^2 (1 - g) / (g s^2 + 1 - g); s = 0.05, 20 steps of DDIM."""
    s, schedule, times = 0.05, CosineSchedule(), np.linspace(0, 1, 101)

    def denoise(x_t: Tensor, gamma: Tensor, self_cond: Tensor | None) -> Tensor:
        g = gamma.view(-1, 1, 1, 1)
        return g.sqrt() * s**2 / (g * s**2 + 1 - g) * x_t

    g = schedule(torch.from_numpy(times)).numpy()
    knots = matched_knots(times.tolist(), (s**2 * (1 - g) / (g * s**2 + 1 - g)).tolist())
    x_T = noise(1, 1, 8, 8)
    uniform, matched = (
        (sample_ddim(denoise, x_T, schedule, 20, knots=k) - s * x_T).abs().max().item() for k in (None, knots)
    )
    assert matched < 0.5 * uniform
