"""Writers of what the benchmarks' own evaluators and servers read, from predictions in KITTI-STEP's encoding.

A segment is a class of stuff, an instance of a thing, or what a thing has without instance; no segment is a crowd,
since only ground truth has crowds. H, W size of a frame, S segments of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pix2seq_d.data.bdd100k import MAX_ANNOTATION_ID, Bitmask, write_bitmask
from pix2seq_d.data.cityscapes_ids import MAX_INSTANCES, encode_ids
from pix2seq_d.data.coco_format import read_json, segments_info, write_json, write_panoptic_ids
from pix2seq_d.data.folder import frame_number
from pix2seq_d.data.formats import DataError, as_one_line, check_class_ids, read_kitti_step, write_kitti_step
from pix2seq_d.data.labelled_videos import check_same_size
from pix2seq_d.data.rle import encode_segments
from pix2seq_d.data.segments import Segments, find_segments
from pix2seq_d.label_mapping import remap
from pix2seq_d.labels import LABEL_DIVISOR, LabelSpec

_CITYSCAPES_ID = re.compile(r"[A-Za-z-]+_[0-9]{6}_[0-9]{6}")
_VPS_PREFIX = re.compile(r"^[0-9]{4}_[0-9]{4}_")


class Prediction(NamedTuple):
    """The map of one frame.

    Attributes:
        path: the PNG.
        sequence_id: its folder, relative to that of all predictions.
        label_spec: the classes of the map; None = those of the format.
    """

    path: Path
    sequence_id: str
    label_spec: LabelSpec | None = None

    @property
    def stem(self) -> str:
        """Name of the frame, without what Cityscapes appends to it."""
        return re.sub("_(left|new)Img8bit$", "", self.path.stem)


class Target(NamedTuple):
    """An image that the ground truth asks for: its id and, where the JSON has them, its (H, W)."""

    image_id: Any
    size: tuple[int, ...] | None


Targets = Sequence[Target] | None  # None: whatever was predicted


def read_targets(path: Path, *, one_order: bool = False) -> list[Target]:
    """The images that a panoptic JSON has annotations of, in the order of these; of an image_info JSON all images.

    Args:
        path: the file.
        one_order: images and annotations must have one order: for an evaluator that goes through both.

    Raises:
        DataError: no such JSON, no images, annotations of other images, or two orders where one is needed.
    """
    content = read_json(path)
    try:
        targets = [
            Target(i["id"], (int(i["height"]), int(i["width"])) if "height" in i and "width" in i else None)
            for i in content["images"]
        ]
        annotated = [a["image_id"] for a in content.get("annotations", ())]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        got = as_one_line(repr(error))
        raise DataError(f"{path}: expected a JSON with images and their ids, got {got}") from None
    if not targets or not all(isinstance(i, int | str) for i in (*(t.image_id for t in targets), *annotated)):
        raise DataError(f"{path}: expected images with numbers or names as ids, found {len(targets)} images")
    if not annotated:
        return targets
    if one_order and annotated != [t.image_id for t in targets]:
        raise DataError(f"{path}: expected images and annotations in one order, got two orders")
    known = {t.image_id: t for t in targets}
    if lost := [i for i in annotated if i not in known]:
        raise DataError(f"{path}: expected an image for every annotation, found none for {as_one_line(str(lost[0]))}")
    return [known[i] for i in annotated]


# Which prediction is which image


class Selected(NamedTuple):
    """A prediction that is handed in.

    Attributes:
        image_id: what the benchmark calls the image.
        prediction: its map.
        size: (H, W) that the ground truth wants, None = any.
    """

    image_id: Any
    prediction: Prediction
    size: tuple[int, ...] | None


def select(
    predictions: Iterable[Prediction], image_id: Callable[[Prediction], str | int], targets: Targets
) -> list[Selected]:
    """What the ground truth asks for, in its order; without one everything.

    Args:
        predictions: the maps, which need not exist yet.
        image_id: gives the image of a map, without the video that Cityscapes-VPS puts before.
        targets: the images of the ground truth.

    Raises:
        DataError: a name that is no image's, two maps of one image, an image of the ground truth without map.
    """
    named: dict[Any, Prediction] = {}
    for prediction in predictions:
        key = image_id(prediction)
        if key in named:
            raise DataError(f"{prediction.path}: expected one map of {key}, found {named[key].path} too")
        named[key] = prediction
    if targets is None:
        return [Selected(key, prediction, None) for key, prediction in named.items()]
    wanted = [_VPS_PREFIX.sub("", t.image_id) if isinstance(t.image_id, str) else t.image_id for t in targets]
    if missing := [str(t.image_id) for t, key in zip(targets, wanted) if key not in named]:
        first = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"ground_truth: expected a prediction for each of the {len(targets)} images of it, "
            f"found none for {len(missing)} of them ({first})"
        )
    return [Selected(target.image_id, named[key], target.size) for target, key in zip(targets, wanted)]


def step_id(prediction: Prediction) -> str:
    """{seq:04d}/{frame:06d}; DataError for a sequence or frame without a number."""
    folders = [name for name in prediction.sequence_id.split("/") if name != "img1"]
    sequence = re.fullmatch(r"(?:.*[-_])?([0-9]+)", folders[-1]) if folders else None
    if not sequence:
        raise DataError(f"{prediction.path}: expected a folder called by the number of its sequence, like 0002")
    return f"{int(sequence[1]):04d}/{frame_number(prediction.path):06d}"


def coco_id(prediction: Prediction) -> int:
    """The number that the frame is called by; DataError for another name."""
    if not prediction.stem.isdecimal():
        raise DataError(f"{prediction.path}: expected a COCO frame called by its image id, like 000000142238.png")
    return int(prediction.stem)


def cityscapes_id(prediction: Prediction) -> str:
    """{city}_{seq}_{frame}, also of a name of Cityscapes-VPS; DataError for another one."""
    name = _VPS_PREFIX.sub("", prediction.stem)
    if not _CITYSCAPES_ID.fullmatch(name):
        raise DataError(f"{prediction.path}: expected a frame called like frankfurt_000000_000294_leftImg8bit.png")
    return name


def bdd100k_id(prediction: Prediction) -> str:
    """Any name."""
    return prediction.stem


# Frames as segments


def read_prediction(prediction: Prediction, spec: LabelSpec) -> tuple[np.ndarray, np.ndarray]:
    """Class map and instance map of a prediction in the classes of `spec` (`remap`), instance 0 outside of its things.

    Raises:
        DataError: a broken map, a class that its own spec does not have, or ids that become too large.
    """
    path, source = prediction.path, prediction.label_spec or spec
    class_map, instance_map = read_kitti_step(path)
    check_class_ids(path, class_map, source)
    class_map, instance_map = remap(class_map, instance_map, source, spec)
    if (largest := instance_map.max(initial=0)) >= LABEL_DIVISOR:  # only where several kinds of things become one
        raise DataError(f"{path}: expected instance ids below {LABEL_DIVISOR} as {spec.name} counts, got {largest}")
    return class_map, instance_map


def _read_segments(prediction: Prediction, spec: LabelSpec) -> Segments:
    """The segments of a prediction; key = class code * 65536 + instance, 0 for void, the same in every frame."""
    class_map, instance_map = read_prediction(prediction, spec)
    codes = np.arange(1, 257, dtype=np.int32) * LABEL_DIVISOR
    codes[spec.void_id] = 0
    return find_segments(codes[class_map] + instance_map)


def _category_ids(keys: np.ndarray, spec: LabelSpec) -> np.ndarray:
    """(S,) category id on disk of every segment, 0 for void."""
    known = np.array([0, *(spec.dataset_ids or range(spec.num_classes))])
    return known[keys // LABEL_DIVISOR]


# KITTI-STEP and MOTChallenge-STEP


def write_step(selected: Sequence[Selected], spec: LabelSpec, folder: Path) -> None:
    """{seq:04d}/{frame:06d}.png in KITTI-STEP's encoding; ids are kept."""
    for name, prediction, _ in selected:
        write_kitti_step(folder / f"{name}.png", *read_prediction(prediction, spec))


