"""What a prediction leaves on disk, for one video: maps, overlays, confidence, an animation and a contact sheet; and
where several samples were drawn their differences and segments.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pix2seq_d.animation import MAX_HELD_BYTES, AnimationWriter
from pix2seq_d.data.formats import (
    DataError,
    read_kitti_step,
    write_bytes,
    write_image,
    write_kitti_step,
    write_png,
)
from pix2seq_d.labels import LabelSpec
from pix2seq_d.pictures import captioned, grid, resize_picture, save_picture
from pix2seq_d.video.panoptic_map import PanopticMap, Uncertainty
from pix2seq_d.visualize import overlay, overview

DEFAULT_FPS = 10.0  # of frames that come without a rate
FASTEST = {".gif": 50.0, ".webp": 50.0, ".mp4": 1000.0}  # browsers slow down faster GIFs; files may claim any rate
SHEET_WIDTH = 320  # of a picture of the contact sheet
FRAME_FILES = {  # of every frame: folder -> suffix
    "panoptic": ".png",
    "overlay": ".png",
    "confidence": ".png",
    "uncertainty": ".png",
    "segments": ".json",
}


@dataclass(frozen=True)
class AnimationSettings:
    """The animation of a sequence.

    Attributes:
        suffix: ".gif", ".webp", ".mp4", or "" for none.
        fps: frames a second; None takes those of the source, or DEFAULT_FPS where it says nothing.
        max_frames: the animation ends there; None takes 200 for GIF and WebP, all for MP4. A GIF or WebP is held in
            memory until it is written, and ends earlier where its pictures fill MAX_HELD_BYTES.
        shows: "overview" (all maps and the legend) or "overlay".
    """

    suffix: str = ".gif"
    fps: float | None = None
    max_frames: int | None = None
    shows: str = "overview"

    def __post_init__(self) -> None:
        if self.shows not in ("overview", "overlay"):
            raise ValueError(f"shows: expected overview or overlay, got {self.shows!r}")

    def room_for(self, picture: np.ndarray) -> int:
        """How many such pictures (H, W, 3) the animation takes."""
        held = {".gif": picture.size // 3, ".webp": picture.size}.get(self.suffix, 0)
        if not held:
            return self.max_frames or sys.maxsize
        return min(self.max_frames or 200, max(1, MAX_HELD_BYTES // held))

    def rate(self, source: float | None) -> float:
        """Frames a second for a source of that rate."""
        if self.fps is not None:
            return self.fps
        return min(source or DEFAULT_FPS, FASTEST.get(self.suffix, math.inf))


@dataclass(frozen=True)
class OutputSettings:
    """What is written beside the maps and overlays.

    Attributes:
        animation: of every sequence.
        contact_sheet: number of evenly spaced frames on one picture; 0 for none.
        confidence: write the probability of the chosen codes, 0-255, as confidence/{sequence}/{frame}.png.
    """

    animation: AnimationSettings = AnimationSettings()
    contact_sheet: int = 0
    confidence: bool = False

    def __post_init__(self) -> None:
        if self.contact_sheet < 0:
            raise ValueError(f"contact_sheet: expected at least 0 frames, got {self.contact_sheet}")

    def of_stills(self) -> OutputSettings:
        """These without an animation, of images that are no video; raises ValueError for a contact sheet."""
        if self.contact_sheet:
            raise ValueError(f"contact_sheet: expected 0, stills have sizes of their own, got {self.contact_sheet}")
        return replace(self, animation=AnimationSettings(""))


class ResultFiles:
    """Writes the results of one sequence as they come; animation and sheet appear when the `with` block ends well.

    Args:
        output: folder of the run.
        sequence_id: name of the sequence.
        spec: label spec of the maps.
        settings: what to write.
        num_frames: of the sequence.
        fps: of the source, None where it has no rate.
    """

    def __init__(
        self,
        output: Path,
        sequence_id: str,
        spec: LabelSpec,
        settings: OutputSettings,
        *,
        num_frames: int,
        fps: float | None = None,
    ) -> None:
        self.output, self.sequence_id, self.spec, self.settings = output, sequence_id, spec, settings
        self.film: _Film | None = None
        self._stack = ExitStack()
        chosen = settings.animation
        if chosen.suffix:
            path = output / chosen.shows / f"{sequence_id}{chosen.suffix}"
            self.film = _Film(AnimationWriter(path, fps=chosen.rate(fps)), chosen)
        self.sheet = _Sheet(settings.contact_sheet, num_frames)

    def __enter__(self) -> ResultFiles:
        if self.film is not None:
            self._stack.enter_context(self.film.writer)
        return self

    def add(self, index: int, name: str, frame: np.ndarray, result: PanopticMap, *, drawn: bool = True) -> None:
        """Writes a frame's results, and removes what an earlier run has written for it that this one does not write.

        Args:
            index: place of the frame in the sequence.
            name: of its files.
            frame: (H, W, 3) uint8.
            result: prediction of that size.
            drawn: on animation and sheet too; False where frames come in another order than that of time.
        """
        self.drop(name, kinds=self._not_written(result))
        write_kitti_step(self._path("panoptic", name), result.class_map, result.instance_map)
        if self.settings.confidence:
            write_png(self._path("confidence", name), _in_255ths(result.confidence))
        if result.uncertainty is not None:
            write_png(self._path("uncertainty", name), encode_uncertainty(result.uncertainty))
            write_bytes(self._path("segments", name), _segments_json(result, self.spec))
        picture = overlay(frame, result.class_map, result.instance_map, self.spec)
        write_image(self._path("overlay", name), picture)
        if drawn:
            self._draw(index, name, frame, result, picture)

    def draw(self, index: int, name: str, frame: np.ndarray) -> None:
        """Puts a frame that is written on animation and sheet; index, name and frame as in `add`."""
        if self.film is None and not self.sheet.places:
            return
        maps = read_kitti_step(self._path("panoptic", name))
        result = PanopticMap(*maps, np.ones(frame.shape[:2], np.float32))
        self._draw(index, name, frame, result, overlay(frame, *maps, self.spec))

    def _draw(self, index: int, name: str, frame: np.ndarray, result: PanopticMap, picture: np.ndarray) -> None:
        self.sheet.add(index, name, picture)
        if self.film is not None:
            self.film.add(frame, result, picture, self.spec)

    def drop(self, name: str, *, kinds: Collection[str] = tuple(FRAME_FILES)) -> None:
        """Removes what an earlier run has written for a frame that is skipped now; `kinds` are of FRAME_FILES."""
        for kind in kinds:
            self._path(kind, name).unlink(missing_ok=True)

    def _path(self, kind: str, name: str) -> Path:
        return self.output / kind / self.sequence_id / f"{name}{FRAME_FILES[kind]}"

    def _not_written(self, result: PanopticMap) -> list[str]:
        kinds = [] if self.settings.confidence else ["confidence"]
        return kinds if result.uncertainty is not None else [*kinds, "uncertainty", "segments"]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if error is None and self.sheet.cells:
            save_picture(self.output / "contact_sheet" / f"{self.sequence_id}.png", self.sheet.picture())


class _Film:
    """The animation of one sequence: pictures as high as the first one, as many as there is room for."""

    def __init__(self, writer: AnimationWriter, settings: AnimationSettings) -> None:
        self.writer, self.settings = writer, settings
        self.count, self.room, self.height = 0, 1, 0

    def add(self, frame: np.ndarray, result: PanopticMap, overlaid: np.ndarray, spec: LabelSpec) -> None:
        if self.count >= self.room:
            return
        picture = overlaid
        if self.settings.shows == "overview":
            picture = overview(frame, result.class_map, result.instance_map, spec)
        if self.count == 0:
            self.room, self.height = self.settings.room_for(picture), len(picture)
        missing = max(0, self.height - len(picture))  # a longer list of classes makes a picture higher
        picture = np.pad(picture[: self.height], ((0, missing), (0, 0), (0, 0)), constant_values=255)
        self.writer.add(picture)
        self.count += 1


class _Sheet:
    """Small overlays of evenly spaced frames on one picture of about 4:3."""

    def __init__(self, count: int, num_frames: int) -> None:
        self.places = set(np.linspace(0, num_frames - 1, min(count, num_frames)).round().astype(int).tolist())
        self.cells: list[np.ndarray] = []

    def add(self, index: int, name: str, picture: np.ndarray) -> None:
        if index not in self.places:
            return
        height, width = picture.shape[:2]
        if width > SHEET_WIDTH:
            picture = resize_picture(picture, (max(1, round(height * SHEET_WIDTH / width)), SHEET_WIDTH))
        self.cells.append(captioned(picture, name, size=14))

    def picture(self) -> np.ndarray:
        height, width = self.cells[0].shape[:2]
        columns = max(1, round(math.sqrt(len(self.cells) * 4 / 3 * height / width)))
        return grid([self.cells[k : k + columns] for k in range(0, len(self.cells), columns)])


# Several samples


def encode_uncertainty(uncertainty: Uncertainty) -> np.ndarray:
    """(H, W, 3) uint8: class entropy in R, instance disagreement in G, both in 255ths; B is 0."""
    entropy, disagreement = (_in_255ths(v) for v in (uncertainty.class_entropy, uncertainty.instance_disagreement))
    return np.dstack([entropy, disagreement, np.zeros_like(entropy)])


def read_segments(path: Path) -> list[dict[str, Any]]:
    """What `segments/{sequence}/{frame}.json` says of the segments of a frame.

    Returns:
        Of each segment `class_id` (train id), `class`, `instance_id` (0 of stuff), `area` in pixels, `score` (mean
        confidence) and `agreement` of the samples, both in [0, 1].

    Raises:
        DataError: the file is broken.
    """
    keys = {"class_id": int, "class": str, "instance_id": int, "area": int, "score": float, "agreement": float}
    try:
        told = json.loads(path.read_text("utf-8"))["segments"]
        segments = [{key: kind(segment[key]) for key, kind in keys.items()} for segment in told]
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise DataError(f"{path}: expected the segments of a frame, found none that can be read ({error})") from None
    for segment in segments:
        for key in ("score", "agreement"):
            if not 0 <= segment[key] <= 1:  # nor NaN
                raise DataError(f"{path}: expected {key} in [0, 1], found {segment[key]}")
    return segments


def _segments_json(result: PanopticMap, spec: LabelSpec) -> bytes:
    segments = [
        {
            "class_id": s["label_id"],
            "class": spec.class_names[s["label_id"]],
            "instance_id": s["instance_id"],
            "area": s["area"],
            "score": round(s["score"], 4),
            "agreement": round(s["agreement"], 4),
        }
        for s in result.segments_info
    ]
    lines = ",\n".join(json.dumps(segment, ensure_ascii=False) for segment in segments)
    return f'{{"segments": [\n{lines}\n]}}\n'.encode()


def _in_255ths(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * values).astype(np.uint8)
