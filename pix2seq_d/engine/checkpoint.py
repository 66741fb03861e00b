"""Checkpoints of a run: `RUN/checkpoints/step-00000100/`, written beside and renamed, so such a folder is complete.

Each holds the training state (Accelerate's files, EMA included), the run's configuration, and the averaged model as
`model/`, which `Pix2SeqD.from_pretrained` reads. Weights are safetensors; pickles that hold more
than tensors and numbers are refused.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import load
from safetensors import SafetensorError

from pix2seq_d.label_mapping import same_space
from pix2seq_d.labels import LabelSpec
from pix2seq_d.models.pix2seq_d import CONFIG_NAME, WEIGHTS_NAME, Pix2SeqD

logger = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"  # step, configuration, size of every file


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used, or could not be written."""


def save(
    run_dir: Path, step: int, *, accelerator: Accelerator, averaged: Pix2SeqD, config: Mapping[str, Any], keep: int
) -> Path:
    """Writes the state of the run after `step` optimizer steps; call it on every process.

    Once it is complete, checkpoints of later steps go: they are broken, or left by a run that this one starts over.

    Args:
        run_dir: run folder.
        step: optimizer steps done.
        accelerator: holds the prepared model and optimizer, and the registered EMA.
        averaged: the averaged model.
        config: resolved configuration, JSON-able.
        keep: newest checkpoints kept, at least this one; older ones go once the new one is complete.

    Raises:
        CheckpointError: nothing could be written (disk full, no permission); earlier checkpoints are untouched.
    """
    folder = _folder(run_dir, step)
    partial = folder.with_name(folder.name + ".partial")
    try:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        if accelerator.is_main_process:
            averaged.save_pretrained(partial / "model")
            sizes = {str(p.relative_to(partial)): p.stat().st_size for p in partial.rglob("*") if p.is_file()}
            manifest = {"step": step, "config": config, "files": sizes}
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=2))
        accelerator.wait_for_everyone()
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"{folder}: could not be written, earlier checkpoints are kept: {_first_line(error)}"
        ) from error
    if accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        _remove_others(run_dir, folder, keep=keep)
    accelerator.wait_for_everyone()
    return folder


def resume(run_dir: Path, *, accelerator: Accelerator, config: Mapping[str, Any]) -> int:
    """Loads the newest complete checkpoint into the accelerator's objects.

    Returns:
        Optimizer steps done; 0 where the run has no checkpoint.

    Raises:
        CheckpointError: the checkpoint belongs to another model configuration, holds something else than what `save`
            wrote, or none of them can be read.
    """
    folders = list_checkpoints(run_dir)
    for folder in folders:
        try:
            manifest = _read_manifest(folder)
        except CheckpointError as error:
            logger.warning("%s; falling back to the one before", error)
            continue
        _check_same_model(folder, manifest["config"], config)
        _check_pickles(folder)
        try:
            accelerator.load_state(str(folder))
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder}: cannot be loaded: {_first_line(error)}") from error
        return int(manifest["step"])
    if folders:
        raise CheckpointError(f"{run_dir}: none of its {len(folders)} checkpoints is complete")
    return 0


