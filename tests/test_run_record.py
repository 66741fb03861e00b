"""inference.json: its round trip, records of older versions, and what counts as finished."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pix2seq_d.data.folder import FrameSequence
from pix2seq_d.data.formats import write_image
from pix2seq_d.data.sources import ImageSource, open_sources
from pix2seq_d.labels import get_label_spec
from pix2seq_d.run_record import RunRecord

SPEC = get_label_spec("camvid")


def source(name: str, *frames: str) -> ImageSource:
    """Of files that need not exist."""
    paths = tuple(Path(name) / f"{frame}.png" for frame in frames)
    return ImageSource(FrameSequence(name, paths), Path(name))


def test_round_trip(tmp_path: Path) -> None:
    nine, ten = source("b9"), source("b10")
    record = RunRecord.open(tmp_path, {"seed": 1, "sizes": (1, 2)}, SPEC)
    record.finish(ten, ["3"])
    record.finish(nine, [])
    assert RunRecord.read(tmp_path).finished == set(), "in memory until it is saved"
    record.save()
    assert json.loads((tmp_path / "inference.json").read_text())["finished"] == ["b9", "b10"]
    assert RunRecord.read(tmp_path) == RunRecord(
        tmp_path, {"seed": 1, "sizes": [1, 2]}, SPEC, {"b9", "b10"}, {"b10": ["3"]}
    )
    again = RunRecord.open(tmp_path, {"seed": 1, "sizes": (1, 2)}, SPEC)
    assert (again.finished, again.skipped_of(ten), again.skipped_of(nine)) == ({"b9", "b10"}, {"3"}, set())
    again.finish(ten, [])
    again.save()
    assert RunRecord.read(tmp_path).skipped == {}
    assert RunRecord.open(tmp_path, {"seed": 2}, SPEC, overwrite=True).finished == set()


def test_stills_are_noted_one_by_one(tmp_path: Path) -> None:
    record = RunRecord.open(tmp_path, {"stills": True}, SPEC)
    first, second = source("a", "1", "2").stills()
    record.finish(first, [])
    record.finish(second, ["2"])
    assert (record.stills, record.finished, record.skipped) == (True, {"a/1", "a/2"}, {"a/2": ["2"]})
    assert record.is_finished(second, skipping=True)
    assert not record.is_finished(first, skipping=True), "its map is missing"


def test_a_record_of_an_older_version(tmp_path: Path) -> None:
    (tmp_path / "inference.json").write_text('{"settings": {"seed": 1}, "finished": ["a"]}')
    record = RunRecord.read(tmp_path)
    assert (record.label_spec, record.finished, record.skipped) == (None, {"a"}, {})
    assert RunRecord.open(tmp_path, {"seed": 1}, SPEC).finished == {"a"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {}, "finished": [], "skipped": []}', "\x00"])
def test_records_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "inference.json").write_text(text)
    with pytest.raises(ValueError, match=r"inference\.json: not readable as the record of an earlier run"):
        RunRecord.read(tmp_path)


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"inference\.json"):
        RunRecord.read(tmp_path)


def test_finished_means_every_map_is_there(tmp_path: Path) -> None:
    for name in ("1", "2"):
        write_image(tmp_path / "in/a" / f"{name}.png", np.zeros((2, 2, 3), np.uint8))
    (video,) = open_sources(tmp_path / "in")
    record = RunRecord.open(tmp_path / "out", {}, SPEC)
    write_image(tmp_path / "out/panoptic/a/1.png", np.zeros((2, 2, 3), np.uint8))
    assert not record.is_finished(video, skipping=True)
    record.finish(video, [])
    assert not record.is_finished(video, skipping=True)
    record.finish(video, ["2"])
    assert record.is_finished(video, skipping=True)
    assert not record.is_finished(video, skipping=False)


def test_settings_are_compared(tmp_path: Path) -> None:
    RunRecord.open(tmp_path, {"seed": 1}, SPEC)
    with pytest.raises(ValueError, match=r"other settings \(seed 1 -> 2\); choose another output folder or pass"):
        RunRecord.open(tmp_path, {"seed": 2}, SPEC)
    assert json.loads((tmp_path / "inference.json").read_text())["settings"] == {"seed": 1}
