"""Zip archives, unpacked whole or not at all: no entry leaves the folder, no archive outgrows the disk.

An archive is unpacked under a temporary name beside its destination, then renamed, and leaves a manifest. `exclusive`
keeps processes apart that prepare the same folder, and removes what an interrupted one has left.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import logging
import lzma
import os
import re
import shutil
import socket
import stat
import struct
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from pix2seq_d.data.formats import DataError, as_one_line, write_bytes

logger = logging.getLogger(__name__)

MAX_BYTES = 1 << 40  # 1.1 TB, three times the largest archive of Cityscapes

_MAX_RATIO = 500  # label maps without compression of their own reach 200; deflate cannot pass 1032
_HARMLESS = 1 << 26  # bytes that may have any ratio
_BLOCK = 4096  # a file takes whole blocks of the disk
_LONGEST_NAME = 1000  # characters
_CHUNK = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, NotImplementedError, ValueError)


class Manifest(NamedTuple):
    """What was unpacked: `.{archive}.json` in the folder."""

    archive: str
    sha256: str
    files: int
    bytes: int


# One archive


def unpack_zip(
    archive: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Manifest:
    """Unpacks a zip archive to a new folder, which has all of it or does not exist.

    Args:
        archive: the file.
        target: the folder; missing parents are made.
        sha256: of the archive, for the manifest; None computes it.
        max_bytes: largest size of all entries together.

    Raises:
        DataError: `target` exists, or the archive is missing, broken, cut off, encrypted, too large, compressed beyond
            belief, or holds a name twice, a link, a device, or a path that is absolute, leads out (..) or has a
            backslash.
        OSError: too little free disk, found out before anything is written, or a folder that cannot be written.
    """
    archive, target = Path(archive), Path(target)
    if os.path.lexists(target):
        raise DataError(f"{target}: expected a folder that does not exist yet to unpack {archive.name}, found one")
    if not archive.is_file():
        raise DataError(f"{archive}: expected a zip archive, found {'a folder' if archive.is_dir() else 'nothing'}")
    temporary = target.with_name(f".{target.name}.{_host()}.{uuid.uuid4().hex[:8]}.unpacking")
    try:
        with _errors(archive, target), zipfile.ZipFile(archive) as zip_file:
            plan = _plan(zip_file, archive, max_bytes=max_bytes)
            files = [info.file_size for info in plan.values() if not info.is_dir()]
            require_space(target, sum(files) + _BLOCK * len(plan), purpose=archive.name)
            manifest = Manifest(archive.name, sha256 or file_sha256(archive), len(files), sum(files))
            temporary.mkdir(parents=True)
            _extract(zip_file, plan, temporary, total=manifest.bytes)
            write_bytes(temporary / f".{archive.name}.json", json.dumps(manifest._asdict(), indent=2).encode())
            _rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def unpack_into(
    archive: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    expected: str = "",
    max_bytes: int = MAX_BYTES,
) -> None:
    """Unpacks a zip archive into a folder that may hold other things, which stay as they are.

    The archive is unpacked whole in a hidden folder of `root`, then moved up; an interrupted move goes on at the next
    call (`is_unpacking` tells).

    Args:
        archive: the file.
        root: the folder; made if missing.
        sha256: as for `unpack_zip`.
        expected: folder that the archive must hold, "" = any.
        max_bytes: as for `unpack_zip`.

    Raises:
        DataError: as `unpack_zip`, or the archive does not hold `expected`.
        OSError: as `unpack_zip`.
    """
    archive, root = Path(archive), Path(root)
    stage = _stage(root, archive.name)
    if not stage.is_dir():
        unpack_zip(archive, stage, sha256=sha256, max_bytes=max_bytes)
    if not (stage / expected).is_dir():
        found = ", ".join(sorted(p.name for p in stage.iterdir() if not p.name.startswith(".")))
        shutil.rmtree(stage, ignore_errors=True)
        raise DataError(f"{archive}: expected an archive of {expected}/, found {found or 'nothing'}")
    _move_up(stage, root)
    shutil.rmtree(stage)


def is_unpacking(root: str | os.PathLike[str], name: str) -> bool:
    """Whether `unpack_into(root)` has begun and not finished with the archive called `name`."""
    return _stage(Path(root), name).is_dir()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def require_space(folder: str | os.PathLike[str], num_bytes: int, *, purpose: str) -> None:
    """Raises OSError unless the disk of `folder`, which need not exist yet, has `num_bytes` free."""
    free = shutil.disk_usage(existing_folder(folder)).free
    if free < num_bytes:
        text = f"expected {num_bytes / 1e9:.1f} GB of free disk for {purpose}, found {free / 1e9:.1f} GB"
        raise OSError(errno.ENOSPC, text, str(folder))


def existing_folder(path: str | os.PathLike[str]) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = Path(path).absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())


# Archives beside the data


def unpack_found_zips(root: str | os.PathLike[str], zips: Mapping[str, str]) -> list[Path]:
    """Unpacks into `root` the archives that lie in it or beside it and whose folder is missing.

    Args:
        root: folder of a dataset.
        zips: pattern of an archive's name -> the folder under `root` that it gives, for example
            {"gtFine_trainvaltest.zip": "gtFine/train"}.

    Returns:
        The archives that were unpacked. They stay where they are.

    Raises:
        DataError, OSError: as `unpack_into`.
    """
    root = Path(root)
    if not _wanted(root, zips):
        return []
    with exclusive(root):
        wanted = _wanted(root, zips)  # another process may have been faster
        for archive, folder in wanted.items():
            logger.info("%s: unpacking %s, since %s is missing", root, archive.name, folder)
            unpack_into(archive, root, expected=folder)
    return list(wanted)


def find_zips(root: str | os.PathLike[str], pattern: str) -> list[Path]:
    """Files in `root` whose name matches, else those beside it."""
    root = Path(root)
    for folder in (root, root.parent):
        if found := sorted(p for p in folder.glob(pattern) if p.is_file()):
            return found
    return []


@contextmanager
def exclusive(root: str | os.PathLike[str]) -> Iterator[None]:
    """Waits until no other process prepares `root`, then removes what interrupted ones have left of it.

    The lock is a file beside `root`, which stays. Only leftovers of this machine are removed: not every network disk
    passes locks on to other machines.
    """
    root = Path(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root.with_name(f".{root.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("%s: waiting for the process that prepares it", root)
        lock.acquire()
    try:
        leftovers = f"{_host()}.*.unpacking"
        for path in (*root.parent.glob(f".{glob.escape(root.name)}.{leftovers}"), *root.glob(f".*.{leftovers}")):
            shutil.rmtree(path, ignore_errors=True)
        yield
    finally:
        lock.release()


# Entries


def _plan(zip_file: zipfile.ZipFile, archive: Path, *, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Entries by their clean relative path; DataError if one is unfit or all are too large."""
    plan: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    for info in zip_file.infolist():
        parts = [part for part in info.orig_filename.split("/") if part not in ("", ".")]
        name = "/".join(parts)
        if problem := _problem(info) or ("a name that comes twice" if name in plan else None):
            shown = as_one_line(repr(info.orig_filename))
            raise DataError(f"{archive}: expected plain files below one folder, got {problem}: {shown}")
        if not parts:  # "./"
            continue
        plan[name] = info
        parent = name
        while (parent := parent.rpartition("/")[0]) and parent not in folders:
            folders.add(parent)
    for name in sorted(folders & plan.keys()):
        if not plan[name].is_dir():
            shown = as_one_line(repr(name))
            raise DataError(f"{archive}: expected plain files below one folder, got a file that is a folder: {shown}")
    total, size = sum(info.file_size for info in plan.values()), archive.stat().st_size
    if total > max_bytes:
        raise DataError(f"{archive}: expected at most {max_bytes} bytes when unpacked, got {total}")
    if total > max(_HARMLESS, _MAX_RATIO * size):
        raise DataError(f"{archive}: expected at most {_MAX_RATIO} times its {size} bytes when unpacked, got {total}")
    return plan


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Why an entry is not unpacked, None where it may be."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    if "\\" in name or "\0" in name:
        return "a backslash or null in a name"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "an absolute path"
    if ".." in name.split("/"):
        return "a path that leads out"
    if name in ("", ".") or len(name) > _LONGEST_NAME:
        return "an empty or endless name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or device"
    return "an encrypted file" if info.flag_bits & 1 else None


