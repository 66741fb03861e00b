"""Frames in, panoptic maps out: the saved model with its sampler settings behind one call.

Pix2SeqDPipeline.from_pretrained("checkpoints/synthetic-tiny")(frames) -> one PanopticMap per frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pix2seq_d.data.formats import to_rgb
from pix2seq_d.labels import LabelSpec
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor

Frame = np.ndarray | Image.Image


class Pix2SeqDPipeline:
    """A model on a device, ready to predict videos.

    Args:
        model: put into eval mode and on `device`.
        device: "cpu", "cuda", ...; None takes the first GPU, or the CPU where there is none.
    """

    def __init__(self, model: Pix2SeqD, *, device: str | torch.device | None = None) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = model.eval().to(device)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, device: str | torch.device | None = None, revision: str | None = None
    ) -> Pix2SeqDPipeline:
        """Loads averaged weights and sampler settings from a folder or the Hub; errors as Pix2SeqD.from_pretrained."""
        return cls(Pix2SeqD.from_pretrained(name_or_path, revision=revision), device=device)

    @property
    def label_spec(self) -> LabelSpec:
        """Classes of the maps."""
        return self.model.label_spec

    def predictor(
        self,
        *,
        num_steps: int | None = None,
        num_steps_next: int | None = None,
        td_steps: float | None = None,
        sampler: str | None = None,
        min_pixels: int | None = None,
        t_start_next: float = 1.0,
        stop_unchanged: float | None = None,
        seed: int = 0,
    ) -> VideoPredictor:
        """A streaming predictor; arguments as VideoPredictor, None = the model's default."""
        return VideoPredictor(
            self.model,
            num_steps=num_steps,
            num_steps_next=num_steps_next,
            td_steps=td_steps,
            sampler=sampler,
            min_pixels=min_pixels,
            t_start_next=t_start_next,
            stop_unchanged=stop_unchanged,
            seed=seed,
        )

    def __call__(
        self, frames: Iterable[Frame], *, num_steps: int | None = None, num_steps_next: int | None = None, seed: int = 0
    ) -> list[PanopticMap]:
        """The panoptic maps of one video.

        Args:
            frames: PIL images or (H, W, 3) uint8 arrays of one size, in order.
            num_steps: denoising steps of the first frame; None = the model's default.
            num_steps_next: of later frames; None = the model's default.
            seed: of the starting noise.
        """
        return list(self.stream(frames, num_steps=num_steps, num_steps_next=num_steps_next, seed=seed))

    def stream(
        self, frames: Iterable[Frame], *, num_steps: int | None = None, num_steps_next: int | None = None, seed: int = 0
    ) -> Iterator[PanopticMap]:
        """As calling the pipeline, one map at a time: memory does not grow with the video."""
        predictor = self.predictor(num_steps=num_steps, num_steps_next=num_steps_next, seed=seed)
        for frame in frames:
            yield predictor.step(_as_array(frame))

    def denoising_maps(
        self, frame: Frame, *, num_steps: int | None = None, seed: int = 0
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The sampler's estimate of the clean map after every step of a first frame.

        Returns:
            Per step the x0 estimate at mask size, its bits read by sign: class map (h, w) uint8 and instance codes
            (h, w) int64.
        """
        estimates: list[torch.Tensor] = []
        predictor = self.predictor(num_steps=num_steps, seed=seed)
        predictor.step(_as_array(frame), callback=lambda step, x_t, x0: estimates.append(x0))
        codes = [self.model.codec.decode(x0)[0].cpu() for x0 in estimates]
        maps = [self.label_spec.from_codes(c[0], c[-1] * (len(c) > 1)) for c in codes]
        return [(class_map.numpy().astype(np.uint8), instances.numpy()) for class_map, instances in maps]


def _as_array(frame: Frame) -> np.ndarray:
    return to_rgb(frame, "frame") if isinstance(frame, Image.Image) else frame
