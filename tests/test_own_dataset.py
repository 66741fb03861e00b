"""docs/own_dataset.md does what it says: its code blocks run in order, with a smaller model and fewer steps."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import TINY_OPTIONS, accelerate_state  # noqa: F401

from pix2seq_d import __main__ as entry
from pix2seq_d.data.formats import write_image, write_kitti_step
from pix2seq_d.data.labels_json import read_labels_json, write_labels_json
from pix2seq_d.models.pix2seq_d import Pix2SeqD

ROOT = Path(__file__).parents[1]
Capture = pytest.CaptureFixture[str]
LESS = {
    "train.py": [*TINY_OPTIONS, "--train.init_from", "", "--validation.every", "3", "--validation.num_frames", "2"],
    "inference.py": ["--num_steps", "1", "--num_steps_next", "1", "--device", "cpu"],
}


def code_blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The words of every command of the shell blocks."""
    lines = "".join(code_blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs `python script ...` or `python -m pix2seq_d ...` in this process."""
    assert words[0] == "python"
    if words[1:3] == ["-m", "pix2seq_d"]:
        return entry.main(words[3:])
    monkeypatch.setattr("sys.argv", [words[1], *words[2:], *LESS.get(words[1], [])])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.fixture
def page() -> str:
    return (ROOT / "docs" / "own_dataset.md").read_text("utf-8")


@pytest.fixture
def mine(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy data of the page, in a folder that is the present one."""
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(code_blocks(page, "python")), "own_dataset.md", "exec"), {})
    return Path("data/mine")


