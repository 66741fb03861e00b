"""Panoptic maps as pictures: colours, overlays, overviews, legends, the denoising process, and results as animations.

A picture is an (H, W, 3) uint8 RGB array. Maps are (H, W) integers of any dtype: train ids of a LabelSpec or its void
id, and instance ids, 0 = no instance. What the instance map holds outside of things is ignored.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pix2seq_d.animation import AnimationWriter, save_animation
from pix2seq_d.labels import LabelSpec
from pix2seq_d.palette import check_maps, colour_classes, colour_heat, colour_instances, colour_panoptic
from pix2seq_d.pictures import (
    Colour,
    captioned,
    check_picture,
    contact_sheet,
    grid,
    plot_curve,
    resize_picture,
    save_picture,
    text_picture,
    text_width,
)

__all__ = [
    "AnimationWriter",
    "colour_classes",
    "colour_heat",
    "colour_instances",
    "colour_panoptic",
    "contact_sheet",
    "denoising_strip",
    "draw_boundaries",
    "legend",
    "overlay",
    "overview",
    "pair_by_stem",
    "plot_curve",
    "save_animation",
    "save_picture",
    "uncertainty_overlay",
    "write_result_animations",
]

RESULT_PICTURES = ("frame", "panoptic", "semantic", "instance", "overlay")
MIN_PANEL_WIDTH = 640  # narrower panels of an overview are enlarged by a whole factor


# On the frame


def draw_boundaries(
    image: np.ndarray,
    class_map: np.ndarray,
    instance_map: np.ndarray,
    *,
    colour: Colour = (255, 255, 255),
    strength: float = 1.0,
) -> np.ndarray:
    """A copy of the picture with a line of one pixel wherever class or instance differ from the right or lower pixel.

    Args:
        image: (H, W, 3) uint8.
        class_map: (H, W) integers.
        instance_map: (H, W) integers, compared on stuff too.
        colour: of the line.
        strength: of the line, 0 (not to be seen) to 1 (its colour alone).

    Raises:
        TypeError: other dtypes.
        ValueError: other shapes, or strength out of range.
    """
    check_picture("image", image)
    check_maps(class_map, instance_map)
    _check_frame("image", image, class_map)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: expected 0..1, got {strength}")
    edge = np.zeros(class_map.shape, bool)
    for values in (class_map, instance_map):
        edge[:, :-1] |= values[:, 1:] != values[:, :-1]
        edge[:-1] |= values[1:] != values[:-1]
    drawn = image.copy()
    drawn[edge] = np.rint((1 - strength) * image[edge] + strength * np.array(colour)).astype(np.uint8)
    return drawn


def overlay(
    frame: np.ndarray, class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec, *, alpha: float = 0.5
) -> np.ndarray:
    """The panoptic colours laid over the frame; things are outlined in white, stuff faintly; void shows the frame.

    Args:
        frame: (H, W, 3) uint8.
        class_map: (H, W) integers.
        instance_map: (H, W) integers.
        spec: label spec of the maps.
        alpha: share of the colours, 0 (frame) to 1 (colours).

    Returns:
        (H, W, 3) uint8.

    Raises:
        TypeError: other dtypes.
        ValueError: other shapes, an unknown class id, a negative instance id on a thing, or alpha out of range.
    """
    check_picture("frame", frame)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected 0..1, got {alpha}")
    colours = colour_panoptic(class_map, instance_map, spec)
    _check_frame("frame", frame, class_map)
    share = np.where(class_map == spec.void_id, 0, round(256 * alpha)).astype(np.uint16)[..., None]
    blend = ((256 - share) * frame + share * colours + 128) >> 8
    is_thing = spec.is_thing(class_map)
    ids = np.where(is_thing, instance_map, 0)
    picture = draw_boundaries(blend.astype(np.uint8), class_map, ids, strength=0.35)
    return draw_boundaries(picture, np.where(is_thing, class_map.astype(np.int64), spec.void_id), ids)


def uncertainty_overlay(frame: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Heat over the frame in grey: the higher the value, the more of its colour is seen.

    Args:
        frame: (H, W, 3) uint8.
        values: (H, W) in [0, 1], such as those of Uncertainty; 0 shows the grey frame, 1 its colour alone.

    Returns:
        (H, W, 3) uint8.

    Raises:
        TypeError: a frame of another dtype.
        ValueError: other shapes, or values that are not in [0, 1].
    """
    check_picture("frame", frame)
    heat = colour_heat(values)
    _check_frame("frame", frame, values, of="values")
    share = np.sqrt(values, dtype=np.float32)[..., None]  # most values are small
    grey = (frame @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]  # luma of BT.601
    return np.rint((1 - share) * grey + share * heat).astype(np.uint8)


def _check_frame(name: str, picture: np.ndarray, values: np.ndarray, *, of: str = "class_map") -> None:
    if picture.shape[:2] != values.shape:
        raise ValueError(f"{name}: expected the size of {of}, {values.shape}, got {picture.shape[:2]}")


