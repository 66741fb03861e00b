"""docs/prompts.md: its commands have options that there are, and it names all of theirs; its picture exists."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
from pathlib import Path

import pytest

from pix2seq_d.commands_prompts import add_prompt_arguments
from pix2seq_d.inference import add_inference_arguments

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "prompts.md").read_text("utf-8")


def commands() -> list[str]:
    """The calls of inference.py, joined where they are broken."""
    blocks = re.findall("```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("python inference.py ")]


def test_there_are_commands() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_inference_arguments(parser)
    parser.parse_args(shlex.split(line)[2:])


def test_every_option_is_on_the_page() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_prompt_arguments(parser.add_argument)
    assert {o for action in parser._actions for o in action.option_strings if o not in PAGE} == set()


def test_the_table_has_rows_of_the_benchmark() -> None:
    rows = runpy.run_path(str(ROOT / "benchmarks" / "prompts.py"), run_name="benchmark")["rows"](20)
    measured = PAGE[PAGE.index("## Measured") :]
    assert all(f"| {name} |" in measured for name in rows)


def test_pictures_are_there() -> None:
    names = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", PAGE)
    assert names
    assert all((ROOT / "docs" / name).is_file() for name in names)
