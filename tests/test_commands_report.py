"""`python -m pix2seq_d report` and the inputs and outputs of `infer`, as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pix2seq_d import __main__ as entry
from pix2seq_d.data.formats import write_image
from pix2seq_d.models.pix2seq_d import Pix2SeqD

Build = Callable[..., Pix2SeqD]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def infer(tiny_model: Build, tmp_path: Path) -> Callable[..., int]:
    """Calls `infer` on inputs, with a tiny model and one step."""
    tiny_model().save_pretrained(tmp_path / "model")

    def call(inputs: list[Path], *options: object) -> int:
        model = ["--checkpoint", tmp_path / "model", "--device", "cpu", "--num_steps", 1, "--num_steps_next", 1]
        command = ["infer", "--input", *inputs, "--output_folder", tmp_path / "out", *model, *options]
        return entry.main([*map(str, command)])

    return call


def frames(folder: Path, count: int = 2) -> list[Path]:
    paths = [folder / f"{k}.png" for k in range(count)]
    for k, path in enumerate(paths):
        write_image(path, np.full((32, 64, 3), 40 * k, np.uint8))
    return paths


def test_inference_writes_a_report_and_the_command_writes_it_again(
    infer: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    paths, page = frames(tmp_path / "clip"), tmp_path / "out" / "report.html"
    assert infer(paths, "--report", "--contact_sheet", 2, "--animation", "none") == 0
    first = page.read_bytes()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("panoptic", "overlay", "confidence", "contact_sheet"),
        *("inference.json", "report.html"),
    }
    page.unlink()
    assert entry.main(["report", "--predictions", str(tmp_path / "out")]) == 0
    assert page.read_bytes() == first
    (tmp_path / "m.json").write_text(json.dumps({"miou": {"miou": 0.25}}))
    options = ["--metrics", str(tmp_path / "m.json"), "--output", str(tmp_path / "other.html")]
    assert entry.main(["report", "--predictions", str(tmp_path / "out"), *options]) == 0
    assert '["mIoU","25.00"]' in (tmp_path / "other.html").read_text()


def test_what_report_refuses(tmp_path: Path, capsys: Capture) -> None:
    assert entry.main(["report", "--predictions", str(tmp_path)]) == 1
    assert "inference.json" in capsys.readouterr().err
    (tmp_path / "inference.json").write_text('{"settings": {}, "finished": []}')
    assert entry.main(["report", "--predictions", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "error: --input: expected the frames of the run, inference.json does not name them\n"
    )


def test_skipping_is_chosen_on_the_command_line(infer: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    paths = frames(tmp_path / "clip", 3)
    paths[1].write_text("x")
    assert infer([tmp_path / "clip"], "--animation", "none") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {paths[1]}: expected a PNG")
    assert infer([tmp_path / "clip"], "--animation", "none", "--on_error", "skip") == 0
    assert sorted(p.name for p in (tmp_path / "out/panoptic/clip").iterdir()) == ["0.png", "2.png"]
