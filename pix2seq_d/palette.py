"""Maps in colour: the colour of an instance is a function of its id only, so that an object keeps it over a video.

Colours are picked in Oklab (Ottosson 2020), where equal distances look equally different: L lightness, C chroma, h hue.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from pix2seq_d.labels import LabelSpec

PERIOD = 4096  # ids further apart than this repeat the colours

VOID_COLOUR = (0, 0, 0)
STUFF_COLOUR = (58, 58, 58)
CROWD_COLOUR = (140, 140, 140)

_GOLDEN = 0.6180339887  # multiples modulo 1 fill the unit interval evenly, however many there are
_R2 = (0.7548776662, 0.5698402910)  # the same for the unit square

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def rgb_to_oklab(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) sRGB 0-255 to Oklab (L, a, b), float64."""
    value = np.asarray(rgb, np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


def oklab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """(..., 3) Oklab to sRGB uint8, cut off at the borders of the gamut; the inverse of `rgb_to_oklab`."""
    linear = (np.asarray(lab, np.float64) @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T
    linear = linear.clip(0, 1)
    value = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * value).astype(np.uint8)


def class_table(spec: LabelSpec) -> np.ndarray:
    """(num_classes + 1, 3) uint8: the colour of every class code (0 void, c + 1 class c)."""
    return np.array([VOID_COLOUR, *spec.colours], np.uint8)


@lru_cache(maxsize=1)
def instance_table() -> np.ndarray:
    """(PERIOD, 3) uint8: bright colours of all hues for the ids from 1 on; row 0 is the crowd's grey."""
    k = np.arange(PERIOD - 1)
    hue = 2 * math.pi * k * _GOLDEN
    table = _from_lch(0.55 + 0.35 * (k * _R2[1] % 1), 0.11 + 0.08 * (k * _R2[0] % 1), hue)
    fixed = np.array([CROWD_COLOUR, STUFF_COLOUR, VOID_COLOUR], np.uint8)
    table = np.concatenate([fixed[:1], _spread(table, fixed)])
    table.flags.writeable = False
    return table


def class_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colours for up to PERIOD - 1 classes that have none of their own; a longer list begins with the shorter one."""
    return tuple((int(red), int(green), int(blue)) for red, green, blue in instance_table()[1 : count + 1])


@lru_cache(maxsize=8)
def panoptic_table(spec: LabelSpec) -> np.ndarray:
    """(num_classes + 1, PERIOD, 3) uint8 by class code and id: shades of a thing's colour, one colour for stuff."""
    table = np.repeat(class_table(spec)[:, None], PERIOD, axis=1)
    for thing in spec.thing_ids:
        table[thing + 1, 1:] = _spread(_shades(spec.colours[thing]), class_table(spec))
    table.flags.writeable = False
    return table


def table_column(instance_map: np.ndarray) -> np.ndarray:
    """Instance ids from 0 on to columns of a table: 0 stays 0, the others wrap around in 1..PERIOD - 1."""
    if not instance_map.size or instance_map.max() < PERIOD:
        return instance_map
    return np.where(instance_map > 0, (instance_map - 1) % (PERIOD - 1) + 1, 0)


def _shades(colour: tuple[int, int, int]) -> np.ndarray:
    """(PERIOD - 1, 3) uint8: hues within 50 degrees of the colour's, dark to light, strong or weaker, evenly mixed."""
    _, a, b = rgb_to_oklab(np.array(colour))
    k = np.arange(PERIOD - 1)
    hue = math.atan2(b, a) + math.radians(50) * (2 * (k * _R2[0] % 1) - 1)
    chroma = max(math.hypot(a, b) * 0.9, 0.13) * (0.75 + 0.25 * (k * _GOLDEN % 1))
    return _from_lch(0.38 + 0.46 * (k * _R2[1] % 1), chroma, hue)


def _spread(colours: np.ndarray, avoid: np.ndarray, *, first: int = 128, among: int = 512) -> np.ndarray:
    """The same colours with `first` of the first `among` in front: each the furthest from `avoid` and the 20 before it.

    Objects that meet in a picture have mostly come one soon after the other, so their ids are near each other.
    """
    lab, known = rgb_to_oklab(colours[:among]), rgb_to_oklab(avoid)
    to_known = np.linalg.norm(lab[:, None] - known, axis=-1).min(axis=1)
    to_chosen = np.full((20, len(lab)), np.inf)  # a row for each of the last 20
    order: list[int] = []
    for k in range(first):
        order.append(int(np.minimum(to_known, to_chosen.min(axis=0)).argmax()))
        to_chosen[k % 20] = np.linalg.norm(lab - lab[order[-1]], axis=-1)
        to_known[order[-1]] = -1  # taken
    return np.concatenate([colours[order], np.delete(colours, order, axis=0)])


def _from_lch(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    return oklab_to_rgb(np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1))


# Maps


def colour_classes(class_map: np.ndarray, spec: LabelSpec) -> np.ndarray:
    """Every pixel in the colour of its class, void black.

    Args:
        class_map: (H, W) integers.
        spec: label spec of the map.

    Returns:
        (H, W, 3) uint8.

    Raises:
        TypeError: a map that is no array of integers.
        ValueError: another shape, or a class id that is neither in the spec nor void.
    """
    _check_map("class_map", class_map)
    return _look_up(class_table(spec), spec.to_codes(class_map, class_map)[0])


def colour_instances(class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec) -> np.ndarray:
    """Every instance of a thing in a colour that depends on its id only; stuff dark grey, crowd light grey, void black.

    Args:
        class_map: (H, W) integers.
        instance_map: (H, W) integers, at least 0 on things.
        spec: label spec of the maps.

    Returns:
        (H, W, 3) uint8.

    Raises:
        TypeError: a map that is no array of integers.
        ValueError: other shapes, an unknown class id, or a negative instance id on a thing.
    """
    class_codes, columns = _codes(class_map, instance_map, spec)
    kinds = np.array([VOID_COLOUR, *(STUFF_COLOUR,) * spec.num_classes], np.uint8)
    kinds[[i + 1 for i in spec.thing_ids] or slice(0)] = CROWD_COLOUR
    table = np.concatenate([kinds, instance_table()[1:]])
    return _look_up(table, np.where(columns > 0, columns + spec.num_classes, class_codes))


def colour_panoptic(class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec) -> np.ndarray:
    """Stuff in the colour of its class, every instance of a thing in a shade around it that depends on the id only.

    Args, returns and errors are those of `colour_instances`; instance 0 (crowd) has the class colour itself.
    """
    class_codes, columns = _codes(class_map, instance_map, spec)
    table = panoptic_table(spec)
    return _look_up(table.reshape(-1, 3), class_codes * table.shape[1] + columns)


def _check_map(name: str, values: np.ndarray) -> None:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu":
        got = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise TypeError(f"{name}: expected an array of integers (H, W), got {got}")
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name}: expected shape (H, W), got {values.shape}")


