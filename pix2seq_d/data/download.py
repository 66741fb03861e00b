"""Datasets put in place: fetched from the Hub with retries, verified, unpacked.

A folder that holds data is left alone. Processes that ask for the same folder at once wait for the one that fetches.
"""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, errors, hf_hub_download, hf_hub_url

from pix2seq_d.data.archive import (
    exclusive,
    existing_folder,
    file_sha256,
    find_zips,
    is_unpacking,
    require_space,
    unpack_into,
    unpack_zip,
)

logger = logging.getLogger(__name__)


class DownloadError(OSError):
    """A dataset could not be fetched: one line with the repository, the file, the reason and what to do."""


class _ChecksumError(Exception):
    """The fetched bytes are not those of the Hub."""


@dataclass(frozen=True)
class HubArchive:
    """A zip archive of a dataset on the Hub.

    Attributes:
        repo_id: model repository.
        filename: its file.
        folder: what the dataset's folder is called.
        terms: licence of the data.
        revision: branch, tag or commit.
    """

    repo_id: str
    filename: str
    folder: str
    terms: str
    revision: str = "main"


DOWNLOADS = {
    "kitti-step": HubArchive("LXT/VideoK-Net", "kitti_step.zip", folder="kitti_step", terms="CC BY-NC-SA 3.0"),
}


def fetch_dataset(name: str, root: str | os.PathLike[str], *, attempts: int = 4, wait: float = 5.0) -> bool:
    """Puts a dataset of DOWNLOADS into the folder `root`, unless that holds data already.

    The archive is taken from `root` or the folder around it where it lies there, else from the Hub (through its cache:
    HF_HOME, HF_HUB_OFFLINE, HF_TOKEN and HF_ENDPOINT do what they always do). A cut connection is resumed; what the Hub
    gives a SHA-256 for is held against it, where the cache keeps it (on file systems with links).

    Args:
        name: key of DOWNLOADS.
        root: folder of the dataset.
        attempts: how often the download is begun before it counts as failed.
        wait: seconds before the second attempt; doubled with each.

    Returns:
        True if the dataset was put in place, False if it was there.

    Raises:
        DownloadError: the Hub refuses, does not have it, cannot be reached, or sends something else.
        DataError: the archive is unfit, as `unpack_zip` says.
        OSError: too little free disk, or a folder that cannot be written.
    """
    source, root = DOWNLOADS[name], Path(root)
    if _in_place(root, source):
        return False
    with exclusive(root):
        if _in_place(root, source):
            return False
        if own := find_zips(root, source.filename):
            archive, sha256 = own[0], None
        else:
            logger.info("%s: fetching %s of %s (%s)", name, source.filename, source.repo_id, source.terms)
            archive, sha256 = _download(name, source, root, attempts=attempts, wait=wait)
        logger.info("%s: unpacking %s to %s; the archive stays where it is", name, archive, root)
        if root.is_dir():
            unpack_into(archive, root, sha256=sha256)
        else:
            unpack_zip(archive, root, sha256=sha256)
    return True


def _in_place(root: Path, source: HubArchive) -> bool:
    """Whether the folder holds anything but the archive, hidden files or an unpacking that was interrupted."""
    if not root.is_dir():
        return root.exists()  # a file is no room for a dataset: its reader says so
    if is_unpacking(root, source.filename):
        return False
    return any(not path.name.startswith(".") and path.name != source.filename for path in root.iterdir())


# The Hub


def _download(name: str, source: HubArchive, root: Path, *, attempts: int, wait: float) -> tuple[Path, str]:
    """The archive in the Hub's cache with its SHA-256."""
    anew = False
    for attempt in range(1, attempts + 1):
        try:
            path = _ask(source, root, anew=anew)
            sha256 = file_sha256(path)
            if _sha256_of_the_hub(path) in (None, sha256):
                return path, sha256
            error: Exception = _ChecksumError("the SHA-256 of what came is not that of the Hub")
            anew = True  # the cache must not give the same again
        except Exception as caught:  # the client's errors, its transport's and hf_xet's have no common base
            error = caught
        if _is_local(error):
            raise error
        if attempt == attempts or not _may_pass(error):
            raise DownloadError(_explain(error, name, source, root)) from error
        seconds = wait * 2 ** (attempt - 1)
        logger.warning("%s: %s; next attempt in %.0f s", source.filename, _first_line(error), seconds)
        time.sleep(seconds)
    raise ValueError(f"attempts: expected at least 1, got {attempts}")


def _ask(source: HubArchive, root: Path, *, anew: bool) -> Path:
    """One attempt of the client, after a look at the free disk."""
    plan = hf_hub_download(source.repo_id, source.filename, revision=source.revision, force_download=anew, dry_run=True)
    size = plan.file_size or 0
    fetched, cache = size if plan.will_download else 0, Path(constants.HF_HUB_CACHE)
    if existing_folder(cache).stat().st_dev == existing_folder(root).stat().st_dev:
        require_space(root, fetched + size, purpose=f"{source.filename} in the Hub's cache and unpacked")
    else:
        require_space(cache, fetched, purpose=f"{source.filename} in the Hub's cache (HF_HOME chooses another place)")
        require_space(root, size, purpose=f"{source.filename} unpacked")
    return Path(hf_hub_download(source.repo_id, source.filename, revision=source.revision, force_download=anew))


def _sha256_of_the_hub(path: Path) -> str | None:
    """The checksum that names the cached file where it came with one (large files) and the cache has links."""
    blob = Path(os.readlink(path)).name if path.is_symlink() else ""
    return blob if re.fullmatch("[0-9a-f]{64}", blob) else None


# What went wrong


def _is_local(error: Exception) -> bool:
    """An error of this machine's disk."""
    network = (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError)
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, network)


def _may_pass(error: Exception) -> bool:
    """Whether the next attempt may do better; the client itself has repeated what it reports as not found locally."""
    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500
    return not isinstance(error, errors.LocalEntryNotFoundError | ValueError)


def _explain(error: Exception, name: str, source: HubArchive, root: Path) -> str:
    reason, remedy = _reason(error, source)
    url = hf_hub_url(source.repo_id, source.filename, revision=source.revision)
    return (
        f"{name}: could not fetch {source.filename} of the Hub's {source.repo_id} ({reason}): {remedy}, "
        f"or get {url} another way and put it into {root.parent}, or its content into {root}"
    )


def _reason(error: Exception, source: HubArchive) -> tuple[str, str]:
    """What happened, and what to do about it."""
    if isinstance(error, errors.LocalEntryNotFoundError | ValueError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    login = "log in with an account that may read it (hf auth login)"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set and the cache has no sound copy", "unset it"
    if isinstance(error, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{source.repo_id}"
        return "access is restricted", f"accept the terms on {page} and {login}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one", login
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no revision {source.revision}", "install a newer pix2seq_d"
    if isinstance(error, errors.EntryNotFoundError) and isinstance(error, errors.HfHubHTTPError):
        return "the repository has no such file", "install a newer pix2seq_d"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"the Hub refuses access, {status}", login
        if status == 429:
            return "too many requests, 429", "wait some minutes, or log in for a higher limit (hf auth login)"
        return f"the Hub answers {status}", "try again later"
    if isinstance(error, errors.HTTPError | ConnectionError | TimeoutError):  # HTTPError: of the transport
        return f"no connection, or one that breaks: {_first_line(error)}", "look at the network and try again"
    return _first_line(error), "try again"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
