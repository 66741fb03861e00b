"""Pix2Seq-D in PyTorch (arXiv 2210.06366): panoptic segmentation of images and video by diffusion on analog bits.

The names below are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pix2seq_d.diffusion.samplers import sample_ddim, sample_ddpm
    from pix2seq_d.diffusion.schedule import CosineSchedule
    from pix2seq_d.labels import LABEL_SPECS, LabelSpec
    from pix2seq_d.metrics import MeanIoU, PanopticQuality, SegmentationTrackingQuality, VideoPanopticQuality
    from pix2seq_d.models.pix2seq_d import Pix2SeqD
    from pix2seq_d.pipeline import Pix2SeqDPipeline
    from pix2seq_d.video.known import KnownMap
    from pix2seq_d.video.panoptic_map import PanopticMap
    from pix2seq_d.video.tracker import VideoPredictor

__version__ = "0.1.0"

__all__ = [
    "LABEL_SPECS",
    "CosineSchedule",
    "KnownMap",
    "LabelSpec",
    "MeanIoU",
    "PanopticMap",
    "PanopticQuality",
    "Pix2SeqD",
    "Pix2SeqDPipeline",
    "SegmentationTrackingQuality",
    "VideoPanopticQuality",
    "VideoPredictor",
    "__version__",
    "sample_ddim",
    "sample_ddpm",
]

_MODULES = {
    "LABEL_SPECS": "labels",
    "CosineSchedule": "diffusion.schedule",
    "KnownMap": "video.known",
    "LabelSpec": "labels",
    "MeanIoU": "metrics",
    "PanopticMap": "video.panoptic_map",
    "PanopticQuality": "metrics",
    "Pix2SeqD": "models.pix2seq_d",
    "Pix2SeqDPipeline": "pipeline",
    "SegmentationTrackingQuality": "metrics",
    "VideoPanopticQuality": "metrics",
    "VideoPredictor": "video.tracker",
    "sample_ddim": "diffusion.samplers",
    "sample_ddpm": "diffusion.samplers",
}


def __getattr__(name: str) -> object:
    """The public name from the module that defines it (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
