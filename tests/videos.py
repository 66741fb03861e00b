"""Small video files for tests: every frame says its number by its brightness."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SIZE = (32, 64)


def number_of(image: np.ndarray) -> int:
    """The number that a frame of `write_video` shows, whatever side is up."""
    return round(float(np.median(image)) / 10)


def frame(number: int) -> np.ndarray:
    """(32, 64, 3) uint8 of brightness 10 times the number (up to 24), white in the upper left corner."""
    image = np.full((*SIZE, 3), 10 * min(number, 24), np.uint8)
    image[:8, :16] = 255
    return image


def write_video(
    path: Path,
    count: int = 12,
    *,
    codec: str = "libx264",
    rate: Fraction | int = 25,
    times: list[int] | None = None,
    rotation: int | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """`count` frames, a key frame every fourth; `times` in units of 1 / rate. Skips without PyAV."""
    av: Any = pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *SIZE, pix_fmt
        stream.codec_context.gop_size = 4
        if codec == "libx264":
            stream.options = {"crf": "4", "bf": "2"}
        if rotation is not None:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV writes no rotation")
            stream.set_display_rotation(rotation)
        for k in range(count):
            shown = av.VideoFrame.from_ndarray(frame(k), format="rgb24")
            if times is not None:
                shown.pts, shown.time_base = times[k], 1 / Fraction(rate)
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    return path


def damage(path: Path, number: int) -> None:
    """Overwrites the packet of one frame, so that it cannot be decoded."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
    packet = sorted(packets, key=lambda p: p.pts)[number]
    data = bytearray(path.read_bytes())
    data[packet.pos : packet.pos + packet.size] = b"\xa5" * packet.size
    path.write_bytes(data)
