"""Images and label maps on disk, read and written; every error is one line that names the file.

Files are written beside their destination and renamed, so nobody ever sees half of one.
"""

from __future__ import annotations

import io
import os
import struct
import uuid
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from pix2seq_d.data.fast_png import decode_rgb
from pix2seq_d.labels import LabelSpec

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MAX_PIXELS = 1 << 26  # 67 million, twice an 8K frame: a larger header is a mistake or an attack
MAX_SIDE = 1 << 16  # JPEG's own limit; one row or column of millions costs far more memory than its pixels
MAX_PNG_BYTES = 1 << 29  # of a label map: twice what MAX_PIXELS need without compression

_MAX_LINE = 160  # characters of somebody else's text in an error
_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "WebP")
# what Pillow lets through for broken files; the last three come from the tags of a damaged TIFF
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, TypeError, LookupError, ArithmeticError)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KINDS = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGBA"}


_Decoded = TypeVar("_Decoded")


class DataError(ValueError):
    """A file or folder is not what its format says: one line with its name, what was expected and what was found."""


def as_one_line(text: str) -> str:
    """Text from elsewhere for an error: one printable line, the middle left out where it is long."""
    line = " ".join(text.split())
    line = line if line.isprintable() else ascii(line)[1:-1]
    return line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE // 2]}...{line[-_MAX_LINE // 2 :]}"


class PngHeader(NamedTuple):
    """Bit depth and colour kind as the PNG file states them; Pillow's mode hides both."""

    bits: int
    kind: str

    def __str__(self) -> str:
        return f"{self.bits}-bit {self.kind}"


