"""Several samples of one frame -> one: instance codes put in line, probabilities averaged, differences told.

A sample draws the codes of new objects at random: the same object has another code in each (label switching). Objects
are matched one to one by IoU, each sample with the mean of those before it (relabelling, Stephens, JRSS B 2000).
N samples, G code groups, n codes, h w mask size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pix2seq_d.metrics.assignment import match_pairs
from pix2seq_d.video.decode import CodeProbabilities

MIN_IOU = 0.1  # of an object in one sample with the same in others


@dataclass
class Consensus:
    """What N samples of a frame say together.

    Attributes:
        probabilities: mean of the samples, their instance codes put in line.
        codes: (N, G, h, w) int64, what each sample alone would choose, in line.
        classes: (num_classes, h, w), mean class probabilities, those of classes that win nowhere too.
    """

    probabilities: CodeProbabilities
    codes: Tensor
    classes: Tensor

    def disagreement(self) -> Tensor:
        """(h, w) in [0, 1], share of the samples whose instance code is another than that of the mean."""
        if self.codes.shape[1] < 2:
            return torch.zeros(self.codes.shape[2:], device=self.codes.device)
        return (self.codes[:, 1] != self.probabilities.choose()[0][1]).float().mean(0)

    def agreement(self, codes: Tensor) -> dict[tuple[int, int], float]:
        """Of every segment (class code, instance code) of (G, h, w) codes, how much the samples have the same one.

        That is the IoU with the most similar segment of its class in a sample, mean over the samples.
        """
        labels, keys = _number(codes)
        total = torch.zeros(len(keys), dtype=torch.float64)
        for sample in self.codes:
            others, other_keys = _number(sample)
            iou = _iou(labels, len(keys), others, len(other_keys)).cpu()
            same_class = torch.tensor([[a[0] == b[0] for b in other_keys] for a in keys])
            total += (iou * same_class).max(1).values
        return dict(zip(keys, (total / len(self.codes)).tolist()))


def find_consensus(samples: Sequence[CodeProbabilities], *, num_codes: int) -> Consensus:
    """Puts the instance codes of N samples in line and averages.

    Args:
        samples: of one frame, with the probabilities of all its classes.
        num_codes: instance codes are 1 ... num_codes; objects beyond them are left out.
    """
    planes = [torch.stack([s.planes[0] for s in samples]).mean(0)]  # (num_classes, h, w)
    codes = [samples[0].codes[0]]
    if len(samples[0].planes) > 1:
        samples = align_objects(samples, num_codes=num_codes)
        instances, instance_codes = _mean_instances(samples)
        planes, codes = [*planes, instances], [*codes, instance_codes]
    mean = CodeProbabilities(tuple(planes), tuple(codes), samples[0].spec)
    return Consensus(mean.winners_only(), torch.stack([s.choose()[0] for s in samples]), planes[0])


def normalised_entropy(probabilities: Tensor) -> Tensor:
    """(n, h, w) probabilities -> (h, w) in [0, 1], their entropy over log(n), that of no knowledge."""
    entropy = -(probabilities * probabilities.clamp(min=1e-12).log()).sum(0)
    return (entropy / math.log(max(len(probabilities), 2))).clamp(0, 1)


def align_objects(samples: Sequence[CodeProbabilities], *, num_codes: int) -> list[CodeProbabilities]:
    """The samples with one code for what is the same object; probabilities of other codes than objects' are dropped.

    The sample that is most like the others comes first and keeps its codes.
    """
    found = [_objects(sample) for sample in samples]
    order = _most_alike_first([masks for masks, _ in found])
    names: list[int] = []  # codes of the objects known so far, and how many samples have each of their pixels
    votes = found[0][0].new_zeros(0, *samples[0].planes[0].shape[1:])
    aligned: dict[int, CodeProbabilities] = {}
    for count, k in enumerate(order):
        masks, codes = found[k]
        same = _match(_soft_iou(masks, votes / max(count, 1)))
        new_codes = [names[same[i]] if i in same else 0 for i in range(len(codes))]
        for i in sorted(range(len(codes)), key=lambda i: -float(masks[i].sum())):
            if not new_codes[i]:
                free = [c for c in (codes[i], *range(1, num_codes + 1)) if c not in (*names, *new_codes)]
                new_codes[i] = free[0] if free else 0
        for code, mask in zip(new_codes, masks):
            if code and code not in names:
                names.append(code)
                votes = torch.cat([votes, torch.zeros_like(mask)[None]])
            if code:
                votes[names.index(code)] += mask
        aligned[k] = _relabelled(samples[k], codes, new_codes)
    return [aligned[k] for k in range(len(samples))]


def _objects(sample: CodeProbabilities) -> tuple[Tensor, list[int]]:
    """(n, h, w) float masks of the instance codes that a sample chooses on things, and the codes."""
    chosen = sample.choose()[0][1]
    codes = [c for c in chosen.unique().tolist() if c]
    return (chosen == chosen.new_tensor(codes).view(-1, 1, 1)).float(), codes


def _most_alike_first(masks: Sequence[Tensor]) -> list[int]:
    """Indices of the samples by falling IoU of their objects with those of all others."""
    total = [0.0] * len(masks)
    for i in range(len(masks)):
        for j in range(i):
            iou = _soft_iou(masks[i], masks[j])
            alike = sum(float(iou[a, b]) for a, b in _match(iou).items()) / max(*iou.shape, 1)
            total[i] += alike
            total[j] += alike
    return sorted(range(len(masks)), key=lambda k: -total[k])


def _soft_iou(masks: Tensor, others: Tensor) -> Tensor:
    """(n, m) IoU of masks (n, h, w) and (m, h, w) with values in [0, 1]."""
    a, b = masks.flatten(1), others.flatten(1)
    overlap = a @ b.T
    return overlap / (a.sum(1)[:, None] + b.sum(1)[None] - overlap).clamp(min=1e-6)


def _match(iou: Tensor) -> dict[int, int]:
    """Row -> column of the one-to-one assignment with the largest sum, where the IoU is MIN_IOU or more."""
    rows, columns = match_pairs(iou.double().cpu().numpy(), least=MIN_IOU)
    return dict(zip(rows.tolist(), columns.tolist()))


def _relabelled(sample: CodeProbabilities, codes: list[int], new_codes: list[int]) -> CodeProbabilities:
    """The planes of objects under their new codes; one plane at least, so that there is something to choose from."""
    names = sample.codes[1].tolist()
    kept = [(names.index(old), new) for old, new in zip(codes, new_codes) if new] or [(0, 1)]
    places, labels = zip(*kept)
    planes = sample.planes[0], sample.planes[1][list(places)]
    return replace(sample, planes=planes, codes=(sample.codes[0], sample.codes[1].new_tensor(labels)))


def _mean_instances(samples: Sequence[CodeProbabilities]) -> tuple[Tensor, Tensor]:
    """(n, h, w) mean probabilities of the instance codes, each sample as far as it sees a thing; and the codes (n,)."""
    names = sorted({code for s in samples for code in s.codes[1].tolist()})
    planes = samples[0].planes[1]
    total, weight = planes.new_zeros(len(names), *planes.shape[1:]), planes.new_full(planes.shape[1:], 1e-12)
    for s in samples:
        thing = s.planes[0][s.spec.is_thing(s.codes[0] - 1)].sum(0)
        places = torch.tensor([names.index(code) for code in s.codes[1].tolist()], device=planes.device)
        total.index_add_(0, places, s.planes[1] * thing)
        weight = weight + thing
    return total / weight, samples[0].codes[1].new_tensor(names)


def _number(codes: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
    """(h, w) numbers from 0 of the segments of (G, h, w) codes, and their class and instance codes."""
    instance_codes = codes[1] if len(codes) > 1 else torch.zeros_like(codes[0])
    width = int(instance_codes.max()) + 1
    keys, labels = (codes[0] * width + instance_codes).unique(return_inverse=True)
    return labels, [divmod(key, width) for key in keys.tolist()]


def _iou(labels: Tensor, n: int, others: Tensor, m: int) -> Tensor:
    """(n, m) float64 IoU of the segments of two maps."""
    joint = torch.bincount((labels * m + others).flatten(), minlength=n * m).view(n, m).double()
    return joint / (joint.sum(1, keepdim=True) + joint.sum(0, keepdim=True) - joint)
