"""A folder of results to a page: what it holds, what it leaves out, what stops it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from page_data import blocks, picture
from result_folder import SIZE, SPEC, write_results

from pix2seq_d.data.formats import DataError, write_image, write_kitti_step
from pix2seq_d.data.sources import open_sources
from pix2seq_d.report.write import write_report


def test_frames_in_order_with_their_layers(tmp_path: Path) -> None:
    source, output = write_results(tmp_path)
    assert write_report(output, open_sources(source)) == output / "report.html"
    shown = blocks(output / "report.html", "frame-data")
    assert [(f["sequence"], f["name"]) for f in shown] == [(s, str(t)) for s in (0, 1) for t in range(3)]
    assert all(f["size"] == list(SIZE) for f in shown)
    assert [f["segments"][0][5] for f in shown[:3]] == [0, 1, 2]  # the object moves
    (run,) = blocks(output / "report.html", "run-data")
    keys = [key for key, _ in run["layers"]]
    assert keys == ["frame", "panoptic", "class", "instance", "confidence"]
    assert all(list(f["images"]) == keys for f in shown)
    assert np.abs(picture(shown[2]["images"]["frame"], "RGB").astype(int) - (200, 40, 10)).max() <= 4
    assert run["sequences"][1] == {"id": "b", "fps": 10.0, "note": "3 frames", "count": 3}
    assert run["classes"]["0"] == ["ground", "#008000", False]
    assert run["settings"] == [["seed", "3"], ["input", str(source)]]
    assert (run["tables"], run["notes"], run["stills"]) == ([], [], False)


def test_several_samples(tmp_path: Path) -> None:
    source, output = write_results(tmp_path, sequences=("a",), samples=True)
    (output / "segments" / "a" / "1.json").unlink()
    write_report(output, open_sources(source))
    (run,) = blocks(output / "report.html", "run-data")
    assert run["layers"][-2:] == [["uncertainty-R", "Uncertain class"], ["uncertainty-G", "Uncertain object"]]
    assert run["agreement"]
    shown = blocks(output / "report.html", "frame-data")
    assert [[row[4] for row in f["segments"]] for f in shown] == [[0.25, 0.99], [None, None], [0.25, 0.99]]
    opacity = picture(shown[2]["images"]["uncertainty-R"])[..., 3].astype(int)
    assert (np.abs(opacity[:, :20] - 102) <= 8).all()
    assert (opacity[:, 20:] == 0).all()
    (output / "segments" / "a" / "0.json").write_text("{")
    with pytest.raises(DataError, match=r"segments/a/0\.json: expected the segments of a frame, found none"):
        write_report(output, open_sources(source))


def test_a_single_sample(tmp_path: Path) -> None:
    """Folders that a run with several samples has left, without a file."""
    source, output = write_results(tmp_path, sequences=("a",))
    (output / "uncertainty" / "a").mkdir(parents=True)
    (output / "segments").mkdir()
    write_report(output, open_sources(source))
    (run,) = blocks(output / "report.html", "run-data")
    assert [key for key, _ in run["layers"]][-1] == "confidence"
    assert not run["agreement"]


def test_numbers_among_the_settings_are_short(tmp_path: Path) -> None:
    grid = {"step_grid": [1.0, 0.981161972852582, 0.0], "td_steps": 2.0}
    source, output = write_results(tmp_path, sequences=("a",), settings=grid)
    write_report(output, open_sources(source))
    (run,) = blocks(output / "report.html", "run-data")
    assert dict(run["settings"])["step_grid"] == "1, 0.981162, 0"
    assert dict(run["settings"])["td_steps"] == "2"


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    source, output = write_results(tmp_path)
    pages = [write_report(output, open_sources(source), path=tmp_path / name).read_bytes() for name in ("1", "2")]
    assert pages[0] == pages[1]


def test_many_frames_become_every_second_one(tmp_path: Path) -> None:
    """5 frames of 8 in all: 2 a sequence at most, so every third of 5 is shown: 0 and 3."""
    source, output = write_results(tmp_path, count=5)
    write_report(output, open_sources(source), max_frames=5)
    assert [f["name"] for f in blocks(output / "report.html", "frame-data")] == ["0", "3", "0", "3"]
    (run,) = blocks(output / "report.html", "run-data")
    assert run["sequences"][0] == {"id": "a", "fps": 3.3333, "note": "2 of 5 frames, every 3rd one", "count": 2}


def test_many_sequences_are_cut(tmp_path: Path) -> None:
    source, output = write_results(tmp_path, sequences=("a", "b", "c"), count=2)
    write_report(output, open_sources(source), max_frames=2)
    (run,) = blocks(output / "report.html", "run-data")
    assert [s["id"] for s in run["sequences"]] == ["a", "b"]
    assert run["notes"] == ["The first 2 of 3 sequences are shown."]


def test_frames_without_a_map_are_left_out(tmp_path: Path) -> None:
    source, output = write_results(tmp_path, confidence=False)
    (source / "a" / "1.png").write_text("broken, skipped by the run")
    (output / "panoptic" / "a" / "1.png").unlink()
    write_report(output, open_sources(source))
    assert [f["name"] for f in blocks(output / "report.html", "frame-data")] == ["0", "2", "0", "1", "2"]
    (run,) = blocks(output / "report.html", "run-data")
    assert run["sequences"][0]["note"] == "2 of 3 frames"
    assert "confidence" not in dict(run["layers"])


def test_pictures_are_bounded(tmp_path: Path) -> None:
    source, output = write_results(tmp_path, sequences=("a",), count=1)
    write_report(output, open_sources(source), max_side=32)
    (shown,) = blocks(output / "report.html", "frame-data")
    assert {picture(uri).shape for uri in shown["images"].values()} == {(16, 32, 4)}
    assert shown["size"] == list(SIZE)  # boxes are of the frame


def test_stills_are_called_images(tmp_path: Path) -> None:
    """And every one has its own size."""
    source, output = write_results(tmp_path, sequences=("a",), settings={"stills": True})
    write_image(source / "a" / "1.png", np.zeros((12, 30, 3), np.uint8))
    for kind in ("panoptic", "confidence"):
        (output / kind / "a" / "1.png").unlink()
    write_kitti_step(output / "panoptic" / "a" / "1.png", np.zeros((12, 30), np.uint8), np.zeros((12, 30), np.int32))
    write_report(output, open_sources(source))
    assert [f["size"] for f in blocks(output / "report.html", "frame-data")] == [[20, 40], [12, 30], [20, 40]]
    (run,) = blocks(output / "report.html", "run-data")
    assert (run["stills"], run["sequences"][0]["note"]) == (True, "3 images")
    write_report(output, open_sources(source), max_frames=2)
    (run,) = blocks(output / "report.html", "run-data")
    assert run["sequences"][0]["note"] == "2 of 3 images, every 2nd one"


def test_scores(tmp_path: Path) -> None:
    source, output = write_results(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({"miou": {"miou": 0.5}}))
    write_report(output, open_sources(source), scores=tmp_path / "metrics.json")
    (run,) = blocks(output / "report.html", "run-data")
    assert run["tables"] == [{"title": "All frames", "header": ["Score", "%"], "rows": [["mIoU", "50.00"]]}]
    for text, found in (("{", "none that can be read"), ("[]", "got list")):
        (tmp_path / "metrics.json").write_text(text)
        with pytest.raises(DataError, match=rf"metrics\.json: expected the JSON of evaluate\.py, .*{found}"):
            write_report(output, open_sources(source), scores=tmp_path / "metrics.json")


def test_what_stops_it_leaves_the_old_page(tmp_path: Path) -> None:
    source, output = write_results(tmp_path)
    sources = open_sources(source)
    (output / "report.html").write_text("old")
    write_image(source / "b" / "1.png", np.zeros((21, 40, 3), np.uint8))
    with pytest.raises(DataError, match=r"b/1\.png: expected the size of its map, 20x40, found 21x40"):
        write_report(output, sources)
    (source / "b" / "1.png").write_text("x")
    with pytest.raises(DataError, match=r"b/1\.png: expected a PNG"):
        write_report(output, sources)
    for name in ("max_frames", "max_side"):
        with pytest.raises(ValueError, match=f"{name}: expected at least"):
            write_report(output, sources, **{name: 0})
    (tmp_path / "x").mkdir()
    write_image(tmp_path / "x" / "9.png", np.zeros((20, 40, 3), np.uint8))
    with pytest.raises(DataError, match=r"expected maps of the input's frames in panoptic/, found none"):
        write_report(output, open_sources(tmp_path / "x"))
    assert (output / "report.html").read_text() == "old"
    assert not list(output.glob(".*"))


def test_a_record_without_classes(tmp_path: Path) -> None:
    source, output = write_results(tmp_path)
    record = json.loads((output / "inference.json").read_text())
    del record["label_spec"], record["skipped"]  # as before they were written
    (output / "inference.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"expected the classes in inference\.json, found none"):
        write_report(output, open_sources(source))
    write_report(output, open_sources(source), label_spec=SPEC)
