"""What two processes do together, as a script for torchrun: `two_processes.py RUN_DIR`; rank 0 writes report.json.

Checks that need a process group stand here, the comparison with one process in test_parity.py.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tiny_runs import PARITY_OPTIONS, tiny_config
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.fsdp import fully_shard

from pix2seq_d import launch
from pix2seq_d.build import build_model, build_train_loader, build_training_loss
from pix2seq_d.data import formats
from pix2seq_d.engine import checkpoint
from pix2seq_d.engine.ema import build_ema, build_power_ema, ema_distance
from pix2seq_d.engine.post_hoc import PowerAverages, write_snapshot
from pix2seq_d.engine.trainer import Loop, LoopSettings


def main(run_dir: Path) -> None:
    """Every check in turn, on both processes; then the run."""
    config = tiny_config(run_dir, *PARITY_OPTIONS, "--train.batch_size", "4", "--train.cpu", "true")
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    report = {
        "processes": accelerator.num_processes,
        "names": gather_object([epoch_of_names(config, accelerator)]),
        "faults": gather_object([failing_save(run_dir / "failing", accelerator)]),
        "snapshot_faults": gather_object([failing_snapshot(run_dir / "no folder", accelerator)]),
        "sharded": gather_object([sharded_average()]),
        "exchanges": gather_object([gradient_exchanges(config)]),
    }
    if accelerator.is_main_process:
        (run_dir / "report.json").write_text(json.dumps(report))

    def save(*arguments: Any, **named: Any) -> Path:
        (run_dir / f"average-{rank}").write_text(digest(named["averaged"]))
        return original_save(*arguments, **named)

    original_save = checkpoint.save
    checkpoint.save = save
    launch.run_training(config)


def digest(module: nn.Module) -> str:
    """Of all weights."""
    total = hashlib.sha256()
    for tensor in module.state_dict().values():
        total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()


def epoch_of_names(config: Any, accelerator: Accelerator) -> list[str]:
    """The samples of this process in the first epoch: 16 clips in batches of 4, two for each process."""
    model = build_model(config)
    loader = accelerator.prepare(build_train_loader(config, model, start=0, num_processes=2))
    return [name for batch in islice(loader, 2) for name in batch.names]


def failing_save(run_dir: Path, accelerator: Accelerator) -> str:
    """The disk of process 1 is full: both have to hear of it."""

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    broken = copy.copy(accelerator)
    if accelerator.process_index == 1:
        broken.save_state = full  # type: ignore[method-assign]
    try:
        checkpoint.save(run_dir, 1, accelerator=broken, averaged=_Averaged(), config={"model": {}}, keep=1)
    except checkpoint.CheckpointError as error:
        return str(error)
    return "saved"


def failing_snapshot(run_dir: Path, accelerator: Accelerator) -> str:
    """Process 0, which alone writes it, cannot: both have to hear of it."""
    averages = PowerAverages(nn.Linear(1, 1), (0.05, 0.1))
    averages.update()
    if accelerator.is_main_process:
        run_dir.write_text("")
    try:
        write_snapshot(run_dir, 1, averages, accelerator)
    except checkpoint.CheckpointError as error:
        return str(error)
    return "saved"


def gradient_exchanges(config: Any) -> list[int]:
    """How often the processes exchange gradients in each of two micro-steps of an optimizer step."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    module = build_training_loss(config, build_model(config))
    wrapped, optimizer = accelerator.prepare(module, torch.optim.AdamW(module.parameters()))
    loader = accelerator.prepare(build_train_loader(config, module.model, start=0, num_processes=2))
    exchanges: list[int] = []
    counts = []

    def backward(loss: torch.Tensor) -> None:
        exchanges.clear()
        original_backward(loss)
        counts.append(len(exchanges))

    wrapped.register_comm_hook(None, lambda _, bucket: exchanges.append(1) or allreduce_hook(None, bucket))
    original_backward, accelerator.backward = accelerator.backward, backward
    settings = LoopSettings(steps=1, batch_size=config.train.batch_size, accumulation=2)
    loop = Loop(wrapped, iter(loader), optimizer, accelerator=accelerator, settings=settings, received=lambda: 0)
    assert loop.step(0).taken
    return counts


class _Averaged(nn.Linear):
    def __init__(self) -> None:
        super().__init__(1, 1)

    def save_pretrained(self, folder: Path) -> None:
        formats.write_bytes(folder / "weights", b"")


def sharded_average() -> list[float]:
    """The difference of averages over sharded parameters (FSDP2) from those over whole ones, and their distance."""
    torch.manual_seed(0)
    whole = nn.Linear(6, 4)
    sharded = copy.deepcopy(whole)
    averages = [build_ema(m, decay=0.9) for m in (whole, sharded)]
    powers = [build_power_ema(m, gamma=2.0) for m in (whole, sharded)]
    fully_shard(sharded)
    for value in (1.0, 2.0, 5.0):
        with torch.no_grad():
            for module in (whole, sharded):
                for parameter in module.parameters():
                    parameter.fill_(value)
        for average in (*averages, *powers):
            average.update()
    pairs = [pair for kind in (averages, powers) for pair in zip(*(a.ema_model.parameters() for a in kind))]
    difference = max(float((a - b).abs().max()) for a, b in pairs)
    return [difference, *(ema_distance(average) for average in averages)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
