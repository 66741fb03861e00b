"""Where the time of inference and training goes: frames/s, share of each part, FLOPs and peak memory, in one run.

python benchmarks/speed.py --size tiny --num_steps 5
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pix2seq_d.build import build_lr_schedule, build_model, build_train_loader, build_training_loss
from pix2seq_d.config import RunConfig
from pix2seq_d.data.synthetic import SyntheticSequence
from pix2seq_d.engine.optim import build_optimizer, set_lr
from pix2seq_d.engine.trainer import LoopSettings, step_generators
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.presets import MODEL_SIZES, PRESETS
from pix2seq_d.video.tracker import VideoPredictor


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall time after one warm-up call."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def gflop(function: Callable[[], object]) -> float:
    """Counted floating-point operations (a multiply-add is two), in units of 1e9.

    Attention is computed by matrix products meanwhile: the counter does not know the CPU's kernel for it.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return counter.get_total_flops() / 1e9


def inference(model: Pix2SeqD, frame: np.ndarray, num_steps: int, repeats: int) -> None:
    """Prints the parts of one later frame."""
    predictor = VideoPredictor(model, num_steps=num_steps, num_steps_next=num_steps)
    for _ in range(2):
        predictor.step(frame)
    past, present = predictor._past()
    image = torch.rand(1, 3, *model.image_size)
    x_t, gamma = torch.randn(1, model.codec.num_bits, *model.mask_size), torch.tensor([0.5])
    with torch.inference_mode():
        cond = model.condition(image, past, present)
        once = median_seconds(lambda: model.condition(image, past, present), repeats)
        step = median_seconds(lambda: model.denoiser(x_t, gamma, cond), repeats)
        once_gflop = gflop(lambda: model.condition(image, past, present))
        step_gflop = gflop(lambda: model.denoiser(x_t, gamma, cond))
    total = median_seconds(lambda: predictor.step(frame), repeats)
    rest = total - once - num_steps * step
    print(f"inference, one {frame.shape[0]}x{frame.shape[1]} frame, {num_steps} steps: {1 / total:.2f} frames/s")
    print("| part | ms | share | GFLOP |\n| --- | --- | --- | --- |")
    print(f"| once per frame (encoder, conditioning) | {once * 1e3:.1f} | {once / total:.0%} | {once_gflop:.2f} |")
    steps = num_steps * step
    print(f"| {num_steps} denoising steps | {steps * 1e3:.1f} | {steps / total:.0%} | {num_steps * step_gflop:.2f} |")
    print(f"| resize, decode, ids | {rest * 1e3:.1f} | {rest / total:.0%} | - |")
    print(f"| all | {total * 1e3:.1f} | 100% | {once_gflop + num_steps * step_gflop:.2f} |")


def training(config: RunConfig, repeats: int) -> None:
    """Prints the parts of a training step."""
    model = build_model(config)
    module = build_training_loss(config, model).train()
    optimizer = build_optimizer(module, lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
    set_lr(optimizer, build_lr_schedule(config)(0))
    size = config.train.batch_size
    batches = iter(build_train_loader(config, model, start=0, num_processes=1))
    settings = LoopSettings(steps=1, batch_size=size)
    batch = next(batches).to("cpu")

    def forward() -> torch.Tensor:
        return module(batch, step_generators(settings, 0, 0, size, 0)).loss

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward().backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    data = median_seconds(lambda: next(batches), repeats)
    with torch.no_grad():
        ahead = median_seconds(forward, repeats)
    whole = median_seconds(step, repeats)
    print(f"\ntraining, batch {size}, {config.model.image_size[0]}x{config.model.image_size[1]}:")
    print("| part | ms | share |\n| --- | --- | --- |")
    print(f"| forward and loss | {ahead * 1e3:.0f} | {ahead / whole:.0%} |")
    print(f"| backward, clipping, AdamW | {(whole - ahead) * 1e3:.0f} | {1 - ahead / whole:.0%} |")
    print(f"| all | {whole * 1e3:.0f} | 100% |")
    print(f"{size / whole:.2f} frames/s; a batch costs {data * 1e3:.0f} ms to load in one process, beside the training")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(MODEL_SIZES), default="tiny")
    parser.add_argument("--num_steps", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--inference_only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    preset = PRESETS["synthetic-tiny"]
    config = dataclasses.replace(
        preset,
        model=MODEL_SIZES[arguments.size],
        data=dataclasses.replace(preset.data, num_workers=0, num_sequences=64),
        train=dataclasses.replace(preset.train, batch_size=arguments.batch_size),
    )
    model = build_model(config).eval()
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{arguments.size}: {parameters:.1f} M parameters, {arguments.threads} threads, torch {torch.__version__}\n")
    height, width = config.model.image_size
    frame = SyntheticSequence(0, split="test", height=height, width=width).frame(0).image
    inference(model, frame, arguments.num_steps, arguments.repeats)
    if not arguments.inference_only:
        training(config, arguments.repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of the process: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
