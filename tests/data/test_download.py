"""Fetching a dataset from a Hub on the loopback: what arrives, what is tried again, and what every failure says."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from loopback_hub import Fault, LoopbackHub, running_hub
from zips import kitti_step_zip, make_zip

from pix2seq_d.data import download
from pix2seq_d.data.archive import file_sha256
from pix2seq_d.data.download import DOWNLOADS, DownloadError, fetch_dataset
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.kitti_step import KittiStep

SOURCE = DOWNLOADS["kitti-step"]
FILE = SOURCE.repo_id, SOURCE.filename
FRAME = "kitti_out/video_sequence/val/000002_000001_panoptic.png"
RESOLVE = f"/{SOURCE.repo_id}/resolve/main/{SOURCE.filename}"


@pytest.fixture(scope="module")
def archive() -> bytes:
    return kitti_step_zip()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of the Hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, cache: Path, archive: bytes) -> Iterator[LoopbackHub]:
    with running_hub(monkeypatch) as server:
        server.files[FILE] = archive
        server.large = True
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "kitti_step"


def refused(root: Path, **options: float) -> str:
    """The one line of a failed download, which names all that a user needs and leaves no data."""
    before = {p for p in root.parent.rglob("*")}
    with pytest.raises(DownloadError) as caught:
        fetch_dataset("kitti-step", root, wait=0, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith("kitti-step: could not fetch kitti_step.zip of the Hub's LXT/VideoK-Net (")
    url = f"{huggingface_hub.constants.ENDPOINT}{RESOLVE}"
    assert message.endswith(f", or get {url} another way and put it into {root.parent}, or its content into {root}")
    assert "\n" not in message
    assert {p for p in root.parent.rglob("*")} - before <= {root.parent / ".kitti_step.lock"}
    return message.split(" (", 1)[1].rsplit(", or get ", 1)[0]


def bodies(hub: LoopbackHub) -> int:
    """How often the file's bytes were asked for."""
    return sum(method == "GET" and "/cdn/" in path for method, path in hub.requests)


# what arrives


