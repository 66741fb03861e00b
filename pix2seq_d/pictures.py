"""Pictures that know no classes: captions, grids, contact sheets, line plots, and their way to disk.

A picture is an (H, W, 3) uint8 RGB array. Text is drawn with the font built into Pillow.
"""

from __future__ import annotations

import base64
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_INK = (38, 38, 38)
_FAINT = (120, 120, 120)
_GRID = (228, 228, 228)
_PAPER = (255, 255, 255)

Colour = tuple[int, int, int]
Point = tuple[float, float]


def check_picture(name: str, picture: np.ndarray) -> None:
    """Raises TypeError for another type or dtype than a uint8 array, ValueError for another shape than (H, W, 3)."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        got = picture.dtype if isinstance(picture, np.ndarray) else type(picture).__name__
        raise TypeError(f"{name}: expected a uint8 array (H, W, 3), got {got}")
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"{name}: expected shape (H, W, 3), got {picture.shape}")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to it at the end, removed if the body raises."""
    partial = partial_path(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def data_uri(kind: str, data: bytes) -> str:
    """A file of MIME type `kind` as text, for a page that needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def partial_path(path: str | os.PathLike[str]) -> Path:
    """A new hidden name beside `path`, to be written and then renamed; makes missing folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def save_picture(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Writes a picture as .png, .jpg, .jpeg or .webp (lossless); raises ValueError for another suffix."""
    check_picture("picture", picture)
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"{path}: expected a suffix of {', '.join(PICTURE_SUFFIXES)}, got {suffix!r}")
    image = Image.fromarray(picture)
    with replacing(path) as partial:
        if suffix == ".png":
            image.save(partial, "PNG")
        elif suffix == ".webp":
            image.save(partial, "WEBP", lossless=True)
        else:
            image.save(partial, "JPEG", quality=92, subsampling=0)


def resize_picture(picture: np.ndarray, size: tuple[int, int], *, smooth: bool = True) -> np.ndarray:
    """The picture at another `size` (H, W): bicubic, or nearest where colours must stay as they are."""
    check_picture("picture", picture)
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.array(Image.fromarray(picture).resize(size[::-1], method))


# Text and grids


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font, `size` pixels high."""
    return ImageFont.load_default(size=size)


def text_width(text: str, size: int) -> int:
    """Width of a line of text in pixels."""
    return math.ceil(font(size).getlength(text))


def text_picture(text: str, *, size: int = 16, width: int | None = None, colour: Colour = _INK) -> np.ndarray:
    """One line of text on white, left-aligned.

    Args:
        text: the line.
        size: height of the font in pixels; the picture is 1.5 times as high.
        width: of the picture, None for that of the text; the font shrinks down to 8 pixels to fit, then text is cut.
        colour: of the letters.
    """
    height = round(1.5 * size)
    while width is not None and size > 8 and text_width(text, size) > width:
        size -= 1
    image = Image.new("RGB", (max(width or text_width(text, size), 1), height), _PAPER)
    ImageDraw.Draw(image).text((0, height / 2), text, fill=colour, font=font(size), anchor="lm")
    return np.array(image)


def captioned(picture: np.ndarray, caption: str, *, size: int = 16) -> np.ndarray:
    """The picture with a line of text above it."""
    check_picture("picture", picture)
    return np.concatenate([text_picture(caption, size=size, width=picture.shape[1]), picture])


def grid(rows: Sequence[Sequence[np.ndarray]], *, gap: int = 8) -> np.ndarray:
    """Pictures in rows and columns on white; a cell is as wide as its column's widest and as high as its row's highest.

    Args:
        rows: pictures from top to bottom, left to right; rows may differ in length.
        gap: pixels between cells and around the whole.

    Raises:
        ValueError: no picture, or one of another shape.
        TypeError: another dtype than uint8.
    """
    if not any(rows):
        raise ValueError("rows: expected at least one picture, got none")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            check_picture(f"picture {x} of row {y}", picture)
    columns = max(map(len, rows))
    widths = [max(row[x].shape[1] for row in rows if x < len(row)) for x in range(columns)]
    heights = [max((picture.shape[0] for picture in row), default=0) for row in rows]
    sheet = np.full((sum(heights) + gap * (len(rows) + 1), sum(widths) + gap * (columns + 1), 3), 255, np.uint8)
    for y, row in enumerate(rows):
        top = sum(heights[:y]) + gap * (y + 1)
        for x, picture in enumerate(row):
            left = sum(widths[:x]) + gap * (x + 1)
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    captions: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    size: int = 16,
) -> np.ndarray:
    """A table of pictures, for example one row a frame and one column a method.

    Args:
        rows: equally many pictures in every row.
        captions: what stands left of each row, None for nothing.
        columns: what stands above each column, None for nothing.
        size: height of the font in pixels.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: rows of different lengths, or not one caption a row or column.
    """
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise ValueError(f"rows: expected equally many pictures in each, got {lengths or 'no row'}")
    if captions is not None and len(captions) != len(rows):
        raise ValueError(f"captions: expected {len(rows)}, one for each row, got {len(captions)}")
    if columns is not None and len(columns) != lengths[0]:
        raise ValueError(f"columns: expected {lengths[0]}, one for each column, got {len(columns)}")
    table = [list(row) for row in rows]
    if columns is not None:
        widths = [max(row[x].shape[1] for row in rows) for x in range(lengths[0])]
        table.insert(0, [text_picture(text, size=size, width=width) for text, width in zip(columns, widths)])
    if captions is not None:
        lines = [text_picture(text, size=size) for text in ([""] if columns is not None else []) + list(captions)]
        table = [[line, *row] for line, row in zip(lines, table)]
    return grid(table, gap=max(4, size // 2))


# Line plots

_LINES = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (90, 90, 90))
_SCALE = 3  # drawn at three times the size, then averaged down: smooth lines


@dataclass(frozen=True)
class _Axes:
    """Where data coordinates lie on the canvas: box (left, top, right, bottom) in pixels, ranges (low, high).

    With `log_y`, y are the decimal logarithms of the data.
    """

    box: tuple[float, float, float, float]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log_y: bool = False

    def x(self, value: float) -> float:
        left, _, right, _ = self.box
        return left + (right - left) * (value - self.x_range[0]) / (self.x_range[1] - self.x_range[0])

    def y(self, value: float) -> float:
        _, top, _, bottom = self.box
        return bottom - (bottom - top) * (value - self.y_range[0]) / (self.y_range[1] - self.y_range[0])


def plot_curve(
    series: Mapping[str, Sequence[Point]],
    path: str | os.PathLike[str],
    *,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (420, 720),
    log_y: bool = False,
) -> None:
    """Draws lines into a picture file, for example the losses of a run.

    Args:
        series: as in `draw_curve`, like title, x_label, y_label, size and log_y.
        path: .png, .jpg, .jpeg or .webp.
        title: above the plot.
        x_label: below the x axis.
        y_label: above the y axis.
        size: (H, W) of the picture.
        log_y: logarithmic y axis.

    Raises:
        ValueError: as `draw_curve`, or another suffix.
    """
    save_picture(path, draw_curve(series, title=title, x_label=x_label, y_label=y_label, size=size, log_y=log_y))


def draw_curve(
    series: Mapping[str, Sequence[Point]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (420, 720),
    log_y: bool = False,
) -> np.ndarray:
    """Draws lines.

    Args:
        series: (x, y) points by name, in drawing order; points that are not finite leave a gap.
        title: above the plot.
        x_label: below the x axis.
        y_label: above the y axis.
        size: (H, W) of the picture, at least (160, 240).
        log_y: logarithmic y axis; points at or below 0 leave a gap.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: a picture too small, or no finite point at all.
    """
    if size[0] < 160 or size[1] < 240:
        raise ValueError(f"size: expected at least (160, 240), got {tuple(size)}")
    if log_y:
        series = {name: [(x, math.log10(y) if y > 0 else math.nan) for x, y in p] for name, p in series.items()}
    x_range = _data_range("x", [p[0] for points in series.values() for p in points if _finite(p)], pad=0.0)
    y_range = _data_range("y", [p[1] for points in series.values() for p in points if _finite(p)], pad=0.05)
    image = Image.new("RGB", (size[1] * _SCALE, size[0] * _SCALE), _PAPER)
    draw = ImageDraw.Draw(image)
    top = _draw_heading(draw, title, list(series) if len(series) > 1 else [], width=size[1])
    left = 28 + max(text_width(label, 12) for _, label in _y_ticks(y_range, log_y))
    box = tuple(_SCALE * v for v in (left, top + 28, size[1] - 24, size[0] - 50))
    axes = _Axes((box[0], box[1], box[2], box[3]), x_range, y_range, log_y)
    _draw_axes(draw, axes, x_label, y_label)
    for k, points in enumerate(series.values()):
        _draw_line(draw, axes, points, _LINES[k % len(_LINES)])
    return np.array(image.resize(size[::-1], Image.Resampling.BOX))


def _finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _data_range(name: str, values: list[float], *, pad: float) -> tuple[float, float]:
    if not values:
        raise ValueError(f"series: expected at least one finite point, got no {name} value")
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        pad, low, high = 0.0, low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return low - pad * (high - low), high + pad * (high - low)


def _tick_step(values: tuple[float, float], count: int) -> float:
    rough = (values[1] - values[0]) / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= rough * (1 - 1e-9))


def _ticks(values: tuple[float, float], count: int) -> list[float]:
    step = _tick_step(values, count)
    first, last = math.ceil(values[0] / step - 1e-9), math.floor(values[1] / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _y_ticks(values: tuple[float, float], log_y: bool) -> list[tuple[float, str]]:
    """Places and labels on the y axis; on a logarithmic one powers of ten, else 1 2 5, else even steps of the data."""
    if not log_y:
        return [(v, _tick_text(v, _tick_step(values, 6))) for v in _ticks(values, 6)]
    for digits in ((1,), (1, 2, 5)):
        powers = range(math.floor(values[0]), math.ceil(values[1]) + 1)
        places = [(math.log10(d) + k, f"{float(f'{d}e{k}'):g}") for k in powers for d in digits]
        if len(inside := [p for p in places if values[0] <= p[0] <= values[1]]) > 2:
            return inside
    data = 10 ** values[0], 10 ** values[1]
    return [(math.log10(v), _tick_text(v, _tick_step(data, 6))) for v in _ticks(data, 6)]


def _tick_text(value: float, step: float) -> str:
    if step >= 1e7 or step < 1e-5:
        return f"{value:.3g}"
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _text(draw: ImageDraw.ImageDraw, at: Point, text: str, *, size: int, anchor: str, colour: Colour = _INK) -> None:
    draw.text(at, text, fill=colour, font=font(size * _SCALE), anchor=anchor)


def _draw_heading(draw: ImageDraw.ImageDraw, title: str, names: list[str], *, width: int) -> float:
    """Title and legend, wrapped to `width`; returns the height they take, unscaled."""
    _text(draw, (16 * _SCALE, 20 * _SCALE), title, size=17, anchor="lm")
    x, y = 16.0, 46.0
    for k, name in enumerate(names):
        needed = 40 + text_width(name, 13)
        if x > 16 and x + needed > width - 8:
            x, y = 16.0, y + 20
        line = [(x * _SCALE, y * _SCALE), ((x + 18) * _SCALE, y * _SCALE)]
        draw.line(line, fill=_LINES[k % len(_LINES)], width=3 * _SCALE)
        _text(draw, ((x + 24) * _SCALE, y * _SCALE), name, size=13, anchor="lm")
        x += needed
    return y + 10 if names else 34.0


def _draw_axes(draw: ImageDraw.ImageDraw, axes: _Axes, x_label: str, y_label: str) -> None:
    left, top, right, bottom = axes.box
    for value, label in _y_ticks(axes.y_range, axes.log_y):
        y = axes.y(value)
        draw.line([(left, y), (right, y)], fill=_GRID, width=_SCALE)
        _text(draw, (left - 8 * _SCALE, y), label, size=12, anchor="rm", colour=_FAINT)
    for value in _ticks(axes.x_range, 7):
        x = axes.x(value)
        draw.line([(x, bottom), (x, bottom + 5 * _SCALE)], fill=_FAINT, width=_SCALE)
        label = _tick_text(value, _tick_step(axes.x_range, 7))
        _text(draw, (x, bottom + 8 * _SCALE), label, size=12, anchor="mt", colour=_FAINT)
    draw.line([(left, bottom), (right, bottom)], fill=_FAINT, width=_SCALE)
    _text(draw, ((left + right) / 2, bottom + 28 * _SCALE), x_label, size=13, anchor="mt")
    _text(draw, (16 * _SCALE, top - 14 * _SCALE), y_label, size=13, anchor="lm")


def _draw_line(draw: ImageDraw.ImageDraw, axes: _Axes, points: Sequence[Point], colour: Colour) -> None:
    run: list[Point] = []
    for point in [*points, (math.nan, math.nan)]:
        if _finite(point):
            run.append((axes.x(point[0]), axes.y(point[1])))
            continue
        if len(run) > 1:
            draw.line(run, fill=colour, width=2 * _SCALE, joint="curve")
        for x, y in run if len(points) <= 25 else run[:1] if len(run) == 1 else []:
            draw.circle((x, y), 3 * _SCALE, fill=colour)
        run = []
