"""Scoring a model on labelled videos frame by frame, on its own past predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from pix2seq_d.data.labelled_videos import VideoDataset
from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.engine.panels import denoising_panels
from pix2seq_d.labels import LabelSpec
from pix2seq_d.video.tracker import PanopticMap, VideoPredictor
from pix2seq_d.visualize import overlay

NEED_THINGS = ("vpq", "stq", "aq", "iou")  # of `summary`; the others every label spec has


@dataclass
class Validation:
    """What a validation has found, over all processes.

    Attributes:
        result: the evaluator's.
        pictures: of each sequence in order its last frame, prediction above target, (2 H, W, 3) uint8.
        panels: the first frame of all from noise to map, see `denoising_panels`; None on processes that did not
            predict it: the main process has.
    """

    result: dict[str, Any]
    pictures: list[np.ndarray]
    panels: np.ndarray | None


def validate(
    predictor: VideoPredictor,
    videos: VideoDataset,
    spec: LabelSpec,
    *,
    num_sequences: int,
    num_frames: int,
    independent: bool = False,
    accelerator: Accelerator | None = None,
) -> Validation:
    """Predicts and scores the first frames of the first sequences, shared among the processes.

    Frames of a dataset of `stills` (Cityscapes, ...) are each predicted as the first of a video.

    Args:
        predictor: makes the maps.
        videos: labelled videos.
        spec: label spec of both.
        num_sequences: how many of the videos.
        num_frames: how many frames of each.
        independent: the same for every dataset: for models that have never seen a past map. The ids of their objects
            do not go on from frame to frame, and VPQ, STQ and AQ say so.
        accelerator: shares the videos among its processes; None = one process.
    """
    rank, size = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    evaluator, pictures, panels = Evaluator(spec), [], None  # pictures with the numbers of their sequences
    independent = independent or getattr(videos, "stills", False)
    for number, sequence in list(enumerate(videos.sequence_ids))[:num_sequences][rank::size]:
        predictor.reset()
        for frame_id in videos.frame_ids(sequence)[:num_frames]:
            if independent:
                predictor.reset()
            frame, class_map, instance_map = videos.read_frame(sequence, frame_id)
            estimates: list[Tensor] | None = [] if number == 0 and panels is None else None
            result = _predict(predictor, frame, estimates)
            if estimates is not None:
                prediction = result.class_map, result.instance_map
                panels = denoising_panels(frame, (class_map, instance_map), prediction, estimates, predictor.model)
            maps = result.class_map, result.instance_map, class_map, instance_map
            evaluator.update(*maps, sequence_id=sequence, frame=frame_id)
        shown = [
            overlay(frame, result.class_map, result.instance_map, spec),
            overlay(frame, class_map, instance_map, spec),
        ]
        pictures.append((number, np.concatenate(shown)))
    if size > 1:
        parts = gather_object([evaluator])
        evaluator = parts[0]
        for part in parts[1:]:
            evaluator.merge(part)
        pictures = sorted(gather_object(pictures), key=lambda pair: pair[0])
    return Validation(evaluator.compute(), [picture for _, picture in pictures], panels)


def _predict(predictor: VideoPredictor, frame: np.ndarray, estimates: list[Tensor] | None) -> PanopticMap:
    """The map of the next frame; the x0 estimates of its steps go into the list, if there is one."""
    if estimates is None:
        return predictor.step(frame)
    return predictor.step(frame, callback=lambda step, x_t, x0: estimates.append(x0))


def summary(result: dict[str, Any]) -> dict[str, float]:
    """The headline numbers of an evaluation, flat, for a log line."""
    chosen = {
        "miou": ("miou", "miou"),
        "pq": ("pq", "pq"),
        "pq_things": ("pq", "pq_things"),
        "pq_stuff": ("pq", "pq_stuff"),
        "vpq": ("vpq", "vpq"),
        "stq": ("stq", "stq"),
        "aq": ("stq", "aq"),
        "iou": ("stq", "iou"),
    }
    return {name: float(result[a][b]) for name, (a, b) in chosen.items() if a in result}
