"""What is scored: the frames of every sequence with a predicted and a target map, from folders of maps alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from pix2seq_d.data.folder import frame_number, list_sequences, natural_key
from pix2seq_d.data.formats import (
    IMAGE_SUFFIXES,
    DataError,
    check_class_ids,
    png_header,
    read_image,
    read_kitti_step,
    read_label_map,
)
from pix2seq_d.data.labelled_folder import read_own_map
from pix2seq_d.labels import LabelSpec

Maps = tuple[np.ndarray, np.ndarray | None]
_FrameKey = tuple[str, int]  # the file name without its last number, and that number


class Frame(NamedTuple):
    """A frame to be scored.

    Attributes:
        name: sequence and frame, for people.
        prediction: file of the predicted map, for error messages.
        target: what `Pairs.read` finds the frame by.
        number: its place in the sequence, ascending with gaps; None where the names hold no such order.
    """

    name: str
    prediction: Path
    target: Any
    number: int | None = None


class Pairs(Protocol):
    """Frames with two maps; must survive pickling, for processes of their own."""

    spec: LabelSpec
    sequences: Mapping[str, Sequence[Frame]]

    def read(self, frame: Frame) -> tuple[Maps, Maps]:
        """Predicted and target (class map, instance map), (H, W) integers; instance maps None without things."""

    def read_image(self, frame: Frame) -> np.ndarray | None:
        """(H, W, 3) uint8, None where there is no image at hand."""


class FolderPairs:
    """Maps in two folders, KITTI-STEP PNGs `{sequence}/{frame}.png` or one sequence's files directly.

    Frames are paired by their number. Where the spec has no things, greyscale PNGs of class ids (CamVid's 0..10, 11
    void) do as well. Images are looked for beside the maps, and in images/ instead of panoptic_maps/, panoptic/ or
    labels/.

    Args:
        predictions: that folder, or one that contains it as `panoptic/`.
        ground_truth: that folder, for KITTI-STEP `panoptic_maps/{split}`, or `video_sequence/{split}` with its images
            beside the maps.
        spec: the classes on both sides.
        own_maps: the ground truth are maps of the dataset "folder" (`read_own_map`): they hold the spec's dataset ids,
            and may be greyscale or palette PNGs.

    Raises:
        ValueError: a missing folder, sequences or frames that only one side has.
    """

    def __init__(
        self,
        predictions: str | os.PathLike[str],
        ground_truth: str | os.PathLike[str],
        spec: LabelSpec,
        *,
        own_maps: bool = False,
    ) -> None:
        self.spec, self.own_maps = spec, own_maps
        sequences: dict[str, list[Frame]] = {}
        for sequence_id, prediction, target in _pairs(Path(predictions), Path(ground_truth)):
            name = f"{sequence_id}/{prediction.stem}"
            sequences.setdefault(sequence_id, []).append(Frame(name, prediction, target))
        self.sequences: Mapping[str, Sequence[Frame]] = {key: _in_order(frames) for key, frames in sequences.items()}

    def read(self, frame: Frame) -> tuple[Maps, Maps]:
        """Both maps; raises DataError for a broken file."""
        path = Path(frame.target)
        target = read_own_map(path, self.spec) if self.own_maps else _read(path, self.spec)
        check_class_ids(path, target[0], self.spec)
        return _read(frame.prediction, self.spec), target

    def read_image(self, frame: Frame) -> np.ndarray | None:
        """The image that lies beside the map, or where its folder says; None where it is missing or broken."""
        path = Path(frame.target)
        beside = path.with_name(f"{path.stem.removesuffix('_panoptic')}_leftImg8bit.png")
        candidates = [beside] if beside.is_file() else _images_of(path)
        try:
            return read_image(candidates[0]) if candidates else None
        except DataError:
            return None


def _images_of(path: Path) -> list[Path]:
    """The image files that a map of this place may belong to."""
    parts = path.parts
    for name in ("panoptic_maps", "panoptic", "labels"):
        if name in parts:
            k = len(parts) - 1 - parts[::-1].index(name)
            image = Path(*parts[:k], "images", *parts[k + 1 :])
            return [p for suffix in IMAGE_SUFFIXES if (p := image.with_suffix(suffix)).is_file()]
    return []


def check_same_frames(root: Path, missing: Iterable[str], extra: Iterable[str]) -> None:
    """Raises ValueError, naming the first ones, if frames of the ground truth have no map or maps have no frame."""
    faults = [*_listed("missing frames", set(missing)), *_listed("extra frames", set(extra))]
    if faults:
        raise ValueError(f"{root}: expected one map for each frame of the ground truth, got {'; '.join(faults)}")


def _pairs(predictions: Path, ground_truth: Path) -> list[tuple[str, Path, Path]]:
    """(sequence, predicted file, target file), in the order of evaluation."""
    if (predictions / "panoptic").is_dir():
        predictions = predictions / "panoptic"
    preds, targets = _index_folder(predictions), _index_folder(ground_truth)
    flat = any(path.parent in (predictions, ground_truth) for side in (preds, targets) for path in side.values())
    if flat and {len({sequence for sequence, _ in side}) for side in (preds, targets)} == {1}:
        (sequence_id, _), *_ = targets  # a single sequence needs no name
        preds = {(sequence_id, frame): path for (_, frame), path in preds.items()}
    _check_same_frames(predictions, preds, targets)
    return [(key[0], preds[key], _map_of(target)) for key, target in targets.items()]


def _in_order(frames: list[Frame]) -> list[Frame]:
    """The frames, without their numbers where these start anew (a_0, a_1, b_0 in one folder)."""
    numbers = [frame_number(frame.prediction) for frame in frames]
    ascending = all(a < b for a, b in pairwise(numbers))
    return [frame._replace(number=n) for frame, n in zip(frames, numbers)] if ascending else frames


def _map_of(path: Path) -> Path:
    """The map that lies beside an image of the Hub's KITTI-STEP; the file itself where it is a map."""
    beside = path.with_name(f"{path.stem.removesuffix('_leftImg8bit')}_panoptic.png")
    return beside if beside.is_file() else path


