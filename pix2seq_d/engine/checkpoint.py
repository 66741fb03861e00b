"""Checkpoints of a run: `RUN/checkpoints/step-00000100/`, written beside and renamed, so such a folder is complete.

Each holds the training state (Accelerate's files, EMA included), the configuration, and the averaged model as `model/`,
which `Pix2SeqD.from_pretrained` reads. Weights are safetensors; pickles of more than tensors and numbers are refused.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, load
from safetensors import SafetensorError

from pix2seq_d.label_mapping import same_space
from pix2seq_d.labels import LabelSpec
from pix2seq_d.models.pix2seq_d import CONFIG_NAME, WEIGHTS_NAME, Pix2SeqD

logger = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"  # step, configuration, progress, size and checksum of every file


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used, or could not be written."""


@dataclass
class Progress:
    """What a run knows of itself beside its weights; part of every checkpoint.

    Attributes:
        samples: training samples taken from the data so far; None where an older checkpoint does not say.
        skipped: steps skipped because the loss or a gradient was not finite.
        skipped_in_a_row: those directly before now.
        validated: step of the last validation.
        best: highest value of the metric that chooses the best model.
        best_step: its step.
    """

    samples: int | None = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    validated: int | None = None
    best: float | None = None
    best_step: int | None = None

    def update(self, saved: Mapping[str, Any] | None) -> None:
        """Takes over what a checkpoint holds; `samples` is unknown where it holds nothing (None)."""
        for field in fields(self):
            if saved is not None and field.name in saved:
                setattr(self, field.name, saved[field.name])
        if saved is None:
            self.samples = None


