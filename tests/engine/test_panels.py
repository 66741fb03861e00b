"""The panels of a frame on its way from noise to map: what stands where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pix2seq_d.engine.panels import denoising_panels
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.palette import colour_panoptic
from pix2seq_d.pictures import captioned

Build = Callable[..., Pix2SeqD]
H, W, GAP, CAPTION = 80, 200, 8, 24


def maps(class_id: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((H, W), class_id, np.uint8), np.zeros((H, W), np.int32)


def estimate(model: Pix2SeqD, class_id: int) -> Tensor:
    groups = len(model.codec.group_bits)
    codes = torch.zeros(1, groups, *model.mask_size, dtype=torch.long)
    codes[:, 0] = class_id + 1
    return model.codec.encode(codes)


def cell(panels: np.ndarray, row: int, column: int, height: int) -> np.ndarray:
    """Rows: the first is 80 high, those of estimates half as wide as high masks: 100."""
    top = GAP + CAPTION + (row > 0) * (H + GAP + CAPTION) + max(row - 1, 0) * (100 + GAP + CAPTION)
    left = GAP + column * (W + GAP)
    return panels[top : top + height, left : left + W]


@pytest.mark.parametrize("options", [{}, {"num_instance_bits": 0}], ids=["panoptic", "semantic"])
def test_what_stands_where(tiny_model: Build, options: dict[str, Any]) -> None:
    model = tiny_model(**options)
    frame = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    estimates = [estimate(model, k) for k in (3, 4, 5, 6)]
    panels = denoising_panels(frame, maps(1), maps(2), estimates, model)
    assert panels.shape == (4 * GAP + 3 * CAPTION + H + 2 * 100, 4 * GAP + 3 * W, 3)

    def colour(class_id: int) -> list[int]:
        return colour_panoptic(*maps(class_id), model.label_spec)[0, 0].tolist()

    assert np.array_equal(cell(panels, 0, 0, H), frame)
    for place, class_id in {(0, 1): 1, (0, 2): 2, (1, 0): 3, (1, 1): 4, (1, 2): 5, (2, 0): 6}.items():
        shown = cell(panels, *place, H if place[0] == 0 else 100)
        assert np.unique(shown.reshape(-1, 3), axis=0).tolist() == [colour(class_id)], place
    assert np.all(cell(panels, 2, 1, 100) == 255)
    above = captioned(np.zeros((1, W, 3), np.uint8), "x0, step 4/4")[:CAPTION]
    assert np.array_equal(panels[-GAP - 100 - CAPTION : -GAP - 100, GAP : GAP + W], above)


def test_of_many_steps_six_are_shown(tiny_model: Build) -> None:
    """Steps 1, 4, 7, 9, 12 and 15 of 15; masks of 200 x 100."""
    model = tiny_model()
    estimates = [estimate(model, k) for k in range(15)]
    panels = denoising_panels(np.zeros((H, W, 3), np.uint8), maps(1), maps(2), estimates, model)
    shown = [cell(panels, row, column, 100)[0, 0].tolist() for row in (1, 2) for column in range(3)]
    chosen = [0, 3, 6, 8, 11, 14]
    assert shown == [colour_panoptic(*maps(k), model.label_spec)[0, 0].tolist() for k in chosen]


@pytest.mark.parametrize(("width", "shown"), [(50, 200), (400, 400), (1000, 640)])
def test_panels_are_neither_tiny_nor_huge(tiny_model: Build, width: int, shown: int) -> None:
    model = tiny_model()
    flat = np.zeros((10, width), np.uint8)
    panels = denoising_panels(
        np.zeros((10, width, 3), np.uint8), (flat, flat), (flat, flat), [estimate(model, 1)], model
    )
    assert panels.shape[1] == 4 * GAP + 3 * shown
