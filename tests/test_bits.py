"""Analog bits: there and back, order and scale, the softmax head's expectation and its inverse."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pix2seq_d.bits import BitCodec, bits_to_int, int_to_bits

CODEC = BitCodec((2, 3), 0.1)


def random_codes(codec: BitCodec, seed: int = 0, size: tuple[int, int] = (3, 4)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(n, (2, *size), generator=generator) for n in codec.group_codes], 1)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 10), st.floats(0.01, 10))
def test_round_trip(data: st.DataObject, num_bits: int, scale: float) -> None:
    values = data.draw(st.lists(st.integers(0, 2**num_bits - 1), min_size=6, max_size=6))
    codes = torch.tensor(values).view(1, 2, 3)
    bits = int_to_bits(codes, num_bits, scale)
    assert bits.shape == (1, num_bits, 2, 3)
    assert torch.allclose(bits.abs(), torch.tensor(scale))
    assert torch.equal(bits_to_int(bits), codes)
    assert torch.equal(bits_to_int(bits * 0.01), codes)  # the sign alone decides


def test_most_significant_bit_first() -> None:
    bits = int_to_bits(torch.tensor([[[6]]]), 4, 0.5)  # 0110
    assert bits.flatten().tolist() == [-0.5, 0.5, 0.5, -0.5]
    assert bits.dtype == torch.float32


@pytest.mark.parametrize(("codes", "got"), [([0, 8], "0 to 8"), ([-1, 3], "-1 to 3")])
def test_codes_out_of_range_raise(codes: list[int], got: str) -> None:
    with pytest.raises(ValueError, match=rf"codes: expected integers in \[0, 8\) for 3 bits, got {got}"):
        int_to_bits(torch.tensor(codes).view(1, 1, 2), 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_every_integer_type_is_read(dtype: torch.dtype) -> None:
    codes = torch.tensor([[[255, 0, 128]]])
    assert torch.equal(bits_to_int(int_to_bits(codes.to(dtype), 8)), codes)


def test_no_pixels_and_no_samples_pass() -> None:
    assert int_to_bits(torch.zeros(0, 2, 2, dtype=torch.int64), 3).shape == (0, 3, 2, 2)
    assert CODEC.decode(CODEC.encode(torch.zeros(2, 2, 0, 4, dtype=torch.int64))).shape == (2, 2, 0, 4)


# several groups


def test_sizes() -> None:
    assert (CODEC.num_bits, CODEC.num_logits, CODEC.group_codes) == (5, 12, (4, 8))


def test_groups_lie_side_by_side() -> None:
    codes = torch.tensor([2, 5]).view(1, 2, 1, 1)  # 10 101
    assert CODEC.encode(codes).flatten().tolist() == pytest.approx([0.1, -0.1, 0.1, -0.1, 0.1])


def test_codec_round_trip() -> None:
    codes = random_codes(CODEC)
    assert torch.equal(CODEC.decode(CODEC.encode(codes)), codes)
    with pytest.raises(ValueError, match="codes: expected 2 groups, got 1"):
        CODEC.encode(codes[:, :1])


@pytest.mark.parametrize(
    ("group_bits", "scale", "message"),
    [
        ((), 0.1, "group_bits"),
        ((0,), 0.1, "group_bits"),
        ((3, 17), 0.1, "group_bits"),
        ((3,), 0.0, "scale"),
        ((3,), math.nan, "scale"),
    ],
)
def test_wrong_layouts_raise(group_bits: tuple[int, ...], scale: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}: expected"):
        BitCodec(group_bits, scale)


def test_split_logits() -> None:
    logits = torch.arange(12.0).view(1, 12, 1, 1)
    first, second = CODEC.split_logits(logits)
    assert first.flatten().tolist() == [0, 1, 2, 3]
    assert second.flatten().tolist() == list(range(4, 12))


def test_expected_bits_by_hand() -> None:
    """Probabilities (.1 .2 .3 .4) of the codes 00 01 10 11: P(high bit) = .7, P(low bit) = .6; bits are b (2 P - 1)."""
    codec = BitCodec((2,), 0.5)
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().view(1, 4, 1, 1)
    assert codec.expected_bits(logits).flatten().tolist() == pytest.approx([0.5 * 0.4, 0.5 * 0.2], abs=1e-6)


def test_expected_bits_of_sure_logits_are_the_bits() -> None:
    codes = random_codes(CODEC)
    logits = torch.cat([F.one_hot(c, n).movedim(-1, 1) for c, n in zip(codes.unbind(1), CODEC.group_codes)], 1) * 50.0
    assert torch.allclose(CODEC.expected_bits(logits), CODEC.encode(codes), atol=1e-6)
    assert torch.equal(CODEC.argmax_codes(logits), codes)


def test_expected_bits_of_uniform_logits_are_zero() -> None:
    assert torch.allclose(CODEC.expected_bits(torch.zeros(1, 12, 2, 2)), torch.zeros(1, 5, 2, 2), atol=1e-7)


def test_expected_bits_compute_in_float32() -> None:
    assert CODEC.expected_bits(torch.zeros(1, 12, 2, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_bit_logits_prefer_the_nearest_code() -> None:
    """Compared with a search over all codes for the smallest squared distance."""
    bits = torch.randn(1, CODEC.num_bits, 6, 7, generator=torch.Generator().manual_seed(0)) * 0.1
    nearest = []
    for group, n in zip(bits.split(CODEC.group_bits, 1), CODEC.group_bits):
        words = torch.tensor(list(itertools.product([-0.1, 0.1], repeat=n)))  # in the order of the codes
        nearest.append((group.unsqueeze(1) - words[None, :, :, None, None]).square().sum(2).argmin(1))
    logits = CODEC.bit_logits(bits)
    assert logits.shape == (1, CODEC.num_logits, 6, 7)
    assert torch.equal(CODEC.argmax_codes(logits), torch.stack(nearest, 1))
    assert torch.equal(CODEC.argmax_codes(logits), CODEC.decode(bits))


def test_code_bits_by_hand() -> None:
    table = BitCodec((1, 2), scale=0.1).code_bits()
    first = [[-1, 0, 0], [1, 0, 0]]  # codes 0 and 1 of the first group
    second = [[0, -1, -1], [0, -1, 1], [0, 1, -1], [0, 1, 1]]
    assert table.tolist() == first + second


def test_argmax_is_restricted_to_the_codes_that_exist() -> None:
    logits = torch.zeros(1, 12, 1, 1)
    logits[0, :, 0, 0] = torch.tensor([9.0, 1, 3, 2, 0, 8, 1, 2, 3, 4, 5, 6])
    assert CODEC.argmax_codes(logits).flatten().tolist() == [0, 1]
    assert CODEC.argmax_codes(logits, existing=[(1, 3)]).flatten().tolist() == [3, 1]
    assert CODEC.argmax_codes(logits, existing=[None, (0, 7, 2)]).flatten().tolist() == [0, 7]
