"""What the scripts and `python -m pix2seq_d` run: arguments, the work, and errors as one line."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from pix2seq_d.cli import parse_run_config
from pix2seq_d.data.check import check_videos, format_report
from pix2seq_d.data.download import DOWNLOADS, fetch_dataset
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.submission import SUBMISSION_FORMATS, export_predictions
from pix2seq_d.diffusion.samplers import SAMPLERS
from pix2seq_d.engine.checkpoint import MANIFEST, CheckpointError, find_model
from pix2seq_d.engine.health import TrainingFault
from pix2seq_d.engine.interrupts import Interrupted
from pix2seq_d.evaluation import find_label_spec
from pix2seq_d.models.pix2seq_d import WEIGHTS_NAME, Pix2SeqD
from pix2seq_d.pipeline import Pix2SeqDPipeline

logger = logging.getLogger(__name__)

EXPECTED_ERRORS = (ValueError, TypeError, OSError, CheckpointError, FloatingPointError, ImportError, TrainingFault)


def run_command(command: Callable[..., None], *arguments: object, **named: object) -> int:
    """Runs a command; an expected error becomes one line on stderr and exit code 1, Ctrl-C exit code 130.

    A training that SIGTERM or SIGINT has stopped after a checkpoint says so, and ends with exit code 143 or 130.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    for transport in ("httpx", "httpx2"):
        logging.getLogger(transport).setLevel(logging.WARNING)
    try:
        command(*arguments, **named)
    except EXPECTED_ERRORS as error:
        if logger.isEnabledFor(logging.DEBUG):
            raise
        print_error(error)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        return stop.exit_code
    return 0


def print_error(error: BaseException) -> None:
    """The last meaningful line of an error (a loader worker's carries its traceback), on stderr."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = re.sub(r"^[\w.]+: ", "", lines[-1]) if lines[0].startswith("Caught ") else " ".join(lines)
    sys.stderr.write(f"error: {line}\n")


# training


def run_train(*, program: str, about: str, preset: str, output_dir: str, arguments: list[str] | None = None) -> None:
    """Reads the configuration from the command line and trains."""
    config = parse_run_config(arguments, program=program, description=about, preset=preset, output_dir=output_dir)
    from pix2seq_d.launch import run_training  # the trainer is only needed here

    run_training(config)


# data


def add_download_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m pix2seq_d download`."""
    known = ", ".join(f"{name} ({source.terms}) to DIR/{source.folder}" for name, source in DOWNLOADS.items())
    parser.add_argument("dataset", choices=tuple(DOWNLOADS), metavar="DATASET", help=known)
    text = "folder that gets the dataset's own folder (default: data)"
    parser.add_argument("--root", type=Path, default=Path("data"), metavar="DIR", help=text)


def run_download(arguments: argparse.Namespace) -> None:
    """Puts a dataset of the Hub where the presets look for it."""
    folder = arguments.root / DOWNLOADS[arguments.dataset].folder
    fetched = fetch_dataset(arguments.dataset, folder)
    logger.info("%s: %s %s", arguments.dataset, "now in" if fetched else "already in", folder)


