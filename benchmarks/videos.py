"""Frames/s of several videos in one batch, and of images that are no video, with the shipped weights.

python benchmarks/videos.py --batch_sizes 1 4
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from pix2seq_d.data.synthetic import SyntheticSequence
from pix2seq_d.pipeline import Pix2SeqDPipeline


def frames_per_second(function: Callable[[], object], frames: int, repeats: int) -> float:
    """The fastest of some runs after a warm-up."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return frames / min(times)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="checkpoints/synthetic-tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--num_videos", type=int, default=4)
    parser.add_argument("--num_frames", type=int, default=3)
    parser.add_argument("--num_steps", type=int, default=10, help="of a first frame, and of an image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = Pix2SeqDPipeline.from_pretrained(arguments.checkpoint, device=arguments.device)
    height, width = pipeline.model.image_size
    sequences = [SyntheticSequence(k, height=height, width=width) for k in range(arguments.num_videos)]
    videos = [[sequence.frame(t).image for t in range(arguments.num_frames)] for sequence in sequences]
    images = [image for video in videos for image in video]
    print(f"{len(videos)} videos of {len(videos[0])} frames, {height}x{width}, {arguments.threads} threads")
    print("| batch size | videos, frames/s | images, frames/s |\n| --- | --- | --- |")
    for size in arguments.batch_sizes:
        options = {"batch_size": size, "num_steps": arguments.num_steps}
        of_videos = frames_per_second(partial(pipeline, videos, **options), len(images), arguments.repeats)
        of_images = frames_per_second(partial(pipeline.images, images, **options), len(images), arguments.repeats)
        print(f"| {size} | {of_videos:.2f} | {of_images:.2f} |")


if __name__ == "__main__":
    main()
