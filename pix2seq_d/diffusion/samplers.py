"""Reverse processes as free functions over a bound denoiser: noise x_T -> x0.

`denoise(x_t, gamma, self_cond) -> x0` has its conditioning bound; gamma (B,), self_cond the last x0 estimate or None.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pix2seq_d.diffusion.process import eps_from_x0
from pix2seq_d.diffusion.schedule import Schedule, time_grid

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Callback = Callable[[int, Tensor, Tensor], None]  # step number, x_t, x0 estimate


def sample_ddim(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    num_steps: int,
    *,
    td_steps: float = 0.0,
    clip: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM (arXiv 2010.02502, eq. 12 with sigma = 0) in the form of Bit Diffusion's Algorithm 2.

    Args:
        denoise: bound denoiser.
        x_T: (B, K, h, w) unit noise at t = 1.
        schedule: gamma(t).
        num_steps: network evaluations.
        td_steps: asymmetric time interval in steps.
        clip: x0 estimates are clipped to [-clip, clip]; None leaves them.
        generator: unused, the process is deterministic given x_T; here so that samplers are interchangeable.
        callback: called with (step, x_t, x0 estimate) after every evaluation.

    Returns:
        (B, K, h, w) the last x0 estimate.

    Raises:
        ValueError: num_steps < 1 or td_steps < 0.
    """
    x_t, x0 = x_T, None
    for step, (t_now, t_next) in enumerate(time_grid(num_steps, td_steps)):
        gamma_now, gamma_next = _gammas(schedule, t_now, t_next, x_t)
        x0 = _clip(denoise(x_t, gamma_now, x0), clip)
        if callback is not None:
            callback(step, x_t, x0)
        eps = eps_from_x0(x_t, gamma_now, x0)
        x_t = gamma_next[0].sqrt() * x0 + (1 - gamma_next[0]).sqrt() * eps
    assert x0 is not None
    return x0


def sample_ddpm(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    num_steps: int,
    *,
    td_steps: float = 0.0,
    clip: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling from the posterior q(x_s | x_t, x0) (DDPM, arXiv 2006.11239, eq. 7) on `time_grid`.

    Arguments, result and errors as `sample_ddim`; `generator` draws the noise of each step.
    """
    x_t, x0 = x_T, None
    for step, (t_now, t_next) in enumerate(time_grid(num_steps, td_steps)):
        gamma_now, gamma_next = _gammas(schedule, t_now, t_next, x_t)
        x0 = _clip(denoise(x_t, gamma_now, x0), clip)
        if callback is not None:
            callback(step, x_t, x0)
        g_t, g_s = gamma_now[0], gamma_next[0]
        alpha, noise = g_t / g_s, (1 - g_s) / (1 - g_t)
        mean = g_s.sqrt() * (1 - alpha) / (1 - g_t) * x0 + alpha.sqrt() * noise * x_t
        z = torch.randn(x_t.shape, generator=generator, device=x_t.device, dtype=x_t.dtype)
        x_t = mean + ((1 - alpha) * noise).sqrt() * z
    assert x0 is not None
    return x0


def sample_renoise(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    num_steps: int,
    *,
    td_steps: float = 0.0,
    clip: float | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Every step noises the x0 estimate anew (consistency models, arXiv 2303.01469, Algorithm 1).

    Nothing of a pixel's old noise survives, only what the denoiser made of it, so the pixels of an object come to agree
    on its code. Not a sampler of the exact distribution: estimates are means, and the likelier code wins too often.
    Arguments, result and errors as `sample_ddim`; `generator` draws the noise of each step.
    """
    x_t, x0 = x_T, None
    for step, (t_now, t_next) in enumerate(time_grid(num_steps, td_steps)):
        gamma_now, gamma_next = _gammas(schedule, t_now, t_next, x_t)
        x0 = _clip(denoise(x_t, gamma_now, x0), clip)
        if callback is not None:
            callback(step, x_t, x0)
        z = torch.randn(x_t.shape, generator=generator, device=x_t.device, dtype=x_t.dtype)
        x_t = gamma_next[0].sqrt() * x0 + (1 - gamma_next[0]).sqrt() * z
    assert x0 is not None
    return x0


def _gammas(schedule: Schedule, t_now: float, t_next: float, x: Tensor) -> tuple[Tensor, Tensor]:
    times = torch.tensor([t_now, t_next], device=x.device, dtype=x.dtype)
    now, following = schedule(times)
    return now.expand(len(x)), following.expand(len(x))


def _clip(x0: Tensor, clip: float | None) -> Tensor:
    return x0 if clip is None else x0.clamp(-clip, clip)


SAMPLERS = {"ddim": sample_ddim, "ddpm": sample_ddpm, "renoise": sample_renoise}
