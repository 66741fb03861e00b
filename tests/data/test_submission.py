"""Exports are whole or not there, zips are the same every time, and what cannot be exported is said in one line."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from submission_rules import draw_maps, dump, write_predictions

from pix2seq_d.data import submission
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.submission import SUBMISSION_FORMATS, check_submission, export_predictions, list_predictions
from pix2seq_d.labels import LABEL_SPECS, LabelSpec, get_label_spec


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    maps = {f"{s}/{n:06d}": draw_maps(get_label_spec("coco"), seed=n) for s, n in (("b", 10), ("b", 9), ("a/x", 1))}
    return write_predictions(tmp_path / "run" / "panoptic", maps)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_format_has_its_label_spec() -> None:
    assert {kind.label_spec for kind in SUBMISSION_FORMATS.values()} <= set(LABEL_SPECS)
    assert {kind.order for kind in SUBMISSION_FORMATS.values()} == {"none", "optional", "required"}


def test_predictions_in_natural_order(predictions: Path) -> None:
    (predictions / ".hidden").mkdir()
    (predictions / "b" / "notes.txt").write_text("")
    (predictions / "b" / "000011.jpg").write_bytes(b"")
    for root in (predictions, predictions.parent):
        found = [(p.sequence_id, p.stem) for p in list_predictions(root)]
        assert found == [("a/x", "000001"), ("b", "000009"), ("b", "000010")]


def test_an_output_folder_of_inference_does_as_well(predictions: Path, tmp_path: Path) -> None:
    for root, output in ((predictions, "one"), (predictions.parent, "two")):
        assert export_predictions(root, tmp_path / output / "coco", name="coco") == 3
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_zips_are_the_same_every_time(predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "two" / "coco").mkdir(parents=True)  # an empty folder will do
    for output in ("one", "two"):
        export_predictions(predictions, tmp_path / output / "coco", name="coco", zipped=True)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["coco", "coco.zip"]
    assert (tmp_path / "one/coco.zip").read_bytes() == (tmp_path / "two/coco.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one/coco.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist())
        assert {name: archive.read(name) for name in archive.namelist()} == files(tmp_path / "one/coco")
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_nothing_is_left_of_an_export_that_fails(predictions: Path, tmp_path: Path) -> None:
    """The second frame is broken: neither folder nor zip, nor what was written before it."""
    path = predictions / "b" / "000009.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"b/000009\.png: expected a readable image"):
        export_predictions(predictions, tmp_path / "out" / "coco", name="coco", zipped=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_left_where_the_zip_fails(
    predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, folder: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(submission, "write_zip", full)
    with pytest.raises(OSError, match="No space left"):
        export_predictions(predictions, tmp_path / "out" / "coco", name="coco", zipped=True)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder", "zip"])
def test_an_output_in_use_is_refused(predictions: Path, tmp_path: Path, kind: str) -> None:
    place = {"file": "coco", "folder": "coco/old.txt", "zip": "coco.zip"}[kind]
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("old")
    expected = "expected no such file" if kind == "zip" else "expected a new or empty folder"
    with pytest.raises(ValueError, match=rf"coco(\.zip)?: {expected}"):
        export_predictions(predictions, tmp_path / "coco", name="coco", zipped=True)
    assert (tmp_path / place).read_text() == "old"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "ade20k"}, "^format: expected one of kitti-step, .*, coco, got 'ade20k'"),
        ({"name": "cityscapes-vps"}, "^format cityscapes-vps: expected ground_truth, the JSON with the order"),
        ({"name": "bdd100k", "ground_truth": "x.json"}, "^format bdd100k: expected no ground_truth"),
        ({"name": "coco", "ground_truth": "x.json"}, r"^x\.json: expected the JSON of the ground truth, found no such"),
        (
            {"name": "coco", "label_spec": LabelSpec("room", ("floor",), ((0, 0, 0),), ())},
            "^format coco: expected predictions that share classes with coco, got those of room",
        ),
    ],
)
def test_what_cannot_be_exported(predictions: Path, tmp_path: Path, options: Any, message: str) -> None:
    for attempt in (
        lambda: export_predictions(predictions, tmp_path / "out", **options),
        lambda: check_submission(output=tmp_path / "out", **options),
    ):
        with pytest.raises(ValueError, match=message) as error:
            attempt()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_predictions_that_are_none(predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root, message in (("nothing", "found nothing"), ("empty", "found no PNG"), ("file", "found a file")):
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match=message):
            export_predictions(tmp_path / root, tmp_path / "out", name="coco")
    with pytest.raises(ValueError, match="expected an output outside of the predictions"):
        export_predictions(predictions.parent, predictions / "coco", name="coco")
    wrong = write_predictions(tmp_path / "wrong", {"0002/000001": (np.array([[99]]), np.array([[0]]))})
    with pytest.raises(DataError, match=r"0002/000001\.png: label spec kitti-step: expected class ids .*got 99"):
        export_predictions(wrong, tmp_path / "out", name="kitti-step")


def test_a_ground_truth_that_is_no_json(predictions: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text("{")
    with pytest.raises(DataError, match=r"truth\.json: expected a JSON file, got one that is broken"):
        export_predictions(predictions, tmp_path / "out", name="coco", ground_truth=truth)
    dump(truth, {"images": 3})
    with pytest.raises(DataError, match=r"truth\.json: expected a JSON with images and their ids, got TypeError"):
        export_predictions(predictions, tmp_path / "out", name="coco", ground_truth=truth)
