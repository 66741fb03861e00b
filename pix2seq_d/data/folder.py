"""Folders of frames: their sequences in natural order, and frame numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pix2seq_d.data.formats import IMAGE_SUFFIXES, DataError

_DIGITS = re.compile(r"([0-9]+)")
_CITYSCAPES_NAME = re.compile(r"(?P<sequence>.+)_(?P<frame>[0-9]+)_leftImg8bit", re.IGNORECASE)
_CITYSCAPES_VPS_NAME = re.compile(r"(?P<sequence>[0-9]{4})_[0-9]{4}_.+_(?P<frame>[0-9]+)_(?:left|new)Img8bit")


# Frames without labels


@dataclass(frozen=True)
class FrameSequence:
    """The frames of one video.

    Attributes:
        sequence_id: name of the video, with "/" between the folders of a nested one.
        paths: files of the frames in natural order.
    """

    sequence_id: str
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that reads runs of digits as numbers: "9" before "10", upper case beside lower case."""
    parts = _DIGITS.split(name)
    words = [(1, 0, p.casefold()) if k % 2 == 0 else (0, int(p), "") for k, p in enumerate(parts) if p]
    return (*words, (-1, 0, name))  # the name itself parts "1" from "01"


def frame_number(path: str | os.PathLike[str]) -> int:
    """Number of a frame: the last run of digits in its file name without suffix and "_leftImg8bit" or "_newImg8bit".

    Raises:
        DataError: the name holds no digit.
    """
    digits = _DIGITS.findall(re.sub("_(left|new)Img8bit$", "", Path(path).stem, flags=re.IGNORECASE))
    if not digits:
        raise DataError(f"{path}: expected a frame number in the file name, found no digit")
    return int(digits[-1])


def list_sequences(input_folder: str | os.PathLike[str]) -> list[FrameSequence]:
    """Finds the videos in a folder of PNG, JPEG, BMP or WebP frames; names decide, nothing is opened.

    Every folder that holds frames is a sequence, called by its path relative to `input_folder`; frames in
    `input_folder` itself form one called like that folder. Where a folder has `{sequence}_{frame}_leftImg8bit` files
    only these are frames (label files beside them are not), and it holds one sequence for every prefix, called by it
    (once, where the folder is called so too); of Cityscapes-VPS' names ({video}_{number}_{city}_..._newImg8bit) the
    video is the sequence. Hidden files and folders are ignored.

    Returns:
        At least one sequence of at least one frame, in natural order.

    Raises:
        DataError: the folder is missing, unreadable, holds no frame, or holds two sequences of one name.
    """
    root = Path(input_folder)
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder of frames, found {'a file' if root.exists() else 'nothing'}")
    found: dict[str, list[Path]] = {}
    for folder, paths in image_folders(root):
        for name, group in split_by_name(paths).items():
            parts = [*folder.relative_to(root).parts, *([name] if name != folder.name else [])]
            key = "/".join(filter(None, parts)) or root.resolve().name or "frames"
            if key in found:
                raise DataError(f"{root}: expected sequences of different names, found {key!r} twice")
            found[key] = group
    if not found:
        raise DataError(f"{root}: expected frames ({', '.join(IMAGE_SUFFIXES)}) in it or in its folders, found none")
    sequences = [FrameSequence(key, tuple(_natural(paths))) for key, paths in found.items()]
    return sorted(sequences, key=lambda sequence: natural_key(sequence.sequence_id))


def list_images(folder: Path) -> list[Path]:
    """The image files of one folder in natural order, hidden ones left out; DataError if it cannot be read.

    Links that lead nowhere are files: who reads them finds out, instead of missing them.
    """
    return [p for p in _list_folder(folder) if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir()]


def list_folders(folder: Path) -> list[Path]:
    """The folders in a folder in natural order, hidden ones left out; DataError if it cannot be read."""
    return [p for p in _list_folder(folder) if p.is_dir()]


def search_roots(root: Path) -> list[Path]:
    """`root` and the folders in it: archives are unpacked into folders of their own too; none if it is no folder.

    Folders that may not be entered (lost+found of a disk) are left out: a look into them would be an error.
    """
    inner = list_folders(root) if root.is_dir() else []
    return [root, *(p for p in inner if os.access(p, os.R_OK | os.X_OK))] if root.is_dir() else []


def _list_folder(folder: Path) -> list[Path]:
    try:
        return _natural(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: expected a readable folder ({error.strerror})") from None


def _natural(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (natural_key(path.stem), path.name))


def image_folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """`root` and every folder below it, each once, with its image files in natural order; hidden ones are left out."""
    waiting, seen = [root], set()
    while waiting:
        folder = waiting.pop()
        if folder.resolve() in seen:  # a link that leads back
            continue
        seen.add(folder.resolve())
        yield folder, list_images(folder)
        waiting.extend(list_folders(folder))


def split_by_name(paths: list[Path]) -> dict[str, list[Path]]:
    """The frames of one folder by the prefix of Cityscapes' names; "" where none has one, else others are left out."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        if match := _CITYSCAPES_VPS_NAME.fullmatch(path.stem) or _CITYSCAPES_NAME.fullmatch(path.stem):
            groups.setdefault(match["sequence"], []).append(path)
    return groups or ({"": paths} if paths else {})
