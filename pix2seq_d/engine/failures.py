"""What goes wrong, frame by frame: classes that are taken for others, objects that change their id, the worst frames.

An id switch is that of CLEAR MOT (Bernardin and Stiefelhagen 2008) on masks (MOTS, Voigtlaender et al.,
arXiv 1902.03604): a target object and a predicted one of its class match where the IoU of their masks is above 0.5; a
match switches the id where the target's last match, however long ago, was another predicted id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pix2seq_d.labels import LabelSpec
from pix2seq_d.metrics import PanopticQuality
from pix2seq_d.metrics.counts import INSTANCE_BITS, ClassLayout, JointCounts, joint_counts
from pix2seq_d.metrics.semantic import confusion_matrix

CORRECT, UNLABELLED, OTHER_OBJECT, OTHER_CLASS = range(4)  # what `error_map` says of a pixel


class IdSwitch(NamedTuple):
    """A target object that goes on under another id: in `frame` it matches `after`, before that `before`."""

    frame: str
    class_id: int
    target_id: int
    before: int
    after: int


class FrameScore(NamedTuple):
    """PQ of one frame alone, and the share of its labelled pixels with the right class (1 where none is labelled)."""

    frame: str
    place: int  # in its sequence
    pq: float
    accuracy: float


@dataclass
class SequenceFailures:
    """Of one sequence: (C + 1, C + 1) pixels by target and predicted class, void last; id switches; a score a frame."""

    confusion: np.ndarray
    switches: list[IdSwitch] = field(default_factory=list)
    frames: list[FrameScore] = field(default_factory=list)


class FailureLog:
    """Gathers the failures of one sequence; its memory is a line a frame and a number a track.

    Args:
        spec: the classes.
        pq_options: variant of PQ, as for PanopticQuality.
    """

    def __init__(self, spec: LabelSpec, pq_options: Mapping[str, Any] | None = None) -> None:
        size = spec.num_classes + 1
        self.result = SequenceFailures(np.zeros((size, size), np.int64))
        self._pq = PanopticQuality(spec.num_classes, spec.thing_ids, spec.void_id, **dict(pq_options or {}))
        self._last: dict[int, int] = {}  # target segment -> predicted id of its last match

    def update(self, counts: JointCounts, frame: str) -> None:
        """Adds the histogram of the next frame, called `frame`."""
        confusion = confusion_matrix(counts)
        self.result.confusion += confusion
        self._pq.reset()
        self._pq.update_counts(counts)
        pq = self._pq.compute()
        labelled, correct = int(confusion[:-1].sum()), int(confusion[:-1].diagonal().sum())
        # a frame of void alone, where nothing can be wrong, is no bad frame
        score = pq["pq"] if pq["n"] else 1.0
        accuracy = correct / labelled if labelled else 1.0
        self.result.frames.append(FrameScore(frame, len(self.result.frames), score, accuracy))
        for target, pred_id in zip(*(column.tolist() for column in matched_objects(counts))):
            before = self._last.get(target, pred_id)
            if before != pred_id:
                class_id, target_id = target >> INSTANCE_BITS, target & _ID
                self.result.switches.append(IdSwitch(frame, class_id, target_id, before, pred_id))
            self._last[target] = pred_id


_ID = (1 << INSTANCE_BITS) - 1


def matched_objects(counts: JointCounts) -> tuple[np.ndarray, np.ndarray]:
    """(M,) keys of the matched target objects of a frame and (M,) predicted ids; id 0 is no object on either side."""
    _, target = np.unique(counts.target_key, return_inverse=True)
    _, pred = np.unique(counts.pred_key, return_inverse=True)
    target_size, pred_size = (np.bincount(index, weights=counts.area) for index in (target, pred))
    union = target_size[target] + pred_size[pred] - counts.area
    objects = counts.layout.is_thing[counts.target_class] & (counts.target_key & _ID > 0) & (counts.pred_key & _ID > 0)
    match = objects & (counts.target_class == counts.pred_class) & (2 * counts.area > union)
    return counts.target_key[match], counts.pred_key[match] & _ID


def error_map(
    prediction: tuple[np.ndarray, np.ndarray | None], target: tuple[np.ndarray, np.ndarray | None], spec: LabelSpec
) -> np.ndarray:
    """What is wrong with every pixel of a frame.

    Args:
        prediction: (H, W) class map and instance map.
        target: the same.
        spec: the classes.

    Returns:
        (H, W) uint8: UNLABELLED, OTHER_CLASS than the target's, OTHER_OBJECT (the right class, but of a predicted
        object that does not match the target's: merged, split or in pieces), or CORRECT.
    """
    (pred_class, pred_ids), (target_class, target_ids) = prediction, target
    errors = np.where(pred_class == target_class, CORRECT, OTHER_CLASS).astype(np.uint8)
    if pred_ids is not None and target_ids is not None:
        layout = ClassLayout(spec.num_classes, spec.thing_ids, spec.void_id)
        counts = joint_counts(pred_class, pred_ids, target_class, target_ids, layout=layout, where="error map")
        keys, ids = matched_objects(counts)
        pixel_keys = (target_class.astype(np.int64) << INSTANCE_BITS) + target_ids
        order = np.argsort(keys)
        place = np.searchsorted(keys, pixel_keys, sorter=order).clip(max=max(len(keys) - 1, 0))
        found = keys[order][place] == pixel_keys if len(keys) else np.zeros(errors.shape, bool)
        right = found & (ids[order][place] == pred_ids) if len(keys) else found
        errors[(errors == CORRECT) & spec.is_thing(target_class) & (target_ids > 0) & ~right] = OTHER_OBJECT
    errors[target_class == spec.void_id] = UNLABELLED
    return errors
