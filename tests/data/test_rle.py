"""COCO's RLE: counts by hand, strings that pycocotools wrote, and round trips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seq_d.data.rle import compress_counts, decode_mask, encode_segments


def test_counts_by_hand() -> None:
    """Columns 0110 and 1000: outside 1, inside 2, outside 1, inside 1, outside 3."""
    mask = np.array([[0, 1], [1, 0], [1, 0], [0, 0]])
    assert dict(encode_segments(mask))[1] == compress_counts(np.array([1, 2, 1, 1, 3]))
    assert dict(encode_segments(mask))[0] == compress_counts(np.array([0, 1, 2, 1, 1, 3]))


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([1, 2, 1, 1, 3], "121O2"),  # 1 - 2 = -1 -> 31 -> "O", 3 - 1 = 2
        ([15], "?"),
        ([16], "`0"),  # bit 4 is the sign: a second group says that it is none
        ([1000, 1], "Xo01"),  # 8 + 31 * 32: 8 -> "X" with a following group, 31 -> "o", 0
    ],
)
def test_strings_by_hand(counts: list[int], text: str) -> None:
    assert compress_counts(np.array(counts)) == text


def test_strings_of_pycocotools() -> None:
    """Made with pycocotools 2.0.11: mask.encode of rows 200-219 and columns 300-303 of 720x1280, and of two pixels."""
    mask = np.zeros((720, 1280), int)
    mask[200:220, 300:304] = 1
    mask[0, 0] = mask[719, 1279] = 2
    strings = dict(encode_segments(mask))
    assert strings[1] == "XTc6d0le000000hQ^e0"
    assert strings[2] == "01noSl00"


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_round_trip(seed: int, height: int, width: int, scale: int) -> None:
    values = np.random.default_rng(seed).integers(0, 3, (height, width)) - 1
    values = np.kron(values, np.ones((scale, scale), int))
    strings = dict(encode_segments(values))
    assert list(strings) == np.unique(values).tolist()
    for key, text in strings.items():
        np.testing.assert_array_equal(decode_mask(text, values.shape), values == key)


@pytest.mark.parametrize("text", ["", "4", "121O3", "?O", "o", "1 1", "~", "o" * 40])
def test_strings_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected an RLE string"):
        decode_mask(text, (2, 4))
