"""A folder of results as inference writes it, without a model: two sequences of moving squares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pix2seq_d.data.formats import write_bytes, write_image, write_kitti_step, write_png
from pix2seq_d.data.sources import open_sources
from pix2seq_d.labels import LabelSpec
from pix2seq_d.run_record import RunRecord

SPEC = LabelSpec("toy", ("ground", "<script>window.hacked = 1</script>"), ((0, 128, 0), (0, 0, 200)), thing_ids=(1,))
SIZE = (20, 40)


def maps(t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class map, instance map and confidence: object 7 (4x6 pixels) moves right over ground; a column of void."""
    class_map, instance_map = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.int32)
    class_map[8:12, t : t + 6], instance_map[8:12, t : t + 6] = 1, 7
    class_map[:, -1] = SPEC.void_id
    confidence = np.full(SIZE, 255, np.uint8)
    confidence[8:12, t : t + 6] = 51
    return class_map, instance_map, confidence


def doubt(t: int) -> np.ndarray:
    """(H, W, 3) uint8: the class is uncertain in the left half, the object where it is."""
    values = np.zeros((*SIZE, 3), np.uint8)
    values[:, :20, 0] = 102
    values[8:12, t : t + 6, 1] = 204
    return values


def segments() -> list[dict[str, Any]]:
    """As segments/{sequence}/{frame}.json holds them, for any frame."""
    ground = {"class_id": 0, "class": "ground", "instance_id": 0, "area": 756, "score": 1.0, "agreement": 0.99}
    return [ground, {"class_id": 1, "class": "x", "instance_id": 7, "area": 24, "score": 0.2, "agreement": 0.25}]


def frame(t: int) -> np.ndarray:
    """(H, W, 3) uint8 of one colour, which says the time."""
    return np.full((*SIZE, 3), (200, 20 * t, 10), np.uint8)


def write_results(
    root: Path,
    *,
    sequences: tuple[str, ...] = ("a", "b"),
    count: int = 3,
    confidence: bool = True,
    samples: bool = False,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Path, Path]:
    """Frames and results; returns their folders."""
    source, output = root / "frames", root / "out"
    for name in sequences:
        for t in range(count):
            class_map, instance_map, sure = maps(t)
            write_image(source / name / f"{t}.png", frame(t))
            write_kitti_step(output / "panoptic" / name / f"{t}.png", class_map, instance_map)
            if confidence:
                write_png(output / "confidence" / name / f"{t}.png", sure)
            if samples:
                write_png(output / "uncertainty" / name / f"{t}.png", doubt(t))
                write_bytes(output / "segments" / name / f"{t}.json", json.dumps({"segments": segments()}).encode())
    record = RunRecord.open(output, {"seed": 3, "input": [str(source)], **settings}, SPEC)
    for video in open_sources(source):
        record.finish(video, [])
    record.save()
    return source, output
