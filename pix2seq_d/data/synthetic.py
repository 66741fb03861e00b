"""Procedural street clips with exact panoptic ids: any length and size, random access, drawn with NumPy only.

Train ids as in KITTI-STEP; things are person 11 and car 13. Every frame is drawn by itself, in any order.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pix2seq_d.data.batch import Clip
from pix2seq_d.data.formats import write_image, write_kitti_step
from pix2seq_d.data.synthetic_actors import Painter
from pix2seq_d.data.synthetic_canvas import Canvas, pack
from pix2seq_d.data.synthetic_street import Street
from pix2seq_d.data.synthetic_world import FRAMES_PER_SECOND, SETTINGS, World

DIFFICULTIES = ("easy", "default", "hard")
SPLITS = ("train", "val", "test")
VOID = 255
MIN_SIZE = 32  # pixels
NOISE_SHIFT = 32  # pixels the noise sheet is moved by, in either direction
MIN_INSTANCE_SHARE = 1 / 2560  # of a frame's pixels: 12 at 96x320; what shows of a smaller instance is void


@dataclass(frozen=True)
class SyntheticFrame:
    """One rendered frame.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        class_map: (H, W) uint8 train ids, 255 void.
        instance_map: (H, W) int32, 0 = no instance.
    """

    image: np.ndarray
    class_map: np.ndarray
    instance_map: np.ndarray


class SyntheticSequence:
    """An endless street video at 10 frames a second, seen from a car.

    Args:
        index: number of the sequence, >= 0.
        split: one of SPLITS; no two splits share a random stream.
        seed: >= 0.
        height: image height in pixels, >= 32.
        width: image width in pixels, >= 32.
        difficulty: one of DIFFICULTIES; the street stays, its traffic, light and noise change.

    Raises:
        ValueError: a bad argument.
    """

    def __init__(
        self,
        index: int,
        *,
        split: str = "train",
        seed: int = 0,
        height: int = 96,
        width: int = 320,
        difficulty: str = "default",
    ) -> None:
        _check_choice("split", split, SPLITS)
        _check_choice("difficulty", difficulty, DIFFICULTIES)
        for name, value, least in (
            ("index", index, 0),
            ("seed", seed, 0),
            ("height", height, MIN_SIZE),
            ("width", width, MIN_SIZE),
        ):
            _check_least(name, value, least)
        self.height, self.width, self.settings = height, width, SETTINGS[difficulty]
        streams = np.random.SeedSequence(entropy=seed, spawn_key=(SPLITS.index(split), index)).spawn(4)
        world, street, painter, camera = (np.random.default_rng(stream) for stream in streams)
        self._world = World(world, self.settings)
        self._street = Street(street, self._world.layout, height=height, width=width)
        self._painter = Painter(painter, self._street.haze)
        self._columns = np.arange(width, dtype=np.float32) + np.float32(0.5)
        self._rows = np.arange(height, dtype=np.float32) + np.float32(0.5)
        self._light_phases = camera.uniform(0, 2 * np.pi, 4)
        self._noise = _noise_sheet(camera, height, width, self.settings.noise)
        self._bonnet = _bonnet(camera, height, width) if camera.random() < 0.3 else None

    def frame(self, t: int) -> SyntheticFrame:
        """Image and maps of frame t >= 0."""
        canvas = self._render(t, with_colours=True)
        assert canvas.colours is not None
        return SyntheticFrame(self._develop(canvas.colours, t), *_split_labels(canvas.labels))

    def maps(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Class map and instance map of frame t >= 0, equal to those of `frame(t)` but cheaper."""
        return _split_labels(self._render(t, with_colours=False).labels)

    def _render(self, t: int, *, with_colours: bool) -> Canvas:
        _check_least("t", t, 0)
        time = t / FRAMES_PER_SECOND
        canvas = Canvas(self.height, self.width, with_colours=with_colours)
        view = self._world.view(time, self._columns, self._rows)
        self._street.paint(canvas, view)
        for actor in self._world.actors(view, time):
            self._painter.paint(canvas, view, actor, time)
        if self._bonnet is not None:
            canvas.put(self.height - len(self._bonnet), 0, self._bonnet, VOID)
        return canvas

    def _develop(self, colours: np.ndarray, t: int) -> np.ndarray:
        """(H, W) texels -> (H, W, 3) uint8 under the light of the moment, with sensor noise."""
        time, p, swing = t / FRAMES_PER_SECOND, self._light_phases, self.settings.light
        brightness = 1.0 + swing * (0.7 * np.sin(0.31 * time + p[0]) + 0.3 * np.sin(1.3 * time + p[1]))
        warmth = 0.35 * swing * np.sin(0.17 * time + p[2])
        gains = 128.0 * brightness * np.array((1.0 + warmth, 1.0, 1.0 - warmth, 0.0))
        gain_row = np.tile(gains.astype(np.uint16), self.width)
        levels = np.multiply(colours.view(np.uint8), gain_row, dtype=np.uint16)
        levels >>= 7
        signed = levels.view(np.int16)
        down, right = divmod(t * 2654435761 >> 7, NOISE_SHIFT)
        down, right = down % NOISE_SHIFT, 4 * right
        signed += self._noise[down : down + self.height, right : right + 4 * self.width]
        np.clip(signed, 0, 255, out=signed)
        return np.ascontiguousarray(signed.astype(np.uint8).reshape(self.height, self.width, 4)[..., :3])


