"""The standing background of the synthetic street: sky, skyline, ground, buildings and low walls of both sides.

Textures are drawn once a sequence; a frame looks pixels up by world position, in three levels of blur and haze.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pix2seq_d.data.synthetic_canvas import Canvas, View, pack

TEXELS_PER_METRE = 8
GROUND_SHAPE = (256, 320)  # texels along the street (32 m, repeating) and across it (x from -20 m to 20 m)
FACADE_SHAPE = (128, 112)  # texels upwards (16 m) and along the street (14 m)
FACADE_STYLES = 6  # the last one is the windowless end wall
BLOCK = 14.0  # metres of street per building
LOW_SHAPE = (16, 56)  # texels of a low wall: 2 m upwards, 7 m along the street
LOW_BLOCK = 7.0
SLOTS = 512  # the table of buildings repeats after that many blocks
GROUND_LEVELS, WALL_LEVELS = (10.0, 26.0), (16.0, 36.0)  # metres where the next level starts
FAR_DRIVEWAY = 45.0  # metres: driveways farther away are too thin to label
FAR_WALL = 110.0  # metres: the skyline stands for everything behind


@dataclass(frozen=True)
class Layout:
    """Where things stand across the street, in metres from its middle; both sides alike.

    Attributes:
        camera: x of the camera's lane.
        lanes: number of lanes per direction, 3.2 m each.
        road: half the width of the road, parking included.
        sidewalk: outer edge of the sidewalk.
        low: where hedges, fences and low walls stand.
        wall: where the buildings start.
    """

    camera: float
    lanes: int
    road: float
    sidewalk: float
    low: float
    wall: float


def _noise(rng: np.random.Generator, shape: tuple[int, int], amplitude: float) -> np.ndarray:
    """Noise of two scales in about [-amplitude, amplitude], (h, w, 1) float32."""
    fine = rng.random(shape, np.float32)
    coarse = rng.random((-(-shape[0] // 8), -(-shape[1] // 8)), np.float32)
    coarse = coarse.repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]]
    return ((fine + coarse - 1.0) * np.float32(amplitude))[..., None]


def _pool(texture: np.ndarray, down: int, right: int) -> np.ndarray:
    """Means of (down, right) cells of a (..., h, w, 3) texture."""
    rows = (
        sum(texture[..., i::down, :, :] for i in range(1, down)) + texture[..., ::down, :, :] if down > 1 else texture
    )
    cells = sum(rows[..., i::right, :] for i in range(1, right)) + rows[..., ::right, :] if right > 1 else rows
    return cells * np.float32(1.0 / (down * right))


def _levels(texture: np.ndarray, haze: np.ndarray, pools: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(..., h, w, 3) float32 colours -> (1 + pools, ..., h, w) texels: each level pools the last one and is hazier."""
    *lead, height, width, _ = texture.shape
    levels = np.empty((1 + len(pools), *lead, height, width), np.uint32)
    levels[0] = pack(texture)
    pooled = texture
    for number, (down, right) in enumerate(pools, 1):
        pooled = _pool(pooled, down, right)
        texels = pack(pooled + (haze - pooled) * np.float32(0.13 * number))
        high, wide = height // texels.shape[-2], width // texels.shape[-1]
        levels[number] = texels.repeat(high, -2).repeat(wide, -1)
    return levels


def ground_labels(layout: Layout) -> np.ndarray:
    """Class of every ground texel, GROUND_SHAPE uint32: road 0, sidewalk 1 (with driveways), terrain 9."""
    x = np.abs((np.arange(GROUND_SHAPE[1]) + 0.5) / TEXELS_PER_METRE - 20.0)
    across = np.where(x < layout.road, 0, np.where(x < layout.sidewalk, 1, 9)).astype(np.uint32)
    labels = np.tile(across, (GROUND_SHAPE[0], 1))
    labels[40:70, across == 9] = 1
    return labels


def _ground_colours(rng: np.random.Generator, layout: Layout, labels: np.ndarray) -> np.ndarray:
    asphalt, stone = rng.uniform(70, 105), rng.uniform(140, 170)
    grass = np.array((rng.uniform(80, 130), rng.uniform(115, 140), 60.0))
    palette = np.zeros((10, 3), np.float32)
    palette[0], palette[1], palette[9] = asphalt, stone * np.array((1.0, 0.97, 0.93)), grass
    colours = palette.take(labels, axis=0)
    for _ in range(4):  # patches in the asphalt
        row, column = rng.integers(0, 220), rng.integers(100, 200)
        area = np.s_[row : row + rng.integers(10, 40), column : column + rng.integers(6, 14)]
        colours[area][labels[area] == 0] -= 14
    paved = labels == 1
    colours[::8][paved[::8]] -= 22
    colours[:, ::16][paved[:, ::16]] -= 22
    _mark_lanes(colours, layout)
    return colours + _noise(rng, GROUND_SHAPE, 14.0)


