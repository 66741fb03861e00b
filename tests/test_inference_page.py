"""docs/inference.md: its commands have options that there are, and its tables name all of them; its pictures exist."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from pix2seq_d.commands_report import add_report_arguments
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
        for o in options - of_sampling - {"--t_start_next", "--stop_unchanged", "--min_pixels", "--seed"}
        if f"{o}" not in PAGE
    }
    assert not missing
    assert all(f"`{layer.folder}/" in PAGE for layer in HEAT_LAYERS)


def test_pictures_are_there() -> None:
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", PAGE):
        assert (DOCS / name).is_file(), name