def check_same_classes(run_dir: Path, spec: LabelSpec) -> None:
    """Raises CheckpointError if the newest checkpoint's codes mean other classes: labels.json of a run can change."""
    for folder in list_checkpoints(run_dir)[:1]:
        path = folder / "model" / CONFIG_NAME
        try:
            saved = LabelSpec.from_dict(json.loads(path.read_text())["label_spec"])
        except (OSError, ValueError, LookupError, TypeError):
            return  # `resume` says what is wrong with the checkpoint
        if not same_space(saved, spec):
            raise CheckpointError(
                f"{path}: expected the classes and things of label spec {spec.name}, got others; "
                "choose another train.output_dir, or set train.resume false to start over"
            )


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, newest first."""
    found = (run_dir / "checkpoints").glob("step-*")
    return sorted((p for p in found if re.fullmatch(r"step-\d{8}", p.name)), reverse=True)


def find_model(name_or_path: str) -> str:
    """The folder to load a model from, given a saved model, a checkpoint or a run folder; a Hub id is returned as is.

    Raises:
        CheckpointError: a folder that holds none of these.
    """
    path = Path(name_or_path)
    if not path.exists():
        return name_or_path
    for folder in (path, path / "model", *(p / "model" for p in list_checkpoints(path))):
        if (folder / CONFIG_NAME).is_file() and (folder / WEIGHTS_NAME).is_file():
            return str(folder)
    raise CheckpointError(
        f"{path}: expected a saved model ({CONFIG_NAME} and {WEIGHTS_NAME}), a checkpoint or a run folder, found none"
    )


def export(run_dir: Path) -> Path:
    """Copies the newest checkpoint's averaged model to `RUN/model/`; returns that folder.

    Raises:
        CheckpointError: the run has no checkpoint.
    """
    checkpoints = list_checkpoints(run_dir)
    if not checkpoints:
        raise CheckpointError(f"{run_dir}: expected a run with a checkpoint, found none")
    newest, target = checkpoints[0] / "model", run_dir / "model"
    partial, old = run_dir / "model.partial", run_dir / "model.old"
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(newest, partial)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def copy_weights(source: Pix2SeqD, target: Pix2SeqD, *, name: str) -> None:
    """Starts `target` from `source`: tensors of equal name and shape are copied, the others listed in the log.

    Raises:
        CheckpointError: less than half of the target's weights would come from the source.
    """
    found, own = source.state_dict(), target.state_dict()
    fitting = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    copied = sum(v.numel() for v in fitting.values()) / max(1, sum(v.numel() for v in own.values()))
    if copied < 0.5:
        raise CheckpointError(f"{name}: only {copied:.0%} of the weights fit this model configuration")
    target.load_state_dict(fitting, strict=False)
    if differing := sorted(set(own) - set(fitting)):
        logger.warning("%s: %d tensors keep their random start: %s", name, len(differing), ", ".join(differing))


def _folder(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step-{step:08d}"


def _remove_others(run_dir: Path, newest: Path, *, keep: int) -> None:
    checkpoints = list_checkpoints(run_dir)
    place = checkpoints.index(newest)
    for folder in checkpoints[:place] + checkpoints[place + max(keep, 1) :]:
        shutil.rmtree(folder)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = dict(manifest["files"])
        if not isinstance(manifest["config"]["model"], dict) or not isinstance(manifest["step"], int):
            raise TypeError("no step or no model configuration")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{folder}: {MANIFEST} cannot be read ({error})") from None
    for name, size in files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            raise CheckpointError(f"{path}: expected {size} bytes, found {'no file' if found is None else found}")
    return manifest


def _check_same_model(folder: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    old, new = (json.loads(json.dumps({**c["model"], **_label_spec(c)})) for c in (saved, current))
    differing = [f"{k} {old.get(k)} -> {new.get(k)}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    if differing:
        raise CheckpointError(
            f"{folder}: checkpoint of another configuration ({', '.join(differing)}); "
            "choose another train.output_dir, or set train.resume false to start over"
        )


def _label_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """Also a matter of the model: what its class codes mean."""
    data = config.get("data", {})
    return {"label_spec": data["label_spec"]} if "label_spec" in data else {}


def _check_pickles(folder: Path) -> None:
    """Reads every pickle as data first: Accelerate loads some of them without that restriction."""
    for path in sorted([*folder.glob("*.bin"), *folder.glob("*.pkl")]):
        try:
            load(path, map_location="meta", weights_only=True)
        except Exception as error:  # torch, pickle and zipfile have no common base
            raise CheckpointError(f"{path}: expected saved tensors and numbers and nothing else, refused") from error
