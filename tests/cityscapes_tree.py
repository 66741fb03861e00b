"""A tiny Cityscapes tree as its authors ship it, for the tests of the reader and of pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pix2seq_d.data.cityscapes_ids import encode_ids, write_instance_ids, write_panoptic_parts
from pix2seq_d.data.coco_format import segments_info, write_json, write_panoptic_ids
from pix2seq_d.data.formats import write_image
from pix2seq_d.data.segments import find_segments
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
    annotations = [write_panoptic_png(folder / f"{i}_gtFine_panoptic.png", *maps_of(i), train_ids) for i in FRAMES]
    write_json(folder.with_suffix(".json"), {"annotations": annotations})
    return root


def write_panoptic_png(
    path: Path, class_map: np.ndarray, instance_map: np.ndarray, train_ids: bool = False
) -> dict[str, Any]:
    """A PNG as csCreatePanopticImgs writes it; gives its entry in the JSON."""
    ids = encode_ids(class_map, instance_map, SPEC)
    write_panoptic_ids(path, ids)
    found = find_segments(ids)
    class_ids = np.where(found.keys < 1000, found.keys, found.keys // 1000)
    segments = segments_info(found, found.keys, SPEC.to_train_ids(class_ids) if train_ids else class_ids)
    for segment in segments:
        segment["iscrowd"] = int(24 <= segment["id"] < 1000)
    return {
        "image_id": path.name.removesuffix("_gtFine_panoptic.png"),
        "file_name": path.name,
        "segments_info": segments,
    }
