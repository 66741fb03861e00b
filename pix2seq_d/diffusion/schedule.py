"""Noise schedules: gamma(t), the share of signal power left at time t (t = 0 clean, t = 1 noise), and their inverses.

Cosine and linear follow Bit Diffusion (arXiv 2208.04202), sigmoid "On the Importance of Noise Scheduling"
(arXiv 2301.10972, Algorithm 1). All are decreasing with values in [GAMMA_MIN, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

GAMMA_MIN = 1e-9  # keeps log_snr finite at t = 1


class Schedule(Protocol):
    """gamma(t) and its inverse, elementwise on tensors of any shape."""

    def __call__(self, t: Tensor) -> Tensor:
        """Signal power in [GAMMA_MIN, 1] at t in [0, 1]."""
        ...

    def inverse(self, gamma: Tensor) -> Tensor:
        """Time in [0, 1] at which the signal power is gamma."""
        ...


class CosineSchedule:
    """gamma = cos^2(pi t / 2)."""

    def __call__(self, t: Tensor) -> Tensor:
        return torch.cos(t * (math.pi / 2)).square().clamp(GAMMA_MIN, 1)

    def inverse(self, gamma: Tensor) -> Tensor:
        """Time t = 2 acos(sqrt(gamma)) / pi."""
        return torch.acos(gamma.sqrt()) * (2 / math.pi)


class LinearSchedule:
    """gamma = 1 - t."""

    def __call__(self, t: Tensor) -> Tensor:
        return (1 - t).clamp(GAMMA_MIN, 1)

    def inverse(self, gamma: Tensor) -> Tensor:
        """Time t = 1 - gamma."""
        return 1 - gamma


class SigmoidSchedule:
    """gamma = (s(end) - s(start + t (end - start))) / (s(end) - s(start)), s(x) = sigmoid(x / temperature)."""

    def __init__(self, start: float = -3.0, end: float = 3.0, temperature: float = 1.0) -> None:
        if not (start < end and temperature > 0):
            raise ValueError(f"expected start < end and temperature > 0, got {start}, {end}, {temperature}")
        self.start, self.end, self.temperature = start, end, temperature
        self.low, self.high = (1 / (1 + math.exp(-x / temperature)) for x in (start, end))

    def __call__(self, t: Tensor) -> Tensor:
        s = torch.sigmoid((self.start + t * (self.end - self.start)) / self.temperature)
        return ((self.high - s) / (self.high - self.low)).clamp(GAMMA_MIN, 1)

    def inverse(self, gamma: Tensor) -> Tensor:
        """Time in [0, 1] at which the signal power is gamma."""
        s = self.high - gamma * (self.high - self.low)
        return (torch.logit(s) * self.temperature - self.start) / (self.end - self.start)


def log_snr(gamma: Tensor) -> Tensor:
    """log(gamma / (1 - gamma)), the log of the signal-to-noise ratio."""
    return torch.log(gamma) - torch.log1p(-gamma)


def time_grid(
    num_steps: int, td_steps: float = 0.0, t_start: float = 1.0, knots: Sequence[float] | None = None
) -> list[tuple[float, float]]:
    """Pairs (t_now, t_next) of a sampler on uniform times, or on times warped by `knots`.

    Asymmetric time intervals (arXiv 2208.04202, section 2.4): t_next runs `td_steps` steps ahead, so the network is
    told that its input is noisier than it is.

    Args:
        num_steps: number of network evaluations, >= 1.
        td_steps: time difference in steps (not a fraction of [0, 1]), >= 0.
        t_start: first time, in (0, 1]; steps are shares 1 / num_steps of the way from there to 0.
        knots: times at evenly spaced shares of the way from t = 1 to t = 0, straight lines between them, see
            `check_knots`; None = (1, 0), times fall evenly.

    Raises:
        ValueError: num_steps < 1, td_steps < 0, t_start outside (0, 1] or knots that do not fall from 1 to 0.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: expected at least 1, got {num_steps}")
    if not td_steps >= 0:  # nor NaN
        raise ValueError(f"td_steps: expected at least 0, got {td_steps}")
    if not 0 < t_start <= 1:
        raise ValueError(f"t_start: expected a time in (0, 1], got {t_start}")
    grid = [(1 - i / num_steps, max(1 - (i + 1 + td_steps) / num_steps, 0.0)) for i in range(num_steps)]
    if knots is None:
        return [(t_start * now, t_start * ahead) for now, ahead in grid]
    times = check_knots(knots)[::-1]
    left = np.linspace(0, 1, len(times))  # of the way
    start = np.interp(t_start, times, left)
    warped = np.interp(start * np.array(grid), left, times)  # (num_steps, 2)
    return [(float(now), float(ahead)) for now, ahead in warped]


def check_knots(knots: Sequence[float]) -> tuple[float, ...]:
    """The knots of a time grid as a tuple: two times or more, falling from 1 to 0.

    Raises:
        ValueError: they do not.
    """
    times = tuple(float(t) for t in knots)
    if len(times) < 2 or (times[0], times[-1]) != (1, 0) or not all(a > b for a, b in pairwise(times)):
        shown = ", ".join(f"{t:g}" for t in times[:20]) + (", ..." if len(times) > 20 else "")
        raise ValueError(f"knots: expected two times or more, falling from 1 to 0, got ({shown})")
    return times


SCHEDULES: dict[str, type[CosineSchedule] | type[LinearSchedule] | type[SigmoidSchedule]] = {
    "cosine": CosineSchedule,
    "linear": LinearSchedule,
    "sigmoid": SigmoidSchedule,
}
