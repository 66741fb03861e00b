"""Quality of a saved model on unseen procedural clips, on its own past predictions, with two references.

python benchmarks/quality.py --checkpoint checkpoints/synthetic-tiny --references  # 32 clips of 20 frames
python benchmarks/quality.py --checkpoint checkpoints/synthetic-tiny --grid --num_sequences 8 --num_frames 10
python benchmarks/quality.py --checkpoint checkpoints/synthetic-tiny --tradeoff  # quality against time
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tracking import CodeReading

from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.diffusion.samplers import SAMPLERS
from pix2seq_d.engine.checkpoint import find_model
from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.engine.validation import summary
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.decode import CodeProbabilities, enlarge
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.request import Request
from pix2seq_d.video.step_grid import read_step_grid
from pix2seq_d.video.tracker import VideoPredictor

STEPS = (1, 2, 5, 10, 20)
TD_STEPS = (0.0, 1.0, 2.0)
TRADEOFF = {"num_steps": (5, 10, 20, 40), "num_steps_next": (1, 2, 3, 5, 10)}
WARM = 0.8
SAMPLES = (2, 4)
Maps = tuple[np.ndarray, np.ndarray]
COLUMNS = ("stq", "aq", "iou", "pq", "pq_things", "pq_stuff", "vpq", "miou")


def score(videos: SyntheticVideos, start: Callable[[], Callable[[np.ndarray, Maps], Maps]]) -> dict[str, float]:
    """Scores a predictor; `start()` begins a sequence and returns (frame, ground truth) -> maps, which is timed.

    With one thread (OMP_NUM_THREADS=1) in processor seconds, which other work on the machine does not lengthen.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    evaluator, seconds = Evaluator(videos.label_spec), 0.0
    for sequence in videos.sequence_ids:
        predict = start()
        for frame_id in videos.frame_ids(sequence):
            frame, class_map, instance_map = videos.read_frame(sequence, frame_id)
            begin = clock()
            maps = predict(frame, (class_map, instance_map))
            seconds += clock() - begin
            evaluator.update(*maps, class_map, instance_map, sequence_id=sequence)
    result = evaluator.compute()
    per_frame = seconds / result["num_frames"]
    return summary(result) | {"frames_per_s": 1 / per_frame, "ms": 1000 * per_frame}


def model_start(predictor: VideoPredictor) -> Callable[[], Callable[[np.ndarray, Maps], Maps]]:
    """The model on its own past predictions."""

    def start() -> Callable[[np.ndarray, Maps], Maps]:
        predictor.reset()

        def predict(frame: np.ndarray, _: Maps) -> Maps:
            result = predictor.step(frame)
            return result.class_map, result.instance_map

        return predict

    return start


class SignPredictor(VideoPredictor):
    """Decodes by the sign of the expected bits (then the nearest code that exists), as Google's code does."""

    def _finish(self, request: Request, logits: torch.Tensor) -> PanopticMap:
        codec = self.model.codec
        bits = codec.expected_bits(logits).sign() * codec.scale
        return super()._finish(request, codec.bit_logits(bits) * 100)


class NearestPredictor(VideoPredictor):
    """Enlarges the decided map by nearest neighbours instead of interpolating probabilities."""

    def _clean(self, probabilities: CodeProbabilities, request: Request) -> CodeProbabilities:
        return NearestProbabilities(**vars(super()._clean(probabilities, request)))


class NearestProbabilities(CodeProbabilities):
    """As its base, enlarged by nearest neighbours."""

    def enlarge(self, box: Letterbox) -> CodeProbabilities:
        planes = tuple(torch.from_numpy(box.inverse_map(p.numpy())) for p in self.planes)
        return dataclasses.replace(self, planes=planes)


class CodeIds(CodeReading):
    """The naive reading in the place of TrackIds: it expects no object anywhere, and is told of none."""

    def update(
        self, class_map: np.ndarray, code_map: np.ndarray, known: object = None
    ) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
        """As TrackIds."""
        return super().update(class_map, code_map)

    def expected_codes(self, size: tuple[int, int]) -> np.ndarray:
        """(2, h, w) zeros."""
        return np.zeros((2, *size), np.int64)


