"""What is done once per frame and what per step, by counted FLOPs, and one frame against computing all in every step.

python benchmarks/reuse.py --threads 2                  # whole frames, the naive one too: minutes
python benchmarks/reuse.py --threads 2 --naive_steps 5  # the naive frame from 5 of its steps
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from speed import gflop
from torch import Tensor, nn
from torch.nn import functional as F

from pix2seq_d.build import build_model
from pix2seq_d.config import RunConfig
from pix2seq_d.data.synthetic import SyntheticSequence
from pix2seq_d.models.denoiser import DenoiserCondition
from pix2seq_d.models.pix2seq_d import BoundDenoiser, Pix2SeqD
from pix2seq_d.presets import PRESETS
from pix2seq_d.video.conditioning import encode_past
from pix2seq_d.video.tracker import VideoPredictor

NAIVE_STEPS = 100
PRESET_OF = {"tiny": "synthetic-tiny", "small": "kitti-step-small", "base": "kitti-step"}
TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order


class WholeStem(nn.Module):
    """The first convolution in one: over the noised bits and the conditioning, next to each other."""

    def __init__(self, bits: nn.Conv2d, conditioning: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([bits.weight, conditioning.weight], 1))
        self.bias = conditioning.bias
        self.cond_map = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, widths[0], h, w), with the (B, C, h, w) `cond_map` of this evaluation."""
        return F.conv2d(torch.cat([x, self.cond_map], 1), self.weight, self.bias, padding=1)


@dataclass
class Inputs:
    """What a frame's evaluations are conditioned on, as it comes: (1, 3, H, W), (1, T, G, h, w) and (1, T)."""

    frame: Tensor
    past: Tensor
    present: Tensor

    def repeat(self, n: int) -> Inputs:
        """For one sample of the frame only."""
        assert n == 1
        return self


class AllInEveryStep(BoundDenoiser):
    """The same network as one function of frame, past maps and noised bits: every call computes everything."""

    def __init__(self, model: Pix2SeqD, inputs: Inputs) -> None:
        super().__init__(model, DenoiserCondition(torch.zeros(()), []))
        self.inputs = inputs

    def __call__(self, x_t: Tensor, gamma: Tensor, self_cond: Tensor | None = None) -> Tensor:
        features, denoiser = self.model.encoder(self.inputs.frame), self.model.denoiser
        planes = encode_past(self.inputs.past, self.inputs.present, self.model.codec)
        denoiser.stem.cond_map = torch.cat([features.map, planes], 1)
        self.cond.key_values = [layer.cross_attention.project(features.tokens) for layer in denoiser.layers]
        return super().__call__(x_t, gamma, self_cond)


def naive_model(model: Pix2SeqD) -> Pix2SeqD:
    """A copy with the same weights that keeps nothing between the steps of a frame."""
    naive = copy.deepcopy(model)
    naive.denoiser.stem = WholeStem(naive.denoiser.stem, naive.denoiser.stem_cond)
    naive.condition = Inputs
    naive.bind = lambda inputs: AllInEveryStep(naive, inputs)
    return naive


def enliven(model: Pix2SeqD, seed: int = 0) -> Pix2SeqD:
    """Ordinary random weights where untrained layers begin near zero, so that every part of the network shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.std() < 1e-3:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
    return model


def calm(model: Pix2SeqD) -> None:
    """Lets one class without objects win: the speckles of random weights would cost the tracker more than any scene."""
    with torch.no_grad():
        first = 0
        for number, codes in enumerate(model.codec.group_codes):
            model.denoiser.out.bias[first + (number == 0)] += 1e4  # class code 1, instance code 0
            first += codes


def random_inputs(model: Pix2SeqD, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A frame, past maps and that they are there."""
    generator, number = torch.Generator().manual_seed(seed), len(model.past_offsets)
    groups = [torch.randint(n, (1, number, *model.mask_size), generator=generator) for n in model.codec.group_codes]
    frame = torch.rand(1, 3, *model.image_size, generator=generator)
    return frame, torch.stack(groups, 2), torch.ones(1, number, dtype=torch.bool)


@torch.inference_mode()
def compare(model: Pix2SeqD, naive: Pix2SeqD) -> float:
    """Largest difference of the logits of one evaluation, in shares of the largest logit."""
    inputs, generator = random_inputs(model), torch.Generator().manual_seed(1)
    x_t, gamma = torch.randn(1, model.codec.num_bits, *model.mask_size, generator=generator), torch.tensor([0.5])
    ours, other = (m.bind(m.condition(*inputs)) for m in (model, naive))
    for denoise in (ours, other):
        denoise(x_t, gamma, None)
    return ((ours.logits - other.logits).abs().max() / other.logits.abs().max()).item()


@torch.inference_mode()
def parts(model: Pix2SeqD) -> dict[str, float]:
    """GFLOP of what a frame needs once, and of a step."""
    frame, past, present = random_inputs(model)
    features, denoiser = model.encoder(frame), model.denoiser
    planes = torch.cat([features.map, encode_past(past, present, model.codec)], 1)
    denoise = model.bind(model.condition(frame, past, present))
    x_t = torch.zeros(1, model.codec.num_bits, *model.mask_size)
    return {
        "image encoder": gflop(lambda: model.encoder(frame)),
        "conditioning part of the first convolution": gflop(lambda: denoiser.stem_cond(planes)),
        "keys and values of cross-attention": gflop(
            lambda: [layer.cross_attention.project(features.tokens) for layer in denoiser.layers]
        ),
        "denoising step": gflop(lambda: denoise(x_t, torch.tensor([0.5]))),
    }