def test_what_arrives_can_be_read(hub: LoopbackHub, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert fetch_dataset("kitti-step", root)
    for split, sequence in (("train", "0000"), ("val", "0002")):
        videos = KittiStep(root, split)
        assert videos.sequence_ids == (sequence,)
        assert videos.read_frame(sequence, 1)[0].shape == (40, 72, 3)
    manifest = json.loads((root / ".kitti_step.zip.json").read_text())
    assert manifest["sha256"] == hashlib.sha256(hub.files[FILE]).hexdigest()
    assert manifest["files"] == 8
    assert {p.name for p in root.parent.iterdir()} == {"kitti_step", ".kitti_step.lock"}
    assert any("CC BY-NC-SA 3.0" in r.getMessage() for r in caplog.records)


def test_what_is_there_is_not_fetched(hub: LoopbackHub, root: Path) -> None:
    assert fetch_dataset("kitti-step", root)
    asked = len(hub.requests)
    assert not fetch_dataset("kitti-step", root)
    assert len(hub.requests) == asked


def test_data_of_the_users_own_is_left_alone(hub: LoopbackHub, root: Path) -> None:
    (root / "images").mkdir(parents=True)
    assert not fetch_dataset("kitti-step", root)
    shutil.rmtree(root)
    root.write_text("a file is for the reader to complain about")
    assert not fetch_dataset("kitti-step", root)
    assert not hub.requests
    assert [p.name for p in root.parent.iterdir()] == ["kitti_step"]


def test_a_second_folder_comes_from_the_cache(hub: LoopbackHub, root: Path) -> None:
    for name in ("one", "two"):
        assert fetch_dataset("kitti-step", root / name)
    assert bodies(hub) == 1
    assert file_sha256(root / "one" / FRAME) == file_sha256(root / "two" / FRAME)


def test_an_empty_folder_is_filled(hub: LoopbackHub, root: Path) -> None:
    """As a mounted disk is, which no folder could be renamed to."""
    root.mkdir(parents=True)
    (root / ".keep").touch()
    assert fetch_dataset("kitti-step", root)
    assert {p.name for p in root.iterdir()} == {".keep", ".kitti_step.zip.json", "kitti_out"}
    assert not fetch_dataset("kitti-step", root)


@pytest.mark.parametrize("place", ["kitti_step.zip", "kitti_step/kitti_step.zip"])
def test_an_archive_that_lies_there_is_used(hub: LoopbackHub, root: Path, archive: bytes, place: str) -> None:
    path = root.parent / place
    path.parent.mkdir(parents=True)
    path.write_bytes(archive)
    assert fetch_dataset("kitti-step", root)
    assert not hub.requests
    assert (root / FRAME).is_file()
    assert path.read_bytes() == archive
    assert not fetch_dataset("kitti-step", root)


def test_an_unfit_archive_is_not_unpacked(hub: LoopbackHub, root: Path) -> None:
    hub.files[FILE] = make_zip([("../../out.png", b"1")])
    with pytest.raises(DataError, match=r"kitti_step\.zip: expected plain files .* leads out: '\.\./\.\./out\.png'$"):
        fetch_dataset("kitti-step", root)
    assert [p.name for p in root.parent.iterdir()] == [".kitti_step.lock"]


# what is tried again


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_cut_half_way(hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch, reset: bool) -> None:
    """An end of the stream is resumed by the client, to a whole chunk; a reset begins anew."""
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.faults = [Fault(cut_at=15_700, reset=reset)]
    assert fetch_dataset("kitti-step", root, wait=0)
    assert (root / FRAME).is_file()
    assert bodies(hub) == 2
    assert hub.ranges == ([] if reset else ["bytes=15000-"])


def test_waits_double(hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    hub.faults = [Fault(status=503, times=3)]
    assert fetch_dataset("kitti-step", root, wait=5)
    assert [w for w in waits if w >= 5] == [5, 10, 20]


def test_a_connection_that_is_always_cut(hub: LoopbackHub, root: Path) -> None:
    hub.faults = [Fault(cut_at=1000, reset=True, times=99)]
    assert refused(root, attempts=3).startswith("no connection, or one that breaks: ")
    assert bodies(hub) == 3


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_recovers(hub: LoopbackHub, root: Path, status: int) -> None:
    hub.faults = [Fault("HEAD", status), Fault("GET", status)]
    assert fetch_dataset("kitti-step", root, wait=0)


def test_other_bytes_of_the_same_length(hub: LoopbackHub, root: Path) -> None:
    hub.faults = [Fault(corrupt=True)]
    assert fetch_dataset("kitti-step", root, wait=0)
    assert bodies(hub) == 2
    assert file_sha256(root / FRAME)


def test_a_checksum_that_is_always_wrong(hub: LoopbackHub, root: Path) -> None:
    hub.faults = [Fault(corrupt=True, times=99)]
    assert refused(root, attempts=3) == "the SHA-256 of what came is not that of the Hub): try again"
    assert bodies(hub) == 3
    hub.faults.clear()
    assert fetch_dataset("kitti-step", root), "the cache has the wrong bytes, and is not believed"


def test_no_checksum_where_the_cache_has_no_links(hub: LoopbackHub, root: Path) -> None:
    path = root / "a copy"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1")
    assert download._sha256_of_the_hub(path) is None


# what every failure says


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("HEAD", 401, "GatedRepo", times=9), "access is restricted): accept the terms on "),
        (Fault("HEAD", 403, "GatedRepo", times=9), "access is restricted): accept the terms on "),
        (Fault("HEAD", 401, "RepoNotFound", times=9), "no such repository, or a private one): log in with"),
        (Fault("HEAD", 404, "RepoNotFound", times=9), "no such repository, or a private one): log in with"),
        (Fault("HEAD", 404, "RevisionNotFound", times=9), "the repository has no revision main): install a newer"),
        (Fault("HEAD", 404, "EntryNotFound", times=9), "the repository has no such file): install a newer"),
        (Fault("HEAD", 403, times=9), "the Hub refuses access, 403): log in with an account"),
        (Fault("GET", 403, times=9), "the Hub refuses access, 403): log in with an account"),
        (Fault("HEAD", 429, times=99), "too many requests, 429): wait some minutes, or log in"),
        (Fault("GET", 429, times=99), "too many requests, 429): wait some minutes, or log in"),
        (Fault("HEAD", 500, times=99), "the Hub answers 500): try again later"),
        (Fault("HEAD", 503, times=99), "the Hub answers 503): try again later"),
        (Fault("GET", 503, times=99), "the Hub answers 503): try again later"),
    ],
)
def test_an_answer_that_is_no_file(hub: LoopbackHub, root: Path, fault: Fault, words: str) -> None:
    hub.faults = [fault]
    assert words in refused(root)
    if fault.status < 429:
        assert fault.times >= 7, "what cannot change is not asked again"


