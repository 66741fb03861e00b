"""Frames of a video file through PyAV (optional extra `video`): one at a time, upright, numbered as they are shown.

The file is read twice: once without decoding for the times of its frames, which give every frame its number, also where
some cannot be decoded; then frame by frame. Memory holds a few frames and eight bytes per frame of the video.
"""

from __future__ import annotations

import importlib
import logging
import os
from array import array
from bisect import bisect_left
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pix2seq_d.data.formats import MAX_PIXELS, DataError, as_one_line

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".ogv", ".wmv")

_ONE = 1 << 16  # display matrices are 16.16 fixed point
_BT709 = 1  # AVCOL_SPC_BT709


@dataclass(frozen=True)
class DecodedFrame:
    """One frame of a video.

    Attributes:
        number: counted from 0 in the order of display, unreadable frames included.
        image: (H, W, 3) uint8, upright; None where the frame cannot be decoded.
        reason: why not.
    """

    number: int
    image: np.ndarray | None
    reason: str = ""


@dataclass(frozen=True)
class VideoFile:
    """A video whose frames are known, but not decoded.

    Attributes:
        path: the file.
        times: display times of the frames in units of `time_base`, ascending.
        time_base: in seconds.
        fps: frames a second; the mean where the rate varies.
        varies: the frames do not come at a constant rate.
    """

    path: Path
    times: array[int]
    time_base: Fraction
    fps: float
    varies: bool

    def __len__(self) -> int:
        return len(self.times)

    def seconds(self, number: int) -> float:
        """Time of a frame after the first one."""
        return float((self.times[number] - self.times[0]) * self.time_base)

    def describe(self, number: int) -> str:
        """How messages call a frame."""
        return f"{self.path}, frame {number} at {self.seconds(number):.2f} s"

    def read(self, wanted: Container[int] | None = None) -> Iterator[DecodedFrame]:
        """Decodes the video; every frame comes exactly once, in order, also those that cannot be decoded.

        A frame that comes late because one before it is damaged counts as unreadable.

        Args:
            wanted: numbers of the frames to give; None for all.

        Raises:
            DataError: a frame of too many pixels, or a rotation that is no quarter turn.
            ImportError: PyAV is not installed.
        """
        due, reason = 0, ""
        for frame, fault in self._decode():
            reason = fault or reason
            number = None if frame is None else self._number(frame)
            if number is None or number < due:
                continue
            yield from self._lost(due, number, reason, wanted)
            reason = reason if number == due else ""  # the decoder speaks of a frame before it gives the ones in front
            due = number + 1
            if wanted is None or number in wanted:
                yield DecodedFrame(number, self._to_image(frame, number))
        yield from self._lost(due, len(self), reason, wanted)

    def _decode(self) -> Iterator[tuple[Any, str]]:
        """(frame, "") or (None, what the decoder says)."""
        av = import_av()
        with _opened(av, self.path) as container:
            stream = _stream(container, self.path)
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        return
                    for frame in packet.decode():
                        if getattr(frame, "is_corrupt", False):
                            yield None, "damaged"
                        else:
                            yield frame, ""
                except (av.error.FFmpegError, EOFError) as error:
                    yield None, as_one_line(getattr(error, "strerror", None) or str(error))

    def _lost(self, start: int, stop: int, reason: str, wanted: Container[int] | None) -> Iterator[DecodedFrame]:
        for number in range(start, stop):
            if wanted is None or number in wanted:
                yield DecodedFrame(number, None, reason or "the decoder gives none")

    def _number(self, frame: Any) -> int | None:
        if frame.pts is None:
            return None
        place = bisect_left(self.times, frame.pts)
        return place if place < len(self.times) and self.times[place] == frame.pts else None

    def _to_image(self, frame: Any, number: int) -> np.ndarray:
        if frame.width * frame.height > MAX_PIXELS:
            size = f"{frame.width}x{frame.height}"
            raise DataError(f"{self.describe(number)}: expected at most {MAX_PIXELS} pixels, got {size}")
        colours = {"src_colorspace": "ITU709"} if frame.colorspace == _BT709 else {}
        image = frame.to_ndarray(format="rgb24", **colours)
        matrix = next((bytes(d) for d in frame.side_data if d.type.name == "DISPLAYMATRIX"), None)
        return image if matrix is None else self._upright(image, np.frombuffer(matrix, np.int32, count=9), number)

    def _upright(self, image: np.ndarray, matrix: np.ndarray, number: int) -> np.ndarray:
        """The image as the display matrix shows it: (x, y) goes to (a x + c y, b x + d y)."""
        a, b, _, c, d = (round(v / _ONE, 2) for v in matrix[:5].tolist())
        if sorted((abs(a), abs(b))) != [0, 1] or abs(a) != abs(d) or abs(b) != abs(c):
            raise DataError(
                f"{self.describe(number)}: expected a rotation by quarter turns, got the display matrix {a, b, c, d}"
            )
        if a == 0:
            image, a, d = image.swapaxes(0, 1), c, b
        return np.ascontiguousarray(image[:: int(d), :: int(a)])


