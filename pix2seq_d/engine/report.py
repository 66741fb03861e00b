"""One HTML page of what goes wrong where: scores, worst sequences, confused classes, id switches, worst frames.

The page needs no other file; the tables behind it are written beside it as CSV.
"""

from __future__ import annotations

import html
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seq_d.data.formats import write_bytes
from pix2seq_d.engine.failures import (
    OTHER_CLASS,
    OTHER_OBJECT,
    UNLABELLED,
    FrameScore,
    IdSwitch,
    SequenceFailures,
    error_map,
)
from pix2seq_d.engine.pairs import Frame, Maps, Pairs
from pix2seq_d.engine.scoring import Scores
from pix2seq_d.engine.tables import class_rows, format_table, percent, sequence_rows, write_csv, write_csv_tables
from pix2seq_d.labels import LabelSpec
from pix2seq_d.palette import colour_panoptic
from pix2seq_d.pictures import captioned, data_uri, grid, resize_picture
from pix2seq_d.visualize import legend

MAX_ROWS = 20  # of the tables of the page; the CSV files hold all
MAX_FRAMES_NAMED = 40  # id switches of a sequence
PANEL_WIDTH = 640
NEIGHBOURS = 10  # frames of a video nearer than this look alike: one picture is enough

_ERROR_COLOURS = {OTHER_CLASS: (214, 39, 40), OTHER_OBJECT: (255, 166, 0), UNLABELLED: (0, 0, 0)}


def write_report(
    folder: str | os.PathLike[str], pairs: Pairs, scores: Scores, *, title: str, num_pictures: int = 12
) -> Path:
    """Writes report.html, sequences.csv, classes.csv, confusion.csv, frames.csv and, of videos, id_switches.csv.

    Args:
        folder: made if missing; older files of these names are replaced.
        pairs: the frames that were scored; the worst are read once more, one after the other.
        scores: with `per_sequence` and `failures`.
        title: what was evaluated.
        num_pictures: at most so many of the worst frames are shown.

    Returns:
        The page.

    Raises:
        ValueError: scores without failures.
        OSError: a file cannot be written.
    """
    if scores.failures.keys() != set(pairs.sequences) or scores.per_sequence.keys() != set(pairs.sequences):
        raise ValueError("scores: expected those of all sequences, each alone and with its failures, got others")
    folder, result, failures = Path(folder), scores.evaluator.compute(), scores.failures
    confusion = np.sum([f.confusion for f in failures.values()], axis=0)
    is_video = not {"stq", "vpq"}.isdisjoint(result)
    write_csv_tables(folder, result, scores.per_sequence)
    _write_failures(folder, failures, confusion, pairs.spec, is_video=is_video)
    sections = [
        _section("Scores", f"<pre>{html.escape(format_table(result))}</pre>"),
        _worst_sequences(sequence_rows(result, scores.per_sequence)),
        _classes(class_rows(result)),
        _confused_classes(confusion, pairs.spec),
        *([_id_switches(failures, pairs.spec)] if is_video else []),
        _pictures(pairs, worst_frames(failures, num_pictures)),
    ]
    heading = f"Evaluation of {result['num_frames']} frames in {len(failures)} sequences: {title}"
    write_bytes(folder / "report.html", _page(heading, sections).encode())
    return folder / "report.html"


def worst_frames(failures: dict[str, SequenceFailures], count: int) -> list[tuple[str, FrameScore]]:
    """The frames of lowest PQ (then of the fewest right pixels) with their sequences, neighbours of them left out.

    Frames without a mistake are never among them.
    """
    ranked = sorted(
        ((sequence_id, f) for sequence_id, s in failures.items() for f in s.frames if f.pq < 1 or f.accuracy < 1),
        key=lambda entry: (entry[1].pq, entry[1].accuracy),
    )
    chosen: list[tuple[str, FrameScore]] = []
    for sequence_id, frame in ranked:
        if len(chosen) == count:
            break
        if all(s != sequence_id or abs(f.place - frame.place) >= NEIGHBOURS for s, f in chosen):
            chosen.append((sequence_id, frame))
    return chosen


# Tables beside the page


