"""One denoising step of a model, and the settings that a saved model keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pix2seq_d.models.pix2seq_d import Pix2SeqD

SETTINGS = (
    "label_spec",
    "past_offsets",
    "schedule",
    "sampler",
    "num_steps",
    "num_steps_next",
    "td_steps",
    "min_pixels",
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(model: Pix2SeqD, *, present: bool = True, code: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A frame, past codes that are `code` everywhere, and whether they are present."""
    t, g = len(model.past_offsets), len(model.codec.group_bits)
    frame = torch.rand(1, 3, *model.image_size, generator=torch.Generator().manual_seed(1))
    codes = torch.full((1, t, g, *model.mask_size), code)
    codes[:, :, 1:] = 0
    return frame, codes, torch.full((1, t), present)


@torch.no_grad()
def predict(model: Pix2SeqD, *, seed: int = 0, gamma: float = 0.5, **options: Any) -> Tensor:
    """(1, S, h, w) logits of one denoising step."""
    denoise = model.bind(model.condition(*inputs(model, **options)))
    denoise(randn(1, model.codec.num_bits, *model.mask_size, seed=seed), torch.tensor([gamma]), None)
    assert denoise.logits is not None
    return denoise.logits
