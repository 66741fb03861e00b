"""What several samples of a frame are worth: quality and time, calibration, and whether uncertainty finds errors.

python benchmarks/uncertainty.py --checkpoint checkpoints/synthetic-tiny --curves docs/uncertainty_curves.png

A pixel is of a wrong object where its predicted segment and the true one do not match (same class, IoU above 1/2, as in
PQ), and a predicted segment without a match is a false one. Only pixels with a true class count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.engine.checkpoint import find_model
from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.engine.validation import summary
from pix2seq_d.labels import LABEL_DIVISOR, LabelSpec
from pix2seq_d.metrics import CalibrationError, Sparsification
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.pictures import Point, draw_curve, grid, save_picture
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor

SCORES = ("stq", "pq", "vpq", "miou")
MEASURES = ("1 - confidence", "class entropy", "instance disagreement")
KINDS = ("class", "object")  # of errors
NUM_BINS = 15


class Doubts:
    """What is said of a prediction's doubt and what is true, over all frames."""

    def __init__(self, spec: LabelSpec) -> None:
        self.spec, self.calibration = spec, CalibrationError(NUM_BINS)
        self.pixels = {(kind, name): Sparsification() for kind in KINDS for name in MEASURES}
        self.segments = {name: Sparsification() for name in ("1 - score", "1 - agreement")}

    def update(self, result: PanopticMap, class_map: np.ndarray, instance_map: np.ndarray) -> None:
        """Adds a frame and its ground truth."""
        labelled = class_map != self.spec.void_id
        wrong_class = result.class_map != class_map
        thing = labelled & (self.spec.is_thing(class_map) | self.spec.is_thing(result.class_map))
        truth = class_map.astype(np.int64) * LABEL_DIVISOR + instance_map * self.spec.is_thing(class_map)
        wrong_object, false_ids = compare(result.segmentation.astype(np.int64), truth, labelled)
        wrong = np.where(thing, wrong_object, wrong_class)
        self.calibration.update(result.confidence, ~wrong, valid=labelled)
        for name, values in measures(result).items():
            self.pixels["class", name].update(values, wrong_class, valid=labelled)
            self.pixels["object", name].update(values, wrong_object, valid=thing)
        segments = result.segments_info
        false = np.array([s["id"] in false_ids for s in segments])
        self.segments["1 - score"].update(np.array([1 - s["score"] for s in segments]).clip(0, 1), false)
        if result.uncertainty is not None:
            self.segments["1 - agreement"].update(np.array([1 - s["agreement"] for s in segments]).clip(0, 1), false)

    def compute(self) -> dict[str, Any]:
        """Calibration, sparsification of pixels by kind of error and measure, and of segments."""
        pixels = {f"{kind}, {name}": metric.compute() for (kind, name), metric in self.pixels.items()}
        segments = {name: metric.compute() for name, metric in self.segments.items()}
        return {"calibration": self.calibration.compute(), "pixels": pixels, "segments": segments}


def measures(result: PanopticMap) -> dict[str, np.ndarray]:
    """(H, W) uncertainties of a prediction by name; of a single sample its confidence alone."""
    values = {"1 - confidence": 1 - result.confidence}
    if result.uncertainty is not None:
        values["class entropy"] = result.uncertainty.class_entropy
        values["instance disagreement"] = result.uncertainty.instance_disagreement
    return {name: v.clip(0, 1) for name, v in values.items()}


def compare(pred: np.ndarray, truth: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, set[int]]:
    """Pixels (H, W) whose predicted segment does not match the true one, and the ids of false segments.

    Args:
        pred: (H, W) panoptic ids.
        truth: (H, W) panoptic ids.
        labelled: (H, W) bool; elsewhere nothing is counted.
    """
    pred_ids, p = np.unique(pred, return_inverse=True)
    true_ids, t = np.unique(truth, return_inverse=True)
    p, t = p.reshape(pred.shape), t.reshape(pred.shape)
    shape = len(pred_ids), len(true_ids)
    area = np.bincount((p * shape[1] + t)[labelled], minlength=shape[0] * shape[1]).reshape(shape)
    union = area.sum(1, keepdims=True) + area.sum(0, keepdims=True) - area
    same_class = pred_ids[:, None] // LABEL_DIVISOR == true_ids // LABEL_DIVISOR
    match = same_class & (2 * area > union)
    seen = area.sum(1) > 0
    return ~match[p, t], set(pred_ids[seen & ~match.any(1)].tolist())


