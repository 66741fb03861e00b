"""Who is where in the synthetic street, in closed form over time: the camera's motion and endless streams of actors.

A stream is a row of slots moving at one speed and a slot's content is a table row: a frame costs the slots in sight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np

from pix2seq_d.data.synthetic_canvas import View
from pix2seq_d.data.synthetic_street import Layout

FRAMES_PER_SECOND = 10.0
LOOKS = 128  # rows of a stream's table
LOOK_SIZE = 7  # occupancy, place, style, colour, lateral shift, phase, distraction
FAR = {"car": 44.0, "person": 38.0, "crosser": 38.0, "group": 38.0}  # metres; roadside objects: ROADSIDE_FAR
ROADSIDE_FAR = 64.0
BEHIND = 12.0  # metres behind the camera where a long vehicle may still reach into the image
THINGS = ("car", "person", "crosser")
PERSON, CAR, TRUCK, BUS = 11, 13, 14, 15
CROSSING_SECONDS, CROSSING_LEAD = 6.0, 7.0


@dataclass(frozen=True)
class Difficulty:
    """How hard the street is.

    Attributes:
        density: factor on how many slots are occupied.
        speed: factor on the camera's and the cars' speed.
        distractors: share of vehicles that are trucks or buses.
        noise: sensor noise, half range in grey levels.
        light: relative swing of brightness and colour over time.
        max_things: no frame has more thing instances.
        reach: factor on how far away objects are shown; near ones are large.
    """

    density: float
    speed: float
    distractors: float
    noise: int
    light: float
    max_things: int
    reach: float


SETTINGS = {
    "easy": Difficulty(density=0.6, speed=0.75, distractors=0.05, noise=3, light=0.04, max_things=15, reach=0.45),
    "default": Difficulty(density=1.0, speed=1.0, distractors=0.13, noise=8, light=0.12, max_things=15, reach=0.58),
    "hard": Difficulty(density=2.1, speed=1.35, distractors=0.2, noise=18, light=0.3, max_things=31, reach=1.0),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """One object of one frame.

    Attributes:
        kind: what it is.
        x: metres from the middle of the street.
        depth: metres from the camera to its near end.
        heading: 1 in the camera's direction, -1 towards it; for a crosser 1 to the right, -1 to the left, 0 standing.
        walked: metres covered so far.
        look: its row of the stream's table, values in [0, 1).
        label: class id + 256 * instance id.
        rank: lane counted from the camera's; outer lanes are painted first.
    """

    kind: str
    x: float
    depth: float
    heading: int
    walked: float
    look: list[float]
    label: int
    rank: int


@dataclass(frozen=True)
class Stream:
    """Endless slots along the street, `spacing` metres apart, that move at `speed` metres per second.

    Attributes:
        kind: what its actors are.
        x: metres from the middle of the street.
        looks: its table, LOOKS rows of LOOK_SIZE values in [0, 1), flat.
        occupancy: share of slots that hold an actor.
        heading: of its actors, or the side of the street for what stands.
        sway: metres an actor drifts to and fro along the street around its slot.
        jitter: lateral shift of actors, metres to either side.
        crowd: every actor belongs to a crowd region and has no instance.
        reach: factor on the distance at which actors come into sight.
    """

    kind: str
    x: float
    _: KW_ONLY
    looks: list[float]
    occupancy: float
    spacing: float = 1.0
    speed: float = 0.0
    heading: int = 1
    sway: float = 0.0
    jitter: float = 0.0
    crowd: bool = False
    reach: float = 1.0

    def look(self, slot: int) -> list[float]:
        """The table row of a slot."""
        row = LOOK_SIZE * (slot % LOOKS)
        return self.looks[row : row + LOOK_SIZE]

    def slots(self, camera_z: float, time: float) -> Iterator[tuple[int, list[float], float, float]]:
        """Slot number, look, depth and metres walked of every occupied slot in sight."""
        start, far = self.speed * time, FAR.get(self.kind, ROADSIDE_FAR) * self.reach
        first = math.ceil((camera_z - BEHIND - self.sway - start) / self.spacing) - 1
        last = math.floor((camera_z + far + self.sway - start) / self.spacing)
        for slot in range(first, last + 1):
            look = self.look(slot)
            if look[0] < self.occupancy:
                walked = start + self.sway * math.sin(0.5 * time + 6.28 * look[5])
                depth = (slot + 0.2 * look[1]) * self.spacing + walked - camera_z
                if -BEHIND < depth < far:
                    yield slot, look, depth, walked


def instance_id(slot: int, stream: int, num_streams: int) -> int:
    """A number that no other slot of any stream has: slots 0, -1, 1, -2, ... interleaved with the streams."""
    return 1 + (2 * slot if slot >= 0 else -2 * slot - 1) * num_streams + stream


class World:
    """Camera and actors of one sequence."""

    def __init__(self, rng: np.random.Generator, difficulty: Difficulty) -> None:
        self.difficulty = difficulty
        self.speed = float(rng.uniform(5.5, 9.0)) * difficulty.speed  # metres per second
        self.phases = rng.uniform(0, 2 * np.pi, 8).tolist()
        self.camera_height = float(rng.uniform(1.5, 1.75))
        self.layout = _layout(rng)
        crowd = rng.random()
        self.crowd = "person" if crowd < 0.12 else "car" if crowd < 0.22 else None
        self.streams = [replace(stream, reach=difficulty.reach) for stream in _streams(rng, self)]
        self.num_thing_streams = sum(stream.kind in THINGS for stream in self.streams)

    def camera_z(self, time: float) -> float:
        """Metres along the street; the speed swings by at most a sixth."""
        return self.speed * (time + 0.3 * math.sin(0.5 * time + self.phases[0]) - 0.3 * math.sin(self.phases[0]))

    def view(self, time: float, columns: np.ndarray, rows: np.ndarray) -> View:
        """The camera at a time in seconds, for pixel centres (W,) and (H,)."""
        height, width, p = len(rows), len(columns), self.phases
        focal = 1.06 * math.sqrt(height * width)
        yaw = 0.022 * math.sin(0.55 * time + p[1]) + 0.007 * math.sin(1.7 * time + p[2])
        pitch = 0.0025 * math.sin(4.1 * time + p[3]) + 0.003 * math.sin(0.9 * time + p[4])
        return View(
            focal=focal, cx=0.5 * width + focal * yaw, cy=0.43 * height + focal * pitch,
            x=self.layout.camera + 0.12 * math.sin(0.35 * time + p[5]), y=self.camera_height, z=self.camera_z(time),
            columns=columns, rows=rows,
        )  # fmt: skip

    def actors(self, view: View, time: float) -> list[Actor]:
        """What is in sight in painting order, outer lanes first, then far to near; surplus far things are dropped."""
        edge = 0.5 * len(view.columns)
        seen = [a for a in self._actors(view.z, time) if _in_sight(a, view, edge)]
        things = [a for a in seen if a.label >= 256]
        surplus = len(things) - self.difficulty.max_things
        if surplus > 0:
            dropped = sorted(things, key=lambda a: (-a.depth, a.label))[:surplus]
            seen = [a for a in seen if a not in dropped]
        return sorted(seen, key=lambda a: (-a.rank, -a.depth, a.label))

    def _actors(self, camera_z: float, time: float) -> Iterator[Actor]:
        for number, stream in enumerate(self.streams):  # thing streams come first
            rank = round(abs(stream.x - self.layout.camera) / 1.6)
            for slot, look, depth, walked in stream.slots(camera_z, time):
                x, heading = stream.x + stream.jitter * (2 * look[4] - 1), stream.heading
                if stream.kind == "crosser":
                    x, heading = self._crossing(slot, look, depth + camera_z, time)
                    walked, rank = x, round(abs(x - self.layout.camera) / 1.6)
                kind, label = self._identity(stream, look)
                if label in (PERSON, CAR) and not stream.crowd:
                    label += 256 * instance_id(slot, number, self.num_thing_streams)
                yield Actor(
                    kind=kind, x=x, depth=depth, heading=heading, walked=walked, look=look, label=label, rank=rank
                )

    def _identity(self, stream: Stream, look: list[float]) -> tuple[str, int]:
        """Kind and class of a slot's actor; roadside objects get their classes when painted."""
        if stream.kind != "car":
            return stream.kind, PERSON if stream.kind in ("person", "crosser", "group") else 0
        if look[6] < self.difficulty.distractors:
            long = stream.speed != 0 and look[6] < 0.4 * self.difficulty.distractors
            return ("bus", BUS) if long else ("truck", TRUCK)
        return "car", CAR

    def _crossing(self, slot: int, look: list[float], z: float, time: float) -> tuple[float, int]:
        """A crosser's x and heading: it waits, crosses the street ahead of the camera, and stands on the other side."""
        side = 1 if look[4] < 0.5 else -1
        progress = (time - z / self.speed + CROSSING_LEAD) / CROSSING_SECONDS
        reach = self.layout.road + 0.6
        if not 0.0 < progress < 1.0:
            return side * reach * (-1 if progress <= 0 else 1), 0
        return side * reach * (2 * progress - 1), side


