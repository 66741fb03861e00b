"""How fast one worker makes training samples: decoding, augmentation, codes, collation; against a plain dataset class.

The plain one does what everybody writes first: PIL opens and converts every file, image and maps are enlarged, cropped
and brought to their size one by one, and loops over classes and instances write the codes. Both make the same tensors
from the same PNG files, which are generated; samples are of 1 image and 3 maps. Ours is measured as it is installed by
default (Pillow decodes), with pyspng (the extra `fast`) where that is there, and with maps that are in memory already
(`data.map_cache_mb`, from the second epoch on). Times are of the processor, so that a busy machine blurs them less.
Run: `python benchmarks/data.py [--samples N] [--rounds N]`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image, ImageEnhance

from pix2seq_d.data import fast_png
from pix2seq_d.data.batch import Batch
from pix2seq_d.data.formats import read_image, view_kitti_step
from pix2seq_d.data.kitti_step import KittiStep
from pix2seq_d.data.loaders import TrainingClips, collate, encode_clip
from pix2seq_d.data.pseudo_video import PseudoVideo
from pix2seq_d.data.synthetic import write_sequences
from pix2seq_d.data.transforms import PAD_GREY, ClipTransform
from pix2seq_d.labels import get_label_spec

SPEC = get_label_spec("kitti-step")
NUM_CODES = 255
SCALES = (1.0, 2.0)
JITTER = 0.2
WORKERS = 16
CACHE_BYTES = 10**9
SIZES = {"KITTI": ((375, 1242), (384, 1248)), "Cityscapes": ((1024, 2048), (512, 1024))}  # frame, model


class PlainSamples:
    """Samples by PIL and loops, at the sizes of the model."""

    def __init__(self, dataset: KittiStep, image_size: tuple[int, int]) -> None:
        self.files = [f for s in dataset.sequence_ids for f in dataset._files[s].values()]
        self.image_size, self.mask_size = image_size, (image_size[0] // 2, image_size[1] // 2)

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng(index)
        image = Image.open(self.files[index].image).convert("RGB")
        (height, width), scale, flip = self.image_size, rng.uniform(*SCALES), rng.random() < 0.5
        scale *= min(width / image.width, height / image.height)
        large = (round(image.width * scale), round(image.height * scale))
        left, top = (int(rng.integers(max(0, a - b) + 1)) for a, b in zip(large, (width, height)))
        window = (left, top, min(left + width, large[0]), min(top + height, large[1]))

        def place(part: Image.Image, method: Image.Resampling, fill: int) -> Image.Image:
            canvas = Image.new(part.mode, (width, height), (fill,) * 3 if part.mode == "RGB" else fill)
            canvas.paste(part.resize(large, method).crop(window))
            return canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else canvas

        image = place(image, Image.Resampling.BILINEAR, PAD_GREY)
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = enhance(image).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
        classes, instances = [], []
        for k in (index - 2, index - 1, index):
            rgb = np.array(Image.open(self.files[k].label).convert("RGB")).astype(np.int32)
            for maps, values, fill in ((classes, rgb[..., 0], 255), (instances, rgb[..., 1] * 256 + rgb[..., 2], 0)):
                part = place(Image.fromarray(values), Image.Resampling.NEAREST, fill)
                maps.append(np.array(part.resize(self.mask_size[::-1], Image.Resampling.NEAREST)))
        return self.encode(np.array(image), np.stack(classes), np.stack(instances), rng)

    def encode(self, image: np.ndarray, classes: np.ndarray, instances: np.ndarray, rng: np.random.Generator) -> Batch:
        class_codes, instance_codes = np.zeros(classes.shape, np.int64), np.zeros(classes.shape, np.int64)
        for c in range(SPEC.num_classes):
            class_codes[classes == c] = c + 1
        codes = rng.permutation(NUM_CODES) + 1
        pairs = [(c, i) for c in SPEC.thing_ids for i in np.unique(instances[classes == c]) if i > 0]
        for code, (c, i) in zip(codes, pairs):
            instance_codes[(classes == c) & (instances == i)] = code
        crowd = np.isin(classes[-1], SPEC.thing_ids) & (instances[-1] == 0)
        maps = (torch.from_numpy(m)[None] for m in (class_codes, instance_codes, crowd))
        return Batch(torch.from_numpy(image).permute(2, 0, 1)[None], *maps, torch.ones(1, 3, dtype=torch.bool), [""])


def milliseconds(functions: dict[str, Callable[[], object]], samples: int, rounds: int) -> dict[str, float]:
    """Least processor time of each over the rounds, per sample; the functions take turns."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds + 1):  # the first fills the caches of files
        for name, function in functions.items():
            begin = time.process_time()
            function()
            best[name] = min(best[name], (time.process_time() - begin) * 1e3 / samples)
    return best


