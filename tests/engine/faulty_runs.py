"""Training runs that meet with an accident, each in a process of its own: `run(fault, options)` is what it executes."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import accelerate.checkpointing

from pix2seq_d import launch
from pix2seq_d.commands import run_command, run_train
from pix2seq_d.engine import checkpoint, post_hoc, trainer
from pix2seq_d.models.pix2seq_d import Pix2SeqD

STEP = 13  # steps done when the accident happens
SAVE = 3  # the checkpoint that it happens in


def run(fault: str, options: Sequence[str]) -> None:
    """Trains as the command line would, with the fault built in; ends with the exit code of the command."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    FAULTS[fault]()
    named = {"program": "train.py", "about": "", "preset": "synthetic-tiny", "output_dir": "unused"}
    os._exit(run_command(run_train, **named, arguments=list(options)))


def _signal(number: int) -> None:
    os.kill(os.getpid(), number)


def _before_step(accident: Callable[[], None]) -> None:
    """The accident happens when STEP steps are done and the next begins."""
    original, count = trainer.set_lr, [0]

    def set_lr(*arguments: Any) -> None:
        count[0] += 1
        if count[0] == STEP + 1:
            accident()
        original(*arguments)

    trainer.set_lr = set_lr


def _in_save(owner: Any, name: str, accident: Callable[..., None]) -> None:
    """The accident gets the arguments of a function that each checkpoint calls once, in the SAVE-th one."""
    original, count = getattr(owner, name), [0]

    def function(*arguments: Any, **named: Any) -> Any:
        count[0] += 1
        if count[0] == SAVE:
            accident(*arguments)
        return original(*arguments, **named)

    setattr(owner, name, function)


def _half_a_model(model: Pix2SeqD, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(bytes(1000))
    _signal(signal.SIGKILL)


def _half_a_snapshot(tensors: Any, path: Path) -> None:
    path.write_bytes(bytes(1000))
    _signal(signal.SIGKILL)


def _half_a_prune(run_dir: Path, newest: Path, keep: int) -> None:
    next(checkpoint.list_checkpoints(run_dir)[-1].glob("*.safetensors")).unlink()
    _signal(signal.SIGKILL)


def _full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full_while_the_state_is_written() -> None:
    original, count = accelerate.checkpointing.save, [0]

    def save(*arguments: Any, **named: Any) -> None:
        count[0] += 1
        if count[0] == 2 * SAVE:  # weights and optimizer each time: the optimizer of the SAVE-th
            _full()
        original(*arguments, **named)

    accelerate.checkpointing.save = save


FAULTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "kill -9 at step 13": lambda: _before_step(lambda: _signal(signal.SIGKILL)),
    "kill -9 while the model is written": lambda: _in_save(Pix2SeqD, "_save_pretrained", _half_a_model),
    "kill -9 before the checkpoint has its name": lambda: _in_save(
        checkpoint, "_complete", lambda *_: _signal(signal.SIGKILL)
    ),
    "kill -9 while old ones are removed": lambda: _in_save(checkpoint, "_remove_others", _half_a_prune),
    "kill -9 while a snapshot is written": lambda: _in_save(post_hoc, "save_file", _half_a_snapshot),
    "kill -9 between snapshot and checkpoint": lambda: _in_save(checkpoint, "save", lambda *_: _signal(signal.SIGKILL)),
    "disk full while a snapshot is written": lambda: _in_save(post_hoc, "save_file", _full),
    "disk full while the state is written": _full_while_the_state_is_written,
    "disk full while the model is written": lambda: _in_save(Pix2SeqD, "_save_pretrained", _full),
    "disk full while the checkpoint is completed": lambda: _in_save(checkpoint, "_complete", _full),
    "SIGTERM at step 13": lambda: _before_step(lambda: _signal(signal.SIGTERM)),
    "SIGINT at step 13": lambda: _before_step(lambda: _signal(signal.SIGINT)),
    "SIGTERM while the model is written": lambda: _in_save(
        Pix2SeqD, "_save_pretrained", lambda *_: _signal(signal.SIGTERM)
    ),
    "kill -9 in the last validation": lambda: _in_save(launch, "validate", lambda *_: _signal(signal.SIGKILL)),
}
