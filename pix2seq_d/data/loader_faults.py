"""Bad files in training: skipped and listed where that is wished, and named where a loader process dies of one."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from multiprocessing.sharedctypes import RawArray, RawValue
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from torch.utils.data import Dataset

from pix2seq_d.data.batch import Batch
from pix2seq_d.data.formats import DataError

logger = logging.getLogger(__name__)

_LONGEST = 4096  # bytes of a path
MOST_SKIPPED = 20  # bad clips in a row: beyond that it is not one bad file


class Samples(Protocol):
    """Training samples by (epoch, index)."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int], /) -> Batch: ...


class SkippingClips(Dataset[Batch]):
    """Training clips, where a clip that cannot be read is replaced by the next one that can, and its error listed.

    The replacement is a function of the position alone: workers and processes do not change it.

    Args:
        clips: TrainingClips.
        listing: text file that gets one line per bad clip and loader process.
    """

    def __init__(self, clips: Samples, listing: Path) -> None:
        self.clips, self.listing = clips, listing
        self._listed: set[str] = set()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """The sample, or the nearest after it that can be read.

        Raises:
            DataError: MOST_SKIPPED clips in a row cannot be read.
        """
        epoch, index = key
        for place in range(index, index + MOST_SKIPPED):
            try:
                return self.clips[epoch, place % len(self.clips)]
            except (DataError, OSError) as error:
                self._list(str(error))
                last = error
        raise DataError(f"{MOST_SKIPPED} clips in a row cannot be read, listed in {self.listing}: {last}")

    def _list(self, line: str) -> None:
        if line in self._listed:
            return
        self._listed.add(line)
        logger.warning("skipped: %s", line)
        self.listing.parent.mkdir(parents=True, exist_ok=True)
        with self.listing.open("a") as file:
            file.write(line + "\n")


class OpenedFiles:
    """`worker_init_fn` of a DataLoader that notes the file each worker has opened last, to be read when one dies.

    Workers also ignore SIGTERM and SIGINT, which reach them where a whole group of processes is to stop: the training
    process stops them when it has finished its step. Once it exits they obey: where an error has left the loader's
    iterator alive, Python itself sends them SIGTERM then, and waits until they are gone.

    Args:
        num_workers: of the loader.
    """

    def __init__(self, num_workers: int) -> None:
        self._paths = [RawArray("c", _LONGEST) for _ in range(num_workers)]
        self._exiting = RawValue("b", 0)
        atexit.register(setattr, self._exiting, "value", 1)  # comes before the handler of multiprocessing

    def __call__(self, worker_id: int) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._heed)
        slot = self._paths[worker_id]

        def note(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(arguments[0], str):
                slot.value = arguments[0].encode("utf-8", "surrogateescape")[: _LONGEST - 1]

        sys.addaudithook(note)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if self._exiting.value:
            os._exit(0)

    def last(self) -> list[str]:
        """The file that each worker has opened last; "" = none."""
        return [slot.value.decode("utf-8", "replace") for slot in self._paths]