def _write_failures(
    folder: Path, failures: dict[str, SequenceFailures], confusion: np.ndarray, spec: LabelSpec, *, is_video: bool
) -> None:
    names = [*spec.class_names, "void"]
    write_csv(
        folder / "confusion.csv",
        [["target \\ predicted", *names], *([name, *row] for name, row in zip(names, confusion.tolist()))],
    )
    frames = [[key, f.frame, f.pq, f.accuracy] for key, s in failures.items() for f in s.frames]
    write_csv(folder / "frames.csv", [["sequence", "frame", "PQ", "pixels"], *frames])
    if is_video:
        header = ["sequence", "frame", "class", "target id", "id before", "id after"]
        rows = [[key, *_switch_row(switch, spec)] for key, s in failures.items() for switch in s.switches]
        write_csv(folder / "id_switches.csv", [header, *rows])


def _switch_row(switch: IdSwitch, spec: LabelSpec) -> list[Any]:
    return [switch.frame, spec.class_names[switch.class_id], switch.target_id, switch.before, switch.after]


# Sections of the page


def _worst_sequences(rows: list[list[Any]]) -> str:
    header, *others = rows
    score = next(t for t in ("STQ", "PQ", "VPQ", "mIoU") if t in header)
    place = header.index(score)
    ranked = sorted(others[:-1], key=lambda row: (row[place] is None, row[place]))[:MAX_ROWS]
    cells = [[row[0], *map(percent, row[1:-1]), str(row[-1])] for row in ranked]
    note = f"By {score}, in percent; the worst {len(ranked)} of {len(others) - 1}, all in sequences.csv."
    return _section("Worst sequences", _note(note), _table(header, cells))


def _classes(rows: list[list[Any]]) -> str:
    header, *others = rows
    counts = {header.index(t) for t in ("TP", "FP", "FN") if t in header}
    cells = [
        [row[0], *(str(v) if k in counts else percent(v) for k, v in enumerate(row[1:], 1))]
        for row in others
        if any(v is not None for k, v in enumerate(row[1:], 1) if k not in counts)
    ]
    note = (
        "In percent; FP are predicted segments without a match, FN missed ones. Classes that do not occur are left out."
    )
    return _section("Classes", _note(note), _table(header, cells))


def _confused_classes(confusion: np.ndarray, spec: LabelSpec) -> str:
    names = [*spec.class_names, "void"]
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    wrong[-1] = 0  # where nothing is labelled nothing is wrong
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_ROWS]
    rows = []
    for target, pred in zip(*(index.tolist() for index in np.unravel_index(order, wrong.shape))):
        if pixels := int(wrong[target, pred]):
            shares = pixels / int(confusion[target].sum()), pixels / int(wrong.sum())
            rows.append([names[target], names[pred], str(pixels), *map(percent, shares)])
    header = ["Class", "taken for", "pixels", "% of the class", "% of all errors"]
    body = _table(header, rows, left=2) if rows else _note("None.")
    return _section("Most confused classes", _note("The whole matrix is in confusion.csv."), body)


def _id_switches(failures: dict[str, SequenceFailures], spec: LabelSpec) -> str:
    note = (
        "A labelled object matches a predicted one of its class where the IoU of their masks in the frame is above "
        "0.5. A match is a switch where the object's last match, however long ago, had another id. All of them, with "
        "their ids, are in id_switches.csv."
    )
    rows = []
    for sequence_id, failed in sorted(failures.items(), key=lambda entry: -len(entry[1].switches)):
        named = [
            f"{s.frame.rpartition('/')[2]} ({spec.class_names[s.class_id]} {s.target_id})" for s in failed.switches
        ]
        more = f", and {len(named) - MAX_FRAMES_NAMED} more" if len(named) > MAX_FRAMES_NAMED else ""
        rows.append([sequence_id, str(len(named)), ", ".join(named[:MAX_FRAMES_NAMED]) + more])
    return _section("Id switches", _note(note), _table(["Sequence", "switches", "frames"], rows[:MAX_ROWS], right=(1,)))


def _pictures(pairs: Pairs, chosen: Sequence[tuple[str, FrameScore]]) -> str:
    if not chosen:
        return _section("Worst frames", _note("No frame has a mistake."))
    shown, figures = set(), []
    for sequence_id, score in chosen:
        frame = pairs.sequences[sequence_id][score.place]
        prediction, target = pairs.read(frame)
        shown |= set(np.unique(prediction[0]).tolist()) | set(np.unique(target[0]).tolist())
        picture = frame_picture(_image(pairs, frame, target[0].shape), prediction, target, pairs.spec)
        caption = f"{score.frame}: PQ {percent(score.pq)}, right pixels {percent(score.accuracy)}"
        figures.append(f"<figure><figcaption>{html.escape(caption)}</figcaption>{_embed(picture)}</figure>")
    swatches = (("red", OTHER_CLASS), ("orange", OTHER_OBJECT), ("black", UNLABELLED))
    meaning = {
        OTHER_CLASS: "another class",
        OTHER_OBJECT: "the right class, but no match of the object (merged, split or in part)",
        UNLABELLED: "not labelled",
    }
    note = "Errors: " + "; ".join(f"{colour}, {meaning[code]}" for colour, code in swatches)
    apart = f". Of a video, frames at least {NEIGHBOURS} apart; the scores of all frames are in frames.csv."
    key = _embed(legend(pairs.spec, sorted(shown), width=2 * PANEL_WIDTH))
    return _section("Worst frames", _note(note + apart), *figures, f"<figure>{key}</figure>")


