"""A folder of frames -> panoptic maps, overlays and an animation per sequence, resumable.

OUTPUT/panoptic/{sequence}/{frame}.png (KITTI-STEP encoding), OUTPUT/overlay/{sequence}/{frame}.png,
OUTPUT/overview/{sequence}.gif, OUTPUT/inference.json (settings and finished sequences).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from pix2seq_d.animation import MAX_HELD_BYTES
from pix2seq_d.data.folder import FrameSequence, list_sequences, natural_key
from pix2seq_d.data.formats import DataError, read_image, write_bytes, write_image, write_kitti_step
from pix2seq_d.labels import LabelSpec
from pix2seq_d.video.tracker import PanopticMap, VideoPredictor
from pix2seq_d.visualize import AnimationWriter, overlay, overview

logger = logging.getLogger(__name__)

RECORD = "inference.json"
SAVE_EVERY = 100  # images between two writings of the record


@dataclass(frozen=True)
class AnimationSettings:
    """The overview animation of a sequence.

    Attributes:
        suffix: ".gif", ".webp", ".mp4", or "" for none.
        fps: frames a second.
        max_frames: the animation ends there, or earlier where its pictures fill MAX_HELD_BYTES: a GIF or WebP is
            held in memory until it is written.
    """

    suffix: str = ".gif"
    fps: float = 10.0
    max_frames: int = 200

    def room_for(self, picture: np.ndarray) -> int:
        """How many such pictures (H, W, 3) the animation takes."""
        held = {".gif": picture.size // 3, ".webp": picture.size}.get(self.suffix, 0)
        return min(self.max_frames, max(1, MAX_HELD_BYTES // held)) if held else self.max_frames


def predict_folder(
    predictor: VideoPredictor,
    input_folder: str | Path,
    output_folder: str | Path,
    *,
    settings: Mapping[str, Any],
    animation: AnimationSettings | None = None,
    overwrite: bool = False,
    stills: bool = False,
) -> int:
    """Predicts every sequence of a folder, frame by frame, at the frames' own size.

    Finished sequences of an earlier run with the same settings are kept; one that is unfinished, or of which a map is
    missing, starts over, so that its ids and bits are those of an uninterrupted run. Of stills the finished ones are
    kept one by one.

    Args:
        predictor: makes the maps; reset at the start of every sequence.
        input_folder: frames as `list_sequences` finds them.
        output_folder: made if missing.
        settings: what decides the result (checkpoint, steps, seed), JSON-able; recorded and compared.
        animation: of the overview; None takes the defaults.
        overwrite: predict every sequence anew, whatever the output folder holds.
        stills: frames are images of their own: no past, sizes as they come, no animation.

    Returns:
        Number of frames predicted now.

    Raises:
        DataError: no frames, an unreadable frame, frames of several sizes in a sequence, two frames of one name.
        ValueError: the output folder holds results of other settings, or lies in the input folder.
        OSError: the output folder cannot be written.
    """
    animation, output = animation or AnimationSettings(), Path(output_folder)
    _check_apart(Path(input_folder), output)
    sequences = list_sequences(input_folder)
    for sequence in sequences:
        _check_names(sequence)
    if stills:
        sequences = [FrameSequence(s.sequence_id, (path,)) for s in sequences for path in s.paths]
        animation = AnimationSettings("")
    kind, name = ("images", _still_name) if stills else ("sequences", attrgetter("sequence_id"))
    record = _open_record(output, {**settings, "stills": True} if stills else settings, overwrite=overwrite)
    finished = set(record["finished"])
    waiting = [s for s in sequences if name(s) not in finished or not _has_maps(s, output)]
    if skipped := len(sequences) - len(waiting):
        logger.info("%s: %d of %d %s are finished already", output_folder, skipped, len(sequences), kind)
    with (
        tqdm(total=sum(map(len, waiting)), unit="frame", dynamic_ncols=True, disable=None) as bar,
        ExitStack() as stack,
    ):
        stack.callback(_write_record, output, record, finished)
        for count, sequence in enumerate(waiting, 1):
            _predict_sequence(predictor, sequence, output, animation=animation, bar=bar)
            finished.add(name(sequence))
            if not stills or count % SAVE_EVERY == 0:
                _write_record(output, record, finished)
    return sum(map(len, waiting))


def _still_name(sequence: FrameSequence) -> str:
    return f"{sequence.sequence_id}/{sequence.paths[0].stem}"


def _predict_sequence(
    predictor: VideoPredictor, sequence: FrameSequence, output: Path, *, animation: AnimationSettings, bar: Any
) -> None:
    spec, name = predictor.model.label_spec, sequence.sequence_id
    predictor.reset()
    with ExitStack() as stack:
        film = None
        if animation.suffix:
            path = output / "overview" / f"{name}{animation.suffix}"
            film = _Film(stack.enter_context(AnimationWriter(path, fps=animation.fps)), animation)
        for path in sequence.paths:
            frame = read_image(path)
            result = _step(predictor, frame, path)
            _write_result(output, name, path.stem, frame, result, spec)
            if film is not None:
                film.add(frame, result, spec)
            bar.set_postfix_str(name)
            bar.update()
        if film is not None and film.count < len(sequence):
            logger.info("%s: shows the first %d of %d frames", film.writer.path, film.count, len(sequence))


class _Film:
    """The overview pictures of one sequence: as high as the first one, as many as there is room for."""

    def __init__(self, writer: AnimationWriter, settings: AnimationSettings) -> None:
        self.writer, self.settings = writer, settings
        self.count, self.room, self.height = 0, 1, 0

    def add(self, frame: np.ndarray, result: PanopticMap, spec: LabelSpec) -> None:
        if self.count >= self.room:
            return
        picture = overview(frame, result.class_map, result.instance_map, spec)
        if self.count == 0:
            self.room, self.height = self.settings.room_for(picture), len(picture)
        missing = max(0, self.height - len(picture))  # a longer list of classes makes a picture higher
        picture = np.pad(picture[: self.height], ((0, missing), (0, 0), (0, 0)), constant_values=255)
        self.writer.add(picture)
        self.count += 1


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


def _check_apart(input_folder: Path, output: Path) -> None:
    if output.resolve().is_relative_to(input_folder.resolve()):
        raise ValueError(f"{output}: expected an output folder outside of the input folder {input_folder}")


def _has_maps(sequence: FrameSequence, output: Path) -> bool:
    maps = output / "panoptic" / sequence.sequence_id
    return all((maps / f"{p.stem}.png").is_file() for p in sequence.paths)


def _open_record(output: Path, settings: Mapping[str, Any], *, overwrite: bool) -> dict[str, Any]:
    path, values = output / RECORD, json.loads(json.dumps(settings))
    if overwrite or not path.exists():
        record = {"settings": values, "finished": []}
        _write_record(output, record, ())
        return record
    try:
        record = json.loads(path.read_text())
        old, _ = dict(record["settings"]), list(record["finished"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not readable as the record of an earlier run; remove it to start over") from None
    differing = [f"{k} {old.get(k)} -> {values.get(k)}" for k in sorted({*old, *values}) if old.get(k) != values.get(k)]
    if differing:
        raise ValueError(
            f"{output}: holds results of other settings ({', '.join(differing)}); choose another output folder or "
            "pass --overwrite"
        )
    return record


def _write_record(output: Path, record: Mapping[str, Any], finished: Iterable[str]) -> None:
    content = {**record, "finished": sorted(finished, key=natural_key)}
    write_bytes(output / RECORD, json.dumps(content, indent=2).encode())
