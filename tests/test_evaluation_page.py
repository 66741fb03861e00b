"""docs/evaluation.md: its commands and its Python run, its table has every dataset."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from dataset_trees import CLASSES, read_dataset, write_predictions

from pix2seq_d import __main__ as entry
from pix2seq_d.engine.benchmarks import BENCHMARKS

PAGE = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text("utf-8")
FOLDERS = {name: name.replace("-", "_") for name in CLASSES} | {"motchallenge-step": "motchallenge", "folder": "mine"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dataset and its predictions in the places of the page."""
    monkeypatch.chdir(tmp_path)
    for name, folder in FOLDERS.items():
        read_dataset(Path("data") / folder, name)
        write_predictions(Path("data") / folder, Path("outputs") / folder, name)
    for kind in ("images", "panoptic_maps"):
        shutil.move(f"data/motchallenge/{kind}/val", f"data/motchallenge/{kind}/train")


@pytest.mark.usefixtures("everything")
def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = [words for words in commands() if words[:2] == ["python", "evaluate.py"]]
    assert {w[w.index("--format") + 1] for w in scripts if "--format" in w} == set(BENCHMARKS)
    for words in scripts:
        assert entry.main(["evaluate", *words[2:]]) == 0, words
    assert {p.name for p in Path().iterdir()} == {"data", "outputs", "scores.json"}
    assert Path("outputs/report/report.html").is_file()
    assert Path("outputs/scores/sequences.csv").is_file()
    capsys.readouterr()
    exec(compile("\n".join(blocks("python")), "evaluation.md", "exec"), {})
    assert capsys.readouterr().out.split() == [str((3 / 8 * 3 / 4) ** 0.5), "0.75"]


def test_the_table_has_every_dataset() -> None:
    assert set(re.findall(r"^\| `([a-z][a-z0-9-]*)` \|", PAGE, re.MULTILINE)) == set(BENCHMARKS)
    assert [words[0] for words in commands() if words[0] != "python"] == ["torchrun"]
