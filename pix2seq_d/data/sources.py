"""Where frames to predict come from: folders, image files, patterns, lists and video files, read one at a time."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pix2seq_d.data.folder import FrameSequence, list_sequences, natural_key, split_by_name
from pix2seq_d.data.formats import IMAGE_SUFFIXES, MAX_PIXELS, DataError, as_one_line, read_image
from pix2seq_d.data.video_file import VIDEO_SUFFIXES, VideoFile, open_video

LIST_SUFFIX = ".txt"
STORED_BYTES = 1 << 29  # of decoded frames on disk while a video is read backward: 380 frames of 375x1242


@dataclass(frozen=True)
class SourceFrame:
    """One frame of a source.

    Attributes:
        name: of the frame's map, without suffix.
        where: how messages call the frame.
        image: (H, W, 3) uint8; None where it cannot be read.
        error: then the message, which names the frame; else "".
    """

    name: str
    where: str
    image: np.ndarray | None
    error: str = ""


class FrameSource(Protocol):
    """The frames of one video, whatever they are stored in."""

    @property
    def sequence_id(self) -> str:
        """Name of the video, with "/" between the folders of a nested one."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the frames, in order."""

    @property
    def paths(self) -> Sequence[Path]:
        """What messages call them, {name} with or without a suffix: files, or what is not there below a video file."""

    @property
    def fps(self) -> float | None:
        """Frames a second, None where nothing says so."""

    @property
    def folder(self) -> Path | None:
        """The folder that is searched for frames, where nothing may be written; None for a video file."""

    def read(self, wanted: Container[str] | None = None) -> Iterator[SourceFrame]:
        """Every frame, or those whose names are `wanted`, in order; an unreadable one comes without an image."""

    def read_backward(self, wanted: Container[str] | None = None) -> Iterator[SourceFrame]:
        """As `read`, the last frame first."""

    def stills(self) -> Sequence[FrameSource]:
        """Every frame as a source of its own, of the same name; raises ValueError where frames are no files."""


@dataclass(frozen=True)
class ImageSource:
    """A video of image files.

    Attributes:
        sequence: the files, in order.
        folder: what is searched for them.
    """

    sequence: FrameSequence
    folder: Path
    fps: float | None = None

    @property
    def sequence_id(self) -> str:
        """Name of the video."""
        return self.sequence.sequence_id

    @property
    def names(self) -> Sequence[str]:
        """File names without suffix."""
        return [path.stem for path in self.paths]

    @property
    def paths(self) -> Sequence[Path]:
        """The files."""
        return self.sequence.paths

    def read(self, wanted: Container[str] | None = None) -> Iterator[SourceFrame]:
        """As FrameSource.read."""
        for path in self.sequence.paths:
            if wanted is None or path.stem in wanted:
                try:
                    yield SourceFrame(path.stem, str(path), read_image(path))
                except DataError as error:
                    yield SourceFrame(path.stem, str(path), None, str(error))

    def read_backward(self, wanted: Container[str] | None = None) -> Iterator[SourceFrame]:
        """As FrameSource.read_backward."""
        paths = self.sequence.paths[::-1]
        return replace(self, sequence=FrameSequence(self.sequence_id, paths)).read(wanted)

    def stills(self) -> Sequence[ImageSource]:
        """Every image as a source of its own, all of the sequence's name."""
        return [replace(self, sequence=FrameSequence(self.sequence_id, (path,))) for path in self.paths]


