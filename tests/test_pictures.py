"""Text, grids, contact sheets, line plots, and pictures on disk."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2seq_d import pictures
from pix2seq_d.pictures import (
    captioned,
    check_picture,
    contact_sheet,
    grid,
    plot_curve,
    replacing,
    resize_picture,
    save_picture,
    text_picture,
)

BLUE, ORANGE = (0, 114, 178), (213, 94, 0)  # first and second line of a plot


def plain(height: int, width: int, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize(
    ("picture", "error"),
    [
        (np.zeros((2, 2, 3)), TypeError),
        ([[1]], TypeError),
        (np.zeros((2, 2), np.uint8), ValueError),
        (np.zeros((2, 2, 4), np.uint8), ValueError),
        (np.zeros((0, 2, 3), np.uint8), ValueError),
    ],
)
def test_check_picture(picture: np.ndarray, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"thing: expected .*, got"):
        check_picture("thing", picture)


# Disk


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_save_round_trip(tmp_path: Path, suffix: str) -> None:
    picture = np.random.default_rng(0).integers(90, 110, (20, 30, 3), np.uint8)
    path = tmp_path / "new" / f"a{suffix}"
    save_picture(path, picture)
    assert np.abs(load(path).astype(int) - picture).max() <= (30 if suffix == ".jpg" else 0)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_save_rejects_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.tif: expected a suffix of .png"):
        save_picture(tmp_path / "a.tif", plain(2, 2))
    assert not list(tmp_path.iterdir())


def test_replacing_leaves_the_old_file_when_the_body_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# Text and grids


def test_resize_nearest_makes_no_new_colour_and_bicubic_does() -> None:
    picture = plain(2, 2, 0)
    picture[0] = 200
    assert set(np.unique(resize_picture(picture, (6, 8), smooth=False))) == {0, 200}
    smooth = resize_picture(picture, (6, 8))
    assert smooth.shape == (6, 8, 3)
    assert len(np.unique(smooth)) > 2


def test_text_has_the_size_asked_for_and_fits() -> None:
    assert text_picture("a", size=20).shape[0] == 30
    narrow = text_picture("a rather long caption", size=20, width=110)
    assert narrow.shape == (30, 110, 3)
    ink_rows = [int((picture < 128).any(axis=(1, 2)).sum()) for picture in (narrow, text_picture("a g", size=20))]
    assert 4 < ink_rows[0] < ink_rows[1]  # smaller letters
    assert (text_picture("a", colour=(255, 0, 0)) != text_picture("a")).any()
    assert (text_picture("a") != text_picture("b", width=text_picture("a").shape[1])).any()


def test_captioned_keeps_the_picture_below_the_text() -> None:
    picture = plain(10, 60)
    sheet = captioned(picture, "frame", size=10)
    np.testing.assert_array_equal(sheet[15:], picture)
    assert sheet[:15].min() < 128
    assert captioned(picture, "frame", size=12).shape == (28, 60, 3)


def test_grid_places_pictures() -> None:
    sheet = grid([[plain(4, 6, 10), plain(3, 5, 20)], [plain(2, 7, 30)]], gap=2)
    assert sheet.shape == (2 + 4 + 2 + 2 + 2, 2 + 7 + 2 + 5 + 2, 3)
    assert (sheet[2:6, 2:8] == 10).all()
    assert (sheet[2:5, 11:16] == 20).all()
    assert (sheet[8:10, 2:9] == 30).all()
    assert (sheet == 255).sum() == sheet.size - 3 * (24 + 15 + 14)
    assert grid([[plain(4, 6)]], gap=0).shape == (4, 6, 3)


def test_grid_errors() -> None:
    with pytest.raises(ValueError, match="rows: expected at least one picture"):
        grid([])
    with pytest.raises(ValueError, match="rows: expected at least one picture"):
        grid([[]])
    with pytest.raises(TypeError, match="picture 1 of row 0"):
        grid([[plain(1, 1), np.zeros((1, 1, 3))]])


def test_contact_sheet_captions_and_columns() -> None:
    rows = [[plain(30, 60, 10), plain(30, 60, 20)], [plain(30, 60, 30), plain(30, 60, 40)]]
    bare = contact_sheet(rows)
    assert bare.shape == (3 * 8 + 60, 3 * 8 + 120, 3)
    headed = contact_sheet(rows, columns=["left", "right"])
    assert (headed.shape[0], headed.shape[1]) == (bare.shape[0] + 24 + 8, bare.shape[1])
    named = contact_sheet(rows, captions=["first", "second"], columns=["left", "right"])
    assert named.shape[0] == headed.shape[0]
    assert named.shape[1] > headed.shape[1] + 8
    assert all((named == value).all(axis=-1).sum() >= 1800 for value in (10, 20, 30, 40))
    assert contact_sheet(rows, columns=["left", "right"], size=24).shape[0] > headed.shape[0]


def test_contact_sheet_errors() -> None:
    with pytest.raises(ValueError, match="rows: expected equally many pictures in each"):
        contact_sheet([[plain(1, 1)], [plain(1, 1), plain(1, 1)]])
    with pytest.raises(ValueError, match="rows: expected equally many pictures in each, got no row"):
        contact_sheet([])
    with pytest.raises(ValueError, match="captions: expected 1, one for each row, got 2"):
        contact_sheet([[plain(1, 1)]], captions=["a", "b"])
    with pytest.raises(ValueError, match="columns: expected 1, one for each column, got 0"):
        contact_sheet([[plain(1, 1)]], columns=[])


# Line plots


def plot(path: Path, series: dict[str, list[tuple[float, float]]], **changes: object) -> np.ndarray:
    arguments = {"title": "Loss", "x_label": "step", "y_label": "nats", "size": (300, 400)} | changes
    plot_curve(series, path, **arguments)  # type: ignore[arg-type]
    return load(path)


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(N, 2) rows and columns of the pixels that have the colour."""
    return np.argwhere(np.abs(picture.astype(int) - colour).max(axis=-1) < 12)


