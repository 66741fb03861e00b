"""Quality of a saved model on unseen procedural clips, on its own past predictions, with two references.

python benchmarks/quality.py --checkpoint checkpoints/synthetic-tiny --references  # 32 clips of 20 frames
python benchmarks/quality.py --checkpoint checkpoints/synthetic-tiny --grid --num_sequences 8 --num_frames 10
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.diffusion.samplers import SAMPLERS
from pix2seq_d.engine.checkpoint import find_model
from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.engine.validation import summary
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.decode import CodeProbabilities, enlarge
from pix2seq_d.video.step_grid import read_step_grid
from pix2seq_d.video.tracker import VideoPredictor

STEPS = (1, 2, 5, 10, 20)
TD_STEPS = (0.0, 1.0, 2.0)
Maps = tuple[np.ndarray, np.ndarray]
COLUMNS = ("stq", "aq", "iou", "pq", "pq_things", "pq_stuff", "vpq", "miou")


def score(videos: SyntheticVideos, start: Callable[[], Callable[[np.ndarray, Maps], Maps]]) -> dict[str, float]:
    """Scores a predictor; `start()` begins a sequence and returns (frame, ground truth) -> maps."""
    evaluator, begin = Evaluator(videos.label_spec), time.perf_counter()
    for sequence in videos.sequence_ids:
        predict = start()
        for frame_id in videos.frame_ids(sequence):
            frame, class_map, instance_map = videos.read_frame(sequence, frame_id)
            maps = predict(frame, (class_map, instance_map))
            evaluator.update(*maps, class_map, instance_map, sequence_id=sequence)
    result = evaluator.compute()
    return summary(result) | {"frames_per_s": result["num_frames"] / (time.perf_counter() - begin)}


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

    def _probabilities(self, logits: torch.Tensor, box: Letterbox) -> CodeProbabilities:
        codec = self.model.codec
        bits = codec.expected_bits(logits[None]).sign() * codec.scale
        return super()._probabilities(codec.bit_logits(bits)[0] * 100, box)


class NearestPredictor(VideoPredictor):
    """Enlarges the decided map by nearest neighbours instead of interpolating probabilities."""

    def _probabilities(self, logits: torch.Tensor, box: Letterbox) -> CodeProbabilities:
        return NearestProbabilities(**vars(super()._probabilities(logits, box)))


class NearestProbabilities(CodeProbabilities):
    """As its base, enlarged by nearest neighbours."""

    def enlarge(self, box: Letterbox) -> CodeProbabilities:
        planes = tuple(torch.from_numpy(box.inverse_map(p.numpy())) for p in self.planes)
        return dataclasses.replace(self, planes=planes)


PREDICTORS = {"softmax": VideoPredictor, "sign": SignPredictor, "nearest": NearestPredictor}


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
    cells = [f"{values[c]:.3f}" for c in COLUMNS] + [f"{values['frames_per_s']:.2f}"]
    return f"| {name} | " + " | ".join(cells) + " |"


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
    parser.add_argument("--step_grid", type=Path, help="times of the steps: a file of benchmarks/step_grid.py")
    parser.add_argument("--decoding", nargs="+", choices=sorted(PREDICTORS), default=["softmax"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", action="store_true", help="every pair of STEPS and TD_STEPS")
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
    print(f"| {title} | {' | '.join(COLUMNS)} | frames/s |\n|" + " --- |" * (len(COLUMNS) + 2))
    results = {}

    def report(name: str, values: dict[str, float]) -> None:
        results[name] = values
        print(row(name, values), flush=True)

    if arguments.references:
        report("codec ceiling, nearest", score(videos, codec_start(model, nearest=True)))
        report("codec ceiling, interpolated", score(videos, codec_start(model, nearest=False)))
        report("first frame's ground truth repeated", score(videos, frozen_start))
    steps = (arguments.num_steps or model.num_steps, arguments.num_steps_next or model.num_steps_next)
    td_steps = model.td_steps if arguments.td_steps is None else arguments.td_steps
    settings = [(n, n, td) for td in TD_STEPS for n in STEPS] if arguments.grid else [(*steps, td_steps)]
    for first, later, td in settings:
        for sampler, decoding in product(arguments.sampler or [model.sampler], arguments.decoding):
            predictor = PREDICTORS[decoding](
                model,
                num_steps=first,
                num_steps_next=later,
                td_steps=td,
                sampler=sampler,
                min_pixels=arguments.min_pixels,
                t_start_next=arguments.t_start_next,
                stop_unchanged=arguments.stop_unchanged,
                seed=arguments.seed,
            )
            if arguments.step_grid:
                predictor.sample = partial(SAMPLERS[sampler], knots=read_step_grid(arguments.step_grid))
            name = f"{sampler}, {first}, {later} steps, td {td:g}" + (f", {decoding}" if decoding != "softmax" else "")
            report(name, score(videos, model_start(predictor)))
    if arguments.output:
        record = {"arguments": vars(arguments), "results": results}
        arguments.output.write_text(json.dumps(record, indent=2, default=str))


if __name__ == "__main__":
    main()
