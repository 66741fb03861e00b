"""The layers of a report: small pictures of a frame as data URIs that lie on each other, and its table of segments."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seq_d.animation import to_palette
from pix2seq_d.data.formats import DataError, read_png
from pix2seq_d.data.segments import find_segments
from pix2seq_d.labels import LABEL_DIVISOR, LabelSpec
from pix2seq_d.palette import VOID_COLOUR, colour_classes, colour_instances, colour_panoptic
from pix2seq_d.pictures import Colour, data_uri

HEAT_LEVELS = 32  # fewer make smaller pictures
JPEG_QUALITY = 80


@dataclass(frozen=True)
class HeatLayer:
    """A folder of 8-bit maps {sequence}/{frame}.png beside panoptic/, shown as one colour of that strength.

    Attributes:
        folder: its name.
        label: what the page calls it.
        colour: of the strongest value.
        inverted: 0 is the strongest value instead of 255.
        channel: of RGB maps the one that is shown; None = the maps are greyscale.
    """

    folder: str
    label: str
    colour: Colour
    inverted: bool = False
    channel: int | None = None

    @property
    def key(self) -> str:
        """Name of the layer."""
        return self.folder if self.channel is None else f"{self.folder}-{'RGB'[self.channel]}"

    def read(self, output: Path, file: str, size: tuple[int, int]) -> np.ndarray | None:
        """The (H, W) uint8 map of a frame, None where there is none; raises DataError for a broken one."""
        path = output / self.folder / file
        if not path.is_file():
            return None
        values = read_png(path, kinds=("greyscale" if self.channel is None else "RGB",))
        if values.shape[:2] != size:
            found = "x".join(map(str, values.shape[:2]))
            raise DataError(f"{path}: expected {size[0]}x{size[1]} pixels as its map, got {found}")
        return values if self.channel is None else np.ascontiguousarray(values[..., self.channel])


def small_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(H, W) scaled down so that no side is longer than `max_side`."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def frame_uri(image: np.ndarray, size: tuple[int, int]) -> str:
    """A frame (H, W, 3) uint8 as a JPEG of `size` (H, W)."""
    data = io.BytesIO()
    small = Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX, reducing_gap=2.0)
    small.save(data, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return data_uri("image/jpeg", data.getvalue())


def map_uris(class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec, size: tuple[int, int]) -> dict[str, str]:
    """The layers of a map as PNGs of `size` (H, W), by key; void is transparent where no class has its colour."""
    rows, columns = ((np.arange(n) + 0.5) * full / n for n, full in zip(size, class_map.shape))
    nearest = np.ix_(rows.astype(int), columns.astype(int))
    maps = class_map[nearest], instance_map[nearest]
    return {
        "panoptic": _palette_uri(colour_panoptic(*maps, spec), spec),
        "class": _palette_uri(colour_classes(maps[0], spec), spec),
        "instance": _palette_uri(colour_instances(*maps, spec), spec),
    }


def heat_uri(values: np.ndarray, layer: HeatLayer, size: tuple[int, int]) -> str:
    """An (H, W) uint8 map as a PNG of one colour whose opacity is the value."""
    small = np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BOX))
    strength = 255 - small if layer.inverted else small
    levels = Image.fromarray((strength.astype(np.uint16) * (HEAT_LEVELS - 1) // 255).astype(np.uint8))
    levels.putpalette(layer.colour * HEAT_LEVELS)
    data = io.BytesIO()
    levels.save(data, "PNG", optimize=True, transparency=np.linspace(0, 255, HEAT_LEVELS).astype(np.uint8).tobytes())
    return data_uri("image/png", data.getvalue())


def segment_rows(
    class_map: np.ndarray,
    instance_map: np.ndarray,
    confidence: np.ndarray | None,
    spec: LabelSpec,
    *,
    agreement: Mapping[tuple[int, int], float] | None = None,
) -> list[list[Any]]:
    """The segments of a frame, things first, large before small.

    Args:
        class_map: (H, W) integers.
        instance_map: (H, W) integers.
        confidence: (H, W) uint8, None where it is not known.
        spec: label spec of the maps.
        agreement: of (train id, id) how much the samples agree; None where there are none.

    Returns:
        Per segment [id (0 for stuff), train id, pixels, mean confidence 0-1 or None, agreement 0-1 or None, x, y,
        width, height, "#rrggbb"].
    """
    ids = np.where(spec.is_thing(class_map), instance_map, 0).astype(np.int64)
    found = find_segments(class_map * np.int64(LABEL_DIVISOR) + ids)
    classes, instances = np.divmod(found.keys, LABEL_DIVISOR)
    colours = colour_panoptic(classes[None], instances[None], spec)[0].tolist()
    means: list[float | None] = [None] * len(found.keys)
    if confidence is not None:
        starts = np.cumsum(found.lengths) - found.lengths
        sums = np.add.reduceat(confidence.reshape(-1).astype(np.int64), starts)
        means = (np.bincount(found.owners, weights=sums) / found.areas / 255).round(3).tolist()
    rows = [
        [instance, class_id, area, mean, (agreement or {}).get((class_id, instance)), *box, hex_colour(colour)]
        for instance, class_id, area, mean, box, colour in zip(
            instances.tolist(), classes.tolist(), found.areas.tolist(), means, found.boxes.tolist(), colours
        )
        if class_id != spec.void_id
    ]
    things = set(spec.thing_ids)
    return sorted(rows, key=lambda row: (row[1] not in things, -row[2], row[1], row[0]))


def hex_colour(colour: Any) -> str:
    """(R, G, B) as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _palette_uri(picture: np.ndarray, spec: LabelSpec) -> str:
    image = to_palette(Image.fromarray(picture), 256)
    options = {}
    if VOID_COLOUR not in spec.colours:
        palette = np.array(image.getpalette()).reshape(-1, 3)
        void = np.flatnonzero((palette == VOID_COLOUR).all(axis=1))
        options = {"transparency": int(void[0])} if len(void) else {}
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True, **options)
    return data_uri("image/png", data.getvalue())


MAP_LAYERS = {"frame": "Frame", "panoptic": "Panoptic", "class": "Class", "instance": "Instance"}
HEAT_LAYERS = (
    HeatLayer("confidence", "Low confidence", (255, 45, 85), inverted=True),
    HeatLayer("uncertainty", "Uncertain class", (255, 140, 0), channel=0),
    HeatLayer("uncertainty", "Uncertain object", (230, 0, 230), channel=1),
)
