"""The results of an evaluation as aligned text (panopticapi's and deeplab2's columns), as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pix2seq_d.data.formats import write_bytes

Row = list[str]
Results = Mapping[str, Any]

_GROUPS = (("All", ""), ("Things", "_things"), ("Stuff", "_stuff"))
_SEQUENCE_COLUMNS = {  # title -> where `Evaluator.compute` has it
    "STQ": ("stq", "stq"),
    "AQ": ("stq", "aq"),
    "IoU": ("stq", "iou"),
    "VPQ": ("vpq", "vpq"),
    "PQ": ("pq", "pq"),
    "SQ": ("pq", "sq"),
    "RQ": ("pq", "rq"),
    "mIoU": ("miou", "miou"),
    "pixels": ("miou", "pixel_accuracy"),
}
_PQ_COLUMNS = ("pq", "sq", "rq", "tp", "fp", "fn")


def format_table(result: Results, *, per_class: bool = False, per_sequence: Mapping[str, Results] | None = None) -> str:
    """The result of `Evaluator.compute` as text, in percent.

    Args:
        result: that dict, or what was read back from its JSON.
        per_class: adds a row per class.
        per_sequence: the results of single sequences, for a row each; None leaves them out.
    """
    blocks = [make(result[name]) for name, make in _BLOCKS.items() if name in result]
    if per_class:
        blocks.append(align(_in_percent(class_rows(result), by_count=("TP", "FP", "FN"))))
    if per_sequence is not None:
        blocks.append(align(_in_percent(sequence_rows(result, per_sequence), by_count=("frames",))))
    return "\n\n".join(blocks) + "\n"


def class_rows(result: Results) -> list[list[Any]]:
    """A header, and a row for every class: scores as fractions, None where the class does not occur."""
    pq, ious = (result.get(name, {}).get("per_class") for name in ("pq", "miou"))
    rows: list[list[Any]] = [
        ["Class", *(["PQ", "SQ", "RQ", "TP", "FP", "FN"] if pq else []), *(["IoU"] if ious else [])]
    ]
    for name in pq or ious or ():
        row = [name]
        if pq:
            row += [pq[name][key] if pq[name]["valid"] or key in ("tp", "fp", "fn") else None for key in _PQ_COLUMNS]
        if ious:
            row.append(ious[name]["iou"] if ious[name]["valid"] else None)
        rows.append(row)
    return rows


def sequence_rows(result: Results, per_sequence: Mapping[str, Results]) -> list[list[Any]]:
    """A header, a row for every sequence and one for all of them: scores as fractions, and the number of frames.

    None stands where there is nothing to score: no track (AQ, STQ), or no class or window with a segment (the others).
    """
    columns = {title: place for title, place in _SEQUENCE_COLUMNS.items() if place[0] in result}
    named = [*per_sequence.items(), ("All", result)]
    rows = [[name, *(_score(r, *place) for place in columns.values()), r["num_frames"]] for name, r in named]
    return [["Sequence", *columns, "frames"], *rows]


def _score(result: Results, metric: str, key: str) -> float | None:
    scores = result[metric]
    if key in ("stq", "aq"):
        known = scores["num_tracks"]
    elif metric == "vpq":
        known = any(window["n"] for window in scores["per_window"].values())
    else:
        known = scores.get("n", True)
    return scores[key] if known else None


def write_json(path: str | os.PathLike[str], result: Results) -> None:
    """Writes a result in one piece; raises ValueError naming the file if it holds NaN or infinity."""
    try:
        text = json.dumps(result, indent=2, allow_nan=False)
    except ValueError:
        raise ValueError(f"{path}: expected finite numbers only, got NaN or infinity") from None
    write_bytes(path, (text + "\n").encode())


def write_csv(path: str | os.PathLike[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes rows in one piece; numbers in full precision, None as an empty cell."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_bytes(path, text.getvalue().encode())


def write_csv_tables(folder: str | os.PathLike[str], result: Results, per_sequence: Mapping[str, Results]) -> None:
    """Writes classes.csv and sequences.csv, whose last row is the whole; missing folders are made."""
    write_csv(Path(folder) / "classes.csv", class_rows(result))
    write_csv(Path(folder) / "sequences.csv", sequence_rows(result, per_sequence))


# Blocks of text


def _pq_table(pq: Results) -> str:
    rows = [
        [name, *(percent(pq[key + suffix]) for key in ("pq", "sq", "rq")), str(pq[f"n{suffix}"])]
        for name, suffix in _GROUPS
    ]
    return align([["Panoptic", "PQ", "SQ", "RQ", "N"], *rows])


def _vpq_table(vpq: Results) -> str:
    windows = vpq["per_window"]
    rows = [
        [
            name,
            *(percent(w[f"pq{suffix}"]) if w["num_windows"] else "-" for w in windows.values()),
            percent(vpq[f"vpq{suffix}"]),
        ]
        for name, suffix in _GROUPS
    ]
    return align([["VPQ", *(f"k={k}" for k in windows), "mean"], *rows])


def _stq_table(stq: Results) -> str:
    scores = [percent(stq[key]) for key in ("stq", "aq", "iou")]
    return align(
        [
            ["Tracking", "STQ", "AQ", "IoU", "tracks", "frames"],
            ["All", *scores, str(stq["num_tracks"]), str(stq["num_frames"])],
        ]
    )


def _miou_table(miou: Results) -> str:
    row = ["All", percent(miou["miou"]), percent(miou["pixel_accuracy"]), str(miou["n"])]
    return align([["Semantic", "mIoU", "pixels", "N"], row])


_BLOCKS = {"pq": _pq_table, "vpq": _vpq_table, "stq": _stq_table, "miou": _miou_table}


def percent(fraction: float | None) -> str:
    """A fraction in percent with two digits, "-" for None."""
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def _in_percent(rows: list[list[Any]], *, by_count: Sequence[str]) -> list[Row]:
    header, *others = rows
    return [
        header,
        *([row[0], *(str(v) if t in by_count else percent(v) for t, v in zip(header[1:], row[1:]))] for row in others),
    ]


def align(rows: Sequence[Row]) -> str:
    """The first row is the header; the first column stands left, the others right."""
    first, *others = (max(len(cell) for cell in column) for column in zip(*rows))
    lines = [row[0].ljust(first) + "".join(c.rjust(w + 2) for c, w in zip(row[1:], others)) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
