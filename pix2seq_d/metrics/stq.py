"""Segmentation and tracking quality STQ = sqrt(AQ * IoU) of "STEP: Segmenting and Tracking Every Pixel" (Weber et al.,
arXiv 2102.11859), with the arithmetic of deeplab2's evaluator.

g is a target track, p a predicted one; TPA, FPA, FNA are the pixels of a pair that both, only p, only g have.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt
from typing import Any

import numpy as np

from pix2seq_d.metrics.counts import ClassLayout, JointCounts, SegmentationMetric, SequenceId, pool
from pix2seq_d.metrics.semantic import confusion_matrix, intersections_and_unions

_MAX_PENDING = 64  # frames that wait before they are pooled into their sequence


class SegmentationTrackingQuality(SegmentationMetric):
    """STQ, AQ and IoU over sequences.

    A track is a pair (class, instance id) of a thing class over a whole sequence. A target region of a thing class with
    instance 0 is a crowd: no track, and its pixels are left out of AQ, but not out of IoU. As in deeplab2, tracks of
    different thing classes are compared as well, predicted thing pixels with instance 0 form a track, unlabelled target
    pixels count in the size of predicted tracks, and void predicted on labelled pixels enters the mean IoU as one more
    class, whose IoU is 0. Frames of several sequences may come interleaved.

    Args:
        num_classes: classes are 0 ... num_classes - 1.
        thing_ids: classes with tracks.
        void_id: class of unlabelled pixels.
    """

    shares_sequences = False

    def __init__(self, num_classes: int = 19, thing_ids: Sequence[int] = (11, 13), void_id: int = 255) -> None:
        super().__init__(ClassLayout(num_classes, tuple(thing_ids), void_id), {})

    def compute(self) -> dict[str, Any]:
        """Scores as fractions; without tracks AQ is 0, without labelled pixels IoU is 0.

        Returns:
            `stq`; `aq`, the mean over the target tracks of all sequences; `iou`, the mean over classes of the pixels of
            all sequences; `num_tracks`; `num_frames`; `per_sequence[id]` with the same keys.
        """
        n = self.layout.num_classes + 1
        confusion, tracks = np.zeros((n, n), np.int64), []
        per_sequence = {}
        for sequence_id, frames in self._sequences.items():
            counts = pool(frames)
            sequence_confusion, sequence_tracks = confusion_matrix(counts), association(counts)
            per_sequence[sequence_id] = _scores(sequence_confusion, sequence_tracks, self.num_frames[sequence_id])
            confusion += sequence_confusion
            tracks += sequence_tracks
        return {**_scores(confusion, tracks, sum(self.num_frames.values())), "per_sequence": per_sequence}

    def _add(self, counts: JointCounts, sequence_id: SequenceId) -> None:
        frames = self._sequences.setdefault(sequence_id, [])
        frames.append(counts)
        if len(frames) > _MAX_PENDING:
            frames[:] = [pool(frames)]

    def _merge(self, other: SegmentationTrackingQuality) -> None:
        self._sequences.update({sequence_id: list(frames) for sequence_id, frames in other._sequences.items()})

    def _clear(self) -> None:
        self._sequences: dict[SequenceId, list[JointCounts]] = {}


def association(counts: JointCounts) -> list[float]:
    """Association quality of every target track of a pooled sequence: 1/|g| sum_p TPA * TPA / (TPA + FPA + FNA)."""
    is_thing = counts.layout.is_thing
    in_target = is_thing[counts.target_class] & ~counts.target_crowd
    in_pred = is_thing[counts.pred_class] & ~counts.target_crowd
    targets, target_index = np.unique(counts.target_key, return_inverse=True)
    target_size = np.bincount(target_index, weights=counts.area * in_target)
    _, pred_index = np.unique(counts.pred_key, return_inverse=True)
    pred_size = np.bincount(pred_index, weights=counts.area * in_pred)
    pair = in_target & in_pred
    tpa, g, p = counts.area[pair], target_index[pair], pred_index[pair]
    weighted = tpa * (tpa / (target_size[g] + pred_size[p] - tpa))
    sums = np.bincount(g, weights=weighted, minlength=len(targets))
    is_track = target_size > 0
    return (sums[is_track] / target_size[is_track]).tolist()


def _scores(confusion: np.ndarray, tracks: list[float], num_frames: int) -> dict[str, Any]:
    intersection, union = intersections_and_unions(confusion)
    aq = fsum(tracks) / max(len(tracks), 1)  # fsum: independent of the order of the sequences
    iou = fsum(intersection[union > 0] / union[union > 0]) / max(int(np.count_nonzero(union)), 1)
    return {"stq": sqrt(aq * iou), "aq": aq, "iou": iou, "num_tracks": len(tracks), "num_frames": num_frames}
