"""Samples that depend on nothing but the code: clips from arithmetic, every augmentation of the first release on."""

from __future__ import annotations

import hashlib

import numpy as np

from pix2seq_d.data.batch import Clip
from pix2seq_d.data.loaders import TrainingClips
from pix2seq_d.data.transforms import ClipTransform
from pix2seq_d.labels import get_label_spec


class GoldenClips:
    """Two clips of 37x53 with three maps: stripes of road and building, four cars, a crowd and a void corner."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Clip:
        rows, cols, maps = np.arange(37)[:, None], np.arange(53), np.arange(3)[:, None, None]
        pixels = rows * 2654435761 + cols * 40503 + index * 977
        frame = np.stack([pixels >> 3, pixels >> 7, rows * 6 + cols], axis=-1).astype(np.uint8)
        column = (cols + 3 * maps + index) // 9
        car = (rows > 12) & (rows < 30) & (column % 2 == 1)
        class_map = np.where(car, 13, np.where(rows % 8 < 4, 0, 2)).astype(np.uint8)
        instance_map = np.where(car, (column // 2) * 700, 0).astype(np.int32)
        class_map[:, :5, :5], instance_map[:, :5, :5] = 255, 0
        return Clip(frame[None], class_map, instance_map, np.array([index > 0, True, True]), "golden", index)


def golden_hash(transform: ClipTransform) -> str:
    """SHA-256 of four samples: every tensor of every Batch as training gets it, in the order of its fields."""
    clips = TrainingClips(GoldenClips(), transform, get_label_spec("kitti-step"), num_instance_codes=9, seed=3)
    digest = hashlib.sha256()
    for key in ((0, 0), (0, 1), (5, 0), (9, 1)):
        for value in (v for v in vars(clips[key].to("cpu")).values() if v is not None):
            digest.update(repr(value).encode() if isinstance(value, list) else value.numpy().tobytes())
    return digest.hexdigest()