def _index_folder(root: Path) -> dict[tuple[str, _FrameKey], Path]:
    files: dict[tuple[str, _FrameKey], Path] = {}
    for sequence in list_sequences(root):
        for path in sequence.paths:
            key = sequence.sequence_id, _frame_key(path)
            if key in files:
                raise ValueError(f"{path}: expected one file per frame number, got {files[key].name} as well")
            files[key] = path
    return files


def _frame_key(path: Path) -> _FrameKey:
    return re.sub(r"[0-9]+(?=[^0-9]*$)", "", path.stem), frame_number(path)


def _check_same_frames(
    folder: Path, preds: Mapping[tuple[str, _FrameKey], Path], targets: Mapping[tuple[str, _FrameKey], Path]
) -> None:
    pred_sequences, target_sequences = {s for s, _ in preds}, {s for s, _ in targets}
    both = pred_sequences & target_sequences
    faults = [
        *_listed("missing sequences", target_sequences - pred_sequences),
        *_listed("extra sequences", pred_sequences - target_sequences),
        *_listed("missing frames", _names(targets, targets.keys() - preds.keys(), both)),
        *_listed("extra frames", _names(preds, preds.keys() - targets.keys(), both)),
    ]
    if faults:
        raise ValueError(f"{folder}: expected the sequences and frames of the ground truth, got {'; '.join(faults)}")


def _names(files: Mapping[Any, Path], keys: set[tuple[str, _FrameKey]], sequences: set[str]) -> set[str]:
    return {f"{sequence}/{files[sequence, frame].name}" for sequence, frame in keys if sequence in sequences}


def _listed(what: str, names: set[str]) -> list[str]:
    """One entry with the number of names and the first ten; none if there are none."""
    first = ", ".join(sorted(names, key=natural_key)[:10])
    return [f"{len(names)} {what} ({first}{', ...' if len(names) > 10 else ''})"] if names else []


def _read(path: Path, spec: LabelSpec) -> tuple[np.ndarray, np.ndarray | None]:
    header = png_header(path)
    if not spec.thing_ids and header is not None and header.kind in ("greyscale", "palette"):
        return read_label_map(path, spec), None
    class_map, instance_map = read_kitti_step(path)
    return class_map, instance_map if spec.thing_ids else None
