"""Metrics of (video) panoptic segmentation over integer maps; one joint histogram per frame serves all of them."""

from pix2seq_d.metrics.panoptic_quality import PanopticQuality, VideoPanopticQuality
from pix2seq_d.metrics.semantic import MeanIoU
from pix2seq_d.metrics.stq import SegmentationTrackingQuality

__all__ = ["MeanIoU", "PanopticQuality", "SegmentationTrackingQuality", "VideoPanopticQuality"]
