"""Reverse processes as free functions over a bound denoiser: noise x_T -> x0.

`denoise(x_t, gamma, self_cond) -> x0` has its conditioning bound; gamma (B,), self_cond the last x0 estimate or None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pix2seq_d.diffusion.noise import Generators, draw
from pix2seq_d.diffusion.process import eps_from_x0
from pix2seq_d.diffusion.schedule import Schedule, log_snr, time_grid

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Sampler = Callable[..., Tensor]  # one of SAMPLERS
Callback = Callable[[int, Tensor, Tensor], None]  # step number, x_t, x0 estimate


class Step(NamedTuple):
    """From one time to the next: times and their signal powers, 0-dimensional."""

    t_now: float
    t_next: float
    gamma_now: Tensor
    gamma_next: Tensor


Advance = Callable[[Tensor, Tensor, Step], Tensor]  # x_t, x0 estimate, step -> x at t_next


def sample_ddim(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    num_steps: int,
    *,
    td_steps: float = 0.0,
    t_start: float = 1.0,
    clip: float | None = None,
    stop_unchanged: float | None = None,
    knots: Sequence[float] | None = None,
    generator: Generators = None,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM (arXiv 2010.02502, eq. 12 with sigma = 0) in the form of Bit Diffusion's Algorithm 2.

    Args:
        denoise: bound denoiser.
        x_T: (B, K, h, w) unit noise at t = 1; with t_start < 1 noised bits, `add_noise` of a guess.
        schedule: gamma(t).
        num_steps: network evaluations, at most.
        td_steps: asymmetric time interval in steps.
        t_start: time at which x_T stands, in (0, 1].
        clip: x0 estimates are clipped to [-clip, clip]; None leaves them.
        stop_unchanged: ends with an estimate that has this share of pixels or more, in every sample, in the code of the
            estimate before (bits by sign); None never does.
        knots: warp of the times, see `time_grid`; None leaves them uniform.
        generator: unused, the process is deterministic given x_T; here so that samplers are interchangeable.
        callback: called with (step, x_t, x0 estimate) after every evaluation.

    Returns:
        (B, K, h, w) the last x0 estimate.

    Raises:
        ValueError: num_steps < 1, td_steps < 0, t_start or stop_unchanged outside (0, 1], knots that do not fall from
            1 to 0.
    """
    grid = time_grid(num_steps, td_steps, t_start, knots)
    return _reverse(_ddim_step, denoise, x_T, schedule, grid, clip, stop_unchanged, callback)


