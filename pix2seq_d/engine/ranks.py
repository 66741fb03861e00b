"""The processes that `torchrun` or `accelerate launch` has started, for work on the CPU that they share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

Result = TypeVar("Result")

_PATIENCE = timedelta(days=2)  # a rank with the longest sequence keeps the others waiting


@dataclass(frozen=True)
class Ranks:
    """Where this process stands among the others.

    Attributes:
        rank: its number, 0 for the first.
        size: number of processes.
        size_here: of these, those on this machine.
    """

    rank: int = 0
    size: int = 1
    size_here: int = 1

    def gather(self, work: Callable[[], Result], shared: Callable[[Result], Any]) -> tuple[Result, list[Any]] | None:
        """Works on every rank and brings the results to the first; an error of one rank ends all of them.

        Args:
            work: what each does.
            shared: the part of its result that the first rank needs of all; must survive pickling.

        Returns:
            On the first rank its own result and the shared parts in the order of the ranks, on the others None.

        Raises:
            Exception: the first rank's own error, or the first one of another rank, on the first rank.
            SystemExit: on the others, if any rank has failed.
        """
        if self.size == 1:
            alone = work()
            return alone, [shared(alone)]
        result: Result | None = None
        error: Exception | None = None
        try:
            result = work()
        except (ValueError, TypeError, OSError) as caught:
            error = caught
        errors: list[Any] = [None] * self.size
        dist.all_gather_object(errors, error)
        failed = next((e for e in errors if e is not None), None)
        if failed is not None:
            raise failed if self.rank == 0 else SystemExit(1)
        assert result is not None, "no rank has failed"
        parts: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(shared(result), parts)
        return None if parts is None else (result, parts)


@contextmanager
def connected_ranks() -> Iterator[Ranks]:
    """Connects the processes that the environment tells of; one alone where it tells of none."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield Ranks()
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
        dist.barrier()
    finally:
        dist.destroy_process_group()
