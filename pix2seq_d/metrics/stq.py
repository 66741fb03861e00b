"""Segmentation and tracking quality STQ = sqrt(AQ * IoU) of "STEP: Segmenting and Tracking Every Pixel" (Weber et al.,
arXiv 2102.11859), with the arithmetic of deeplab2's evaluator.

g is a target track, p a predicted one; TPA, FPA, FNA are the pixels of a pair that both, only p, only g have.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt
from typing import Any

import numpy as np

from pix2seq_d.metrics.counts import INSTANCE_BITS, ClassLayout, JointCounts, SegmentationMetric, SequenceId, pool
from pix2seq_d.metrics.maps import sum_by
from pix2seq_d.metrics.semantic import confusion_matrix, intersections_and_unions

_MAX_PENDING = 64, 1 << 16  # frames, and pairs of segments, that wait before they are pooled into their sequence


class SegmentationTrackingQuality(SegmentationMetric):
    """STQ, AQ and IoU over sequences, as deeplab2 and the benchmarks KITTI-STEP and MOTChallenge-STEP compute them.

    AQ is the mean over the target tracks g of 1/|g| sum_p TPA * TPA / (TPA + FPA + FNA), IoU the mean over the classes
    of pixels that are labelled; the tracks, and the pixels, of all sequences are taken together.

    A track is a pair (class, instance id) of a thing class over a whole sequence. A target region of a thing class with
    instance 0 is a crowd: no track, and its pixels are left out of AQ, but not out of IoU. As in deeplab2, tracks of
    different thing classes are compared as well, predicted thing pixels with instance 0 form a track, unlabelled target
    pixels count in the size of predicted tracks, and void predicted on labelled pixels enters the mean IoU as one more
    class, whose IoU is 0. Frames of several sequences may come interleaved. The memory is that of the pairs of tracks
    and classes that overlap in a sequence.

    Video K-Net's script takes the classes 11 to 18 for things and drops unlabelled pixels before it counts:
    `thing_ids=range(11, 19), void_in_tracks=False`. Its numbers do not compare with those of the benchmark.

    Args:
        num_classes: classes are 0 ... num_classes - 1.
        thing_ids: classes with tracks.
        void_id: class of unlabelled pixels.
        void_in_tracks: whether unlabelled target pixels count in the size of predicted tracks.
    """

    interleaves = True

    def __init__(
        self,
        num_classes: int = 19,
        thing_ids: Sequence[int] = (11, 13),
        void_id: int = 255,
        *,
        void_in_tracks: bool = True,
    ) -> None:
        super().__init__(ClassLayout(num_classes, tuple(thing_ids), void_id), {"void_in_tracks": void_in_tracks})

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
            sequence_confusion, sequence_tracks = confusion_matrix(counts), association(counts, **self.options)
            per_sequence[sequence_id] = _scores(sequence_confusion, sequence_tracks, self.num_frames[sequence_id])
            confusion += sequence_confusion
            tracks += sequence_tracks
        return {**_scores(confusion, tracks, sum(self.num_frames.values())), "per_sequence": per_sequence}

    def _add(self, counts: JointCounts, sequence_id: SequenceId) -> None:
        frames = self._sequences.setdefault(sequence_id, [])
        frames.append(counts)
        pooled, *pending = (len(c.area) for c in frames)
        if len(pending) > _MAX_PENDING[0] or sum(pending) > max(pooled, _MAX_PENDING[1]):
            frames[:] = [pool(frames)]

    def _merge(self, other: SegmentationTrackingQuality) -> None:
        self._sequences.update({sequence_id: list(frames) for sequence_id, frames in other._sequences.items()})

    def _clear(self) -> None:
        self._sequences: dict[SequenceId, list[JointCounts]] = {}


def association(counts: JointCounts, *, void_in_tracks: bool = True) -> list[float]:
    """Association quality of every target track of a pooled sequence; see `SegmentationTrackingQuality`."""
    is_thing = counts.layout.is_thing
    target_class, pred_class = counts.targets >> INSTANCE_BITS, counts.preds >> INSTANCE_BITS
    is_track = is_thing[target_class] & ~counts.crowds
    left_out = counts.crowds if void_in_tracks else counts.crowds | (target_class == counts.layout.void_id)
    g, p, area = counts.target_index, counts.pred_index, counts.area
    in_pred = is_thing[pred_class][p] & ~left_out[g]
    target_size = sum_by(g, area, len(is_track))
    pred_size = sum_by(p, area * in_pred, len(pred_class))
    pair = is_track[g] & in_pred
    tpa, g, p = area[pair], g[pair], p[pair]
    weighted = tpa * (tpa / (target_size[g] + pred_size[p] - tpa))
    sums = np.bincount(g, weights=weighted, minlength=len(is_track))
    return (sums[is_track] / target_size[is_track]).tolist()


def _scores(confusion: np.ndarray, tracks: list[float], num_frames: int) -> dict[str, Any]:
    intersection, union = intersections_and_unions(confusion)
    aq = fsum(tracks) / max(len(tracks), 1)  # fsum: independent of the order of the sequences
    iou = fsum(intersection[union > 0] / union[union > 0]) / max(int(np.count_nonzero(union)), 1)
    return {"stq": sqrt(aq * iou), "aq": aq, "iou": iou, "num_tracks": len(tracks), "num_frames": num_frames}
