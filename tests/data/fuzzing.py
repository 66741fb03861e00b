"""Broken files for decoders: `corrupt` makes them from a good file."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIZE = (12, 17)  # of the good files that hold maps


# PNG


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, body) of every chunk of a good PNG."""
    chunks, place = [], len(PNG_SIGNATURE)
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def make_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """The chunks as a file, with right checksums."""
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return PNG_SIGNATURE + b"".join(parts)


def png_header(width: int, height: int, bits: int = 8, kind: int = 2, interlace: int = 0) -> bytes:
    """Body of an IHDR chunk."""
    return struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlace)


def _absurd_size(data: bytes, rng: np.random.Generator) -> bytes:
    sizes = (0, 1, 2, 4000, 8191, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
    width, height = (int(s) for s in rng.choice(sizes, 2))
    return make_png([(b"IHDR", png_header(width, height)), *png_chunks(data)[1:]])


def _other_header(data: bytes, rng: np.random.Generator) -> bytes:
    body = bytearray(png_chunks(data)[0][1])
    body[rng.integers(8, 13)] = rng.integers(0, 256) if rng.random() < 0.3 else rng.choice([0, 1, 2, 3, 4, 6, 8, 16])
    return make_png([(b"IHDR", bytes(body)), *png_chunks(data)[1:]])


def _wrong_checksum(data: bytes, rng: np.random.Generator) -> bytes:
    place, ends = len(PNG_SIGNATURE), []
    for _, body in png_chunks(data):
        place += 12 + len(body)
        ends.append(place)
    return _flip(data, int(rng.choice(ends)) - int(rng.integers(1, 5)), rng)


def _shuffled_chunks(data: bytes, rng: np.random.Generator) -> bytes:
    chunks = png_chunks(data)
    extra = [
        (b"IHDR", png_header(17, 12, kind=int(rng.choice([0, 2, 3, 4, 6])))),
        (b"PLTE", rng.bytes(int(rng.integers(0, 800)))),
        (b"tRNS", rng.bytes(int(rng.integers(0, 8)))),
        (b"iCCP", b"x\0\0" + rng.bytes(9)),
        (b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 21))),
        (b"acTL", struct.pack(">II", int(rng.integers(0, 3)), 0)),
        (b"fcTL", rng.bytes(26)),
        (bytes(rng.integers(65, 91, 4, dtype=np.uint8)), rng.bytes(13)),
    ]
    for _ in range(rng.integers(1, 4)):
        chunks.insert(int(rng.integers(0, len(chunks) + 1)), extra[rng.integers(len(extra))])
    if rng.random() < 0.3:
        del chunks[rng.integers(len(chunks))]
    return make_png(chunks)


def _other_pixels(data: bytes, rng: np.random.Generator) -> bytes:
    """Right chunks with compressed data that is random, too short, or far too long."""
    raw = bytes(1 << 22) if rng.random() < 0.1 else rng.bytes(int(rng.integers(0, 900)))
    body = raw[:600] if rng.random() < 0.3 else zlib.compress(raw)
    return make_png([(k, body if k == b"IDAT" else b) for k, b in png_chunks(data)])


# JSON


def _json_values(rng: np.random.Generator) -> list[str]:
    numbers = ["-1", "0", "256", "1e999", "-0.0", "NaN", "Infinity", "9" * 400, "9" * 5000, "1.5"]
    texts = ['"\\ud800"', '"\\u0000"', '""', '"' + "x" * 3000 + '"', '"caf\\u00e9"', '"a\\nb"']
    nests = ["[" * 100 + "]" * 100, "[" * 20000, '{"a":' * 20000, "[" * 3000 + "]" * 3000]
    return [*numbers, *texts, *nests, "null", "true", "{}", "[]", "[[]]", "[null]", str(list(range(300)))]


def _other_json(data: bytes, rng: np.random.Generator) -> bytes:
    """A value somewhere in the document, or a key, is another one."""
    document = json.loads(data)
    values = _json_values(rng)
    holder, key, spot = document, None, document
    while isinstance(spot, dict | list) and len(spot) and (key is None or rng.random() < 0.7):
        holder, key = spot, list(spot)[rng.integers(len(spot))] if isinstance(spot, dict) else rng.integers(len(spot))
        spot = holder[key]
    if key is None:
        return values[rng.integers(len(values))].encode()
    if isinstance(holder, dict) and rng.random() < 0.3:
        holder["".join(map(chr, rng.integers(32, 400, 5)))] = holder.pop(key)
        return json.dumps(document).encode()
    if isinstance(holder, list) and rng.random() < 0.3:
        holder.insert(int(key), holder[int(rng.integers(len(holder)))])
        return json.dumps(document).encode()
    holder[key] = "@@"
    text = values[rng.integers(len(values))] if rng.random() < 0.95 else '1, "name": 2'
    return json.dumps(document).replace('"@@"', text).encode(errors="surrogatepass")


# Any file


def _flip(data: bytes, place: int, rng: np.random.Generator) -> bytes:
    broken = bytearray(data)
    broken[place] ^= 1 << int(rng.integers(8))
    return bytes(broken)


def _flips(data: bytes, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 9)):
        data = _flip(data, int(rng.integers(len(data))), rng)
    return data


def _head_flips(data: bytes, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 4)):
        data = _flip(data, int(rng.integers(min(64, len(data)))), rng)
    return data


def _truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def _random(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(0, 40)] + rng.bytes(int(rng.integers(0, 300)))


def _spliced(data: bytes, rng: np.random.Generator) -> bytes:
    a, b, c = sorted(rng.integers(0, len(data) + 1, 3))
    return data[:b] + data[a:c] + data[c:] if rng.random() < 0.5 else data[:a] + data[b:]


def _overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes are zeros, ones, or a large number."""
    place, broken = int(rng.integers(len(data))), bytearray(data)
    values = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\1")
    value = values[rng.integers(len(values))]
    broken[place : place + len(value)] = value
    return bytes(broken)


def _other_kind(data: bytes, rng: np.random.Generator) -> bytes:
    """A good picture of another mode, format or size in the place of the file."""
    mode, kind = FOREIGN[rng.integers(len(FOREIGN))]
    height, width = SIZE if rng.random() < 0.5 else rng.integers(1, 30, 2)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode.split(";")[0])
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"bits": int(mode[-1])} if ";" in mode else {}))
    return buffer.getvalue()


FOREIGN = [
    *[(mode, "PNG") for mode in ("1", "L", "LA", "P", "P;1", "P;2", "P;4", "RGB", "RGBA")],
    *[(mode, "JPEG") for mode in ("L", "RGB", "CMYK")],
    *[(mode, "BMP") for mode in ("1", "L", "P", "RGB")],
    *[(mode, "WEBP") for mode in ("RGB", "RGBA")],
    *[(mode, "TIFF") for mode in ("1", "L", "I", "F", "RGB", "CMYK")],
    *[(mode, "GIF") for mode in ("L", "P")],
    ("RGB", "PPM"),
]
ANY = (_flips, _head_flips, _truncated, _random, _spliced, _overwritten, _other_kind)
PNG = (_absurd_size, _other_header, _wrong_checksum, _shuffled_chunks, _other_pixels)


def corrupt(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` broken versions of a good file with the name of what was done; the same ones for the same seed."""
    kinds = [*ANY, *(PNG if data.startswith(PNG_SIGNATURE) else ()), *([_other_json] * 7 if data[:1] in b"{[" else [])]
    for k in range(count):
        rng = np.random.default_rng([seed, k])
        kind = kinds[k % len(kinds)]
        yield kind.__name__.strip("_"), kind(data, rng)
