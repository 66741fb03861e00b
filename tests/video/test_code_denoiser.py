"""Estimates under constraints and guidance, with denoisers whose answers are given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pix2seq_d.bits import BitCodec
from pix2seq_d.video.code_denoiser import FORBIDDEN, CodeDenoiser

CODEC = BitCodec((2, 1), 0.1)  # planes 0-3 of the first group, 4-5 of the second
X, GAMMA = torch.zeros(1, 3, 1, 2), torch.tensor([0.5])


class Fixed:
    """Answers with the same prediction for ever."""

    def __init__(self, prediction: Tensor, target: str = "softmax") -> None:
        self.logits: Tensor | None = None
        self.prediction, self.target, self.calls = prediction, target, 0

    def __call__(self, x_t: Tensor, gamma: Tensor, self_cond: Tensor | None = None) -> Tensor:
        self.logits, self.calls = self.prediction, self.calls + 1
        return CODEC.expected_bits(self.prediction) if self.target == "softmax" else self.prediction


def planes(*pixels: tuple[float, ...]) -> Tensor:
    """(1, S, 1, pixels)."""
    return torch.tensor(pixels).T[None, :, None]


LOGITS = planes((3.0, 1.0, 0.0, 0.0, 2.0, 0.0), (0.0, 0.0, 0.0, 5.0, 0.0, 1.0))


def test_without_constraints_it_is_the_bound_denoiser() -> None:
    denoise = CodeDenoiser(Fixed(LOGITS), CODEC)
    assert torch.equal(denoise(X, GAMMA), CODEC.expected_bits(LOGITS))
    assert denoise.logits is not None
    assert torch.equal(denoise.logits, LOGITS)


def test_forbidden_codes_have_no_share_in_the_estimate() -> None:
    """Without its code 0 the first pixel is code 1 with e : 1 : 1; where one code is left it is certain."""
    penalty = torch.zeros_like(LOGITS)
    penalty[0, 0, 0, 0] = FORBIDDEN
    penalty[0, :3, 0, 1] = FORBIDDEN
    penalty[0, 4, 0, 1] = FORBIDDEN
    x0 = CodeDenoiser(Fixed(LOGITS), CODEC, penalty=penalty)(X, GAMMA)
    share = torch.tensor([1.0, 0.0, 0.0]).softmax(0)  # codes 1, 2, 3 = bits 01, 10, 11
    assert x0[0, 0, 0, 0].item() == pytest.approx(0.1 * (-share[0] + share[1] + share[2]).item(), abs=1e-6)
    assert x0[0, 1, 0, 0].item() == pytest.approx(0.1 * (share[0] - share[1] + share[2]).item(), abs=1e-6)
    torch.testing.assert_close(x0[0, :, 0, 1], torch.tensor([0.1, 0.1, 0.1]))


def test_bits_move_to_the_nearest_code_that_is_possible() -> None:
    """Pixel 1: code 0 (bits --), which is forbidden; + is nearer in the second bit. Pixel 2 keeps its bits."""
    bits = torch.tensor([[-0.09, -0.01, 0.04], [0.03, 0.02, -0.1]]).T[None, :, None]
    penalty = torch.zeros_like(LOGITS)
    penalty[0, 0] = FORBIDDEN
    denoise = CodeDenoiser(Fixed(bits, "mse"), CODEC, target="mse", penalty=penalty)
    x0 = denoise(X, GAMMA)
    torch.testing.assert_close(x0[0, :, 0, 0], torch.tensor([-0.1, 0.1, 0.04]))
    assert torch.equal(x0[0, :, 0, 1], bits[0, :, 0, 1])
    assert denoise.logits is not None
    assert denoise.logits.shape == LOGITS.shape


def test_known_bits_are_exact() -> None:
    """The only possible code of the first group is the one that the bits spell, weakly."""
    bits = torch.tensor([[0.01, 0.02, 0.04], [0.01, 0.02, 0.04]]).T[None, :, None]
    penalty = torch.zeros_like(LOGITS)
    penalty[0, :3, 0, 0] = FORBIDDEN
    x0 = CodeDenoiser(Fixed(bits, "mse"), CODEC, target="mse", penalty=penalty)(X, GAMMA)
    torch.testing.assert_close(x0[0, :, 0, 0], torch.tensor([0.1, 0.1, 0.04]))
    assert torch.equal(x0[0, :, 0, 1], bits[0, :, 0, 1])


@pytest.mark.parametrize("guidance", [-1.0, 0.5, 2.0])
def test_guidance_goes_on_from_the_one_past_the_other(guidance: float) -> None:
    """(1 + w) with - w without: at w = -1 what is said without past maps."""
    without = LOGITS.flip(3)
    denoise = CodeDenoiser(Fixed(LOGITS), CODEC, without_past=Fixed(without), guidance=guidance)
    x0 = denoise(X, GAMMA)
    expected = (1 + guidance) * LOGITS - guidance * without
    assert denoise.logits is not None
    torch.testing.assert_close(denoise.logits, expected)
    torch.testing.assert_close(x0, CODEC.expected_bits(expected))


def test_guidance_of_bits_and_no_guidance() -> None:
    bits, other = torch.full((1, 3, 1, 2), 0.05), torch.full((1, 3, 1, 2), -0.02)
    without = Fixed(other, "mse")
    x0 = CodeDenoiser(Fixed(bits, "mse"), CODEC, target="mse", without_past=without, guidance=1.0)(X, GAMMA)
    torch.testing.assert_close(x0, 2 * bits - other)
    unused = Fixed(other, "mse")
    CodeDenoiser(Fixed(bits, "mse"), CODEC, target="mse", without_past=unused, guidance=0.0)(X, GAMMA)
    assert (without.calls, unused.calls) == (1, 0)