class CodesPredictor(VideoPredictor):
    """Ids are read from the model's codes, as without a tracker."""

    def reset(self) -> None:
        super().reset()
        self.tracks = CodeIds(num_codes=self.model.num_instance_codes)


PREDICTORS = {"softmax": VideoPredictor, "sign": SignPredictor, "nearest": NearestPredictor, "codes": CodesPredictor}


def codec_start(model: Pix2SeqD, *, nearest: bool) -> Callable[[], Callable[[np.ndarray, Maps], Maps]]:
    """Ground truth through mask size and bits and back: what a perfect denoiser would score."""

    def predict(frame: np.ndarray, truth: Maps) -> Maps:
        box = Letterbox((frame.shape[0], frame.shape[1]), model.image_size)
        panoptic = truth[0].astype(np.int64) << 32 | truth[1]
        small = box.map(panoptic, model.mask_size, fill=255 << 32)
        if nearest:
            large = box.inverse_map(small)
        else:
            ids, index = np.unique(small, return_inverse=True)
            planes = F.one_hot(torch.from_numpy(index.reshape(small.shape)), len(ids)).permute(2, 0, 1).float()
            large = ids[enlarge(planes, box).argmax(0).numpy()]
        class_map, instance_map = large >> 32, large & 0xFFFFFFFF
        return np.where(class_map == model.label_spec.void_id, 0, class_map), instance_map  # no model predicts void

    return lambda: predict


def frozen_start() -> Callable[[np.ndarray, Maps], Maps]:
    """The first frame's ground truth, repeated."""
    first: list[Maps] = []

    def predict(_: np.ndarray, truth: Maps) -> Maps:
        first.append(truth)
        return first[0]

    return predict


def row(name: str, values: dict[str, float]) -> str:
    """One line of the Markdown table."""
    cells = [f"{values[c]:.3f}" for c in COLUMNS] + [f"{values['frames_per_s']:.2f}", f"{values['ms']:.0f}"]
    return f"| {name} | " + " | ".join(cells) + " |"


def knee(points: list[tuple[float, float]]) -> int:
    """The point that lies farthest above the line from the first to the last, both axes scaled to [0, 1].

    "Finding a 'Kneedle' in a haystack" (Satopaa et al., 2011); points are (cost, quality), costs ascending.
    """
    cost, quality = np.array(points).T
    quality = np.maximum.accumulate(quality)
    gained, paid = ((x - x[0]) / max(x[-1] - x[0], 1e-12) for x in (quality, cost))
    return int((gained - paid).argmax())


def print_gains(name: str, rows: list[tuple[int, dict[str, float]]]) -> None:
    """What each larger number of steps buys, and where the knee is."""
    best = knee([(values["ms"], values["stq"]) for _, values in rows])
    print(f"\n| {name} | ms a frame | STQ | STQ gained per 100 ms more | |\n|" + " --- |" * 5)
    for i, (steps, values) in enumerate(rows):
        before = rows[i - 1][1]
        gain = (values["stq"] - before["stq"]) / (values["ms"] - before["ms"]) * 100 if i else float("nan")
        shown = f"{gain:+.3f}" if i else ""
        print(f"| {steps} | {values['ms']:.0f} | {values['stq']:.3f} | {shown} | {'knee' if i == best else ''} |")


def tradeoff(run: Callable[..., dict[str, float]], defaults: dict[str, int]) -> None:
    """Ids from codes and from the tracker, cold and warm starts, numbers of steps and of samples, all in one run.

    Args:
        run: scores and prints one row; takes `decoding`, `t_start_next`, `num_steps`, `num_steps_next` and
            `num_samples`.
        defaults: the model's step numbers.
    """
    run(decoding="codes", **defaults)
    run(**defaults)
    tables = {}
    for name, numbers in TRADEOFF.items():
        tables[name] = [(n, run(**defaults | {name: n})) for n in numbers]
    for n in TRADEOFF["num_steps_next"]:
        run(t_start_next=WARM, **defaults | {"num_steps_next": n})
    for n in SAMPLES:
        run(num_samples=n, **defaults)
    for name, rows in tables.items():
        other = next(n for n in defaults if n != name)
        print_gains(f"{name}, {other} {defaults[other]}", rows)


