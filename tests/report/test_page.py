"""The text of a page: nothing in the data becomes markup, the policy knows the script, and the tables of scores."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import numpy as np

from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.labels import get_label_spec
from pix2seq_d.report.page import data_block, page_foot, page_head, score_tables


def test_data_hold_no_markup() -> None:
    values = {"name": "</script><script>alert(1)</script><!--", "sign": "<&> \u2028 ü"}
    block = data_block("frame-data", values)
    inner = block.removeprefix('<script type="application/json" class="frame-data">').removesuffix("</script>\n")
    assert not set("<>&") & set(inner)
    assert json.loads(inner) == values


def test_the_title_is_escaped() -> None:
    head = page_head("<img src=x onerror=alert(1)>")
    assert "<img" not in head
    assert head.count("&lt;img src=x onerror=alert(1)&gt;") == 2


def test_the_policy_names_the_style_and_the_script_by_hash() -> None:
    head, foot = page_head("t"), page_foot()
    policy = re.search('Content-Security-Policy" content="([^"]*)"', head)
    assert policy is not None
    for text in (head.split("<style>")[1].split("</style>")[0], foot.split("<script>")[1].split("</script>")[0]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy.group(1)
    assert policy.group(1).startswith("default-src 'none'; img-src data:;")


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = page_head("t") + page_foot()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|src=", page)


def test_score_tables() -> None:
    """One frame of two pixels, road and a car, predicted right."""
    evaluator = Evaluator(get_label_spec("kitti-step"))
    evaluator.update(np.array([[0, 13]]), np.array([[0, 1]]), np.array([[0, 13]]), np.array([[0, 1]]), "0002")
    summary, sequences, classes = score_tables(json.loads(json.dumps(evaluator.compute())))
    assert ["STQ", "100.00"] in summary["rows"]
    assert ["mIoU", "100.00"] in summary["rows"]
    assert sequences["rows"] == [["0002", "100.00", "100.00", "100.00"]]
    assert classes["header"] == ["Class", "PQ", "SQ", "RQ", "IoU"]
    assert classes["rows"] == [[name, "100.00", "100.00", "100.00", "100.00"] for name in ("road", "car")]


def test_scores_of_another_kind_are_no_tables() -> None:
    assert score_tables({}) == []
    assert score_tables({"pq": 3, "stq": {"stq": "x", "per_sequence": {}}}) == [
        {"title": "All frames", "header": ["Score", "%"], "rows": [["STQ", "-"]]}
    ]
