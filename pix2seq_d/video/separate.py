"""One code, several objects: parts of a segment that lie apart get codes of their own.

The model draws an object's code at random among few, so an object that appears may get the code of another one of its
class. Past maps tell which part is the old object. G code groups (class, instance), h w mask size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pix2seq_d.video.decode import CodeProbabilities, dilate

BRIDGE = 1 / 24  # of the mask's height: parts of one object lie closer, behind a pole or a passer-by
REACH = 1 / 12  # of the mask's height: how far an object moves between two frames beyond overlapping itself


def separate_objects(
    probabilities: CodeProbabilities, past: Sequence[Tensor], *, num_codes: int, min_pixels: float = 0
) -> CodeProbabilities:
    """Gives a code that nobody uses to every part of a thing segment that is no continuation of that segment.

    A part continues the segment of its class and code if it lies within REACH of it in one of the past maps; where no
    past map has the segment, the largest part is the object. Where all codes are used, parts stay together.

    Args:
        probabilities: at mask size.
        past: (G, h, w) int64 codes of past maps and of what is expected, in any order.
        num_codes: instance codes are 1 ... num_codes.
        min_pixels: smaller parts stay with their segment.
    """
    codes, _ = probabilities.choose()
    if len(codes) < 2:
        return probabilities
    used = torch.cat([codes[1].unique(), *(p[1].unique() for p in past)]).tolist()
    free = [k for k in range(1, num_codes + 1) if k not in used]
    height, instance_codes = codes.shape[1], codes[1].clone()
    for class_code, code in codes.flatten(1)[:, codes[1].flatten() > 0].unique(dim=1).T.tolist():
        here = (codes[0] == class_code) & (codes[1] == code)
        parts = [p for p in components(here, radius=round(BRIDGE * height)) if p.sum() >= min_pixels]
        before = [(p[0] == class_code) & (p[1] == code) for p in past]
        before = [b for b in before if bool(b.any())]
        new = [p for p in parts if not _continues(p, before, round(REACH * height))] if before else parts[1:]
        for part in new[: len(free)]:
            instance_codes[part] = free.pop(0)
    return probabilities.recode(instance_codes)


def components(mask: Tensor, *, radius: int = 0) -> list[Tensor]:
    """Parts (h, w) of a boolean map that lie more than 2 * radius pixels apart, the largest first."""
    wide = dilate(mask, radius)
    label = torch.from_numpy(number_parts(wide.cpu().numpy())).to(mask.device)
    numbers, area = label[mask].unique(return_counts=True)
    return [mask & (label == n) for n in numbers[area.argsort(descending=True, stable=True)]]


def number_parts(mask: np.ndarray) -> np.ndarray:
    """(h, w) int64 numbers from 1 of the connected parts of a boolean map, 0 = none; corners connect too."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (row, start), (_, end) = np.nonzero(edges == 1), np.nonzero(edges == -1)  # of every run of pixels in a row
    below, stride = (row + 1) * (mask.shape[1] + 1), mask.shape[1] + 1
    first = np.searchsorted(row * stride + end, below + start, "left")
    count = np.searchsorted(row * stride + start, below + end, "right") - first  # runs that a run touches below it
    upper = np.repeat(np.arange(len(row)), count)
    lower = np.arange(len(upper)) + np.repeat(first - np.cumsum(count) + count, count)
    root = np.arange(len(row))
    while True:  # every run takes the lowest number that it touches, and that one's
        lowest = root.copy()
        np.minimum.at(lowest, upper, root[lower])
        np.minimum.at(lowest, lower, root[upper])
        lowest = lowest[lowest]
        if np.array_equal(lowest, root):
            break
        root = lowest
    label = np.zeros(mask.shape, np.int64)
    label[mask] = np.repeat(np.unique(root, return_inverse=True)[1] + 1, end - start)
    return label


def _continues(part: Tensor, before: Sequence[Tensor], reach: int) -> bool:
    """Whether one of the maps `before` has a pixel within `reach` of the part."""
    if any(bool((part & b).any()) for b in before):  # most parts: a shortcut
        return True
    near = dilate(part, reach)
    return any(bool((near & b).any()) for b in before)
