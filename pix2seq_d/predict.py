"""Frames of videos, or images of their own -> panoptic maps, overlays and an animation per sequence, resumable.

OUTPUT/panoptic/{sequence}/{frame}.png (KITTI-STEP encoding), OUTPUT/overlay/{sequence}/{frame}.png,
OUTPUT/overview/{sequence}.gif, OUTPUT/inference.json (settings, finished sequences, skipped frames); of several samples
OUTPUT/uncertainty/{sequence}/{frame}.png and OUTPUT/segments/{sequence}/{frame}.json.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from pix2seq_d.data.formats import DataError
from pix2seq_d.data.sources import FrameSource, SourceFrame, VideoSource
from pix2seq_d.result_files import OutputSettings, ResultFiles
from pix2seq_d.run_record import RunRecord
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor

logger = logging.getLogger(__name__)

ON_ERROR = ("stop", "skip")
SAVE_EVERY = 100  # images between two writings of the record


def predict_sources(
    predictor: VideoPredictor,
    sources: Sequence[FrameSource],
    output_folder: str | Path,
    *,
    settings: Mapping[str, Any],
    outputs: OutputSettings | None = None,
    on_error: str = "stop",
    overwrite: bool = False,
    stills: bool = False,
) -> int:
    """Predicts every source, frame by frame, at the frames' own size.

    Finished sequences of an earlier run with the same settings are kept; one that is unfinished, or of which a map is
    missing, starts over, so that its ids and bits are those of an uninterrupted run. A frame that is skipped gets no
    map, and the predictor does not see it: its past maps, and with them the ids of objects, wait for the next frame.
    Of stills the finished ones are kept one by one; the record is written every SAVE_EVERY of them and at the end.

    Args:
        predictor: makes the maps; reset at the start of every sequence.
        sources: the videos, of different names, as `open_sources` finds them.
        output_folder: made if missing.
        settings: what decides the result (checkpoint, steps, seed), JSON-able; recorded and compared.
        outputs: what is written beside the maps; None takes the defaults.
        on_error: "stop" at a frame that cannot be read, or "skip" it and say so. A run that stops at errors predicts
            sequences anew that an earlier one has finished with frames skipped.
        overwrite: predict every sequence anew, whatever the output folder holds.
        stills: frames are images of their own: no past, sizes as they come, no animation.

    Returns:
        Number of frames predicted now.

    Raises:
        DataError: an unreadable frame, frames of several sizes in a sequence, two frames of one name, a sequence
            without a readable frame, no readable one among stills.
        ValueError: the output folder holds results of other settings, or lies in a folder of frames; stills from a
            video file, or with a contact sheet.
        OSError: the output folder cannot be written.
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error: expected one of {', '.join(ON_ERROR)}, got {on_error!r}")
    outputs, output = outputs or OutputSettings(), Path(output_folder)
    for source in sources:
        _check_apart(source.folder, output)
        _check_names(source)
    if stills:
        sources, outputs = [still for source in sources for still in source.stills()], outputs.of_stills()
        settings = {**settings, "stills": True}
    record = RunRecord.open(output, settings, predictor.model.label_spec, overwrite=overwrite)
    waiting = [s for s in sources if not record.is_finished(s, skipping=on_error == "skip")]
    if kept := len(sources) - len(waiting):
        kind = "images" if stills else "sequences"
        text = (
            "%s: %d of %d %s are finished already and stay as they are, maps and pictures; --overwrite makes them anew"
        )
        logger.info(text, output_folder, kept, len(sources), kind)
    count = 0
    options: dict[str, Any] = {"outputs": outputs, "on_error": on_error, "stills": stills}
    with tqdm(total=sum(len(s.names) for s in waiting), unit="frame", dynamic_ncols=True, disable=None) as bar:
        try:
            for number, source in enumerate(waiting, 1):
                skipped = _predict_source(predictor, source, output, bar=bar, **options)
                record.finish(source, skipped)
                if not stills or number % SAVE_EVERY == 0:
                    record.save()
                count += len(source.names) - len(skipped)
        finally:
            record.save()
    if stills and all(record.skipped_of(s).issuperset(s.names) for s in sources):
        raise DataError(f"{output}: expected at least one readable image, found none in {len(sources)}")
    return count


def _predict_source(
    predictor: VideoPredictor,
    source: FrameSource,
    output: Path,
    *,
    outputs: OutputSettings,
    on_error: str,
    bar: Any,
    stills: bool,
) -> list[str]:
    """Names of the frames that were skipped."""
    spec, name, total, skipped = predictor.model.label_spec, source.sequence_id, len(source.names), []
    if isinstance(source, VideoSource) and source.video.varies:
        logger.info("%s: the frame rate varies; animations play at the mean, %.2f", source.video.path, source.fps)
    predictor.reset()
    with ResultFiles(output, name, spec, outputs, num_frames=total, fps=source.fps) as files:
        for index, frame in enumerate(source.read()):
            if frame.image is not None:
                result = _step(predictor, frame.image, frame)
                files.add(index, frame.name, frame.image, result)
            elif on_error == "stop":
                raise DataError(frame.error)
            else:
                logger.warning("%s; skipped", frame.error)
                files.drop(frame.name)
                skipped.append(frame.name)
            bar.set_postfix_str(name)
            bar.update()
        if len(skipped) == total and not stills:
            raise DataError(f"{name}: expected at least one readable frame, found none in {total}")
    if files.film is not None and files.film.count < total - len(skipped):
        logger.info("%s: shows the first %d of %d frames", files.film.writer.path, files.film.count, total)
    return skipped


def _step(predictor: VideoPredictor, image: np.ndarray, frame: SourceFrame) -> PanopticMap:
    if predictor.frame_size not in (None, image.shape):
        assert predictor.frame_size is not None
        size, expected = "x".join(map(str, image.shape[:2])), "x".join(map(str, predictor.frame_size[:2]))
        raise DataError(
            f"{frame.where}: expected {expected} pixels (height x width) as the frames before it, found {size}"
        )
    return predictor.step(image)


def _check_names(source: FrameSource) -> None:
    name, count = Counter(source.names).most_common(1)[0]
    if count > 1:
        where = source.folder or source.sequence_id
        raise DataError(f"{where}: expected one frame per name, found {count} called {name}")


def _check_apart(folder: Path | None, output: Path) -> None:
    if folder is not None and output.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{output}: expected an output folder outside of the input folder {folder}")
