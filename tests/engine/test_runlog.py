"""log.jsonl: appended, cut back on resume, readable after a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pix2seq_d.engine.runlog import RunLog, read_log


def steps(run_dir: Path, kind: str = "train") -> list[int]:
    return [record["step"] for record in read_log(run_dir, kind)]


def test_every_record_is_one_json_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "new" / "run")
    log.write("train", 1, loss=2.5, lr=1e-3)
    log.write("validation", 1, pq=0.5)
    lines = (tmp_path / "new" / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"kind": "train", "step": 1, "loss": 2.5, "lr": 1e-3},
        {"kind": "validation", "step": 1, "pq": 0.5},
    ]


def test_read_log_chooses_the_kind(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.write("train", step)
    log.write("validation", 2, pq=0.25)
    assert steps(tmp_path) == [1, 2, 3]
    assert read_log(tmp_path, "validation") == [{"kind": "validation", "step": 2, "pq": 0.25}]
    assert read_log(tmp_path, "other") == []


def test_resume_drops_later_records(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in range(1, 8):
        log.write("train", step, loss=float(step))
    log.write("validation", 6)
    resumed = RunLog(tmp_path, start=5)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    assert steps(tmp_path, "validation") == []
    resumed.write("train", 6, loss=0.5)
    assert read_log(tmp_path, "train")[-1] == {"kind": "train", "step": 6, "loss": 0.5}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl"]


def test_a_new_run_in_an_old_folder_starts_with_an_empty_log(tmp_path: Path) -> None:
    RunLog(tmp_path).write("train", 1)
    RunLog(tmp_path)
    assert steps(tmp_path) == []


@pytest.mark.parametrize("tail", ['{"kind": "train", "st', "{", '{"kind": "train"}'])
def test_half_written_last_line(tmp_path: Path, tail: str) -> None:
    log = RunLog(tmp_path)
    log.write("train", 1)
    with log.path.open("a") as file:
        file.write(tail)
    assert [record.get("step") for record in read_log(tmp_path, "train")][:1] == [1]
    resumed = RunLog(tmp_path, start=4)
    resumed.write("train", 5)
    assert steps(tmp_path) == [1, 5]
    assert all(json.loads(line) for line in log.path.read_text().splitlines())


@pytest.mark.parametrize("rubbish", [b"\x00" * 9, b"\xff\x98", b"5", b"null", b'"train"'])
def test_lines_that_are_no_records_are_passed_over(tmp_path: Path, rubbish: bytes) -> None:
    """As a crash of the machine leaves them: the run goes on, and its curves can be drawn."""
    log = RunLog(tmp_path)
    log.write("train", 1)
    with log.path.open("ab") as file:
        file.write(rubbish + b"\n")
    log.write("train", 2)
    assert steps(tmp_path) == [1, 2]
    RunLog(tmp_path, start=2)
    assert steps(tmp_path) == [1, 2]
    assert len(log.path.read_bytes().splitlines()) == 2


def test_records_to_be_made_again_go(tmp_path: Path) -> None:
    """The run was cut off between the validation of step 4 and the note that it was done."""
    log = RunLog(tmp_path)
    for step in (2, 4):
        log.write("train", step)
        log.write("validation", step)
    RunLog(tmp_path, start=4, redo=("validation",))
    assert steps(tmp_path) == [2, 4]
    assert steps(tmp_path, "validation") == [2]
