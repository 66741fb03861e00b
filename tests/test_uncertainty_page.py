"""docs/uncertainty.md: its command and its programs run, its pictures are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from predict_runs import picture

from pix2seq_d import __main__ as entry
from pix2seq_d.data.formats import read_image, write_image
from pix2seq_d.models.pix2seq_d import Pix2SeqD

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "uncertainty.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_runs(tiny_model: Callable[..., Pix2SeqD], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "data/toy/images/val/0000/000000.png", picture((32, 64)))
    tiny_model().save_pretrained(tmp_path / "checkpoints/synthetic-tiny")
    for line in "".join(blocks("bash")).replace("\\\n", " ").splitlines():
        python, script, *options = shlex.split(line)
        if script == "inference.py":
            assert entry.main(["infer", *options, "--animation", "none"]) == 0
        else:
            assert (python, (DOCS.parent / script).is_file()) == ("python", True)
    with_frame = {"frame": picture((32, 64))}
    in_python, of_files = blocks("python")
    exec(in_python, with_frame)
    namespace: dict[str, object] = {}
    exec(of_files, namespace)
    assert read_image(tmp_path / "data/uncertainty.png").shape[1] > 3 * 64
    assert isinstance(namespace["doubtful"], list)


def test_pictures_are_there() -> None:
    names = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", PAGE)
    assert len(names) == 2
    assert all((DOCS / name).is_file() for name in names)