def _extract(zip_file: zipfile.ZipFile, plan: Mapping[str, zipfile.ZipInfo], folder: Path, *, total: int) -> None:
    with tqdm(total=total, unit="B", unit_scale=True, desc=Path(str(zip_file.filename)).name, disable=None) as bar:
        for name, info in plan.items():
            place = folder / name
            if info.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with zip_file.open(info) as source, open(place, "xb") as destination:
                while chunk := source.read(_CHUNK):  # never more than the declared size
                    destination.write(chunk)
                    bar.update(len(chunk))
                if destination.tell() != info.file_size:
                    raise zipfile.BadZipFile(f"{name!r}: {destination.tell()} bytes instead of {info.file_size}")


@contextmanager
def _errors(archive: Path, target: Path) -> Iterator[None]:
    """Turns what zipfile and the disk raise into one line."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # a broken bz2 stream, a place before the file's begin
            raise _broken(archive, error) from None
        if error.errno == errno.ENOSPC and error.filename == str(target):  # require_space has said all
            raise
        raise OSError(error.errno, f"cannot unpack {archive.name}: {error.strerror}", str(target)) from error
    except _BROKEN as error:
        raise _broken(archive, error) from None


def _broken(archive: Path, error: Exception) -> DataError:
    reason = as_one_line(str(error)) or type(error).__name__
    return DataError(f"{archive}: expected a whole zip archive, got one that is broken, cut off or no zip ({reason})")


# Folders


def _rename(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        if not target.is_dir():  # else a machine that shares the disk was faster
            raise


def _move_up(source: Path, target: Path) -> None:
    """Renames everything in `source` to its place in `target`; a file that is there already stays."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if not os.path.lexists(place):
            path.rename(place)
        elif path.is_dir() and place.is_dir():
            _move_up(path, place)


def _wanted(root: Path, zips: Mapping[str, str]) -> dict[Path, str]:
    return {
        archive: folder
        for pattern, folder in zips.items()
        for archive in find_zips(root, pattern)
        if not (root / folder).is_dir() or is_unpacking(root, archive.name)
    }


def _stage(root: Path, name: str) -> Path:
    return root / f".{name}.unpacked"


def _host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname())
