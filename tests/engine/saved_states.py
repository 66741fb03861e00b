"""The state of a run without the run: what the tests of checkpoint.py save and load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from ema_pytorch import EMA

from pix2seq_d.engine import checkpoint
from pix2seq_d.engine.checkpoint import Progress, list_checkpoints
from pix2seq_d.engine.ema import build_ema
from pix2seq_d.engine.optim import build_optimizer
from pix2seq_d.models.pix2seq_d import Pix2SeqD

Build = Callable[..., Pix2SeqD]
CONFIG: dict[str, Any] = {"model": {"widths": [8, 16], "num_instance_bits": 3}, "data": {"label_spec": "kitti-step"}}


@dataclass
class State:
    """What a run saves, without the run."""

    model: Pix2SeqD
    optimizer: torch.optim.Optimizer
    ema: EMA
    accelerator: Accelerator

    def step(self, value: float) -> None:
        for parameter in self.model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        self.optimizer.step()
        self.ema.update()

    def save(
        self, run_dir: Path, step: int, *, keep: int = 9, config: Any = None, progress: Progress | None = None
    ) -> Path:
        return checkpoint.save(
            run_dir,
            step,
            accelerator=self.accelerator,
            averaged=self.ema.ema_model,
            config=CONFIG if config is None else config,
            keep=keep,
            progress=progress,
        )

    def resume(self, run_dir: Path, config: Any = None, progress: Progress | None = None) -> int:
        config = CONFIG if config is None else config
        return checkpoint.resume(run_dir, accelerator=self.accelerator, config=config, progress=progress)

    def values(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "ema": self.ema}
        return {name: part.state_dict() for name, part in parts.items()}


@pytest.fixture
def new_state(tiny_model: Build) -> Callable[[], State]:
    def build() -> State:
        model = tiny_model()
        accelerator = Accelerator(cpu=True)
        optimizer = build_optimizer(model, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
        ema = build_ema(model, decay=0.9)
        model, optimizer = accelerator.prepare(model, optimizer)
        accelerator.register_for_checkpointing(ema)
        return State(model, optimizer, ema, accelerator)

    return build


@pytest.fixture
def saved(new_state: Callable[[], State], tmp_path: Path) -> tuple[State, Path]:
    """A state after two steps, and the run folder with its checkpoints of both."""
    state = new_state()
    for step in (1, 2):
        state.step(0.1 * step)
        state.save(tmp_path / "run", step)
    return state, tmp_path / "run"


def steps(run_dir: Path) -> list[int]:
    return [int(folder.name.removeprefix("step-")) for folder in list_checkpoints(run_dir)]