# COCO, Cityscapes and Cityscapes-VPS


def write_coco(selected: Sequence[Selected], spec: LabelSpec, folder: Path) -> None:
    """NAME.json and NAME/{image id:012d}.png in COCO's panoptic result format; NAME is that of the folder."""
    annotations = []
    for image_id, prediction, size in selected:
        name = f"{image_id:012d}.png"
        entries = _write_ids(folder / folder.name / name, prediction, spec, size)
        annotations.append({"image_id": image_id, "file_name": name, "segments_info": entries})
    write_json(folder / f"{folder.name}.json", {"annotations": annotations})


def write_cityscapes(selected: Sequence[Selected], spec: LabelSpec, folder: Path) -> None:
    """NAME.json and NAME/{city}_{seq}_{frame}.png with Cityscapes' ids; NAME is that of the folder.

    Segment ids are those of its instanceIds (`encode_ids`). A class with an instance above 1000 in a frame has its
    instances numbered anew there, from 1.

    Raises:
        DataError: a frame with more than 1000 instances of a class.
    """
    annotations = []
    for image_id, prediction, size in selected:
        name = f"{image_id}.png"
        entries = _write_ids(folder / folder.name / name, prediction, spec, size, number=_cityscapes_segment_ids)
        annotations.append({"image_id": image_id, "file_name": name, "segments_info": entries})
    write_json(folder / f"{folder.name}.json", {"annotations": annotations})


