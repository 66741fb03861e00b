"""What the tests of predict.py share: folders of frames, and runs on them that write no animation unless asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pix2seq_d.data.formats import write_image
from pix2seq_d.data.sources import open_sources
from pix2seq_d.predict import predict_sources
from pix2seq_d.result_files import AnimationSettings, OutputSettings
from pix2seq_d.video.tracker import VideoPredictor

QUIET = AnimationSettings("")
SIZES = {"a": (40, 70), "b": (33, 90)}  # of the frames; the model's is 32x64


def write_frames(folder: Path, count: int = 3) -> Path:
    """Two videos of different size, `count` frames each, 8.png ... 10.png: natural order is not that of names."""
    for name, size in SIZES.items():
        for k in range(count):
            write_image(folder / name / f"{8 + k}.png", picture(size, seed=k))
    return folder


def picture(size: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def run(predictor: Any, source: Any, target: Path, *, animation: AnimationSettings = QUIET, **options: Any) -> int:
    settings, outputs = options.pop("settings", {"steps": 2}), options.pop("outputs", OutputSettings(animation))
    return predict_sources(predictor, open_sources(source), target, settings=settings, outputs=outputs, **options)


def written(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(predictor: VideoPredictor, source: Path, target: Path) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        run(predictor, source, target)
    assert "\n" not in str(caught.value)
    return str(caught.value)
