"""docs/datasets.md has every dataset and every format of a submission, and README leads to both pages of docs/."""

from __future__ import annotations

import re
from pathlib import Path

from pix2seq_d.build import READERS
from pix2seq_d.data.submission import SUBMISSION_FORMATS

ROOT = Path(__file__).parents[1]


def table() -> list[list[str]]:
    """The rows of the page's first table: name, layout, read, written, licence, source."""
    lines = (ROOT / "docs" / "datasets.md").read_text("utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]


def test_every_dataset_is_in_the_table_once() -> None:
    rows = table()
    assert all(len(row) == 6 and all(row) for row in rows)
    assert sorted(row[0].strip("`") for row in rows) == sorted(["synthetic", *READERS])


def test_every_format_is_in_the_table_once() -> None:
    names = [name for row in table() for name in re.findall("`([a-z0-9-]+)`:", row[3])]
    assert sorted(names) == sorted(SUBMISSION_FORMATS)


def test_readme_leads_to_the_pages() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for page in ("docs/datasets.md", "docs/own_dataset.md"):
        assert f"({page})" in text
        assert (ROOT / page).is_file()