def _in_sight(actor: Actor, view: View, edge: float) -> bool:
    """Whether any part may project into the image; the far end counts for long vehicles."""
    far = actor.depth + 10.0 if actor.kind in ("car", "truck", "bus") else actor.depth
    if far < 1.2:
        return False
    offset = abs(actor.x - view.x) - (2.6 if actor.kind in ("tree", "group") else 1.3)
    return offset * view.focal < (edge + abs(view.cx - edge)) * far


def _layout(rng: np.random.Generator) -> Layout:
    """A narrow street with one lane a direction or a wide one with two, with the camera in either lane."""
    lanes = int(rng.integers(1, 3))
    camera = 1.6 + 3.2 * int(rng.integers(0, lanes))
    road = 3.2 * lanes + 2.3
    sidewalk = road + float(rng.uniform(2.4, 3.2))
    low = sidewalk + float(rng.uniform(0.8, 2.2))
    return Layout(
        camera=camera, lanes=lanes, road=road, sidewalk=sidewalk, low=low, wall=low + float(rng.uniform(0.8, 2.5))
    )


def _looks(rng: np.random.Generator) -> list[float]:
    """A stream's table, row after row, as one list."""
    return rng.random(LOOKS * LOOK_SIZE).tolist()


def _streams(rng: np.random.Generator, world: World) -> list[Stream]:
    """All streams of a sequence, those of things first."""
    things = [*_traffic(rng, world), *_walkers(rng, world)]
    return [*things, *_roadside(rng, world)]