def write_cityscapes_vps(selected: Sequence[Selected], spec: LabelSpec, folder: Path) -> None:
    """pred.json and pan_pred/{image id}.png: only the frames of the ground truth, in its order, without image ids.

    Segment ids are the same in all frames of a video.
    """
    annotations = []
    for image_id, prediction, size in selected:
        entries = _write_ids(folder / "pan_pred" / f"{image_id}.png", prediction, spec, size)
        annotations.append({"segments_info": entries})
    write_json(folder / "pred.json", {"annotations": annotations})


def _write_ids(
    target: Path,
    prediction: Prediction,
    spec: LabelSpec,
    size: tuple[int, ...] | None,
    *,
    number: Callable[[np.ndarray, LabelSpec, Path], np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """Writes the PNG of a frame, its keys as segment ids unless they are numbered, and gives its JSON entries."""
    found = _read_segments(prediction, spec)
    check_same_size(prediction.path, found.shape, "the image in the ground truth", size or found.shape)
    ids = found.keys if number is None else number(found.keys, spec, prediction.path)
    write_panoptic_ids(target, found.paint(ids))
    return segments_info(found, ids, _category_ids(found.keys, spec))


def _cityscapes_segment_ids(keys: np.ndarray, spec: LabelSpec, path: Path) -> np.ndarray:
    codes, instances = np.divmod(keys, LABEL_DIVISOR)
    for code in np.unique(codes[instances > MAX_INSTANCES]):
        chosen = (codes == code) & (instances > 0)
        instances[chosen] = np.arange(1, np.count_nonzero(chosen) + 1)
        if instances[chosen][-1] > MAX_INSTANCES:
            name = spec.class_names[code - 1]
            raise DataError(
                f"{path}: expected at most {MAX_INSTANCES} instances of {name}, got {instances[chosen][-1]}"
            )
    return encode_ids(np.where(codes > 0, codes - 1, spec.void_id), instances, spec)


# BDD100K


def write_bdd100k(selected: Sequence[Selected], spec: LabelSpec, folder: Path) -> None:
    """{name}.png bitmasks without flags; annotation ids as in the ground truth, see `_annotation_ids`.

    Raises:
        DataError: a frame with more segments than 16 bits number.
    """
    for name, prediction, _ in selected:
        found = _read_segments(prediction, spec)
        ids = _annotation_ids(found, spec, prediction.path)
        categories = _category_ids(found.keys, spec).astype(np.uint8)
        plane = found.paint(categories)
        write_bitmask(folder / f"{name}.png", Bitmask(plane, np.zeros_like(plane), found.paint(ids)))


def write_scalabel(selected: Sequence[Selected], spec: LabelSpec, folder: Path) -> None:
    """pan_seg.json, frames in Scalabel's format with a compressed RLE for every segment.

    Raises:
        DataError: as `write_bdd100k`.
    """
    frames = []
    for name, prediction, _ in selected:
        found = _read_segments(prediction, spec)
        ids = _annotation_ids(found, spec, prediction.path)
        names = dict(zip(ids.tolist(), (found.keys // LABEL_DIVISOR).tolist()))
        labels = [
            {"id": str(i), "category": spec.class_names[names[i] - 1], "rle": {"counts": text, "size": found.shape}}
            for i, text in encode_segments(found.paint(ids))
            if i
        ]
        frames.append({"name": f"{name}.jpg", "labels": labels})
    write_json(folder / "pan_seg.json", frames)


def _annotation_ids(found: Segments, spec: LabelSpec, path: Path) -> np.ndarray:
    """(S,) annotation ids: stuff has its category id, things count on from there, largest first.

    The official evaluator reads the first hundred segments of a frame only: those left out are then small.
    """
    ids = _category_ids(found.keys, spec).astype(np.int32)
    thing = np.isin(found.keys // LABEL_DIVISOR - 1, spec.thing_ids)
    first = spec.num_classes - len(spec.thing_ids) + 1
    if first + thing.sum() - 1 > MAX_ANNOTATION_ID:
        raise DataError(f"{path}: expected at most {MAX_ANNOTATION_ID} segments, got {first + thing.sum() - 1}")
    order = np.flatnonzero(thing)[np.argsort(-found.areas[thing], kind="stable")]
    ids[order] = np.arange(first, first + len(order))
    return ids
