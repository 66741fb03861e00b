"""The page of failures: what it says, which frames it shows, and that it needs no other file."""

from __future__ import annotations

import base64
import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from map_trees import CAMVID, CAR, KITTI, ROAD, VOID
from PIL import Image

from pix2seq_d.data.formats import write_image, write_kitti_step, write_png
from pix2seq_d.engine.failures import FrameScore, SequenceFailures
from pix2seq_d.engine.pairs import FolderPairs
from pix2seq_d.engine.report import PANEL_WIDTH, frame_picture, worst_frames, write_report
from pix2seq_d.engine.scoring import Scoring, score

ALL = Scoring(per_sequence=True, failures=True)


@pytest.fixture
def pairs(tmp_path: Path) -> FolderPairs:
    """Two videos: in "bad & <ugly>" the car changes its id in frame 1, and a road pixel is a car in frame 2."""
    classes = np.array([[ROAD] * 4 + [CAR] * 3 + [VOID]])
    ids = np.array([[0] * 4 + [1] * 3 + [0]])
    for sequence_id in ("bad & <ugly>", "good"):
        for k in range(3):
            name = f"{sequence_id}/{k:06d}.png"
            write_image(tmp_path / "images" / name, np.full((1, 8, 3), 120, np.uint8))
            write_kitti_step(tmp_path / "panoptic_maps" / name, classes, ids)
            pred_classes, pred_ids = classes.copy(), ids.copy()
            if sequence_id != "good" and k > 0:
                pred_ids[ids == 1] = 4
            if sequence_id != "good" and k == 2:
                pred_classes[0, 0] = CAR
            write_kitti_step(tmp_path / "pred" / name, pred_classes, pred_ids)
    return FolderPairs(tmp_path / "pred", tmp_path / "panoptic_maps", KITTI)


def table(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text().splitlines()))


def test_the_page_and_its_tables(pairs: FolderPairs, tmp_path: Path) -> None:
    path = write_report(tmp_path / "report", pairs, score(pairs, ALL, num_workers=0), title="test")
    page = path.read_text()
    assert "<h1>Evaluation of 6 frames in 2 sequences: test</h1>" in page
    assert "<ugly>" not in page
    assert page.index("<td class=l>bad &amp; &lt;ugly&gt;</td>") < page.index("<td class=l>good</td>"), "worst first"
    # one of 24 road pixels; it is the only error
    row = "<td class=l>road</td><td class=l>car</td><td>1</td><td>4.17</td><td>100.00</td>"
    assert row in page
    assert "<td>1</td><td class=l>000001 (car 1)</td>" in page
    assert page.count("<figure>") == 2, "one frame with a mistake, and the legend"
    # PQ of frame 2: road 3/4; car 3/3; and a car of one pixel without id
    assert "<figcaption>bad &amp; &lt;ugly&gt;/000002: PQ 70.83, right pixels 85.71</figcaption>" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    folder = tmp_path / "report"
    assert sorted(p.name for p in folder.iterdir()) == [
        "classes.csv", "confusion.csv", "frames.csv", "id_switches.csv", "report.html", "sequences.csv",
    ]  # fmt: skip
    switches = table(folder / "id_switches.csv")
    assert switches[1:] == [["bad & <ugly>", "bad & <ugly>/000001", "car", "1", "1", "4"]]
    confusion = table(folder / "confusion.csv")
    assert confusion[0][1:] == [row[0] for row in confusion[1:]] == [*KITTI.class_names, "void"]
    assert (confusion[1 + ROAD][1 + CAR], confusion[1 + ROAD][1 + ROAD]) == ("1", "23")
    assert [float(row[2]) < 1 for row in table(folder / "frames.csv")[1:]] == [False, False, True, False, False, False]


def test_nothing_to_blame(pairs: FolderPairs, tmp_path: Path) -> None:
    perfect = FolderPairs(tmp_path / "panoptic_maps", tmp_path / "panoptic_maps", KITTI)
    page = write_report(tmp_path / "report", perfect, score(perfect, ALL, num_workers=0), title="x").read_text()
    assert "No frame has a mistake." in page
    assert "<img" not in page
    assert write_report(tmp_path / "report", pairs, score(pairs, ALL, num_workers=0), title="x").read_text() != page


def test_classes_without_instances(tmp_path: Path) -> None:
    """No section of id switches, no image at hand."""
    for side, values in (("gt", [[0, 1, 11]]), ("pred", [[0, 0, 0]])):
        write_png(tmp_path / side / "0016E5_07959.png", np.array(values, np.uint8))
    pairs = FolderPairs(tmp_path / "pred", tmp_path / "gt", CAMVID)
    page = write_report(tmp_path / "report", pairs, score(pairs, ALL, num_workers=0), title="camvid").read_text()
    assert "Id switches" not in page
    assert not (tmp_path / "report" / "id_switches.csv").exists()
    assert page.count("<figure>") == 2


