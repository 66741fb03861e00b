"""Scoring in one process, in several and on several ranks gives the same bits; their errors are one line."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from map_trees import KITTI, kitti_tree

from pix2seq_d.data.formats import write_kitti_step
from pix2seq_d.engine import scoring as module
from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.engine.pairs import FolderPairs
from pix2seq_d.engine.scoring import Scores, Scoring, evaluate_folders, make_chunks, score
from pix2seq_d.engine.tables import sequence_rows, write_json

ROOT = Path(__file__).parents[2]
EVERYTHING = Scoring(per_sequence=True, failures=True)


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderPairs:
    """Five sequences, in chunks of at most four frames."""
    monkeypatch.setattr(module, "CHUNK_FRAMES", 4)
    kitti_tree(tmp_path, {"0001": 5, "0002": 1, "0010": 3, "0003": 2, "0004": 7})
    return FolderPairs(tmp_path / "pred", tmp_path / "gt", KITTI)


def content(scores: Scores) -> dict[str, Any]:
    failures = {
        k: (f.confusion.tolist(), list(map(tuple, f.switches)), list(map(tuple, f.frames)))
        for k, f in scores.failures.items()
    }
    return {"total": scores.evaluator.compute(), "sequences": scores.per_sequence, "failures": failures}


def test_chunks_keep_sequences_whole_and_in_order(pairs: FolderPairs) -> None:
    assert make_chunks(pairs) == {0: ["0001"], 1: ["0002", "0003"], 2: ["0004"], 3: ["0010"]}


def test_ranks_share_evenly(pairs: FolderPairs) -> None:
    """18 frames in chunks of 5, 3, 7 and 3: the largest first, each to whoever has least."""
    chunks = make_chunks(pairs)
    shares = [module._share(pairs, chunks, rank, 2) for rank in (0, 1)]
    assert shares == [{2: ["0004"], 3: ["0010"]}, {0: ["0001"], 1: ["0002", "0003"]}]
    assert module._share(pairs, chunks, 0, 1) == chunks


def test_processes_equal_one_pass_bit_for_bit(pairs: FolderPairs, tmp_path: Path) -> None:
    alone = score(pairs, EVERYTHING, num_workers=0)
    expected = Evaluator(KITTI)
    for sequence_id, frames in pairs.sequences.items():
        for frame in frames:
            prediction, target = pairs.read(frame)
            expected.update(*prediction, *target, sequence_id)
    assert content(alone)["total"] == expected.compute()
    shared = score(pairs, EVERYTHING, num_workers=2)
    write_json(tmp_path / "1.json", content(alone))
    write_json(tmp_path / "2.json", content(shared))
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert list(shared.per_sequence) == list(shared.failures) == ["0001", "0002", "0003", "0004", "0010"]


def test_an_error_of_a_process_is_the_error_itself(pairs: FolderPairs, tmp_path: Path) -> None:
    path = tmp_path / "pred" / "0003" / "000001.png"
    write_kitti_step(path, *(np.zeros((6, 9), int),) * 2)
    texts = []
    for num_workers in (0, 1):
        with pytest.raises(ValueError) as error:
            score(pairs, Scoring(), num_workers=num_workers)
        texts.append(str(error.value))
    assert texts == [f"{path}: expected pred_semantic of the target's shape (6, 8), got (6, 9)"] * 2


class Deadly(FolderPairs):
    """The process that reads dies, as one does where memory is short."""

    def read(self, frame: Any) -> Any:
        os._exit(9)


def test_a_process_that_is_killed(pairs: FolderPairs, tmp_path: Path) -> None:
    deadly = Deadly(tmp_path / "pred", tmp_path / "gt", KITTI)
    with pytest.raises(ChildProcessError, match=r"^num_workers 1: a process ended before .*--num_workers 0 needs"):
        score(deadly, Scoring(), num_workers=1)


class Slow(FolderPairs):
    """The first sequence that is read is broken, the others take their time."""

    def read(self, frame: Any) -> Any:
        if frame.name.startswith("0004"):
            raise ValueError("0004 is broken")
        time.sleep(0.4)
        with open(self.log, "a") as log:
            log.write(f"{frame.name}\n")
        return super().read(frame)


def test_an_error_waits_for_no_sequence(pairs: FolderPairs, tmp_path: Path) -> None:
    """Neither does Ctrl-C: what a process has begun, or has been given, ends with its frame."""
    slow = Slow(tmp_path / "pred", tmp_path / "gt", KITTI)
    slow.log = tmp_path / "log"
    slow.log.touch()
    with pytest.raises(ValueError, match=r"^0004 is broken$"):
        score(slow, Scoring(), num_workers=1)
    assert len(slow.log.read_text().splitlines()) < 5, "the sequence after it was not read to its end"


def test_processes_only_where_they_pay(pairs: FolderPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    chunks = make_chunks(pairs)

    def count(wanted: int | None, share: int = 1) -> int:
        return module._count_workers(pairs, chunks, wanted, share=share)

    assert count(None) == 0, "18 frames are scored before a process has started"
    monkeypatch.setattr(module, "FRAMES_PER_WORKER", 6)
    assert [count(None), count(None, 4), count(None, 8)] == [3, 2, 0]
    assert [count(0), count(1), count(3), count(99)] == [0, 1, 3, 4]
    with pytest.raises(ValueError, match="num_workers: expected at least 0, got -1"):
        count(-1)
    assert module._count_workers(pairs, {0: ["0001"]}, 5, share=1) == 0, "one chunk needs no process"


def test_a_sequence_in_two_shards_is_refused(pairs: FolderPairs) -> None:
    """Also where no metric of its own would notice: PQ and mIoU would count its frames twice."""
    scoring = Scoring(metrics=("pq", "miou"))
    parts = [module._score_sequences(pairs, scoring, names, lambda n: None) for names in (["0001", "0002"], ["0002"])]
    before = parts[0].evaluator.compute()
    with pytest.raises(ValueError, match=r"^merge: expected disjoint sequences, got 0002 in both$"):
        parts[0].merge(pickle.loads(pickle.dumps(parts[1])))
    assert parts[0].evaluator.compute() == before


def test_windows_metrics_and_variants_are_used(pairs: FolderPairs) -> None:
    def compute(**options: Any) -> dict[str, Any]:
        return score(pairs, Scoring(**options), num_workers=0).evaluator.compute()

    assert list(compute(windows=(3,))["vpq"]["per_window"]) == ["3"]
    assert compute(metrics=("pq",)).keys() == {"spec", "num_frames", "pq"}
    variant = compute(metrics=("pq",), options={"pq": {"subtract_void": False}})
    assert variant["pq"]["pq"] != compute(metrics=("pq",))["pq"]["pq"]


def test_sequences_with_and_without_their_classes(pairs: FolderPairs) -> None:
    whole, headlines = (
        score(pairs, Scoring(per_sequence=True, sequence_classes=keep), num_workers=0).per_sequence["0003"]
        for keep in (True, False)
    )
    assert "car" in whole["vpq"]["per_window"]["1"].pop("per_class")
    assert "per_class" not in json.dumps(headlines)
    assert headlines["vpq"]["per_window"]["1"] == whole["vpq"]["per_window"]["1"]
    assert sequence_rows(headlines, {"0003": headlines}) == sequence_rows(whole, {"0003": whole})


# Ranks


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "evaluate.py"]
    return subprocess.run(
        [*launch, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_torchrun_equals_one_process(tmp_path: Path) -> None:
    kitti_tree(tmp_path, {"0001": 50, "0002": 40, "0010": 30})
    places = ["--predictions", tmp_path / "pred", "--ground_truth", tmp_path / "gt"]
    done = torchrun(*places, "--output", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Panoptic") == 1, "only the first rank speaks"
    assert json.loads((tmp_path / "scores.json").read_text()) == evaluate_folders(
        tmp_path / "pred", tmp_path / "gt", KITTI
    )
    (tmp_path / "pred/0010/000003.png").write_bytes(b"")  # read by one of them
    done = torchrun(*places)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "0010/000003.png: expected" in lines[0]
