"""J and F of class-agnostic video objects, as DAVIS 2017 scores them (Pont-Tuset et al., arXiv 1704.00675, and without
given objects Caelles et al., arXiv 1905.00737). T frames, P predicted objects, G target objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any, Literal, TypeAlias

import numpy as np

from pix2seq_d.metrics.assignment import best_assignment
from pix2seq_d.metrics.base import SequenceId, StreamingMetric
from pix2seq_d.metrics.boundaries import boundary_matches
from pix2seq_d.metrics.maps import IntegerMap, as_array, check_choice, check_maps, index_values, sum_by

VideoObjectTask: TypeAlias = Literal["unsupervised", "semi-supervised"]

_STATISTICS = ("j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")


class JAndF(StreamingMetric):
    """Region similarity J, boundary accuracy F and their mean J&F over the objects of videos.

    J is the intersection over union of two masks. F = 2 P R / (P + R), where P is the share of the predicted boundary
    that lies near the target's and R the share of the target's that lies near the predicted one; near is a distance of
    at most ceil(0.008 * diagonal) pixels. Two empty masks score 1. An object's mean, recall (share of frames above 0.5)
    and decay (mean of the first quarter less that of the last) are averaged over the objects of all sequences.

    The objects are those of a sequence's first target frame; ids that the target takes up later are background.
    unsupervised: predicted ids are proposals, given to objects such that the sum of J&F is the largest, at most one
        each; unlabelled pixels are left out on both sides.
    semi-supervised: predicted ids are the objects' own; the first frame, which is given, and the last are not scored;
        unlabelled pixels are background.

    davis2017-evaluation counts ids without an object (gaps) as objects, and in sequences of more than 256 frames takes
    decay over other quarters, where its 8-bit indices wrap around; DAVIS has neither. The memory is that of two numbers
    per frame and pair of a proposal and an object of the open sequence. Maps are brought to the processor.

    Args:
        task: which of the two.
        max_proposals: distinct predicted ids of a sequence that the unsupervised task allows.
        void_id: id of unlabelled pixels, and of predicted ones that are background as well as those of 0.
    """

    _closed: dict[SequenceId, dict[int, dict[str, Any]]]
    _video: _Video | None  # the open sequence

    def __init__(self, task: VideoObjectTask = "unsupervised", *, max_proposals: int = 20, void_id: int = 255) -> None:
        check_choice("task", task, ("unsupervised", "semi-supervised"))
        if max_proposals < 1:
            raise ValueError(f"max_proposals: expected at least 1, got {max_proposals}")
        super().__init__({"task": task, "max_proposals": max_proposals, "void_id": void_id})

    def update(
        self, pred: IntegerMap, target: IntegerMap, sequence_id: SequenceId = "0", *, frame: int | None = None
    ) -> None:
        """Adds one frame; the frames of a sequence come in order and in one go. What raises is not counted.

        Args:
            pred: (H, W) object ids, 0 = background; array or tensor of any integer dtype.
            target: (H, W) object ids as well.
            sequence_id: the video.
            frame: its number, for error messages and to have the order checked; gaps are allowed. None: unknown.

        Raises:
            TypeError: not an array or tensor of integers.
            ValueError: shapes, negative ids, more than `max_proposals` proposals, an id that is none of the given
                objects, frames out of order, a sequence that has been left, or left with fewer than three frames in the
                semi-supervised task.
        """
        where = self._where(sequence_id, frame)
        self._check_order(sequence_id, frame)
        check_maps({"pred": pred, "target": target}, target="target", where=where)
        pred_ids = _Ids(as_array(pred), f"{where}: expected pred")
        target_ids = _Ids(as_array(target), f"{where}: expected target")
        video = self._video if sequence_id == self._open else None
        if video is None:
            video = _Video(target_ids.distinct, **self.options)
        video.add(pred_ids, target_ids, where=where)
        if video is not self._video:
            self._closed = self._scores()
            self._video = video
        self._count(sequence_id, frame)

    def compute(self) -> dict[str, Any]:
        """Scores as fractions; 0 without any object.

        Returns:
            `j_and_f`, `j_mean`, `j_recall`, `j_decay`, `f_mean`, `f_recall`, `f_decay`, means over the objects of all
            sequences; `num_objects`; `num_frames`; `per_sequence[id]` with the same keys and `per_object[id]`, with
            these scores and `pred_id`, the proposal (None where there are too few).

        Raises:
            ValueError: a semi-supervised sequence of fewer than three frames.
        """
        per_sequence = self._scores()
        objects = [scores for per_object in per_sequence.values() for scores in per_object.values()]
        return {
            **_average(objects, sum(self.num_frames.values())),
            "per_sequence": {
                sequence_id: {
                    **_average(list(per_object.values()), self.num_frames[sequence_id]),
                    "per_object": per_object,
                }
                for sequence_id, per_object in per_sequence.items()
            },
        }

    def _scores(self) -> dict[SequenceId, dict[int, dict[str, Any]]]:
        """Scores per sequence and object id, those of the open sequence so far."""
        if self._video is None or self._open is None:
            return dict(self._closed)
        return {**self._closed, self._open: self._video.score(self._open)}

    def _merge(self, other: JAndF) -> None:
        self._closed.update(other._scores())

    def _clear(self) -> None:
        self._closed = {}
        self._video = None


class _Ids:
    """The ids of a map, and where they are; raises ValueError for negative ones.

    Attributes:
        distinct: sorted ids.
        index: (H, W) place of every pixel's id among them.
    """

    def __init__(self, ids: np.ndarray, expected: str) -> None:
        if ids.min() < 0:
            raise ValueError(f"{expected} ids of at least 0, got {ids.min()}")
        self.distinct, index = index_values(ids.reshape(-1), size=int(ids.max()) + 1)
        self.index = index.reshape(ids.shape)

    def renamed(self, names: Mapping[int, int]) -> np.ndarray:
        """(H, W) int64 new names, 0 for ids without one."""
        return np.array([names.get(i, 0) for i in self.distinct.tolist()])[self.index]


class _Video:
    """The frames of one sequence: J and F of every predicted object against every target object.

    Args:
        first_target: ids of the first target map.
        task: as in `JAndF`.
        max_proposals: as there.
        void_id: as there.
    """

    def __init__(self, first_target: np.ndarray, *, task: VideoObjectTask, max_proposals: int, void_id: int) -> None:
        self.given, self.max_proposals, self.void_id = task == "semi-supervised", max_proposals, void_id
        objects = [i for i in first_target.tolist() if i not in (0, void_id)]
        self.targets = {i: k for k, i in enumerate(objects, 1)}  # id -> its number in the arrays
        self.preds = dict(self.targets) if self.given else {}
        self.frames: list[np.ndarray] = []  # (2, P + 1, G) J and F; the first row is that of an empty prediction

    def add(self, pred: _Ids, target: _Ids, *, where: str) -> None:
        """Scores a frame; raises ValueError for predicted ids that are too many, or none of the given objects."""
        self.preds = self._numbered(pred.distinct.tolist(), where)
        preds, targets = pred.renamed(self.preds), target.renamed(self.targets)
        if not self.given:
            preds[(target.distinct == self.void_id)[target.index]] = 0
        self.frames.append(_frame_scores(preds, targets, len(self.preds), len(self.targets)))

    def score(self, sequence_id: SequenceId) -> dict[int, dict[str, Any]]:
        """Scores per target object; raises ValueError where no frame is scored."""
        num_preds, num_targets = len(self.preds), len(self.targets)
        scores = np.empty((len(self.frames), 2, max(num_preds, num_targets), num_targets))
        for k, frame in enumerate(self.frames):
            known = frame.shape[1] - 1  # proposals that come later, and those that are missing, are empty so far
            scores[k, :, :known], scores[k, :, known:] = frame[:, 1:], frame[:, :1]
        chosen = np.arange(num_targets)
        if not self.given:
            chosen = best_assignment(scores.mean((0, 1)).T)
        elif len(scores) < 3:
            raise ValueError(f"sequence {sequence_id!r}: expected at least 3 frames, got {len(scores)}")
        else:
            scores = scores[1:-1]
        pred_ids = [*self.preds, *[None] * num_targets]
        return {
            i: {**_statistics(*scores[:, :, p, k].T), "pred_id": pred_ids[p]}
            for k, (i, p) in enumerate(zip(self.targets, chosen.tolist()))
        }

    def _numbered(self, ids: list[int], where: str) -> dict[int, int]:
        """The numbers of predicted ids, with those of new ones."""
        new = [i for i in ids if i not in self.preds and i not in (0, self.void_id)]
        if new and self.given:
            raise ValueError(
                f"{where}: expected pred ids of the first frame's objects {list(self.preds)}, got {new[0]}"
            )
        preds = self.preds | {i: k for k, i in enumerate(new, len(self.preds) + 1)}
        if not self.given and len(preds) > self.max_proposals:
            raise ValueError(f"{where}: expected at most {self.max_proposals} proposals, got {len(preds)}")
        return preds


def _frame_scores(preds: np.ndarray, targets: np.ndarray, num_preds: int, num_targets: int) -> np.ndarray:
    """(2, P + 1, G) J and F of (H, W) maps of numbers from 1, 0 = background; the first row: of an empty prediction."""
    pixels = sum_by((targets * (num_preds + 1) + preds).ravel(), None, (num_targets + 1) * (num_preds + 1))
    pixels = pixels.reshape(num_targets + 1, num_preds + 1).T
    pred_area, target_area, shared = pixels.sum(1, keepdims=True), pixels.sum(0)[1:], pixels[:, 1:].copy()
    pred_area[0] = shared[0] = 0
    union = pred_area + target_area - shared
    j = np.where(union > 0, shared / np.maximum(union, 1), 1.0)

    pred_size, target_size, pred_hits, target_hits = boundary_matches(preds, targets, num_preds, num_targets)
    pred_size = np.append(0, pred_size)[:, None]
    precision, recall = np.zeros((2, num_preds + 1, num_targets))
    precision[1:], recall[1:] = pred_hits / np.maximum(pred_size[1:], 1), target_hits / np.maximum(target_size, 1)
    f = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    f[(pred_size == 0) & (target_size == 0)] = 1
    return np.stack([j, f])


def _statistics(j: np.ndarray, f: np.ndarray) -> dict[str, float]:
    """Mean, recall and decay of an object from its (T,) scores."""
    scores = {}
    ends = (np.round(np.linspace(1, len(j), 5) + 1e-10) - 1).astype(int)  # the quarters share their end frames
    for name, values in (("j", j), ("f", f)):
        scores[f"{name}_mean"] = float(values.mean())
        scores[f"{name}_recall"] = float((values > 0.5).mean())
        scores[f"{name}_decay"] = float(values[: ends[1] + 1].mean() - values[ends[3] :].mean())
    return {"j_and_f": (scores["j_mean"] + scores["f_mean"]) / 2, **scores}


def _average(objects: Sequence[Mapping[str, Any]], num_frames: int) -> dict[str, Any]:
    n = max(len(objects), 1)
    means = {name: fsum(scores[name] for scores in objects) / n for name in _STATISTICS}  # fsum: in any order
    j_and_f = (means["j_mean"] + means["f_mean"]) / 2
    return {"j_and_f": j_and_f, **means, "num_objects": len(objects), "num_frames": num_frames}