def test_a_repository_without_the_file_or_the_revision(
    hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = {(SOURCE.repo_id, "other.zip"): b"1"}
    assert "no such file" in refused(root)
    other = download.HubArchive(SOURCE.repo_id, SOURCE.filename, folder="", terms="", revision="v2")
    monkeypatch.setitem(DOWNLOADS, "kitti-step", other)
    monkeypatch.setattr("test_download.RESOLVE", RESOLVE.replace("main", "v2"))
    assert "no revision v2" in refused(root)


def test_no_network(hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    message = refused(root)
    assert message.startswith("no connection, or one that breaks: ")
    assert message.endswith("): look at the network and try again")


def test_offline(hub: LoopbackHub, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert refused(root) == "HF_HUB_OFFLINE is set and the cache has no sound copy): unset it"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    fetch_dataset("kitti-step", root)
    asked = len(hub.requests)
    shutil.rmtree(root)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_dataset("kitti-step", root)
    assert (root / FRAME).is_file()
    assert len(hub.requests) == asked
    shutil.rmtree(root)
    (blob,) = (p for p in (cache / "models--LXT--VideoK-Net" / "blobs").iterdir())
    blob.write_bytes(b"rotten")
    assert refused(root) == "HF_HUB_OFFLINE is set and the cache has no sound copy): unset it"


Usage = namedtuple("Usage", "total used free")


def test_too_little_disk_is_found_out_before_the_download(
    hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cache and data on one disk: it has to hold the archive and what comes out of it."""
    needed = 2 * len(hub.files[FILE])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, needed - 1))
    with pytest.raises(
        OSError, match=r"expected 0\.0 GB of free disk for kitti_step\.zip in the Hub's cache and unpack"
    ):
        fetch_dataset("kitti-step", root)
    assert bodies(hub) == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, needed + 8 * 4096))
    assert fetch_dataset("kitti-step", root)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system has no second disk to try")
@pytest.mark.parametrize(("where", "purpose"), [("shm", "in the Hub's cache .HF_HOME"), ("data", "unpacked")])
def test_cache_and_data_on_two_disks(
    hub: LoopbackHub, root: Path, monkeypatch: pytest.MonkeyPatch, where: str, purpose: str
) -> None:
    size = len(hub.files[FILE])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/dev/shm/none/cache")
    small = {"shm": Path("/dev/shm"), "data": root.parent}[where]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, size - (Path(path) == small)))
    with pytest.raises(OSError, match=rf"expected 0\.0 GB of free disk for kitti_step\.zip {purpose}"):
        fetch_dataset("kitti-step", root)
    assert bodies(hub) == 0


def test_a_cache_that_cannot_be_written(hub: LoopbackHub, root: Path, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(OSError, match="cache") as caught:
        fetch_dataset("kitti-step", root)
    assert not isinstance(caught.value, DownloadError)


def test_no_attempts(root: Path) -> None:
    with pytest.raises(ValueError, match=r"^attempts: expected at least 1, got 0$"):
        fetch_dataset("kitti-step", root, attempts=0)


# several processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_one_process_fetches_and_the_others_wait(hub: LoopbackHub, root: Path) -> None:
    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            code: int = 99
            try:
                fetched = fetch_dataset("kitti-step", root)
                code = fetched if (root / FRAME).is_file() else 98
            finally:
                os._exit(code)
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [0, 0, 1], "one has fetched, two have found"
    assert bodies(hub) == 1
