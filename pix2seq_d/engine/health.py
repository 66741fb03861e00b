"""What a run says about itself: averages between two log lines, memory, a loader that stalls, and faults explained."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

logger = logging.getLogger(__name__)

T_BINS = 10  # equal parts of [0, 1] that the log tells the loss of


class TrainingFault(RuntimeError):
    """A run that cannot go on, with what to do about it in one line."""


class Meter:
    """Running averages between two log lines.

    Args:
        stall_seconds: a batch that takes longer is reported while it is waited for.
    """

    def __init__(self, *, stall_seconds: float = 60.0) -> None:
        self.stall_seconds = stall_seconds
        self.reset()

    def reset(self) -> None:
        """Starts anew."""
        self.losses: list[Tensor | float] = []
        self.samples: list[tuple[Tensor, Tensor]] = []
        self.frames, self.waited, self.since = 0, 0.0, time.perf_counter()

    def add(self, loss: Tensor | float | None, frames: int, samples: tuple[Tensor, Tensor] | None = None) -> None:
        """Counts one micro-step; what it is given stays on its device until it is read.

        Args:
            loss: None belongs to a skipped step.
            frames: samples of all processes.
            samples: (B,) times and (B,) losses of this process; without a `loss` they do not count.
        """
        if loss is not None:
            self.losses.append(loss)
            self.samples += [] if samples is None else [samples]
        self.frames += frames

    def waiting(self) -> _Stopwatch:
        """Context whose time counts as waiting for data."""
        return _Stopwatch(self)

    def sums_by_t(self) -> np.ndarray:
        """(2, T_BINS) float64 since the last `read`: sum of the losses and number of samples by bin of t."""
        if not self.samples:
            return np.zeros((2, T_BINS))
        t, losses = (torch.cat(part).double().cpu().numpy() for part in zip(*self.samples))
        bins = (t * T_BINS).astype(int).clip(0, T_BINS - 1)  # 1 belongs to the last one
        return np.stack([np.bincount(bins, weights, T_BINS) for weights in (losses, np.ones_like(losses))])

    def read(self) -> dict[str, float]:
        """The loss (NaN without any), frames_per_s and data_wait (share of the time) since the last call."""
        elapsed = time.perf_counter() - self.since
        losses = [float(loss) for loss in self.losses]
        values = {
            "loss": float(np.mean(losses)) if losses else float("nan"),
            "frames_per_s": self.frames / elapsed,
            "data_wait": self.waited / elapsed,
        }
        self.reset()
        return values


class _Stopwatch:
    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def __enter__(self) -> None:
        self.begin = time.perf_counter()
        self.alarm = threading.Timer(self.meter.stall_seconds, self._report)
        self.alarm.daemon = True
        self.alarm.start()

    def __exit__(self, *exception: object) -> None:
        self.alarm.cancel()
        waited = time.perf_counter() - self.begin
        self.meter.waited += waited
        if waited > self.meter.stall_seconds and exception == (None, None, None):
            logger.warning("the loader has delivered a batch again, after %.0f s", waited)

    def _report(self) -> None:
        logger.warning(
            "the loader has not delivered a batch for %.0f s: is the disk busy or gone? More data.num_workers may help",
            self.meter.stall_seconds,
        )


def over_processes(values: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """The values of a log line over all processes: the largest share of waiting and memory, the mean of the others."""
    if accelerator.num_processes == 1:
        return values
    parts = gather_object([values])
    largest = ("data_wait", "memory_mb")
    return {k: float((max if k in largest else np.mean)([part[k] for part in parts])) for k in values}


def mean_by_bin(sums: np.ndarray, accelerator: Accelerator) -> list[float | None]:
    """Means over all processes of what `Meter.sums_by_t` has told each of them; None for a bin without a sample."""
    parts = [sums] if accelerator.num_processes == 1 else gather_object([sums])
    return [total / count if count else None for total, count in np.sum(parts, axis=0).T.tolist()]


def peak_memory_mb(device: torch.device) -> float:
    """MiB that PyTorch had taken on a GPU at most, elsewhere those of this process; NaN where the system tells none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def any_process(flags: Sequence[int], accelerator: Accelerator) -> list[int]:
    """Each flag's largest value over all processes, so that all of them decide alike."""
    if accelerator.num_processes == 1:
        return list(flags)
    own = torch.tensor([list(flags)], device=accelerator.device)
    return accelerator.gather(own).amax(0).tolist()


OUT_OF_MEMORY = (
    "lower train.batch_size and raise train.accumulation by the same factor (equal results), "
    "set train.activation_checkpointing true (equal results), train.precision bf16, or lower model.image_size"
)


def explain(error: RuntimeError, *, last_opened: Sequence[str] = ()) -> TrainingFault | None:
    """What a user can act on, for errors of PyTorch that say it badly; None for any other error.

    Args:
        error: what the training loop raised.
        last_opened: the files that the loader's workers have opened last, "" = none.
    """
    text = " ".join(str(error).split())
    if isinstance(error, torch.cuda.OutOfMemoryError) or re.search("not enough memory|can't allocate memory", text):
        return TrainingFault(f"out of memory: {OUT_OF_MEMORY} ({text.split('. ')[0][:200]})")
    if re.search(r"DataLoader worker \(pid.*(exited unexpectedly|is killed by signal)", text):
        files = ", ".join(path for path in last_opened if path) or "none"
        return TrainingFault(f"a loader process died; files that the loader had opened last: {files} ({text[:200]})")
    if re.search(r"Connection (closed|reset) by peer|ncclRemoteError", text):
        return TrainingFault(f"another process of this run has ended: what it said is the cause ({text[:200]})")
    return None
