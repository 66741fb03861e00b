"""Code probabilities -> panoptic codes: the codes that exist, small segments, enlargement to the frame.

G code groups (class, instance), n codes of a group, S logit planes, H W size of a map (mask or frame).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pix2seq_d.bits import BitCodec
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.labels import LabelSpec


@dataclass
class CodeProbabilities:
    """Per group the probabilities of some of its codes.

    Attributes:
        planes: per group (n, H, W).
        codes: per group (n,) int64, the code of each plane.
        spec: label spec of the class codes.
        objects: (class codes, instance codes) bool, the pairs that may be chosen; None = all.
    """

    planes: tuple[Tensor, ...]
    codes: tuple[Tensor, ...]
    spec: LabelSpec
    objects: Tensor | None = None

    def choose(self) -> tuple[Tensor, Tensor]:
        """The most probable codes (G, H, W), instances on things only, and the probability (H, W) of the choice.

        Where `objects` has none of a thing's class, the code is that of no object and the probability 0.
        """
        best = [p.max(0) for p in self.planes]
        chosen = [codes[b.indices] for codes, b in zip(self.codes, best)]
        thing = self.spec.is_thing(chosen[0] - 1)
        confidence = best[0].values
        for i in range(1, len(chosen)):
            probability = best[i].values
            if self.objects is not None:  # elsewhere the best code of the pixel's class
                wrong = thing & ~self.objects[chosen[0], chosen[i]]
                allowed = self.objects[chosen[0][wrong]][:, self.codes[i]].T
                p = torch.where(allowed, self.planes[i][:, wrong], -1).max(0)
                chosen[i][wrong], probability[wrong] = self.codes[i][p.indices], p.values.clamp(min=0)
            chosen[i] = chosen[i] * thing
            confidence = torch.where(thing, confidence * probability, confidence)
        return torch.stack(chosen), confidence.float()

    def only(self, objects: Tensor) -> CodeProbabilities:
        """Choosing among these pairs of class and instance code; without the classes that win at no pixel."""
        classes = self.planes[0].argmax(0).unique()
        planes, codes = (self.planes[0][classes], *self.planes[1:]), (self.codes[0][classes], *self.codes[1:])
        return replace(self, planes=planes, codes=codes, objects=objects)

    def recode(self, instance_codes: Tensor) -> CodeProbabilities:
        """The probability of chosen instance codes moved to other codes.

        Where a code goes to several, each takes its own pixels and those beside them.

        Args:
            instance_codes: (H, W) int64, the codes that take the place of the chosen ones; 0 where none is chosen.
        """
        old = self.choose()[0][1]
        pairs = torch.stack([old, instance_codes]).flatten(1).unique(dim=1).T.tolist()
        moves = [(a, b) for a, b in pairs if a != b]
        if not moves:
            return self
        (classes, planes), codes = self.planes, self.codes[1].tolist()
        codes += sorted({b for _, b in moves} - set(codes))
        result = torch.cat([planes, planes.new_zeros(len(codes) - len(planes), *planes.shape[1:])])
        for a, b in moves:
            share, stays = planes[codes.index(a)], (old == a) & (instance_codes != b)
            if bool(stays.any()):
                share = share * (dilate((old == a) & (instance_codes == b), 1) & ~stays)
            result[codes.index(a)] -= share
            result[codes.index(b)] += share
        return replace(self, planes=(classes, result), codes=(self.codes[0], self.codes[1].new_tensor(codes)))

    def winners_only(self) -> CodeProbabilities:
        """Without the codes that win at no pixel."""
        winning = [p.argmax(0).unique() for p in self.planes]
        planes, codes = (tuple(x[w] for x, w in zip(xs, winning)) for xs in (self.planes, self.codes))
        return replace(self, planes=planes, codes=codes)

    def enlarge(self, box: Letterbox) -> CodeProbabilities:
        """From the mask on the canvas to the frame."""
        return replace(self, planes=tuple(enlarge(p, box) for p in self.planes))

    def suppress_small(self, min_pixels: float) -> CodeProbabilities:
        """Without segments of fewer than `min_pixels` pixels.

        A small part of a thing joins the instance of its class that it touches most; any other small segment takes its
        next best class.
        """
        result = replace(self, planes=tuple(p.clone() for p in self.planes))
        for _ in range(len(self.codes[0]) + len(self.codes[-1])):  # a pixel can lose every code but its last
            codes, _ = result.choose()
            small = small_segments(codes, min_pixels)
            if not small:
                break
            small_pixels = torch.stack([here for here, _ in small]).any(0)
            for here, segment in small:
                of_instance = len(segment) > 1 and segment[1] > 0
                neighbour = _neighbour_instance(codes, here, segment[0], ~small_pixels) if of_instance else 0
                if neighbour:
                    result.planes[1][:, here] = (self.codes[1] == neighbour).to(self.planes[1].dtype)[:, None]
                else:
                    result.planes[0][:, here] *= (self.codes[0] != segment[0])[:, None]
        return result


def code_probabilities(logits: Tensor, codec: BitCodec, spec: LabelSpec) -> CodeProbabilities:
    """Softmax of each group over the codes that exist: a class, for instances some instance.

    Args:
        logits: (S, H, W).
        codec: bit layout.
        spec: label spec; its class codes are 1 ... num_classes.
    """
    class_logits, *instance_logits = codec.split_logits(logits[None])
    planes = [class_logits[0, 1 : spec.num_classes + 1], *(g[0, 1:] for g in instance_logits)]
    codes = tuple(torch.arange(1, len(p) + 1, device=logits.device) for p in planes)
    return CodeProbabilities(tuple(p.softmax(0) for p in planes), codes, spec)


def read_estimate(x0: Tensor, codec: BitCodec, spec: LabelSpec) -> tuple[np.ndarray, np.ndarray]:
    """What the first of (N, K, h, w) x0 estimates spells, its bits read by sign.

    Returns:
        (h, w) class map uint8 and instance codes int64.
    """
    codes = codec.decode(x0[:1])[0].cpu()
    class_map, instances = spec.from_codes(codes[0], codes[-1] * (len(codes) > 1))
    return class_map.numpy().astype(np.uint8), instances.numpy()


def enlarge(p: Tensor, box: Letterbox) -> Tensor:
    """(n, h, w) over the canvas -> (n, H, W) of the frame, bilinear between the pixels that `box.map` samples."""
    for dim, positions in zip((1, 2), box.sample_positions((p.shape[1], p.shape[2]))):
        p = _interpolate(p, torch.from_numpy(positions).to(p), dim)
    return p


def small_segments(codes: Tensor, min_pixels: float) -> list[tuple[Tensor, tuple[int, ...]]]:
    """Pixels (H, W) and codes of every segment of (G, H, W) codes with fewer than `min_pixels` pixels."""
    keys = codes[0]
    for c in codes[1:]:
        keys = keys * (int(c.max()) + 1) + c
    area = torch.bincount(keys.flatten())
    small = ((area > 0) & (area < min_pixels)).nonzero().flatten()
    segments = [keys == k for k in small]
    return [(here, tuple(codes[:, here][:, 0].tolist())) for here in segments]


def dilate(mask: Tensor, radius: int) -> Tensor:
    """(H, W) boolean map, grown by `radius` pixels in every direction."""
    size = 2 * radius + 1
    rows = F.max_pool2d(mask[None].float(), (size, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(rows, (1, size), stride=1, padding=(0, radius))[0] > 0


def _neighbour_instance(codes: Tensor, here: Tensor, class_code: int, allowed: Tensor) -> int:
    """The instance code of the same class that touches `here` along most pixels; 0 where there is none."""
    ring = dilate(here, 1) & ~here
    touching = codes[1][ring & allowed & (codes[0] == class_code)]
    return int(touching.bincount().argmax()) if len(touching) else 0


def _interpolate(p: Tensor, positions: Tensor, dim: int) -> Tensor:
    """Values of `p` at fractional `positions` along dimension 1 or 2."""
    first = positions.long().clamp(max=max(p.shape[dim] - 2, 0))
    share = (positions - first).view(-1, *[1] * (2 - dim))
    following = (first + 1).clamp(max=p.shape[dim] - 1)
    return torch.lerp(p.index_select(dim, first), p.index_select(dim, following), share)
