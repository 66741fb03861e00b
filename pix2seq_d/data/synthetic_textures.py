"""Drawings of the synthetic street's objects: stencils of palette codes, drawn once in metres, y up from the ground.

A stencil coloured by a palette is a texture of packed texels; code 0 is clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pix2seq_d.data.synthetic_canvas import pack

WALK_PHASES = 8

# Palette codes
BODY, DARK, GLASS, TYRE, RIM, HEAD, TAIL, PLATE = range(1, 9)
SKIN, HAIR, SHIRT, SLEEVE, LEG, LEG_BEHIND, SHOE = range(1, 8)


class Stencil:
    """A sheet of palette codes, width x height metres."""

    def __init__(self, width: float, height: float, *, density: int = 28) -> None:
        self.codes = np.zeros((round(height * density), round(width * density)), np.uint8)
        self.x = (np.arange(self.codes.shape[1])[None, :] + 0.5) / density
        self.y = height - (np.arange(self.codes.shape[0])[:, None] + 0.5) / density

    def box(self, x: tuple[float, float], y: tuple[float, float], code: int) -> None:
        """Fills a rectangle."""
        self.codes[(self.x >= x[0]) & (self.x < x[1]) & (self.y >= y[0]) & (self.y < y[1])] = code

    def disc(self, x: float, y: float, radius: float, code: int) -> None:
        """Fills a circle."""
        self.codes[(self.x - x) ** 2 + (self.y - y) ** 2 <= radius**2] = code

    def polygon(self, points: tuple[tuple[float, float], ...], code: int) -> None:
        """Fills a convex polygon given counter-clockwise."""
        inside = np.ones(self.codes.shape, bool)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            inside &= (x1 - x0) * (self.y - y0) - (y1 - y0) * (self.x - x0) >= 0
        self.codes[inside] = code

    def stroke(self, start: tuple[float, float], end: tuple[float, float], radius: float, code: int) -> None:
        """Draws a thick line with round ends."""
        (x0, y0), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
        along = np.clip(((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        self.codes[(self.x - x0 - along * dx) ** 2 + (self.y - y0 - along * dy) ** 2 <= radius**2] = code

    def padded(self) -> np.ndarray:
        """The codes with a clear row above and below, as a side texture wants them."""
        return np.pad(self.codes, ((1, 1), (0, 0)))


@dataclass(frozen=True)
class Vehicle:
    """Stencils and sizes (metres) of one body style; the rear is at the start of the side."""

    width: float
    length: float
    height: float
    belt: float  # height of the lower body, where the windows start
    cabin: tuple[float, float]  # where the roof starts and ends along the length
    side: np.ndarray
    rear: np.ndarray
    front: np.ndarray
    top: np.ndarray  # the cabin seen from an end, from half the belt's height up


def _car_side(length: float, height: float, belt: float, cabin: tuple[float, float, float, float]) -> np.ndarray:
    """cabin: where its base and its roof start, where its roof and its base end."""
    base0, roof0, roof1, base1 = cabin
    sheet = Stencil(length, height)
    sheet.polygon(((0.02, 0.3), (length - 0.03, 0.28), (length, 0.65), (base1, belt), (0.0, belt)), BODY)
    sheet.box((0.1, length - 0.1), (0.24, 0.36), DARK)
    sheet.polygon(((base0, belt - 0.06), (base1, belt - 0.06), (roof1, height), (roof0, height)), BODY)
    sheet.polygon(
        ((base0 + 0.14, belt), (base1 - 0.16, belt), (roof1 - 0.05, height - 0.1), (roof0 + 0.05, height - 0.1)), GLASS
    )
    middle = (base0 + base1) / 2
    sheet.box((middle - 0.05, middle + 0.05), (0.4, height), BODY)
    for wheel in (0.78, length - 0.78):
        sheet.disc(wheel, 0.33, 0.34, TYRE)
        sheet.disc(wheel, 0.33, 0.18, RIM)
    sheet.box((0.0, 0.14), (belt - 0.25, belt - 0.05), TAIL)
    sheet.box((length - 0.25, length), (0.52, 0.66), HEAD)
    return sheet.padded()


def _car_end(width: float, belt: float, light: int) -> np.ndarray:
    sheet = Stencil(width, belt)
    for x in (0.12, width - 0.36):
        sheet.box((x, x + 0.24), (0.0, 0.4), TYRE)
    sheet.polygon(
        ((0.06, 0.22), (width - 0.06, 0.22), (width, 0.45), (width - 0.03, belt), (0.03, belt), (0.0, 0.45)), BODY
    )
    sheet.box((0.1, width - 0.1), (0.22, 0.4), DARK)
    for x in (0.06, width - 0.4):
        sheet.box((x, x + 0.34), (belt - 0.3, belt - 0.1), light)
    sheet.box((width / 2 - 0.26, width / 2 + 0.26), (0.44, 0.56), PLATE)
    return sheet.codes


def _car_top(width: float, height: float, belt: float) -> np.ndarray:
    start = belt / 2
    low, high = belt - start, height - start
    sheet = Stencil(width, high)
    sheet.polygon(
        ((0.0, 0.0), (width, 0.0), (width, high - 0.1), (width - 0.1, high), (0.1, high), (0.0, high - 0.1)), BODY
    )
    sheet.polygon(((0.1, low), (width - 0.1, low), (width - 0.18, high - 0.1), (0.18, high - 0.1)), GLASS)
    return sheet.codes


def _car(length: float, height: float, cabin: tuple[float, float, float, float]) -> Vehicle:
    width, belt = 1.8, 0.6 * height
    return Vehicle(
        width=width, length=length, height=height, belt=belt,
        cabin=(cabin[1], cabin[2]),
        side=_car_side(length, height, belt, cabin),
        rear=_car_end(width, belt, TAIL), front=_car_end(width, belt, HEAD), top=_car_top(width, height, belt),
    )  # fmt: skip


def _wheels(sheet: Stencil, places: tuple[float, ...]) -> None:
    for x in places:
        sheet.disc(x, 0.5, 0.5, TYRE)
        sheet.disc(x, 0.5, 0.24, RIM)


def _box_end(width: float, height: float, light: int, *, window: tuple[float, float] | None) -> np.ndarray:
    sheet = Stencil(width, height, density=20)
    for x in (0.15, width - 0.5):
        sheet.box((x, x + 0.35), (0.0, 0.6), TYRE)
    sheet.box((0.0, width), (0.45, height), BODY)
    sheet.box((0.0, width), (0.4, 0.7), DARK)
    for x in (0.1, width - 0.4):
        sheet.box((x, x + 0.3), (0.75, 0.95), light)
    if window is not None:
        sheet.box((0.15, width - 0.15), window, GLASS)
    else:
        sheet.box((width / 2 - 0.03, width / 2 + 0.03), (0.8, height - 0.1), DARK)
    return sheet.codes


def _truck() -> Vehicle:
    width, length, height = 2.3, 5.8, 3.1
    sheet = Stencil(length, height, density=20)
    sheet.box((0.0, length - 0.3), (0.55, 0.8), DARK)
    sheet.box((0.0, length - 1.9), (0.75, height), BODY)
    sheet.polygon(((length - 1.8, 0.5), (length, 0.5), (length, 1.4), (length - 0.4, 2.4), (length - 1.8, 2.4)), DARK)
    sheet.polygon(((length - 1.3, 1.5), (length - 0.15, 1.5), (length - 0.5, 2.25), (length - 1.3, 2.25)), GLASS)
    _wheels(sheet, (1.2, length - 1.1))
    return Vehicle(
        width=width, length=length, height=height, belt=height, cabin=(0.0, length), side=sheet.padded(),
        rear=_box_end(width, height, TAIL, window=None), front=_box_end(width, height, HEAD, window=(1.4, 2.2)),
        top=np.zeros((1, 1), np.uint8),
    )  # fmt: skip


def _bus() -> Vehicle:
    width, length, height = 2.5, 9.5, 3.0
    sheet = Stencil(length, height, density=20)
    sheet.box((0.0, length), (0.35, height), BODY)
    sheet.box((0.0, length), (0.35, 0.6), DARK)
    for x in np.arange(0.4, length - 1.2, 1.35):
        sheet.box((x, x + 1.2), (1.45, 2.5), GLASS)
    sheet.box((length - 1.0, length - 0.1), (0.6, 2.5), GLASS)
    _wheels(sheet, (2.0, length - 2.3))
    return Vehicle(
        width=width, length=length, height=height, belt=height, cabin=(0.0, length), side=sheet.padded(),
        rear=_box_end(width, height, TAIL, window=(1.5, 2.5)), front=_box_end(width, height, HEAD, window=(1.1, 2.5)),
        top=np.zeros((1, 1), np.uint8),
    )  # fmt: skip


@lru_cache(maxsize=1)
def vehicles() -> dict[str, tuple[Vehicle, ...]]:
    """Body styles of each vehicle kind: car, truck, bus."""
    hatchback = _car(3.9, 1.5, (0.02, 0.5, 2.4, 3.1))
    saloon = _car(4.5, 1.45, (0.5, 1.15, 2.7, 3.5))
    estate = _car(4.4, 1.7, (0.05, 0.35, 2.8, 3.4))
    van = _car(4.6, 1.95, (0.02, 0.1, 3.4, 4.0))
    return {"car": (hatchback, saloon, estate, van), "truck": (_truck(),), "bus": (_bus(),)}


def _person(phase: int, *, sideways: bool) -> np.ndarray:
    swing = np.sin(2 * np.pi * phase / WALK_PHASES)
    sheet = Stencil(1.2, 1.8)
    middle, hip = 0.6, 0.88
    for sign, code in ((-1, LEG_BEHIND), (1, LEG)):
        foot = (
            (middle + 0.34 * swing * sign, 0.06)
            if sideways
            else (middle + 0.1 * sign, 0.07 + 0.09 * max(0.0, swing * sign))
        )
        sheet.stroke((middle + (0 if sideways else 0.08 * sign), hip), foot, 0.085, code)
        sheet.stroke(foot, (foot[0] + (0.12 if sideways else 0.02 * sign), foot[1] - 0.02), 0.065, SHOE)
    half = 0.13 if sideways else 0.2
    hands = (0.3 * swing,) if sideways else (-0.27 - 0.03 * swing, 0.27 - 0.03 * swing)
    if sideways:
        sheet.stroke((middle, 1.35), (middle - hands[0], 0.9), 0.06, SLEEVE)
    sheet.polygon(
        ((middle - half + 0.03, 0.8), (middle + half - 0.03, 0.8), (middle + half, 1.36), (middle + half - 0.08, 1.48),
         (middle - half + 0.08, 1.48), (middle - half, 1.36)), SHIRT,
    )  # fmt: skip
    for hand in hands:
        sheet.stroke((middle + (0 if sideways else np.sign(hand) * 0.2), 1.38), (middle + hand, 0.88), 0.06, SLEEVE)
        sheet.disc(middle + hand, 0.84, 0.055, SKIN)
    sheet.disc(middle, 1.64, 0.14, HAIR)
    sheet.disc(middle + (0.04 if sideways else 0.0), 1.6, 0.11, SKIN)
    return sheet.codes


@lru_cache(maxsize=1)
def persons() -> dict[str, tuple[np.ndarray, ...]]:
    """Walk cycles, 1.2 m wide and 1.8 m high: "along" seen from the front, "right" and "left" from the side."""
    right = tuple(_person(phase, sideways=True) for phase in range(WALK_PHASES))
    along = tuple(_person(phase, sideways=False) for phase in range(WALK_PHASES))
    return {"along": along, "right": right, "left": tuple(codes[:, ::-1] for codes in right)}


@lru_cache(maxsize=1)
def signs() -> tuple[np.ndarray, ...]:
    """Texture of each traffic sign, 0.8 x 0.8 m."""
    red, white, blue, yellow = pack(np.array(((200, 30, 30), (235, 235, 235), (30, 70, 180), (235, 190, 40))))
    circle, triangle, square = Stencil(0.8, 0.8), Stencil(0.8, 0.8), Stencil(0.8, 0.8)
    circle.disc(0.4, 0.4, 0.4, 1)
    circle.disc(0.4, 0.4, 0.28, 2)
    triangle.polygon(((0.0, 0.03), (0.8, 0.03), (0.4, 0.77)), 1)
    triangle.polygon(((0.16, 0.13), (0.64, 0.13), (0.4, 0.58)), 2)
    square.box((0.03, 0.77), (0.03, 0.77), 1)
    square.polygon(((0.25, 0.2), (0.55, 0.2), (0.4, 0.65)), 2)
    schemes = ((circle, red, white), (triangle, red, white), (square, blue, white), (triangle, red, yellow))
    return tuple(np.array((0, edge, face), np.uint32)[sheet.codes] for sheet, edge, face in schemes)


@lru_cache(maxsize=1)
def traffic_lights() -> tuple[np.ndarray, ...]:
    """Texture of a traffic light showing red, green, amber, 0.42 x 1.1 m."""
    lit = pack(np.array(((255, 50, 40), (60, 240, 110), (255, 190, 40))))
    box, off = pack(np.array(((28, 30, 30), (60, 60, 55))))
    textures = []
    for lamp, colour in zip((0, 2, 1), lit, strict=True):
        sheet = Stencil(0.42, 1.1)
        sheet.box((0.0, 0.42), (0.0, 1.1), 1)
        for place in range(3):
            sheet.disc(0.21, 0.91 - 0.36 * place, 0.15, 3 if place == lamp else 2)
        textures.append(np.array((0, box, off, colour), np.uint32)[sheet.codes])
    return tuple(textures)