# Sheets


def overview(
    frame: np.ndarray,
    class_map: np.ndarray,
    instance_map: np.ndarray,
    spec: LabelSpec,
    *,
    target: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """One picture of a result: frame, panoptic, semantic and instance map, overlay, and the legend of its classes.

    Panels stand in two columns (three for frames that are not wide), each under its caption; those narrower than
    MIN_PANEL_WIDTH are enlarged by a whole factor, the frame bicubically, maps by repeating pixels.

    Args:
        frame: (H, W, 3) uint8.
        class_map: (H, W) integers.
        instance_map: (H, W) integers.
        spec: label spec of all maps.
        target: ground truth (class_map, instance_map) of the same size, shown beside the frame; None for none.

    Returns:
        (height, width, 3) uint8.

    Raises:
        TypeError: other dtypes.
        ValueError: other shapes, an unknown class id, or a negative instance id on a thing.
    """
    check_picture("frame", frame)
    maps = [(class_map, instance_map), *([target] if target is not None else [])]
    for classes, instances in maps:
        check_maps(classes, instances)
        _check_frame("frame", frame, classes)
    factor = max(1, math.ceil(MIN_PANEL_WIDTH / frame.shape[1]))
    frame = resize_picture(frame, (factor * frame.shape[0], factor * frame.shape[1])) if factor > 1 else frame
    maps = [(_enlarge(classes, factor), _enlarge(instances, factor)) for classes, instances in maps]
    classes, instances = maps[0]
    panels = {
        "frame": frame,
        "panoptic": colour_panoptic(classes, instances, spec),
        "semantic": colour_classes(classes, spec),
        "instances": colour_instances(classes, instances, spec),
        "overlay": overlay(frame, classes, instances, spec),
    }
    if target is not None:
        panels["ground truth"] = colour_panoptic(*maps[1], spec)
    return _arrange(panels, legend_ids=np.unique([ids for pair in maps for ids in np.unique(pair[0])]), spec=spec)


def _arrange(panels: dict[str, np.ndarray], *, legend_ids: np.ndarray, spec: LabelSpec) -> np.ndarray:
    height, width = panels["frame"].shape[:2]
    columns = 2 if width > 1.7 * height else 3
    size = max(14, width // 52)
    order = [key for key in ("frame", "overlay", "panoptic", "ground truth", "semantic", "instances") if key in panels]
    cells = [captioned(panels[key], key, size=size) for key in order]
    free = -len(cells) % columns
    if free:
        key = legend(spec, legend_ids.tolist(), width=width * free, size=size)
        cells.append(captioned(key, "classes", size=size))
    gap = max(6, size // 2)
    sheet = grid([cells[k : k + columns] for k in range(0, len(cells), columns)], gap=gap)
    if free:
        return sheet
    key = legend(spec, legend_ids.tolist(), width=sheet.shape[1] - 2 * gap, size=size)
    return np.concatenate([sheet, grid([[key]], gap=gap)])


def _enlarge(values: np.ndarray, factor: int) -> np.ndarray:
    return values.repeat(factor, axis=0).repeat(factor, axis=1)


def legend(spec: LabelSpec, class_ids: Iterable[int], *, width: int = 640, size: int = 16) -> np.ndarray:
    """Names of classes beside their colours; a thing shows its class colour and those of its first three instances.

    Args:
        spec: label spec.
        class_ids: train ids or the void id, in the order to be shown.
        width: of the picture in pixels; entries stand in as many columns as fit.
        size: height of the font in pixels.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: no id, or one that is neither a class of the spec nor void.
    """
    ids = list(class_ids)
    if not ids:
        raise ValueError("class_ids: expected at least one, got none")
    spec.check_class_ids(np.array(ids))
    names = ["void" if i == spec.void_id else spec.class_names[i] for i in ids]
    cell = min(width, max(text_width(name, size) for name in names) + 4 * size)
    columns = min(len(ids), width // cell)
    cells = [_legend_entry(spec, i, name, width=cell, size=size) for i, name in zip(ids, names)]
    rows = math.ceil(len(cells) / columns)  # filled column by column
    sheet = np.full((rows * cells[0].shape[0], width, 3), 255, np.uint8)
    for k, entry in enumerate(cells):
        top, left = k % rows * entry.shape[0], k // rows * cell
        sheet[top : top + entry.shape[0], left : left + cell] = entry
    return sheet


def _legend_entry(spec: LabelSpec, class_id: int, name: str, *, width: int, size: int) -> np.ndarray:
    entry = text_picture(name, size=size, width=max(width - 3 * size, 1))
    entry = np.pad(entry, ((0, 0), (width - entry.shape[1], 0), (0, 0)), constant_values=255)
    patch = np.full((1, 4), class_id)
    colours = colour_panoptic(patch, np.arange(4)[None], spec)  # instances 0-3, all alike for stuff
    swatch = resize_picture(colours, (size, 2 * size), smooth=False)
    top = (entry.shape[0] - size) // 2
    entry[top : top + size, : 2 * size] = swatch[:, :width]
    return entry


def denoising_strip(
    x0_class_maps: Sequence[np.ndarray],
    spec: LabelSpec,
    *,
    x0_instance_maps: Sequence[np.ndarray] | None = None,
    max_panels: int = 6,
    columns: int | None = None,
) -> np.ndarray:
    """The x0 estimates of the sampling steps side by side, captioned by their step.

    Args:
        x0_class_maps: (H, W) integers, one map a step, in the order of sampling.
        spec: label spec of the maps.
        x0_instance_maps: the steps' instance maps; None shows classes only.
        max_panels: of more steps, this many are shown, evenly spread with the first and the last; at least 2.
        columns: panels in a row, None for one row.

    Returns:
        (height, width, 3) uint8.

    Raises:
        TypeError: a map that is no array of integers.
        ValueError: no map, not one instance map a step, an argument out of range, or what `colour_panoptic` raises.
    """
    if not len(x0_class_maps):
        raise ValueError("x0_class_maps: expected at least one map, got none")
    if x0_instance_maps is not None and len(x0_instance_maps) != len(x0_class_maps):
        raise ValueError(f"x0_instance_maps: expected {len(x0_class_maps)}, one a step, got {len(x0_instance_maps)}")
    if max_panels < 2:
        raise ValueError(f"max_panels: expected at least 2, got {max_panels}")
    if columns is not None and columns < 1:
        raise ValueError(f"columns: expected at least 1, got {columns}")
    last = len(x0_class_maps) - 1
    panels = []
    for k in np.unique(np.linspace(0, last, min(max_panels, last + 1)).round().astype(int)).tolist():
        if x0_instance_maps is None:
            picture = colour_classes(x0_class_maps[k], spec)
        else:
            picture = colour_panoptic(x0_class_maps[k], x0_instance_maps[k], spec)
        panels.append(
            captioned(_enlarge(picture, max(1, math.ceil(200 / picture.shape[1]))), f"step {k + 1}/{last + 1}")
        )
    per_row = columns or len(panels)
    return grid([panels[k : k + per_row] for k in range(0, len(panels), per_row)])


# Results of a video


def pair_by_stem(frames: Iterable[Path], maps_folder: str | os.PathLike[str]) -> list[tuple[Path, Path]]:
    """Frames with the map `maps_folder/{stem of the frame}.png`, in the order of the frames; others are left out."""
    pairs = [(frame, Path(maps_folder) / f"{frame.stem}.png") for frame in frames]
    return [(frame, path) for frame, path in pairs if path.is_file()]


def write_result_animations(
    results: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    destination: str | os.PathLike[str],
    spec: LabelSpec,
    *,
    fps: float = 10,
    max_width: int = 640,
    suffix: str = ".gif",
) -> dict[str, Path]:
    """Writes the animations frame, panoptic, semantic, instance and overlay of one video; results are read once.

    Args:
        results: (frame, class_map, instance_map) of every frame in order, as `overlay` takes them; all of one size.
        destination: folder, made if missing.
        spec: label spec of the maps.
        fps: frames a second.
        max_width: wider results are scaled down to it, maps by picking pixels.
        suffix: .gif, .webp or .mp4.

    Returns:
        Path of every animation by its name.

    Raises:
        TypeError, ValueError, ImportError: as `overlay` and AnimationWriter; no file is written then.
    """
    if max_width < 1:
        raise ValueError(f"max_width: expected at least 1, got {max_width}")
    paths = {name: Path(destination) / f"{name}{suffix}" for name in RESULT_PICTURES}
    with ExitStack() as stack:
        writers = {name: stack.enter_context(AnimationWriter(path, fps=fps)) for name, path in paths.items()}
        for frame, class_map, instance_map in results:
            for name, picture in _result_pictures(frame, class_map, instance_map, spec, max_width).items():
                writers[name].add(picture)
    return paths


def _result_pictures(
    frame: np.ndarray, class_map: np.ndarray, instance_map: np.ndarray, spec: LabelSpec, max_width: int
) -> dict[str, np.ndarray]:
    check_picture("frame", frame)
    check_maps(class_map, instance_map)
    _check_frame("frame", frame, class_map)
    height, width = class_map.shape
    if width > max_width:
        height, width = max(1, round(height * max_width / width)), max_width
        rows = (np.arange(height) + 0.5) * class_map.shape[0] / height
        columns = (np.arange(width) + 0.5) * class_map.shape[1] / width
        nearest = np.ix_(rows.astype(int), columns.astype(int))
        class_map, instance_map = class_map[nearest], instance_map[nearest]
        frame = resize_picture(frame, (height, width))
    return {
        "frame": frame,
        "panoptic": colour_panoptic(class_map, instance_map, spec),
        "semantic": colour_classes(class_map, spec),
        "instance": colour_instances(class_map, instance_map, spec),
        "overlay": overlay(frame, class_map, instance_map, spec),
    }
