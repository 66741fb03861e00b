"""Frames that somebody hands to the page: images or one video file, whatever they are, or the example clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pix2seq_d.data.folder import natural_key
from pix2seq_d.data.formats import IMAGE_SUFFIXES, DataError, as_one_line, read_image
from pix2seq_d.data.sources import VideoSource
from pix2seq_d.data.synthetic import SyntheticSequence
from pix2seq_d.data.video_file import VIDEO_SUFFIXES, open_video

MAX_CLIP_PIXELS = 1 << 26  # of all frames together: with their maps about 1.5 GB a session
EXAMPLE_FRAMES = 12


@dataclass(frozen=True)
class FrameClip:
    """The frames of a session.

    Attributes:
        names: of the frames, each its own; the maps are called like them.
        frames: (H, W, 3) uint8, all of one size.
        note: what the user should know about them, else "".
    """

    names: tuple[str, ...]
    frames: tuple[np.ndarray, ...]
    note: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames."""
        return self.frames[0].shape[0], self.frames[0].shape[1]


def read_clip(paths: Sequence[str | Path], *, max_frames: int) -> FrameClip:
    """Reads uploaded files: images in the natural order of their names, or one video file.

    Args:
        paths: files in any folders; messages call them by their names alone.
        max_frames: further frames are left out, which `note` says, as are those beyond MAX_CLIP_PIXELS.

    Raises:
        DataError: no file, images and videos together, several videos, an image or video that is none or is broken,
            frames of several sizes, or two frames of one name.
        ImportError: a video file without PyAV.
    """
    files = sorted(map(Path, paths), key=lambda path: natural_key(path.name))
    if not files:
        raise DataError("upload: expected images or a video, got nothing")
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if videos and len(files) > 1:
        others = next(path for path in files if path != videos[0])
        raise DataError(f"upload: expected images or one video, got {_name(videos[0])} and {_name(others)}")
    try:
        return _collect(_video(videos[0]) if videos else _images(files), max_frames)
    except DataError as error:  # the folders of uploads are nobody's business
        text = str(error)
        for path in files:
            text = text.replace(str(path), _name(path))
        raise DataError(text) from None


def example_clip(num_frames: int = EXAMPLE_FRAMES) -> FrameClip:
    """The first frames of a procedural street that no model was trained on."""
    street = SyntheticSequence(0, split="val", height=96, width=320)
    frames = tuple(street.frame(t).image for t in range(num_frames))
    return FrameClip(tuple(f"{t:06d}" for t in range(num_frames)), frames, "The example clip, a street made by rules.")


@dataclass(frozen=True)
class _Read:
    """A frame, what messages call it, and how many there are."""

    name: str
    where: str
    image: np.ndarray
    of: int


def _images(files: Sequence[Path]) -> Iterator[_Read]:
    stems: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(
                f"{path}: expected an image ({', '.join(IMAGE_SUFFIXES)}) or a video "
                f"({', '.join(VIDEO_SUFFIXES[:5])}, ...), got another file"
            )
        if path.stem in stems:
            raise DataError(
                f"{path}: expected frames of different names, got {_name(stems[path.stem])} with the same map"
            )
        stems[path.stem] = path
    return (_Read(path.stem, str(path), read_image(path), len(files)) for path in files)


def _video(path: Path) -> Iterator[_Read]:
    video = open_video(path)
    for frame in VideoSource(video).read():
        if frame.image is None:
            raise DataError(frame.error)
        yield _Read(frame.name, frame.where, frame.image, len(video))


def _collect(found: Iterator[_Read], max_frames: int) -> FrameClip:
    names: list[str] = []
    frames: list[np.ndarray] = []
    first, left, total = "", MAX_CLIP_PIXELS, 0
    for read in found:
        height, width = read.image.shape[:2]
        if frames and frames[0].shape != read.image.shape:
            size = f"{frames[0].shape[1]}x{frames[0].shape[0]}"
            raise DataError(f"{read.where}: expected {size} pixels as {first}, got {width}x{height}")
        left, total, first = left - height * width, read.of, first or read.where
        if len(frames) == max_frames or left < 0:
            break
        names.append(read.name)
        frames.append(read.image)
    if not frames:
        raise DataError(f"{first}: expected at most {MAX_CLIP_PIXELS} pixels, got more")
    note = f"The first {len(frames)} of {total} frames; the page takes no more." if total > len(frames) else ""
    return FrameClip(tuple(names), tuple(frames), note)


def _name(path: Path) -> str:
    """Of a file that somebody else has named."""
    return as_one_line(path.name)