# looking at a dataset


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m pix2seq_d check`."""
    add = parser.add_argument
    add("--root", required=True, metavar="DIR", help="folder of the dataset, with labels.json")
    add("--dataset", default="folder", metavar="NAME", help="layout, as data.dataset of a run (default: folder)")
    add("--split", nargs="+", default=["train", "val"], metavar="NAME", help="splits to read (default: train val)")


def run_check(arguments: argparse.Namespace) -> None:
    """Reads every frame of a dataset and prints what it holds and what is wrong.

    Raises:
        DataError: the layout is another one, or some of the frames cannot be used.
    """
    from pix2seq_d.build import READERS  # every reader, and what the trainer needs

    if arguments.dataset not in READERS:
        raise ValueError(f"--dataset: expected one of {', '.join(READERS)}, got {arguments.dataset!r}")
    faults = 0
    found = [(split, READERS[arguments.dataset](arguments.root, split)) for split in arguments.split]
    for split, videos in found:  # a layout that is wrong is said before hours of reading
        report = check_videos(videos)
        sys.stdout.write(f"{split}\n{format_report(report)}\n")
        sys.stdout.write(
            f"needs --model.num_class_bits {report.spec.num_class_bits} and "
            f"--model.num_instance_bits {report.num_instance_bits}, or more\n\n"
        )
        faults += len(report.problems)
    if faults:
        raise DataError(
            f"{arguments.root}: expected frames that can be used, found {faults} that cannot (listed above)"
        )


# handing in predictions


def add_export_options(add: Callable[..., object]) -> None:
    """Arguments that `export` and inference.py have in common."""
    add(
        "--ground_truth",
        type=Path,
        metavar="JSON",
        help="panoptic or image_info JSON: its images in its order (cityscapes-vps needs it; cityscapes, coco)",
    )
    add("--zip", action="store_true", help="also write a zip of it, beside it")


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m pix2seq_d export`."""
    add = parser.add_argument
    add("--predictions", type=Path, required=True, metavar="DIR", help="predicted maps {sequence}/{frame}.png")
    known = "; ".join(f"{name}: {kind.about}" for name, kind in SUBMISSION_FORMATS.items())
    add("--format", choices=tuple(SUBMISSION_FORMATS), required=True, help=known)
    add("--output", type=Path, required=True, metavar="DIR", help="new folder; JSON files are called like it")
    text = "classes of the predictions, mapped by name: a label spec or a labels.json (default: those of the format)"
    add("--label_spec", metavar="NAME", help=text)
    add_export_options(add)


def run_export(arguments: argparse.Namespace) -> None:
    """Writes predictions in the format of a benchmark."""
    count = export_predictions(
        arguments.predictions,
        arguments.output,
        name=arguments.format,
        label_spec=find_label_spec(arguments.label_spec) if arguments.label_spec else None,
        ground_truth=arguments.ground_truth,
        zipped=arguments.zip,
    )
    logger.info("%s: %s, of %d maps", arguments.output, SUBMISSION_FORMATS[arguments.format].about, count)


# sharing a model


def add_save_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m pix2seq_d save`."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH_OR_HUB_ID", help="saved model, run folder, checkpoint or Hub id")
    add("--output", type=Path, required=True, metavar="DIR", help="new folder; gets config.json and model.safetensors")
    add("--dtype", choices=("float16", "float32"), default="float16", help="of the weights on disk (default: float16)")
    kept = "new default of inference (default: keep the model's)"
    for name, kind in (("num_steps", int), ("num_steps_next", int), ("td_steps", float), ("min_pixels", int)):
        add(f"--{name}", type=kind, help=kept)
    add("--sampler", choices=tuple(SAMPLERS), help=kept)


def refuse_run_folder(output: Path) -> None:
    """Raises ValueError where a saved model would replace the settings of a run, and hide its newer checkpoints."""
    if any((output / name).exists() for name in ("checkpoints", "log.jsonl", MANIFEST)):
        raise ValueError(f"--output: expected a folder for a model, got that of a run or checkpoint, {output}")


def run_save(arguments: argparse.Namespace) -> None:
    """Writes a model for sharing: averaged weights, chosen precision, sampler defaults; an existing card is kept."""
    refuse_run_folder(arguments.output)
    source = Path(find_model(arguments.checkpoint))
    model = Pix2SeqD.from_pretrained(source)
    model.configure(
        num_steps=arguments.num_steps,
        num_steps_next=arguments.num_steps_next,
        td_steps=arguments.td_steps,
        sampler=arguments.sampler,
        min_pixels=arguments.min_pixels,
    )
    Pix2SeqDPipeline(model, device="cpu").predictor()  # refuses defaults that no prediction could use
    model.to(getattr(torch, arguments.dtype)).save_pretrained(arguments.output)
    logger.info("%s: %.1f MB", arguments.output, (arguments.output / WEIGHTS_NAME).stat().st_size / 1e6)
