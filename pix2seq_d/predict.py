"""A folder of frames -> panoptic maps, overlays and an animation per sequence, resumable.

OUTPUT/panoptic/{sequence}/{frame}.png (KITTI-STEP encoding), OUTPUT/overlay/{sequence}/{frame}.png,
OUTPUT/overview/{sequence}.gif, OUTPUT/inference.json (settings and finished sequences).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from pix2seq_d.data.folder import FrameSequence, list_sequences
from pix2seq_d.data.formats import DataError, read_image, write_bytes, write_image, write_kitti_step
from pix2seq_d.labels import LabelSpec
from pix2seq_d.video.tracker import PanopticMap, VideoPredictor
from pix2seq_d.visualize import AnimationWriter, overlay, overview

logger = logging.getLogger(__name__)

RECORD = "inference.json"


@dataclass(frozen=True)
class AnimationSettings:
    """The overview animation of a sequence.

    Attributes:
        suffix: ".gif", ".webp", ".mp4", or "" for none.
        fps: frames a second.
        max_frames: the animation ends there; a GIF is held in memory until it is written.
    """

    suffix: str = ".gif"
    fps: float = 10.0
    max_frames: int = 200


def predict_folder(
    predictor: VideoPredictor,
    input_folder: str | Path,
    output_folder: str | Path,
    *,
    settings: Mapping[str, Any],
    animation: AnimationSettings | None = None,
) -> int:
    """Predicts every sequence of a folder, frame by frame, at the frames' own size.

    Finished sequences of an earlier run with the same settings are kept; an unfinished one starts over, so that its ids
    and bits are those of an uninterrupted run.

    Args:
        predictor: makes the maps; reset at the start of every sequence.
        input_folder: frames as `list_sequences` finds them.
        output_folder: made if missing.
        settings: what decides the result (checkpoint, steps, seed), JSON-able; recorded and compared.
        animation: of the overview; None takes the defaults.

    Returns:
        Number of frames predicted now.

    Raises:
        DataError: no frames, an unreadable frame, frames of several sizes in a sequence, two frames of one name.
        ValueError: the output folder holds results of other settings.
        OSError: the output folder cannot be written.
    """
    animation = animation or AnimationSettings()
    sequences = list_sequences(input_folder)
    for sequence in sequences:
        _check_names(sequence)
    record = _open_record(Path(output_folder), settings)
    waiting = [s for s in sequences if s.sequence_id not in record["finished"]]
    if skipped := len(sequences) - len(waiting):
        logger.info("%s: %d of %d sequences are finished already", output_folder, skipped, len(sequences))
    with tqdm(total=sum(map(len, waiting)), unit="frame", dynamic_ncols=True, disable=None) as bar:
        for sequence in waiting:
            _predict_sequence(predictor, sequence, Path(output_folder), animation=animation, bar=bar)
            record["finished"].append(sequence.sequence_id)
            _write_record(Path(output_folder), record)
    return sum(map(len, waiting))


def _predict_sequence(
    predictor: VideoPredictor, sequence: FrameSequence, output: Path, *, animation: AnimationSettings, bar: Any
) -> None:
    spec, name = predictor.model.label_spec, sequence.sequence_id
    predictor.reset()
    with ExitStack() as stack:
        writer = None
        if animation.suffix:
            path = output / "overview" / f"{name}{animation.suffix}"
            writer = stack.enter_context(AnimationWriter(path, fps=animation.fps))
        for number, path in enumerate(sequence.paths):
            frame = read_image(path)
            result = _step(predictor, frame, path)
            _write_result(output, name, path.stem, frame, result, spec)
            if writer is not None and number < animation.max_frames:
                writer.add(overview(frame, result.class_map, result.instance_map, spec))
            bar.set_postfix_str(name)
            bar.update()


def _step(predictor: VideoPredictor, frame: np.ndarray, path: Path) -> PanopticMap:
    if predictor.frame_size not in (None, frame.shape):
        assert predictor.frame_size is not None
        size, expected = "x".join(map(str, frame.shape[:2])), "x".join(map(str, predictor.frame_size[:2]))
        raise DataError(f"{path}: expected {expected} pixels (height x width) as the frames before it, found {size}")
    return predictor.step(frame)


def _write_result(
    output: Path, sequence_id: str, stem: str, frame: np.ndarray, result: PanopticMap, spec: LabelSpec
) -> None:
    name = f"{sequence_id}/{stem}.png"
    write_kitti_step(output / "panoptic" / name, result.class_map, result.instance_map)
    write_image(output / "overlay" / name, overlay(frame, result.class_map, result.instance_map, spec))


def _check_names(sequence: FrameSequence) -> None:
    stem, count = Counter(p.stem for p in sequence.paths).most_common(1)[0]
    if count > 1:
        raise DataError(f"{sequence.paths[0].parent}: expected one frame per name, found {count} called {stem}")


def _open_record(output: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    path, values = output / RECORD, json.loads(json.dumps(settings))
    if not path.exists():
        record = {"settings": values, "finished": []}
        _write_record(output, record)
        return record
    try:
        record = json.loads(path.read_text())
        old = record["settings"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not readable as the record of an earlier run; remove it to start over") from None
    differing = [f"{k} {old.get(k)} -> {values.get(k)}" for k in sorted({*old, *values}) if old.get(k) != values.get(k)]
    if differing:
        raise ValueError(
            f"{output}: holds results of other settings ({', '.join(differing)}); choose another output folder or "
            "pass --overwrite"
        )
    return record


def _write_record(output: Path, record: Mapping[str, Any]) -> None:
    write_bytes(output / RECORD, json.dumps(record, indent=2).encode())
