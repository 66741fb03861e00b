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
from pix2seq_d.labels import LABEL_DIVISOR
from pix2seq_d.prompt_maps import PromptMaps
from pix2seq_d.result_files import OutputSettings, ResultFiles
from pix2seq_d.run_record import RunRecord
from pix2seq_d.video.known import KnownMap
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
    prompts: PromptMaps | None = None,
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
        prompts: maps of some of the frames, as they are or to be completed; what they say is compared as settings are.

    Returns:
        Number of frames predicted now.

    Raises:
        DataError: an unreadable frame, frames of several sizes in a sequence, two frames of one name, a sequence
            without a readable frame, no readable one among stills, a given map that cannot be one of its frame.
        ValueError: the output folder holds results of other settings, or lies in a folder of frames or given maps, or
            around these; stills from a video file, with a contact sheet, or in reverse.
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
    if prompts is not None:
        _check_prompts(prompts, output, stills=stills)
        for source in sources:
            prompts.check(source, predictor.model)
        settings = {**settings, **prompts.settings}
    record = RunRecord.open(output, settings, predictor.model.label_spec, overwrite=overwrite)
    waiting = [s for s in sources if not record.is_finished(s, skipping=on_error == "skip")]
    if kept := len(sources) - len(waiting):
        kind = "images" if stills else "sequences"
        text = (
            "%s: %d of %d %s are finished already and stay as they are, maps and pictures; --overwrite makes them anew"
        )
        logger.info(text, output_folder, kept, len(sources), kind)
    count = 0
    options: dict[str, Any] = {"outputs": outputs, "on_error": on_error, "stills": stills, "prompts": prompts}
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
    prompts: PromptMaps | None,
) -> list[str]:
    """Names of the frames that were skipped."""
    spec, name, total = predictor.model.label_spec, source.sequence_id, len(source.names)
    if isinstance(source, VideoSource) and source.video.varies:
        logger.info("%s: the frame rate varies; animations play at the mean, %.2f", source.video.path, source.fps)
    with ResultFiles(output, name, spec, outputs, num_frames=total, fps=source.fps) as files:
        passes = _Passes(predictor, source, files, on_error, bar, prompts)
        start = prompts.start(source) if prompts else 0
        skipped = passes.both_ways(start) if start else passes.forward()
        if len(skipped) == total and not stills:
            raise DataError(f"{name}: expected at least one readable frame, found none in {total}")
    if files.film is not None and files.film.count < total - len(skipped):
        logger.info("%s: shows the first %d of %d frames", files.film.writer.path, files.film.count, total)
    return skipped


class _Passes:
    """The frames of a source on their way through the predictor to their files."""

    def __init__(
        self,
        predictor: VideoPredictor,
        source: FrameSource,
        files: ResultFiles,
        on_error: str,
        bar: Any,
        prompts: PromptMaps | None,
    ) -> None:
        self.predictor, self.source, self.files, self.on_error, self.bar = predictor, source, files, on_error, bar
        self.prompts, self.given = prompts, prompts.of(source) if prompts else {}
        self.given_id = prompts.last_id(source) if prompts else 0
        self.skipped: list[str] = []

    def forward(self) -> list[str]:
        """All frames in order; names of those that were skipped."""
        self._reset()
        for index, frame in enumerate(self.source.read()):
            self._predict(index, frame)
        return self.skipped

    def both_ways(self, start: int) -> list[str]:
        """The frames from `start` on, then those before it, the last one first; pictures in the order of time.

        The way back begins with the first map of the way there, so that ids agree; its new ids are above those.
        """
        names, first, largest = list(self.source.names), None, 0
        self._reset()
        for index, frame in enumerate(self.source.read(set(names[start:])), start):
            result = self._predict(index, frame, drawn=False)
            if frame.image is not None and result is not None:
                first = first or (frame.image, KnownMap(result.class_map, result.instance_map))
                largest = max(largest, int(result.instance_map.max(initial=0)))
        self._reset(largest + 1)
        if first is not None:
            image, known = first
            self.predictor.step(image, known=known)
        for back, frame in enumerate(self.source.read_backward(set(names[:start])), 1):
            self._predict(start - back, frame, drawn=False)
        for index, frame in enumerate(self.source.read()):
            if frame.name not in self.skipped and frame.image is not None:
                self.files.draw(index, frame.name, frame.image)
        return sorted(self.skipped, key=names.index)

    def _reset(self, first_id: int = 1) -> None:
        first_id = max(first_id, self.prompts.first_id if self.prompts else 1)
        if first_id == 1:
            self.predictor.reset()
        else:
            self.predictor.reset(first_id=min(first_id, LABEL_DIVISOR - 1))

    def _predict(self, index: int, frame: SourceFrame, *, drawn: bool = True) -> PanopticMap | None:
        """Predicts and writes a frame; None where it is skipped."""
        path, result = self.given.get(frame.name), None
        if frame.image is not None:
            result = self._step(frame.image, frame, path)
            self.files.add(index, frame.name, frame.image, result, drawn=drawn)
        elif self.on_error == "stop":
            raise DataError(frame.error)
        else:
            logger.warning("%s; skipped%s", frame.error, f", and with it {path}" if path else "")
            self.files.drop(frame.name)
            self.skipped.append(frame.name)
        self.bar.set_postfix_str(self.source.sequence_id)
        self.bar.update()
        return result

    def _step(self, image: np.ndarray, frame: SourceFrame, path: Path | None) -> PanopticMap:
        predictor = self.predictor
        if predictor.frame_size not in (None, image.shape):
            assert predictor.frame_size is not None
            size, expected = "x".join(map(str, image.shape[:2])), "x".join(map(str, predictor.frame_size[:2]))
            raise DataError(
                f"{frame.where}: expected {expected} pixels (height x width) as the frames before it, found {size}"
            )
        if path is None or self.prompts is None:
            return predictor.step(image)
        predictor.reserve_ids(self.given_id)  # those of the maps to come, too
        return predictor.step(image, known=self.prompts.read(path, (image.shape[0], image.shape[1])))


def _check_names(source: FrameSource) -> None:
    name, count = Counter(source.names).most_common(1)[0]
    if count > 1:
        where = source.folder or source.sequence_id
        raise DataError(f"{where}: expected one frame per name, found {count} called {name}")


def _check_apart(folder: Path | None, output: Path) -> None:
    if folder is not None and output.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{output}: expected an output folder outside of the input folder {folder}")


def _check_prompts(prompts: PromptMaps, output: Path, *, stills: bool) -> None:
    """Given maps lie apart from what is written, which might replace them."""
    if stills and prompts.reverse:
        raise ValueError("reverse: expected a video, stills have no order")
    folder, written = prompts.folder.resolve(), output.resolve()
    if folder.is_relative_to(written) or written.is_relative_to(folder):
        raise ValueError(f"{prompts.folder}: expected given maps outside of the output folder {output}")
