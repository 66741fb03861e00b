"""SIGTERM and SIGINT as a wish: the step in progress is finished, a checkpoint written, and only then the run ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """A run that a signal has ended, with everything saved; `exit_code` is 128 + the signal's number (143, 130)."""

    def __init__(self, number: int, step: int) -> None:
        self.exit_code = 128 + number
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} after step {step}, with a checkpoint; the same command goes on from there")


class StopSignals:
    """Context in which SIGTERM and SIGINT are only noted, in `received` (0 = none); a second SIGINT acts at once.

    In another thread than the main one, where Python takes no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
