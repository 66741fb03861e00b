"""A tiny Cityscapes tree as its authors ship it, for the tests of the reader and of pretraining."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pix2seq_d.data.cityscapes_ids import (
    write_instance_ids,
    write_panoptic_json,
    write_panoptic_parts,
    write_panoptic_png,
)
from pix2seq_d.data.formats import write_image
from pix2seq_d.labels import get_label_spec

FRAMES = ("aachen_000000_000019", "aachen_000010_000019", "frankfurt_000001_000294", "frankfurt_000001_000576")
SPEC = get_label_spec("cityscapes")


def maps_of(image_id: str, size: tuple[int, int] = (4, 8)) -> tuple[np.ndarray, np.ndarray]:
    """Road, a void corner, two cars, a truck and a crowd of persons; the second car's number tells the frame."""
    class_map, instance_map = np.zeros(size, np.uint8), np.zeros(size, np.int32)
    class_map[0, 0], class_map[0, 1:3], class_map[0, 3:5], class_map[0, 5] = 255, 13, 14, 11
    instance_map[0, 1], instance_map[0, 2], instance_map[0, 3:5] = 1, FRAMES.index(image_id) + 2, 1
    return class_map, instance_map


def city_file(root: Path, kind: str, split: str, image_id: str, suffix: str) -> Path:
    return root / kind / split / image_id.split("_")[0] / f"{image_id}_{suffix}"


def write_images(root: Path, split: str = "train", *, size: tuple[int, int] = (4, 8)) -> Path:
    """leftImg8bit/: frame k of FRAMES is grey 10 + k."""
    for k, image_id in enumerate(FRAMES):
        path = city_file(root, "leftImg8bit", split, image_id, "leftImg8bit.png")
        write_image(path, np.full((*size, 3), 10 + k, np.uint8))
    return root


def write_fine(root: Path, split: str = "train", *, size: tuple[int, int] = (4, 8), kind: str = "gtFine") -> Path:
    """gtFine/ or gtCoarse/ with instanceIds."""
    for image_id in FRAMES:
        write_instance_ids(
            city_file(root, kind, split, image_id, f"{kind}_instanceIds.png"), *maps_of(image_id, size), SPEC
        )
    return root


def write_parts(root: Path, split: str = "train") -> Path:
    """gtFinePanopticParts/."""
    for image_id in FRAMES:
        path = city_file(root, "gtFinePanopticParts", split, image_id, "gtFinePanopticParts.tif")
        write_panoptic_parts(path, *maps_of(image_id), SPEC)
    return root


def write_panoptic(root: Path, split: str = "train", *, train_ids: bool = False) -> Path:
    """gtFine/cityscapes_panoptic_{split}[_trainId] and its JSON."""
    folder = root / "gtFine" / f"cityscapes_panoptic_{split}{'_trainId' if train_ids else ''}"
    segments = {
        i: write_panoptic_png(folder / f"{i}_gtFine_panoptic.png", *maps_of(i), SPEC, train_ids=train_ids)
        for i in FRAMES
    }
    write_panoptic_json(folder.with_suffix(".json"), segments, SPEC, size=(4, 8), train_ids=train_ids)
    return root
