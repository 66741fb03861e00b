"""Training runs of seconds: a tiny configuration on synthetic clips, and what the tests read from a run folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from pix2seq_d.cli import parse_run_config
from pix2seq_d.config import RunConfig

TINY_OPTIONS = (
    "--preset synthetic-tiny --model.image_size [32,64] --model.num_instance_bits 5 --model.stem_width 8 "
    "--model.stage_widths [8,16] --model.stage_depths [1,1] --model.stage_strides [1,2] --model.encoder_dim 16 "
    "--model.encoder_layers 1 --model.encoder_heads 2 --model.pyramid_dim 8 --model.cond_channels 8 "
    "--model.denoiser_widths [8,16] --model.denoiser_dim 16 --model.denoiser_layers 1 --model.denoiser_heads 2 "
    "--data.num_workers 0 --data.num_sequences 4 --data.num_frames 4 --data.difficulty easy --train.batch_size 2 "
    "--train.steps 3 --train.warmup_steps 2 --train.log_every 1 --train.save_every 100 --validation.every 0 "
    "--train.trackers []"
).split()

PARITY_OPTIONS = (  # 20 steps with dropout, then a snapshot of other averages, and a validation of three videos
    "--train.steps 20 --train.save_every 20 --train.post_hoc_ema [0.05,0.1] --train.post_hoc_every 20 "
    "--train.threads 1 --model.dropout 0.1 --validation.every 20 "
    "--validation.num_sequences 3 --validation.num_frames 2 --validation.num_steps 2 --validation.num_steps_next 1"
).split()


def tiny_config(run_dir: Path | str, *options: str) -> RunConfig:
    """The configuration of a run of three steps; `options` as on the command line."""
    arguments = [*TINY_OPTIONS, "--train.output_dir", str(run_dir), *options]
    return parse_run_config(arguments, program="test", description="", preset="synthetic-tiny", output_dir="unused")


@pytest.fixture
def accelerate_state() -> Iterator[None]:
    """Accelerate keeps its state in singletons: each test has them new."""
    _reset()
    yield
    _reset()


def _reset() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


MEASURED = ("frames_per_s", "data_wait", "eta_s", "memory_mb")


def read_records(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl without what was measured of the machine."""
    records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in MEASURED} for r in records]


def files_below(folder: Path) -> set[str]:
    """Names of all files, relative to `folder`."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def equal(a: Any, b: Any) -> bool:
    """Whether two nests of dicts, lists, tensors and plain values are the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)