@pytest.mark.usefixtures("accelerate_state")
def test_the_page_runs(page: str, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    todo = commands(page)
    assert [words[1] for words in todo] == ["-m", "train.py", "inference.py", "evaluate.py"]
    for words in todo:
        assert run(words, monkeypatch) == 0, words
    said = capsys.readouterr().out
    promised = next(block for block in code_blocks(page, "text") if block.startswith("needs"))
    assert said.count(promised) == 2, "once for train, once for val"
    spec = Pix2SeqD.from_pretrained("results/mine/model").label_spec
    assert spec == read_labels_json(mine / "labels.json")
    scores = json.loads(Path("outputs/mine/metrics.json").read_text())
    assert scores["num_frames"] == 6
    assert set(scores["pq"]["per_class"]) == set(spec.class_names)
    assert list(Path("results/mine/samples").iterdir())
    write_labels_json(mine / "labels.json", replace(spec, class_names=("wall", "floor", "ball", "box")))
    assert run(todo[1], monkeypatch) == 1
    assert "expected the classes and things of label spec room, got others" in capsys.readouterr().err


def test_the_labels_of_the_page_are_those_that_are_written(page: str, mine: Path) -> None:
    (shown,) = code_blocks(page, "json")
    (mine / "shown.json").write_text(shown)
    spec, written = read_labels_json(mine / "shown.json"), read_labels_json(mine / "labels.json")
    assert (spec.class_names, spec.thing_ids) == (written.class_names, written.thing_ids)


# The command `check`


def test_check_lists_what_cannot_be_used_and_fails(mine: Path, capsys: Capture) -> None:
    label = mine / "val" / "panoptic" / "room0" / "000003.png"
    label.write_bytes(label.read_bytes()[:-30])
    assert entry.main(["check", "--root", str(mine)]) == 1
    captured = capsys.readouterr()
    assert f"1 frames cannot be used:\n{label}: " in captured.out
    assert captured.err.endswith(
        f"error: {mine}: expected frames that can be used, found 1 that cannot (listed above)\n"
    )
    assert entry.main(["check", "--root", str(mine), "--split", "train"]) == 0


def test_check_finds_every_split_before_it_reads_one(mine: Path, capsys: Capture) -> None:
    assert entry.main(["check", "--root", str(mine), "--split", "train", "nothing"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "expected nothing/images" in said.err


def test_check_of_other_datasets(mine: Path, capsys: Capture) -> None:
    for split in ("images", "panoptic"):
        (mine / "val" / split).rename(mine / split)
    folders = {"images": "images/val", "panoptic": "panoptic_maps/val"}
    for old, new in folders.items():
        (mine / new).parent.mkdir(exist_ok=True)
        (mine / old).rename(mine / "moved")
        (mine / new).parent.mkdir(exist_ok=True)
        (mine / "moved").rename(mine / new)
    assert entry.main(["check", "--dataset", "kitti-step", "--root", str(mine), "--split", "val"]) == 0
    assert "1 videos, 6 frames, of these 5 right after another" in capsys.readouterr().out
    assert entry.main(["check", "--dataset", "nothing", "--root", str(mine)]) == 1
    assert "error: --dataset: expected one of kitti-step, " in capsys.readouterr().err


# Maps of one's own in evaluation


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    """One frame whose maps count from 1, 0 is unlabelled; and the prediction, which counts from 0."""
    (tmp_path / "labels.json").write_text(
        json.dumps({"class_names": ["table", "apple"], "things": ["apple"], "dataset_ids": [1, 2]})
    )
    truth, instances = np.array([[0, 1, 2, 2]]), np.array([[0, 0, 5, 5]])
    write_kitti_step(tmp_path / "truth" / "1.png", truth, instances)
    write_kitti_step(tmp_path / "predicted" / "1.png", np.array([[0, 0, 1, 1]]), np.array([[0, 0, 9, 9]]))
    return tmp_path


def evaluate(folder: Path, spec: Path | str) -> int:
    places = ["--predictions", str(folder / "predicted"), "--ground_truth", str(folder / "truth")]
    return entry.main(["evaluate", *places, "--label_spec", str(spec), "--output", str(folder / "scores.json")])


@pytest.mark.parametrize("things", [True, False])
def test_the_ground_truth_holds_ids_of_ones_own(ids: Path, things: bool) -> None:
    if not things:
        (ids / "labels.json").write_text(json.dumps({"class_names": ["table", "apple"], "dataset_ids": [1, 2]}))
        write_image(ids / "truth" / "1.png", np.array([[0, 1, 2, 2]], np.uint8))
    assert evaluate(ids, ids / "labels.json") == 0
    scores = json.loads((ids / "scores.json").read_text())
    assert (scores["pq"]["pq"], scores["miou"]["miou"]) == (1.0, 1.0)
    assert set(scores["pq"]["per_class"]) == {"table", "apple"}


def test_a_label_spec_that_is_none(ids: Path, capsys: Capture) -> None:
    assert evaluate(ids, "fruit") == 1
    assert capsys.readouterr().err.startswith("error: --label_spec: expected one of kitti-step, ")
    assert evaluate(ids, ids / "nothing.json") == 1
    assert "nothing.json: expected a readable file" in capsys.readouterr().err


# Runs that do not fit


def options(mine: Path, *more: str) -> list[str]:
    return [*TINY_OPTIONS, "--data.dataset", "folder", "--data.root", str(mine), "--train.output_dir", "run", *more]


def test_too_few_bits_say_which_to_raise(mine: Path, capsys: Capture) -> None:
    assert entry.main(["train", *options(mine, "--model.num_class_bits", "2")]) == 1
    assert capsys.readouterr().err.endswith(
        "error: model.num_class_bits: expected at least 3 for void and the 4 classes of label spec room, got 2\n"
    )
    assert entry.main(["train", *options(mine, "--model.num_instance_bits", "1", "--data.flip_rate", "0")]) == 1
    error = capsys.readouterr().err
    assert "expected at most 1 instances in a frame (num_codes), got 3; 2 instance bits hold them" in error
    assert "--model.num_instance_bits" in error


def test_data_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert entry.main(["train", *options(tmp_path / "nowhere")]) == 1
    assert f"error: data.root: {tmp_path / 'nowhere'} does not exist" in capsys.readouterr().err
    assert entry.main(["train", *options(tmp_path)]) == 1
    assert f"error: {tmp_path / 'labels.json'}: expected a readable file" in capsys.readouterr().err
