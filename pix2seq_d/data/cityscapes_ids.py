"""Cityscapes' label encodings on disk (Cordts et al., arXiv 1604.01685), read and written; all spell one instance id v.

v < 1000: class id v, no instance (of a thing class: a group); else class id v // 1000, object v % 1000. In memory the
object is v % 1000 + 1, because 0 means "no instance". Panoptic parts add two digits of a part: v = value // 100.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seq_d.data.formats import DataError, load_image, read_png, write_bytes, write_image
from pix2seq_d.labels import LabelSpec

MAX_INSTANCES = 1000  # objects of one class in one frame: the digits below the class
_NUM_IDS = 1 << 16  # what 16 bits hold; every id of a class is below
_MAX_PARTS_ID = 9_999_999  # two digits of class, three of instance, two of part

Maps = tuple[np.ndarray, np.ndarray]
PathLike = str | os.PathLike[str]


# Ids and maps


def decode_ids(ids: np.ndarray, spec: LabelSpec) -> Maps:
    """Instance ids to train ids and instances.

    Args:
        ids: (...) integers as in `*_instanceIds.png`; classes that `spec` does not list, and -1 or 65535 (license
            plate), are void.
        spec: a label spec whose `dataset_ids` are Cityscapes'.

    Returns:
        class_map (...) uint8; instance_map (...) int32, 1..1000 for the objects of the spec's things, else 0.

    Raises:
        ValueError: a spec without dataset ids.
    """
    class_table, instance_table = _tables(spec)
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < _NUM_IDS:
        ids = np.where((ids < 0) | (ids >= _NUM_IDS), 0, ids)
    index = ids.astype(np.uint16)  # a narrow index makes the look-up several times faster
    return class_table[index], instance_table[index]


def encode_ids(class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec) -> np.ndarray:
    """Train ids and instances to instance ids, the inverse of `decode_ids`; void becomes 0.

    Args:
        class_map: (...) integers, train ids or void.
        instance_map: (...) integers of the same shape, 0..1000 on things; ignored on stuff and void.
        spec: as in `decode_ids`.

    Returns:
        (...) int32 below 65536.

    Raises:
        ValueError: shapes that differ, a class id outside the spec, an instance outside 0..1000, or a spec without
            dataset ids.
    """
    check_spec(spec)
    if class_map.shape != instance_map.shape:
        raise ValueError(f"expected maps of one shape, got {class_map.shape} and {instance_map.shape}")
    class_ids = spec.to_dataset_ids(class_map, void=0)
    instances = np.where(spec.is_thing(class_map), instance_map, 0)
    if instances.size and not 0 <= int(instances.min()) <= int(instances.max()) <= MAX_INSTANCES:
        raise ValueError(f"expected instances in 0..{MAX_INSTANCES}, got {instances.min()}..{instances.max()}")
    return np.where(instances > 0, class_ids * 1000 + instances - 1, class_ids).astype(np.int32)


def check_spec(spec: LabelSpec) -> None:
    """Raises ValueError if `spec` does not say which ids its classes have on Cityscapes' disk."""
    if not spec.dataset_ids or max(spec.dataset_ids) * 1000 + MAX_INSTANCES > _NUM_IDS:
        raise ValueError(f"label spec {spec.name}: expected the ids of Cityscapes' classes as dataset_ids, got others")