def open_video(path: str | os.PathLike[str]) -> VideoFile:
    """Finds the frames of a video file without decoding them.

    Raises:
        DataError: the file is missing, empty, no video, cut off, or its frames carry no times.
        ImportError: PyAV is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: expected a video file, found {'a folder' if path.is_dir() else 'nothing'}")
    av = import_av()
    try:
        with _opened(av, path) as container:
            stream = _stream(container, path)
            times, packets = array("q"), 0
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    packets += 1
                    if packet.pts is not None:
                        times.append(packet.pts)
            _check_whole(path, container, stream, packets, times)
            return _indexed(path, times, rate=stream.average_rate, time_base=stream.time_base)
    except (av.error.FFmpegError, EOFError) as error:
        reason = as_one_line(getattr(error, "strerror", None) or str(error))
        raise DataError(f"{path}: expected a readable video, got one that is not ({reason})") from None


def import_av() -> Any:
    """PyAV; raises ImportError that says what to install."""
    try:
        return importlib.import_module("av")
    except ImportError:
        raise ImportError("video files need PyAV, which is not installed: pip install pix2seq_d[video]") from None


def _check_whole(path: Path, container: Any, stream: Any, packets: int, times: array[int]) -> None:
    if not packets:
        raise DataError(f"{path}: expected a video, found no frame in it")
    if not times:
        raise DataError(f"{path}: expected frames with times, found a raw stream (put it in a container such as .mp4)")
    if packets < stream.frames:
        raise DataError(f"{path}: expected {stream.frames} frames, as its header says, found {packets}: it is cut off")
    stated, found = (container.duration or 0) / 1e6, float((max(times) - min(times)) * stream.time_base)
    if found < stated - max(1.0, 0.1 * stated):  # no error: the sound may be longer
        logger.warning("%s: holds pictures for %.1f of %.1f seconds; it may be cut off", path, found, stated)


def _indexed(path: Path, times: array[int], *, rate: Fraction | None, time_base: Fraction) -> VideoFile:
    times = array("q", sorted(set(times)))
    gaps = np.diff(np.frombuffer(times, np.int64))
    mean = float(gaps.mean()) if len(gaps) else 0.0
    varies = bool(len(gaps) and gaps.max() - gaps.min() > max(2, 0.1 * mean))  # times are rounded to the time base
    fps = float(1 / (mean * time_base)) if mean else float(rate or 10)
    if rate and not varies and abs(fps / float(rate) - 1) < 0.01:
        fps = float(rate)  # exact, where times are rounded
    return VideoFile(path, times, time_base, fps, varies)


@contextmanager
def _opened(av: Any, path: Path) -> Iterator[Any]:
    """The container; playlists in disguise cannot reach the network."""
    if not path.stat().st_size:
        raise DataError(f"{path}: expected a video, got an empty file")
    with av.open(os.path.abspath(path), container_options={"protocol_whitelist": "file"}) as container:
        yield container


def _stream(container: Any, path: Path) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise DataError(f"{path}: expected a video, found no picture stream in it")
    return stream
