"""Paints the actors of the synthetic street: vehicles as boxes with textured faces, all else as upright pictures."""

from __future__ import annotations

import math

import numpy as np

from pix2seq_d.data.synthetic_canvas import (
    NEAR,
    Canvas,
    View,
    pack,
    paint_image,
    paint_rect,
    paint_side,
    paint_upright,
    shade_ground,
)  # fmt: skip
from pix2seq_d.data.synthetic_textures import WALK_PHASES, Vehicle, persons, signs, traffic_lights, vehicles
from pix2seq_d.data.synthetic_world import Actor

POLE, LIGHT, SIGN, VEGETATION = 5, 6, 7, 8
HAZE_STEP, HAZE_LEVELS = 14.0, 4  # metres per level of haze, number of levels
STEP_LENGTH = 1.5  # metres of a walk cycle
GROUP = ((-0.7, 0.0), (0.1, 0.5), (0.6, -0.3), (-0.2, 1.1), (1.1, 0.9))  # (x, z) metres within a standing group


class Painter:
    """Holds one sequence's colours and paints actors with them.

    Args:
        rng: draws palettes and tree crowns.
        haze: (3,) colour of the air.
    """

    def __init__(self, rng: np.random.Generator, haze: np.ndarray) -> None:
        self.haze = haze
        self.paints = _paints(rng)
        self.clothes = _clothes(rng)
        self.trees = [_tree(rng, haze) for _ in range(4)]
        self.metal = int(pack(np.full(3, rng.uniform(60, 120))))
        self.palettes: dict[tuple[str, int, int], np.ndarray] = {}
        self.methods = {
            "car": self._vehicle, "truck": self._vehicle, "bus": self._vehicle,
            "person": self._walker, "crosser": self._walker, "group": self._group,
            "tree": self._tree, "lamp": self._lamp, "sign": self._sign, "light": self._light,
        }  # fmt: skip

    def paint(self, canvas: Canvas, view: View, actor: Actor, time: float) -> None:
        """Paints one actor over what is there."""
        self.methods[actor.kind](canvas, view, actor, time)

    def _palette(self, name: str, number: int, depth: float) -> np.ndarray:
        """(codes,) texels of a paint or an outfit, hazier with distance; code 0 is clear."""
        level = min(int(max(depth, 0.0) / HAZE_STEP), HAZE_LEVELS - 1)
        key = (name, number, level)
        if key not in self.palettes:
            colours = (self.paints if name == "paint" else self.clothes)[number]
            texels = pack(colours + (self.haze - colours) * (0.09 * level))
            texels[0] = 0
            self.palettes[key] = texels
        return self.palettes[key]

    def _vehicle(self, canvas: Canvas, view: View, actor: Actor, time: float) -> None:
        styles = vehicles()[actor.kind]
        model = styles[int(actor.look[2] * len(styles))]
        palette = self._palette("paint", int(actor.look[3] * len(self.paints)), actor.depth)
        x, depth = (actor.x - model.width / 2, actor.x + model.width / 2), (actor.depth, actor.depth + model.length)
        shade_ground(canvas, view, x=(x[0] - 0.1, x[1] + 0.1), depth=(depth[0] - 0.1, depth[1]))
        ahead = actor.heading > 0
        _paint_cabin(canvas, view, model, palette, actor, x)
        side = palette[model.side if ahead else model.side[:, ::-1]]
        if x[0] > view.x or x[1] < view.x:
            face = x[0] if x[0] > view.x else x[1]
            paint_side(canvas, view, side, actor.label, x=face, y=(0.0, model.height), depth=depth)
        end = palette[model.rear if ahead else model.front]
        paint_upright(canvas, view, end, actor.label, x=x, y=(0.0, model.belt), depth=actor.depth)

    def _walker(self, canvas: Canvas, view: View, actor: Actor, time: float) -> None:
        view_name = "along" if actor.kind == "person" or not actor.heading else "right" if actor.heading > 0 else "left"
        phase = int((actor.walked / STEP_LENGTH + actor.look[5]) * WALK_PHASES) % WALK_PHASES
        self._figure(canvas, view, actor, persons()[view_name][phase], x=actor.x, depth=actor.depth, look=actor.look[3])

    def _figure(
        self, canvas: Canvas, view: View, actor: Actor, stencil: np.ndarray, *, x: float, depth: float, look: float
    ) -> None:
        palette = self._palette("clothes", int(look * len(self.clothes)), depth)
        height = 1.6 + 0.28 * ((look * 7.3) % 1.0)
        shade_ground(canvas, view, x=(x - 0.25, x + 0.25), depth=(depth - 0.2, depth + 0.2))
        paint_upright(canvas, view, palette[stencil], actor.label, x=(x - 0.6, x + 0.6), y=(0.0, height), depth=depth)

    def _group(self, canvas: Canvas, view: View, actor: Actor, time: float) -> None:
        for number, (x, z) in sorted(enumerate(GROUP), key=lambda item: -item[1][1]):
            stencil = persons()[("along", "right", "left")[number % 3]][(2 * number) % WALK_PHASES]
            look = (actor.look[3] + 0.37 * number) % 1.0
            self._figure(canvas, view, actor, stencil, x=actor.x + x, depth=actor.depth + z, look=look)

    def _tree(self, canvas: Canvas, view: View, actor: Actor, time: float) -> None:
        height = 4.0 + 3.5 * actor.look[3]
        texture = self.trees[int(actor.look[2] * len(self.trees))][min(int(max(actor.depth, 0) / 20.0), 2)]
        shade_ground(canvas, view, x=(actor.x - 1.2, actor.x + 1.2), depth=(actor.depth - 1.0, actor.depth + 1.0))
        x = (actor.x - 0.33 * height, actor.x + 0.33 * height)
        paint_upright(canvas, view, texture, VEGETATION, x=x, y=(0.0, height), depth=actor.depth)

    def _post(self, canvas: Canvas, view: View, actor: Actor, *, height: float, radius: float) -> None:
        depth = actor.depth
        left = view.column(actor.x - radius, depth)
        box = (view.row(height, depth), left, view.row(0.0, depth), view.column(actor.x + radius, depth))
        paint_rect(canvas, box, self.metal, POLE)

    def _lamp(self, canvas: Canvas, view: View, actor: Actor, time: float) -> None:
        depth = actor.depth
        if depth <= NEAR:
            return
        self._post(canvas, view, actor, height=6.2, radius=0.09)
        ends = sorted((view.column(actor.x, depth), view.column(actor.x - 1.5 * actor.heading, depth)))
        top = view.row(6.25, depth)
        paint_rect(canvas, (top, ends[0], max(view.row(6.1, depth), top + 1.0), ends[1]), self.metal, POLE)

    def _sign(self, canvas: Canvas, view: View, actor: Actor, time: float) -> None:
        if actor.depth <= NEAR:
            return
        self._post(canvas, view, actor, height=2.6, radius=0.05)
        texture = signs()[int(actor.look[2] * len(signs()))]
        x = (actor.x - 0.42, actor.x + 0.42)
        paint_upright(canvas, view, texture, SIGN, x=x, y=(2.1, 2.95), depth=actor.depth)

    def _light(self, canvas: Canvas, view: View, actor: Actor, time: float) -> None:
        depth = actor.depth
        if depth <= NEAR:
            return
        self._post(canvas, view, actor, height=2.6, radius=0.07)
        texture = traffic_lights()[int(time / 3.0 + 3.0 * actor.look[5]) % 3]
        left = view.column(actor.x - 0.25, depth)
        right = max(view.column(actor.x + 0.25, depth), left + 2.0)
        paint_image(canvas, (view.row(3.6, depth), left, view.row(2.4, depth), right), texture, LIGHT)


