"""A slow J and F that handles one mask at a time, pixel by pixel, as the papers describe them."""

from __future__ import annotations

from itertools import permutations
from math import ceil, hypot

import numpy as np


def naive_boundary(mask: np.ndarray) -> set[tuple[int, int]]:
    """Pixels that differ from their right, lower or lower right neighbour inside the image."""
    h, w = mask.shape
    found = set()
    for y in range(h):
        for x in range(w):
            below, right = min(y + 1, h - 1), min(x + 1, w - 1)
            if len({bool(mask[y, x]), bool(mask[y, right]), bool(mask[below, x]), bool(mask[below, right])}) > 1:
                found.add((y, x))
    return found


def naive_near(pixels: set, others: set, radius: int) -> int:
    """How many pixels have one of the others within the radius."""
    return sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in pixels)


def naive_j(pred: np.ndarray, target: np.ndarray) -> float:
    union = (pred | target).sum()
    return (pred & target).sum() / union if union else 1.0


def naive_f(pred: np.ndarray, target: np.ndarray) -> float:
    a, b = naive_boundary(pred), naive_boundary(target)
    if not a or not b:
        return float(not a and not b)
    radius = ceil(0.008 * hypot(*pred.shape))
    precision, recall = naive_near(a, b, radius) / len(a), naive_near(b, a, radius) / len(b)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def naive_statistics(values: list[float]) -> tuple[float, float, float]:
    """Mean, recall, decay."""
    x = np.array(values)
    ends = [int(e) for e in np.round(np.linspace(1, len(x), 5) + 1e-10) - 1]
    decay = x[: ends[1] + 1].mean() - x[ends[3] :].mean()
    return float(x.mean()), float((x > 0.5).mean()), float(decay)


def naive_unsupervised(preds: list[np.ndarray], targets: list[np.ndarray], void_id: int = 255) -> list[tuple]:
    """(mean, recall, decay) of J, then of F, per object of the first frame; the best of all assignments."""
    objects = sorted({*np.unique(targets[0]).tolist()} - {0, void_id})
    proposals = sorted({i for p in preds for i in np.unique(p).tolist()} - {0, void_id})
    proposals += [None] * (len(objects) - len(proposals))  # empty ones
    scores = {
        (g, p): [[metric((m == p) & (t != void_id), t == g) for m, t in zip(preds, targets)] for metric in METRICS]
        for g in objects
        for p in proposals
    }
    best = max(
        permutations(proposals, len(objects)),
        key=lambda chosen: sum(np.mean(scores[pair]) for pair in zip(objects, chosen)),
    )
    return [sum((naive_statistics(values) for values in scores[pair]), ()) for pair in zip(objects, best)]


METRICS = (naive_j, naive_f)
