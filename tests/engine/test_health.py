"""What a run measures of itself, and what it says when it cannot go on."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pix2seq_d.engine import health
from pix2seq_d.engine.health import (
    Meter,
    TrainingFault,
    any_process,
    explain,
    mean_by_bin,
    over_processes,
    peak_memory_mb,
)

ALONE: Any = SimpleNamespace(num_processes=1)


def test_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(health.time, "perf_counter", lambda: now[0])
    meter = Meter()
    for loss in (1.0, torch.tensor(3.0)):
        with meter.waiting():
            now[0] += 1.0
        now[0] += 3.0
        meter.add(loss, 16)
    assert meter.read() == {"loss": 2.0, "frames_per_s": 4.0, "data_wait": 0.25}
    now[0] += 2.0
    meter.add(5.0, 4)
    meter.add(None, 4)
    assert meter.read() == {"loss": 5.0, "frames_per_s": 4.0, "data_wait": 0.0}
    now[0] += 1.0
    meter.add(None, 4)
    assert np.isnan(meter.read()["loss"])


def test_losses_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenths of [0, 1]; t = 1 belongs to the last one, a skipped step to none, and means go over samples."""
    meter = Meter()
    meter.add(2.5, 2, (torch.tensor([0.0, 0.09]), torch.tensor([1.0, 4.0])))
    meter.add(6.0, 2, (torch.tensor([0.05, 0.95]), torch.tensor([4.0, 8.0])))
    meter.add(9.0, 1, (torch.tensor([1.0]), torch.tensor([9.0])))
    meter.add(None, 1, (torch.tensor([0.5]), torch.tensor([float("nan")])))
    sums = meter.sums_by_t()
    assert sums.tolist() == [[9.0, *[0.0] * 8, 17.0], [3.0, *[0.0] * 8, 2.0]]
    assert mean_by_bin(sums, ALONE) == [3.0, *[None] * 8, 8.5]
    other = np.zeros((2, 10))
    other[:, 0], other[:, 3] = (7.0, 1.0), (5.0, 2.0)
    monkeypatch.setattr(health, "gather_object", lambda own: [*own, other])
    two: Any = SimpleNamespace(num_processes=2)
    assert mean_by_bin(sums, two) == [4.0, None, None, 2.5, *[None] * 5, 8.5]
    meter.read()
    assert not meter.sums_by_t().any()


def test_a_loader_that_stalls_is_reported_while_it_does(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter(stall_seconds=0.05)
    with caplog.at_level(logging.WARNING), meter.waiting():
        deadline = time.monotonic() + 5
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "the loader has not delivered a batch for 0 s" in caplog.text
    assert "delivered a batch again" in caplog.text
    caplog.clear()
    with meter.waiting():
        pass
    time.sleep(0.1)
    assert not caplog.records


def test_log_lines_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss 1 and 3 -> 2, waiting .1 and .5 -> .5, memory 100 and 50 -> 100, frames 4 and 6 -> 5."""
    names = ("loss", "data_wait", "memory_mb", "frames_per_s")
    parts = [dict(zip(names, values)) for values in ((1.0, 0.1, 100.0, 4.0), (3.0, 0.5, 50.0, 6.0))]
    assert over_processes(parts[0], ALONE) == parts[0]
    monkeypatch.setattr(health, "gather_object", lambda own: parts)
    two: Any = SimpleNamespace(num_processes=2)
    assert over_processes(parts[0], two) == dict(zip(names, (2.0, 0.5, 100.0, 5.0)))


def test_flags_of_all_processes() -> None:
    assert any_process([0, 15], ALONE) == [0, 15]
    two: Any = SimpleNamespace(
        num_processes=2, device="cpu", gather=lambda own: torch.cat([own, torch.tensor([[1, 0]])])
    )
    assert any_process([0, 15], two) == [1, 15]


def test_memory_of_the_process() -> None:
    assert 50 < peak_memory_mb(torch.device("cpu")) < 50_000


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
    ],
)
def test_out_of_memory_says_what_to_lower(error: RuntimeError) -> None:
    told = explain(error)
    assert isinstance(told, TrainingFault)
    for setting in ("batch_size", "accumulation", "activation_checkpointing", "precision", "image_size"):
        assert setting in str(told)
    assert "\n" not in str(told)


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid(s) 4711) exited unexpectedly",
        "DataLoader worker (pid 4711) is killed by signal: Segmentation fault. ",
    ],
)
def test_a_loader_process_that_dies_names_the_file(text: str) -> None:
    told = explain(RuntimeError(text), last_opened=["", "images/000007.png"])
    assert isinstance(told, TrainingFault)
    assert "a loader process died; files that the loader had opened last: images/000007.png (" in str(told)


@pytest.mark.parametrize(
    "text",
    [
        "[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:25502. This is ...",
        "NCCL error in: ProcessGroupNCCL.cpp:2251, remote process exited ...\nncclRemoteError: ...",
    ],
)
def test_a_process_that_is_gone_is_told_by_the_others(text: str) -> None:
    """Theirs is not the error to read: it stood last, as a traceback."""
    told = str(explain(RuntimeError(text)))
    assert told.startswith("another process of this run has ended: what it said is the cause (")
    assert "\n" not in told


def test_other_errors_stay_themselves() -> None:
    assert explain(RuntimeError("shapes differ"), last_opened=["a.png"]) is None
