"""No broken file gets past a decoder as anything but a DataError of one line, and none makes it eat memory."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders import DECODERS, Decoder
from fuzzing import SIZE, corrupt, make_png, png_chunks, png_header

from pix2seq_d.data.formats import MAX_PIXELS, DataError, read_image, read_kitti_step, write_kitti_step
from pix2seq_d.labels import LabelSpec

COUNT, COUNT_SLOW = 60, 5000  # files per decoder

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of broken metadata; what counts is the result
by_name = pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)


def fuzz(decoder: Decoder, folder: Path, *, count: int, seed: int) -> Counter[str]:
    """Reads `count` broken files; returns how many of every kind were refused."""
    path = decoder.write(folder)
    data, refused = path.read_bytes(), Counter()
    check_result(decoder.read(path))
    for number, (kind, broken) in enumerate(corrupt(data, count, seed)):
        path.unlink()  # some file systems wait for the disk where a file is written over
        path.write_bytes(broken)
        try:
            check_result(decoder.read(path))
        except DataError as error:
            refused[kind] += 1
            said = str(error)
        except Exception as error:
            raise AssertionError(f"{decoder.name}: {kind}, seed {seed}, file {number}: {error!r}") from error
        else:
            continue
        assert said.startswith(str(path.parent)), said  # a JSON may name another file in the folder
        assert said.isprintable(), said
        assert len(said) < len(str(path)) + 300, said
    return refused


def check_result(result: Any) -> None:
    """What is read is whole: maps of one shape, images of three channels, a spec that survives JSON, targets."""
    if isinstance(result, LabelSpec):
        assert LabelSpec.from_dict(result.to_dict()) == result
        return
    if isinstance(result, list):
        assert all(isinstance(target.image_id, int | str) for target in result)
        return
    arrays = result if isinstance(result, tuple) else (result,)
    assert {a.shape[:2] for a in arrays} == {arrays[0].shape[:2]}
    assert all(isinstance(a, np.ndarray) and a.size and a.ndim in (2, 3) for a in arrays)


@by_name
def test_broken_files_are_refused_in_words(decoder: Decoder, tmp_path: Path) -> None:
    assert fuzz(decoder, tmp_path, count=COUNT, seed=0).total() > COUNT // 4


@pytest.mark.slow
@by_name
def test_thousands_of_broken_files(decoder: Decoder, tmp_path: Path) -> None:
    refused = fuzz(decoder, tmp_path, count=COUNT_SLOW, seed=1)
    assert len(refused) > 5


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    data = DECODERS[0].write(tmp_path).read_bytes()
    files = list(corrupt(data, 40, 3))
    assert files == list(corrupt(data, 40, 3))
    assert files != list(corrupt(data, 40, 4))
    assert len({kind for kind, _ in files}) >= 12
    assert sum(broken != data for _, broken in files) >= 36


# Found by the runs above


@pytest.fixture
def label(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    write_kitti_step(path, np.full(SIZE, 13), np.arange(204).reshape(SIZE))
    return path


def test_a_flipped_bit_in_the_pixels_is_noticed(label: Path) -> None:
    """Pillow skips the checksum of pixel data and may decode other ids without a word."""
    chunks = png_chunks(label.read_bytes())
    raw = bytearray(zlib.decompress(dict(chunks)[b"IDAT"]))
    raw[20] ^= 1
    broken = [(k, zlib.compress(bytes(raw)) if k == b"IDAT" else b) for k, b in chunks]
    data = bytearray(make_png(broken))
    label.write_bytes(data)
    other = read_kitti_step(label)[1]  # decodes to other ids where the checksum is made to fit
    assert not np.array_equal(other, np.arange(204).reshape(SIZE))
    data[data.index(b"IDAT") + 4 + len(dict(broken)[b"IDAT"])] ^= 1
    label.write_bytes(data)
    with pytest.raises(DataError, match=r"wrong checksum of b'IDAT'"):
        read_kitti_step(label)


PRETENDED = b"x\0" + bytes(6) + bytes([8, 2])  # where a header would say 8-bit RGB


@pytest.mark.parametrize(("place", "chunk"), [(0, (b"tEXt", PRETENDED)), (2, (b"IHDR", png_header(17, 12, kind=0)))])
def test_only_the_header_in_front_counts(label: Path, place: int, chunk: tuple[bytes, bytes]) -> None:
    """Else the bit depth and kind that were looked at would not be those of the pixels."""
    chunks = png_chunks(label.read_bytes())
    chunks[0] = (b"IHDR", png_header(17, 12, kind=0)) if place == 0 else chunks[0]
    chunks.insert(place, chunk)
    label.write_bytes(make_png(chunks))
    with pytest.raises(DataError, match=r"a\.png: expected one PNG header, in front"):
        read_kitti_step(label)


def test_a_png_without_its_end_is_cut_off(label: Path) -> None:
    label.write_bytes(label.read_bytes()[:-6])
    with pytest.raises(DataError, match="cut off"):
        read_kitti_step(label)


# Memory


def lying_png(width: int, height: int, bits: int = 8, kind: int = 2) -> bytes:
    """A PNG of a thousand bytes that promises far more."""
    pixels = zlib.compress(bytes(1000))
    return make_png([(b"IHDR", png_header(width, height, bits, kind)), (b"IDAT", pixels), (b"IEND", b"")])


def lying_bmp(width: int, height: int) -> bytes:
    head = struct.pack("<IHHI", 0, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + head + bytes(100)


def lying_webp(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    parts = (b"VP8X", b"\x02\0\0\0" + size), (b"ANIM", bytes(6)), (b"ANMF", bytes(6) + size + bytes(12))
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(part)) + part for kind, part in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bomb(kind: bytes, head: bytes) -> bytes:
    """Metadata of 64 million zeros in a picture of 4x4."""
    chunks = (b"IHDR", png_header(4, 4)), (kind, head + zlib.compress(bytes(1 << 26))), (b"IEND", b"")
    return make_png([*chunks[:2], (b"IDAT", zlib.compress(bytes(52))), chunks[2]])


@pytest.fixture
def peak_mib() -> Callable[[], float]:
    """`peak_mib()` after the fixture: how far the memory of this process rose above its start."""
    status, refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        refs.write_text("5")  # resets the peak to the present
    except OSError:
        pytest.skip("the peak of the memory can only be reset on Linux")

    def value(name: str) -> int:
        return int(next(line for line in status.read_text().splitlines() if line.startswith(name)).split()[1])

    start = value("VmRSS")
    return lambda: (value("VmHWM") - start) / 1024


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", lying_png(8191, 8191)),
        ("a.png", lying_png(8191, 8191, 16, 6)),
        ("a.png", lying_png(MAX_PIXELS, 1, 16)),
        ("a.png", lying_png(1, MAX_PIXELS - 1, 16)),
        ("a.png", lying_png((1 << 31) - 1, (1 << 31) - 1)),
        ("a.bmp", lying_bmp(8000, 8000)),
        ("a.bmp", lying_bmp((1 << 31) - 1, -(1 << 31))),
        ("a.webp", lying_webp(16384, 16384)),
        ("a.png", bomb(b"zTXt", b"x\0\0")),
        ("a.png", bomb(b"iCCP", b"x\0\0")),
        ("a.png", bomb(b"iTXt", b"x\0\1\0\0\0")),
    ],
    ids="square deep row column absurd bmp absurd-bmp webp text profile unicode".split(),
)
def test_small_files_cost_little_memory(name: str, data: bytes, tmp_path: Path, peak_mib: Callable[[], float]) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError):
        read_image(path)
    assert peak_mib() < 24


def test_a_file_too_large_for_a_label_map_is_not_read(tmp_path: Path, peak_mib: Callable[[], float]) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.write(lying_png(4, 4)[:-12])
        file.truncate(1 << 30)  # a hole, no space on disk
    with pytest.raises(DataError, match="expected at most 536870912 bytes, got 1073741824"):
        read_kitti_step(path)
    assert peak_mib() < 24


def test_the_registry_reads_what_it_writes(tmp_path: Path) -> None:
    assert len({decoder.name for decoder in DECODERS}) == len(DECODERS)
    for decoder in islice(DECODERS, 2):
        path = decoder.write(tmp_path)
        assert decoder.read(path).shape == (*SIZE, 3)
