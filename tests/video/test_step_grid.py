"""Step grids there and back, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pix2seq_d.data.formats import DataError
from pix2seq_d.video.step_grid import read_step_grid, write_step_grid


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "grid.json"
    knots = (1.0, 1 / 3, 0.1 + 0.2, 0.0)
    write_step_grid(path, knots, {"power": 0.5})
    assert read_step_grid(path) == knots
    assert json.loads(path.read_text())["about"] == {"power": 0.5}
    assert [p.name for p in path.parent.iterdir()] == ["grid.json"]


def test_a_file_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    path.write_text('{"knots": [1, 0.8, 0]}')
    assert read_step_grid(str(path)) == (1.0, 0.8, 0.0)


def test_wrong_knots_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="knots: expected two times or more, falling from 1 to 0, got"):
        write_step_grid(tmp_path / "grid.json", (1, 2, 0), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected a step grid in JSON, got "),
        (b"{", "expected a step grid in JSON, got "),
        (b"\xff\xfe\x00", "expected a step grid in JSON, got "),
        (b"[1, 0]", 'expected {"knots": [1, ..., 0]}, got list'),
        (b"{}", 'expected {"knots": [1, ..., 0]}, got knots null'),
        (b'{"knots": 1}', 'expected {"knots": [1, ..., 0]}, got knots 1'),
        (b'{"knots": [1, "a", 0]}', 'expected {"knots": [1, ..., 0]}, got knots [1, "a", 0]'),
        (b'{"knots": [true, false]}', 'expected {"knots": [1, ..., 0]}, got knots [true, false]'),
        (
            b'{"knots": [1, 0.5, 0.6, 0]}',
            "knots: expected two times or more, falling from 1 to 0, got (1, 0.5, 0.6, 0)",
        ),
        (b'{"knots": [1, NaN, 0]}', "knots: expected two times or more, falling from 1 to 0, got (1, nan, 0)"),
        (b'{"knots": []}', "knots: expected two times or more, falling from 1 to 0, got ()"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "grid.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as info:
        read_step_grid(path)
    assert str(info.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(info.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.json"):
        read_step_grid(tmp_path / "none.json")
