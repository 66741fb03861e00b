"""A stand-in for Pix2SeqD whose answers are drawn by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pix2seq_d.bits import BitCodec
from pix2seq_d.labels import get_label_spec
from pix2seq_d.video.tracker import VideoPredictor

SPEC = get_label_spec("kitti-step")
ROAD, SKY, PERSON, CAR, VOID = 0, 10, 11, 13, 255
H, W = 16, 32  # image size of the scripted model; its masks are 8 x 16
FRAME = np.zeros((H, W, 3), np.uint8)


class Scripted(nn.Module):
    """Stands in for Pix2SeqD: answers frame k with `logits[k]` (the last one for ever) and notes what it was asked."""

    def __init__(
        self,
        logits: Sequence[Tensor],
        *,
        past_offsets: tuple[int, ...] = (-2, -1),
        instance_bits: int = 3,
        target: str = "softmax",
    ) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))  # tells the device
        self.answers, self.past_offsets, self.target = list(logits), past_offsets, target
        self.codec = BitCodec((5, instance_bits) if instance_bits else (5,), 0.1)
        self.num_instance_codes = 2**instance_bits - 1
        self.label_spec, self.schedule, self.sampler = SPEC, "cosine", "ddim"
        self.image_size, self.mask_size = (H, W), (H // 2, W // 2)
        self.num_steps, self.num_steps_next, self.td_steps, self.min_pixels = 3, 2, 0.0, 0
        self.frames: list[Tensor] = []
        self.past: list[Tensor] = []
        self.present: list[list[bool]] = []
        self.steps: list[int] = []

    def condition(self, frame: Tensor, past: Tensor, present: Tensor) -> Condition:
        return self.condition_features(self.encoder(frame), past, present)

    def encoder(self, frame: Tensor) -> Tensor:
        self.frames.append(frame)
        self.steps.append(0)
        return self.answers[min(len(self.frames), len(self.answers)) - 1]

    def condition_features(self, answer: Tensor, past: Tensor, present: Tensor) -> Condition:
        self.past.append(past)
        self.present.append(present[0].tolist())
        return Condition(answer)

    def bind(self, condition: Condition) -> Answer:
        return Answer(self, condition.answer)


@dataclass
class Condition:
    """Stands in for DenoiserCondition."""

    answer: Tensor

    def repeat(self, n: int) -> Condition:
        return Condition(self.answer.repeat_interleave(n, 0))


class Answer:
    """A bound denoiser that knows its answer."""

    def __init__(self, model: Scripted, logits: Tensor) -> None:
        self.model, self.logits = model, logits

    def __call__(self, x_t: Tensor, gamma: Tensor, self_cond: Tensor | None = None) -> Tensor:
        self.model.steps[-1] += 1
        return self.logits if self.model.target == "mse" else self.model.codec.expected_bits(self.logits)


def predictor(model: nn.Module, **options: Any) -> VideoPredictor:
    return VideoPredictor(model, **options)  # type: ignore[arg-type]


def draw(picture: Sequence[str], *, semantic: bool = False) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Logits, class map and instance codes (8, 16) of a picture: r road, s sky, 1-3 cars by code, 6 7 persons by code.

    A picture of 2 rows of 4 letters is enlarged fourfold, one of 4 rows of 8 twofold.
    """
    scale = 8 // len(picture)
    letters = np.array([list(row) for row in picture]).repeat(scale, 0).repeat(scale, 1)
    classes = np.select([letters == "r", letters == "s", np.isin(letters, ["6", "7"])], [ROAD, SKY, PERSON], CAR)
    codes = np.where(np.isin(letters, ["r", "s"]), "0", letters).astype(np.int64)
    groups = [F.one_hot(torch.from_numpy(classes + 1), 32), F.one_hot(torch.from_numpy(codes), 8)]
    logits = torch.cat([g.movedim(-1, 0) for g in groups[: 1 if semantic else 2]])[None] * 30.0
    return logits, classes, codes


def scripted(*pictures: Sequence[str], **options: Any) -> Scripted:
    return Scripted([draw(p)[0] for p in pictures], **options)
