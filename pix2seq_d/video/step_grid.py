"""Step grids on disk: a JSON object whose `knots` are those of `time_grid`, with what they were made from beside."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pix2seq_d.data.formats import DataError, as_one_line, write_bytes
from pix2seq_d.diffusion.schedule import check_knots


def write_step_grid(path: str | os.PathLike[str], knots: Sequence[float], about: Mapping[str, Any]) -> None:
    """Writes a step grid.

    Args:
        path: of the JSON file.
        knots: times falling from 1 to 0.
        about: JSON-able, how they were made: for people, never read.

    Raises:
        ValueError: other knots.
        OSError: the file cannot be written.
    """
    text = json.dumps({"knots": check_knots(knots), "about": dict(about)}, indent=2)
    write_bytes(path, f"{text}\n".encode())


def read_step_grid(path: str | os.PathLike[str]) -> tuple[float, ...]:
    """The knots of a step grid.

    Raises:
        DataError: no JSON object with a list `knots` of numbers that fall from 1 to 0.
        OSError: the file cannot be read.
    """
    try:
        values = json.loads(Path(path).read_bytes())
    except ValueError as error:  # no JSON, no UTF-8
        raise DataError(f"{path}: expected a step grid in JSON, got {as_one_line(str(error))}") from None
    knots = values.get("knots") if isinstance(values, dict) else None
    if not isinstance(knots, list) or not all(type(t) in (int, float) for t in knots):
        found = f"knots {json.dumps(knots)}" if isinstance(values, dict) else type(values).__name__
        raise DataError(f'{path}: expected {{"knots": [1, ..., 0]}}, got {as_one_line(found)}')
    try:
        return check_knots(knots)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
