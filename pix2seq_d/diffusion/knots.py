"""Step grids matched to a model: the knots of `time_grid` from the error of its estimates at each noise level.

Where the error hardly depends on t, a long step loses little; where it falls fast, steps have to be short. With power 1
every step takes away the same share of the error, which for a cross-entropy is the same amount of information (entropic
time, arXiv 2504.13612; the time warping of arXiv 2211.15089 fits the same). With power 1/2 the sum of
the errors that the steps make is smallest, if a step of length h at slope e' makes one of e' h^2, as a first-order
method does: n steps a unit of time make e' / n there, and with a given total of steps that is least for n in proportion
to sqrt(e').
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NUM_KNOTS = 33
UNIFORM_SHARE = 0.1  # of the steps; bounds how long one gets where the error is flat


def matched_knots(
    times: Sequence[float],
    errors: Sequence[float],
    *,
    power: float = 0.5,
    num_knots: int = NUM_KNOTS,
    uniform_share: float = UNIFORM_SHARE,
) -> tuple[float, ...]:
    """Knots whose density of steps goes with |d error / dt| ** power, mixed with a uniform one.

    Args:
        times: noise levels, ascending from 0 to 1.
        errors: of the x0 estimates at these times, finite; what falls with rising t counts as flat.
        power: 0 = uniform times, 1 = the same share of the error for every step.
        num_knots: times that are returned.
        uniform_share: share of the steps that is spread evenly over the time, in (0, 1].

    Returns:
        `num_knots` times falling from 1 to 0, at evenly spaced shares of the steps.

    Raises:
        ValueError: times that do not ascend from 0 to 1, not one finite error for each, errors that do not rise at all,
            a negative power, fewer than two knots or a share outside (0, 1].
    """
    t, error = _checked(times, errors)
    if not 0 <= power < np.inf:
        raise ValueError(f"power: expected at least 0, got {power}")
    if num_knots < 2:
        raise ValueError(f"num_knots: expected at least 2, got {num_knots}")
    if not 0 < uniform_share <= 1:
        raise ValueError(f"uniform_share: expected a share in (0, 1], got {uniform_share}")
    rises = np.diff(np.maximum.accumulate(error))
    if not rises.any():
        raise ValueError("errors: expected some that rise with the noise, got none")
    steps = (rises / np.diff(t)) ** power * np.diff(t)  # in each interval
    steps = (1 - uniform_share) * steps / steps.sum() + uniform_share * np.diff(t)
    left = np.concatenate([[0.0], np.cumsum(steps)])
    knots = np.interp(np.linspace(1, 0, num_knots), left / left[-1], t)
    return tuple(float(knot) for knot in knots)


def _checked(times: Sequence[float], errors: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    t, error = np.array(times, dtype=np.float64), np.array(errors, dtype=np.float64)
    if t.ndim != 1 or len(t) < 2 or (t[0], t[-1]) != (0, 1) or not (np.diff(t) > 0).all():
        raise ValueError(f"times: expected two or more, ascending from 0 to 1, got {list(times)}")
    if error.shape != t.shape or not np.isfinite(error).all():
        raise ValueError(f"errors: expected {len(t)} finite numbers, one for each time, got {list(errors)}")
    return t, error
