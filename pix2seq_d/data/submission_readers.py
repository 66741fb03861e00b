"""Predicted maps found in a folder: our own, or what a benchmark takes, as `export` or another tool has written it.

The inverse of submission_formats.py, but for ids: a predicted object has the id of its segment. H, W size of a frame.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pix2seq_d.data.bdd100k import read_bitmask
from pix2seq_d.data.coco_format import PanopticIndex, SegmentRows, read_coco_panoptic, read_json
from pix2seq_d.data.folder import list_images
from pix2seq_d.data.formats import MAX_PIXELS, DataError, as_one_line, png_header, read_label_map
from pix2seq_d.data.rle import decode_mask
from pix2seq_d.data.submission import list_predictions
from pix2seq_d.data.submission_formats import Prediction, cityscapes_id, read_prediction, read_targets
from pix2seq_d.labels import LabelSpec

Maps = tuple[np.ndarray, np.ndarray | None]
Name = Callable[[Prediction], str]


class PredictedMaps(ABC):
    """The predicted maps of a folder by the names of their frames.

    Attributes:
        files: the file of every frame, for messages too.
        label_spec: the classes of the maps that `read` gives.
    """

    files: dict[str, Path]
    label_spec: LabelSpec

    @abstractmethod
    def read(self, name: str, size: tuple[int, int]) -> Maps:
        """The maps of a frame.

        Args:
            name: a key of `files`.
            size: (H, W) of a frame without any segment, where the form does not state it.

        Returns:
            (H, W) train ids and (H, W) instance ids, 0 = none; the latter None where no class has instances.

        Raises:
            DataError: the file is broken, or holds a class that the spec does not have.
        """


class OwnMaps(PredictedMaps):
    """The PNGs of `inference.py` (KITTI-STEP's encoding); where no class has instances, those of class ids as well.

    Args:
        predictions: the maps; their `label_spec` are their classes, None = those wanted.
        name: of a frame.
        label_spec: classes wanted.

    Raises:
        DataError: two maps of one frame.
    """

    def __init__(self, predictions: Sequence[Prediction], name: Name, label_spec: LabelSpec) -> None:
        self._predictions = _unique((name(p), p.path, p) for p in predictions)
        self.files = {key: p.path for key, p in self._predictions.items()}
        self.label_spec = label_spec

    def read(self, name: str, size: tuple[int, int]) -> Maps:
        """The maps of a frame."""
        prediction, spec = self._predictions[name], self.label_spec
        if not spec.thing_ids and prediction.label_spec in (None, spec) and _kind(prediction.path) != "RGB":
            return read_label_map(prediction.path, spec), None
        class_map, instance_map = read_prediction(prediction, spec)
        return class_map, instance_map if spec.thing_ids else None


class Bitmasks(PredictedMaps):
    """BDD100K bitmasks; the flags of predictions mean nothing."""

    def __init__(self, predictions: Sequence[Prediction], name: Name, label_spec: LabelSpec) -> None:
        self.files = _unique((name(p), p.path, p.path) for p in predictions)
        self.label_spec = label_spec

    def read(self, name: str, size: tuple[int, int]) -> Maps:
        """The maps of a frame."""
        path, spec = self.files[name], self.label_spec
        categories, _, ids = read_bitmask(path)
        if (largest := int(categories.max())) > spec.num_classes:
            raise DataError(f"{path}: expected categories 0..{spec.num_classes}, got {largest}")
        class_map = spec.to_train_ids(categories)
        return class_map, np.where(spec.is_thing(class_map), ids, 0)


class ScalabelMasks(PredictedMaps):
    """A Scalabel JSON (a list of frames, or an object with `frames`) with a compressed RLE for every segment.

    Args:
        path: the JSON.
        label_spec: its names are the categories.

    Raises:
        DataError: not such a JSON, or two frames of one name.
    """

    def __init__(self, path: Path, label_spec: LabelSpec) -> None:
        self.path, self.label_spec = path, label_spec
        content = _load(path)
        frames: Any = content.get("frames") if isinstance(content, dict) else content
        try:
            found = [(Path(frame["name"]).stem, path, frame["labels"] or []) for frame in frames]
            for _, _, labels in found:
                for label in labels:
                    _ = label["category"], label["rle"]["counts"], tuple(map(int, label["rle"]["size"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            got = as_one_line(repr(error))
            raise DataError(f"{path}: expected a Scalabel JSON of frames and labels with rle, got {got}") from None
        self._labels = _unique(found)
        self.files = dict.fromkeys(self._labels, path)

    def read(self, name: str, size: tuple[int, int]) -> Maps:
        """The maps of a frame: object k is the k-th label."""
        labels, spec = self._labels[name], self.label_spec
        sizes = {tuple(map(int, label["rle"]["size"])) for label in labels} or {size}
        height, width, *more = (*sizes.pop(), 0, 0)
        if sizes or more != [0, 0] or not 0 < height * width <= MAX_PIXELS or height < 0:
            raise DataError(f"{self.path}: {name}: expected labels of one size [height, width], got others")
        size = height, width
        class_map, instance_map = np.full(size, spec.void_id, np.uint8), np.zeros(size, np.int32)
        for k, label in enumerate(labels, 1):
            mask = self._mask(name, label)
            if (class_map[mask] != spec.void_id).any():
                raise DataError(f"{self.path}: {name}: expected masks that do not overlap, got label {k} on others")
            class_map[mask] = spec.class_names.index(label["category"])
            instance_map[mask] = k
        return class_map, np.where(spec.is_thing(class_map), instance_map, 0)

    def _mask(self, name: str, label: dict[str, Any]) -> np.ndarray:
        if label["category"] not in self.label_spec.class_names:
            got = as_one_line(repr(label["category"]))
            raise DataError(f"{self.path}: {name}: expected categories of {self.label_spec.name}, got {got}")
        height, width = map(int, label["rle"]["size"])
        try:
            return decode_mask(str(label["rle"]["counts"]), (height, width))
        except ValueError as error:
            raise DataError(f"{self.path}: {name}: {error}") from None


class PanopticPngs(PredictedMaps):
    """Panoptic PNGs (v = R + 256 G + 65536 B) with the segments of a JSON.

    Args:
        files: PNG of every frame.
        rows: segments of every frame.
        label_spec: the classes of these.
    """

    def __init__(self, files: dict[str, Path], rows: dict[str, SegmentRows], label_spec: LabelSpec) -> None:
        self.files, self._rows, self.label_spec = files, rows, label_spec

    def read(self, name: str, size: tuple[int, int]) -> Maps:
        """The maps of a frame; a segment of a thing is an object, called by its id."""
        rows = self._rows[name]
        ids = np.where(np.isin(rows.class_ids, self.label_spec.thing_ids), rows.ids, 0)
        return read_coco_panoptic(self.files[name], rows, ids)


# Which of them a folder holds


def find_predictions(
    root: str | os.PathLike[str],
    spec: LabelSpec,
    name: Name,
    *,
    source: LabelSpec | None = None,
    targets: Path | None = None,
) -> PredictedMaps:
    """The predictions in a folder, in whichever form.

    Args:
        root: KITTI-STEP maps, or a folder that holds them as panoptic/; or, as the label spec says, what `export`
            writes: NAME.json with NAME/ (coco, cityscapes), pred.json with pan_pred/ (cityscapes-vps), bitmasks or
            one Scalabel JSON (bdd100k).
        spec: the classes wanted.
        name: of the frame that a map belongs to.
        source: the classes of our own maps, which are mapped by name; None = `spec`. Other forms have their format's.
        targets: the ground truth's JSON of cityscapes-vps, which says whose annotations those of pred.json are.

    Raises:
        DataError: nothing of this kind, or not as its format says.
        ValueError: a source for a form that has its own classes.
    """
    root = Path(root)
    found = _find_submission(root, spec, name, targets)
    if found is None:
        return OwnMaps(list_predictions(root, source), name, spec)
    if source is not None and source != spec:
        raise ValueError(
            f"{root}: expected predictions in the classes of {spec.name}, as a submission has, got "
            f"those of {source.name}"
        )
    return found


def _find_submission(root: Path, spec: LabelSpec, name: Name, targets: Path | None) -> PredictedMaps | None:
    jsons = sorted(root.glob("*.json")) if root.is_dir() else []
    if spec.name == "cityscapes-vps" and targets is not None and (root / "pred.json") in jsons:
        return read_vps_predictions(root / "pred.json", targets, spec)
    if spec.name in ("coco", "cityscapes", "cityscapes-step"):
        paired = [path for path in jsons if path.with_suffix("").is_dir()]
        if len(paired) > 1:
            raise DataError(f"{root}: expected one JSON with its folder, found {paired[0].name} and {paired[1].name}")
        return read_panoptic_predictions(paired[0], spec, name) if paired else None
    if spec.name == "bdd100k":
        if len(jsons) == 1 and not list_images(root) and not (root / "panoptic").is_dir():
            return ScalabelMasks(jsons[0], spec)
        predictions = list_predictions(root)
        return Bitmasks(predictions, name, spec) if _kind(predictions[0].path) == "RGBA" else None
    return None


def read_panoptic_predictions(path: Path, spec: LabelSpec, name: Name) -> PanopticPngs:
    """NAME.json with the PNGs in NAME/, COCO's result format; its category ids are the spec's dataset ids.

    Raises:
        DataError: not such a JSON, a category that the spec does not have, two annotations of one image.
    """
    index = PanopticIndex(path, spec)
    try:
        image_ids = [str(a["image_id"]) for a in read_json(path)["annotations"]]
    except KeyError as error:
        raise DataError(f"{path}: expected annotations with {error}, got one without") from None
    folder = path.with_suffix("")
    keys = [name(Prediction(folder / f"{image_id}.png", "")) for image_id in image_ids]
    files = _unique((key, path, folder / png) for key, png in zip(keys, index.label_names))
    return PanopticPngs(files, {key: index.rows(k) for k, key in enumerate(files)}, spec)


def read_vps_predictions(path: Path, targets: Path, spec: LabelSpec) -> PanopticPngs:
    """pred.json, whose annotations are in the order of the ground truth, with pan_pred/{image id}.png.

    Args:
        path: pred.json.
        targets: the ground truth's JSON.
        spec: the classes; categories are its train ids.

    Raises:
        DataError: not such JSONs, other numbers of frames, a category or id that cannot be.
    """
    image_ids = [str(target.image_id) for target in read_targets(targets)]
    try:
        segments = [a["segments_info"] for a in read_json(path)["annotations"]]
        tables = [np.array(s, np.int64).reshape(-1, 3) for s in segments]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        got = as_one_line(repr(error))
        raise DataError(f"{path}: expected annotations with segments_info, got {got}") from None
    if len(tables) != len(image_ids):
        raise DataError(f"{path}: expected {len(image_ids)} annotations, those of {targets.name}, got {len(tables)}")
    files: dict[str, Path] = {}
    rows: dict[str, SegmentRows] = {}
    for image_id, table in zip(image_ids, tables):
        png = path.parent / "pan_pred" / f"{image_id}.png"
        key = cityscapes_id(Prediction(png, ""))
        files[key], rows[key] = png, _rows(path, image_id, table, spec)
    return PanopticPngs(files, rows, spec)


def _rows(path: Path, image_id: str, table: np.ndarray, spec: LabelSpec) -> SegmentRows:
    ids, categories, crowd = table[np.argsort(table[:, 0], kind="stable")].T
    wrong = (categories < 0) | (categories >= spec.num_classes) | (ids < 1) | (ids >= 1 << 24)
    wrong[1:] |= ids[1:] == ids[:-1]
    if wrong.any():
        k = int(np.argmax(wrong))
        raise DataError(
            f"{path}: expected different ids in 1..2^24 - 1 and categories 0..{spec.num_classes - 1}, got segment "
            f"{ids[k]} of category {categories[k]} in {image_id}"
        )
    return SegmentRows(ids.astype(np.int32), categories.astype(np.uint8), crowd != 0)


def _load(path: Path) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise DataError(f"{path}: expected a JSON file, cannot open it ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON file, got one that is broken or cut off ({error})") from None


def _kind(path: Path) -> str:
    header = png_header(path)
    return header.kind if header is not None else "no PNG"


def _unique(entries: Iterable[tuple[str, Path, Any]]) -> dict[str, Any]:
    """Values by key, from (key, file, value); raises DataError, naming the file, for a key that occurs twice."""
    found: dict[str, Any] = {}
    for key, path, value in entries:
        if key in found:
            raise DataError(f"{path}: expected one map of {key}, found two")
        found[key] = value
    return found