def measure(videos: SyntheticVideos, model: Pix2SeqD, num_samples: int, seed: int) -> dict[str, Any]:
    """All figures of a number of samples; the time is the processor's, of the predictor alone."""
    predictor = VideoPredictor(model, num_samples=num_samples, seed=seed)
    evaluator, doubts, seconds = Evaluator(videos.label_spec), Doubts(videos.label_spec), 0.0
    for sequence in videos.sequence_ids:
        predictor.reset()
        for frame_id in videos.frame_ids(sequence):
            frame, class_map, instance_map = videos.read_frame(sequence, frame_id)
            begin = time.process_time()
            result = predictor.step(frame)
            seconds += time.process_time() - begin
            evaluator.update(result.class_map, result.instance_map, class_map, instance_map, sequence_id=sequence)
            doubts.update(result, class_map, instance_map)
    scores = evaluator.compute()
    return {"ms": 1000 * seconds / scores["num_frames"], "scores": summary(scores), **doubts.compute()}


# Tables and curves


def number(value: float | None) -> str:
    """A figure of a table; a dash for what there is none of."""
    return "-" if value is None else f"{value:.3f}"


def quality_row(n: int, found: Mapping[str, Any]) -> str:
    """Quality, time and calibration of N samples."""
    calibration = found["calibration"]
    cells = [*(found["scores"][name] for name in SCORES), *(calibration[k] for k in ("ece", "confidence", "accuracy"))]
    return f"| {n} | " + " | ".join(map(number, cells)) + f" | {found['ms']:.0f} |"


def doubt_rows(n: int, found: Mapping[str, Any]) -> list[str]:
    """Of every measure that N samples have, whether it finds errors of a kind."""
    rows = []
    for name, values in [*found["pixels"].items(), *((f"false segment, {k}", v) for k, v in found["segments"].items())]:
        if values["count"]:
            cells = [values[key] for key in ("error", "ause", "ause_of_random", "auroc")]
            rows.append(f"| {n} | {name} | " + " | ".join(map(number, cells)) + " |")
    return rows


def draw(results: Mapping[int, Mapping[str, Any]]) -> np.ndarray:
    """Reliability of all numbers of samples, and sparsification by the largest one, of both kinds of errors."""
    reliability: dict[str, list[Point]] = {"perfect": [(0, 0), (1, 1)]}
    for n, found in results.items():
        bins = [b for b in found["calibration"]["bins"] if b["count"]]
        name = f"N = {n}, ECE {found['calibration']['ece']:.3f}"
        reliability[name] = [(b["confidence"], b["accuracy"]) for b in bins]
    texts = {"title": "reliability of the confidence", "x_label": "confidence", "y_label": "accuracy"}
    panels = [draw_curve(reliability, **texts, size=(380, 600))]
    n, found = max(results.items())
    for kind in KINDS:
        curves: dict[str, list[Point]] = {}
        for name in MEASURES:
            values = found["pixels"][f"{kind}, {name}"]
            if values["count"]:
                curves[name] = list(zip(values["removed"], values["curve"]))
                curves["oracle"] = list(zip(values["removed"], values["oracle"]))
                curves["at random"] = [(0, values["error"]), (1, values["error"])]
        texts = {"title": f"{kind} errors left, N = {n}", "x_label": "share of pixels removed", "y_label": "error"}
        panels.append(draw_curve(curves, **texts, size=(380, 600)))
    return grid([panels])


def main() -> None:
    """Prints Markdown tables; with --curves draws, with --output writes all numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--num_sequences", type=int, default=5)
    parser.add_argument("--num_frames", type=int, default=8)
    parser.add_argument("--num_samples", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--num_steps_next", type=int, help="default: the model's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--curves", type=Path, metavar="PNG")
    parser.add_argument(
        "--output", type=Path, metavar="JSON", help="kept figures of other numbers of samples are joined"
    )
    arguments = parser.parse_args()
    model = Pix2SeqD.from_pretrained(find_model(arguments.checkpoint))
    model.configure(num_steps_next=arguments.num_steps_next)
    videos = SyntheticVideos(
        split=arguments.split,
        num_sequences=arguments.num_sequences,
        num_frames=arguments.num_frames,
        height=model.image_size[0],
        width=model.image_size[1],
    )
    results = {n: measure(videos, model, n, arguments.seed) for n in sorted(arguments.num_samples)}
    if arguments.output and arguments.output.exists():
        results = {int(n): v for n, v in json.loads(arguments.output.read_text()).items()} | results
        results = dict(sorted(results.items()))
    title = f"N, {arguments.split}, {arguments.num_sequences} x {arguments.num_frames} frames"
    header = [title, *SCORES, "ECE", "mean confidence", "accuracy", "ms a frame (CPU)"]
    print(f"| {' | '.join(header)} |\n|" + " --- |" * len(header))
    print("\n".join(quality_row(n, found) for n, found in results.items()))
    header = ["N", "errors, uncertainty", "error", "AUSE", "AUSE / random", "AUROC"]
    print(f"\n| {' | '.join(header)} |\n|" + " --- |" * len(header))
    print("\n".join(row for n, found in results.items() for row in doubt_rows(n, found)))
    if arguments.output:
        arguments.output.write_text(json.dumps(results))
    if arguments.curves:
        save_picture(arguments.curves, draw(results))


if __name__ == "__main__":
    main()
