"""The metrics as single calls, over maps that are all at hand: one frame or video, or several frames of one video.

Maps are (H, W), or a stack or sequence of them in the order of the frames; the classes say what the options mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from pix2seq_d.metrics.counts import IntegerMap, SegmentationMetric
from pix2seq_d.metrics.pq import CrowdExcuses, EmptyClasses, PanopticQuality, VideoPanopticQuality
from pix2seq_d.metrics.semantic import MeanIoU
from pix2seq_d.metrics.stq import SegmentationTrackingQuality
from pix2seq_d.metrics.video_objects import JAndF, VideoObjectTask

Maps: TypeAlias = IntegerMap | Sequence[IntegerMap]


def panoptic_quality(
    pred_semantic: Maps,
    pred_instance: Maps | None,
    target_semantic: Maps,
    target_instance: Maps | None,
    *,
    num_classes: int = 19,
    thing_ids: Sequence[int] = (11, 13),
    void_id: int = 255,
    ignore_crowd: bool = True,
    subtract_void: bool = True,
    crowd_excuses: CrowdExcuses = "own_class",
    empty_classes: EmptyClasses = "skip",
) -> dict[str, Any]:
    """PQ of images, what `PanopticQuality` computes; maps (H, W) or T of them, integers, arrays or tensors."""
    metric = PanopticQuality(
        num_classes,
        thing_ids,
        void_id,
        ignore_crowd=ignore_crowd,
        subtract_void=subtract_void,
        crowd_excuses=crowd_excuses,
        empty_classes=empty_classes,
    )
    return _compute(metric, pred_semantic, pred_instance, target_semantic, target_instance)


def video_panoptic_quality(
    pred_semantic: Maps,
    pred_instance: Maps | None,
    target_semantic: Maps,
    target_instance: Maps | None,
    *,
    num_classes: int = 19,
    thing_ids: Sequence[int] = (11, 13),
    void_id: int = 255,
    windows: Sequence[int] = (1, 2, 3, 4),
    ignore_crowd: bool = False,
    subtract_void: bool = True,
    empty_classes: EmptyClasses = "skip",
) -> dict[str, Any]:
    """VPQ of one video, what `VideoPanopticQuality` computes; maps (T, H, W) or T of (H, W)."""
    metric = VideoPanopticQuality(
        num_classes,
        thing_ids,
        void_id,
        windows=windows,
        ignore_crowd=ignore_crowd,
        subtract_void=subtract_void,
        empty_classes=empty_classes,
    )
    return _compute(metric, pred_semantic, pred_instance, target_semantic, target_instance)


def segmentation_tracking_quality(
    pred_semantic: Maps,
    pred_instance: Maps | None,
    target_semantic: Maps,
    target_instance: Maps | None,
    *,
    num_classes: int = 19,
    thing_ids: Sequence[int] = (11, 13),
    void_id: int = 255,
    void_in_tracks: bool = True,
) -> dict[str, Any]:
    """STQ of one video, what `SegmentationTrackingQuality` computes; maps (T, H, W) or T of (H, W)."""
    metric = SegmentationTrackingQuality(num_classes, thing_ids, void_id, void_in_tracks=void_in_tracks)
    return _compute(metric, pred_semantic, pred_instance, target_semantic, target_instance)


def mean_iou(
    pred_semantic: Maps, target_semantic: Maps, *, num_classes: int = 19, void_id: int = 255
) -> dict[str, Any]:
    """Mean IoU of images, what `MeanIoU` computes; maps (H, W) or T of them."""
    return _compute(MeanIoU(num_classes, void_id), pred_semantic, None, target_semantic, None)


def j_and_f(
    pred: Maps,
    target: Maps,
    *,
    task: VideoObjectTask = "unsupervised",
    max_proposals: int = 20,
    void_id: int = 255,
) -> dict[str, Any]:
    """J, F and J&F of one video, what `JAndF` computes; maps of object ids (T, H, W) or T of (H, W)."""
    metric = JAndF(task, max_proposals=max_proposals, void_id=void_id)
    for pred_map, target_map in _frames({"pred": pred, "target": target}):
        metric.update(pred_map, target_map)
    return metric.compute()


def _compute(
    metric: SegmentationMetric,
    pred_semantic: Maps,
    pred_instance: Maps | None,
    target_semantic: Maps,
    target_instance: Maps | None,
) -> dict[str, Any]:
    maps = {
        "target_semantic": target_semantic,
        "pred_semantic": pred_semantic,
        "pred_instance": pred_instance,
        "target_instance": target_instance,
    }
    for target, pred, pred_ids, target_ids in _frames(maps):
        metric.update(pred, pred_ids, target, target_ids)
    return metric.compute()


def _frames(maps: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The maps of every frame; raises ValueError for numbers of frames that differ."""
    stacks = {name: [m] if _is_map(m) else m for name, m in maps.items() if m is not None}
    lengths = {name: len(stack) for name, stack in stacks.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected equally many frames of all maps, got {lengths}")
    missing = [None] * max(lengths.values())
    return list(zip(*(stacks.get(name, missing) for name in maps)))


def _is_map(m: Any) -> bool:
    return isinstance(m, np.ndarray | Tensor) and m.ndim == 2
