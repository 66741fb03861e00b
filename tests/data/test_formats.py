"""Images and label maps on disk: inverse pairs, colour modes, and one-line errors for bad files."""

import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pix2seq_d.data.formats import (
    MAX_PIXELS,
    DataError,
    PngHeader,
    as_one_line,
    png_header,
    read_image,
    read_kitti_step,
    read_label_map,
    read_png,
    write_bytes,
    write_image,
    write_kitti_step,
    write_png,
)
from pix2seq_d.labels import get_label_spec

CAMVID = get_label_spec("camvid")


@pytest.fixture
def rgb(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def png_with_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds none."""
    chunks = b""
    for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


def one_line(error: pytest.ExceptionInfo[BaseException], path: Path) -> bool:
    return str(path) in str(error.value) and "\n" not in str(error.value)


# Inverse pairs


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
def test_kitti_step_round_trip(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shape: tuple) -> None:
    class_map = data.draw(hnp.arrays(np.uint8, shape))
    instance_map = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 65535)))
    path = tmp_path_factory.mktemp("maps") / "a.png"
    write_kitti_step(path, class_map, instance_map)
    read_classes, read_instances = read_kitti_step(path)
    assert (read_classes.dtype, read_instances.dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(read_classes, class_map)
    np.testing.assert_array_equal(read_instances, instance_map)


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [((2, 3), np.uint8, "greyscale"), ((2, 3), np.uint16, "greyscale"), ((2, 3, 3), np.uint8, "RGB"),
     ((2, 3, 4), np.uint8, "RGBA")],
)  # fmt: skip
def test_samples_round_trip(tmp_path: Path, shape: tuple[int, ...], dtype: type, kind: str) -> None:
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    write_png(tmp_path / "new" / "a.png", samples)
    bits = samples.itemsize * 8
    assert png_header(tmp_path / "new" / "a.png") == PngHeader(bits, kind)
    back = read_png(tmp_path / "new" / "a.png", kinds=(kind,), bits=(bits,))
    np.testing.assert_array_equal(back, samples)
    with pytest.raises(ValueError, match=r"a\.tif: expected a path that ends in \.png"):
        write_png(tmp_path / "a.tif", samples)


@pytest.mark.parametrize(
    "samples",
    [np.zeros((2, 2), int), np.zeros((2, 2, 3), np.uint16), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2), np.uint8)],
)
def test_samples_that_no_label_png_holds(tmp_path: Path, samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a\.png: expected samples of 8 bits, or \(H, W\) of 16, got"):
        write_png(tmp_path / "a.png", samples)
    assert not list(tmp_path.iterdir())


def test_text_from_elsewhere_is_one_short_line() -> None:
    assert as_one_line("two\n  lines") == "two lines"
    assert as_one_line("a\x07b") == "a\\x07b"
    assert as_one_line("a" * 100 + "b" * 1000) == "a" * 80 + "..." + "b" * 80


def test_kitti_step_channels(tmp_path: Path) -> None:
    """Class 13, instance 65535 = 255 * 256 + 255; class 255, instance 258 = 1 * 256 + 2."""
    write_kitti_step(tmp_path / "a.png", np.array([[13, 255]]), np.array([[65535, 258]]))
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[[13, 255, 255], [255, 1, 2]]]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp"])
def test_lossless_image_round_trip(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    path = tmp_path / "new" / "folder" / f"a{suffix}"
    write_image(path, rgb)
    np.testing.assert_array_equal(read_image(path), rgb)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_image_round_trip(tmp_path: Path, suffix: str) -> None:
    ramp = np.repeat(np.linspace(0, 250, 32, dtype=np.uint8)[None, :, None], 24, axis=0).repeat(3, axis=2)
    write_image(tmp_path / f"a{suffix}", ramp)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - ramp).max() <= 10


# Colour modes


def test_grey_is_repeated(tmp_path: Path, rgb: np.ndarray) -> None:
    write_image(tmp_path / "a.png", rgb[..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(rgb[..., :1], 3, axis=2))


def test_alpha_is_dropped(tmp_path: Path, rgb: np.ndarray) -> None:
    alpha = np.zeros((*rgb.shape[:2], 1), np.uint8)
    Image.fromarray(np.concatenate([rgb, alpha], axis=2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparency", [None, 0, b"\x00\x80"])
def test_palette_is_looked_up(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    image.putpalette([10, 20, 30, 200, 100, 50])
    if transparency is not None:
        image.info["transparency"] = transparency
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert ("transparency" in saved.info) == (transparency is not None)
    assert read_image(tmp_path / "a.png").tolist() == [
        [[10, 20, 30], [200, 100, 50]],
        [[200, 100, 50], [10, 20, 30]],
    ]


def test_16_bit_grey_is_divided_by_257(tmp_path: Path) -> None:
    """128 / 257 rounds to 0, 129 / 257 to 1; 65535 / 257 = 255."""
    Image.fromarray(np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 1].tolist() == [0, 0, 1, 1, 128, 255]


def test_exif_orientation_is_not_applied(tmp_path: Path, rgb: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)


def test_cmyk_and_one_bit(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 3), (0, 0, 0, 255)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").max() < 10
    Image.new("1", (4, 3), 1).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").min() == 255


# Bad images


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (b"This is text.\n" * 20, "got something else"),
        (png_with_header(60000, 60000), f"at most {MAX_PIXELS} pixels"),
        (png_with_header(10000, 9000), f"at most {MAX_PIXELS} pixels"),  # above Pillow's warning, below its error
        (png_with_header(8, 8), "expected a readable image"),
        (png_with_header(0, 0), "expected"),
    ],
)
def test_bad_image(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        read_image(path)
    assert one_line(error, path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("keep", [30, 0.5, 0.9])
def test_truncated_image(tmp_path: Path, rng: np.random.Generator, suffix: str, keep: float) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(DataError) as error:
        read_image(path)
    assert one_line(error, path)


def test_missing_image_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file") as error:
        read_image(tmp_path / "none.png")
    assert one_line(error, tmp_path / "none.png")
    with pytest.raises(DataError, match="directory"):
        read_image(tmp_path)


def test_other_formats_are_not_opened(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif")
    with pytest.raises(DataError, match="PNG, JPEG, BMP or WebP"):
        read_image(tmp_path / "a.gif")


# Bad label maps


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((3, 4), np.uint8), "8-bit greyscale"),
        (np.zeros((3, 4), np.uint16), "16-bit greyscale"),
        (np.zeros((3, 4, 4), np.uint8), "8-bit RGBA"),
        (np.zeros((3, 4, 2), np.uint8), "8-bit greyscale with alpha"),
    ],
)
def test_kitti_step_wants_8_bit_rgb(tmp_path: Path, array: np.ndarray, found: str) -> None:
    Image.fromarray(array).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=f"expected an 8-bit RGB PNG, got {found}$") as error:
        read_kitti_step(tmp_path / "a.png")
    assert one_line(error, tmp_path / "a.png")


def test_kitti_step_refuses_16_bit_rgb(tmp_path: Path) -> None:
    """Pillow would open it as 8-bit RGB and lose the low bytes."""
    pixels = zlib.compress(b"\0" + struct.pack(">3H", 13, 0, 7))
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    (tmp_path / "a.png").write_bytes(data)
    assert png_header(tmp_path / "a.png") == PngHeader(16, "RGB")
    with pytest.raises(DataError, match="got 16-bit RGB"):
        read_kitti_step(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (1, 1, 3)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_label_that_is_no_png(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match="PNG") as error:
        read_kitti_step(tmp_path / "a.png")
    assert one_line(error, tmp_path / "a.png")


def test_truncated_label(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.png"
    write_kitti_step(path, rng.integers(0, 19, (40, 50)), rng.integers(0, 65536, (40, 50)))
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(DataError) as error:
        read_kitti_step(path)
    assert one_line(error, path)


def test_label_map_void_ids(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[0, 10, 11, 255]], np.uint8))
    assert read_label_map(tmp_path / "a.png", CAMVID).tolist() == [[0, 10, 255, 255]]


def test_label_map_palette_gives_indices(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 3, 11]], np.uint8))
    image.putpalette(list(range(60)))
    image.save(tmp_path / "a.png", bits=8)
    assert png_header(tmp_path / "a.png") == PngHeader(8, "palette")
    assert read_label_map(tmp_path / "a.png", CAMVID).tolist() == [[0, 3, 255]]


def test_label_map_id_outside_the_spec(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[0, 12]], np.uint8))
    with pytest.raises(DataError, match="got 12") as error:
        read_label_map(tmp_path / "a.png", CAMVID)
    assert one_line(error, tmp_path / "a.png")


def test_label_map_refuses_rgb(tmp_path: Path, rgb: np.ndarray) -> None:
    write_image(tmp_path / "a.png", rgb)
    with pytest.raises(DataError, match="expected an 8-bit greyscale or palette PNG, got 8-bit RGB"):
        read_label_map(tmp_path / "a.png", CAMVID)


def test_read_png_takes_16_bits_where_asked(tmp_path: Path) -> None:
    Image.fromarray(np.array([[26001, 7]], np.uint16)).save(tmp_path / "a.png")
    assert read_png(tmp_path / "a.png", kinds=("greyscale",), bits=(16,)).tolist() == [[26001, 7]]


# Bad output


@pytest.mark.parametrize(
    ("class_map", "instance_map", "says"),
    [
        ([[256]], [[0]], "class_map in 0..255"),
        ([[-1]], [[0]], "class_map in 0..255"),
        ([[0]], [[65536]], "instance_map in 0..65535"),
        ([[0]], [[-1]], "instance_map in 0..65535"),
        ([[0, 1]], [[0]], "expected two"),
        ([[0.5]], [[0]], "integer class_map"),
    ],
)
def test_write_kitti_step_ranges(tmp_path: Path, class_map: list, instance_map: list, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        write_kitti_step(tmp_path / "a.png", np.array(class_map), np.array(instance_map))
    assert one_line(error, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.gif", np.zeros((2, 2), np.uint8)),
        ("a.png", np.zeros((2, 2), np.int64)),
        ("a.png", np.zeros((2, 2, 4), np.uint8)),
        ("a.png", np.zeros((0, 2), np.uint8)),
        ("a.png", np.zeros(4, np.uint8)),
    ],
)
def test_write_image_refuses(tmp_path: Path, name: str, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        write_image(tmp_path / name, array)
    with pytest.raises(ValueError, match=r"\.png"):
        write_kitti_step(tmp_path / "a.jpg", np.zeros((2, 2), int), np.zeros((2, 2), int))
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made(tmp_path: Path, rgb: np.ndarray) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "a.png"
    with pytest.raises(OSError, match="cannot write") as error:
        write_image(path, rgb)
    assert one_line(error, path)
    assert error.value.errno is not None


def test_destination_that_is_a_folder(tmp_path: Path, rgb: np.ndarray) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError, match="cannot write"):
        write_image(tmp_path / "a.png", rgb)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_the_rename_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(source: Path, target: Path) -> None:
        assert source.parent == target.parent
        assert (source.read_bytes(), target.read_bytes()) == (b"new", b"old")
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError, match="cannot write the file: Permission denied"):
        write_bytes(path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    plain = Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        plain(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left") as error:
        write_bytes(path, b"new content")
    monkeypatch.undo()
    assert error.value.errno == errno.ENOSPC
    assert one_line(error, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"
