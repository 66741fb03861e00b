"""docs/inference.md: commands have options that there are, tables name all of them, examples run, pictures exist."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pix2seq_d.commands_report import add_report_arguments
from pix2seq_d.data import synthetic
from pix2seq_d.evaluation import add_evaluation_arguments
from pix2seq_d.inference import add_inference_arguments
from pix2seq_d.report.frame_layers import HEAT_LAYERS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "inference.md").read_text("utf-8")
PARSERS = {
    "inference.py": add_inference_arguments,
    "evaluate.py": add_evaluation_arguments,
    "-m pix2seq_d report": add_report_arguments,
}


def commands() -> list[str]:
    """The lines that call one of the commands, joined where they are broken."""
    blocks = re.findall("```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if any(f"python {name} " in line for name in PARSERS)]


def test_there_are_commands() -> None:
    assert len(commands()) >= 6


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line: str) -> None:
    name = next(name for name in PARSERS if line.startswith(f"python {name} "))
    parser = argparse.ArgumentParser(exit_on_error=False)
    PARSERS[name](parser)
    parser.parse_args(shlex.split(line.removeprefix(f"python {name} ")))


def test_every_option_of_inputs_and_outputs_is_on_the_page() -> None:
    parser = argparse.ArgumentParser()
    add_inference_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings}
    of_sampling = {"-h", "--help", "--device", "--num_steps", "--num_steps_next", "--td_steps", "--sampler"}
    missing = {
        o
        for o in options - of_sampling - {"--t_start_next", "--stop_unchanged", "--step_grid", "--min_pixels", "--seed"}
        if f"{o}" not in PAGE
    }
    assert not missing
    assert all(f"`{layer.folder}/" in PAGE for layer in HEAT_LAYERS)


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, on shorter clips than the page's and with fewer steps."""
    (tmp_path / "checkpoints").symlink_to(DOCS.parent / "checkpoints")
    monkeypatch.chdir(tmp_path)
    synthetic.main("--output data/toy --split val --num_sequences 2 --num_frames 2".split())
    blocks = re.findall("```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, Any] = {}
    for block in blocks:
        fast = block.replace("num_steps=10", "num_steps=2").replace("num_steps_next=3", "num_steps_next=1")
        exec(compile(fast, "docs/inference.md", "exec"), names)
    assert [len(maps) for maps in names["both"]] == [2, 2]
    assert len(names["stills"]) == 2
    assert not np.array_equal(names["one"][0].confidence, names["other"][0].confidence)
    assert names["car"].sum() == names["maps"][0].segments_info[-1]["area"]
    assert (names["told"][0].instance_map[names["car"]] == 7).all()
    assert names["unsure"].shape == (96, 320)


def test_pictures_are_there() -> None:
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", PAGE):
        assert (DOCS / name).is_file(), name
