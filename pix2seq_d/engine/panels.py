"""A frame of a validation from noise to map: input, ground truth, prediction, and what it was taken for on the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.palette import colour_panoptic
from pix2seq_d.pictures import captioned, grid, resize_picture

COLUMNS = 3
MAX_ESTIMATES = 2 * COLUMNS  # of more steps some are left out
WIDTHS = 200, 640  # of a panel, least and most: captions must fit, and trackers get one with every validation

Maps = tuple[np.ndarray, np.ndarray]  # class map and instance map


def denoising_panels(
    frame: np.ndarray, target: Maps, prediction: Maps, estimates: Sequence[Tensor], model: Pix2SeqD
) -> np.ndarray:
    """Frame and maps in a row, and below it the estimates of the clean map after the first step to the last.

    Args:
        frame: (H, W, 3) uint8.
        target: class map and instance map, (H, W) integers.
        prediction: the same.
        estimates: x0, (1, K, h, w), one a step, as the sampler's callback gets them; bits are read by their sign.
        model: that has made them.

    Returns:
        (height, width, 3) uint8.
    """
    spec, last = model.label_spec, len(estimates) - 1
    chosen = np.unique(np.linspace(0, last, min(MAX_ESTIMATES, last + 1)).round().astype(int)).tolist()
    panels = [("input", frame), ("ground truth", colour_panoptic(*target, spec))]
    panels += [("prediction", colour_panoptic(*prediction, spec))]
    panels += [(f"x0, step {k + 1}/{last + 1}", colour_panoptic(*_read(estimates[k], model), spec)) for k in chosen]
    width = int(np.clip(frame.shape[1], *WIDTHS))
    cells = [captioned(_at_width(picture, width), caption) for caption, picture in panels]
    return grid([cells[k : k + COLUMNS] for k in range(0, len(cells), COLUMNS)])


def _read(x0: Tensor, model: Pix2SeqD) -> Maps:
    codes = model.codec.decode(x0)[0].cpu()  # (G, h, w)
    class_map, instance_map = model.label_spec.from_codes(codes[0], codes[-1] * (len(codes) > 1))
    return class_map.numpy(), instance_map.numpy()


def _at_width(picture: np.ndarray, width: int) -> np.ndarray:
    """Smaller bicubically, larger by repeating pixels."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return resize_picture(picture, (height, width), smooth=width < picture.shape[1])
