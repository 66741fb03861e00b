"""Signals are noted, not obeyed at once; afterwards all is as before."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from pix2seq_d.engine.interrupts import SIGNALS, Interrupted, StopSignals


@pytest.mark.parametrize(("number", "name", "code"), [(15, "SIGTERM", 143), (2, "SIGINT", 130)])
def test_a_signal_is_noted(number: int, name: str, code: int) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    with StopSignals() as signals:
        assert signals.received == 0
        os.kill(os.getpid(), number)
        assert signals.received == number
    assert [signal.getsignal(n) for n in SIGNALS] == before
    stop = Interrupted(number, 12)
    assert stop.exit_code == code
    assert str(stop) == f"stopped by {name} after step 12, with a checkpoint; the same command goes on from there"


def test_a_second_ctrl_c_ends_at_once() -> None:
    with StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_changes_nothing() -> None:
    with StopSignals() as signals:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM


def test_other_threads_take_no_handlers() -> None:
    def enter() -> None:
        with StopSignals() as signals:
            seen.append(signals.received)

    seen: list[int] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [0]
