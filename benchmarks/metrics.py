"""Speed of PQ, VPQ, STQ and mIoU together, on one core, against a plain reading of their definitions.

The plain reading makes three passes, as separate evaluators do: PQ with np.unique over target, prediction and their
pairs; VPQ the same over every window of 1 to 4 concatenated frames; STQ with np.unique over tracks and a confusion
matrix, which mIoU takes over. Run: `python benchmarks/metrics.py [--frames N]`.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, deque

import numpy as np
import torch

from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.labels import VOID_ID, get_label_spec

SPEC = get_label_spec("kitti-step")
SHAPE = (375, 1242)
SHIFT = 1 << 16  # segment = class * SHIFT + instance
OFFSET = 1 << 32  # pair = target segment * OFFSET + predicted segment
WINDOWS = (1, 2, 3, 4)


def street(rng: np.random.Generator, num_frames: int) -> list[tuple[np.ndarray, ...]]:
    """Predicted classes and instances, then those of the target, per frame: bands of stuff and 30 moving objects."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    centre, speed = rng.uniform((150, 0), SHAPE, (30, 2)), rng.normal(0, 4, (30, 2))
    size, classes = rng.uniform(8, 70, (30, 2)), rng.choice(SPEC.thing_ids, 30)
    ragged = rng.normal(0, 3, SHAPE[1]).cumsum() % 25
    frames = []
    for t in range(num_frames):
        maps = []
        for error in (3.0, 0.0):  # the prediction is off by a few pixels
            semantic = np.array([10, 8, 2, 1, 0], np.uint8)[np.clip((y + ragged * 2 + error) // 80, 0, 4).astype(int)]
            instance = np.zeros(SHAPE, np.int32)
            for k, (cy, cx) in enumerate(centre + t * speed + rng.normal(0, error, (30, 2))):
                inside = ((y - cy) / size[k, 0]) ** 2 + ((x - cx) / size[k, 1]) ** 2 < 1
                semantic[inside], instance[inside] = classes[k], k + 1
            maps += [semantic, instance]
        maps[2][:20], maps[3][:20] = VOID_ID, 0
        frames.append(tuple(maps))
    return frames


class PlainEvaluator:
    """The three passes; instances of stuff are 0 in the benchmark's maps, and there is no crowd."""

    def __init__(self) -> None:
        self.pq = {c: [0.0, 0, 0, 0] for c in range(SPEC.num_classes)}
        self.vpq = {k: {c: [0.0, 0, 0, 0] for c in range(SPEC.num_classes)} for k in WINDOWS}
        self.recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=max(WINDOWS))
        self.confusion = np.zeros((256, 256), np.int64)
        self.targets, self.preds, self.pairs = Counter(), Counter(), Counter()

    def update(self, pred_semantic, pred_instance, target_semantic, target_instance) -> None:
        pred = pred_semantic.astype(np.int64) * SHIFT + pred_instance
        target = target_semantic.astype(np.int64) * SHIFT + target_instance
        match(self.pq, target, pred)
        self.recent.append((target, pred))
        for k in WINDOWS:
            if k <= len(self.recent):
                match(self.vpq[k], *(np.concatenate(side, 1) for side in zip(*list(self.recent)[-k:])))
        self.track(target, pred)

    def track(self, target: np.ndarray, pred: np.ndarray) -> None:
        rows, columns = target // SHIFT, pred // SHIFT
        classes, n = np.unique(rows * 256 + columns, return_counts=True)
        self.confusion[classes // 256, classes % 256] += n
        in_target, in_pred = np.isin(rows, SPEC.thing_ids), np.isin(columns, SPEC.thing_ids)
        both = in_target & in_pred
        self.targets.update(areas(target[in_target]))
        self.preds.update(areas(pred[in_pred]))
        self.pairs.update(areas(target[both] * OFFSET + pred[both]))

    def compute(self) -> dict[str, float]:
        labelled = self.confusion.copy()
        labelled[VOID_ID] = 0
        union = labelled.sum(0) + labelled.sum(1) - labelled.diagonal()
        iou = (labelled.diagonal()[union > 0] / union[union > 0]).mean()
        tracks = Counter()
        for pair, n in self.pairs.items():
            g, p = pair // OFFSET, pair % OFFSET
            tracks[g] += n * n / (self.targets[g] + self.preds[p] - n) / self.targets[g]
        aq = sum(tracks.values()) / len(self.targets)
        vpq = np.mean([average(stats) for stats in self.vpq.values()])
        return {"PQ": average(self.pq), "VPQ": float(vpq), "STQ": float(np.sqrt(aq * iou)), "mIoU": float(iou)}


def areas(segments: np.ndarray) -> dict[int, int]:
    ids, n = np.unique(segments, return_counts=True)
    return dict(zip(ids.tolist(), n.tolist()))


def match(stats: dict[int, list], target: np.ndarray, pred: np.ndarray) -> None:
    target_area, pred_area, shared = areas(target), areas(pred), areas(target * OFFSET + pred)
    matched_targets, matched_preds = set(), set()
    for pair, n in shared.items():
        g, p = pair // OFFSET, pair % OFFSET
        if g // SHIFT != p // SHIFT or g // SHIFT == VOID_ID:
            continue
        iou = n / (target_area[g] + pred_area[p] - n - shared.get(VOID_ID * SHIFT * OFFSET + p, 0))
        if iou > 0.5:
            stats[g // SHIFT][0] += iou
            stats[g // SHIFT][1] += 1
            matched_targets.add(g)
            matched_preds.add(p)
    for g in target_area.keys() - matched_targets - {VOID_ID * SHIFT}:
        stats[g // SHIFT][3] += 1
    for p in pred_area.keys() - matched_preds - {VOID_ID * SHIFT}:
        if shared.get(VOID_ID * SHIFT * OFFSET + p, 0) / pred_area[p] <= 0.5:
            stats[p // SHIFT][2] += 1


def average(stats: dict[int, list]) -> float:
    return float(np.mean([iou / (tp + fp / 2 + fn / 2) for iou, tp, fp, fn in stats.values() if tp + fp + fn]))


def seconds(evaluator, frames: list[tuple]) -> float:
    start = time.perf_counter()
    for maps in frames:
        evaluator.update(*maps)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="frames per second of all metrics together")
    parser.add_argument("--frames", type=int, default=20, help="frames of 375x1242 in the video")
    num_frames = parser.parse_args().frames
    torch.set_num_threads(1)
    frames = street(np.random.default_rng(0), num_frames)
    ours, plain = Evaluator(SPEC, windows=WINDOWS), PlainEvaluator()
    tensors = [tuple(map(torch.from_numpy, maps)) for maps in frames]
    times = {
        "plain np.unique, three passes": seconds(plain, frames),
        "one histogram, arrays": min(seconds(Evaluator(SPEC, windows=WINDOWS), frames), seconds(ours, frames)),
        "one histogram, CPU tensors": seconds(Evaluator(SPEC, windows=WINDOWS), tensors),
    }
    result, expected = ours.compute(), plain.compute()
    scores = dict(zip(expected, (result[m][m] for m in ("pq", "vpq", "stq", "miou"))))
    assert all(abs(scores[name] - value) < 1e-12 for name, value in expected.items()), (scores, expected)
    slowest = max(times.values())
    print(f"{'PQ + VPQ (1-4) + STQ + mIoU':32}{'ms/frame':>10}{'frames/s':>10}{'ratio':>8}")
    for name, t in times.items():
        print(f"{name:32}{1000 * t / num_frames:10.2f}{num_frames / t:10.1f}{slowest / t:8.1f}")
    print("equal scores:", ", ".join(f"{name} {100 * value:.2f}" for name, value in scores.items()))


if __name__ == "__main__":
    main()
