"""evaluate.py and `python -m pix2seq_d evaluate`: arguments, the two maps of every frame, scores, and where they go."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from pix2seq_d.data.labels_json import read_labels_json
from pix2seq_d.engine.benchmarks import BENCHMARKS, BenchmarkPairs
from pix2seq_d.engine.evaluate import METRICS
from pix2seq_d.engine.pairs import FolderPairs, Pairs
from pix2seq_d.engine.report import write_report
from pix2seq_d.engine.scoring import Scoring, score_on_all_ranks
from pix2seq_d.engine.tables import format_table, write_csv_tables, write_json
from pix2seq_d.labels import LABEL_SPECS, LabelSpec

logger = logging.getLogger(__name__)


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of evaluate.py."""
    add = parser.add_argument
    add("--predictions", type=Path, required=True, metavar="DIR", help="maps of inference.py, or what export has made")
    text = "root of the dataset as its authors ship it; without --format maps {sequence}/{frame}.png"
    add("--ground_truth", type=Path, required=True, metavar="DIR", help=text)
    text = f"dataset of the ground truth: {', '.join(BENCHMARKS)} (default: none, maps on both sides)"
    add("--format", choices=tuple(BENCHMARKS), metavar="NAME", help=text)
    add("--split", metavar="NAME", help="of the dataset, with --format (default: val)")
    names = ", ".join(LABEL_SPECS)
    text = "classes of the predictions, mapped by name (default: those of --format); without --format of both sides"
    add("--label_spec", metavar="NAME", help=f"{text} (default: kitti-step): {names}, or a labels.json")
    text = f"of {', '.join(METRICS)} (default: all that the data has; of still images pq and miou)"
    add("--metrics", choices=METRICS, nargs="+", metavar="NAME", help=text)
    add("--windows", type=int, nargs="+", default=[1, 2, 3, 4], metavar="K", help="VPQ windows (default: 1 2 3 4)")
    text = "processes; 0 = this one (default: one for each core, where there are enough frames)"
    add("--num_workers", type=int, metavar="N", help=text)
    add("--per_class", action="store_true", help="add the table of classes")
    add("--per_sequence", action="store_true", help="add the table of sequences, also to the JSON")
    add("--output", type=Path, metavar="FILE", help="write all numbers as JSON")
    add("--csv", type=Path, metavar="DIR", help="write classes.csv and sequences.csv")
    text = "write report.html: what goes wrong where, with pictures of the worst frames, and tables of it"
    add("--report", type=Path, metavar="DIR", help=text)


def run_evaluation(arguments: argparse.Namespace) -> None:
    """Scores a folder as the arguments say."""
    if arguments.num_workers is not None and arguments.num_workers < 0:
        raise ValueError(f"--num_workers: expected at least 0, got {arguments.num_workers}")
    outcome = score_on_all_ranks(partial(_prepare, arguments), num_workers=arguments.num_workers)
    if outcome is None:  # the first rank says it
        return
    pairs, scores = outcome
    if isinstance(pairs, BenchmarkPairs):
        for note in pairs.notes():
            logger.info(note)
    result = scores.evaluator.compute()
    rows = scores.per_sequence if arguments.per_sequence else None
    sys.stdout.write(format_table(result, per_class=arguments.per_class, per_sequence=rows) + "\n")
    named = {**({"format": arguments.format} if arguments.format else {}), **result}
    if arguments.output:
        write_json(arguments.output, named if rows is None else {**named, "per_sequence": rows})
        logger.info("all numbers: %s", arguments.output)
    if arguments.csv:
        write_csv_tables(arguments.csv, result, scores.per_sequence)
        logger.info("classes.csv and sequences.csv: %s", arguments.csv)
    if arguments.report:
        path = write_report(arguments.report, pairs, scores, title=arguments.format or result["spec"])
        logger.info("what goes wrong where: %s", path)


def find_label_spec(name: str) -> LabelSpec:
    """The spec of that name, or of a labels.json; raises ValueError for neither."""
    if name in LABEL_SPECS:
        return LABEL_SPECS[name]
    if Path(name).suffix != ".json":
        raise ValueError(f"--label_spec: expected one of {', '.join(LABEL_SPECS)}, or a labels.json, got {name!r}")
    return read_labels_json(name)


def _prepare(arguments: argparse.Namespace) -> tuple[Pairs, Scoring]:
    """The frames with their two maps, and what is computed of them."""
    scoring = Scoring(
        metrics=tuple(arguments.metrics) if arguments.metrics else None,
        windows=tuple(arguments.windows),
        per_sequence=bool(arguments.per_sequence or arguments.csv or arguments.report),
        sequence_classes=bool(arguments.per_sequence and arguments.output),  # nothing else shows them
        failures=arguments.report is not None,
    )
    if arguments.format is None:
        return _folder_pairs(arguments), scoring
    pairs = _benchmark_pairs(arguments)
    if wrong := [m for m in scoring.metrics or () if m not in pairs.metrics]:
        known = ", ".join(pairs.metrics)
        raise ValueError(f"--metrics: expected some of {known}, which is what {arguments.format} has, got {wrong[0]}")
    return pairs, replace(scoring, metrics=scoring.metrics or pairs.metrics, options=pairs.options)


def _folder_pairs(arguments: argparse.Namespace) -> FolderPairs:
    if arguments.split is not None:
        raise ValueError(
            f"--split: expected --format with it, which says how splits are laid out, got {arguments.split}"
        )
    name = arguments.label_spec or "kitti-step"
    own_maps = name not in LABEL_SPECS
    return FolderPairs(arguments.predictions, arguments.ground_truth, find_label_spec(name), own_maps=own_maps)


def _benchmark_pairs(arguments: argparse.Namespace) -> BenchmarkPairs:
    from pix2seq_d.build import READERS  # every reader, and what the trainer needs

    if not arguments.ground_truth.is_dir():
        raise ValueError(
            f"--ground_truth: expected the root of {arguments.format}, {arguments.ground_truth} is no folder"
        )
    source = find_label_spec(arguments.label_spec) if arguments.label_spec else None
    dataset = READERS[arguments.format](arguments.ground_truth, arguments.split or "val")
    return BenchmarkPairs(arguments.format, arguments.predictions, dataset, source=source)
