"""app.py: what it listens on, and what it refuses before anything is loaded."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pix2seq_d.app import command
from pix2seq_d.app.command import add_app_arguments, run_app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "app.md"


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_app_arguments(parser)
    return parser.parse_args(arguments)


def test_this_machine_alone_is_the_default() -> None:
    assert parse().host == "127.0.0.1"
    assert parse().checkpoint == "checkpoints/synthetic-tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max_upload_mb", "0"], "--max_upload_mb: expected at least 1, got 0"),
        (["--max_frames", "-1"], "--max_frames: expected at least 1, got -1"),
        (["--port", "70000"], "--port: expected 1..65535, got 70000"),
    ],
)
def test_refused_at_once(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        run_app(parse(*arguments))


def test_without_gradio_it_is_one_line() -> None:
    code = "import sys, runpy; sys.modules['gradio'] = None; sys.argv = ['app.py']"
    code += "; runpy.run_path('app.py', run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "error: the page needs Gradio, which is not installed: pip install pix2seq_d[app]\n"


def test_what_is_asked_for_is_served(tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[dict[str, Any]] = []

    class Stand:
        """Stands in for Page."""

        def __init__(self, model: Any, *, max_frames: int) -> None:
            served.append({"steps": model.num_steps, "max_frames": max_frames})

        def launch(self, **options: Any) -> None:
            served.append(options)

    monkeypatch.setattr(command, "Page", Stand)
    monkeypatch.setattr(command, "import_gradio", lambda: None)
    tiny_model(num_steps=4).save_pretrained(tmp_path)
    run_app(parse("--checkpoint", str(tmp_path), "--host", "127.0.0.2", "--port", "99", "--max_frames", "5"))
    assert served == [{"steps": 4, "max_frames": 5}, {"host": "127.0.0.2", "port": 99, "max_upload_mb": 64}]


def test_the_documented_commands_are_understood() -> None:
    text = DOCS.read_text("utf-8")
    commands = re.findall(r"^python app\.py(.*)$", text, re.MULTILINE)
    assert commands
    for line in commands:
        parse(*shlex.split(line, comments=True))
    parser = argparse.ArgumentParser()
    add_app_arguments(parser)
    for action in parser._actions[1:]:
        assert f"`{action.option_strings[0]}" in text
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (DOCS.parent / name).stat().st_size < 200_000