def _split_labels(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) class + 256 * instance -> class map and instance map, without the slivers nobody would annotate."""
    class_map, instance_map = labels.astype(np.uint8), (labels >> np.uint32(8)).view(np.int32)
    sliver = np.bincount(instance_map.ravel()) < MIN_INSTANCE_SHARE * labels.size
    sliver[0] = False  # no instance
    if sliver.any():
        pixels = sliver[instance_map]
        class_map[pixels], instance_map[pixels] = VOID, 0
    return class_map, instance_map


def _noise_sheet(rng: np.random.Generator, height: int, width: int, half_range: int) -> np.ndarray:
    """(H + shift, 4 (W + shift)) int16 triangular noise."""
    shape = (height + NOISE_SHIFT, 4 * (width + NOISE_SHIFT))
    halves = rng.integers(-half_range, half_range + 1, (2, *shape), np.int8)
    return (halves[0].astype(np.int16) + halves[1]) >> 1


def _bonnet(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(h, W) texels of the own car's bonnet along the bottom of the image; 0 is clear."""
    tall = max(2, round(height * rng.uniform(0.07, 0.13)))
    rows, columns = np.arange(tall)[:, None] + 0.5, np.linspace(-1.0, 1.0, width)[None, :]
    solid = rows > tall * (0.85 * columns**2 + 0.1)
    colour = rng.uniform(20, 90, 3) + (40.0 * (1.0 - rows / tall) * np.cos(2.0 * columns))[..., None]
    return np.where(solid, pack(colour), 0).astype(np.uint32)


class SyntheticClips:
    """A map-style dataset of Clips: item i is frame i % num_frames of sequence i // num_frames, after its past frames.

    Args:
        split: one of SPLITS.
        num_sequences: sequences 0 ... num_sequences - 1.
        num_frames: frames per sequence.
        past_offsets: past frames of a clip, negative and increasing, for example (-2, -1).
        height: image height in pixels.
        width: image width in pixels.
        seed: >= 0.
        difficulty: one of DIFFICULTIES.
        all_frames: return the images of the past frames too; an absent one is black.

    Raises:
        ValueError: a bad argument.
    """

    def __init__(
        self, *, split: str, num_sequences: int, num_frames: int, past_offsets: Sequence[int] = (-2, -1),
        height: int = 96, width: int = 320, seed: int = 0, difficulty: str = "default", all_frames: bool = False,
    ) -> None:  # fmt: skip
        _check_least("num_sequences", num_sequences, 1)
        _check_least("num_frames", num_frames, 1)
        offsets = tuple(past_offsets)
        if any(offset >= 0 for offset in offsets) or list(offsets) != sorted(set(offsets)):
            raise ValueError(f"expected past_offsets negative and increasing, got {offsets}")
        self.num_sequences, self.num_frames, self.past_offsets, self.all_frames = (
            num_sequences,
            num_frames,
            offsets,
            all_frames,
        )
        self._arguments = (split, seed, height, width, difficulty)
        _sequence(0, *self._arguments)  # bad arguments are reported here

    def __len__(self) -> int:
        return self.num_sequences * self.num_frames

    def __getitem__(self, item: int) -> Clip:
        if not 0 <= item < len(self):
            raise IndexError(f"expected an item in [0, {len(self)}), got {item}")
        index, target = divmod(item, self.num_frames)
        sequence = _sequence(index, *self._arguments)
        times = [target + offset for offset in self.past_offsets] + [target]
        wanted = [self.all_frames] * len(self.past_offsets) + [True]
        frames = [_frame_or_void(sequence, t, with_image=image) for t, image in zip(times, wanted, strict=True)]
        return Clip(
            frames=np.stack([frame.image for frame, image in zip(frames, wanted, strict=True) if image]),
            class_map=np.stack([frame.class_map for frame in frames]),
            instance_map=np.stack([frame.instance_map for frame in frames]),
            present=np.array([t >= 0 for t in times]),
            sequence_id=f"{index:04d}",
            frame_id=target,
        )


