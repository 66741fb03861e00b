"""A function that reports to a callback, as a generator of what it reports."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _Closed(BaseException):
    """Nobody listens any more; passes through `except Exception`."""


class Reporter(Generic[Item]):
    """What the function calls."""

    def __init__(self) -> None:
        self._items: queue.Queue[Item | None] = queue.Queue()
        self._closed = threading.Event()

    def __call__(self, item: Item) -> None:
        """Hands on an item."""
        if self._closed.is_set():
            raise _Closed
        self._items.put(item)

    @property
    def is_heard(self) -> bool:
        """Whether everything so far has been taken: who shows progress need not show more than can be seen."""
        if self._closed.is_set():
            raise _Closed
        return self._items.empty()


def stream_reports(work: Callable[[Reporter[Item]], None], *, lock: threading.Lock) -> Iterator[Item]:
    """Yields what `work` reports while it runs in a thread of its own; its errors are raised here.

    Once the generator is closed the next report ends the work; nobody waits for that but who wants the lock.

    Args:
        work: gets the callback to report to.
        lock: held while it runs.
    """
    report: Reporter[Item] = Reporter()
    errors: list[Exception] = []

    def run() -> None:
        try:
            with lock:
                work(report)
        except _Closed:
            return
        except Exception as error:
            errors.append(error)
        finally:
            report._items.put(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        while (item := report._items.get()) is not None:
            yield item
        if errors:
            raise errors[0]
    finally:
        report._closed.set()
