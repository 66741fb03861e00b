"""Fixtures shared by the tests of several rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch

from pix2seq_d.labels import get_label_spec

if TYPE_CHECKING:
    from pix2seq_d.models.pix2seq_d import Pix2SeqD

TINY: dict[str, Any] = {
    "label_spec": get_label_spec("kitti-step"),
    "image_size": (32, 64),
    "num_instance_bits": 3,
    "block": "basic",
    "stem_width": 8,
    "stage_widths": (8, 16),
    "stage_depths": (1, 1),
    "stage_strides": (1, 2),
    "encoder_dim": 16,
    "encoder_layers": 1,
    "encoder_heads": 2,
    "pyramid_dim": 16,
    "cond_channels": 8,
    "denoiser_widths": (8, 16),
    "denoiser_dim": 16,
    "denoiser_layers": 1,
    "denoiser_heads": 2,
    "num_steps": 3,
    "num_steps_next": 2,
}


def _tiny_model(*, seed: int = 0, lively: bool = True, **overrides: Any) -> Pix2SeqD:
    """The smallest sensible model (masks 16x32, 50 k parameters), in eval mode.

    `lively` replaces the near-zero last layers by ordinary random ones, so that every input shows in the output.
    """
    from pix2seq_d.models.pix2seq_d import Pix2SeqD  # here, so that tests of other rooms do not wait for it

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Pix2SeqD(**{**TINY, **overrides}).eval()
        if lively:
            with torch.no_grad():
                for parameter in model.denoiser.parameters():
                    if parameter.ndim > 1 and parameter.std() < 1e-3:
                        parameter.normal_(std=0.3)
    return model


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Pix2SeqD]:
    """`tiny_model(**overrides)` builds a tiny Pix2SeqD."""
    return _tiny_model