def count(model: Pix2SeqD, naive: Pix2SeqD, num_steps: int) -> None:
    """Prints the table of counted FLOPs."""
    counted = parts(model)
    *once, (step_name, step) = counted.items()
    whole_step = sum(counted.values())
    inputs = random_inputs(naive)
    denoise = naive.bind(naive.condition(*inputs))
    x_t = torch.zeros(1, model.codec.num_bits, *model.mask_size)
    with torch.inference_mode():
        naive_step = gflop(lambda: denoise(x_t, torch.tensor([0.5])))
    if abs(naive_step / whole_step - 1) > 1e-3:
        raise RuntimeError(f"counted {naive_step} GFLOP for a naive step, {whole_step} for its parts")
    print(f"| part | GFLOP | times a frame, {num_steps} steps | times, all in every step |\n| --- | --- | --- | --- |")
    for name, value in once:
        print(f"| {name} | {value:.2f} | 1 | {num_steps} |")
    print(f"| {step_name}, without the above | {step:.2f} | {num_steps} | {num_steps} |")
    reused, naive_frame = whole_step - step + num_steps * step, num_steps * naive_step
    print(f"| frame of {num_steps} steps | | {reused:.0f} GFLOP | {naive_frame:.0f} GFLOP |")
    print(
        f"| frame of {NAIVE_STEPS} steps | | {whole_step - step + NAIVE_STEPS * step:.0f} GFLOP | "
        f"{NAIVE_STEPS * naive_step:.0f} GFLOP |"
    )


class Seconds(NamedTuple):
    """Of a frame: by the clock, and of all cores together, which other programs on the machine change less."""

    wall: float
    cpu: float


def frame_seconds(predictor: VideoPredictor, frames: list[np.ndarray]) -> Seconds:
    """Median over the frames, each predicted after those before it."""
    seconds = []
    for frame in frames:
        begin = time.perf_counter(), time.process_time()
        predictor.step(frame)
        seconds.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    return Seconds(*np.median(seconds, 0).tolist())


def measure(model: Pix2SeqD, naive: Pix2SeqD, size: tuple[int, int], repeats: int, naive_steps: int) -> None:
    """Prints the table of frame times: the project's later frame, the naive frame, and what lies between them."""
    sequence = SyntheticSequence(0, split="test", height=size[0], width=size[1])
    frames = [sequence.frame(t).image for t in range(repeats + 2)]
    first_steps, later_steps = model.num_steps, model.num_steps_next
    ours = VideoPredictor(model, num_steps=1, num_steps_next=1)
    frame_seconds(ours, frames[:2])
    ours.num_steps_next = later_steps
    later = frame_seconds(ours, frames[2:])

    def row(name: str, num_steps: int, seconds: Seconds) -> None:
        cells = f"{num_steps} | {seconds.wall:.2f} | {seconds.cpu:.2f} | {seconds.cpu / later.cpu:.1f}"
        print(f"| {name} | {cells} |", flush=True)

    shown = f"{size[0]}x{size[1]} in an image of {model.image_size[0]}x{model.image_size[1]}"
    print(f"\n| one frame, {shown} | steps | seconds | CPU seconds | times the CPU seconds |\n|" + " --- |" * 5)
    row("later frame, default steps", later_steps, later)
    slow = VideoPredictor(naive, num_steps=naive_steps, td_steps=0.0, sampler="ddim")
    seconds, factor = frame_seconds(slow, frames[:1]), NAIVE_STEPS / naive_steps
    note = "measured whole" if factor == 1 else f"{seconds.cpu:.2f} CPU s for {naive_steps} steps, times {factor:g}"
    whole = Seconds(seconds.wall * factor, seconds.cpu * factor)
    row(f"naive: everything in every step, DDIM ({note})", NAIVE_STEPS, whole)
    again = VideoPredictor(naive, num_steps=later_steps)
    row("everything in every step, as many steps as a later frame", later_steps, frame_seconds(again, frames[:1]))
    row("first frame, default steps", first_steps, frame_seconds(VideoPredictor(model), frames[:1]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(PRESET_OF), default="small")
    parser.add_argument("--frame_size", type=int, nargs=2, default=(375, 1242), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repeats", type=int, default=3, help="later frames timed; their median counts")
    parser.add_argument("--naive_steps", type=int, default=NAIVE_STEPS, help="of the naive frame that are timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run(PRESETS[PRESET_OF[arguments.size]], tuple(arguments.frame_size), arguments.repeats, arguments.naive_steps)


def run(config: RunConfig, frame_size: tuple[int, int], repeats: int, naive_steps: int) -> None:
    """Checks that both ways agree, then prints both tables."""
    torch.manual_seed(0)
    model = enliven(build_model(config).eval())
    naive = naive_model(model)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{parameters:.1f} M parameters, {torch.get_num_threads()} threads, torch {torch.__version__}")
    difference = compare(model, naive)
    if not difference < TOLERANCE:
        raise RuntimeError(f"logits of both ways differ by {difference:.1e} of the largest")
    print(f"logits of both ways differ by {difference:.1e} of the largest\n")
    count(model, naive, model.num_steps_next)
    for m in (model, naive):
        calm(m)
    measure(model, naive, frame_size, repeats, naive_steps)


if __name__ == "__main__":
    main()
