"""`python -m pix2seq_d report`: the page of a folder of results, made at any time after inference."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from pix2seq_d.data.sources import open_sources
from pix2seq_d.evaluation import find_label_spec
from pix2seq_d.report.write import write_report
from pix2seq_d.run_record import RunRecord

logger = logging.getLogger(__name__)


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m pix2seq_d report`."""
    add = parser.add_argument
    add("--predictions", type=Path, required=True, metavar="DIR", help="folder that inference.py has written")
    add("--input", nargs="+", metavar="PATH", help="its frames (default: those that inference.py was given)")
    add("--metrics", type=Path, metavar="FILE", help="scores that evaluate.py has written with --output")
    add("--label_spec", metavar="NAME", help="a label spec or a labels.json (default: that of the run)")
    add("--output", type=Path, metavar="FILE", help="the page (default: report.html in DIR)")
    add("--max_frames", type=int, default=120, metavar="N", help="of all videos together (default: 120)")
    add("--max_side", type=int, default=640, metavar="PIXELS", help="larger frames are scaled down (default: 640)")


def run_report(arguments: argparse.Namespace) -> None:
    """Writes the page as the arguments say."""
    inputs = arguments.input or RunRecord.read(arguments.predictions).settings.get("input")
    if not inputs:
        raise ValueError("--input: expected the frames of the run, inference.json does not name them")
    path = write_report(
        arguments.predictions,
        open_sources(inputs),
        path=arguments.output,
        label_spec=find_label_spec(arguments.label_spec) if arguments.label_spec else None,
        scores=arguments.metrics,
        max_frames=arguments.max_frames,
        max_side=arguments.max_side,
    )
    logger.info("%s: %.1f MB, needs nothing else; open it in a browser", path, path.stat().st_size / 1e6)
