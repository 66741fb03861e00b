"""The table, the JSON file and the CSV files."""

import csv
import json

import numpy as np
import pytest
from map_trees import CAMVID, CAR, KITTI, ROAD, VOID

from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.engine.tables import format_table, write_csv_tables, write_json


def small_result():
    evaluator = Evaluator(KITTI, windows=(1, 2, 3))
    target = np.array([[ROAD, ROAD, CAR, CAR, CAR, VOID]])
    pred = np.array([[ROAD, ROAD, CAR, CAR, VOID, VOID]])
    for _ in range(2):
        evaluator.update(pred, pred * 0 + 1, target, target * 0 + 1, "0002")
    return evaluator.compute()


def test_table():
    blocks = [block.splitlines() for block in format_table(small_result()).rstrip("\n").split("\n\n")]
    rows = [[line.split() for line in block] for block in blocks]
    # car: 2 of 3 pixels; in IoU void is one more class with IoU 0
    assert rows[0][0] == ["Panoptic", "PQ", "SQ", "RQ", "N"]
    assert rows[0][2:] == [
        ["All", "83.33", "83.33", "100.00", "2"],
        ["Things", "66.67", "66.67", "100.00", "1"],
        ["Stuff", "100.00", "100.00", "100.00", "1"],
    ]
    assert rows[1][0] == ["VPQ", "k=1", "k=2", "k=3", "mean"]
    assert rows[1][2] == ["All", "83.33", "83.33", "-", "83.33"]  # there are only two frames
    # AQ = (4 * 4/6) / 6, IoU = (1 + 2/3 + 0) / 3, STQ = sqrt(0.4444 * 0.5556)
    assert rows[2][0] == ["Tracking", "STQ", "AQ", "IoU", "tracks", "frames"]
    assert rows[2][2:] == [["All", "49.69", "44.44", "55.56", "1", "2"]]
    assert rows[3][2] == ["All", "83.33", "80.00", "2"]
    assert len(rows) == 4
    for block in blocks:  # aligned: every line is as long as the rule below the header
        assert {len(line) for line in block} == {len(block[1])}


def test_rows_per_class():
    lines = [line.split() for line in format_table(small_result(), per_class=True).splitlines()]
    assert ["Class", "PQ", "SQ", "RQ", "TP", "FP", "FN", "IoU"] in lines
    assert ["car", "66.67", "66.67", "100.00", "2", "0", "0", "66.67"] in lines
    assert ["train", "-", "-", "-", "0", "0", "0", "-"] in lines


def test_rows_per_sequence():
    result = small_result()
    table = format_table(result, per_sequence={"0002": result})
    lines = [line.split() for line in table.splitlines()]
    scores = ["49.69", "44.44", "55.56", "83.33", "83.33", "83.33", "100.00", "83.33", "80.00", "2"]
    assert lines[-4] == ["Sequence", "STQ", "AQ", "IoU", "VPQ", "PQ", "SQ", "RQ", "mIoU", "pixels", "frames"]
    assert lines[-2:] == [["0002", *scores], ["All", *scores]]


def test_csv_tables(tmp_path):
    result = small_result()
    write_csv_tables(tmp_path / "new", result, {"0002": result})
    classes, sequences = (
        list(csv.reader((tmp_path / "new" / f"{name}.csv").read_text().splitlines()))
        for name in ("classes", "sequences")
    )
    assert classes[0] == ["Class", "PQ", "SQ", "RQ", "TP", "FP", "FN", "IoU"]
    assert [row for row in classes if row[0] in ("road", "car", "train")] == [
        ["road", "1.0", "1.0", "1.0", "2", "0", "0", "1.0"],
        ["car", repr(4 / 6), repr(4 / 6), "1.0", "2", "0", "0", repr(4 / 6)],
        ["train", "", "", "", "0", "0", "0", ""],
    ]
    assert [row[0] for row in sequences] == ["Sequence", "0002", "All"]
    assert float(sequences[1][2]) == result["stq"]["aq"] == pytest.approx(4 / 9)


def test_tables_hold_what_was_computed():
    evaluator = Evaluator(KITTI, metrics=["miou"])
    evaluator.update(*[np.array([[ROAD, CAR]])] * 4)
    table = format_table(evaluator.compute(), per_class=True, per_sequence={"a": evaluator.compute()})
    assert [line.split()[0] for line in table.splitlines() if line and line[0] != "-"][:4] == [
        "Semantic",
        "All",
        "Class",
        "road",
    ]
    assert "PQ" not in table
    assert table.splitlines()[-1].split() == ["All", "100.00", "100.00", "1"]


def test_table_of_read_back_json(tmp_path):
    result = small_result()
    write_json(tmp_path / "new" / "result.json", result)
    read = json.loads((tmp_path / "new" / "result.json").read_text())
    assert read == result
    assert format_table(read, per_class=True) == format_table(result, per_class=True)


def test_table_without_things():
    evaluator = Evaluator(CAMVID)
    evaluator.update(np.array([[0, 1, 1]]), None, np.array([[0, 1, 255]]), None)
    table = format_table(evaluator.compute())
    assert "VPQ" not in table
    assert "STQ" not in table
    assert "mIoU" in table


def test_table_of_nothing():
    assert "nan" not in format_table(Evaluator(KITTI).compute(), per_class=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_without_nan(tmp_path, value):
    path = tmp_path / "result.json"
    write_json(path, {"pq": 1.0})
    with pytest.raises(ValueError, match=r"result\.json: expected finite numbers only, got NaN or infinity"):
        write_json(path, {"pq": value})
    assert json.loads(path.read_text()) == {"pq": 1.0}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
