"""The denoiser of a frame as samplers call it: with what is known of its codes, and guided by its history.

B batch, K bit planes, S logit planes, h w mask size.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pix2seq_d.bits import BitCodec

FORBIDDEN = -1e4  # added to a logit: a softmax gives its code the probability 0, unless it forbids them all


class Bound(Protocol):
    """A denoiser with its conditioning bound."""

    logits: Tensor | None

    def __call__(self, x_t: Tensor, gamma: Tensor, self_cond: Tensor | None = None) -> Tensor:
        """x0 estimate (B, K, h, w); leaves its logits, or the bits themselves, in `logits`."""
        ...


class CodeDenoiser:
    """`(x_t, gamma, self_cond) -> x0`; `logits` keeps the last prediction, (B, S, h, w) whatever the model predicts.

    Args:
        bound: the model's denoiser with its conditioning bound.
        codec: bit layout.
        target: what `bound` predicts, "softmax" logits or "mse" bits.
        without_past: the same denoiser told that there are no past maps.
        guidance: w of classifier-free guidance (arXiv 2207.12598, eq. 6) by the history: (1 + w) times the prediction
            with past maps less w times the one without; 0 = none, negative values weaken the history, -1 drops it.
        penalty: (B or 1, S, h, w), 0 where a code is possible, else FORBIDDEN; None = all are. Estimates are those of
            the codes that are left, so known pixels are known at every step.
    """

    def __init__(
        self,
        bound: Bound,
        codec: BitCodec,
        *,
        target: str = "softmax",
        without_past: Bound | None = None,
        guidance: float = 0.0,
        penalty: Tensor | None = None,
    ) -> None:
        self.bound, self.codec, self.target = bound, codec, target
        self.without_past, self.guidance, self.penalty = without_past, guidance, penalty
        self.logits: Tensor | None = None

    def __call__(self, x_t: Tensor, gamma: Tensor, self_cond: Tensor | None = None) -> Tensor:
        x0 = self.bound(x_t, gamma, self_cond)
        prediction = self.bound.logits
        assert prediction is not None
        if self.without_past is not None and self.guidance:
            self.without_past(x_t, gamma, self_cond)
            assert self.without_past.logits is not None
            prediction = prediction + self.guidance * (prediction - self.without_past.logits)
            x0 = self.codec.expected_bits(prediction) if self.target == "softmax" else prediction
        self.logits = self.codec.bit_logits(prediction) if self.target == "mse" else prediction
        return x0 if self.penalty is None else self._possible(x0, self.penalty)

    def _possible(self, x0: Tensor, penalty: Tensor) -> Tensor:
        assert self.logits is not None
        free, self.logits = self.logits, self.logits + penalty
        if self.target == "softmax":
            return self.codec.expected_bits(self.logits)
        # bits: those of the nearest possible code where it is another one, or the only one
        nearest = self.codec.argmax_codes(self.logits)
        only = [(p == 0).sum(1) == 1 for p in self.codec.split_logits(penalty)]
        moved = (nearest != self.codec.argmax_codes(free)) | torch.stack(only, 1)  # (B, G, h, w)
        planes = torch.tensor(self.codec.group_bits, device=x0.device)
        return torch.where(moved.repeat_interleave(planes, 1), self.codec.encode(nearest).to(x0), x0)
