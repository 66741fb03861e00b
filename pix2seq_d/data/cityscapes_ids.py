"""Cityscapes' label encodings on disk (Cordts et al., arXiv 1604.01685), read and written; all spell one instance id v.

v < 1000: class id v, no instance (of a thing class: a group); else class id v // 1000, object v % 1000. In memory the
object is v % 1000 + 1, because 0 means "no instance". Panoptic parts add two digits of a part: v = value // 100.
"""

from __future__ import annotations

import io
import os
from functools import lru_cache

import numpy as np
from PIL import Image

from pix2seq_d.data.coco_format import SegmentRows, read_coco_panoptic
from pix2seq_d.data.formats import DataError, load_image, read_png, write_bytes, write_png
from pix2seq_d.labels import LABEL_SPECS, LabelSpec

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
    write_png(path, _encode_frame(path, class_map, instance_map, spec).astype(np.uint16))


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
    """Writes what `read_panoptic_parts` reads, without parts; raises as `write_instance_ids`, whatever the suffix."""
    data = io.BytesIO()
    Image.fromarray(_encode_frame(path, class_map, instance_map, spec)).save(
        data, "TIFF", compression="tiff_adobe_deflate"
    )
    write_bytes(path, data.getvalue())


# Panoptic PNG and JSON


def read_panoptic_png(path: PathLike, rows: SegmentRows, spec: LabelSpec) -> Maps:
    """Reads a panoptic PNG of csCreatePanopticImgs, whose segment ids are instance ids.

    Args:
        path: the file.
        rows: its segments in the JSON, a PanopticIndex of the label spec "cityscapes" (of "cityscapes-vps" where the
            JSON states train ids: ..._trainId.json, --use-train-id); the pixels of a crowd have no instance.
        spec: as in `decode_ids`.

    Returns:
        (H, W) uint8 train ids and (H, W) int32 instances, those of the same frame's `*_instanceIds.png`.

    Raises:
        DataError: as `read_coco_panoptic`, or a segment whose category is not that of its id.
        ValueError: a spec without dataset ids.
    """
    own, _ = decode_ids(rows.ids, LABEL_SPECS["cityscapes"])
    if (wrong := own != rows.class_ids).any():
        k = int(np.argmax(wrong))
        raise DataError(f"{path}: expected segments of the class in their id, got {rows.ids[k]} of another in the JSON")
    class_ids, instance_ids = decode_ids(rows.ids, spec)
    return read_coco_panoptic(path, rows._replace(class_ids=class_ids), np.where(rows.crowd, 0, instance_ids))


def _encode_frame(path: PathLike, class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec) -> np.ndarray:
    if class_map.ndim != 2 or not class_map.size:
        raise ValueError(f"{path}: expected (H, W) maps, got {class_map.shape}")
    try:
        return encode_ids(class_map, instance_map, spec)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
