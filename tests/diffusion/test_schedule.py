"""Noise schedules: inverse pairs, range and order; the signal-to-noise ratio; time grids drawn by hand."""

from __future__ import annotations

import math

import pytest
import torch

from pix2seq_d.diffusion.schedule import GAMMA_MIN, SCHEDULES, SigmoidSchedule, check_knots, log_snr, time_grid

ALL = [*(SCHEDULES[name]() for name in sorted(SCHEDULES)), SigmoidSchedule(-1.0, 4.0, 0.7)]
IDS = [*sorted(SCHEDULES), "sigmoid-asymmetric"]
every_schedule = pytest.mark.parametrize("schedule", ALL, ids=IDS)


@every_schedule
def test_starts_clean_ends_in_noise_and_falls_between(schedule) -> None:  # type: ignore[no-untyped-def]
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    gamma = schedule(t)
    assert gamma[0].item() == pytest.approx(1, abs=1e-12)
    assert gamma[-1].item() == pytest.approx(GAMMA_MIN, rel=1e-6)
    assert bool((gamma.diff() < 0).all())
    assert 0 < gamma.min() < gamma.max() <= 1


@every_schedule
def test_inverse_both_ways_including_the_ends(schedule) -> None:  # type: ignore[no-untyped-def]
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert torch.allclose(schedule.inverse(schedule(t)), t, atol=5e-5)  # GAMMA_MIN moves the end by 2e-5
    assert torch.allclose(schedule.inverse(schedule(t[1:-1])), t[1:-1], atol=1e-9)
    gamma = torch.cat([torch.tensor([GAMMA_MIN, 1.0]), torch.linspace(0.001, 0.999, 50)]).double()
    assert torch.allclose(schedule(schedule.inverse(gamma)), gamma, atol=1e-9)


@every_schedule
def test_float32_stays_in_range(schedule) -> None:  # type: ignore[no-untyped-def]
    gamma = schedule(torch.tensor([0.0, 1e-4, 0.5, 1 - 1e-4, 1.0]))
    assert gamma.dtype == torch.float32
    assert bool(((gamma > 0) & (gamma <= 1)).all())
    assert bool((gamma.diff() <= 0).all())


def test_known_values() -> None:
    t = torch.tensor(1 / 3, dtype=torch.float64)
    assert SCHEDULES["cosine"]()(t).item() == pytest.approx(0.75)  # cos^2(30 degrees)
    assert SCHEDULES["linear"]()(t).item() == pytest.approx(2 / 3)
    low, high, here = (1 / (1 + math.exp(-x)) for x in (-3, 3, -1))
    assert SCHEDULES["sigmoid"]()(t).item() == pytest.approx((high - here) / (high - low))


def test_sigmoid_arguments_have_an_effect() -> None:
    t = torch.tensor(0.3)
    values = [SigmoidSchedule(*a)(t).item() for a in ((-3, 3, 1), (-2, 3, 1), (-3, 2, 1), (-3, 3, 0.5))]
    assert len({round(v, 4) for v in values}) == 4


@pytest.mark.parametrize("arguments", [(3.0, -3.0, 1.0), (0.0, 0.0, 1.0), (-3.0, 3.0, 0.0)])
def test_sigmoid_refuses_an_empty_range(arguments: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="expected start < end and temperature > 0"):
        SigmoidSchedule(*arguments)


def test_log_snr() -> None:
    gamma = torch.tensor([0.5, 0.9, GAMMA_MIN], dtype=torch.float64)
    assert log_snr(gamma).tolist() == pytest.approx([0, math.log(9), math.log(GAMMA_MIN / (1 - GAMMA_MIN))])
    assert all(math.isfinite(log_snr(schedule(torch.tensor(1.0)))) for schedule in ALL)