Functions = dict[str, Callable[[], object]]


def functions(root: Path, image_size: tuple[int, int], samples: int) -> tuple[Functions, Functions]:
    """What makes a batch of samples, way by way, and the parts of ours."""
    transform = ClipTransform(
        image_size,
        (image_size[0] // 2, image_size[1] // 2),
        scale_range=SCALES,
        flip_rate=0.5,
        brightness=JITTER,
        contrast=JITTER,
        saturation=JITTER,
    )
    indices = range(2, 2 + samples)
    dataset, cached = (KittiStep(root, "train", past_offsets=(-2, -1)) for _ in range(2))
    cached.cache_maps(CACHE_BYTES)
    videos = PseudoVideo(KittiStep(root, "train", past_offsets=()), SPEC, past_offsets=(-2, -1), seed=0)
    options = {"num_instance_codes": NUM_CODES, "seed": 0}
    plain = PlainSamples(dataset, image_size)
    ours, from_memory, pseudo = (TrainingClips(d, transform, SPEC, **options) for d in (dataset, cached, videos))

    def batch(clips: TrainingClips) -> Batch:
        return collate([clips[0, i] for i in indices])

    ways: Functions = {
        "plain": lambda: collate([plain[i] for i in indices]),
        "ours": without_pyspng(lambda: batch(ours)),
        "ours, maps in memory": without_pyspng(lambda: batch(from_memory)),
        "ours, clips of single images": without_pyspng(lambda: batch(pseudo)),
    }
    files, clips = plain.files, [dataset[i] for i in indices]
    params = [transform.make_params(clip, np.random.default_rng(i)) for i, clip in zip(indices, clips)]
    picked = [dataset.read_clip(i, lambda _, p=p: transform.pixel_picker(p)) for i, p in zip(indices, params)]
    finished = [transform.finish(*pair) for pair in zip(picked, params)]
    encoded = [encode_clip(clip, SPEC, num_instance_codes=NUM_CODES) for clip in finished]
    images: Functions = {"decode the image": lambda: [read_image(files[i].image) for i in indices]}
    maps: Functions = {
        "decode three maps": lambda: [view_kitti_step(files[i - k].label) for i in indices for k in range(3)]
    }
    parts: Functions = {
        **{f"{name}": without_pyspng(function) for name, function in (images | maps).items()},
        "augment and resize the image": lambda: [transform.finish(*pair) for pair in zip(picked, params)],
        "codes": lambda: [encode_clip(clip, SPEC, num_instance_codes=NUM_CODES) for clip in finished],
        "collate": lambda: collate(encoded),
    }
    if fast_png._decoder() is not None:
        ways |= {"ours, pyspng": lambda: batch(ours), "ours, pyspng, maps in memory": lambda: batch(from_memory)}
        parts |= {f"{name}, pyspng": function for name, function in (images | maps).items()}
    return ways, parts


def without_pyspng(function: Callable[[], object]) -> Callable[[], object]:
    """The function as it is where pyspng is not installed."""

    def call() -> object:
        with patch.object(fast_png, "_decoder", lambda: None):
            return function()

    return call


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="training samples per second and worker")
    parser.add_argument("--samples", type=int, default=6, help="samples in a batch")
    parser.add_argument("--rounds", type=int, default=3, help="repeats, of which the best counts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, (frame_size, image_size) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            height, width = frame_size
            frames = arguments.samples + 2
            write_sequences(folder, split="train", num_sequences=1, num_frames=frames, height=height, width=width)
            ways, parts = functions(Path(folder), image_size, arguments.samples)
            times = milliseconds(ways | parts, arguments.samples, arguments.rounds)
        print(f"\n{name}, {height}x{width} -> {image_size[0]}x{image_size[1]}, 1 image and 3 maps a sample")
        print(f"{'':32}{'ms':>8}{'/s':>8}{'ratio':>8}{f'/s, {WORKERS} workers':>16}")
        for row in ways:
            t = times[row]
            print(f"{row:32}{t:8.1f}{1e3 / t:8.1f}{times['plain'] / t:8.1f}{WORKERS * 1e3 / t:16.0f}")
        for row in parts:
            print(f"  {row:30}{times[row]:8.1f}")


if __name__ == "__main__":
    main()
