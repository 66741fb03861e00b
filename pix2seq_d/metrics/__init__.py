"""Metrics of (video) panoptic segmentation over integer maps; one joint histogram per frame serves all of them."""

from pix2seq_d.metrics.calibration import CalibrationError, Sparsification
from pix2seq_d.metrics.functional import (
    j_and_f,
    mean_iou,
    panoptic_quality,
    segmentation_tracking_quality,
    video_panoptic_quality,
)
from pix2seq_d.metrics.pq import PanopticQuality, VideoPanopticQuality
from pix2seq_d.metrics.semantic import MeanIoU
from pix2seq_d.metrics.stq import SegmentationTrackingQuality
from pix2seq_d.metrics.video_objects import JAndF

__all__ = [
    "CalibrationError",
    "JAndF",
    "MeanIoU",
    "PanopticQuality",
    "SegmentationTrackingQuality",
    "Sparsification",
    "VideoPanopticQuality",
    "j_and_f",
    "mean_iou",
    "panoptic_quality",
    "segmentation_tracking_quality",
    "video_panoptic_quality",
]
