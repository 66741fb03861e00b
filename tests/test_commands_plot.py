"""`python -m pix2seq_d plot`: what is drawn of a run, and what is said of folders that hold none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pix2seq_d import __main__ as entry
from pix2seq_d import commands_plot
from pix2seq_d.commands_plot import draw_run
from pix2seq_d.engine.runlog import RunLog

Capture = pytest.CaptureFixture[str]
Drawn = list[tuple[str, dict[str, list[tuple[float, float]]], bool]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """(title, series, logarithmic) of every panel."""
    calls: Drawn = []

    def draw(series: Any, *, title: str, log_y: bool, size: tuple[int, int], **_: str) -> np.ndarray:
        calls.append((title, series, log_y))
        return np.zeros((*size, 3), np.uint8)

    monkeypatch.setattr(commands_plot, "draw_curve", draw)
    return calls


def write_run(run_dir: Path, steps: int = 4) -> RunLog:
    log = RunLog(run_dir)
    for step in range(1, steps + 1):
        log.write("train", step, loss=8.0 / step, grad_norm=math.nan if step == 2 else 1.0, lr=0.1)
    return log


def test_the_command_draws_a_picture(tmp_path: Path, capsys: Capture) -> None:
    write_run(tmp_path / "run").write("validation", 4, miou=0.5, pq=0.25)
    assert entry.main(["plot", str(tmp_path / "run")]) == 0
    with Image.open(tmp_path / "run" / "curves.png") as picture:
        assert picture.size == (2 * 600 + 3 * 8, 2 * 340 + 3 * 8)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
    assert entry.main(["plot", str(tmp_path / "run"), "--output", str(tmp_path / "new" / "a.webp")]) == 0
    assert (tmp_path / "new" / "a.webp").is_file()


def test_what_is_drawn(tmp_path: Path, drawn: Drawn) -> None:
    log = write_run(tmp_path)
    for step, aq in ((2, 0.25), (4, 0.5)):
        log.write("validation", step, miou=0.5, pq=0.25, aq=aq)
    log.write("skipped", 3, loss=None)
    with log.path.open("a") as file:
        file.write('{"kind": "train", "step": 5, "lo')  # a run that is being written
    assert draw_run(tmp_path).shape == (3 * 340 + 4 * 8, 2 * 600 + 3 * 8, 3)
    assert [(title, list(series), log_y) for title, series, log_y in drawn] == [
        ("loss", ["loss"], True),
        ("gradient norm before clipping", ["grad_norm"], True),
        ("learning rate", ["lr"], False),
        ("validation: frames", ["miou", "pq"], False),
        ("validation: video", ["aq"], False),
    ]
    assert drawn[0][1]["loss"] == [(1, 8.0), (2, 4.0), (3, 8 / 3), (4, 2.0)]
    assert [math.isnan(y) for _, y in drawn[1][1]["grad_norm"]] == [False, True, False, False]
    assert drawn[4][1] == {"aq": [(2, 0.25), (4, 0.5)]}


def test_means_of_a_long_run(tmp_path: Path, drawn: Drawn) -> None:
    """Of 101 to 150 values the last three count, at the start those that are there, and never those not finite."""
    log = RunLog(tmp_path)
    for step in range(1, 121):
        log.write("train", step, loss=math.nan if step in (4, 10, 11, 12) else float(step))
    draw_run(tmp_path)
    ((_, series, _),) = drawn
    means = dict(series["mean of the last 3"])
    assert list(series) == ["loss", "mean of the last 3"]
    assert [means[s] for s in (1, 2, 3, 4, 5, 6, 7, 120)] == [1, 1.5, 2, 2.5, 4, 5.5, 6, 119]
    assert math.isnan(means[12])
    assert means[13] == 13


def test_loss_by_noise_level(tmp_path: Path, drawn: Drawn) -> None:
    """Of 11 to 20 records the first and the last two count; a bin that none of them has leaves a gap."""
    log = RunLog(tmp_path)
    for step in range(1, 13):
        log.write("train", step, loss_by_t=[float(step), None if step == 2 else 8.0, None, 0.0])
    draw_run(tmp_path)
    ((title, series, log_y),) = drawn
    assert (title, list(series), log_y) == ("loss by noise level", ["first tenth of the run", "last tenth"], True)
    first, last = series.values()
    assert [x for x, _ in first] == [0.125, 0.375, 0.625, 0.875]
    assert [(first[k][1], last[k][1]) for k in (0, 1, 3)] == [(1.5, 11.5), (8.0, 8.0), (0.0, 0.0)]
    assert math.isnan(first[2][1])


def test_no_loss_by_noise_level(tmp_path: Path, drawn: Drawn) -> None:
    RunLog(tmp_path).write("train", 1, loss=1.0, loss_by_t=[None, None])
    draw_run(tmp_path)
    assert [title for title, *_ in drawn] == ["loss"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "expected a run folder with log.jsonl, found none"),
        ("", "log.jsonl: expected records of training or validation, found none"),
        ('{"kind": "train", "step": 1, "loss": null}\n', "log.jsonl: expected records of training or validation"),
    ],
)
def test_nothing_to_draw(tmp_path: Path, content: str | None, words: str, capsys: Capture) -> None:
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    assert entry.main(["plot", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}")
    assert words in error
    assert not (tmp_path / "curves.png").exists()


def test_another_suffix(tmp_path: Path, capsys: Capture) -> None:
    write_run(tmp_path)
    assert entry.main(["plot", str(tmp_path), "--output", str(tmp_path / "a.pdf")]) == 1
    assert "expected a suffix of .png" in capsys.readouterr().err