def test_plot_draws_the_line_inside_the_axes(tmp_path: Path) -> None:
    falling = where(plot(tmp_path / "a.png", {"loss": [(0, 3), (50, 2), (100, 1)]}), BLUE)
    rising = where(plot(tmp_path / "b.png", {"loss": [(0, 1), (50, 2), (100, 3)]}), BLUE)
    for line in (falling, rising):
        assert line[:, 0].min() > 40  # below the heading
        assert line[:, 0].max() < 252  # above the x axis
        assert line[:, 1].min() > 25
        assert line[:, 1].max() < 385
        assert np.ptp(line[:, 1]) > 300  # spans the axes
    assert np.corrcoef(falling.T)[0, 1] > 0.95  # rows count downwards
    assert np.corrcoef(rising.T)[0, 1] < -0.95


def test_plot_of_two_series_has_a_legend_and_two_colours(tmp_path: Path) -> None:
    one = plot(tmp_path / "a.png", {"train": [(0, 3), (100, 1)]})
    two = plot(tmp_path / "b.png", {"train": [(0, 3), (100, 1)], "val": [(0, 2), (100, 2)]})
    assert not len(where(one, ORANGE))
    assert len(where(two, ORANGE)) > 300
    assert where(two, BLUE)[:, 0].min() < where(one, BLUE)[:, 0].min()  # the legend's stroke


@pytest.mark.parametrize(
    "change", [{"title": "PQ"}, {"x_label": "epoch"}, {"y_label": "bits"}, {"size": (300, 500)}, {"size": (320, 400)}]
)
def test_every_argument_of_plot_has_an_effect(tmp_path: Path, change: dict[str, object]) -> None:
    series = {"loss": [(0.0, 3.0), (100.0, 1.0)]}
    before, after = plot(tmp_path / "a.png", series), plot(tmp_path / "b.png", series, **change)
    assert before.shape != after.shape or (before != after).any()


def test_plot_scales_show_in_the_tick_labels(tmp_path: Path) -> None:
    small = plot(tmp_path / "a.png", {"loss": [(0, 1), (100, 3)]})
    large = plot(tmp_path / "b.png", {"loss": [(0, 1), (100000, 3)]})
    assert (small[252:] != large[252:]).any()
    np.testing.assert_array_equal(small[:250], large[:250])


def test_plot_leaves_gaps_at_values_that_are_not_finite(tmp_path: Path) -> None:
    whole = plot(tmp_path / "a.png", {"loss": [(x, 1.0 + (x == 0)) for x in range(41)]})
    gap = plot(tmp_path / "b.png", {"loss": [(x, math.nan if 10 < x < 30 else 1.0 + (x == 0)) for x in range(41)]})
    middle = slice(180, 240)
    assert len(where(whole[:, middle], BLUE))
    assert not len(where(gap[:, middle], BLUE))


def test_a_logarithmic_axis_makes_a_decay_straight(tmp_path: Path) -> None:
    points = [(float(x), 10.0 ** (-x / 25)) for x in range(101)]
    straight = where(plot(tmp_path / "a.png", {"loss": points}, log_y=True), BLUE)
    bent = where(plot(tmp_path / "b.png", {"loss": points}), BLUE)
    assert np.corrcoef(straight.T)[0, 1] > 0.999
    assert np.corrcoef(bent.T)[0, 1] < 0.9
    with pytest.raises(ValueError, match="series: expected at least one finite point"):
        plot(tmp_path / "c.png", {"loss": [(0, 0), (1, -1)]}, log_y=True)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.002, 300, ["0.01", "0.1", "1", "10", "100"]),
        (0.04, 0.9, ["0.05", "0.1", "0.2", "0.5"]),
        (0.12, 0.19, ["0.12", "0.14", "0.16", "0.18"]),
        (3.0, 60000.0, ["10", "100", "1000", "10000"]),
    ],
)
def test_labels_of_a_logarithmic_axis(low: float, high: float, labels: list[str]) -> None:
    ticks = pictures._y_ticks((math.log10(low), math.log10(high)), True)
    assert [label for _, label in ticks] == labels
    assert [10**place for place, _ in ticks] == pytest.approx([float(label) for label in labels])


@pytest.mark.parametrize(
    "points", [[(3.0, 2.0)], [(0.0, 0.0), (10.0, 0.0)], [(0.0, -1e-9), (1.0, 1e-9)], [(1e9, 1e12)]]
)
def test_plot_of_degenerate_data(tmp_path: Path, points: list[tuple[float, float]]) -> None:
    assert len(where(plot(tmp_path / "a.png", {"loss": points}), BLUE)) > 4


def test_plot_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="series: expected at least one finite point"):
        plot(tmp_path / "a.png", {})
    with pytest.raises(ValueError, match="series: expected at least one finite point"):
        plot(tmp_path / "a.png", {"loss": [(0, math.nan), (math.inf, 1)]})
    with pytest.raises(ValueError, match="size: expected at least"):
        plot(tmp_path / "a.png", {"loss": [(0, 1)]}, size=(100, 400))
    with pytest.raises(ValueError, match="expected a suffix"):
        plot(tmp_path / "a.svg", {"loss": [(0, 1)]})
    assert not list(tmp_path.iterdir())