# Pictures


def frame_picture(image: np.ndarray | None, prediction: Maps, target: Maps, spec: LabelSpec) -> np.ndarray:
    """Image, ground truth, prediction and errors of a frame in one picture.

    Args:
        image: (H, W, 3) uint8; None leaves it out.
        prediction: (H, W) class map and instance map.
        target: the same.
        spec: the classes.

    Returns:
        (height, width, 3) uint8, no wider than two panels of PANEL_WIDTH pixels.
    """
    errors = error_map(prediction, target, spec)
    panels = {
        "ground truth": colour_panoptic(target[0], _ids(target), spec),
        "prediction": colour_panoptic(prediction[0], _ids(prediction), spec),
        "errors": _draw_errors(image, errors),
    }
    cells = [] if image is None else [captioned(_fit(image, smooth=True), "image")]
    cells += [captioned(_fit(panel, smooth=False), name) for name, panel in panels.items()]
    return grid([cells[k : k + 2] for k in range(0, len(cells), 2)])


def _draw_errors(image: np.ndarray | None, errors: np.ndarray) -> np.ndarray:
    """Errors in their colours on the image in faint grey."""
    grey = np.full(errors.shape, 200.0) if image is None else 128 + image.mean(axis=2) * 0.45
    picture = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    for code, colour in _ERROR_COLOURS.items():
        picture[errors == code] = colour
    return picture


def _ids(maps: Maps) -> np.ndarray:
    return np.zeros(maps[0].shape, np.int32) if maps[1] is None else maps[1]


def _image(pairs: Pairs, frame: Frame, shape: tuple[int, ...]) -> np.ndarray | None:
    image = pairs.read_image(frame)
    return None if image is None or image.shape[:2] != shape else image


def _fit(picture: np.ndarray, *, smooth: bool) -> np.ndarray:
    """The picture PANEL_WIDTH wide, or enlarged by the largest whole factor that keeps below it."""
    height, width = picture.shape[:2]
    if width <= PANEL_WIDTH:
        factor = PANEL_WIDTH // width
        return resize_picture(picture, (factor * height, factor * width), smooth=smooth)
    return resize_picture(picture, (max(1, round(height * PANEL_WIDTH / width)), PANEL_WIDTH), smooth=smooth)


# HTML

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1340px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.5em 0}"
    "th,td{padding:.15em .8em;text-align:right;border-bottom:1px solid #ddd;vertical-align:top}"
    "th{border-bottom:2px solid #888}.l{text-align:left}pre{background:#f6f6f6;padding:1em;overflow-x:auto}"
    "figure{margin:1.5em 0}figcaption{font-weight:600;margin-bottom:.3em}img{max-width:100%;border:1px solid #ddd}"
    "p.note{color:#555;max-width:70em}"
)


def _page(heading: str, sections: Iterable[str]) -> str:
    title = html.escape(heading)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    body = "\n".join([f"<h1>{title}</h1>", *sections])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _section(heading: str, *parts: str) -> str:
    return "\n".join([f"<h2>{html.escape(heading)}</h2>", *parts])


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, right: tuple[int, ...] | None = None
) -> str:
    """The first `left` columns stand left, the others right; or all left but those of `right`."""
    sides = [k < left if right is None else k not in right for k in range(len(header))]

    def line(cells: Sequence[str], tag: str) -> str:
        text = (f"<{tag}{' class=l' if s else ''}>{html.escape(c)}</{tag}>" for s, c in zip(sides, cells))
        return f"<tr>{''.join(text)}</tr>"

    return "\n".join(["<table>", line(header, "th"), *(line(row, "td") for row in rows), "</table>"])


def _embed(picture: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=90, subsampling=0)
    return f'<img alt="" src="{data_uri("image/jpeg", data.getvalue())}">'
