"""What the scripts and `python -m pix2seq_d` run: arguments, the work, and errors as one line."""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pix2seq_d.cli import parse_run_config
from pix2seq_d.data.check import check_videos, format_report
from pix2seq_d.data.download import DOWNLOADS, fetch_dataset
from pix2seq_d.data.folder import list_sequences
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.submission import (
    SUBMISSION_FORMATS,
    check_submission,
    export_predictions,
    select_frames,
    write_submission,
)
from pix2seq_d.data.submission_formats import Prediction
from pix2seq_d.diffusion.samplers import SAMPLERS
from pix2seq_d.engine.checkpoint import CheckpointError, find_model
from pix2seq_d.engine.health import TrainingFault
from pix2seq_d.engine.interrupts import Interrupted
from pix2seq_d.evaluation import find_label_spec
from pix2seq_d.labels import LabelSpec
from pix2seq_d.models.pix2seq_d import WEIGHTS_NAME, Pix2SeqD
from pix2seq_d.pipeline import Pix2SeqDPipeline
from pix2seq_d.predict import AnimationSettings, predict_folder

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


# inference


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of inference.py."""
    add = parser.add_argument
    add("--input_folder", type=Path, required=True, metavar="DIR", help="frames (PNG, JPG, ...), subfolders = videos")
    add("--output_folder", type=Path, required=True, metavar="DIR", help="gets panoptic/, overlay/ and overview/")
    add("--checkpoint", required=True, metavar="PATH_OR_HUB_ID", help="saved model, run folder, checkpoint or Hub id")
    add("--num_steps", type=int, metavar="N", help="denoising steps of a first frame (default: the model's)")
    add("--num_steps_next", type=int, metavar="M", help="denoising steps of later frames (default: the model's)")
    add("--td_steps", type=float, metavar="D", help="asymmetric time interval, in steps (default: the model's)")
    add("--sampler", choices=tuple(SAMPLERS), help="reverse process (default: the model's)")
    add("--min_pixels", type=int, metavar="P", help="drop segments of fewer pixels (default: the model's)")
    add("--seed", type=int, default=0, metavar="S", help="of the starting noise (default: 0)")
    add("--device", metavar="NAME", help='"cpu", "cuda", "cuda:1", ... (default: a GPU if there is one)')
    add("--animation", choices=("gif", "webp", "mp4", "none"), default="gif", help="overview per video (default: gif)")
    add("--fps", type=float, default=10.0, metavar="F", help="frames a second of the animation (default: 10)")
    text = "frames are images of their own, not of videos (default: what --format is for, else videos)"
    add("--stills", action=argparse.BooleanOptionalAction, default=None, help=text)
    add("--overwrite", action="store_true", help="predict anew what the output folder holds already")
    add("--format", choices=tuple(SUBMISSION_FORMATS), help="also export the maps for a benchmark, to a folder FORMAT/")
    _add_export_options(add)


def run_inference(arguments: argparse.Namespace) -> None:
    """Predicts a folder as the arguments say."""
    if not arguments.input_folder.is_dir():
        raise ValueError(f"--input_folder: {arguments.input_folder} is not a folder")
    names = ("num_steps", "num_steps_next", "td_steps", "sampler", "min_pixels", "seed")
    chosen = {name: getattr(arguments, name) for name in names}
    _check_device(arguments.device)
    pipeline = Pix2SeqDPipeline.from_pretrained(find_model(arguments.checkpoint), device=arguments.device)
    export = _planned_export(arguments, pipeline.model.label_spec)
    predictor = pipeline.predictor(**chosen)
    settings = {
        "checkpoint": arguments.checkpoint,
        "weights": _fingerprint(pipeline.model),
        "input_folder": str(arguments.input_folder.resolve()),
        **{name: getattr(pipeline.model, name) if value is None else value for name, value in chosen.items()},
    }
    suffix = "" if arguments.animation == "none" else f".{arguments.animation}"
    count = predict_folder(
        predictor,
        arguments.input_folder,
        arguments.output_folder,
        settings=settings,
        animation=AnimationSettings(suffix, arguments.fps),
        overwrite=arguments.overwrite,
        stills=arguments.stills if arguments.stills is not None else _is_for_stills(arguments.format),
    )
    logger.info("%d frames predicted; maps, overlays and animations are in %s", count, arguments.output_folder)
    export()


def _planned_export(arguments: argparse.Namespace, label_spec: LabelSpec) -> Callable[[], None]:
    """What is left to do after a run; refuses now what the export would refuse then."""
    if arguments.format is None:
        if arguments.zip or arguments.ground_truth is not None:
            raise ValueError("--zip and --ground_truth: expected --format with them, got none")
        return lambda: None
    output = arguments.output_folder / arguments.format
    options: dict[str, Any] = {
        "name": arguments.format,
        "label_spec": label_spec,
        "ground_truth": arguments.ground_truth,
        "zipped": arguments.zip,
    }
    check_submission(output=output, **options)
    frames = [(path, s.sequence_id) for s in list_sequences(arguments.input_folder) for path in s.paths]
    select_frames([Prediction(*frame) for frame in frames], name=arguments.format, ground_truth=arguments.ground_truth)
    maps = arguments.output_folder / "panoptic"

    def export() -> None:
        predictions = [Prediction(maps / name / f"{path.stem}.png", name, label_spec) for path, name in frames]
        write_submission(predictions, output, **options)
        logger.info("%s: the maps as %s", output, SUBMISSION_FORMATS[arguments.format].about)

    return export


def _is_for_stills(name: str | None) -> bool:
    return name is not None and SUBMISSION_FORMATS[name].stills


def _check_device(name: str | None) -> None:
    if name is None:
        return
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # an unknown device, and one that is not there
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device: expected a device of this machine, got {name!r} ({reason})") from None


def _fingerprint(model: Pix2SeqD) -> str:
    """Of the weights: a run folder or a Hub id can hold others tomorrow."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


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


def _add_export_options(add: Callable[..., object]) -> None:
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
    _add_export_options(add)


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


def run_save(arguments: argparse.Namespace) -> None:
    """Writes a model for sharing: averaged weights, chosen precision, sampler defaults; an existing card is kept."""
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
