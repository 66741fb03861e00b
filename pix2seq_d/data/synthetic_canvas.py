"""The pinhole view and the painter's canvas of the synthetic street: every call covers what was painted before.

World axes in metres: x to the right, y up from the ground, z along the street; depth = z - camera z. H W image size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR = 1.2  # metres: nothing closer is painted


def pack(colour: np.ndarray) -> np.ndarray:
    """Packs (..., 3) colours in [0, 255] into (...) uint32 texels; an opaque texel is never 0."""
    texels = np.empty((*colour.shape[:-1], 4), np.uint8)
    np.clip(colour, 0, 255, out=texels[..., :3], casting="unsafe")
    texels[..., 3] = 255
    return texels.view("<u4")[..., 0]


@dataclass(frozen=True)
class View:
    """Where the camera is and how it projects; yaw and pitch are shifts of the principal point.

    Attributes:
        focal: focal length in pixels.
        cx: column of the vanishing point of the street.
        cy: row of the horizon.
        x: camera x in metres.
        y: camera height in metres.
        z: camera z in metres.
        columns: (W,) float32 pixel centres.
        rows: (H,) float32 pixel centres.
    """

    focal: float
    cx: float
    cy: float
    x: float
    y: float
    z: float
    columns: np.ndarray
    rows: np.ndarray

    def column(self, x: float, depth: float) -> float:
        """Image column of a world x at a depth."""
        return self.cx + self.focal * (x - self.x) / depth

    def row(self, y: float, depth: float) -> float:
        """Image row of a world height at a depth."""
        return self.cy + self.focal * (self.y - y) / depth


class Canvas:
    """Labels and, if wanted, colours of one frame.

    Attributes:
        labels: (H, W) uint32, class id + 256 * instance id.
        colours: (H, W) uint32 packed texels, or None to paint labels only.
    """

    def __init__(self, height: int, width: int, *, with_colours: bool) -> None:
        self.height, self.width = height, width
        self.labels = np.empty((height, width), np.uint32)
        self.colours = np.empty((height, width), np.uint32) if with_colours else None

    def span(self, low: float, high: float, size: int) -> tuple[int, int]:
        """Pixels whose centres lie in [low, high), cut to [0, size)."""
        low, high = min(max(low, -1.0), size + 1.0), min(max(high, -1.0), size + 1.0)
        return max(0, int(low + 0.5)), min(size, int(high + 0.5))

    def put(self, top: int, left: int, texels: np.ndarray, label: int) -> None:
        """Paints the texels that are not 0 with their colour and one label."""
        area = np.s_[top : top + texels.shape[0], left : left + texels.shape[1]]
        solid = texels != 0
        np.copyto(self.labels[area], np.uint32(label), where=solid)
        if self.colours is not None:
            np.copyto(self.colours[area], texels, where=solid)


def paint_rect(canvas: Canvas, box: tuple[float, float, float, float], colour: int, label: int) -> None:
    """Fills the image rectangle (top, left, bottom, right); it is at least one pixel wide."""
    top, bottom = canvas.span(box[0], box[2], canvas.height)
    left, right = canvas.span(box[1], max(box[3], box[1] + 1.0), canvas.width)
    canvas.labels[top:bottom, left:right] = label
    if canvas.colours is not None:
        canvas.colours[top:bottom, left:right] = colour


def paint_image(canvas: Canvas, box: tuple[float, float, float, float], texture: np.ndarray, label: int) -> None:
    """Scales a (h, w) texture into the image rectangle (top, left, bottom, right)."""
    top, bottom = canvas.span(box[0], box[2], canvas.height)
    left, right = canvas.span(box[1], box[3], canvas.width)
    if top >= bottom or left >= right:
        return
    height, width = texture.shape
    rows = _samples(top, bottom, box[0], height / (box[2] - box[0]), height)
    columns = _samples(left, right, box[1], width / (box[3] - box[1]), width)
    canvas.put(top, left, texture[rows[:, None], columns], label)


def _samples(first: int, last: int, origin: float, scale: float, size: int) -> np.ndarray:
    """Texel numbers of the pixels [first, last) along one axis, int64."""
    samples = np.arange(first, last) + (0.5 - origin)
    samples *= scale
    return np.minimum(samples, size - 1).astype(np.int64)


def paint_upright(
    canvas: Canvas,
    view: View,
    texture: np.ndarray,
    label: int,
    *,
    x: tuple[float, float],
    y: tuple[float, float],
    depth: float,
) -> None:
    """Paints a texture that stands upright and faces the camera: x and y extents in metres."""
    if depth > NEAR:
        box = (view.row(y[1], depth), view.column(x[0], depth), view.row(y[0], depth), view.column(x[1], depth))
        paint_image(canvas, box, texture, label)


def paint_side(
    canvas: Canvas,
    view: View,
    texture: np.ndarray,
    label: int,
    *,
    x: float,
    y: tuple[float, float],
    depth: tuple[float, float],
) -> None:
    """Paints a texture on the plane of one x; texture column 0 is the near end, its first and last row are clear."""
    across, near = x - view.x, max(depth[0], NEAR)
    if abs(across) < 0.05 or depth[1] <= near:
        return
    ends = view.column(x, near), view.column(x, depth[1])
    left, right = canvas.span(min(ends), max(ends), canvas.width)
    top, _ = canvas.span(min(view.row(y[1], near), view.row(y[1], depth[1])), 0.0, canvas.height)
    _, bottom = canvas.span(0.0, max(view.row(y[0], near), view.row(y[0], depth[1])), canvas.height)
    if top >= bottom or left >= right:
        return
    height, width = texture.shape[0] - 2, texture.shape[1]
    depths = np.float32(view.focal * across) / (view.columns[left:right] - np.float32(view.cx))
    scale = height / (y[1] - y[0])
    rows = np.multiply.outer(view.rows[top:bottom] - np.float32(view.cy), depths * np.float32(scale / view.focal))
    rows += np.float32((y[1] - view.y) * scale + 1.0)
    np.clip(rows, 0.0, height + 1.0, out=rows)
    columns = (depths - np.float32(depth[0])) * np.float32(width / (depth[1] - depth[0]))
    columns = np.clip(columns, 0.0, width - 1.0).astype(np.intp)
    canvas.put(top, left, texture[rows.astype(np.intp), columns], label)


def shade_ground(canvas: Canvas, view: View, *, x: tuple[float, float], depth: tuple[float, float]) -> None:
    """Halves the brightness of a rectangle on the ground; labels stay."""
    near = max(depth[0], NEAR)
    if canvas.colours is None or depth[1] <= near:
        return
    top, bottom = canvas.span(view.row(0.0, depth[1]), view.row(0.0, near), canvas.height)
    left, right = canvas.span(
        min(view.column(x[0], near), view.column(x[0], depth[1])),
        max(view.column(x[1], near), view.column(x[1], depth[1])),
        canvas.width,
    )
    if top >= bottom or left >= right:
        return
    drop = (view.rows[top:bottom, None] - np.float32(view.cy)) / np.float32(view.y)
    columns = view.columns[left:right] - np.float32(view.cx)
    inside = (columns > drop * np.float32(x[0] - view.x)) & (columns < drop * np.float32(x[1] - view.x))
    area = canvas.colours[top:bottom, left:right]
    np.copyto(area, (area >> np.uint32(1)) & np.uint32(0x7F7F7F) | np.uint32(0xFF000000), where=inside)
