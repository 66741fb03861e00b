"""All metrics in one pass, over maps in memory or over folders of PNG files, and their report as a table or as JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pix2seq_d.data.folder import frame_number, list_sequences, natural_key
from pix2seq_d.data.formats import png_header, read_kitti_step, read_label_map, write_bytes
from pix2seq_d.data.labelled_folder import read_own_map
from pix2seq_d.labels import LabelSpec
from pix2seq_d.metrics import MeanIoU, PanopticQuality, SegmentationTrackingQuality, VideoPanopticQuality
from pix2seq_d.metrics.counts import ClassLayout, IntegerMap, SegmentationMetric, SequenceId, joint_counts

_FrameKey = tuple[str, int]  # the file name without its last number, and that number


class Evaluator:
    """PQ, VPQ, STQ and mIoU from one histogram per frame; VPQ and STQ only where the spec has things.

    Args:
        spec: the classes.
        windows: window sizes of VPQ.
    """

    def __init__(self, spec: LabelSpec, *, windows: Sequence[int] = (1, 2, 3, 4)) -> None:
        self.spec = spec
        classes = spec.num_classes, spec.thing_ids, spec.void_id
        self.layout = ClassLayout(*classes)
        # VPQ first: it is the one that may refuse a frame or a merge, before another metric has counted it.
        self.metrics: dict[str, SegmentationMetric] = {}
        if spec.thing_ids:
            self.metrics["vpq"] = VideoPanopticQuality(*classes, windows=windows)
            self.metrics["stq"] = SegmentationTrackingQuality(*classes)
        self.metrics["pq"] = PanopticQuality(*classes)
        self.metrics["miou"] = MeanIoU(spec.num_classes, spec.void_id)

    def update(
        self,
        pred_semantic: IntegerMap,
        pred_instance: IntegerMap | None,
        target_semantic: IntegerMap,
        target_instance: IntegerMap | None,
        sequence_id: SequenceId = "0",
        *,
        where: str | None = None,
    ) -> None:
        """Adds one frame; the frames of a sequence come in order and in one go.

        Args:
            pred_semantic: (H, W) class ids, NumPy array or tensor of any integer dtype.
            pred_instance: (H, W) instance ids; None only for a spec without things.
            target_semantic: (H, W) class ids.
            target_instance: (H, W) instance ids, 0 = crowd in thing classes; None as above.
            sequence_id: the video.
            where: beginning of error messages, sequence and frame number if None.

        Raises:
            TypeError, ValueError: as `pix2seq_d.metrics.counts.joint_counts`; nothing is counted then.
        """
        frame = self.metrics["pq"].num_frames.get(sequence_id, 0)
        where = where or f"sequence {sequence_id!r}, frame {frame}"
        maps = pred_semantic, pred_instance, target_semantic, target_instance
        counts = joint_counts(*maps, layout=self.layout, where=where)
        for metric in self.metrics.values():
            metric.update_counts(counts, sequence_id=sequence_id)

    def merge(self, other: Evaluator) -> None:
        """Adds what `other` has seen; raises ValueError for another spec or, where it has things, a shared sequence."""
        if other.spec != self.spec:
            raise ValueError(f"merge: expected label spec {self.spec.name}, got {other.spec.name}")
        for name, metric in self.metrics.items():
            metric.merge(other.metrics[name])

    def compute(self) -> dict[str, Any]:
        """Everything as one dict that JSON can hold.

        Returns:
            `spec` and `num_frames`; under `pq`, `vpq`, `stq` and `miou` what those metrics' `compute` gives, with class
            names as keys of `per_class` and strings as all other keys. `vpq` and `stq` are missing without things.
        """
        results = {name: self.metrics[name].compute() for name in ("pq", "vpq", "stq", "miou") if name in self.metrics}
        return {
            "spec": self.spec.name,
            "num_frames": results["pq"]["num_frames"],
            **{name: _with_names(result, self.spec.class_names) for name, result in results.items()},
        }

    def reset(self) -> None:
        """Forgets everything that was added."""
        for metric in self.metrics.values():
            metric.reset()


def evaluate_folders(
    predictions: str | os.PathLike[str],
    ground_truth: str | os.PathLike[str],
    spec: LabelSpec,
    *,
    windows: Sequence[int] = (1, 2, 3, 4),
    own_maps: bool = False,
) -> dict[str, Any]:
    """Evaluates a folder of predicted maps.

    Both sides hold KITTI-STEP PNGs `{sequence}/{frame}.png`, or one sequence's files directly; frames are paired by
    their number. Where the spec has no things, greyscale PNGs of class ids (CamVid's 0..10, 11 void) do as well.

    Args:
        predictions: that folder, or one that contains it as `panoptic/`.
        ground_truth: that folder, for KITTI-STEP `panoptic_maps/{split}`, or `video_sequence/{split}` with its images
            beside the maps.
        spec: the classes on both sides.
        windows: window sizes of VPQ.
        own_maps: the ground truth are maps of the dataset "folder" (`read_own_map`): they hold the spec's dataset ids,
            and may be greyscale or palette PNGs.

    Returns:
        What `Evaluator.compute` returns.

    Raises:
        ValueError: a missing folder, sequences or frames that only one side has, a broken file, sizes that differ.
    """
    evaluator = Evaluator(spec, windows=windows)
    for sequence_id, pred_path, target_path in tqdm(_pairs(Path(predictions), Path(ground_truth)), disable=None):
        target = read_own_map(target_path, spec) if own_maps else _read(target_path, spec)
        maps = *_read(pred_path, spec), *target
        evaluator.update(*maps, sequence_id, where=str(pred_path))
    return evaluator.compute()


def format_table(result: Mapping[str, Any], *, per_class: bool = False) -> str:
    """The result of `Evaluator.compute` as text, in percent.

    Args:
        result: that dict, or what was read back from its JSON.
        per_class: adds a row per class.
    """
    blocks = [_pq_table(result["pq"])]
    if "vpq" in result:
        blocks.append(_vpq_table(result["vpq"]))
    if "stq" in result:
        blocks.append(_stq_table(result["stq"]))
    if per_class:
        blocks.append(_class_table(result))
    miou = result["miou"]
    row = ["All", _percent(miou["miou"]), _percent(miou["pixel_accuracy"]), str(miou["n"])]
    blocks.append(_align([["Semantic", "mIoU", "Pixels", "N"], row]))
    return "\n\n".join(blocks) + "\n"


def write_json(path: str | os.PathLike[str], result: Mapping[str, Any]) -> None:
    """Writes a result in one piece; raises ValueError naming the file if it holds NaN or infinity."""
    try:
        text = json.dumps(result, indent=2, allow_nan=False)
    except ValueError:
        raise ValueError(f"{path}: expected finite numbers only, got NaN or infinity") from None
    write_bytes(path, (text + "\n").encode())


def _with_names(result: Any, class_names: Sequence[str], *, of_classes: bool = False) -> Any:
    if not isinstance(result, dict):
        return result
    names = {key: class_names[key] if of_classes else str(key) for key in result}
    return {names[k]: _with_names(v, class_names, of_classes=k == "per_class") for k, v in result.items()}


# Folders: pairing of the files, by sequence and frame number


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


# Tables


_GROUPS = (("All", ""), ("Things", "_things"), ("Stuff", "_stuff"))


def _pq_table(pq: Mapping[str, Any]) -> str:
    rows = [
        [name, *(_percent(pq[key + suffix]) for key in ("pq", "sq", "rq")), str(pq[f"n{suffix}"])]
        for name, suffix in _GROUPS
    ]
    return _align([["Panoptic", "PQ", "SQ", "RQ", "N"], *rows])


def _vpq_table(vpq: Mapping[str, Any]) -> str:
    windows = vpq["per_window"]
    rows = [
        [
            name,
            *(_percent(w[f"pq{suffix}"]) if w["num_windows"] else "-" for w in windows.values()),
            _percent(vpq[f"vpq{suffix}"]),
        ]
        for name, suffix in _GROUPS
    ]
    return _align([["VPQ", *(f"k={k}" for k in windows), "mean"], *rows])


def _stq_table(stq: Mapping[str, Any]) -> str:
    rows = [
        [name, *(_percent(s[key]) for key in ("stq", "aq", "iou")), str(s["num_tracks"]), str(s["num_frames"])]
        for name, s in [*stq["per_sequence"].items(), ("All", stq)]
    ]
    return _align([["Sequence", "STQ", "AQ", "IoU", "tracks", "frames"], *rows])


def _class_table(result: Mapping[str, Any]) -> str:
    ious = result["miou"]["per_class"]
    rows = [
        [
            name,
            *(_percent(s[key]) if s["valid"] else "-" for key in ("pq", "sq", "rq")),
            *(str(s[key]) for key in ("tp", "fp", "fn")),
            _percent(ious[name]["iou"]) if ious[name]["valid"] else "-",
        ]
        for name, s in result["pq"]["per_class"].items()
    ]
    return _align([["Class", "PQ", "SQ", "RQ", "TP", "FP", "FN", "IoU"], *rows])


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _align(rows: list[list[str]]) -> str:
    """The first row is the header; the first column stands left, the others right."""
    first, *others = (max(len(cell) for cell in column) for column in zip(*rows))
    lines = [row[0].ljust(first) + "".join(c.rjust(w + 2) for c, w in zip(row[1:], others)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
