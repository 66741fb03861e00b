"""inference.py and `python -m pix2seq_d infer`: arguments, what is refused at once, maps, the report and the export."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pix2seq_d.commands import add_export_options
from pix2seq_d.commands_prompts import add_prompt_arguments, find_prompt_maps, prompt_options, prompt_settings
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.sources import FrameSource, open_sources
from pix2seq_d.data.submission import SUBMISSION_FORMATS, check_submission, select_frames, write_submission
from pix2seq_d.data.submission_formats import Prediction
from pix2seq_d.diffusion.samplers import SAMPLERS
from pix2seq_d.engine.checkpoint import find_model
from pix2seq_d.labels import LabelSpec
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.pipeline import Pix2SeqDPipeline
from pix2seq_d.predict import ON_ERROR, predict_sources
from pix2seq_d.report.write import write_report
from pix2seq_d.result_files import AnimationSettings, OutputSettings
from pix2seq_d.video.step_grid import read_step_grid
from pix2seq_d.video.tracker import VideoPredictor

logger = logging.getLogger(__name__)


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of inference.py."""
    add = parser.add_argument
    text = "folder of frames (subfolders = videos), video files, a pattern, or a list .txt; docs/inference.md"
    add("--input_folder", "--input", dest="input", nargs="+", required=True, metavar="PATH", help=text)
    add("--output_folder", type=Path, required=True, metavar="DIR", help="gets panoptic/, overlay/ and overview/")
    add("--checkpoint", required=True, metavar="PATH_OR_HUB_ID", help="saved model, run folder, checkpoint or Hub id")
    add("--num_steps", type=int, metavar="N", help="denoising steps of a first frame (default: the model's)")
    add("--num_steps_next", type=int, metavar="M", help="denoising steps of later frames (default: the model's)")
    add("--td_steps", type=float, metavar="D", help="asymmetric time interval, in steps (default: the model's)")
    add("--sampler", choices=tuple(SAMPLERS), help="reverse process (default: the model's)")
    add(
        "--t_start_next", type=float, default=1.0, metavar="T", help="start of later frames: 1 noise, less the last map"
    )
    add("--stop_unchanged", type=float, metavar="S", help="end a frame where this share of pixels keeps its code")
    add("--step_grid", type=Path, metavar="JSON", help="times of the steps, see docs/sampling.md (default: uniform)")
    text = (
        "maps drawn of every frame; above 1 the consensus is the map, and uncertainty/ and segments/ say how sure it is"
    )
    add("--num_samples", type=int, default=1, metavar="N", help=f"{text} (default: 1)")
    add("--min_pixels", type=int, metavar="P", help="drop segments of fewer pixels (default: the model's)")
    add("--seed", type=int, default=0, metavar="S", help="of the starting noise (default: 0)")
    add("--device", metavar="NAME", help='"cpu", "cuda", "cuda:1", ... (default: a GPU if there is one)')
    text = "frames are images of their own, not of videos (default: what --format is for, else videos)"
    add("--stills", action=argparse.BooleanOptionalAction, default=None, help=text)
    add("--on_error", choices=ON_ERROR, default="stop", help="at a frame that cannot be read (default: stop)")
    add("--animation", choices=("gif", "webp", "mp4", "none"), default="gif", help="one per video (default: gif)")
    add("--animation_shows", choices=("overview", "overlay"), default="overview", help="(default: overview)")
    add("--fps", type=float, metavar="F", help="frames a second of the animation (default: the video's; of frames 10)")
    add("--contact_sheet", type=int, default=0, metavar="N", help="N evenly spaced overlays on one picture per video")
    add("--confidence", action="store_true", help="also write the probability of the chosen codes to confidence/")
    add("--report", action="store_true", help="also write report.html, a page to look at the results; and confidence/")
    add("--overwrite", action="store_true", help="predict anew what the output folder holds already")
    add("--format", choices=tuple(SUBMISSION_FORMATS), help="also export the maps for a benchmark, to a folder FORMAT/")
    add_export_options(add)
    add_prompt_arguments(add)


