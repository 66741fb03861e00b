"""inference.py --format: what it refuses before it predicts, which maps it exports, and images that are no video."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pix2seq_d import __main__ as entry
from pix2seq_d.data.formats import write_image
from pix2seq_d.models.pix2seq_d import Pix2SeqD

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """images/ of two videos of two frames."""
    for sequence in ("0000", "0001"):
        for number in range(2):
            picture = np.random.default_rng(number).integers(0, 256, (40, 72, 3), np.uint8)
            write_image(tmp_path / f"images/{sequence}/{number:06d}.png", picture)
    return tmp_path


@pytest.fixture
def model(tiny_model: Callable[..., Pix2SeqD], tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def infer(frames: Path, output: Path, model: Path, *options: object) -> int:
    places = ["--input_folder", frames, "--output_folder", output, "--checkpoint", model]
    return entry.main([str(a) for a in ("infer", *places, "--device", "cpu", "--animation", "none", *options)])


@pytest.mark.parametrize(
    ("format_", "truth", "words"),
    [
        (
            "cityscapes",
            None,
            "images/0000/000000.png: expected a frame called like frankfurt_000000_000294_leftImg8bit",
        ),
        ("coco", None, "images/0001/000000.png: expected one map of 0, found "),
        (
            "coco",
            [0, 7],
            "ground_truth: expected a prediction for each of the 2 images of it, found none for 1 of them",
        ),
        ("coco", "{", "truth.json: expected a JSON file, got one that is broken"),
    ],
)
def test_names_that_cannot_be_exported_are_found_before_prediction(
    data: Path, model: Path, format_: str, truth: Any, words: str, capsys: Capture
) -> None:
    options: list[Any] = ["--format", format_]
    if truth:
        shutil.rmtree(data / "images/0001")
        content = truth if isinstance(truth, str) else json.dumps({"images": [{"id": i} for i in truth]})
        (data / "truth.json").write_text(content)
        options += ["--ground_truth", data / "truth.json"]
    assert infer(data / "images", data / "out", model, *options) == 1
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (data / "out").exists()


def test_maps_of_an_earlier_run_are_not_exported(data: Path, model: Path) -> None:
    assert infer(data / "images", data / "out", model) == 0
    shutil.rmtree(data / "images/0001")
    (data / "images/0000").rename(data / "images/0005")
    assert infer(data / "images", data / "out", model, "--overwrite", "--format", "kitti-step") == 0
    assert sorted(p.name for p in (data / "out/panoptic").iterdir()) == ["0000", "0001", "0005"]
    assert [p.name for p in (data / "out/kitti-step").iterdir()] == ["0005"]


def test_images_of_a_benchmark_are_no_video(data: Path, model: Path) -> None:
    """COCO's images lie in one folder and have sizes of their own; each is predicted as if it were alone."""
    for place, size in ((1, (40, 72)), (2, (50, 30)), (3, (40, 72))):
        picture = np.random.default_rng(place).integers(0, 256, (*size, 3), np.uint8)
        write_image(data / f"coco/val/{place:012d}.jpg", picture)
        write_image(data / f"alone/{place}/{place:012d}.jpg", picture)
    assert infer(data / "coco", data / "out", model, "--format", "coco", "--animation", "gif") == 0
    assert infer(data / "alone", data / "videos", model) == 0
    for place in (1, 2, 3):
        name = f"{place:012d}.png"
        alone = (data / f"videos/panoptic/{place}" / name).read_bytes()
        assert (data / "out/panoptic/val" / name).read_bytes() == alone
    assert len(list((data / "out/coco/coco").iterdir())) == 3
    assert not (data / "out/overview").exists()
    assert infer(data / "coco", data / "out", model, "--no-stills", "--overwrite") == 1, "the sizes differ"
