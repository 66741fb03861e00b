"""How far to trust a prediction's own doubt: calibration of confidences, and whether what is uncertain is wrong.

Calibration, its bins and the expected calibration error follow Guo et al., arXiv 1706.04599, section 2; sparsification,
its oracle and AUSE follow Ilg et al., arXiv 1802.07095. Values are pixels or segments, in arrays of any shape.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from pix2seq_d.metrics.base import SequenceId, StreamingMetric
from pix2seq_d.metrics.maps import as_array, sum_by

Numbers: TypeAlias = np.ndarray | Tensor

_UNITS = 1 << 24  # sums are kept as integers of 2^-24, so that the order of additions never matters
_LEVELS = 1 << 10  # of an uncertainty or an error in a sparsification


class _Histogram:
    """Number of values per bin, and the sums of some numbers in [0, 1] that belong to them."""

    def __init__(self, size: int, num_sums: int) -> None:
        self.count, self.sums = np.zeros(size, np.int64), np.zeros((num_sums, size), np.int64)

    def add(self, index: np.ndarray, *numbers: np.ndarray) -> None:
        """(R,) bins and (R,) numbers of each."""
        size = len(self.count)
        self.count += sum_by(index, None, size)
        for total, values in zip(self.sums, numbers):
            total += sum_by(index, np.rint(values * _UNITS), size)

    def merge(self, other: _Histogram) -> None:
        """Adds another one."""
        self.count += other.count
        self.sums += other.sums


class _DoubtMetric(StreamingMetric):
    """A metric of pairs of numbers in [0, 1], what a prediction says of itself and what is true."""

    shares_sequences = True
    interleaves = True
    _names: tuple[str, str]

    def _update(
        self, said: Numbers, true: Numbers, valid: Numbers | None, sequence_id: SequenceId, frame: int | None
    ) -> None:
        self._check_order(sequence_id, frame)
        where, arrays = self._where(sequence_id, frame), [as_array(said), as_array(true)]
        shape = arrays[0].shape
        kept = np.ones(shape, bool) if valid is None else as_array(valid)
        for name, array in zip((self._names[1], "valid"), (arrays[1], kept)):
            if array.shape != shape:
                raise ValueError(f"{where}: expected {name} of the shape {shape}, got {array.shape}")
        if kept.dtype != bool:
            raise TypeError(f"{where}: expected valid as booleans, got {kept.dtype}")
        values = [a[kept].astype(np.float64) for a in arrays]
        for name, v in zip(self._names, values):
            if not ((v >= 0) & (v <= 1)).all():  # nor NaN
                wrong = v[~((v >= 0) & (v <= 1))][0]
                raise ValueError(f"{where}: expected {name} in [0, 1], got {wrong:g}")
        self._add(*values)
        self._count(sequence_id, frame)

    @abstractmethod
    def _add(self, said: np.ndarray, true: np.ndarray) -> None: ...


class CalibrationError(_DoubtMetric):
    """Reliability diagram and expected calibration error: of what is predicted at 80 %, are 80 % right?

    Args:
        num_bins: of equal width; bin m holds the confidences in ((m - 1) / M, m / M], the first one 0 too.
    """

    _names = "confidence", "correct"

    def __init__(self, num_bins: int = 15) -> None:
        if num_bins < 1:
            raise ValueError(f"num_bins: expected at least 1, got {num_bins}")
        self.num_bins = num_bins
        super().__init__({"num_bins": num_bins})

    def update(
        self,
        confidence: Numbers,
        correct: Numbers,
        sequence_id: SequenceId = "0",
        *,
        valid: Numbers | None = None,
        frame: int | None = None,
    ) -> None:
        """Adds one frame.

        Args:
            confidence: numbers in [0, 1], array or tensor of any shape.
            correct: whether they were right, of that shape; or how far, in [0, 1].
            sequence_id: the video.
            valid: booleans of that shape, what counts; None = all.
            frame: its number, for error messages and to have the order checked.

        Raises:
            TypeError: `valid` is not boolean.
            ValueError: other shapes, numbers out of range where they count, or a frame out of order.
        """
        self._update(confidence, correct, valid, sequence_id, frame)

    def compute(self) -> dict[str, Any]:
        """The diagram and its scores.

        Returns:
            `ece` and `mce`, mean (by number) and largest difference of accuracy and mean confidence in a bin;
            `accuracy` and `confidence` over all; `count`; `bins`, of each `low`, `high`, `count`, and `confidence` and
            `accuracy`, None in an empty bin; `num_frames`. Scores of nothing are 0.
        """
        count, (confidence, correct) = self._bins.count, self._bins.sums / _UNITS
        total, gaps = max(int(count.sum()), 1), np.abs(correct - confidence)
        means = [values / np.maximum(count, 1) for values in (confidence, correct)]
        edges = np.linspace(0, 1, self.num_bins + 1).tolist()
        bins = [
            {"low": low, "high": high, "count": n, "confidence": c if n else None, "accuracy": a if n else None}
            for low, high, n, c, a in zip(edges, edges[1:], count.tolist(), *(m.tolist() for m in means))
        ]
        return {
            "ece": float(gaps.sum()) / total,
            "mce": float((gaps / np.maximum(count, 1)).max()),
            "accuracy": float(correct.sum()) / total,
            "confidence": float(confidence.sum()) / total,
            "count": int(count.sum()),
            "bins": bins,
            "num_frames": sum(self.num_frames.values()),
        }

    def _add(self, said: np.ndarray, true: np.ndarray) -> None:
        index = np.ceil(said * self.num_bins).astype(np.int64) - 1
        self._bins.add(index.clip(0), said, true)

    def _merge(self, other: CalibrationError) -> None:
        self._bins.merge(other._bins)

    def _clear(self) -> None:
        self._bins = _Histogram(self.num_bins, 2)


class Sparsification(_DoubtMetric):
    """The mean error that is left when the most uncertain values are removed; the oracle removes the largest errors.

    Values are removed by 1024 levels of their uncertainty; of a level that is removed in part, any values are. Memory
    does not depend on their number.

    Args:
        num_points: of the curves, at removed shares 0, 1 / (num_points - 1), ..., 1.
    """

    _names = "uncertainty", "error"

    def __init__(self, num_points: int = 101) -> None:
        if num_points < 2:
            raise ValueError(f"num_points: expected at least 2, got {num_points}")
        self.num_points = num_points
        super().__init__({"num_points": num_points})

    def update(
        self,
        uncertainty: Numbers,
        error: Numbers,
        sequence_id: SequenceId = "0",
        *,
        valid: Numbers | None = None,
        frame: int | None = None,
    ) -> None:
        """Adds one frame.

        Args:
            uncertainty: numbers in [0, 1], array or tensor of any shape.
            error: whether they were wrong, of that shape; or how far, in [0, 1].
            sequence_id: the video.
            valid: booleans of that shape, what counts; None = all.
            frame: its number, for error messages and to have the order checked.

        Raises:
            TypeError: `valid` is not boolean.
            ValueError: other shapes, numbers out of range where they count, or a frame out of order.
        """
        self._update(uncertainty, error, valid, sequence_id, frame)

    def compute(self) -> dict[str, Any]:
        """Curves and areas.

        Returns:
            `removed`, `curve` and `oracle`: lists of `num_points` shares and mean errors of what is left (at share 1
            the limit); `error`, the mean error of all, and the curve of a removal at random; `ausc` and `auso`, the
            areas under curve and oracle; `ause` = ausc - auso; `ause_of_random` = ause / (error - auso), which is 0
            for the oracle and 1 for chance; `auroc`, the probability that an error is more uncertain than what is
            right, errors weighing what they are, 1/2 for chance; `count`, `num_frames`. What is not defined, as all
            scores of nothing, is None; curves of nothing are empty.
        """
        counts = {"count": int(self._by_uncertainty.count.sum()), "num_frames": sum(self.num_frames.values())}
        if not counts["count"]:
            none = dict.fromkeys(("error", "ausc", "auso", "ause", "ause_of_random", "auroc"))
            return {"removed": [], "curve": [], "oracle": [], **none, **counts}
        removed = np.linspace(0, 1, self.num_points)
        curve, oracle = (self._left(h, removed) for h in (self._by_uncertainty, self._by_error))
        error, ausc, auso = float(curve[0]), float(np.trapezoid(curve, removed)), float(np.trapezoid(oracle, removed))
        return {
            "removed": removed.tolist(),
            "curve": curve.tolist(),
            "oracle": oracle.tolist(),
            "error": error,
            "ausc": ausc,
            "auso": auso,
            "ause": ausc - auso,
            "ause_of_random": (ausc - auso) / (error - auso) if error - auso > 1e-12 else None,
            "auroc": self._auroc(),
            **counts,
        }

    @staticmethod
    def _left(histogram: _Histogram, removed: np.ndarray) -> np.ndarray:
        """Mean error after the removal of shares, from the highest level down."""
        used = histogram.count > 0
        count, error = histogram.count[used], histogram.sums[0][used] / _UNITS
        counts, errors = (np.concatenate([[0], np.cumsum(v)]) for v in (count, error))  # of the lowest levels
        left = (1 - removed[:-1]) * counts[-1]
        return np.append(np.interp(left, counts, errors) / left, error[0] / count[0])

    def _auroc(self) -> float | None:
        wrong = self._by_uncertainty.sums[0] / _UNITS
        right = self._by_uncertainty.count - wrong
        pairs = wrong.sum() * right.sum()
        below = np.cumsum(right) - right / 2  # ties count half
        return float((wrong * below).sum() / pairs) if pairs else None

    def _add(self, said: np.ndarray, true: np.ndarray) -> None:
        for histogram, values in ((self._by_uncertainty, said), (self._by_error, true)):
            histogram.add(np.rint(values * (_LEVELS - 1)).astype(np.int64), true)

    def _merge(self, other: Sparsification) -> None:
        self._by_uncertainty.merge(other._by_uncertainty)
        self._by_error.merge(other._by_error)

    def _clear(self) -> None:
        self._by_uncertainty, self._by_error = _Histogram(_LEVELS, 1), _Histogram(_LEVELS, 1)