def run_inference(arguments: argparse.Namespace) -> None:
    """Predicts what the arguments name."""
    sources, stills = open_sources(arguments.input), _are_stills(arguments)
    outputs = _outputs(arguments)
    if stills:  # refused now, not when the model is loaded
        outputs = outputs.of_stills()
        for source in sources:
            source.stills()
    _check_export(arguments, sources)
    _check_device(arguments.device)
    pipeline = Pix2SeqDPipeline.from_pretrained(find_model(arguments.checkpoint), device=arguments.device)
    export = _planned_export(arguments, sources, pipeline.model.label_spec)
    names = (
        "num_steps",
        "num_steps_next",
        "td_steps",
        "sampler",
        "min_pixels",
        "t_start_next",
        "stop_unchanged",
        "num_samples",
        "seed",
    )
    chosen = {name: getattr(arguments, name) for name in names}
    chosen["step_grid"] = list(read_step_grid(arguments.step_grid)) if arguments.step_grid else None
    spec = pipeline.model.label_spec
    prompts = find_prompt_maps(arguments, sources, spec)
    predictor = VideoPredictor(pipeline.model, **chosen, **prompt_options(arguments, spec))
    settings = {
        "checkpoint": arguments.checkpoint,
        "weights": _fingerprint(pipeline.model),
        "input": [os.path.realpath(path) for path in arguments.input],
        **{name: getattr(pipeline.model, name, None) if value is None else value for name, value in chosen.items()},
        **prompt_settings(arguments),
    }
    count = predict_sources(
        predictor,
        sources,
        arguments.output_folder,
        settings=settings,
        outputs=outputs,
        on_error=arguments.on_error,
        overwrite=arguments.overwrite,
        stills=stills,
        prompts=prompts,
    )
    logger.info("%d frames predicted; maps and pictures are in %s", count, arguments.output_folder)
    if arguments.report:
        logger.info("%s: a page to look at the results", write_report(arguments.output_folder, sources))
    export()


def _are_stills(arguments: argparse.Namespace) -> bool:
    if arguments.stills is None:
        return arguments.format is not None and SUBMISSION_FORMATS[arguments.format].stills
    return bool(arguments.stills)


def _outputs(arguments: argparse.Namespace) -> OutputSettings:
    suffix = "" if arguments.animation == "none" else f".{arguments.animation}"
    return OutputSettings(
        AnimationSettings(suffix, arguments.fps, shows=arguments.animation_shows),
        contact_sheet=arguments.contact_sheet,
        confidence=arguments.confidence or arguments.report,
    )


def _check_export(arguments: argparse.Namespace, sources: Sequence[FrameSource]) -> None:
    """Refuses what the export would refuse after the run, as far as it does not depend on the model."""
    if arguments.format is None:
        if arguments.zip or arguments.ground_truth is not None:
            raise ValueError("--zip and --ground_truth: expected --format with them, got none")
        return
    options = {"name": arguments.format, "ground_truth": arguments.ground_truth}
    check_submission(output=arguments.output_folder / arguments.format, zipped=arguments.zip, **options)
    select_frames([Prediction(path, s.sequence_id) for s in sources for path in s.paths], **options)


def _planned_export(
    arguments: argparse.Namespace, sources: Sequence[FrameSource], label_spec: LabelSpec
) -> Callable[[], None]:
    """What is left to do after a run; refuses now classes that the format does not know."""
    if arguments.format is None:
        return lambda: None
    output, maps = arguments.output_folder / arguments.format, arguments.output_folder / "panoptic"
    options: dict[str, Any] = {
        "name": arguments.format,
        "label_spec": label_spec,
        "ground_truth": arguments.ground_truth,
        "zipped": arguments.zip,
    }
    check_submission(output=output, **options)

    def export() -> None:
        frames = [(maps / s.sequence_id / f"{name}.png", s.sequence_id) for s in sources for name in s.names]
        predictions = [Prediction(path, name, label_spec) for path, name in frames if path.is_file()]
        if not predictions:
            raise DataError(f"{maps}: expected maps of this run to export, found none, every frame was skipped")
        write_submission(predictions, output, **options)  # frames that were skipped have no map
        logger.info("%s: the maps as %s", output, SUBMISSION_FORMATS[arguments.format].about)

    return export


def _check_device(name: str | None) -> None:
    if name is None:
        return
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError) as error:  # an unknown device, one that is not there, and "meta"
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device: expected a device of this machine, got {name!r} ({reason})") from None


def _fingerprint(model: Pix2SeqD) -> str:
    """Of the weights: a run folder or a Hub id can hold others tomorrow."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
