"""Drawings of a few pixels, and slow reference metrics that loop over pixels and dictionaries.

Classes of the drawings: r road 0 and s sky 1 are stuff, p person 2 and c car 3 are things, "." is void.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

VOID = 255
THINGS = (2, 3)
LAYOUT = {"num_classes": 4, "thing_ids": THINGS, "void_id": VOID}

Maps = tuple[np.ndarray, np.ndarray]
Segments = list[tuple[int, int]]


def draw(pixels: str) -> Maps:
    """Turns "c1 c1 r ." into (1, 4) class ids and instance ids; a letter without a number has instance 0."""
    tokens = pixels.split()
    classes = [{"r": 0, "s": 1, "p": 2, "c": 3, ".": VOID}[t[0]] for t in tokens]
    return np.array([classes], np.uint8), np.array([[int(t[1:] or 0) for t in tokens]], np.int32)


def feed(metric, target: str, pred: str, sequence_id="0") -> None:
    metric.update(*draw(pred), *draw(target), sequence_id=sequence_id)


def random_maps(rng: np.random.Generator, shape=(6, 8), *, void=True, crowd=True, num_instances=3) -> Maps:
    """Blocky random maps over the classes of the drawings."""
    cells = tuple((n + 1) // 2 for n in shape)
    classes = rng.choice([0, 1, 2, 3, VOID] if void else [0, 1, 2, 3], cells)
    instances = rng.integers(0 if crowd else 1, num_instances + 1, cells)
    both = [np.repeat(np.repeat(m, 2, 0), 2, 1)[: shape[0], : shape[1]] for m in (classes, instances)]
    return both[0].astype(np.uint8), both[1].astype(np.int32)


def similar_maps(rng: np.random.Generator, maps: Maps, noise: float = 0.2, *, void=True, crowd=True) -> Maps:
    """The same maps with some pixels of another random map."""
    other = random_maps(rng, maps[0].shape, void=void, crowd=crowd)
    mask = rng.random(maps[0].shape) < noise
    return np.where(mask, other[0], maps[0]), np.where(mask, other[1], maps[1])


def videos(seed: int, lengths=(5, 1, 3), *, crowd=True):
    """(sequence, target, prediction) of every frame; what moves, and what is predicted wrongly, is random."""
    rng = np.random.default_rng(seed)
    for s, length in enumerate(lengths):
        target = random_maps(rng, crowd=crowd)
        for _ in range(length):
            target = similar_maps(rng, target, 0.05, crowd=crowd)
            yield f"{s:04d}", target, similar_maps(rng, target)


def segments(maps: Maps) -> Segments:
    """The (class, instance) of every pixel, instance 0 for stuff and void."""
    pairs = zip(maps[0].ravel().tolist(), maps[1].ravel().tolist())
    return [(c, i if c in THINGS else 0) for c, i in pairs]


def naive_pq(frames: list[tuple[Segments, Segments]], *, ignore_crowd: bool, subtract_void: bool = True) -> dict:
    """Per class [iou sum, tp, fp, fn] by the rules of panopticapi; `frames` holds (target, prediction) pixels."""
    stats = {c: [0.0, 0, 0, 0] for c in range(4)}
    for target, pred in frames:
        target_area, pred_area, shared = Counter(target), Counter(pred), Counter(zip(target, pred))
        crowds = {g for g in target_area if ignore_crowd and g[0] in THINGS and g[1] == 0}
        matched_targets, matched_preds = set(), set()
        for (g, p), n in shared.items():
            if g[0] != p[0] or g[0] == VOID or g in crowds:
                continue
            union = target_area[g] + pred_area[p] - n - (shared[(VOID, 0), p] if subtract_void else 0)
            if n / union > 0.5:
                stats[g[0]][0] += n / union
                stats[g[0]][1] += 1
                matched_targets.add(g)
                matched_preds.add(p)
        for g in target_area:
            if g[0] != VOID and g not in crowds and g not in matched_targets:
                stats[g[0]][3] += 1
        for p, n in pred_area.items():
            ignored = shared[(VOID, 0), p] + sum(shared[g, p] for g in crowds if g[0] == p[0])
            if p[0] != VOID and p not in matched_preds and ignored / n <= 0.5:
                stats[p[0]][2] += 1
    return stats


def naive_average(stats: dict, classes=range(4)) -> tuple[float, float, float]:
    scores = [
        (iou / (tp + fp / 2 + fn / 2), iou / tp if tp else 0, tp / (tp + fp / 2 + fn / 2))
        for c, (iou, tp, fp, fn) in stats.items()
        if c in classes and tp + fp + fn
    ]
    return tuple(sum(s) / len(scores) for s in zip(*scores)) if scores else (0.0, 0.0, 0.0)


def windows_of(video: list[tuple[Segments, Segments]], k: int) -> list[tuple[Segments, Segments]]:
    """Every k consecutive frames, concatenated."""
    return [
        tuple([pixel for frame in video[i : i + k] for pixel in frame[side]] for side in (0, 1))
        for i in range(len(video) - k + 1)
    ]


def naive_tracks(video: list[tuple[Segments, Segments]]) -> list[float]:
    """The AQ terms of one sequence as deeplab2 defines them, crowd pixels left out."""
    pixels = [(g, p) for target, pred in video for g, p in zip(target, pred) if not (g[0] in THINGS and g[1] == 0)]
    targets = Counter(g for g, _ in pixels if g[0] in THINGS)
    preds = Counter(p for _, p in pixels if p[0] in THINGS)
    shared = Counter(pixels)
    terms = []
    for g, size in targets.items():
        total = sum(shared[g, p] ** 2 / (size + area - shared[g, p]) for p, area in preds.items())
        terms.append(total / size)
    return terms


def naive_ious(frames: list[tuple[Segments, Segments]], *, count_void: bool) -> list[float]:
    """IoU of every class that occurs on labelled pixels; with `count_void` predicted void is one more class."""
    pairs = [(g[0], p[0]) for target, pred in frames for g, p in zip(target, pred) if g[0] != VOID]
    ious = []
    for c in [0, 1, 2, 3] + [VOID] * count_void:
        union = sum(g == c or p == c for g, p in pairs)
        if union:
            ious.append(sum(g == c and p == c for g, p in pairs) / union)
    return ious


def numbers(result: dict, c: int) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of a class in a PQ result."""
    return tuple(result["per_class"][c][key] for key in ("tp", "fp", "fn"))
