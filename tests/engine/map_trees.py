"""Random maps in memory and on disk, for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pix2seq_d.data.formats import write_kitti_step
from pix2seq_d.labels import get_label_spec

KITTI, CAMVID = get_label_spec("kitti-step"), get_label_spec("camvid")
ROAD, PERSON, CAR, VOID = 0, 11, 13, 255

Frames = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def random_video(rng: np.random.Generator, length: int, shape: tuple[int, int] = (6, 8)) -> Iterator[Frames]:
    """(pred_semantic, pred_instance, target_semantic, target_instance) of every frame."""
    for _ in range(length):
        target = rng.choice([ROAD, 10, PERSON, CAR, VOID], shape).astype(np.uint8)
        pred = np.where(rng.random(shape) < 0.3, ROAD, target).astype(np.uint8)
        ids = rng.integers(0, 3, (2, *shape)).astype(np.int32)
        yield pred, ids[0], target, ids[1]


def kitti_tree(root: Path, sequences: dict[str, int], seed: int = 0) -> dict[str, list[Frames]]:
    """Writes random maps `{sequence}/{frame:06d}.png` to root/pred and root/gt."""
    rng = np.random.default_rng(seed)
    frames = {s: list(random_video(rng, length)) for s, length in sequences.items()}
    for sequence_id, maps in frames.items():
        for k, (pc, pi, tc, ti) in enumerate(maps):
            write_kitti_step(root / "pred" / sequence_id / f"{k:06d}.png", pc, pi)
            write_kitti_step(root / "gt" / sequence_id / f"{k:06d}.png", tc, ti)
    return frames


def grey_png(path: Path, class_map: object) -> None:
    """A greyscale PNG of class ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(class_map, np.uint8)).save(path)