def save(
    run_dir: Path,
    step: int,
    *,
    accelerator: Accelerator,
    averaged: Pix2SeqD,
    config: Mapping[str, Any],
    keep: int,
    progress: Progress | None = None,
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
        progress: counts of the run.

    Raises:
        CheckpointError: nothing could be written (disk full, no permission), on every process, although one alone may
            have failed; earlier checkpoints are untouched.
    """
    folder = _folder(run_dir, step)
    partial = folder.with_name(folder.name + ".partial")
    main = accelerator.is_main_process
    faults: list[str] = []
    if main:
        faults += attempt(_new_folder, partial)
    raise_together(faults, partial, accelerator)
    faults += attempt(accelerator.save_state, str(partial))
    if main and not faults:
        faults += attempt(averaged.save_pretrained, partial / "model")
    raise_together(faults, partial, accelerator)
    if main:  # the files of all processes are there now
        values = {"step": step, "config": config, "progress": asdict(progress or Progress())}
        faults += attempt(_complete, partial, folder, values)
    raise_together(faults, partial, accelerator)
    if main:
        for fault in attempt(_remove_others, run_dir, folder, keep):
            logger.warning("%s: older checkpoints could not be removed: %s", run_dir, fault)
    return folder


def note_progress(run_dir: Path, step: int, progress: Progress) -> None:
    """Puts newer counts into the checkpoint of `step`, if there is one; call it on the main process."""
    folder = _folder(run_dir, step)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return
    _write_text(folder / MANIFEST, json.dumps(manifest | {"progress": asdict(progress)}, indent=2))


def resume(
    run_dir: Path, *, accelerator: Accelerator, config: Mapping[str, Any], progress: Progress | None = None
) -> int:
    """Loads the newest complete checkpoint into the accelerator's objects, and its counts into `progress`.

    The main process chooses it, so that all processes load the same one.

    Returns:
        Optimizer steps done; 0 where the run has no checkpoint.

    Raises:
        CheckpointError: the checkpoint belongs to another model configuration, holds something else than what `save`
            wrote, or none of them can be read.
    """
    chosen: list[Any] = [None]  # (folder, manifest), an error, or None: no checkpoint
    if accelerator.is_main_process:
        try:
            chosen = [_choose(run_dir, config)]
        except CheckpointError as error:
            chosen = [str(error)]
    if accelerator.num_processes > 1:
        broadcast_object_list(chosen)
    if isinstance(chosen[0], str):
        raise CheckpointError(chosen[0])
    if chosen[0] is None:
        return 0
    folder, manifest = chosen[0]
    try:
        accelerator.load_state(str(folder))
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be loaded: {_first_line(error)}") from error
    if progress is not None:
        progress.update(manifest.get("progress"))
    return int(manifest["step"])


def _choose(run_dir: Path, config: Mapping[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole, with its manifest."""
    folders = list_checkpoints(run_dir)
    for folder in folders:
        try:
            manifest = _read_manifest(folder)
        except CheckpointError as error:
            logger.warning("%s; falling back to the one before", error)
            continue
        _check_same_model(folder, manifest["config"], config)
        _check_pickles(folder)
        return folder, manifest
    if folders:
        raise CheckpointError(f"{run_dir}: none of its {len(folders)} checkpoints is complete")
    return None


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

    Of a run it is the newest checkpoint's: `RUN/model/` is older where a run was started again to go further.

    Raises:
        CheckpointError: a folder that holds none of these, or a file of weights alone.
    """
    path = Path(name_or_path)
    if not path.exists():
        return name_or_path
    for folder in (path, *(p / "model" for p in list_checkpoints(path)), path / "model"):
        if (folder / CONFIG_NAME).is_file() and (folder / WEIGHTS_NAME).is_file():
            return str(folder)
    refuse_weights_by_hand(path)
    raise CheckpointError(
        f"{path}: expected a saved model ({CONFIG_NAME} and {WEIGHTS_NAME}), a checkpoint or a run folder, found none"
    )


def refuse_weights_by_hand(path: Path) -> None:
    """Explains what to do with `model-0.*` or `model-latest.*`, put into a run folder by hand to start from.

    Other trainers of the method take up such a file. Here it would be weights without the classes they are for.

    Args:
        path: such a file, or a folder that may hold one.

    Raises:
        CheckpointError: naming the file.
    """
    files = [path] if path.is_file() else sorted(path.glob("model-*.*"))
    for file in files:
        if re.fullmatch(r"model-(\d+|latest)\..+", file.name) and file.is_file():
            raise CheckpointError(
                f"{file}: weights alone are not read, they do not say which model and classes they are for; "
                "name the run folder, checkpoint, saved model or Hub id that they come from with --train.init_from, "
                "and move this file away"
            )


def export(run_dir: Path) -> Path:
    """Copies the newest checkpoint's averaged model to `RUN/model/`; returns that folder.

    Raises:
        CheckpointError: the run has no checkpoint.
    """
    checkpoints = list_checkpoints(run_dir)
    if not checkpoints:
        raise CheckpointError(f"{run_dir}: expected a run with a checkpoint, found none")
    source = checkpoints[0] / "model"
    return _write_folder(run_dir / "model", lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True))


def export_best(run_dir: Path, averaged: Pix2SeqD) -> Path:
    """Writes the averaged model to `RUN/best/`, in place of the one before; returns that folder."""
    return _write_folder(run_dir / "best", averaged.save_pretrained)


def _folder(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step-{step:08d}"


def _new_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _write_folder(target: Path, write: Callable[[Path], Any]) -> Path:
    """Writes beside, and puts it in the place of an older folder; nothing stays of a write that fails."""
    partial, old = (target.with_name(target.name + suffix) for suffix in (".partial", ".old"))
    try:
        write(_new_folder(partial))
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _complete(partial: Path, folder: Path, values: Mapping[str, Any]) -> None:
    """Writes the manifest of `partial`, sees to it that all is on the disk, and gives the folder its name."""
    files = {str(p.relative_to(partial)): p for p in sorted(partial.rglob("*")) if p.is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    checksums = {name: _checksum(path) for name, path in files.items()}
    for path in [*files.values(), *{path.parent for path in files.values()}]:
        sync(path)
    _write_text(partial / MANIFEST, json.dumps({**values, "files": sizes, "crc32": checksums}, indent=2))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    sync(folder.parent)


def _remove_others(run_dir: Path, newest: Path, keep: int) -> None:
    checkpoints = list_checkpoints(run_dir)
    place = checkpoints.index(newest)
    left_over = newest.parent.glob("step-*.partial")  # of writes that were cut off
    for folder in [*checkpoints[:place], *checkpoints[place + max(keep, 1) :], *left_over]:
        shutil.rmtree(folder)


def attempt(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """Calls it; a list of the error, empty without one."""
    try:
        function(*arguments)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = _first_line(error)
        torn = re.search("PytorchStreamWriter|inline_container|iostream", reason)  # PyTorch knows no better words
        return [f"a file was cut off, as on a full disk ({reason})" if torn else reason]
    return []


def raise_together(faults: list[str], partial: Path, accelerator: Accelerator) -> None:
    """Waits for all processes; raises on every one of them what has failed on any."""
    found = gather_object(faults) if accelerator.num_processes > 1 else faults
    if not found:
        return
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    folder = partial.with_suffix("")
    raise CheckpointError(f"{folder}: could not be written, earlier checkpoints are kept: {found[0]}")


def _write_text(path: Path, text: str) -> None:
    """Writes beside and renames."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk: a power cut must not leave the name of a checkpoint without it."""
    if os.name == "nt":
        return  # there, what is open for reading cannot be flushed
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = dict(manifest["files"])
        checksums = dict(manifest.get("crc32", {}))  # older checkpoints have none
        if not isinstance(manifest["config"]["model"], dict) or not isinstance(manifest["step"], int):
            raise TypeError("no step or no model configuration")
        if not isinstance(manifest.get("progress", {}), dict):
            raise TypeError("progress is no table")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{folder}: {MANIFEST} cannot be read ({error})") from None
    for name, size in files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            raise CheckpointError(f"{path}: expected {size} bytes, found {'no file' if found is None else found}")
        if name in checksums and _checksum(path) != checksums[name]:
            raise CheckpointError(f"{path}: expected the bytes that were written, found damaged ones (CRC-32 differs)")
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
