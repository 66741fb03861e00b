"""A folder of results as one HTML file that needs nothing else: frames, maps, segments, scores and settings.

The page is written frame by frame, so that memory does not grow with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pix2seq_d.data.formats import DataError, read_kitti_step
from pix2seq_d.data.sources import FrameSource, SourceFrame
from pix2seq_d.labels import LabelSpec
from pix2seq_d.pictures import replacing
from pix2seq_d.report.frame_layers import (
    HEAT_LAYERS,
    MAP_LAYERS,
    HeatLayer,
    frame_uri,
    heat_uri,
    hex_colour,
    map_uris,
    segment_rows,
    small_size,
)
from pix2seq_d.report.page import data_block, page_foot, page_head, score_tables
from pix2seq_d.result_files import DEFAULT_FPS, read_segments
from pix2seq_d.run_record import RunRecord

REPORT = "report.html"


class Chosen(NamedTuple):
    """What a report shows of a sequence: every `stride`-th of its frames that have a map."""

    source: FrameSource
    names: list[str]
    stride: int
    total: int


def write_report(
    output_folder: str | os.PathLike[str],
    sources: Sequence[FrameSource],
    *,
    path: str | os.PathLike[str] | None = None,
    label_spec: LabelSpec | None = None,
    scores: str | os.PathLike[str] | None = None,
    max_frames: int = 120,
    max_side: int = 640,
) -> Path:
    """Writes the report of a folder that `predict_sources` has written; stills are shown one by one, not played.

    Args:
        output_folder: holds panoptic/ and inference.json; further layers are taken where they are there.
        sources: the frames that were predicted.
        path: of the page; None takes report.html in the folder.
        label_spec: of the maps; None takes that of inference.json.
        scores: the JSON that evaluate.py has written, None for no scores.
        max_frames: of all sequences together; of a longer sequence every second, third, ... frame is shown.
        max_side: longer sides of frames and maps are scaled down to it.

    Returns:
        The path of the page.

    Raises:
        DataError: no frame with a map, a broken or ill-sized frame or map, or scores that cannot be read.
        ValueError: an argument out of range, no readable inference.json, or none that names the classes.
        OSError: the page cannot be written; an older one is left as it is.
    """
    for name, value, least in (("max_frames", max_frames, 1), ("max_side", max_side, 32)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    output = Path(output_folder)
    target = output / REPORT if path is None else Path(path)
    record = RunRecord.read(output)
    spec = label_spec or record.label_spec
    if spec is None:
        raise ValueError(f"{output}: expected the classes in inference.json, found none; name them with label_spec")
    chosen, notes = _choose(output, sources, max_frames)
    heats = [layer for layer in HEAT_LAYERS if _holds_files(output / layer.folder)]
    tables = [] if scores is None else score_tables(_read_scores(Path(scores)))
    title = f"pix2seq_d: {Path(os.path.abspath(output)).name}"
    seen: set[int] = set()
    with replacing(target) as partial, open(partial, "w", encoding="utf-8", newline="\n") as page:
        page.write(page_head(title))
        for index, sequence in enumerate(chosen):
            for values in _frames(output, index, sequence, spec, heats, max_side):
                seen |= {row[1] for row in values["segments"]}
                page.write(data_block("frame-data", values))
        page.write(
            data_block(
                "run-data",
                {
                    "layers": [*MAP_LAYERS.items(), *((layer.key, layer.label) for layer in heats)],
                    "sequences": [_describe(sequence, "images" if record.stills else "frames") for sequence in chosen],
                    "classes": _classes(spec, seen),
                    "tables": tables,
                    "settings": [[k, _readable(v)] for k, v in record.settings.items()],
                    "agreement": _holds_files(output / "segments"),
                    "stills": record.stills,
                    "notes": notes,
                },
            )
        )
        page.write(page_foot())
    return target


def _choose(output: Path, sources: Sequence[FrameSource], max_frames: int) -> tuple[list[Chosen], list[str]]:
    """Frames to show, evenly from all sequences, and what is left out in words."""
    found = []
    for source in sources:
        maps = output / "panoptic" / source.sequence_id
        if names := [name for name in source.names if (maps / f"{name}.png").is_file()]:
            found.append((source, names))
    if not found:
        raise DataError(f"{output}: expected maps of the input's frames in panoptic/, found none")
    notes = []
    if len(found) > max_frames:
        notes.append(f"The first {max_frames} of {len(found)} sequences are shown.")
        found = found[:max_frames]
    share, chosen = max_frames // len(found), []
    for source, names in found:
        stride = -(-len(names) // share)
        chosen.append(Chosen(source, names[::stride], stride, len(source.names)))
    return chosen, notes


def _describe(sequence: Chosen, kind: str) -> dict[str, Any]:
    shown, total = len(sequence.names), sequence.total
    note = f"{shown} of {total} {kind}" if shown < total else f"{total} {kind}"
    if sequence.stride > 1:
        note += f", every {_ordinal(sequence.stride)} one"
    fps = (sequence.source.fps or DEFAULT_FPS) / sequence.stride
    return {"id": sequence.source.sequence_id, "fps": round(fps, 4), "note": note, "count": shown}


def _frames(
    output: Path, index: int, sequence: Chosen, spec: LabelSpec, heats: Sequence[HeatLayer], max_side: int
) -> Iterator[dict[str, Any]]:
    for frame in sequence.source.read(set(sequence.names)):
        if frame.image is None:
            raise DataError(frame.error)
        yield {"sequence": index, "name": frame.name, **_frame(output, sequence, frame, spec, heats, max_side)}


def _frame(
    output: Path, sequence: Chosen, frame: SourceFrame, spec: LabelSpec, heats: Sequence[HeatLayer], max_side: int
) -> dict[str, Any]:
    assert frame.image is not None
    file = f"{sequence.source.sequence_id}/{frame.name}.png"
    class_map, instance_map = read_kitti_step(output / "panoptic" / file)
    size = (class_map.shape[0], class_map.shape[1])
    if frame.image.shape[:2] != size:
        found = "x".join(map(str, frame.image.shape[:2]))
        raise DataError(f"{frame.where}: expected the size of its map, {size[0]}x{size[1]}, found {found}")
    small = small_size(size, max_side)
    values = {layer.key: layer.read(output, file, size) for layer in heats}
    images = {"frame": frame_uri(frame.image, small), **map_uris(class_map, instance_map, spec, small)}
    for layer in heats:
        if (heat := values[layer.key]) is not None:
            images[layer.key] = heat_uri(heat, layer, small)
    agreement, told = None, output / "segments" / f"{sequence.source.sequence_id}/{frame.name}.json"
    if told.is_file():
        agreement = {(s["class_id"], s["instance_id"]): s["agreement"] for s in read_segments(told)}
    segments = segment_rows(class_map, instance_map, values.get("confidence"), spec, agreement=agreement)
    return {"size": size, "images": images, "segments": segments}


def _classes(spec: LabelSpec, seen: set[int]) -> dict[int, Any]:
    """Name, colour and kind of the classes that occur, by train id."""
    things = set(spec.thing_ids)
    return {i: [spec.class_names[i], hex_colour(spec.colours[i]), i in things] for i in sorted(seen)}


def _holds_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _readable(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_readable, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ordinal(number: int) -> str:
    special = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{special}"


def _read_scores(path: Path) -> Mapping[str, Any]:
    try:
        scores = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected the JSON of evaluate.py, got none that can be read ({error})") from None
    if not isinstance(scores, dict):
        raise DataError(f"{path}: expected the JSON of evaluate.py, got {type(scores).__name__}")
    return scores
