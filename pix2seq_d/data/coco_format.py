"""COCO's panoptic format: a PNG of segment ids for every image, v = R + 256 G + 65536 B, and a JSON of their classes.

COCO, Cityscapes and Cityscapes-VPS publish and evaluate in it. Id 0 is void. S segments of an image, N images.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pix2seq_d.data.formats import DataError, as_one_line, read_png, write_bytes, write_png
from pix2seq_d.data.segments import Segments, find_segments
from pix2seq_d.labels import VOID_ID, LabelSpec

MAX_ID = (1 << 24) - 1
_MAX_NAME = 255  # bytes


# The PNG


def read_panoptic_ids(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads the segment ids of an image: (H, W) int32 in 0..2^24 - 1.

    Raises:
        DataError: not an 8-bit RGB PNG, missing or broken.
    """
    rgb = read_png(path, kinds=("RGB",)).astype(np.int32)
    return rgb[..., 0] | rgb[..., 1] << 8 | rgb[..., 2] << 16


def write_panoptic_ids(path: str | os.PathLike[str], ids: np.ndarray) -> None:
    """Writes (H, W) segment ids as PNG, the inverse of `read_panoptic_ids`.

    Raises:
        ValueError: a path that does not end in .png, another shape or dtype, or an id outside 0..2^24 - 1.
        OSError: the file cannot be written; nothing is left behind.
    """
    if ids.ndim != 2 or not ids.size or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{path}: expected (H, W) integers, got {ids.shape} {ids.dtype}")
    if ids.min() < 0 or ids.max() > MAX_ID:
        raise ValueError(f"{path}: expected segment ids in 0..{MAX_ID}, got {ids.min()}..{ids.max()}")
    planes = ids.astype("<u4", order="C").view(np.uint8).reshape(*ids.shape, 4)
    write_png(path, planes[..., :3])


# The JSON


class SegmentRows(NamedTuple):
    """The segments of one image as the JSON has them, by ascending id.

    Attributes:
        ids: (S,) int32.
        class_ids: (S,) uint8 train ids.
        crowd: (S,) bool, `iscrowd`.
    """

    ids: np.ndarray
    class_ids: np.ndarray
    crowd: np.ndarray


class PanopticIndex:
    """The annotations of a panoptic JSON, packed: 6 bytes a segment, so that 118,000 images stay small.

    Attributes:
        path: the JSON file.
        label_names: (N) file names of the PNGs, in the order of the file.
        image_names: (N) file names of the images; where the JSON lists no images the PNG's name.
    """

    def __init__(self, path: str | os.PathLike[str], spec: LabelSpec) -> None:
        """Reads the file once.

        Args:
            path: the JSON file.
            spec: its `dataset_ids` are the category ids of the file.

        Raises:
            DataError: not such a file, a category that `spec` does not list, ids outside 1..2^24 - 1, an id or a PNG
                that is named twice.
        """
        self.path = Path(path)
        content = read_json(self.path)
        try:
            annotations = content["annotations"]
            names = {image["id"]: image["file_name"] for image in content.get("images", ())}
            self.label_names: list[str] = [_file_name(a["file_name"]) for a in annotations]
            self.image_names: list[str] = [
                _file_name(names.get(a["image_id"], a["file_name"])) if names else a["file_name"] for a in annotations
            ]
            segments = [a["segments_info"] for a in annotations]
            rows = np.fromiter(chain.from_iterable(chain.from_iterable(segments)), np.int64).reshape(-1, 3)
            self._ends = np.cumsum([0, *map(len, segments)])
            if self._ends[-1] != len(rows):
                raise ValueError("a segment without id and category_id")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            got = as_one_line(repr(error))
            raise DataError(f"{path}: expected a panoptic JSON with images and annotations, got {got}") from None
        owner = np.repeat(np.arange(len(segments)), np.diff(self._ends))
        rows = rows[np.lexsort((rows[:, 0], owner))]
        self._check(rows, owner, spec)
        self._ids, self._crowd = rows[:, 0].astype(np.int32), rows[:, 2] != 0
        self._class_ids = spec.to_train_ids(rows[:, 1])

    def __len__(self) -> int:
        return len(self.label_names)

    def rows(self, number: int) -> SegmentRows:
        """The segments of the image at a place of `label_names`."""
        chosen = slice(self._ends[number], self._ends[number + 1])
        return SegmentRows(self._ids[chosen], self._class_ids[chosen], self._crowd[chosen])

    def _check(self, rows: np.ndarray, owner: np.ndarray, spec: LabelSpec) -> None:
        known = spec.dataset_ids or tuple(range(spec.num_classes))
        ids, categories, _ = rows.T
        same = (np.diff(ids) == 0) & (np.diff(owner) == 0)
        for wrong, what in (
            (~np.isin(categories, known), f"expected categories of label spec {spec.name}"),
            ((ids < 1) | (ids > MAX_ID), f"expected segment ids in 1..{MAX_ID}"),
            (np.append(same, False), "expected segment ids of their own"),
        ):
            if wrong.any():
                k = int(np.argmax(wrong))
                where = f"segment {ids[k]} of category {categories[k]}"
                raise DataError(f"{self.path}: {what}, got {where} in {self.label_names[owner[k]]}")
        if len(set(self.label_names)) < len(self):
            twice = Counter(self.label_names).most_common(1)[0][0]
            raise DataError(f"{self.path}: expected one annotation for each PNG, got two for {twice}")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a panoptic JSON, keeping of every image and segment what the readers need.

    Returns:
        The content; an image is {id, file_name, height, width}, a segment the triple (id, category_id, iscrowd).

    Raises:
        DataError: missing, unreadable, no JSON, or no object at its top.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file, object_hook=_pack)
    except OSError as error:
        raise DataError(f"{path}: expected a panoptic JSON, cannot open it ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON file, got one that is broken or cut off ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a panoptic JSON with an object at its top, got something else")
    return content


