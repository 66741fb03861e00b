"""PNG files by pyspng: the pixels of Pillow, and Pillow's word on everything that is not plain and whole."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders import DECODERS, Decoder
from fuzzing import PNG_SIGNATURE, corrupt, make_png, png_chunks, png_header
from PIL import Image

from pix2seq_d.data import fast_png
from pix2seq_d.data.fast_png import decode_rgb
from pix2seq_d.data.formats import DataError, read_image, read_png, write_png

needs_pyspng = pytest.mark.skipif(fast_png._decoder() is None, reason="pyspng (extra `fast`) is not installed")
RGB_READERS = [d for d in DECODERS if d.name in ("read_image PNG", "read_kitti_step", "read_panoptic_png")]


@pytest.fixture
def pillow_alone(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Calls a function as if pyspng were not installed."""

    def call(function: Callable[[], Any]) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(fast_png, "_decoder", lambda: None)
            return function()

    return call


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


GOOD = png(Image.fromarray(array(12, 17, 3)))


@needs_pyspng
def test_pixels_of_every_filter() -> None:
    """Rows of smooth and of rough pixels, which encoders filter differently; the result may be written to."""
    smooth = np.add.outer(np.arange(40), np.arange(60))[..., None].repeat(3, axis=2).astype(np.uint8)
    for pixels in (array(40, 60, 3), smooth, np.concatenate([smooth, smooth[::-1], array(9, 60, 3)])):
        data = png(Image.fromarray(pixels))
        decoded = decode_rgb(data, pixels.shape[:2])
        np.testing.assert_array_equal(decoded, pixels)
        decoded[0, 0] = 1


def test_nothing_without_pyspng(pillow_alone: Callable) -> None:
    assert pillow_alone(lambda: decode_rgb(GOOD, (12, 17))) is None


def changed(function: Callable[[list[tuple[bytes, bytes]]], object]) -> bytes:
    chunks = png_chunks(GOOD)
    function(chunks)
    return make_png(chunks)


OTHER_KINDS = {
    "RGBA": png(Image.fromarray(array(12, 17, 4))),
    "grey": png(Image.fromarray(array(12, 17))),
    "palette": png(Image.fromarray(array(12, 17, 3)).quantize(9)),
    "16 bits": png(Image.fromarray(array(12, 17).astype(np.uint16))),
    "header of an interlaced file": changed(lambda c: c.__setitem__(0, (b"IHDR", png_header(17, 12, interlace=1)))),
    "animation": changed(lambda c: c.insert(1, (b"acTL", struct.pack(">II", 1, 0)))),
    "text behind the pixels": changed(lambda c: c.insert(-1, (b"tEXt", b"a\0b"))),
    "text between the pixels": changed(
        lambda c: c.__setitem__(slice(1, 2), [c[1], (b"tEXt", b"a\0b"), (b"IDAT", b"")])
    ),
    "bytes behind the end": GOOD + b"\0",
    "no pixels": changed(lambda c: c.pop(1)),
    "no end": GOOD[:-12],
    "cut off": GOOD[:-30],
    "wrong checksum": GOOD[:60] + bytes([GOOD[60] ^ 1]) + GOOD[61:],
    "another size": changed(lambda c: c.__setitem__(0, (b"IHDR", png_header(16, 12)))),
    "too few pixels": changed(lambda c: c.__setitem__(1, (b"IDAT", zlib.compress(bytes(100))))),
    "an unknown filter": changed(lambda c: c.__setitem__(1, (b"IDAT", zlib.compress(b"\x09" * 12 * 52)))),
    "no zlib stream": changed(lambda c: c.__setitem__(1, (b"IDAT", bytes(100)))),
    "a signature alone": PNG_SIGNATURE,
    "nothing": b"",
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_other_files_are_left_to_pillow(name: str) -> None:
    assert decode_rgb(OTHER_KINDS[name], (12, 17)) is None


@needs_pyspng
def test_text_and_transparency_in_front_of_the_pixels_change_nothing(tmp_path: Path, pillow_alone: Callable) -> None:
    image = Image.fromarray(array(12, 17, 3))
    path = tmp_path / "a.png"
    image.save(path, transparency=tuple(array(12, 17, 3)[0, 0].tolist()), dpi=(72, 72), gamma=0.5)
    assert decode_rgb(path.read_bytes(), (12, 17)) is not None
    for read in (read_image, lambda path: read_png(path, kinds=("RGB",))):
        np.testing.assert_array_equal(read(path), array(12, 17, 3))
        np.testing.assert_array_equal(pillow_alone(lambda read=read: read(path)), array(12, 17, 3))


def outcome(decoder: Decoder, path: Path) -> str | list[tuple[str, bytes]]:
    """The error, or dtypes and contents of what was read."""
    try:
        result = decoder.read(path)
    except DataError as error:
        return str(error)
    return [(str(a.dtype), a.tobytes()) for a in (result if isinstance(result, tuple) else (result,))]


@needs_pyspng
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decoder", RGB_READERS, ids=lambda decoder: decoder.name)
def test_files_are_read_and_refused_alike(decoder: Decoder, tmp_path: Path, pillow_alone: Callable) -> None:
    """Broken and whole files: with pyspng and without it the same arrays, or the same words."""
    path = decoder.write(tmp_path)
    data = path.read_bytes()
    for broken in (data, *OTHER_KINDS.values(), *(broken for _, broken in corrupt(data, 120, 7))):
        path.write_bytes(broken)
        assert outcome(decoder, path) == pillow_alone(lambda: outcome(decoder, path))


@needs_pyspng
def test_readers_take_the_fast_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow decodes no pixels of a plain file."""
    write_png(tmp_path / "a.png", array(12, 17, 3))
    monkeypatch.setattr("pix2seq_d.data.formats._load", lambda image: pytest.fail("decoded by Pillow"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), array(12, 17, 3))
    np.testing.assert_array_equal(read_png(tmp_path / "a.png", kinds=("RGB",)), array(12, 17, 3))
