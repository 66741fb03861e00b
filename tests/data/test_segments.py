"""Segments of a map: a drawing by hand, and any map against pixel-by-pixel counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seq_d.data.segments import find_segments


def test_a_drawing_by_hand() -> None:
    """7 in two parts: an L of 3 pixels at the upper left and 1 pixel at the lower right."""
    found = find_segments(np.array([[7, 7, 2, 2], [7, 2, 2, 2], [2, 2, 2, 7]]))
    assert found.keys.tolist() == [2, 7]
    assert found.areas.tolist() == [8, 4]
    assert found.boxes.tolist() == [[0, 0, 4, 3], [0, 0, 4, 3]]
    assert found.paint(np.array([[0, 1], [5, 6]]))[0].tolist() == [[5, 6], [5, 6], [0, 1], [0, 1]]


def test_a_box_ends_with_the_row() -> None:
    """3 ends one row and begins the next: no box across the border."""
    found = find_segments(np.array([[1, 1, 3], [3, 1, 1]]))
    assert found.boxes.tolist() == [[0, 0, 3, 2], [0, 0, 3, 2]]
    assert find_segments(np.array([[1, 3], [1, 1]])).boxes.tolist() == [[0, 0, 2, 2], [1, 0, 1, 1]]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_any_map(seed: int, height: int, width: int) -> None:
    values = np.random.default_rng(seed).integers(0, 4, (height, width)) * 1000
    found = find_segments(values)
    np.testing.assert_array_equal(found.paint(found.keys), values)
    for key, area, box in zip(found.keys, found.areas, found.boxes):
        ys, xs = np.nonzero(values == key)
        assert area == len(ys)
        assert box.tolist() == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


@pytest.mark.parametrize("shape", [(0, 3), (4,), (2, 2, 3)])
def test_no_map(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected a \(H, W\) map with pixels, got shape"):
        find_segments(np.zeros(shape, int))
