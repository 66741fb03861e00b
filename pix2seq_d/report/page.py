"""The page of a report: text and data put into it so that nothing in them can become code, and its tables of scores.

Data stand in JSON blocks without a "<"; the policy of the page runs the one script that it is written with, by its
hash, and loads nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any


def page_head(title: str) -> str:
    """The page up to its data."""
    style, script = _text("page.css"), _text("page.js")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n"
    )
    return head + _text("page.html").replace("{title}", html.escape(title))


def data_block(kind: str, values: Any) -> str:
    """A JSON block that the script finds by its class."""
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f'<script type="application/json" class="{kind}">{text.translate(_NO_MARKUP)}</script>\n'


def page_foot() -> str:
    """The script and the end of the page."""
    return f"<script>{_text('page.js')}</script>\n</body>\n</html>\n"


def score_tables(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables of what `write_json` of engine/tables.py has written, of what is there: title, header, rows."""
    tables = [_summary(scores)]
    if sequences := _part(scores, "stq").get("per_sequence"):
        rows = [[name, *(_percent(s, key) for key in ("stq", "aq", "iou"))] for name, s in sequences.items()]
        tables.append({"title": "Sequences", "header": ["Sequence", "STQ", "AQ", "IoU"], "rows": rows})
    if classes := _part(scores, "pq").get("per_class"):
        ious = _part(scores, "miou").get("per_class", {})
        rows = [
            [name, *(_percent(s, key) for key in ("pq", "sq", "rq")), _percent(ious.get(name, {}), "iou")]
            for name, s in classes.items()
            if s.get("valid") or ious.get(name, {}).get("valid")
        ]
        tables.append({"title": "Classes", "header": ["Class", "PQ", "SQ", "RQ", "IoU"], "rows": rows})
    return [table for table in tables if table["rows"]]


def _summary(scores: Mapping[str, Any]) -> dict[str, Any]:
    wanted = (
        ("STQ", "stq", "stq"),
        ("AQ", "stq", "aq"),
        ("IoU of STQ", "stq", "iou"),
        ("PQ", "pq", "pq"),
        ("PQ things", "pq", "pq_things"),
        ("PQ stuff", "pq", "pq_stuff"),
        ("VPQ", "vpq", "vpq"),
        ("mIoU", "miou", "miou"),
        ("Pixel accuracy", "miou", "pixel_accuracy"),
    )
    rows = [[label, _percent(_part(scores, part), key)] for label, part, key in wanted if key in _part(scores, part)]
    return {"title": "All frames", "header": ["Score", "%"], "rows": rows}


def _part(scores: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = scores.get(key)
    return part if isinstance(part, Mapping) else {}


def _percent(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return f"{100 * value:.2f}" if isinstance(value, int | float) and values.get("valid", True) else "-"


def _text(name: str) -> str:
    return (resources.files("pix2seq_d.report") / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


_NO_MARKUP = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}  # no end of the block, no comment
