"""One code, several objects: parts of a segment that lie apart get codes of their own.

The model draws an object's code at random among few, so an object that appears may get the code of another one of its
class. Past maps tell which part is the old object. G code groups (class, instance), h w mask size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

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
        past: (G, h, w) int64 codes of past maps, in any order.
        num_codes: instance codes are 1 ... num_codes.
        min_pixels: smaller parts stay with their segment.
    """
    codes, _ = probabilities.choose()
    if len(codes) < 2:
        return probabilities
    used = torch.cat([codes[1].unique(), *(p[1].unique() for p in past)]).tolist()
    free = [k for k in range(1, num_codes + 1) if k not in used]
    height = codes.shape[1]
    for class_code, code in codes.flatten(1)[:, codes[1].flatten() > 0].unique(dim=1).T.tolist():
        here = (codes[0] == class_code) & (codes[1] == code)
        parts = [p for p in components(here, radius=round(BRIDGE * height)) if p.sum() >= min_pixels]
        before = [(p[0] == class_code) & (p[1] == code) for p in past]
        known = [dilate(b, round(REACH * height)) for b in before if bool(b.any())]
        new = [p for p in parts if not any(bool((p & k).any()) for k in known)] if known else parts[1:]
        for part in new[: len(free)]:
            others = (codes[1] == code) & ~part
            probabilities = _recode(probabilities, code, free.pop(0), dilate(part, 1) & ~others)
    return probabilities


def components(mask: Tensor, *, radius: int = 0) -> list[Tensor]:
    """Parts (h, w) of a boolean map that lie more than 2 * radius pixels apart, the largest first."""
    wide = dilate(mask, radius)
    label = torch.arange(1, wide.numel() + 1, device=mask.device).view(wide.shape) * wide
    while True:  # the largest number of a part floods it
        flooded = F.max_pool2d(label[None].double(), 3, stride=1, padding=1)[0].long() * wide
        if torch.equal(flooded, label):
            break
        label = flooded
    numbers, area = label[mask].unique(return_counts=True)
    return [mask & (label == n) for n in numbers[area.argsort(descending=True, stable=True)]]


def _recode(probabilities: CodeProbabilities, old: int, new: int, here: Tensor) -> CodeProbabilities:
    """The probability of instance code `old` moved to code `new` at the pixels of `here`."""
    classes, planes = probabilities.planes
    place = int((probabilities.codes[1] == old).nonzero())
    moved = planes[place] * here
    planes = torch.cat([planes, moved[None]])
    planes[place] -= moved
    code = probabilities.codes[1].new_tensor([new])
    codes = torch.cat([probabilities.codes[1], code])
    return replace(probabilities, planes=(classes, planes), codes=(probabilities.codes[0], codes))