def main() -> None:
    """Prints Markdown tables and, with --output, writes all numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--num_sequences", type=int, default=32)
    parser.add_argument("--num_frames", type=int, default=20)
    parser.add_argument("--difficulty", default="default")
    parser.add_argument("--num_steps", type=int)
    parser.add_argument("--num_steps_next", type=int)
    parser.add_argument("--td_steps", type=float)
    parser.add_argument("--sampler", nargs="+", choices=sorted(SAMPLERS), help="default: the model's")
    parser.add_argument("--min_pixels", type=int)
    parser.add_argument("--t_start_next", type=float, default=1.0, help="below 1: later frames start warm")
    parser.add_argument("--stop_unchanged", type=float, help="share of unchanged pixels that ends a frame's steps")
    parser.add_argument("--num_samples", type=int, default=1, help="maps of every frame, for their consensus")
    parser.add_argument("--step_grid", type=Path, help="times of the steps: a file of benchmarks/step_grid.py")
    parser.add_argument("--decoding", nargs="+", choices=sorted(PREDICTORS), default=["softmax"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", action="store_true", help="every pair of STEPS and TD_STEPS")
    parser.add_argument("--tradeoff", action="store_true", help="ids, starts and steps: what a millisecond buys")
    parser.add_argument("--references", action="store_true", help="codec ceiling and frozen first mask too")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    model = Pix2SeqD.from_pretrained(find_model(arguments.checkpoint))
    videos = SyntheticVideos(
        split=arguments.split,
        num_sequences=arguments.num_sequences,
        num_frames=arguments.num_frames,
        height=model.image_size[0],
        width=model.image_size[1],
        difficulty=arguments.difficulty,
    )
    title = f"{arguments.split}, {arguments.num_sequences} x {arguments.num_frames} frames"
    print(f"| {title} | {' | '.join(COLUMNS)} | frames/s | ms |\n|" + " --- |" * (len(COLUMNS) + 3))
    results = {}

    def report(name: str, values: dict[str, float]) -> None:
        results[name] = values
        print(row(name, values), flush=True)

    if arguments.references:
        report("codec ceiling, nearest", score(videos, codec_start(model, nearest=True)))
        report("codec ceiling, interpolated", score(videos, codec_start(model, nearest=False)))
        report("first frame's ground truth repeated", score(videos, frozen_start))
    defaults = {
        "num_steps": arguments.num_steps or model.num_steps,
        "num_steps_next": arguments.num_steps_next or model.num_steps_next,
    }

    def run(
        *,
        num_steps: int,
        num_steps_next: int,
        td_steps: float = model.td_steps if arguments.td_steps is None else arguments.td_steps,
        sampler: str = model.sampler,
        decoding: str = "softmax",
        t_start_next: float = arguments.t_start_next,
        num_samples: int = arguments.num_samples,
    ) -> dict[str, float]:
        predictor = PREDICTORS[decoding](
            model,
            num_steps=num_steps,
            num_steps_next=num_steps_next,
            td_steps=td_steps,
            sampler=sampler,
            min_pixels=arguments.min_pixels,
            t_start_next=t_start_next,
            stop_unchanged=arguments.stop_unchanged,
            step_grid=read_step_grid(arguments.step_grid) if arguments.step_grid else None,
            num_samples=num_samples,
            seed=arguments.seed,
        )
        name = f"{sampler}, {num_steps}, {num_steps_next} steps, td {td_steps:g}"
        name += f", warm {t_start_next:g}" if t_start_next < 1 else ""
        name += f", {num_samples} samples" if num_samples > 1 else ""
        name += f", {decoding}" if decoding != "softmax" else ""
        values = score(videos, model_start(predictor))
        report(name, values)
        return values

    if arguments.tradeoff:
        tradeoff(run, defaults)
    elif arguments.grid:
        for td, n in product(TD_STEPS, STEPS):
            run(num_steps=n, num_steps_next=n, td_steps=td)
    else:
        for sampler, decoding in product(arguments.sampler or [model.sampler], arguments.decoding):
            run(sampler=sampler, decoding=decoding, **defaults)
    if arguments.output:
        record = {"arguments": vars(arguments), "results": results}
        arguments.output.write_text(json.dumps(record, indent=2, default=str))


if __name__ == "__main__":
    main()