def test_a_broken_image_is_left_out(pairs: FolderPairs, tmp_path: Path) -> None:
    scores = score(pairs, ALL, num_workers=0)
    whole = write_report(tmp_path / "report", pairs, scores, title="x").stat().st_size
    (tmp_path / "images/bad & <ugly>/000002.png").write_bytes(b"cut off")
    assert 0 < write_report(tmp_path / "report", pairs, scores, title="x").stat().st_size < whole


def test_sequences_with_nothing_to_score_are_not_the_worst(pairs: FolderPairs, tmp_path: Path) -> None:
    """One has no track, so no STQ; in the other nothing is labelled."""
    for sequence_id, class_id in (("a road", ROAD), ("a void", VOID)):
        for side in ("panoptic_maps", "pred"):
            write_kitti_step(tmp_path / side / sequence_id / "0.png", np.full((1, 8), class_id), np.zeros((1, 8), int))
    pairs = FolderPairs(tmp_path / "pred", tmp_path / "panoptic_maps", KITTI)
    page = write_report(tmp_path / "report", pairs, score(pairs, ALL, num_workers=0), title="x").read_text()
    places = [page.index(f"<td class=l>{name}</td>") for name in ("bad &amp; &lt;ugly&gt;", "good", "a road", "a void")]
    assert places == sorted(places)
    header, *rows = table(tmp_path / "report/sequences.csv")
    road, void = (dict(zip(header, row)) for row in rows if row[0].startswith("a "))
    assert [road[name] for name in ("STQ", "AQ", "IoU", "PQ", "mIoU")] == ["", "", "1.0", "1.0", "1.0"]
    assert {name for name in header if void[name] == ""} == {*header} - {"Sequence", "IoU", "frames"}


def test_a_class_of_which_nothing_is_right_is_shown(tmp_path: Path) -> None:
    for side, values in (("gt", [[0, 1, 11]]), ("pred", [[0, 0, 0]])):
        write_png(tmp_path / side / "0016E5_07959.png", np.array(values, np.uint8))
    pairs = FolderPairs(tmp_path / "pred", tmp_path / "gt", CAMVID)
    scores = score(pairs, Scoring(metrics=("miou",), per_sequence=True, failures=True), num_workers=0)
    page = write_report(tmp_path / "report", pairs, scores, title="x").read_text()
    shown = {name for name in CAMVID.class_names if f"<tr><td class=l>{name}</td><td>" in page}
    assert shown == {CAMVID.class_names[0], CAMVID.class_names[1]}


def test_scores_without_failures_are_refused(pairs: FolderPairs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scores: expected those of all sequences"):
        write_report(tmp_path / "report", pairs, score(pairs, Scoring(), num_workers=0), title="x")


def test_the_worst_frames_are_not_neighbours() -> None:
    def failures(*pqs: float) -> SequenceFailures:
        return SequenceFailures(np.zeros((1, 1)), [], [FrameScore(str(k), k, pq, 0.5) for k, pq in enumerate(pqs)])

    found = {"a": failures(0.2, 0.1, *[0.9] * 9, 0.3), "b": failures(0.15), "c": failures(1.0)}
    found["c"].frames[0] = FrameScore("0", 0, 1.0, 1.0)  # without a mistake
    assert [(key, f.place) for key, f in worst_frames(found, 9)] == [("a", 1), ("b", 0), ("a", 11)]
    assert [(key, f.place) for key, f in worst_frames(found, 1)] == [("a", 1)]


@pytest.mark.parametrize(("width", "panel"), [(8, 640), (300, 600), (1242, 640)])
def test_pictures_are_of_one_width(width: int, panel: int) -> None:
    height = max(4, width // 4)
    maps = np.zeros((height, width), np.uint8), np.zeros((height, width), np.int32)
    wrong = np.full((height, width), CAR, np.uint8), np.ones((height, width), np.int32)
    picture = frame_picture(np.zeros((height, width, 3), np.uint8), wrong, maps, KITTI)
    assert picture.shape[1] == 2 * panel + 3 * 8 <= 2 * PANEL_WIDTH + 3 * 8
    assert picture[-12, -12].tolist() == [214, 39, 40], "another class"


def test_pictures_survive_the_page(pairs: FolderPairs, tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", pairs, score(pairs, ALL, num_workers=0), title="x").read_text()
    shown = [Image.open(io.BytesIO(base64.b64decode(t))) for t in re.findall(r"base64,([^\"]+)\"", page)]
    assert [image.format for image in shown] == ["JPEG", "JPEG"]
