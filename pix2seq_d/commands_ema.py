"""`python -m pix2seq_d ema`: an average of another width from the snapshots of a run, as a saved model."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from pix2seq_d.commands import refuse_run_folder
from pix2seq_d.engine.checkpoint import CheckpointError, find_model
from pix2seq_d.engine.post_hoc import synthesise
from pix2seq_d.models.pix2seq_d import WEIGHTS_NAME, Pix2SeqD

logger = logging.getLogger(__name__)


def add_ema_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m pix2seq_d ema`."""
    add = parser.add_argument
    add(
        "--run",
        dest="run_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="run folder, trained with --train.post_hoc_ema",
    )
    add(
        "--sigma_rel",
        type=float,
        required=True,
        metavar="WIDTH",
        help="standard deviation of the average in time as a fraction of the steps, for example 0.08",
    )
    add("--step", type=int, metavar="N", help="step of a snapshot to end at (default: the last)")
    add("--output", type=Path, required=True, metavar="DIR", help="new folder; gets config.json and model.safetensors")


def run_ema(arguments: argparse.Namespace) -> None:
    """Writes the average, in float32.

    Raises:
        CheckpointError, ValueError: as `synthesise` and `refuse_run_folder`, or snapshots of another model.
    """
    refuse_run_folder(arguments.output)
    average = synthesise(arguments.run_dir, sigma_rel=arguments.sigma_rel, step=arguments.step)
    model = Pix2SeqD.from_pretrained(find_model(str(arguments.run_dir)))
    try:
        model.load_state_dict(average.state)
    except RuntimeError:
        raise CheckpointError(f"{arguments.run_dir}: expected snapshots of its model, found those of another") from None
    model.save_pretrained(arguments.output)
    logger.info(
        "%s: width %g at step %d, from %d snapshots, profile %.2g %% off, %.1f MB",
        arguments.output,
        arguments.sigma_rel,
        average.step,
        average.snapshots,
        100 * average.error,
        (arguments.output / WEIGHTS_NAME).stat().st_size / 1e6,
    )