def _paint_cabin(
    canvas: Canvas, view: View, model: Vehicle, palette: np.ndarray, actor: Actor, x: tuple[float, float]
) -> None:
    """Windscreen or rear window: upright at the near end of the roof."""
    if model.belt < model.height:
        offset = model.cabin[0] if actor.heading > 0 else model.length - model.cabin[1]
        y, depth = (model.belt / 2, model.height), actor.depth + offset
        paint_upright(canvas, view, palette[model.top], actor.label, x=x, y=y, depth=depth)


def _paints(rng: np.random.Generator) -> np.ndarray:
    """(paints, codes, 3) float: clear, body, dark, glass, tyre, rim, head light, tail light, plate."""
    bodies = ((190, 35, 35), (35, 70, 160), (225, 225, 225), (45, 48, 55), (150, 155, 160), (40, 110, 75),
              (215, 175, 60), (110, 60, 45), (95, 140, 180), (235, 120, 40))  # fmt: skip
    rest = ((48, 48, 52), (42, 56, 70), (22, 22, 24), (120, 120, 125), (250, 245, 215), (215, 40, 35), (225, 225, 210))
    paints = np.array([((0, 0, 0), body, *rest) for body in bodies], np.float32)
    paints[:, 1] += rng.uniform(-18, 18, (len(bodies), 3))
    return paints


def _clothes(rng: np.random.Generator) -> np.ndarray:
    """(12, codes, 3) float: clear, skin, hair, shirt, sleeve, leg, leg behind, shoe."""
    clothes = np.zeros((12, 8, 3), np.float32)
    clothes[:, 1] = np.array((225, 175, 145)) * rng.uniform(0.45, 1.05, (12, 1))
    clothes[:, 2] = np.array((70, 50, 35)) * rng.uniform(0.3, 1.8, (12, 1))
    clothes[:, 3] = rng.uniform(30, 235, (12, 3))
    clothes[:, 4] = clothes[:, 3] * 0.82
    clothes[:, 5] = np.array((60, 65, 85)) * rng.uniform(0.4, 1.9, (12, 1)) + rng.uniform(-15, 15, (12, 3))
    clothes[:, 6] = clothes[:, 5] * 0.75
    clothes[:, 7] = 35
    return clothes


def _tree(rng: np.random.Generator, haze: np.ndarray) -> list[np.ndarray]:
    """(64, 42) texels of one tree at three levels of haze."""
    y, x = np.mgrid[:64, :42].astype(np.float32)
    crown = np.zeros((64, 42), bool)
    for _ in range(7):
        angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0, 10)
        row, column = 22 + 1.2 * reach * math.sin(angle), 21 + reach * math.cos(angle)
        crown |= (y - row) ** 2 + (x - column) ** 2 < rng.uniform(7, 11) ** 2
    trunk = (np.abs(x - 21) < 1.6) & (y > 30)
    leaf = np.array((rng.uniform(45, 100), rng.uniform(85, 125), rng.uniform(30, 60)), np.float32)
    clumps = np.kron(rng.uniform(-16, 16, (16, 14)), np.ones((4, 3)))
    shade = clumps + rng.uniform(-12, 12, (64, 42)) + (26 - y) * 0.9
    colours = np.where(crown[..., None], leaf + shade[..., None], np.array((88, 70, 55)))
    solid = crown | trunk
    return [
        np.where(solid, pack(colours + (haze - colours) * (0.12 * level)), 0).astype(np.uint32) for level in range(3)
    ]
