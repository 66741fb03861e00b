"""`python -m pix2seq_d plot RUN`: loss and metrics of a training run as one picture, drawn from its log.jsonl."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pix2seq_d.engine.runlog import read_log
from pix2seq_d.pictures import PICTURE_SUFFIXES, Point, draw_curve, grid, save_picture

logger = logging.getLogger(__name__)

# kind of record, what is drawn together, title, logarithmic
PANELS: tuple[tuple[str, tuple[str, ...], str, bool], ...] = (
    ("train", ("loss",), "loss", True),
    ("train", ("grad_norm",), "gradient norm before clipping", True),
    ("train", ("lr",), "learning rate", False),
    ("train", ("frames_per_s",), "frames per second", False),
    ("validation", ("miou", "pq", "pq_things", "pq_stuff"), "validation: frames", False),
    ("validation", ("stq", "aq", "iou", "vpq"), "validation: video", False),
)
SMOOTHED = ("loss", "grad_norm")
PARTS = 10  # of the run: the loss by t of the first and of the last one are drawn
SHOWN_AT_ONCE = 50  # a mean goes over so many parts of the run, else one would see noise alone


def add_plot_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m pix2seq_d plot`."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run folder, with log.jsonl")
    text = f"{', '.join(PICTURE_SUFFIXES)} (default: curves.png in RUN)"
    parser.add_argument("--output", type=Path, metavar="FILE", help=text)


def run_plot(arguments: argparse.Namespace) -> None:
    """Draws the curves of a run."""
    path = arguments.output or arguments.run_dir / "curves.png"
    save_picture(path, draw_run(arguments.run_dir))
    logger.info("%s", path)


def draw_run(run_dir: Path) -> np.ndarray:
    """The curves of a run, two panels a row; what the log does not hold is left out.

    Args:
        run_dir: run folder.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no log, or one without any number to draw.
    """
    path = run_dir / "log.jsonl"
    if not path.is_file():
        raise ValueError(f"{run_dir}: expected a run folder with log.jsonl, found none")
    records = {kind: read_log(run_dir, kind) for kind in ("train", "validation")}
    panels = []
    for kind, names, title, log_y in PANELS:
        series = {name: points for name in names if (points := _points(records[kind], name, log_y))}
        if series:
            drawn = _with_mean(series) if names[0] in SMOOTHED else series
            panels.append(draw_curve(drawn, title=title, x_label="step", y_label="", size=(340, 600), log_y=log_y))
    if by_t := _loss_by_t(records["train"]):
        options: dict[str, Any] = {"x_label": "t, 0 clean, 1 noise", "y_label": "", "size": (340, 600), "log_y": True}
        panels.append(draw_curve(by_t, title="loss by noise level", **options))
    if not panels:
        raise ValueError(f"{path}: expected records of training or validation, found none")
    return grid([panels[k : k + 2] for k in range(0, len(panels), 2)])


def _loss_by_t(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """(middle of a bin of t, mean over its records) at the start and the end of a run; {} where none can be drawn."""
    told = [r["loss_by_t"] for r in records if r.get("loss_by_t")]
    count = math.ceil(len(told) / PARTS)
    series = {}
    for name, part in (("first tenth of the run", told[:count]), ("last tenth", told[-count:])):
        known = [[v for v in values if v is not None] for values in zip(*part)]
        points = [((k + 0.5) / len(known), sum(v) / len(v) if v else math.nan) for k, v in enumerate(known)]
        if any(y > 0 for _, y in points):
            series[name] = points
    return series


def _points(records: Sequence[Mapping[str, Any]], name: str, log_y: bool) -> list[Point]:
    """(step, value) of every record; [] where no value can be drawn. A step without a finite value leaves a gap."""
    values = [(r["step"], r[name] if r.get(name) is not None else math.nan) for r in records if name in r]
    return values if any(math.isfinite(v) and (v > 0 or not log_y) for _, v in values) else []


def _with_mean(series: Mapping[str, list[Point]]) -> dict[str, list[Point]]:
    """Adds the mean of the last few values to the only curve of a panel, where there are enough."""
    (points,) = series.values()
    count = math.ceil(len(points) / SHOWN_AT_ONCE)
    if count == 1:
        return dict(series)
    values = np.array([value for _, value in points], float)
    known = np.isfinite(values)
    sums = np.cumsum([np.where(known, values, 0), known], 1)  # of values, of their number
    sums[:, count:] -= sums[:, :-count].copy()
    means = np.divide(sums[0], sums[1], out=np.full(len(points), np.nan), where=sums[1] > 0)
    return {**series, f"mean of the last {count}": [(step, float(m)) for (step, _), m in zip(points, means)]}