@lru_cache(maxsize=8)
def _tables(spec: LabelSpec) -> Maps:
    """Train id and instance of every 16-bit id."""
    check_spec(spec)
    ids = np.arange(_NUM_IDS)
    class_table = spec.to_train_ids(np.where(ids < 1000, ids, ids // 1000))
    instance_table = np.where((ids >= 1000) & spec.is_thing(class_table), ids % 1000 + 1, 0).astype(np.int32)
    return class_table, instance_table


# instanceIds.png


def read_instance_ids(path: PathLike, spec: LabelSpec) -> Maps:
    """Reads `*_gtFine_instanceIds.png` or `*_gtCoarse_instanceIds.png`: 16-bit greyscale PNG of instance ids.

    Returns:
        (H, W) uint8 train ids and (H, W) int32 instances, as `decode_ids` says.

    Raises:
        DataError: not a 16-bit greyscale PNG (labelIds.png has 8 bits and no instances), missing or broken.
        ValueError: a spec without dataset ids.
    """
    return decode_ids(read_png(path, kinds=("greyscale",), bits=(16,)), spec)


def write_instance_ids(path: PathLike, class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec) -> None:
    """Writes what `read_instance_ids` reads.

    Raises:
        ValueError: a path that does not end in .png, maps that are not (H, W), or as `encode_ids` says.
        OSError: the file cannot be written; nothing is left behind.
    """
    ids = _encode_frame(path, class_map, instance_map, spec, suffixes=(".png",))
    write_bytes(path, _image_bytes(ids.astype(np.uint16), "PNG"))


# Panoptic parts


def read_panoptic_parts(path: PathLike, spec: LabelSpec) -> Maps:
    """Reads `*_gtFinePanopticParts.tif` (de Geus et al., arXiv 2106.06351), a 32-bit TIFF; the parts are dropped.

    Returns:
        (H, W) uint8 train ids and (H, W) int32 instances, those of the same frame's `*_instanceIds.png`.

    Raises:
        DataError: not a 32-bit integer TIFF, an id of three or more than seven digits, missing, broken or too large.
        ValueError: a spec without dataset ids.
    """
    image = load_image(path, formats=("TIFF",))
    if image.mode != "I":
        raise DataError(f"{path}: expected a TIFF of 32-bit integers, got Pillow's mode {image.mode}")
    values = np.array(image)
    wrong = (values < -1) | ((values > 99) & (values < 1000)) | (values > _MAX_PARTS_ID)
    if wrong.any():
        raise DataError(f"{path}: expected ids of 1, 2 or 4 to 7 digits, got {int(values[wrong][0])}")
    return decode_ids(np.where(values > 99_999, values // 100, values), spec)


def write_panoptic_parts(path: PathLike, class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec) -> None:
    """Writes what `read_panoptic_parts` reads, without parts; raises as `write_instance_ids`, for .tif and .tiff."""
    ids = _encode_frame(path, class_map, instance_map, spec, suffixes=(".tif", ".tiff"))
    write_bytes(path, _image_bytes(ids, "TIFF"))


# Panoptic PNG and JSON


def read_panoptic_json(path: PathLike, spec: LabelSpec, *, train_ids: bool = False) -> dict[str, dict[int, bool]]:
    """Reads `cityscapes_panoptic_{split}.json` as csCreatePanopticImgs writes it.

    Args:
        path: the file.
        spec: the classes; the categories of the segments are held against them.
        train_ids: the file states train ids (`..._trainId.json`, --use-train-id) and not class ids.

    Returns:
        By file name of the PNG: segment id -> iscrowd.

    Raises:
        DataError: missing, no such JSON, or a segment whose category is not that of its id.
        ValueError: a spec without dataset ids.
    """
    class_table, _ = _tables(spec)
    by_file = {}
    for entry in _annotations(path):
        try:
            segments = {int(s["id"]): (int(s["category_id"]), bool(s["iscrowd"])) for s in entry["segments_info"]}
            name = str(entry["file_name"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{path}: expected COCO's panoptic annotations, got {type(error).__name__}: {error}"
            ) from None
        for i, (category, _) in segments.items():
            class_id = i if i < 1000 else i // 1000
            train_id = int(class_table[i]) if 0 <= i < _NUM_IDS else spec.void_id
            if train_id != spec.void_id and category != (train_id if train_ids else class_id):
                expected = f"{train_id} (a train id)" if train_ids else class_id
                raise DataError(f"{path}: expected category {expected} for segment {i} of {name}, got {category}")
        by_file[name] = {i: crowd for i, (_, crowd) in segments.items()}
    return by_file


def _annotations(path: PathLike) -> list[Any]:
    try:
        content = json.loads(Path(path).read_bytes())
        annotations = content["annotations"]
    except OSError as error:
        raise DataError(f"{path}: expected a readable JSON file ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        annotations = None
    if not isinstance(annotations, list):
        raise DataError(f'{path}: expected a JSON object with a list "annotations", got something else')
    return annotations


def read_panoptic_png(path: PathLike, segments: Mapping[int, bool], spec: LabelSpec) -> Maps:
    """Reads a panoptic PNG of Cityscapes: 8-bit RGB, v = R + 256 G + 65536 B, 0 void.

    Args:
        path: the file.
        segments: its segment ids -> iscrowd, from `read_panoptic_json`; the pixels of a crowd have no instance.
        spec: as in `decode_ids`.

    Returns:
        (H, W) uint8 train ids and (H, W) int32 instances, those of the same frame's `*_instanceIds.png`.

    Raises:
        DataError: not an 8-bit RGB PNG, an id that is not in `segments`, missing or broken.
        ValueError: a spec without dataset ids.
    """
    rgb = read_png(path, kinds=("RGB",)).astype(np.int32)
    ids = rgb[..., 0] + (rgb[..., 1] << 8) + (rgb[..., 2] << 16)
    if ids.max(initial=0) >= _NUM_IDS:
        raise DataError(
            f"{path}: expected segment ids below {_NUM_IDS}, as csCreatePanopticImgs writes them, got {ids.max()}"
        )
    found = np.flatnonzero(np.bincount(ids.ravel(), minlength=1))
    unknown = [int(i) for i in found if i and int(i) not in segments]
    if unknown:
        raise DataError(
            f"{path}: expected only the {len(segments)} segment ids of its JSON entry, got {unknown[0]} too"
        )
    class_map, instance_map = decode_ids(ids, spec)
    crowds = [i for i, crowd in segments.items() if crowd and i >= 1000]  # below they have no instance anyway
    if crowds:
        instance_map[np.isin(ids, crowds)] = 0
    return class_map, instance_map


def write_panoptic_png(
    path: PathLike, class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec, *, train_ids: bool = False
) -> list[dict[str, Any]]:
    """Writes what `read_panoptic_png` reads.

    Returns:
        The frame's `segments_info`, ids ascending: id, category_id (a train id if `train_ids`), area, bbox (x, y,
        width, height) and iscrowd (1 for the pixels of a thing without an instance).

    Raises:
        ValueError, OSError: as `write_instance_ids`.
    """
    ids = _encode_frame(path, class_map, instance_map, spec, suffixes=(".png",))
    write_image(path, np.stack([ids & 255, ids >> 8, np.zeros_like(ids)], axis=-1).astype(np.uint8))
    class_table, instance_table = _tables(spec)
    found = _segments(ids)
    for segment in found:
        train_id, has_instance = int(class_table[segment["id"]]), bool(instance_table[segment["id"]])
        segment["category_id"] = train_id if train_ids else spec.dataset_ids[train_id]
        segment["iscrowd"] = int(train_id in spec.thing_ids and not has_instance)
    return found


def _segments(ids: np.ndarray) -> list[dict[str, Any]]:
    """Id, area and box of every id but 0; the boxes come from one histogram per axis."""
    values = np.flatnonzero(np.bincount(ids.ravel()))
    place = np.zeros(_NUM_IDS, np.int64)
    place[values] = np.arange(len(values))
    index, (height, width), count = place[ids], ids.shape, len(values)
    rows = np.bincount((index * height + np.arange(height)[:, None]).ravel(), minlength=count * height)
    cols = np.bincount((index * width + np.arange(width)).ravel(), minlength=count * width)
    segments: list[dict[str, Any]] = []
    for value, in_rows, in_cols in zip(values.tolist(), rows.reshape(count, height), cols.reshape(count, width)):
        if value:
            y, x = (np.flatnonzero(axis)[[0, -1]].tolist() for axis in (in_rows, in_cols))
            box = [x[0], y[0], x[1] - x[0] + 1, y[1] - y[0] + 1]
            segments.append({"id": value, "area": int(in_rows.sum()), "bbox": box})
    return segments


def write_panoptic_json(
    path: PathLike,
    frames: Mapping[str, Sequence[Mapping[str, Any]]],
    spec: LabelSpec,
    *,
    size: tuple[int, int],
    train_ids: bool = False,
) -> None:
    """Writes what `read_panoptic_json` reads, in the form of csCreatePanopticImgs.

    Args:
        path: the file, beside the folder of the PNGs that has its name without .json.
        frames: by image id (`aachen_000000_000019`): the `segments_info` that `write_panoptic_png` returned for
            `{image id}_gtFine_panoptic.png`.
        spec: the classes.
        size: (H, W) of the frames.
        train_ids: as for the segments.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    ids = range(spec.num_classes) if train_ids else spec.dataset_ids
    classes = zip(ids, spec.class_names, spec.colours, range(spec.num_classes))
    content = {
        "images": [
            {"id": name, "width": size[1], "height": size[0], "file_name": f"{name}_gtFine_leftImg8bit.png"}
            for name in frames
        ],
        "annotations": [
            {"image_id": name, "file_name": f"{name}_gtFine_panoptic.png", "segments_info": list(segments)}
            for name, segments in frames.items()
        ],
        "categories": [
            {"id": i, "name": name, "color": colour, "isthing": int(train_id in spec.thing_ids)}
            for i, name, colour, train_id in classes
        ],
    }
    write_bytes(path, json.dumps(content).encode())


def _encode_frame(
    path: PathLike, class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec, *, suffixes: tuple[str, ...]
) -> np.ndarray:
    if Path(path).suffix.lower() not in suffixes:
        raise ValueError(f"{path}: expected a path that ends in {' or '.join(suffixes)}")
    if class_map.ndim != 2 or not class_map.size:
        raise ValueError(f"{path}: expected (H, W) maps, got {class_map.shape}")
    try:
        return encode_ids(class_map, instance_map, spec)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _image_bytes(ids: np.ndarray, kind: str) -> bytes:
    data = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 1} if kind == "PNG" else {"compression": "tiff_adobe_deflate"}
    Image.fromarray(np.ascontiguousarray(ids)).save(data, kind, **options)
    return data.getvalue()