@dataclass(frozen=True)
class VideoSource:
    """A video file; frames are called by their number, six digits from 000000 on."""

    video: VideoFile
    folder: Path | None = None

    @property
    def sequence_id(self) -> str:
        """File name without suffix."""
        return self.video.path.stem

    @property
    def fps(self) -> float:
        """Frames a second, the mean where the rate varies."""
        return self.video.fps

    @property
    def names(self) -> Sequence[str]:
        """000000, 000001, ..."""
        return [f"{number:06d}" for number in range(len(self.video))]

    @property
    def paths(self) -> Sequence[Path]:
        """VIDEO.mp4/000000, ...: nothing lies there."""
        return [self.video.path / name for name in self.names]

    def read(self, wanted: Container[str] | None = None) -> Iterator[SourceFrame]:
        """As FrameSource.read; raises DataError for a frame that is too large or turned by no quarter turn."""
        numbers = None if wanted is None else {k for k, name in enumerate(self.names) if name in wanted}
        for frame in self.video.read(numbers):
            name, where = f"{frame.number:06d}", self.video.describe(frame.number)
            error = "" if frame.image is not None else f"{where}: expected a readable frame ({frame.reason})"
            yield SourceFrame(name, where, frame.image, error)

    def read_backward(self, wanted: Container[str] | None = None) -> Iterator[SourceFrame]:
        """As FrameSource.read_backward.

        Videos are decoded forward only: the last frames that STORED_BYTES hold are decoded into a folder for temporary
        files and given back from there, then the video is decoded again up to the frames before them.
        """
        names = [name for name in self.names if wanted is None or name in wanted]
        first = next(self.read()).image if names else None
        room = max(1, STORED_BYTES // (first.nbytes if first is not None else MAX_PIXELS * 3))
        while names:
            names, stored = names[:-room], names[-room:]
            with tempfile.TemporaryDirectory(prefix="pix2seq_d-") as folder:
                yield from self._store(stored, Path(folder))

    def _store(self, names: Sequence[str], folder: Path) -> Iterator[SourceFrame]:
        """The frames `names` (in order), the last one first, by way of a folder."""
        kept: list[SourceFrame] = []
        for frame in self.read(set(names)):
            if frame.image is not None:
                np.save(folder / f"{frame.name}.npy", frame.image)
            kept.append(replace(frame, image=None))
            if frame.name == names[-1]:  # what comes after need not be decoded
                break
        for frame in reversed(kept):
            file = folder / f"{frame.name}.npy"
            yield frame if frame.error else replace(frame, image=np.load(file))
            file.unlink(missing_ok=True)

    def stills(self) -> Sequence[FrameSource]:
        """Refuses: raises ValueError."""
        raise ValueError(
            f"stills: expected images of their own, got the video {self.video.path}; --no-stills predicts it as one"
        )


def open_sources(inputs: str | Path | Iterable[str | Path]) -> list[FrameSource]:
    """Finds the videos that inputs name; image files are not opened, video files not decoded.

    Args:
        inputs: one or several of
            a folder of frames, as `list_sequences` reads it;
            a video file (VIDEO_SUFFIXES), a sequence called like the file;
            image files: those of one folder are a sequence, in natural order;
            a list (.txt) of image and video files, a path on each line, relative to the list; empty lines and those
            that begin with "#" are left out; images stay in the order of the list;
            a pattern (*, ?, [...], ** for any folders) of such files or folders.

    Returns:
        At least one source of at least one frame.

    Raises:
        DataError: an input that is missing or none of these, a pattern that finds nothing, a broken video, two
            sequences of one name, two frames of one name in a sequence.
        ImportError: a video file without PyAV.
    """
    sources: list[FrameSource] = []
    images: list[Path] = []
    for given in [inputs] if isinstance(inputs, str | Path) else inputs:
        found, more = _open(str(given))
        sources, images = sources + found, images + more
    sources += _group(sorted(images, key=_place))
    if not sources:
        raise DataError("input: expected a folder, a video or images, got nothing")
    _check_names(sources)
    return sources


def _open(given: str) -> tuple[list[FrameSource], list[Path]]:
    """The sources of one input, and its image files, which are put together with those of others."""
    path = Path(given)
    if path.is_dir():
        return _open_folder(path), []
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        return [VideoSource(open_video(path))], []
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        return [], [path]
    if path.suffix.lower() == LIST_SUFFIX and path.is_file():
        return _read_list(path), []
    if glob.has_magic(given) and not path.exists():
        return _match(given)
    found = "another file" if path.exists() else "nothing"
    raise DataError(
        f"{given}: expected a folder, a video, an image, a list ({LIST_SUFFIX}) or a pattern, found {found}"
    )


def _open_folder(folder: Path) -> list[FrameSource]:
    try:
        return [ImageSource(sequence, folder) for sequence in list_sequences(folder)]
    except DataError:
        videos = sorted(p.suffix for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
        if not videos:
            raise
        raise DataError(
            f"{folder}: expected a folder of frames, found videos; name them: {folder}/*{videos[0]}"
        ) from None


def _place(path: Path) -> tuple[Any, Any, str]:
    return natural_key(str(path.parent)), natural_key(path.stem), path.name


def _match(pattern: str) -> tuple[list[FrameSource], list[Path]]:
    matches = sorted(glob.glob(pattern, recursive=True), key=natural_key)
    known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    matches = [m for m in matches if os.path.isdir(m) or Path(m).suffix.lower() in known]
    files = [m for m in matches if not os.path.isdir(m)]
    opened = [_open(m) for m in files or matches]  # "**" matches the folders on the way too
    if not opened:
        raise DataError(f"{pattern}: expected a pattern of images, videos or folders, found none")
    return [source for sources, _ in opened for source in sources], [p for _, paths in opened for p in paths]


def _read_list(path: Path) -> list[FrameSource]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a readable list of files, got one that is not ({error})") from None
    videos: list[FrameSource] = []
    images = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        file = path.parent / line
        suffix = file.suffix.lower()
        if suffix not in IMAGE_SUFFIXES and suffix not in VIDEO_SUFFIXES:
            raise DataError(f"{path}, line {number}: expected an image or a video file, got {as_one_line(line)!r}")
        if not file.is_file():
            raise DataError(f"{path}, line {number}: expected a file, found no {as_one_line(str(file))}")
        if suffix in VIDEO_SUFFIXES:
            videos.append(VideoSource(open_video(file)))
        else:
            images.append(file)
    if not videos and not images:
        raise DataError(f"{path}: expected the path of an image or a video on each line, found none")
    return videos + _group(images)


def _group(images: Sequence[Path]) -> list[FrameSource]:
    """Image files as sequences, one for every folder and prefix, called as `list_sequences` does; their order stays."""
    folders: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(images):
        folders.setdefault(Path(os.path.abspath(path)).parent, []).append(path)
    if not folders:
        return []
    root = Path(os.path.commonpath(folders))
    sources: list[FrameSource] = []
    for folder, paths in folders.items():
        groups = split_by_name(paths)
        if sum(map(len, groups.values())) < len(paths):
            raise DataError(f"{folder}: expected frames named alike, found some without _leftImg8bit or _newImg8bit")
        for name, group in groups.items():
            parts = [*folder.relative_to(root).parts, *([name] if name not in ("", folder.name) else [])]
            sources.append(ImageSource(FrameSequence("/".join(parts) or root.name or "frames", tuple(group)), folder))
    return sources


def _check_names(sources: Sequence[FrameSource]) -> None:
    seen: set[str] = set()
    for source in sources:
        if source.sequence_id in seen:
            raise DataError(f"input: expected sequences of different names, found {source.sequence_id!r} twice")
        seen.add(source.sequence_id)
