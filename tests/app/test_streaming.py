"""A thread's reports as a generator: order, errors, the end that the listener wants, and one at a time."""

from __future__ import annotations

import threading

import pytest

from pix2seq_d.app.streaming import Reporter, stream_reports


def test_reports_come_in_order() -> None:
    def work(report: Reporter[int]) -> None:
        for k in range(5):
            report(k)

    assert list(stream_reports(work, lock=threading.Lock())) == [0, 1, 2, 3, 4]


def test_errors_come_after_what_was_reported() -> None:
    def work(report: Reporter[int]) -> None:
        report(1)
        raise ValueError("no more")

    reports = stream_reports(work, lock=threading.Lock())
    assert next(reports) == 1
    with pytest.raises(ValueError, match="no more"):
        next(reports)


@pytest.mark.parametrize("asking", [False, True])
def test_closing_ends_the_work(asking: bool) -> None:
    lock, closed, after = threading.Lock(), threading.Event(), []

    def work(report: Reporter[int]) -> None:
        report(1)
        assert closed.wait(10)
        if asking:
            after.append(report.is_heard)
        report(2)
        after.append(True)

    reports = stream_reports(work, lock=lock)
    assert next(reports) == 1
    reports.close()  # type: ignore[attr-defined]
    closed.set()
    with lock:  # the work has ended
        assert not after


def test_one_at_a_time() -> None:
    lock, running, most = threading.Lock(), [0], [0]

    def work(report: Reporter[int]) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        for k in range(3):
            report(k)
        running[0] -= 1

    streams = [stream_reports(work, lock=lock) for _ in range(4)]
    assert [next(stream) for stream in streams] == [0] * 4
    assert [list(stream) for stream in streams] == [[1, 2]] * 4
    assert most == [1]


def test_what_is_heard() -> None:
    taken, seen = threading.Event(), []

    def work(report: Reporter[int]) -> None:
        seen.append(report.is_heard)
        report(1)
        report(2)
        report(3)
        seen.append(report.is_heard)  # the listener waits until this is asked
        taken.set()

    reports = stream_reports(work, lock=threading.Lock())
    assert next(reports) == 1
    assert taken.wait(10)
    assert seen == [True, False]
    assert list(reports) == [2, 3]
