"""Animations of pictures (H, W, 3 uint8): GIF and WebP through Pillow, MP4 through PyAV (optional extra `video`)."""

from __future__ import annotations

import importlib
import os
from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pix2seq_d.pictures import check_picture, partial_path

ANIMATION_SUFFIXES = (".gif", ".webp", ".mp4")
MAX_HELD_BYTES = 1 << 29  # pixels waiting in memory: 1,150 GIF frames of 375x1242 (1 byte a pixel), a third for WebP


class _Encoder(Protocol):
    """What a file format does with the pictures."""

    def add(self, picture: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class AnimationWriter:
    """Writes an animation picture by picture; the file appears, whole, when the `with` block ends without an error.

    MP4 is encoded as it comes, in constant memory; odd sizes grow by one repeated row or column. GIF and WebP are held
    until the end, a GIF already reduced to its palette: up to 256 colours are kept exactly, more are quantized. Equal
    pictures in a row become one that is shown longer.

    Args:
        path: ends in .gif, .webp or .mp4; missing folders are made.
        fps: pictures a second, above 0 and at most 100 (MP4: 1000); a GIF rounds its duration down to 1/100 s.
        colours: size of a GIF's palette, 2-256; fewer make smaller files of photographs.

    Raises:
        ValueError: another suffix, an argument out of range, pictures of different sizes, more than MAX_HELD_BYTES of
            pixels to hold, or no picture at all.
        ImportError: .mp4 without PyAV.
    """

    def __init__(self, path: str | os.PathLike[str], *, fps: float = 10, colours: int = 256) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in ANIMATION_SUFFIXES:
            raise ValueError(f"{path}: expected a suffix of {', '.join(ANIMATION_SUFFIXES)}, got {suffix!r}")
        most = 1000 if suffix == ".mp4" else 100
        if not 0 < fps <= most:
            raise ValueError(f"fps: expected above 0 and at most {most}, got {fps}")
        if not 2 <= colours <= 256:
            raise ValueError(f"colours: expected 2..256, got {colours}")
        self._av = _import_av() if suffix == ".mp4" else None
        self._fps = fps
        self._colours = colours if suffix == ".gif" else None
        self._shape: tuple[int, ...] | None = None
        self._encoder: _Encoder | None = None

    def __enter__(self) -> AnimationWriter:
        self._partial = partial_path(self.path)
        if self._av is not None:
            self._encoder = _VideoEncoder(self._av, self._partial, self._fps)
        else:
            self._encoder = _PillowEncoder(self.path, self._partial, self._fps, self._colours)
        return self

    def add(self, picture: np.ndarray) -> None:
        """Appends a picture (H, W, 3) uint8 of the same size as those before."""
        if self._encoder is None:
            raise ValueError(f"{self.path}: expected add() inside the `with` block of the writer")
        check_picture("picture", picture)
        if self._shape is not None and picture.shape != self._shape:
            raise ValueError(f"{self.path}: expected pictures of one shape, {self._shape}, got {picture.shape}")
        self._shape = picture.shape
        self._encoder.add(picture)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        encoder, self._encoder = self._encoder, None
        assert encoder is not None
        try:
            if error is None:
                if self._shape is None:
                    raise ValueError(f"{self.path}: expected at least one picture, got none")
                encoder.finish()
                os.replace(self._partial, self.path)
        finally:
            encoder.close()
            self._partial.unlink(missing_ok=True)


def save_animation(path: str | os.PathLike[str], pictures: Iterable[np.ndarray], *, fps: float = 10) -> None:
    """Writes pictures of one size as .gif, .webp or .mp4; arguments and errors as AnimationWriter's."""
    with AnimationWriter(path, fps=fps) as writer:
        for picture in pictures:
            writer.add(picture)


class _PillowEncoder:
    """GIF (with a number of palette colours) or WebP (colours is None)."""

    def __init__(self, path: Path, partial: Path, fps: float, colours: int | None) -> None:
        self.path, self.partial, self.fps, self.colours = path, partial, fps, colours
        self.images: deque[Image.Image] = deque()
        self.held = 0

    def add(self, picture: np.ndarray) -> None:
        self.held += picture.size if self.colours is None else picture.size // 3
        if self.held > MAX_HELD_BYTES:
            raise ValueError(
                f"{self.path}: expected at most {MAX_HELD_BYTES >> 20} MiB of pixels in a {self.path.suffix}, got more "
                f"at picture {len(self.images) + 1}; write .mp4, or fewer or smaller pictures"
            )
        image = Image.fromarray(picture)
        self.images.append(image if self.colours is None else to_palette(image, self.colours))

    def finish(self) -> None:
        duration = 1000 / self.fps
        first = self.images.popleft()
        if self.colours is None:
            rest = list(self.images)
            first.save(self.partial, "WEBP", save_all=True, append_images=rest, duration=round(duration), quality=85)
            return
        taken = (self.images.popleft() for _ in range(len(self.images)))  # released as they are written
        first.save(self.partial, "GIF", save_all=True, append_images=taken, duration=duration, loop=0)

    def close(self) -> None:
        self.images.clear()


def to_palette(image: Image.Image, colours: int) -> Image.Image:
    """The picture in mode P: exact where it has at most `colours` colours, else reduced without dithering."""
    exact = image.getcolors(colours)
    if exact is None:
        return image.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette = np.array(sorted(colour for _, colour in exact), np.int32)
    pixels = np.asarray(image).astype(np.int32)
    pack = np.array([1 << 16, 1 << 8, 1])
    indices = Image.fromarray(np.searchsorted(palette @ pack, pixels @ pack).astype(np.uint8))
    indices.putpalette(palette.astype(np.uint8).tobytes())  # makes mode L mode P
    return indices


class _VideoEncoder:
    """H.264 in MP4, 4:2:0 so that browsers play it."""

    def __init__(self, av: Any, partial: Path, fps: float) -> None:
        self.av = av
        self.container = av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"})
        self.stream = self.container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.colorspace = (
            5  # BT.601, which the pictures become; players guess BT.709 for tall ones
        )
        self.stream.options = {"crf": "18"}
        self.started = False

    def add(self, picture: np.ndarray) -> None:
        height, width = picture.shape[:2]
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self.started:
            self.stream.height, self.stream.width = even.shape[:2]
            self.started = True
        self.container.mux(self.stream.encode(self.av.VideoFrame.from_ndarray(even, format="rgb24")))

    def finish(self) -> None:
        self.container.mux(self.stream.encode(None))
        self.container.close()  # writes the index, so before the file is renamed

    def close(self) -> None:
        self.container.close()


def _import_av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError:
        raise ImportError("mp4 needs PyAV, which is not installed: pip install pix2seq_d[video]") from None
