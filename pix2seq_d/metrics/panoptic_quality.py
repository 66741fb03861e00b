"""Panoptic quality PQ = SQ * RQ (Kirillov et al., arXiv 1801.00868) and, over windows of k frames, VPQ (Kim et al.,
arXiv 2006.11339), with the arithmetic of panopticapi.

A predicted and a target segment of one class match where their IoU is above 0.5. Scores are fractions in [0, 1]. A
class is valid where tp + fp + fn > 0; averages are over valid classes, and 0 where there is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from pix2seq_d.metrics.counts import ClassLayout, JointCounts, SegmentationMetric, SequenceId, pool

_IOU_UNIT = 1 << 53  # a float64 in (0.5, 1] is a whole multiple of 2^-53, so sums of matched IoUs are kept as integers


class MatchStats:
    """Matches of segments per class; integers only, so that the order of additions never matters.

    Attributes:
        tp: (C,) int64 matched pairs.
        fp: (C,) int64 predicted segments without a match.
        fn: (C,) int64 target segments without a match.
        iou: per class, the sum of the matched IoUs in units of 2^-53.
    """

    def __init__(self, num_classes: int) -> None:
        self.tp, self.fp, self.fn = np.zeros((3, num_classes), np.int64)
        self.iou = [0] * num_classes

    def add(self, counts: JointCounts, *, ignore_crowd: bool, subtract_void: bool) -> None:
        """Matches the segments of one frame, or of several pooled ones; see `PanopticQuality` for the options."""
        layout, area, num_classes = counts.layout, counts.area, len(self.tp)
        targets, target_index = np.unique(counts.target_key, return_inverse=True)
        _, pred_index = np.unique(counts.pred_key, return_inverse=True)
        target_area, pred_area = _sums(target_index, area), _sums(pred_index, area)
        void = counts.target_class == layout.void_id
        crowd = counts.target_crowd & ignore_crowd
        same_class = counts.target_class == counts.pred_class
        on_void = _sums(pred_index, area * void)

        # Matches

        union = target_area[target_index] + pred_area[pred_index] - area - on_void[pred_index] * subtract_void
        match = same_class & ~void & ~crowd & (2 * area > union)
        matched_classes = counts.target_class[match]
        units = (area[match] / union[match] * _IOU_UNIT).astype(np.int64)
        for c, iou in zip(matched_classes.tolist(), units.tolist()):
            self.iou[c] += iou

        # What is left over: target segments but void and crowd, predicted ones but those mostly on void or crowd

        missed = np.ones(len(targets), bool)
        missed[target_index[match | void | crowd]] = False
        ignored = on_void + _sums(pred_index, area * (crowd & same_class))
        wrong = 2 * ignored <= pred_area
        wrong[pred_index[match | (counts.pred_class == layout.void_id)]] = False
        self.tp += np.bincount(matched_classes, minlength=num_classes)
        self.fn += np.bincount(_first(counts.target_class, target_index)[missed], minlength=num_classes)
        self.fp += np.bincount(_first(counts.pred_class, pred_index)[wrong], minlength=num_classes)

    def merge(self, other: MatchStats) -> None:
        """Adds the counts of `other`."""
        for name in ("tp", "fp", "fn"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.iou = [a + b for a, b in zip(self.iou, other.iou)]

    def summary(self, layout: ClassLayout) -> dict[str, Any]:
        """Scores per class, and their averages over all valid classes, things and stuff."""
        per_class = {c: self._scores(c) for c in layout.class_ids}
        things = [s for c, s in per_class.items() if c in layout.thing_ids]
        stuff = [s for c, s in per_class.items() if c not in layout.thing_ids]
        averages: dict[str, Any] = {}
        for suffix, scores in (("", list(per_class.values())), ("_things", things), ("_stuff", stuff)):
            averages |= {f"{key}{suffix}": value for key, value in _average(scores).items()}
        return {**averages, "per_class": per_class}

    def _scores(self, c: int) -> dict[str, Any]:
        tp, fp, fn = int(self.tp[c]), int(self.fp[c]), int(self.fn[c])
        iou, segments = self.iou[c] / _IOU_UNIT, tp + (fp + fn) / 2
        scores = {
            "pq": iou / segments if segments else 0.0,
            "sq": iou / tp if tp else 0.0,
            "rq": tp / segments if segments else 0.0,
        }
        return {**scores, "tp": tp, "fp": fp, "fn": fn, "valid": segments > 0}


class PanopticQuality(SegmentationMetric):
    """PQ, SQ and RQ of single frames.

    Args:
        num_classes: classes are 0 ... num_classes - 1.
        thing_ids: classes with instances. Instance ids of all others are ignored: one stuff segment per class.
        void_id: target pixels of this class are unlabelled: they leave the unions, and predicted segments that lie on
            them by more than half are not counted as wrong. Predicted pixels of this class belong to no segment.
        ignore_crowd: True: a target region of a thing class with instance 0 is a crowd as in panopticapi: never
            matched, never missed, and predicted segments of its class that lie on void and on it by more than half are
            not counted as wrong. False: it is a segment like any other, as in the STEP evaluators.
        subtract_void: False keeps unlabelled pixels in the unions, as the BDD100K evaluator does.
    """

    def __init__(
        self,
        num_classes: int = 19,
        thing_ids: Sequence[int] = (11, 13),
        void_id: int = 255,
        *,
        ignore_crowd: bool = True,
        subtract_void: bool = True,
    ) -> None:
        options = {"ignore_crowd": ignore_crowd, "subtract_void": subtract_void}
        super().__init__(ClassLayout(num_classes, tuple(thing_ids), void_id), options)

    def compute(self) -> dict[str, Any]:
        """Scores as fractions.

        Returns:
            `pq`, `sq`, `rq` and `n`, the number of valid classes; the same with `_things` and `_stuff`; `per_class[c]`
            with `pq`, `sq`, `rq`, `tp`, `fp`, `fn` and `valid`; `num_frames`.
        """
        return {**self._stats.summary(self.layout), "num_frames": sum(self.num_frames.values())}

    def _add(self, counts: JointCounts, sequence_id: SequenceId) -> None:
        self._stats.add(counts, **self.options)

    def _merge(self, other: PanopticQuality) -> None:
        self._stats.merge(other._stats)

    def _clear(self) -> None:
        self._stats = MatchStats(self.layout.num_classes)


class VideoPanopticQuality(SegmentationMetric):
    """PQ of tubes: the segments of every k consecutive frames of a sequence, pooled by class and instance id.

    A sequence of fewer than k frames has no window of size k. The memory is that of max(windows) histograms.

    Args:
        num_classes: classes are 0 ... num_classes - 1.
        thing_ids: classes with instances.
        void_id: class of unlabelled pixels.
        windows: the sizes k.
        ignore_crowd: as in `PanopticQuality`; False is what the STEP evaluators do.
    """

    shares_sequences = False
    _open: SequenceId | None  # the sequence of the newest frame

    def __init__(
        self,
        num_classes: int = 19,
        thing_ids: Sequence[int] = (11, 13),
        void_id: int = 255,
        *,
        windows: Sequence[int] = (1, 2, 3, 4),
        ignore_crowd: bool = False,
    ) -> None:
        if not windows or any(k < 1 for k in windows) or len(set(windows)) < len(windows):
            raise ValueError(f"windows: expected distinct positive sizes, got {tuple(windows)}")
        options = {"windows": tuple(windows), "ignore_crowd": ignore_crowd}
        super().__init__(ClassLayout(num_classes, tuple(thing_ids), void_id), options)

    def compute(self) -> dict[str, Any]:
        """Scores as fractions.

        Returns:
            `vpq`, `vpq_things`, `vpq_stuff`: means over the window sizes that occurred at least once (0 if none did);
            `per_window[k]`: the keys of `PanopticQuality.compute`, with `num_windows` for `num_frames`; `num_frames`.
        """
        per_window = {
            k: {**stats.summary(self.layout), "num_windows": self._num_windows[k]} for k, stats in self._stats.items()
        }
        seen = [w for w in per_window.values() if w["num_windows"]]
        means = {f"v{key}": sum(w[key] for w in seen) / max(len(seen), 1) for key in ("pq", "pq_things", "pq_stuff")}
        return {**means, "per_window": per_window, "num_frames": sum(self.num_frames.values())}

    def _add(self, counts: JointCounts, sequence_id: SequenceId) -> None:
        if sequence_id != self._open:
            if sequence_id in self.num_frames:
                raise ValueError(
                    f"sequence {sequence_id!r}: expected all frames in one go, got one after {self._open!r}"
                )
            self._open = sequence_id
            self._recent.clear()
        self._recent.append(counts)
        tube = counts
        for k in range(1, len(self._recent) + 1):
            tube = pool([tube, self._recent[-k]]) if k > 1 else counts
            if k in self._stats:
                self._stats[k].add(tube, ignore_crowd=self.options["ignore_crowd"], subtract_void=True)
                self._num_windows[k] += 1

    def _merge(self, other: VideoPanopticQuality) -> None:
        for k, stats in other._stats.items():
            self._stats[k].merge(stats)
            self._num_windows[k] += other._num_windows[k]

    def _clear(self) -> None:
        windows = self.options["windows"]
        self._stats = {k: MatchStats(self.layout.num_classes) for k in windows}
        self._num_windows = dict.fromkeys(windows, 0)
        self._recent: deque[JointCounts] = deque(maxlen=max(windows))  # the newest frames of the open sequence
        self._open = None


def _sums(index: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """int64 sums of the weights per index."""
    return np.bincount(index, weights=weights).astype(np.int64)


def _first(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """One value per index; all values of an index are equal."""
    out = np.empty(int(index.max()) + 1, values.dtype)
    out[index] = values
    return out


def _average(scores: list[dict[str, Any]]) -> dict[str, Any]:
    valid = [s for s in scores if s["valid"]]
    means = {key: sum(s[key] for s in valid) / max(len(valid), 1) for key in ("pq", "sq", "rq")}
    return {**means, "n": len(valid)}