def _share(occupancy: float) -> float:
    """An occupancy that always leaves gaps."""
    return min(0.9, occupancy)


def _traffic(rng: np.random.Generator, world: World) -> list[Stream]:
    layout, density, streams = world.layout, world.difficulty.density, []
    for side in (-1, 1):  # parked
        crowd = world.crowd == "car" and side == -1
        streams.append(Stream(
            "car", side * (layout.road - 1.1), spacing=7.2, occupancy=_share(0.16 * density + 0.3 * crowd),
            looks=_looks(rng), heading=side, jitter=0.12, crowd=crowd,
        ))  # fmt: skip
    for lane in range(layout.lanes):  # oncoming
        speed = -float(rng.uniform(4.5, 9.0)) * world.difficulty.speed
        streams.append(Stream(
            "car", -1.6 - 3.2 * lane, spacing=17.0, occupancy=_share(0.4 * density / layout.lanes),
            looks=_looks(rng), speed=speed, heading=-1, sway=1.5, jitter=0.2,
        ))  # fmt: skip
    if layout.lanes == 2:
        streams.append(_other_lane(rng, world))
    ahead = Lead(
        "car", layout.camera, occupancy=_share(0.55 * density), looks=_looks(rng), speed=world.speed, jitter=0.15
    )
    return [*streams, ahead]


def _other_lane(rng: np.random.Generator, world: World) -> Stream:
    """The other lane of our direction: slower cars on our right, or faster ones on our left."""
    on_right = world.layout.camera < 3.2
    speed = world.speed * float(rng.uniform(0.45, 0.75) if on_right else rng.uniform(1.2, 1.5))
    return Stream(
        "car", 4.8 if on_right else 1.6, spacing=17.0, occupancy=_share(0.4 * world.difficulty.density),
        looks=_looks(rng), speed=speed, sway=2.0, jitter=0.2,
    )  # fmt: skip


class Lead(Stream):
    """A stream of one: the car ahead in our lane, 8 m to 48 m away."""

    def slots(self, camera_z: float, time: float) -> Iterator[tuple[int, list[float], float, float]]:
        """As in Stream."""
        look = self.look(0)
        depth = 28.0 + 20.0 * math.sin(0.28 * time + 6.28 * look[5])
        if look[0] < self.occupancy and depth < FAR["car"] * self.reach:
            yield 0, look, depth, 0.0


def _walkers(rng: np.random.Generator, world: World) -> list[Stream]:
    layout, density, streams = world.layout, world.difficulty.density, []
    wide = layout.sidewalk - layout.road
    for side, heading, share in ((-1, 1, 0.35), (-1, -1, 0.7), (1, 1, 0.35), (1, -1, 0.7)):
        speed = heading * float(rng.uniform(0.9, 1.6))
        streams.append(Stream(
            "person", side * (layout.road + share * wide), spacing=8.0, occupancy=_share(0.24 * density),
            looks=_looks(rng), speed=speed, heading=heading, sway=1.0, jitter=0.3,
        ))  # fmt: skip
    crossers = Stream("crosser", 0.0, spacing=33.0, occupancy=_share(0.45 * density), looks=_looks(rng))
    return [*streams, crossers]


def _roadside(rng: np.random.Generator, world: World) -> list[Stream]:
    layout, streams = world.layout, []
    kerb, green = layout.road + 0.35, layout.sidewalk + 0.4
    trees = float(rng.uniform(0.2, 0.75))
    for side in (-1, 1):
        for kind, x, spacing, occupancy in (
            ("tree", green, 9.0, trees), ("lamp", kerb, 19.0, 0.75),
            ("sign", kerb + 0.1, 17.0, 0.6), ("light", kerb + 0.2, 41.0, 0.7),
        ):  # fmt: skip
            jitter = 0.3 if kind == "tree" else 0.0
            looks = _looks(rng)
            streams.append(
                Stream(kind, side * x, spacing=spacing, occupancy=occupancy, looks=looks, heading=side, jitter=jitter)
            )
    if world.crowd == "person":
        side = int(rng.choice((-1, 1)))
        x = side * (layout.sidewalk - 0.6)
        streams.append(Stream("group", x, spacing=23.0, occupancy=0.7, looks=_looks(rng), heading=side, crowd=True))
    return streams