def check_maps(class_map: np.ndarray, instance_map: np.ndarray) -> None:
    """Raises TypeError unless both are arrays of integers, ValueError unless they have one shape (H, W)."""
    _check_map("class_map", class_map)
    _check_map("instance_map", instance_map)
    if class_map.shape != instance_map.shape:
        raise ValueError(f"instance_map: expected the shape of class_map, {class_map.shape}, got {instance_map.shape}")


def _codes(class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec) -> tuple[np.ndarray, np.ndarray]:
    """Class codes and columns of the colour tables, int64."""
    check_maps(class_map, instance_map)
    class_codes, instance_codes = spec.to_codes(class_map, instance_map)
    if instance_codes.min() < 0:
        raise ValueError(f"instance_map: expected ids from 0 on, got {instance_codes.min()}")
    return class_codes, table_column(instance_codes)


def _look_up(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.take(table, index, axis=0)


# Strengths

_HEAT = np.array([[70, 15, 110], [190, 40, 90], [250, 120, 20], [255, 240, 90]], float)  # at 0, 1/3, 2/3, 1


def colour_heat(values: np.ndarray) -> np.ndarray:
    """Strengths as colours from dark violet over red and orange to bright yellow, lighter all the way.

    Args:
        values: (H, W) in [0, 1].

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: another shape, or values that are not in [0, 1].
    """
    if values.ndim != 2 or not values.size:
        raise ValueError(f"values: expected shape (H, W), got {values.shape}")
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # nor NaN
        raise ValueError(f"values: expected numbers in [0, 1], got {low:g}..{high:g}")
    places = np.linspace(0, 1, len(_HEAT))
    table = np.stack([np.interp(np.linspace(0, 1, 256), places, channel) for channel in _HEAT.T], axis=1)
    return np.rint(table).astype(np.uint8)[np.rint(255 * values).astype(np.uint8)]