def sample_dpmpp_2m(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    num_steps: int,
    *,
    td_steps: float = 0.0,
    t_start: float = 1.0,
    clip: float | None = None,
    stop_unchanged: float | None = None,
    knots: Sequence[float] | None = None,
    generator: Generators = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (arXiv 2211.01095, Algorithm 2): DDIM with the estimate extrapolated to the middle of the step.

    The line through the last two estimates over half the log-SNR, as the denoiser was told it, is read half a step
    ahead. The first step and steps to t = 0, where the log-SNR is infinite, are DDIM's. Extrapolated estimates are
    clipped too. Arguments, result and errors as `sample_ddim`.
    """
    last: tuple[Tensor, Tensor] | None = None  # log-SNR and estimate of the step before

    def advance(x_t: Tensor, x0: Tensor, step: Step) -> Tensor:
        nonlocal last
        before, last = last, (log_snr(step.gamma_now), x0)
        if before is None or step.t_next == 0:
            return _ddim_step(x_t, x0, step)
        inverse_r = (log_snr(step.gamma_next) - last[0]) / (last[0] - before[0])
        return _ddim_step(x_t, _clip(x0 + inverse_r / 2 * (x0 - before[1]), clip), step)

    grid = time_grid(num_steps, td_steps, t_start, knots)
    return _reverse(advance, denoise, x_T, schedule, grid, clip, stop_unchanged, callback)


def sample_ddpm(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    num_steps: int,
    *,
    td_steps: float = 0.0,
    t_start: float = 1.0,
    clip: float | None = None,
    stop_unchanged: float | None = None,
    knots: Sequence[float] | None = None,
    generator: Generators = None,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling from the posterior q(x_s | x_t, x0) (DDPM, arXiv 2006.11239, eq. 7) on `time_grid`.

    Arguments, result and errors as `sample_ddim`; `generator` draws the noise of each step, a sequence of one per
    sample that of each sample by itself.
    """

    def advance(x_t: Tensor, x0: Tensor, step: Step) -> Tensor:
        g_t, g_s = step.gamma_now, step.gamma_next
        alpha, noise = g_t / g_s, (1 - g_s) / (1 - g_t)
        mean = g_s.sqrt() * (1 - alpha) / (1 - g_t) * x0 + alpha.sqrt() * noise * x_t
        return mean + ((1 - alpha) * noise).sqrt() * _noise_like(x_t, generator)

    grid = time_grid(num_steps, td_steps, t_start, knots)
    return _reverse(advance, denoise, x_T, schedule, grid, clip, stop_unchanged, callback)


def sample_renoise(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    num_steps: int,
    *,
    td_steps: float = 0.0,
    t_start: float = 1.0,
    clip: float | None = None,
    stop_unchanged: float | None = None,
    knots: Sequence[float] | None = None,
    generator: Generators = None,
    callback: Callback | None = None,
) -> Tensor:
    """Every step noises the x0 estimate anew (consistency models, arXiv 2303.01469, Algorithm 1).

    Nothing of a pixel's old noise survives, only what the denoiser made of it, so the pixels of an object come to agree
    on its code. Not a sampler of the exact distribution: estimates are means, and the likelier code wins too often.
    Arguments, result and errors as `sample_ddim`; `generator` draws the noise of each step, a sequence of one per
    sample that of each sample by itself.
    """

    def advance(x_t: Tensor, x0: Tensor, step: Step) -> Tensor:
        return step.gamma_next.sqrt() * x0 + (1 - step.gamma_next).sqrt() * _noise_like(x_t, generator)

    grid = time_grid(num_steps, td_steps, t_start, knots)
    return _reverse(advance, denoise, x_T, schedule, grid, clip, stop_unchanged, callback)


def _reverse(
    advance: Advance,
    denoise: Denoise,
    x_t: Tensor,
    schedule: Schedule,
    grid: list[tuple[float, float]],
    clip: float | None,
    stop_unchanged: float | None,
    callback: Callback | None,
) -> Tensor:
    """Estimates x0 and advances along the grid; the last estimate."""
    if stop_unchanged is not None and not 0 < stop_unchanged <= 1:
        raise ValueError(f"stop_unchanged: expected a share in (0, 1], got {stop_unchanged}")
    x0: Tensor | None = None
    for number, times in enumerate(grid):
        gammas = schedule(torch.tensor(times, device=x_t.device, dtype=x_t.dtype))
        before, x0 = x0, _clip(denoise(x_t, gammas[0].expand(len(x_t)), x0), clip)
        if callback is not None:
            callback(number, x_t, x0)
        if stop_unchanged is not None and before is not None and _unchanged(before, x0) >= stop_unchanged:
            break
        x_t = advance(x_t, x0, Step(*times, gammas[0], gammas[1]))
    assert x0 is not None
    return x0


def _unchanged(before: Tensor, x0: Tensor) -> float:
    """Share of pixels whose bits keep their signs, in the sample that has the fewest."""
    return ((before > 0) == (x0 > 0)).all(1).double().mean((1, 2)).min().item()


def _ddim_step(x_t: Tensor, x0: Tensor, step: Step) -> Tensor:
    eps = eps_from_x0(x_t, step.gamma_now, x0)
    return step.gamma_next.sqrt() * x0 + (1 - step.gamma_next).sqrt() * eps


def _noise_like(x: Tensor, generator: Generators) -> Tensor:
    return draw(torch.randn, x.shape, x, generator, x.dtype)


def _clip(x0: Tensor, clip: float | None) -> Tensor:
    return x0 if clip is None else x0.clamp(-clip, clip)


SAMPLERS = {"ddim": sample_ddim, "ddpm": sample_ddpm, "dpmpp_2m": sample_dpmpp_2m, "renoise": sample_renoise}
