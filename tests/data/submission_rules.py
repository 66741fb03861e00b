"""Small predictions, and the rules by which the official tools refuse a submission."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seq_d.data.formats import write_kitti_step
from pix2seq_d.labels import LabelSpec

Maps = tuple[np.ndarray, np.ndarray]


def draw_maps(spec: LabelSpec, *, seed: int, instances: int = 4, size: tuple[int, int] = (24, 40)) -> Maps:
    """Blocks of 4x4 pixels of all classes and void; things with instances 0..instances - 1, all others with 0."""
    rng = np.random.default_rng(seed)
    cells = size[0] // 4, size[1] // 4
    classes = rng.choice([*range(spec.num_classes), spec.void_id], cells)
    classes.flat[: len(spec.thing_ids)] = spec.thing_ids[: classes.size]
    ids = rng.integers(0, instances, cells) * np.isin(classes, spec.thing_ids)
    class_map, instance_map = (np.kron(m, np.ones((4, 4), int)) for m in (classes, ids))
    return class_map.astype(np.uint8), instance_map.astype(np.int32)


def write_predictions(folder: Path, maps: dict[str, Maps]) -> Path:
    """KITTI-STEP maps {sequence}/{frame}.png by name without suffix."""
    for name, (class_map, instance_map) in maps.items():
        write_kitti_step(folder / f"{name}.png", class_map, instance_map)
    return folder


def joint(maps: Maps) -> np.ndarray:
    """One number for each (class, instance)."""
    return maps[0].astype(np.int64) << 32 | maps[1]


def same_segments(a: Maps, b: Maps) -> bool:
    """Whether the classes are the same and the segments too, whatever their numbers."""
    pairs = np.unique(np.stack([joint(a).ravel(), joint(b).ravel()]), axis=1)
    return bool((a[0] == b[0]).all()) and all(len(np.unique(row)) == pairs.shape[1] for row in pairs)


def rgb_ids(path: Path) -> np.ndarray:
    """Segment ids as the official tools compute them, without the package."""
    return np.asarray(Image.open(path), np.uint32) @ np.array([1, 256, 65536], np.uint32)


def check_segments(png: Path, segments: list[dict[str, Any]], categories: set[int]) -> None:
    """Every id in the PNG is in the JSON and the reverse, once; areas and boxes are those of the pixels."""
    ids = rgb_ids(png)
    assert sorted(s["id"] for s in segments) == sorted(set(np.unique(ids).tolist()) - {0})
    for s in segments:
        ys, xs = np.nonzero(ids == s["id"])
        assert s["category_id"] in categories
        assert s["iscrowd"] == 0
        assert s["area"] == len(xs)
        assert s["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def read(path: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(path.read_text())


def dump(path: Path, content: Any) -> Path:
    """Writes a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