@pytest.mark.parametrize(
    ("td_steps", "following"),
    [
        (0.0, [0.75, 0.5, 0.25, 0.0]),
        (0.5, [0.625, 0.375, 0.125, 0.0]),  # half a step is 1/8
        (1.0, [0.5, 0.25, 0.0, 0.0]),  # one step is 1/4, never below 0
        (9.0, [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_time_grid_of_four_steps(td_steps: float, following: list[float]) -> None:
    """The network sees 1, 3/4, 1/2, 1/4 whatever td; only the time stepped to runs ahead."""
    now, ahead = zip(*time_grid(4, td_steps))
    assert list(now) == [1.0, 0.75, 0.5, 0.25]
    assert list(ahead) == following


def test_time_difference_is_counted_in_steps() -> None:
    assert time_grid(4, 1)[0][1] == pytest.approx(1 - 2 / 4)
    assert time_grid(40, 1)[0][1] == pytest.approx(1 - 2 / 40)


def test_time_grid_from_the_middle() -> None:
    """Two steps of 1/4 from 1/2; half a step ahead is 1/8."""
    assert time_grid(2, 0.5, 0.5) == [(0.5, 0.125), (0.25, 0.0)]


@pytest.mark.parametrize("t_start", [0.0, -0.1, 1.1, math.nan])
def test_a_start_out_of_range_raises(t_start: float) -> None:
    with pytest.raises(ValueError, match=r"t_start: expected a time in \(0, 1\], got"):
        time_grid(4, t_start=t_start)


def test_times_between_knots_lie_on_straight_lines() -> None:
    """Half of the way is spent above 0.8; td is counted on the way, so half a step ahead of 1/2 is 3/8 of the way."""
    now, ahead = zip(*time_grid(4, 0.5, knots=(1, 0.8, 0)))
    assert list(now) == pytest.approx([1.0, 0.9, 0.8, 0.4])
    assert list(ahead) == pytest.approx([0.85, 0.6, 0.2, 0.0])
    assert ahead[-1] == 0  # exactly: samplers end there


def test_a_later_start_leaves_the_rest_of_the_warped_way() -> None:
    """The start at t = 0.4 stands where 1/4 of the way is left, of which two steps take 1/8 each."""
    assert time_grid(2, 0, 0.4, (1, 0.8, 0)) == [pytest.approx((0.4, 0.2)), pytest.approx((0.2, 0.0))]
    assert time_grid(1, 0, 0.8, (1, 0.8, 0))[0] == pytest.approx((0.8, 0.0))


@pytest.mark.parametrize("knots", [(1, 0), (1, 0.75, 0.5, 0.25, 0)])
@pytest.mark.parametrize("arguments", [(7, 0.0, 1.0), (10, 2.0, 1.0), (5, 1.5, 0.8)])
def test_uniform_knots_change_nothing(knots: tuple[float, ...], arguments: tuple[int, float, float]) -> None:
    assert time_grid(*arguments, knots) == time_grid(*arguments)


@pytest.mark.parametrize(
    "knots", [(), (1,), (1, 0.5), (0.9, 0), (0, 1), (1, 0.5, 0.5, 0), (1, 0.2, 0.4, 0), (1, math.nan, 0), (1, -0.1, 0)]
)
def test_knots_that_do_not_fall_from_1_to_0_raise(knots: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"knots: expected two times or more, falling from 1 to 0, got \("):
        time_grid(4, knots=knots)
    with pytest.raises(ValueError, match="knots: "):
        check_knots(knots)


def test_many_wrong_knots_are_not_all_shown() -> None:
    with pytest.raises(ValueError, match=r"got \((0\.5, ){20}\.\.\.\)$"):
        check_knots([0.5] * 1000)


def test_one_step_goes_all_the_way() -> None:
    assert time_grid(1) == [(1.0, 0.0)]


@pytest.mark.parametrize(
    ("steps", "td", "name"),
    [(0, 0, "num_steps"), (-3, 0, "num_steps"), (4, -0.1, "td_steps"), (4, math.nan, "td_steps")],
)
def test_wrong_numbers_raise(steps: int, td: float, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least"):
        time_grid(steps, td)