@lru_cache(maxsize=64)
def _sequence(index: int, split: str, seed: int, height: int, width: int, difficulty: str) -> SyntheticSequence:
    return SyntheticSequence(index, split=split, seed=seed, height=height, width=width, difficulty=difficulty)


def _frame_or_void(sequence: SyntheticSequence, t: int, *, with_image: bool) -> SyntheticFrame:
    """Frame t; before frame 0 a black image and void maps, without `with_image` an empty image."""
    size = (sequence.height, sequence.width)
    if t < 0:
        return SyntheticFrame(np.zeros((*size, 3), np.uint8), np.full(size, VOID, np.uint8), np.zeros(size, np.int32))
    if with_image:
        return sequence.frame(t)
    return SyntheticFrame(np.empty((0, 0, 3), np.uint8), *sequence.maps(t))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"expected {name} to be one of {', '.join(choices)}, got {value!r}")


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"expected {name} >= {least}, got {value}")


# On disk


def write_sequences(
    output: str | os.PathLike[str], *, split: str, num_sequences: int, num_frames: int,
    height: int = 96, width: int = 320, seed: int = 0, difficulty: str = "default",
) -> None:  # fmt: skip
    """Writes sequences 0 ... num_sequences - 1 in the KITTI-STEP layout.

    The files are `images/{split}/{sequence:04d}/{frame:06d}.png` and the same under `panoptic_maps`, RGB PNGs with
    class = R and instance = G * 256 + B.

    Args:
        output: folder; other splits may be in it already.
        split: one of SPLITS.
        num_sequences: at least 1.
        num_frames: frames per sequence, at least 1.
        height: image height in pixels.
        width: image width in pixels.
        seed: >= 0.
        difficulty: one of DIFFICULTIES.

    Raises:
        ValueError: a bad argument, or an instance id above 65535 (hours of video).
        FileExistsError: the split's folder is there and not empty.
        OSError: a file cannot be written.
    """
    _check_least("num_sequences", num_sequences, 1)
    _check_least("num_frames", num_frames, 1)
    _check_choice("split", split, SPLITS)
    images, maps = (Path(output) / kind / split for kind in ("images", "panoptic_maps"))
    for folder in (images, maps):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder}: expected no such folder or an empty one")
    for index in tqdm(range(num_sequences), desc=f"{split} sequences", disable=None):
        sequence = SyntheticSequence(index, split=split, seed=seed, height=height, width=width, difficulty=difficulty)
        for t in range(num_frames):
            frame, name = sequence.frame(t), f"{index:04d}/{t:06d}.png"
            write_image(images / name, frame.image)
            write_kitti_step(maps / name, frame.class_map, frame.instance_map)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `write_sequences`; a bad argument is one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m pix2seq_d.data.synthetic", description="Write synthetic street video."
    )
    parser.add_argument("--output", required=True, help="folder to write, in the KITTI-STEP layout")
    parser.add_argument("--split", default="val", help=f"one of {', '.join(SPLITS)}")
    parser.add_argument("--difficulty", default="default", help=f"one of {', '.join(DIFFICULTIES)}")
    for name, default in (("num_sequences", 4), ("num_frames", 50), ("height", 96), ("width", 320), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    arguments = parser.parse_args(argv)
    try:
        write_sequences(arguments.output, **{k: v for k, v in vars(arguments).items() if k != "output"})
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
