"""Trackers (TensorBoard, Weights & Biases, ...) through Accelerate: what log.jsonl gets, pictures, tables, settings.

They are a convenience: the run folder holds everything, and a tracker that fails ends no training.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, get_available_trackers
from accelerate.utils import LoggerType

from pix2seq_d.engine.tables import percent

logger = logging.getLogger(__name__)

PROJECT = "pix2seq_d"


def choose_trackers(names: Sequence[str]) -> list[str | GeneralTracker]:
    """What Accelerate is to log with.

    Args:
        names: of trackers; "auto" = tensorboard where it is installed.

    Raises:
        ValueError: a name that Accelerate does not know, or a tracker that is not installed.
    """
    installed = {str(LoggerType(name)) for name in get_available_trackers()}
    known = [name for name in LoggerType.list() if name != "all"]
    for name in names:
        if name not in ("auto", *known):
            raise ValueError(f"train.trackers: expected names of auto, {', '.join(sorted(known))}, got {name!r}")
        if name not in ("auto", *installed):
            raise ValueError(f"train.trackers: {name} is not installed: pip install {name}, or leave it out")
    wanted = ["tensorboard" if name == "auto" else name for name in names]
    return [name for name in dict.fromkeys(wanted) if name in installed]


def start_trackers(accelerator: Accelerator, run_dir: Path, settings: Mapping[str, Any], *, start: int = 0) -> None:
    """Opens the accelerator's trackers and gives them the settings; call it on every process.

    Args:
        accelerator: made with `choose_trackers`.
        run_dir: whose name runs get where the tracker lets them have one.
        settings: sections of the configuration.
        start: steps done; of later ones TensorBoard shows what is tracked from now on.

    Raises:
        ValueError: one of them cannot be opened (no account, no server).
    """
    options: dict[str, Any] = {"wandb": {"name": run_dir.name}}
    if start:
        options["tensorboard"] = {"purge_step": start + 1}
    flat = {f"{section}.{key}": _plain(v) for section, values in settings.items() for key, v in values.items()}
    try:
        accelerator.init_trackers(PROJECT, config=flat, init_kwargs=options)
    except Exception as error:  # libraries, networks and servers of every kind
        raise ValueError(f"train.trackers: cannot be opened, leave out what fails: {error}") from error
    for tracker in accelerator.trackers if accelerator.is_main_process else ():
        takes = {"pictures": _takes_pictures(tracker), "tables": _takes_tables(tracker)}
        if missing := [kind for kind, taken in takes.items() if not taken]:
            logger.info("tracker %s takes no %s: see %s", tracker.name, " and no ".join(missing), run_dir / "samples")


def finish_trackers(accelerator: Accelerator) -> None:
    """Closes them; call it where a run is done or stopped by a signal, before `end_training`, which lets them fail."""
    _each(accelerator, lambda tracker: tracker.finish())
    accelerator.trackers.clear()


def track(accelerator: Accelerator, kind: str, step: int, values: Mapping[str, Any]) -> None:
    """Hands the numbers of a record of the log over as `kind/name`; those that are not finite are left out."""
    numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
    if numbers:
        _each(accelerator, lambda tracker: tracker.log(numbers, step=step))


def track_picture(accelerator: Accelerator, step: int, name: str, picture: np.ndarray) -> None:
    """Hands an (H, W, 3) uint8 picture over to the trackers that take any."""

    def show(tracker: GeneralTracker) -> None:
        if not _takes_pictures(tracker):
            return
        layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        value = picture if tracker.name == "aim" else picture[None]  # the others take several at a time
        tracker.log_images({name: value}, step=step, **layout)

    _each(accelerator, show)


def track_table(accelerator: Accelerator, step: int, name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Hands a table over to the trackers that take any, TensorBoard as text.

    Args:
        accelerator: with its trackers.
        step: steps done.
        name: of the table.
        rows: the header, then numbers, names and None where there is no value; fractions are percents in text.
    """

    def show(tracker: GeneralTracker) -> None:
        if hasattr(tracker, "log_table"):
            header, *data = map(list, rows)
            tracker.log_table(name, columns=header, data=data, step=step)
        elif _takes_tables(tracker):
            tracker.log({name: markdown(rows)}, step=step)

    _each(accelerator, show)


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown: the first column stands left, the others right; fractions in percent, "-" for None."""
    cells = [[_cell(value) for value in row] for row in rows]
    cells.insert(1, [":--", *["--:"] * (len(rows[0]) - 1)])
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, float):
        return percent(value)
    return str(value).replace("|", "\\|")


def _takes_pictures(tracker: GeneralTracker) -> bool:
    return hasattr(tracker, "log_images")


def _takes_tables(tracker: GeneralTracker) -> bool:
    return hasattr(tracker, "log_table") or tracker.name == "tensorboard"


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _each(accelerator: Accelerator, action: Callable[[Any], None]) -> None:
    """Calls `action` with every tracker; one that raises is not called again."""
    for tracker in list(accelerator.trackers):
        try:
            action(tracker)
        except Exception as error:  # libraries, networks and servers of every kind
            accelerator.trackers.remove(tracker)
            logger.warning("tracker %s failed and gets nothing more, log.jsonl goes on: %s", tracker.name, error)