# Images


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a PNG, JPEG, BMP or WebP file of any colour mode as RGB.

    Alpha is dropped, palettes are looked up, greyscale is repeated, 16-bit greyscale is divided by 257 and rounded.
    EXIF orientation is not applied: a frame keeps the raster its labels were drawn on.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: the file is missing, empty, truncated, too large, or not such an image.
    """

    def decode(image: Image.Image) -> np.ndarray:
        data = Path(path).read_bytes() if image.format == "PNG" and image.mode == "RGB" else b""
        pixels = decode_rgb(data, (image.height, image.width))
        return to_rgb(_load(image), path) if pixels is None else pixels

    return _open_image(path, decode)


def load_image(path: str | os.PathLike[str], *, formats: tuple[str, ...] = _PILLOW_FORMATS) -> Image.Image:
    """Opens and fully decodes an image in its own mode; raises DataError as `read_image` does.

    Args:
        path: the file.
        formats: accepted ones, by Pillow's names.
    """
    return _open_image(path, _load, formats=formats)


def _load(image: Image.Image) -> Image.Image:
    image.load()
    return image


def _open_image(
    path: str | os.PathLike[str],
    decode: Callable[[Image.Image], _Decoded],
    *,
    formats: tuple[str, ...] = _PILLOW_FORMATS,
) -> _Decoded:
    """What `decode` makes of an image whose header is read and whose size is allowed; its errors become DataError."""
    try:
        if os.stat(path).st_size == 0:
            raise DataError(f"{path}: expected an image, got an empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large or odd files: what matters becomes an error below
            with Image.open(path, formats=formats) as image:
                if max(image.size) > MAX_SIDE:
                    raise DataError(f"{path}: expected sides of at most {MAX_SIDE}, got {image.width}x{image.height}")
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{path}: expected at most {MAX_PIXELS} pixels, got {image.width}x{image.height}")
                return decode(image)
    except FileNotFoundError:
        raise DataError(f"{path}: expected an image, found no such file") from None
    except UnidentifiedImageError:
        names = " or ".join(filter(None, (", ".join(formats[:-1]), formats[-1])))
        raise DataError(f"{path}: expected a {names} image, got something else") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: expected at most {MAX_PIXELS} pixels, got far more") from None
    except DataError:
        raise
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or f"broken or cut off: {error}"
        raise DataError(f"{path}: expected a readable image, got one that is not ({reason})") from None


def to_rgb(image: Image.Image, path: str | os.PathLike[str]) -> np.ndarray:
    """Pillow image of any mode to (H, W, 3) uint8 as `read_image` says; `path` is for the error message."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.size and not 0 <= grey.min() <= grey.max() <= 65535:
            raise DataError(f"{path}: expected 8 or 16 bits a pixel, got values {grey.min()}..{grey.max()}")
        grey8 = ((grey + 128) // 257).astype(np.uint8)
        return np.repeat(grey8[..., None], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{path}: expected 8 or 16 bits a pixel, got floating-point values")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def write_image(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Writes an image in the format of the path's suffix; missing folders are made.

    Args:
        path: ends in .png, .jpg, .jpeg, .bmp or .webp; PNG is lossless and fast rather than small.
        array: (H, W, 3) or (H, W) uint8.

    Raises:
        ValueError: another suffix, shape or dtype.
        OSError: the file cannot be written; nothing is left behind.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise ValueError(f"{path}: expected a suffix of {', '.join(IMAGE_SUFFIXES)}, got {suffix!r}")
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or not array.size:
        raise ValueError(f"{path}: expected (H, W) or (H, W, 3) uint8, got {array.shape} {array.dtype}")
    if suffix == ".png":
        write_png(path, array)
        return
    data = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(array))
    if suffix in (".jpg", ".jpeg"):
        image.save(data, "JPEG", quality=95)
    else:
        image.save(data, suffix[1:].upper())
    write_bytes(path, data.getvalue())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file in one piece: beside its destination, then renamed; missing folders are made.

    Raises:
        OSError: naming the path (full disk, unwritable folder); no partial file stays and an older file is untouched.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write the file: {error.strerror}", str(path)) from error
    finally:
        _unlink(partial)


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        return  # renamed, or never made


# Label maps


def png_header(path: str | os.PathLike[str]) -> PngHeader | None:
    """Bit depth and colour kind of a PNG file, None if the file is no PNG."""
    try:
        with open(path, "rb") as file:
            head = file.read(26)
    except OSError as error:
        raise DataError(f"{path}: expected a PNG file, cannot open it ({error.strerror})") from None
    if len(head) < 26 or not head.startswith(_PNG_SIGNATURE):
        return None
    return PngHeader(head[24], _PNG_KINDS.get(head[25], "unknown"))


def read_png(path: str | os.PathLike[str], *, kinds: tuple[str, ...], bits: tuple[int, ...] = (8,)) -> np.ndarray:
    """Reads the raw samples of a label PNG: (H, W) or (H, W, C); palette PNGs give their indices.

    Args:
        path: the file.
        kinds: accepted colour kinds, of "greyscale", "palette", "RGB", "RGBA".
        bits: accepted bit depths.

    Raises:
        DataError: not such a PNG, missing or broken, a wrong checksum included.
    """
    samples = _read_samples(path, kinds=kinds, bits=bits)
    return samples if samples.flags.writeable else samples.copy()


def _read_samples(path: str | os.PathLike[str], *, kinds: tuple[str, ...], bits: tuple[int, ...]) -> np.ndarray:
    """As `read_png`, but Pillow's samples are not to be written to: a copy less."""
    header = png_header(path)
    if header is None or header.kind not in kinds or header.bits not in bits:
        expected = f"{' or '.join(map(str, bits))}-bit {' or '.join(kinds)} PNG"
        raise DataError(f"{path}: expected an {expected}, got {header or 'no PNG'}")
    data = _read_chunks(path)

    def decode(image: Image.Image) -> np.ndarray:
        pixels = decode_rgb(data, (image.height, image.width))
        return np.asarray(_load(image)) if pixels is None else pixels

    return _open_image(path, decode)


def write_png(path: str | os.PathLike[str], samples: np.ndarray) -> None:
    """Writes the raw samples of a label PNG, the inverse of `read_png`; missing folders are made.

    Args:
        path: ends in .png.
        samples: (H, W) uint8 or uint16, (H, W, 3) or (H, W, 4) uint8.

    Raises:
        ValueError: another suffix, shape or dtype.
        OSError: the file cannot be written; nothing is left behind.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path}: expected a path that ends in .png")
    deep = samples.dtype == np.uint16 and samples.ndim == 2
    shallow = samples.dtype == np.uint8 and samples.ndim in (2, 3) and samples.shape[2:] in ((), (3,), (4,))
    if not samples.size or not (deep or shallow):
        raise ValueError(f"{path}: expected samples of 8 bits, or (H, W) of 16, got {samples.shape} {samples.dtype}")
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(samples)).save(data, "PNG", compress_level=1)
    write_bytes(path, data.getvalue())


def _read_chunks(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a PNG; DataError unless it has one header, in front, and every chunk up to its end is whole.

    Pillow skips the checksums of the pixels: a flipped bit would give other labels and no error.
    """
    if (size := os.stat(path).st_size) > MAX_PNG_BYTES:
        raise DataError(f"{path}: expected at most {MAX_PNG_BYTES} bytes, got {size}")
    content = Path(path).read_bytes()
    data = memoryview(content)
    place, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        kind, end = bytes(data[place + 4 : place + 8]), place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            raise DataError(f"{path}: expected a readable image, got one that is not (cut off)")
        if (kind == b"IHDR") != (place == len(_PNG_SIGNATURE)):
            raise DataError(f"{path}: expected one PNG header, in front, got another order of chunks")
        if zlib.crc32(data[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise DataError(f"{path}: expected a readable image, got one that is not (wrong checksum of {kind!r})")
        place = end
    return content


def read_kitti_step(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reads a KITTI-STEP panoptic map: 8-bit RGB PNG, class = R, instance = G * 256 + B.

    Returns:
        class_map (H, W) uint8 and instance_map (H, W) int32.

    Raises:
        DataError: not an 8-bit RGB PNG, missing or broken.
    """
    class_map, instance_map = view_kitti_step(path)
    return class_map.copy(), instance_map.astype(np.int32)


def view_kitti_step(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """The maps of `read_kitti_step` as views not to be written to: uint8 and uint16, for few of their pixels."""
    rgb = _read_samples(path, kinds=("RGB",), bits=(8,))
    return rgb[..., 0], rgb[..., 1:].view(">u2")[..., 0]


def write_kitti_step(path: str | os.PathLike[str], class_map: np.ndarray, instance_map: np.ndarray) -> None:
    """Writes a KITTI-STEP panoptic map, the inverse of `read_kitti_step`.

    Args:
        path: ends in .png; missing folders are made.
        class_map: (H, W) integers in 0..255.
        instance_map: (H, W) integers in 0..65535.

    Raises:
        ValueError: other shapes, dtypes or ranges.
        OSError: the file cannot be written; nothing is left behind.
    """
    if class_map.ndim != 2 or class_map.shape != instance_map.shape:
        raise ValueError(f"{path}: expected two (H, W) maps, got {class_map.shape} and {instance_map.shape}")
    _check_range(path, "class_map", class_map, 255)
    _check_range(path, "instance_map", instance_map, 65535)
    rgb = np.stack([class_map, instance_map >> 8, instance_map & 255], axis=-1)
    write_png(path, rgb.astype(np.uint8))


def read_label_map(path: str | os.PathLike[str], spec: LabelSpec) -> np.ndarray:
    """Reads a semantic label PNG of train ids, 8-bit greyscale or palette indices.

    Returns:
        (H, W) uint8 train ids; `num_classes` on disk (CamVid's 11) and 255 are void.

    Raises:
        DataError: not such a PNG, or an id that is neither a class of `spec` nor void.
    """
    class_map = read_png(path, kinds=("greyscale", "palette"))
    class_map[class_map == spec.num_classes] = spec.void_id
    check_class_ids(path, class_map, spec)
    return class_map


def check_class_ids(path: str | os.PathLike[str], class_map: np.ndarray, spec: LabelSpec) -> None:
    """Raises DataError, naming the file, if `class_map` holds an id that is neither a class of `spec` nor void."""
    try:
        spec.check_class_ids(class_map)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _check_range(path: str | os.PathLike[str], name: str, values: np.ndarray, largest: int) -> None:
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{path}: expected an integer {name}, got {values.dtype}")
    if values.size and not 0 <= int(values.min()) <= int(values.max()) <= largest:
        raise ValueError(f"{path}: expected {name} in 0..{largest}, got {values.min()}..{values.max()}")
