"""Unpacking: whole or not at all, inside its folder, within its limits, whatever the archive says."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import stat
import threading
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from filelock import FileLock
from zips import make_zip

from pix2seq_d.data import archive as archives
from pix2seq_d.data.archive import exclusive, find_zips, is_unpacking, unpack_found_zips, unpack_into, unpack_zip
from pix2seq_d.data.formats import DataError, as_one_line

FILES = {"a/one.txt": b"1", "a/b/two.txt": b"22" * 3000, "three.txt": b""}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, manifests and locks left out."""
    paths = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def refused(archive: Path, **options: int) -> str:
    """The one line that refuses an archive, which leaves nothing behind."""
    before = {p for p in archive.parent.rglob("*")}
    with pytest.raises(DataError) as caught:
        unpack_zip(archive, archive.parent / "new" / "target", **options)
    assert "\n" not in str(caught.value)
    assert str(archive) in str(caught.value)
    assert {p for p in archive.parent.rglob("*")} - before <= {archive.parent / "new"}
    return str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_sound_archive(tmp_path: Path, method: int) -> None:
    data = make_zip([("a/", b""), *FILES.items(), ("./", b""), ("./c//four.txt", b"4")], compression=method)
    manifest = unpack_zip(write(tmp_path / "x.zip", data), tmp_path / "deep" / "target")
    assert tree(tmp_path / "deep" / "target") == {**FILES, "c/four.txt": b"4"}
    digest = hashlib.sha256(data).hexdigest()
    assert manifest == ("x.zip", digest, 4, 6002)
    assert json.loads((tmp_path / "deep/target/.x.zip.json").read_text()) == manifest._asdict()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["target"]


def test_a_digest_that_is_known_is_not_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(archives, "file_sha256")
    assert unpack_zip(write(tmp_path / "x.zip", make_zip([])), tmp_path / "t", sha256="ab").sha256 == "ab"


# what is refused


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../out.txt", "a path that leads out"),
        ("a/../../out.txt", "a path that leads out"),
        ("/out.txt", "an absolute path"),
        ("C:/out.txt", "an absolute path"),
        ("c:out.txt", "an absolute path"),
        ("..\\out.txt", "a backslash or null in a name"),
        ("a\\out.txt", "a backslash or null in a name"),
        (".", "an empty or endless name"),
        ("a/" * 501, "an empty or endless name"),
    ],
)
def test_names_that_lead_out(tmp_path: Path, name: str, problem: str) -> None:
    archive = write(tmp_path / "x.zip", make_zip([("fine.txt", b"1"), (name, b"2")]))
    assert f"got {problem}: {as_one_line(repr(name))}" in refused(archive)
    assert not list(tmp_path.parent.glob("out.txt"))


