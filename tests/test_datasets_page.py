"""docs/datasets.md names every dataset that can be chosen, and README leads to both pages of docs/."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from pix2seq_d.build import READERS
from pix2seq_d.config import DataConfig

ROOT = Path(__file__).parents[1]
DATASETS = {"synthetic", *READERS}


def table() -> list[list[str]]:
    """The rows of the page's table: name, layout, read, written, licence, source."""
    lines = (ROOT / "docs" / "datasets.md").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return rows[2:]


def test_every_dataset_is_in_the_table() -> None:
    rows = table()
    assert all(len(row) == 6 and all(row) for row in rows)
    names = [row[0].strip("`") for row in rows]
    assert len(set(names)) == len(names)
    assert set(names) >= DATASETS


def test_every_reader_can_be_chosen() -> None:
    assert set(get_args(get_type_hints(DataConfig)["dataset"])) >= DATASETS


@pytest.mark.xfail(strict=True, reason="some of the readers are not there yet")
def test_every_dataset_of_the_table_has_a_reader() -> None:
    assert {row[0].strip("`") for row in table()} == DATASETS


def test_readme_leads_to_the_pages() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for page in ("docs/datasets.md", "docs/own_dataset.md"):
        assert f"({page})" in text
        assert (ROOT / page).is_file()