def _mark_lanes(colours: np.ndarray, layout: Layout) -> None:
    """Kerbs, edge lines, a double middle line and dashes between lanes, in place."""

    def column(x: float) -> int:
        return round((x + 20.0) * TEXELS_PER_METRE)

    dashes = (np.arange(GROUND_SHAPE[0]) // 32) % 2 == 0
    for sign in (-1, 1):
        kerb, edge, middle = column(sign * layout.road), column(sign * layout.lanes * 3.2), column(sign * 0.14)
        colours[:, kerb - 1 : kerb + 1] = 185
        colours[:, edge - 1 : edge + 1] = 200
        colours[:, middle : middle + 1] = 215
        for lane in range(1, layout.lanes):
            line = column(sign * lane * 3.2)
            colours[dashes, line - 1 : line + 1] = 215


def _facade(rng: np.random.Generator, *, windows: bool) -> np.ndarray:
    """One facade, (*FACADE_SHAPE, 3) float32, row 0 at the ground."""
    height, width = FACADE_SHAPE
    palette = (
        (178, 120, 95),
        (205, 190, 160),
        (150, 150, 155),
        (190, 160, 110),
        (170, 95, 80),
        (215, 210, 200),
        (135, 125, 115),
    )
    colour = np.array(palette[rng.integers(len(palette))], np.float32) * np.float32(rng.uniform(0.75, 1.05))
    texture = colour + _noise(rng, FACADE_SHAPE, 11.0)
    up, along = np.arange(height), np.arange(width)
    if windows:
        floor, pitch, wide = rng.integers(22, 28), rng.integers(14, 22), rng.integers(7, 11)
        rows, columns = (up % floor >= 8) & (up % floor < 19), (along % pitch >= 3) & (along % pitch < 3 + wide)
        frame = ((up % floor >= 7) & (up % floor < 20))[:, None] & ((along % pitch >= 2) & (along % pitch < 4 + wide))[
            None, :
        ]
        np.copyto(texture, colour * np.float32(0.8) + np.float32(45), where=frame[..., None])
        panes = rng.uniform(-25, 50, (8, 8)).astype(np.float32).repeat(16, 0).repeat(14, 1)[..., None]
        glass = rows[:, None] & columns[None, :]
        np.copyto(texture, np.array((55, 70, 90), np.float32) + panes, where=glass[..., None])
        texture[up % floor == 0] -= 28
        texture[:6] -= 30
    return texture


def _facades(rng: np.random.Generator, haze: np.ndarray) -> np.ndarray:
    """Flat texels of (level, side, style, row, column); the side in the shade is darker."""
    styles = np.stack([_facade(rng, windows=style < FACADE_STYLES - 1) for style in range(FACADE_STYLES)])
    sunny = rng.integers(2)
    sides = np.stack([styles * np.float32(1.06 if side == sunny else 0.72) for side in range(2)])
    return _levels(sides, haze, ((4, 2), (2, 2))).ravel()


def _low_walls(rng: np.random.Generator, haze: np.ndarray) -> np.ndarray:
    """Flat texels of (level, style, row, column): hedge, wall, fence."""
    up, along = np.arange(LOW_SHAPE[0])[:, None, None], np.arange(LOW_SHAPE[1])[None, :, None]
    hedge = np.array((52.0, 88.0, 42.0)) + _noise(rng, LOW_SHAPE, 34.0)
    brick = (
        np.array((160.0, 110.0, 90.0))
        - 35.0 * ((up % 4 == 0) | ((along + up // 4 * 4) % 8 == 0))
        + _noise(rng, LOW_SHAPE, 14.0)
    )
    plank = (
        np.array((150.0, 125.0, 95.0))
        - 55.0 * ((along % 4 == 0) | (up == 3) | (up == 9))
        + _noise(rng, LOW_SHAPE, 10.0)
    )
    return _levels(np.stack((hedge, brick, plank)).astype(np.float32), haze, ((4, 2), (2, 2))).ravel()


def _skyline(rng: np.random.Generator, height: int, width: int, haze: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texels and labels of everything beyond the street, (height, width) each; the last row lies on the horizon."""
    fraction = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None, None]
    zenith = np.array((rng.uniform(70, 150), rng.uniform(130, 180), rng.uniform(190, 235)), np.float32)
    colours = zenith + (haze - zenith) * fraction
    clouds = _noise(rng, (8, 64), 20.0).repeat(-(-height // 8), 0).repeat(-(-width // 64), 1)[:height, :width]
    colours = colours + clouds * np.array((1.0, 0.8, 0.5), np.float32)
    labels = np.full((height, width), 10, np.uint32)
    rows, unit = np.arange(height)[:, None], height / 52.0
    for label, colour, low, high, step in ((2, (150, 150, 158), 4, 11, 9), (8, (104, 128, 100), 2, 8, 4)):
        step = max(1, round(step * unit))
        tops = np.repeat(rng.uniform(low, high, -(-width // step)), step)[:width] * unit * (rng.random() < 0.85)
        body = rows >= height - tops[None, :]
        labels[body] = label
        np.copyto(colours, np.array(colour, np.float32) + _noise(rng, (height, width), 7.0), where=body[..., None])
    return pack(colours), labels


class Street:
    """The background of one sequence."""

    def __init__(self, rng: np.random.Generator, layout: Layout, *, height: int, width: int) -> None:
        self.layout = layout
        self.margin = round(0.16 * width)
        haze = np.array((rng.uniform(190, 215), rng.uniform(200, 220), rng.uniform(205, 230)), np.float32)
        self.haze = haze
        labels = ground_labels(layout)
        self.ground_labels = labels.ravel()
        self.ground = _levels(_ground_colours(rng, layout, labels), haze, ((4, 2), (4, 2))).ravel()
        self.facades = _facades(rng, haze)
        self.low_walls = _low_walls(rng, haze)
        # Buildings, per side and block: height (0 = none), gap before it, depth, style
        heights = np.where(rng.random((2, SLOTS)) < 0.14, 0.0, rng.uniform(5.0, 15.5, (2, SLOTS)))
        self.heights = heights.astype(np.float32)
        self.gaps = np.where(rng.random((2, SLOTS)) < 0.5, 0.0, rng.uniform(1.5, 6.0, (2, SLOTS))).astype(np.float32)
        self.depths = rng.uniform(6.0, 13.5, (2, SLOTS)).astype(np.float32)
        self.styles = rng.integers(0, FACADE_STYLES - 1, (2, SLOTS))
        # Low walls, per side and block: height (0 = none), style 0 hedge, 1 wall, 2 fence
        standing = rng.random((2, SLOTS)) < 0.45
        self.low_heights = np.where(standing, rng.uniform(0.7, 1.8, (2, SLOTS)), 0.0).astype(np.float32)
        self.low_styles = np.repeat(rng.integers(0, 3, (2, SLOTS // 4)), 4, axis=1)
        self.skyline, self.skyline_labels = _skyline(rng, round(0.6 * height), width + 2 * self.margin, haze)

    def paint(self, canvas: Canvas, view: View) -> None:
        """Paints the whole canvas."""
        horizon = min(max(int(view.cy + 0.5), 1), canvas.height - 1)
        self._paint_sky(canvas, view, horizon)
        self._paint_ground(canvas, view, horizon)
        across = (view.columns - np.float32(view.cx)) / np.float32(view.focal)
        across = np.where(np.abs(across) < 1e-3, np.float32(1e-3), across)
        self._paint_buildings(canvas, view, across)
        self._paint_low_walls(canvas, view, across)

    def _paint_sky(self, canvas: Canvas, view: View, horizon: int) -> None:
        shift = round(canvas.width / 2 - view.cx)
        left = self.margin + min(max(shift, -self.margin), self.margin)
        area = np.s_[self.skyline.shape[0] - horizon :, left : left + canvas.width]
        canvas.labels[:horizon] = self.skyline_labels[area]
        if canvas.colours is not None:
            canvas.colours[:horizon] = self.skyline[area]

    def _paint_ground(self, canvas: Canvas, view: View, horizon: int) -> None:
        length, width = GROUND_SHAPE
        drop = np.maximum(view.rows[horizon:] - np.float32(view.cy), np.float32(0.3))
        depth = np.float32(view.focal * view.y) / drop
        across = (view.columns - np.float32(view.cx)) * np.float32(TEXELS_PER_METRE / view.focal)
        texel = np.multiply.outer(depth, across)
        texel += np.float32((view.x + 20.0) * TEXELS_PER_METRE)
        np.clip(texel, 0.0, width - 1.0, out=texel)
        across_index = texel.astype(np.int32)
        along = np.floor((depth + view.z) * TEXELS_PER_METRE).astype(np.int64) % length
        near = np.where(depth < FAR_DRIVEWAY, along, 0)
        self.ground_labels.take(across_index + _offsets(near, width), out=canvas.labels[horizon:], mode="clip")
        if canvas.colours is not None:
            along += np.searchsorted(GROUND_LEVELS, depth) * length
            self.ground.take(across_index + _offsets(along, width), out=canvas.colours[horizon:], mode="clip")

    def _paint_buildings(self, canvas: Canvas, view: View, across: np.ndarray) -> None:
        """Casts one ray per column: onto a facade, or through a gap onto the next building's end wall."""
        side = (across > 0).astype(np.intp)
        distance = np.where(side == 1, self.layout.wall - view.x, self.layout.wall + view.x).astype(np.float32)
        slope = np.abs(across)
        depth = distance / slope
        place = np.minimum(depth, 1e4) + view.z  # (W,) float64 metres along the street
        block = np.floor(place / BLOCK).astype(np.int64)
        offset = place - block * BLOCK
        slot = block % SLOTS
        missing = self.heights[side, slot] == 0
        behind = missing | (offset < self.gaps[side, slot])
        block += missing
        slot = block % SLOTS
        end = block * BLOCK + self.gaps[side, slot] - view.z
        beyond = slope * end - distance  # how far into the end wall the ray strikes
        hit = ~behind | (beyond < self.depths[side, slot])
        depth = np.where(behind, end, depth).astype(np.float32)
        height = np.where(hit & (depth < FAR_WALL), self.heights[side, slot], 0).astype(np.float32)
        column = np.clip(np.where(behind, beyond, offset) * TEXELS_PER_METRE, 0, FACADE_SHAPE[1] - 1).astype(np.int64)
        style = np.where(behind, FACADE_STYLES - 1, self.styles[side, slot])
        level = np.searchsorted(WALL_LEVELS, depth)
        sheet = (level * 2 + np.where(behind, 1 - side, side)) * FACADE_STYLES + style
        base = sheet * (FACADE_SHAPE[0] * FACADE_SHAPE[1]) + column
        _paint_planes(
            canvas,
            view,
            self.facades,
            FACADE_SHAPE,
            depth=depth,
            height=height,
            base=base,
            labels=np.array(2, np.uint32),
        )

    def _paint_low_walls(self, canvas: Canvas, view: View, across: np.ndarray) -> None:
        side = (across > 0).astype(np.intp)
        distance = np.where(side == 1, self.layout.low - view.x, self.layout.low + view.x)
        depth = (distance / np.abs(across)).astype(np.float32)
        place = np.minimum(depth, 1e4) + view.z
        block = np.floor(place / LOW_BLOCK).astype(np.int64)
        slot = block % SLOTS
        height = np.where(depth < FAR_WALL, self.low_heights[side, slot], 0).astype(np.float32)
        column = ((place - block * LOW_BLOCK) * TEXELS_PER_METRE).astype(np.int64)
        style = self.low_styles[side, slot]
        sheet = np.searchsorted(WALL_LEVELS, depth) * 3 + style
        base = sheet * (LOW_SHAPE[0] * LOW_SHAPE[1]) + np.minimum(column, LOW_SHAPE[1] - 1)
        labels = np.array((8, 3, 4), np.uint32)[style]
        _paint_planes(canvas, view, self.low_walls, LOW_SHAPE, depth=depth, height=height, base=base, labels=labels)


def _offsets(rows: np.ndarray, width: int) -> np.ndarray:
    """(rows, 1) int32 number of each row's first texel."""
    return (rows * width).astype(np.int32)[:, None]


def _paint_planes(
    canvas: Canvas, view: View, texels: np.ndarray, shape: tuple[int, int], *,
    depth: np.ndarray, height: np.ndarray, base: np.ndarray, labels: np.ndarray,
) -> None:  # fmt: skip
    """Paints one upright strip per column, from the ground to its height.

    Args:
        canvas: painted in place.
        view: the camera.
        texels: flat sheets of uint32 texels.
        shape: rows and columns of one sheet of `texels`.
        depth: (W,) float32 metres.
        height: (W,) float32 metres, 0 for nothing.
        base: (W,) texel number of the strip's lowest texel.
        labels: (W,) or () uint32.
    """
    rows = view.cy + view.focal * np.stack((view.y - height, np.full_like(height, view.y))) / depth
    if not height.any():
        return
    rows = rows[:, height > 0]
    top, bottom = canvas.span(float(rows[0].min()), float(rows[1].max()), canvas.height)
    scale = depth * np.float32(TEXELS_PER_METRE / view.focal)
    up = np.multiply.outer(np.float32(view.cy) - view.rows[top:bottom], scale)
    up += np.float32(view.y * TEXELS_PER_METRE)
    inside = up < height * np.float32(TEXELS_PER_METRE)
    inside &= up >= 0
    np.copyto(canvas.labels[top:bottom], labels, where=inside)
    if canvas.colours is not None:
        np.clip(up, 0.0, shape[0] - 1.0, out=up)
        index = up.astype(np.int32)
        index *= np.int32(shape[1])
        index += base.astype(np.int32)
        np.copyto(canvas.colours[top:bottom], texels.take(index, mode="clip"), where=inside)