_IMAGE_KEYS = ("id", "file_name", "height", "width")


def _pack(entry: dict[str, Any]) -> dict[str, Any] | tuple[Any, Any, Any]:
    if "segments_info" in entry:
        return entry
    if "category_id" in entry and "id" in entry:
        return entry["id"], entry["category_id"], entry.get("iscrowd", 0)
    return {key: entry[key] for key in _IMAGE_KEYS if key in entry} if "file_name" in entry else entry


def _file_name(name: Any) -> str:
    """A relative path without "..", no longer than file systems allow: the JSON comes from elsewhere."""
    fit = isinstance(name, str) and name.isprintable() and 0 < len(name.encode()) <= _MAX_NAME
    if not fit or ".." in Path(name).parts or Path(name).is_absolute():
        raise ValueError(f"file_name {name!r}")
    return name


# Both together


def read_coco_panoptic(
    path: str | os.PathLike[str], rows: SegmentRows, instance_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Reads the maps of one image.

    Args:
        path: the PNG.
        rows: its segments in the JSON.
        instance_ids: (S,) instance id of each of them, 0 = none.

    Returns:
        class_map (H, W) uint8 train ids, 255 where the id is 0, and instance_map (H, W) int32.

    Raises:
        DataError: a bad PNG, or one with a segment that the JSON does not list.
    """
    found = find_segments(read_panoptic_ids(path))
    ids = np.concatenate([[0], rows.ids])
    place = np.searchsorted(ids, found.keys).clip(max=len(ids) - 1)
    unknown = found.keys[ids[place] != found.keys]
    if len(unknown):
        raise DataError(f"{path}: expected segments that the JSON lists, got {unknown[0]} ({len(unknown)} unlisted)")
    classes = np.concatenate([[VOID_ID], rows.class_ids]).astype(np.uint8)
    instances = np.concatenate([[0], instance_ids]).astype(np.int32)
    return found.paint(classes[place]), found.paint(instances[place])


def number_instances(rows: SegmentRows, spec: LabelSpec, tracks: np.ndarray | None = None) -> np.ndarray:
    """(S,) int32 instance ids: things that are no crowd count from 1 on by ascending segment id, all others are 0.

    Args:
        rows: the segments of an image.
        spec: says which classes are things.
        tracks: ascending segment ids to count in, those of the whole video; None takes this image's things.
    """
    thing = is_instance(rows, spec)
    tracks = rows.ids[thing] if tracks is None else tracks
    return np.where(thing, np.searchsorted(tracks, rows.ids) + 1, 0).astype(np.int32)


def is_instance(rows: SegmentRows, spec: LabelSpec) -> np.ndarray:
    """(S,) bool: segments of a thing class that are no crowd."""
    return np.isin(rows.class_ids, spec.thing_ids) & ~rows.crowd


def segments_info(found: Segments, ids: np.ndarray, category_ids: np.ndarray) -> list[dict[str, Any]]:
    """The JSON entries of an image's segments, crowd none, as predictions are handed in; id 0 (void) has none.

    Args:
        found: the segments of the map.
        ids: (S,) id in the PNG of each.
        category_ids: (S,) category id of each.
    """
    columns = (ids.tolist(), category_ids.tolist(), found.boxes.tolist(), found.areas.tolist())
    return [
        {"id": i, "category_id": category, "iscrowd": 0, "bbox": box, "area": area}
        for i, category, box, area in zip(*columns)
        if i
    ]


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes JSON in one piece and without blanks; raises OSError if it cannot."""
    write_bytes(path, json.dumps(content, separators=(",", ":")).encode())
