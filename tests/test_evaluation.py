"""evaluate.py's options: every dataset from the command line, what is printed and written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dataset_trees import CLASSES, read_dataset, write_predictions

from pix2seq_d import __main__ as entry

Capture = pytest.CaptureFixture[str]


def evaluate(tmp_path: Path, *options: object, root: str = "data", predictions: str = "out") -> int:
    places = ["--predictions", tmp_path / predictions, "--ground_truth", tmp_path / root]
    return entry.main(["evaluate", *map(str, places), *map(str, options)])


def prepare(tmp_path: Path, name: str) -> None:
    read_dataset(tmp_path / "data", name)
    write_predictions(tmp_path / "data", tmp_path / "out", name)


@pytest.mark.parametrize("name", CLASSES)
def test_every_dataset(tmp_path: Path, name: str, capsys: Capture) -> None:
    prepare(tmp_path, name)
    assert evaluate(tmp_path, "--format", name, "--output", tmp_path / "scores.json") == 0
    table = capsys.readouterr().out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["format"] == name
    assert scores["pq"]["pq"] == pytest.approx(0.675 if name == "bdd100k" else 0.75)
    assert ("STQ" in table) == ("VPQ" in table) == ("stq" in scores)


def test_tables_and_files(tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    prepare(tmp_path, "kitti-step")
    options = ["--format", "kitti-step", "--metrics", "stq", "pq"]
    files = ["--output", tmp_path / "s.json", "--csv", tmp_path / "csv", "--report", tmp_path / "report"]
    assert evaluate(tmp_path, *options, "--per_class", "--per_sequence", *files) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line and not line.startswith("-")]
    assert [line[0] for line in lines if line[0][0].isupper() and line[0] not in ("All", "Things", "Stuff")] == [
        "Panoptic", "Tracking", "Class", "Sequence",
    ]  # fmt: skip
    # sqrt(3/8 * 3/4), and PQ as in dataset_trees
    assert ["0002", "53.03", "37.50", "75.00", "75.00", "75.00", "100.00", "2"] in lines
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["per_sequence"]["0002"]["stq"] == scores["stq"] | {
        "per_sequence": scores["per_sequence"]["0002"]["stq"]["per_sequence"]
    }
    assert {p.name for p in (tmp_path / "csv").iterdir()} == {"classes.csv", "sequences.csv"}
    assert (tmp_path / "report" / "report.html").is_file()
    assert [line.split(": ")[-1] for line in caplog.messages] == [
        str(tmp_path / "s.json"), str(tmp_path / "csv"), str(tmp_path / "report" / "report.html"),
    ]  # fmt: skip


def test_results_of_sequences_are_written_where_they_are_asked_for(tmp_path: Path, capsys: Capture) -> None:
    prepare(tmp_path, "kitti-step")
    assert evaluate(tmp_path, "--output", tmp_path / "s.json", root="data/panoptic_maps/val") == 0
    assert json.loads((tmp_path / "s.json").read_text()).keys() == {"spec", "num_frames", "pq", "vpq", "stq", "miou"}
    assert "Sequence" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("coco", ["--metrics", "stq"], "--metrics: expected some of pq, miou, which is what coco has, got stq"),
        ("kitti-step", ["--num_workers", "-1"], "--num_workers: expected at least 0, got -1"),
        ("kitti-step", ["--windows", "0"], "windows: expected distinct positive sizes, got (0,)"),
        ("kitti-step", ["--split", "train"], "expected KITTI-STEP as images/train"),
        ("kitti-step", ["--label_spec", "fruit"], "--label_spec: expected one of kitti-step, "),
        (None, ["--split", "val"], "--split: expected --format with it"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str | None, options: list[str], words: str, capsys: Capture) -> None:
    prepare(tmp_path, name or "kitti-step")
    assert evaluate(tmp_path, *(["--format", name] if name else []), *options) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert words in lines[-1]


def test_no_ground_truth(tmp_path: Path, capsys: Capture) -> None:
    assert evaluate(tmp_path, "--format", "coco") == 1
    assert (
        capsys.readouterr().err == f"error: --ground_truth: expected the root of coco, {tmp_path}/data is no folder\n"
    )


def test_what_is_left_out_and_mapped_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    prepare(tmp_path, "motchallenge-step")
    assert evaluate(tmp_path, "--format", "motchallenge-step", "--label_spec", "kitti-step") == 0
    assert "labels kitti-step -> motchallenge-step: become void: road, wall" in caplog.messages[0]