def test_a_null_in_a_name(tmp_path: Path) -> None:
    data = make_zip([("a_b.txt", b"1")]).replace(b"a_b.txt", b"a\0b.txt")
    assert "a backslash or null in a name: 'a\\x00b.txt'" in refused(write(tmp_path / "x.zip", data))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices(tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (kind | 0o777) << 16
    archive = write(tmp_path / "x.zip", make_zip([(entry, b"/etc/passwd")]))
    assert "got a link or device: 'link'" in refused(archive)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a.txt", "a.txt"), ("a.txt", "./a.txt"), ("d/a.txt", "d//a.txt")])
def test_names_that_come_twice(tmp_path: Path, names: tuple[str, str]) -> None:
    archive = write(tmp_path / "x.zip", make_zip([(name, b"1") for name in names]))
    assert "got a name that comes twice" in refused(archive)


def test_a_file_that_is_a_folder_too(tmp_path: Path) -> None:
    archive = write(tmp_path / "x.zip", make_zip([("a/b/c.txt", b"1"), ("a", b"2")]))
    assert "got a file that is a folder: 'a'" in refused(archive)


def test_an_encrypted_entry(tmp_path: Path) -> None:
    data = bytearray(make_zip([("secret.txt", b"1")]))
    data[data.index(b"PK\x01\x02") + 8] |= 1  # general purpose flag, bit 0, of the central directory
    assert "got an encrypted file: 'secret.txt'" in refused(write(tmp_path / "x.zip", bytes(data)))


def test_too_large(tmp_path: Path) -> None:
    archive = write(tmp_path / "x.zip", make_zip(FILES.items()))
    assert "expected at most 6000 bytes when unpacked, got 6001" in refused(archive, max_bytes=6000)
    unpack_zip(archive, tmp_path / "target", max_bytes=6001)


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million zeros deflate to about a thousandth."""
    archive = write(tmp_path / "x.zip", make_zip([("zeros", bytes(10**6))], compression=zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(archives, "_HARMLESS", 10**6 - 1)
    assert f"at most 500 times its {archive.stat().st_size} bytes when unpacked, got 1000000" in refused(archive)
    monkeypatch.setattr(archives, "_HARMLESS", 10**6)
    unpack_zip(archive, tmp_path / "target")


@pytest.mark.parametrize("declared", [10, 999, 1001, 5000])
def test_a_size_that_is_not_true(tmp_path: Path, declared: int) -> None:
    """Both headers say another size than the 1000 bytes that the stream holds."""
    sizes = [size.to_bytes(4, "little") for size in (1000, declared)]
    data = make_zip([("a.bin", bytes(range(250)) * 4)], compression=zipfile.ZIP_DEFLATED).replace(*sizes)
    assert "broken, cut off or no zip" in refused(write(tmp_path / "x.zip", data))


def test_a_shorter_stream_with_the_right_checksum(tmp_path: Path) -> None:
    """The stream of b"" is whole and its CRC of 0 right, but the headers declare 7 bytes."""
    data = bytearray(make_zip([("a.bin", b"")], compression=zipfile.ZIP_DEFLATED))
    for place in (22, data.index(b"PK\x01\x02") + 24):
        data[place : place + 4] = (7).to_bytes(4, "little")
    assert "'a.bin': 0 bytes instead of 7" in refused(write(tmp_path / "x.zip", bytes(data)))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_anywhere(tmp_path: Path, method: int) -> None:
    """Cut off: refused. With a byte changed: refused, or no file that was to be unpacked has changed."""
    whole = make_zip([("a/b.txt", b"some text, some text"), ("c.txt", b"!")], compression=method)
    broken = [whole[:k] for k in range(len(whole))]
    broken += [whole[:k] + bytes([whole[k] ^ 0x55]) + whole[k + 1 :] for k in range(len(whole))]
    archive, target = tmp_path / "x.zip", tmp_path / "target"
    for data in broken[method % 5 :: 13]:
        archive.write_bytes(data)
        try:
            unpack_zip(archive, target)
        except DataError:
            pass
        else:
            assert len(data) == len(whole)
            assert set(tree(target).values()) <= {b"some text, some text", b"!"}
            shutil.rmtree(target)
        assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_what_is_no_archive(tmp_path: Path) -> None:
    assert "expected a zip archive, found nothing" in refused(tmp_path / "x.zip")
    assert "expected a zip archive, found a folder" in refused(tmp_path)
    assert "broken, cut off or no zip" in refused(write(tmp_path / "x.zip", b"<html>log in first</html>"))


def test_a_target_that_exists(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    archive = write(tmp_path / "x.zip", make_zip(FILES.items()))
    with pytest.raises(DataError, match=r"target: expected a folder that does not exist yet .*x\.zip, found one$"):
        unpack_zip(archive, tmp_path / "target")


# the disk


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    archive = write(tmp_path / "x.zip", make_zip(FILES.items()))
    needed = 6001 + 3 * 4096
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, needed - 1))
    with pytest.raises(OSError, match=r"expected 0\.0 GB of free disk for x\.zip, found 0\.0 GB.*target'$"):
        unpack_zip(archive, tmp_path / "target")
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, needed))
    unpack_zip(archive, tmp_path / "target")


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        (tmp_path / ".half").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "_extract", full)
    archive = write(tmp_path / "x.zip", make_zip(FILES.items()))
    with pytest.raises(OSError, match=r"\[Errno 28\] cannot unpack x\.zip: No space left on device: '.*target'$"):
        unpack_zip(archive, tmp_path / "target")
    assert {p.name for p in tmp_path.iterdir()} == {"x.zip", ".half"}


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    archive = write(tmp_path / "x.zip", make_zip(FILES.items()))
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OSError, match=r"cannot unpack x\.zip: Permission denied"):
        unpack_zip(archive, tmp_path / "closed" / "target")


# interruptions


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_killed_between_unpacking_and_renaming(tmp_path: Path) -> None:
    archive = write(tmp_path / "x.zip", make_zip(FILES.items()))
    child = os.fork()
    if not child:
        try:
            Path.rename = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            unpack_zip(archive, tmp_path / "data")
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (leftover,) = tmp_path.glob(".data.*.unpacking")
    assert tree(leftover) == FILES
    assert not (tmp_path / "data").exists()
    unpack_zip(archive, tmp_path / "data")
    assert tree(tmp_path / "data") == FILES
    assert leftover.exists(), "without the lock it may be another process at work"
    with exclusive(tmp_path / "data"):
        assert not leftover.exists()


def test_leftovers_of_other_machines_and_other_folders_stay(tmp_path: Path) -> None:
    names = (".data.elsewhere.12345678.unpacking", f".data2.{archives._host()}.12345678.unpacking")
    for name in names:
        (tmp_path / name).mkdir()
    with exclusive(tmp_path / "data"):
        assert all((tmp_path / name).is_dir() for name in names)


def test_another_machine_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path / "x.zip", make_zip(FILES.items()))
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if target.name == "target":
            write(target / "theirs.txt", b"theirs")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    unpack_zip(archive, tmp_path / "target")
    assert tree(tmp_path / "target") == {"theirs.txt": b"theirs"}
    assert {p.name for p in tmp_path.iterdir()} == {"x.zip", "target"}


def test_only_one_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = FileLock(tmp_path / ".data.lock")
    held.acquire()
    entered = threading.Event()

    def wait() -> None:
        with exclusive(tmp_path / "data"):
            entered.set()

    with caplog.at_level(logging.INFO):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.2)
        held.release()
        thread.join(10)
    assert entered.is_set()
    assert [r.getMessage() for r in caplog.records if r.name == archives.__name__] == [
        f"{tmp_path / 'data'}: waiting for the process that prepares it"
    ]


# into a folder that exists


def test_unpacking_beside_other_things(tmp_path: Path) -> None:
    archive = write(tmp_path / "x.zip", make_zip([*FILES.items(), ("README", b"theirs")]))
    write(tmp_path / "root/README", b"mine")
    write(tmp_path / "root/a/mine.txt", b"mine")
    unpack_into(archive, tmp_path / "root")
    assert tree(tmp_path / "root") == {**FILES, "README": b"mine", "a/mine.txt": b"mine"}
    hidden = [p.name for p in (tmp_path / "root").iterdir() if p.name.startswith(".")]
    assert hidden == [".x.zip.json"]


def test_a_move_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, root = write(tmp_path / "x.zip", make_zip(FILES.items())), tmp_path / "root"
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "three.txt":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack_into(archive, root)
    monkeypatch.setattr(Path, "rename", rename)
    assert is_unpacking(root, "x.zip")
    assert "a/one.txt" in tree(root)
    archive.write_bytes(b"not needed any more")
    unpack_into(archive, root)
    assert tree(root) == FILES
    assert not is_unpacking(root, "x.zip")


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    archive = write(tmp_path / "x.zip", make_zip(FILES.items()))
    with pytest.raises(DataError, match=r"x\.zip: expected an archive of gtFine/train/, found a, three\.txt$"):
        unpack_into(archive, tmp_path / "root", expected="gtFine/train")
    assert not list((tmp_path / "root").iterdir())


# archives that lie there

ZIPS = {"images*.zip": "images/train", "more.zip": "images/extra"}


def test_found_zips_are_unpacked_once(tmp_path: Path) -> None:
    root = tmp_path / "city"
    write(tmp_path / "images_v1.zip", make_zip([("images/train/a.png", b"a"), ("README", b"1")]))  # beside
    write(root / "more.zip", make_zip([("images/extra/b.png", b"b"), ("README", b"2")]))  # inside
    write(root / "other.zip", make_zip([("c.png", b"c")]))
    assert [p.name for p in unpack_found_zips(root, ZIPS)] == ["images_v1.zip", "more.zip"]
    assert {n: d for n, d in tree(root).items() if not n.endswith(".zip")} == {
        "images/train/a.png": b"a", "images/extra/b.png": b"b", "README": b"1"
    }  # fmt: skip
    assert unpack_found_zips(root, ZIPS) == []
    (root / "images/train/a.png").unlink()
    assert unpack_found_zips(root, ZIPS) == [], "the folder is there: what is in it is the user's affair"
    shutil.rmtree(root / "images" / "extra")
    assert [p.name for p in unpack_found_zips(root, ZIPS)] == ["more.zip"]


def test_found_zips_go_on_where_a_move_was_interrupted(tmp_path: Path) -> None:
    root = tmp_path / "city"
    archive = write(root / "more.zip", make_zip([("images/extra/b.png", b"b"), ("zzz", b"z")]))
    (root / "images" / "extra").mkdir(parents=True)
    unpack_zip(archive, root / ".more.zip.unpacked")
    assert unpack_found_zips(root, ZIPS) == [archive]
    assert {n for n in tree(root)} == {"more.zip", "images/extra/b.png", "zzz"}


def test_a_faster_process_leaves_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path / "city" / "more.zip", make_zip([("images/extra/b.png", b"b")]))
    answers = iter([{archive: "images/extra"}, {}])
    monkeypatch.setattr(archives, "_wanted", lambda root, zips: next(answers))
    assert unpack_found_zips(tmp_path / "city", ZIPS) == []
    assert set(tree(tmp_path / "city")) == {"more.zip"}


def test_nothing_to_unpack_touches_nothing(tmp_path: Path) -> None:
    assert unpack_found_zips(tmp_path / "nowhere" / "city", ZIPS) == []
    assert not list(tmp_path.iterdir())
    assert find_zips(tmp_path / "nowhere" / "city", "*.zip") == []
