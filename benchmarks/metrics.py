"""Speed of PQ, VPQ, STQ and mIoU together, on one core, against a plain reading of their definitions.

The plain reading makes three passes, as separate evaluators do: PQ with np.unique over target, prediction and their
64-bit pairs; VPQ the same over every window of 1 to 4 concatenated frames; STQ with np.unique over tracks and a
confusion matrix, which mIoU takes over. Both must give the same scores. Times are those of the process, which other
load on the machine changes least. Run: `OMP_NUM_THREADS=1 python benchmarks/metrics.py [--frames N]`.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, deque

import numpy as np
import torch

from pix2seq_d.labels import VOID_ID, get_label_spec
from pix2seq_d.metrics import JAndF, MeanIoU, PanopticQuality, SegmentationTrackingQuality, VideoPanopticQuality
from pix2seq_d.metrics.counts import ClassLayout, joint_counts

SPEC = get_label_spec("kitti-step")
CLASSES = SPEC.num_classes, SPEC.thing_ids, SPEC.void_id
SHAPES = (375, 1242), (1024, 2048), (480, 640)
NOISE = {"clean": 0.0, "1 % noise": 0.01, "10 % noise": 0.1, "all noise": 1.0}
SHIFT = 1 << 16  # segment = class * SHIFT + instance
OFFSET = 1 << 32  # pair = target segment * OFFSET + predicted segment
WINDOWS = (1, 2, 3, 4)

Maps = tuple[np.ndarray, ...]


def street(rng: np.random.Generator, shape: tuple[int, int], num_frames: int) -> list[Maps]:
    """Predicted classes and instances, then those of the target, per frame: bands of stuff and 30 moving objects."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    centre, speed = rng.uniform((0.4 * height, 0), shape, (30, 2)), rng.normal(0, 0.01, (30, 2)) * height
    size, classes = rng.uniform(0.02, 0.19, (30, 2)) * height, rng.choice(SPEC.thing_ids, 30)
    ragged = rng.normal(0, 3, width).cumsum() % 25
    frames = []
    for t in range(num_frames):
        maps = []
        for error in (0.008 * height, 0.0):  # the prediction is off by a few pixels
            bands = ((y + ragged * 2 + error) * 5 // height).clip(0, 4).astype(int)
            semantic, instance = np.array([10, 8, 2, 1, 0], np.uint8)[bands], np.zeros(shape, np.int32)
            for k, (cy, cx) in enumerate(centre + t * speed + rng.normal(0, error, (30, 2))):
                inside = ((y - cy) / size[k, 0]) ** 2 + ((x - cx) / size[k, 1]) ** 2 < 1
                semantic[inside], instance[inside] = classes[k], k + 1
            maps += [semantic, instance]
        maps[2][: height // 20], maps[3][: height // 20] = VOID_ID, 0
        frames.append(tuple(maps))
    return frames


def add_noise(rng: np.random.Generator, frames: list[Maps], share: float) -> list[Maps]:
    """Frames in which a share of the predicted pixels has any class and one of 255 ids, as early predictions have."""
    noisy = []
    for semantic, instance, *target in frames:
        where = rng.random(semantic.shape) < share
        semantic = np.where(where, rng.integers(0, SPEC.num_classes, where.shape), semantic).astype(np.uint8)
        instance = np.where(where, rng.integers(1, 256, where.shape), instance).astype(np.int32)
        noisy.append((semantic, instance * np.isin(semantic, SPEC.thing_ids).astype(np.int32), *target))
    return noisy


class OnePass:
    """All metrics from one histogram per frame."""

    def __init__(self) -> None:
        self.layout = ClassLayout(*CLASSES)
        self.metrics = {
            "PQ": PanopticQuality(*CLASSES),
            "VPQ": VideoPanopticQuality(*CLASSES, windows=WINDOWS),
            "STQ": SegmentationTrackingQuality(*CLASSES),
            "mIoU": MeanIoU(SPEC.num_classes, SPEC.void_id),
        }

    def update(self, *maps) -> None:
        counts = joint_counts(*maps, layout=self.layout, where="benchmark")
        for metric in self.metrics.values():
            metric.update_counts(counts)

    def compute(self) -> dict[str, float]:
        return {name: metric.compute()[name.lower()] for name, metric in self.metrics.items()}


class PlainEvaluator:
    """The three passes; instances of stuff are 0 in these maps, and there is no crowd."""

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


def run(evaluator, frames: list[Maps]) -> tuple[float, dict[str, float]]:
    """Processor seconds per frame, the final scores included, and these."""
    start = time.process_time()
    for maps in frames:
        evaluator.update(*maps)
    scores = evaluator.compute()
    return (time.process_time() - start) / len(frames), scores


def compare(frames: list[Maps]) -> tuple[float, float, float]:
    """Seconds per frame of the plain reading, of one pass over arrays and of one over CPU tensors."""
    plain, expected = run(PlainEvaluator(), frames)
    arrays, scores = min((run(OnePass(), frames) for _ in range(3)), key=lambda result: result[0])
    tensors, _ = run(OnePass(), [tuple(map(torch.from_numpy, maps)) for maps in frames])
    assert all(abs(scores[name] - value) < 1e-9 for name, value in expected.items()), (scores, expected)
    return plain, arrays, tensors


def objects(frames: list[Maps]) -> float:
    """Seconds per frame of J and F, all things of the frame being objects."""
    metric = JAndF(max_proposals=255)
    start = time.process_time()
    for _, pred, _, target in frames:
        metric.update(pred, target)
    metric.compute()
    return (time.process_time() - start) / len(frames)


def main() -> None:
    parser = argparse.ArgumentParser(description="milliseconds per frame of all metrics together")
    parser.add_argument("--frames", type=int, default=8, help="frames of the video")
    num_frames = parser.parse_args().frames
    torch.set_num_threads(1)
    print("PQ + VPQ (1-4) + STQ + mIoU | plain, ms | this package, ms | of tensors, ms | frames/s | ratio")
    for shape in SHAPES:
        rng = np.random.default_rng(0)
        clean = street(rng, shape, num_frames)
        for name, share in NOISE.items():
            plain, arrays, tensors = compare(add_noise(rng, clean, share) if share else clean)
            print(
                f"{shape[0]}x{shape[1]}, {name:16} | {1000 * plain:8.1f} | {1000 * arrays:6.2f} | {1000 * tensors:6.2f}"
                f" | {1 / arrays:6.0f} | {plain / arrays:5.1f}"
            )
        print(f"{shape[0]}x{shape[1]}, J and F of 30 objects: {1000 * objects(clean):.1f} ms")


if __name__ == "__main__":
    main()
