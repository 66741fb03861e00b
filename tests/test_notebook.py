"""visualize.ipynb: kept without outputs, and runs whether or not there are results to show."""

from __future__ import annotations

import argparse
import json
import os
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pix2seq_d.data import synthetic
from pix2seq_d.data.formats import write_image, write_kitti_step
from pix2seq_d.inference import add_inference_arguments, run_inference

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "visualize.ipynb"


def _code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_is_stripped() -> None:
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in _code_cells())
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}


def test_code_compiles_and_holds_no_logic() -> None:
    cells = ["".join(cell["source"]) for cell in _code_cells()]
    assert len(cells) >= 5
    for k, source in enumerate(cells):
        compile(source, f"cell {k}", "exec")
    assert not any(word in f"\n{source}" for source in cells for word in ("import numpy", "\nclass ", "\nwhile "))
    assert [k for k, source in enumerate(cells) if "environ" in source] == [0]


def _execute(folder: Path, monkeypatch: pytest.MonkeyPatch, **folders: Path) -> tuple[str, list[tuple[int, int]]]:
    """Runs the notebook in `folder` with these PIX2SEQ_D_ variables; what it printed, and the sizes of its PNGs."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    for name in ("INPUT", "OUTPUT", "RESULTS", "CHECKPOINT"):
        monkeypatch.delenv(f"PIX2SEQ_D_{name}", raising=False)
    for name, path in folders.items():
        monkeypatch.setenv(f"PIX2SEQ_D_{name}", str(path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("IPYTHONDIR", str(folder / ".ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        startup_timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    shown = [output["data"] for output in outputs if output["output_type"] == "display_data"]
    pictures = [Image.open(BytesIO(b64decode(data["image/png"]))).size for data in shown if "image/png" in data]
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream"), pictures


def test_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed, pictures = _execute(tmp_path, monkeypatch)
    assert not pictures
    assert "make demo" in printed
    assert "python inference.py --input_folder data/input --output_folder data/output --checkpoint" in printed
    assert not (tmp_path / "outputs").exists()


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make demo` leaves behind, with fewer frames and steps; the weights of the run draw here too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").symlink_to(ROOT / "checkpoints" / "synthetic-tiny")
    synthetic.main("--output outputs/demo/data --split val --num_sequences 1 --num_frames 3".split())
    parser = argparse.ArgumentParser()
    add_inference_arguments(parser)
    options = "--checkpoint weights --num_steps 2 --num_steps_next 1 --animation none --device cpu"
    folders = "--input outputs/demo/data/images/val --output_folder outputs/demo"
    run_inference(parser.parse_args(f"{folders} {options}".split()))
    printed, pictures = _execute(tmp_path, monkeypatch)
    assert "sequence 0000: 3 frames, 3 with a map" in printed
    assert "No " not in printed
    assert len(pictures) == 5  # overview, over time, denoising, frame and consensus, and where the samples differ
    assert pictures[3] == pictures[4]
    assert len(list((tmp_path / "outputs/results").iterdir())) == 5


def test_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, results, animations = tmp_path / "in", tmp_path / "out", tmp_path / "gifs"
    for t in range(3):
        class_map = np.zeros((32, 96), np.uint8)
        class_map[8:16, 10 * t : 10 * t + 20] = 13
        write_image(frames / "0007" / f"{t:06d}.png", np.full((32, 96, 3), 60 * t, np.uint8))
        if t < 2:  # the last frame has no map yet
            write_kitti_step(
                results / "panoptic" / "0007" / f"{t:06d}.png", class_map, 5 * (class_map == 13).astype(np.int32)
            )
    printed, pictures = _execute(
        tmp_path, monkeypatch, INPUT=frames, OUTPUT=results, RESULTS=animations, CHECKPOINT=tmp_path
    )
    assert len(pictures) == 2
    assert f"No saved model in {tmp_path}" in printed
    assert "sequence 0007: 3 frames, 2 with a map" in printed
    assert "make demo" not in printed
    names = {"frame.gif", "panoptic.gif", "semantic.gif", "instance.gif", "overlay.gif"}
    assert {path.name for path in animations.iterdir()} == names
    for name in names:
        with Image.open(animations / name) as image:
            assert (getattr(image, "n_frames", 1), image.size) == (2, (96, 32))
