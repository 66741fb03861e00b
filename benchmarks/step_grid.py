"""Error of a saved model at every noise level, and the step grid matched to it, as a file for --step_grid.

python benchmarks/step_grid.py --checkpoint checkpoints/synthetic-tiny --output grid.json
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch

from pix2seq_d.build import build_train_loader
from pix2seq_d.config import DataConfig
from pix2seq_d.data.batch import Batch
from pix2seq_d.diffusion.knots import NUM_KNOTS, UNIFORM_SHARE, matched_knots
from pix2seq_d.diffusion.loss import DiffusionLoss
from pix2seq_d.diffusion.schedule import SCHEDULES, time_grid
from pix2seq_d.engine.checkpoint import find_model
from pix2seq_d.engine.trainer import TrainingLoss
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.presets import PRESETS
from pix2seq_d.video.step_grid import write_step_grid

FRAMES = {"first": 1.0, "later": 0.0}  # dropout of all past maps


@torch.inference_mode()
def errors_by_time(model: Pix2SeqD, batch: Batch, times: np.ndarray, *, frames: str, seed: int = 0) -> np.ndarray:
    """(times, samples) training loss without past maps ("first") or with the true ones; the same noise at all times."""
    loss = DiffusionLoss(SCHEDULES[model.schedule](), model.codec, target=model.target)
    module = TrainingLoss(model, loss, past_dropout=0, past_dropout_all=FRAMES[frames]).eval()
    rows = []
    for t in times.tolist():
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(batch))]
        rows.append(module(batch, generators, [t] * len(batch)).per_sample.numpy())
    return np.stack(rows)


def main() -> None:
    """Prints the errors and the times of five steps, and writes the grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", required=True)
    add("--dataset", default="synthetic", help="as data.dataset of a run")
    add("--root", default="", help="its folder")
    add("--label_spec", default="kitti-step", help="as data.label_spec of a run")
    add("--split", default="val")
    add("--num_clips", type=int, default=16)
    add("--num_times", type=int, default=21)
    add("--frames", choices=(*FRAMES, "both"), default="both", help="without past maps, with them, or the mean of both")
    add("--power", type=float, default=0.5, help="0 = uniform, 1 = every step takes the same share of the error")
    add("--num_knots", type=int, default=NUM_KNOTS)
    add("--uniform_share", type=float, default=UNIFORM_SHARE)
    add("--seed", type=int, default=1, help="of synthetic clips (0 are those of benchmarks/quality.py) and the noise")
    add("--output", type=Path)
    arguments = parser.parse_args()
    model = Pix2SeqD.from_pretrained(find_model(arguments.checkpoint))
    data = DataConfig(
        dataset=arguments.dataset,
        root=arguments.root,
        label_spec=arguments.label_spec,
        train_split=arguments.split,
        num_workers=0,
        seed=arguments.seed,
    )
    preset = PRESETS["synthetic-tiny"]
    config = dataclasses.replace(
        preset,
        model=dataclasses.replace(preset.model, image_size=model.image_size, past_offsets=model.past_offsets),
        data=data,
        train=dataclasses.replace(preset.train, batch_size=arguments.num_clips),
    )
    batch = next(iter(build_train_loader(config, model, start=0, num_processes=1))).to("cpu")
    times = np.linspace(0, 1, arguments.num_times)
    wanted = list(FRAMES) if arguments.frames == "both" else [arguments.frames]
    curves = {kind: errors_by_time(model, batch, times, frames=kind, seed=arguments.seed).mean(1) for kind in wanted}
    print(f"| t | {' | '.join(f'loss, {kind} frames' for kind in curves)} |\n|{' --- |' * (1 + len(curves))}")
    for i, t in enumerate(times):
        print(f"| {t:.3f} | {' | '.join(f'{curve[i]:.4f}' for curve in curves.values())} |")
    errors = np.mean(list(curves.values()), 0)
    knots = matched_knots(
        times.tolist(),
        errors.tolist(),
        power=arguments.power,
        num_knots=arguments.num_knots,
        uniform_share=arguments.uniform_share,
    )
    print("\nfive steps at t = " + ", ".join(f"{now:.3f}" for now, _ in time_grid(5, knots=knots)))
    if arguments.output:
        about = {name: value for name, value in vars(arguments).items() if name != "output"}
        measured = {"times": times.round(6).tolist(), "errors": errors.round(6).tolist()}
        write_step_grid(arguments.output, knots, about | measured)


if __name__ == "__main__":
    main()
