"""Panoptic quality PQ = SQ * RQ (Kirillov et al., arXiv 1801.00868) and, over windows of k frames, VPQ (Kim et al.,
arXiv 2006.11339), with the arithmetic of panopticapi.

A predicted and a target segment of one class match where their IoU is above 0.5. Per class PQ = (sum of the matched
IoUs) / (tp + fp / 2 + fn / 2), SQ = that sum / tp, RQ = PQ / SQ; scores are fractions in [0, 1].
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from pix2seq_d.metrics.counts import INSTANCE_BITS, ClassLayout, JointCounts, SegmentationMetric, SequenceId, pool
from pix2seq_d.metrics.maps import check_choice, sum_by

EmptyClasses: TypeAlias = Literal["skip", "zero"]
CrowdExcuses: TypeAlias = Literal["own_class", "any_class"]

_IOU_BITS = 53  # a float64 in (0.5, 1] is a whole multiple of 2^-53, so sums of matched IoUs are kept as integers
_LOW_BITS = 27  # float64 sums of either half of those integers are exact for up to 2^26 of them


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

    def add(
        self,
        counts: JointCounts,
        *,
        ignore_crowd: bool,
        subtract_void: bool = True,
        crowd_excuses: CrowdExcuses = "own_class",
    ) -> None:
        """Matches the segments of one frame, or of several pooled ones; see `PanopticQuality` for the options."""
        g, p, area, num_classes = counts.target_index, counts.pred_index, counts.area, len(self.tp)
        target_class, pred_class = counts.targets >> INSTANCE_BITS, counts.preds >> INSTANCE_BITS
        target_area, pred_area = sum_by(g, area, len(target_class)), sum_by(p, area, len(pred_class))
        void, crowd = target_class == counts.layout.void_id, counts.crowds & ignore_crowd
        same_class = target_class[g] == pred_class[p]
        on_void = sum_by(p, area * void[g], len(pred_class))

        # Matches

        union = target_area[g] + pred_area[p] - area - (on_void[p] if subtract_void else 0)
        match = same_class & ~(void | crowd)[g] & (2 * area > union)
        matched = target_class[g[match]]
        units = (area[match] / union[match] * (1 << _IOU_BITS)).astype(np.int64)
        high = sum_by(matched, units >> _LOW_BITS, num_classes).tolist()
        low = sum_by(matched, units & ((1 << _LOW_BITS) - 1), num_classes).tolist()
        self.iou = [iou + (h << _LOW_BITS) + n for iou, h, n in zip(self.iou, high, low)]

        # What is left over: target segments but void and crowd, predicted ones but those mostly on void or crowd

        missed = ~(void | crowd)
        missed[g[match]] = False
        excusing = crowd[g] & (same_class | (crowd_excuses == "any_class"))
        wrong = 2 * (on_void + sum_by(p, area * excusing, len(pred_class))) <= pred_area
        wrong &= pred_class != counts.layout.void_id
        wrong[p[match]] = False
        self.tp += sum_by(matched, None, num_classes)
        self.fn += sum_by(target_class[missed], None, num_classes)
        self.fp += sum_by(pred_class[wrong], None, num_classes)

    def merge(self, other: MatchStats) -> None:
        """Adds the counts of `other`."""
        for name in ("tp", "fp", "fn"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.iou = [a + b for a, b in zip(self.iou, other.iou)]

    def summary(self, layout: ClassLayout, empty_classes: EmptyClasses) -> dict[str, Any]:
        """Scores per class, and their averages over all classes, things and stuff."""
        per_class = {c: self._scores(c) for c in layout.class_ids}
        things = [s for c, s in per_class.items() if c in layout.thing_ids]
        stuff = [s for c, s in per_class.items() if c not in layout.thing_ids]
        averages: dict[str, Any] = {}
        for suffix, scores in (("", list(per_class.values())), ("_things", things), ("_stuff", stuff)):
            averages |= {f"{key}{suffix}": value for key, value in _average(scores, empty_classes).items()}
        return {**averages, "per_class": per_class}

    def _scores(self, c: int) -> dict[str, Any]:
        tp, fp, fn = int(self.tp[c]), int(self.fp[c]), int(self.fn[c])
        iou, segments = self.iou[c] / (1 << _IOU_BITS), tp + (fp + fn) / 2
        scores = {
            "pq": iou / segments if segments else 0.0,
            "sq": iou / tp if tp else 0.0,
            "rq": tp / segments if segments else 0.0,
        }
        return {**scores, "tp": tp, "fp": fp, "fn": fn, "valid": segments > 0}


class PanopticQuality(SegmentationMetric):
    """PQ, SQ and RQ of single frames, as panopticapi computes them.

    Other tools, and the options that give their numbers:
        deeplab2, STEP: a crowd is a segment like any other: `ignore_crowd=False`.
        BDD100K: unlabelled pixels stay in the unions, and crowds of any class excuse predicted segments:
            `subtract_void=False, crowd_excuses="any_class"`.
        ViP-DeepLab, Video K-Net: classes that never occur count with PQ 0: `empty_classes="zero"`.

    Args:
        num_classes: classes are 0 ... num_classes - 1.
        thing_ids: classes with instances. Instance ids of all others are ignored: one stuff segment per class.
        void_id: target pixels of this class are unlabelled: they leave the unions, and predicted segments that lie on
            them by more than half are not counted as wrong. Predicted pixels of this class belong to no segment.
        ignore_crowd: True: a target region of a thing class with instance 0 is a crowd (iscrowd): never matched, never
            missed, and predicted segments that lie on void and on it by more than half are not counted as wrong.
            False: it is a segment like any other.
        subtract_void: whether unlabelled pixels leave the unions.
        crowd_excuses: the predicted segments that lie on a crowd rightly: those of its class, or all.
        empty_classes: a class without any target or predicted segment is left out of the averages, or counts as 0.
    """

    shares_sequences = True
    interleaves = True

    def __init__(
        self,
        num_classes: int = 19,
        thing_ids: Sequence[int] = (11, 13),
        void_id: int = 255,
        *,
        ignore_crowd: bool = True,
        subtract_void: bool = True,
        crowd_excuses: CrowdExcuses = "own_class",
        empty_classes: EmptyClasses = "skip",
    ) -> None:
        check_choice("crowd_excuses", crowd_excuses, ("own_class", "any_class"))
        check_choice("empty_classes", empty_classes, ("skip", "zero"))
        self._matching: dict[str, Any] = {
            "ignore_crowd": ignore_crowd,
            "subtract_void": subtract_void,
            "crowd_excuses": crowd_excuses,
        }
        layout = ClassLayout(num_classes, tuple(thing_ids), void_id)
        super().__init__(layout, {**self._matching, "empty_classes": empty_classes})

    def compute(self) -> dict[str, Any]:
        """Scores as fractions.

        Returns:
            `pq`, `sq`, `rq` and `n`, the number of classes in the averages (0 without any); the same with `_things` and
            `_stuff`; `per_class[c]` with `pq`, `sq`, `rq`, `tp`, `fp`, `fn` and `valid`, whether it has any of the
            latter; `num_frames`.
        """
        summary = self._stats.summary(self.layout, self.options["empty_classes"])
        return {**summary, "num_frames": sum(self.num_frames.values())}

    def _add(self, counts: JointCounts, sequence_id: SequenceId) -> None:
        self._stats.add(counts, **self._matching)

    def _merge(self, other: PanopticQuality) -> None:
        self._stats.merge(other._stats)

    def _clear(self) -> None:
        self._stats = MatchStats(self.layout.num_classes)


class VideoPanopticQuality(SegmentationMetric):
    """PQ of tubes: the segments of every k consecutive frames of a sequence, pooled by class and instance id.

    VPQ is the mean over the window sizes of the PQ over all windows of a size, which start at every frame and end with
    their sequence. The memory is that of max(windows) histograms. Protocols, and what gives them:
        STEP: every frame is labelled and added, windows of 1 to 4 frames, a crowd is a segment: the defaults.
        Cityscapes-VPS: only the labelled frames are added, every fifth; k = 0, 5, 10, 15 are windows of 1 to 4 of them;
            crowds are ignored as in panopticapi: `ignore_crowd=True`. Its script takes the class of a predicted id from
            the first frame of a window; here an id that changes its class is two segments.
        ViP-DeepLab, Video K-Net: classes that never occur count with PQ 0: `empty_classes="zero"`.

    Args:
        num_classes: classes are 0 ... num_classes - 1.
        thing_ids: classes with instances.
        void_id: class of unlabelled pixels.
        windows: the sizes k, counted in frames that are added.
        ignore_crowd: as in `PanopticQuality`.
        subtract_void: as there.
        empty_classes: as there.
    """

    def __init__(
        self,
        num_classes: int = 19,
        thing_ids: Sequence[int] = (11, 13),
        void_id: int = 255,
        *,
        windows: Sequence[int] = (1, 2, 3, 4),
        ignore_crowd: bool = False,
        subtract_void: bool = True,
        empty_classes: EmptyClasses = "skip",
    ) -> None:
        if not windows or any(k < 1 for k in windows) or len(set(windows)) < len(windows):
            raise ValueError(f"windows: expected distinct positive sizes, got {tuple(windows)}")
        check_choice("empty_classes", empty_classes, ("skip", "zero"))
        self._matching: dict[str, Any] = {"ignore_crowd": ignore_crowd, "subtract_void": subtract_void}
        options = {"windows": tuple(windows), **self._matching, "empty_classes": empty_classes}
        super().__init__(ClassLayout(num_classes, tuple(thing_ids), void_id), options)

    def compute(self) -> dict[str, Any]:
        """Scores as fractions.

        Returns:
            `vpq`, `vpq_things`, `vpq_stuff`: means over the window sizes that occurred at least once (0 if none did);
            `per_window[k]`: the keys of `PanopticQuality.compute`, with `num_windows` for `num_frames`; `num_frames`.
        """
        empty_classes = self.options["empty_classes"]
        per_window = {
            k: {**stats.summary(self.layout, empty_classes), "num_windows": self._num_windows[k]}
            for k, stats in self._stats.items()
        }
        seen = [w for w in per_window.values() if w["num_windows"]]
        means = {f"v{key}": sum(w[key] for w in seen) / max(len(seen), 1) for key in ("pq", "pq_things", "pq_stuff")}
        return {**means, "per_window": per_window, "num_frames": sum(self.num_frames.values())}

    def _add(self, counts: JointCounts, sequence_id: SequenceId) -> None:
        if sequence_id != self._open:
            self._recent.clear()
        self._recent.append(counts)
        tube = counts
        for k in range(1, len(self._recent) + 1):
            tube = pool([tube, self._recent[-k]]) if k > 1 else counts
            if k in self._stats:
                self._stats[k].add(tube, **self._matching)
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


def _average(scores: list[dict[str, Any]], empty_classes: EmptyClasses) -> dict[str, Any]:
    counted = [s for s in scores if s["valid"] or empty_classes == "zero"]
    means = {key: sum(s[key] for s in counted) / max(len(counted), 1) for key in ("pq", "sq", "rq")}
    return {**means, "n": len(counted)}
