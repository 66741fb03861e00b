"""The training loss of Pix2Seq-D (arXiv 2210.06366, section 3): noise the bits, predict the codes, weigh the pixels.

B batch, G groups, K bit planes, S logit planes, h w mask size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pix2seq_d.bits import BitCodec
from pix2seq_d.diffusion.noise import Generators, draw
from pix2seq_d.diffusion.process import add_noise
from pix2seq_d.diffusion.schedule import Schedule

TARGETS = ("softmax", "mse")


@dataclass
class LossOutput:
    """`loss` scalar to differentiate; `per_sample` (B,) detached, `t` (B,) the times drawn."""

    loss: Tensor
    per_sample: Tensor
    t: Tensor


class DiffusionLoss:
    """Draws t, adds noise, self-conditions and compares the prediction with the clean codes.

    Args:
        schedule: gamma(t).
        codec: bit layout; turns logits into x0 estimates.
        target: "softmax" = grouped cross-entropy over codes (ours), "mse" = regression of the bits (ablation; the
            denoiser returns bits then), divided by scale^2 so that both have a comparable size.
        self_cond_rate: probability per sample of feeding the first x0 estimate back.
        self_aligned_rate: probability per sample of noising the denoiser's own x0 estimate in place of x0 (self-aligned
            denoising of DDP, arXiv 2303.17559): samplers show it nothing else. The estimate is made from x0 noised to a
            later time, drawn uniformly from [t, 1]: it holds what breaks the symmetry of the instance codes.

    Raises:
        ValueError: an unknown target, a rate outside of 0..1.
    """

    def __init__(
        self,
        schedule: Schedule,
        codec: BitCodec,
        *,
        target: str = "softmax",
        self_cond_rate: float = 0.0,
        self_aligned_rate: float = 0.0,
    ) -> None:
        if target not in TARGETS:
            raise ValueError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
        for name, rate in (("self_cond_rate", self_cond_rate), ("self_aligned_rate", self_aligned_rate)):
            if not 0 <= rate <= 1:
                raise ValueError(f"{name}: expected a probability, got {rate}")
        self.schedule, self.codec = schedule, codec
        self.target, self.self_cond_rate, self.self_aligned_rate = target, self_cond_rate, self_aligned_rate

    def __call__(
        self,
        denoiser: Callable[..., Tensor],
        x0: Tensor,
        codes: Tensor,
        cond: Any,
        weight: Tensor | None = None,
        t: Tensor | None = None,
        generator: Generators = None,
        *,
        ramp: float = 1.0,
    ) -> LossOutput:
        """One evaluation.

        Args:
            denoiser: `(x_t, gamma, cond, self_cond) -> logits` (B, S, h, w), or bits for target "mse".
            x0: (B, K, h, w) clean analog bits.
            codes: (B, G, h, w) int64, the codes that x0 encodes.
            cond: passed through to the denoiser.
            weight: (B, G, h, w) pixel weights, 0 = no loss; None = 1 everywhere.
            t: (B,) times in [0, 1]; None draws them uniformly.
            generator: source of t, noise and self-conditioning; a sequence gives each sample its own.
            ramp: factor on self_aligned_rate, in [0, 1]; where their product is 0, nothing more is drawn or computed.
        """
        b = len(x0)
        t = draw(torch.rand, (b,), x0, generator) if t is None else t
        gamma, eps = self.schedule(t), draw(torch.randn, x0.shape, x0, generator)
        shown = self._self_aligned(denoiser, x0, t, cond, generator, self.self_aligned_rate * ramp)
        x_t = add_noise(shown, gamma, eps)
        self_cond = self._self_cond(denoiser, x_t, gamma, cond, generator)
        prediction = denoiser(x_t, gamma, cond, self_cond)
        error = self._cross_entropy(prediction, codes) if self.target == "softmax" else self._mse(prediction, x0)
        per_sample = reduce_weighted(error, weight)
        return LossOutput(per_sample.mean(), per_sample.detach(), t)

    def _self_cond(
        self, denoiser: Callable[..., Tensor], x_t: Tensor, gamma: Tensor, cond: Any, generator: Generators
    ) -> Tensor | None:
        if self.self_cond_rate == 0:
            return None
        chosen = draw(torch.rand, (len(x_t),), x_t, generator) < self.self_cond_rate
        return self._estimate(denoiser, x_t, gamma, cond) * chosen.view(-1, 1, 1, 1)

    def _self_aligned(
        self, denoiser: Callable[..., Tensor], x0: Tensor, t: Tensor, cond: Any, generator: Generators, rate: float
    ) -> Tensor:
        """x0 or, for a share of the samples, what the denoiser makes of x0 noised to a later time."""
        if rate == 0:
            return x0
        u, later = draw(torch.rand, (len(x0), 2), x0, generator).unbind(1)
        gamma = self.schedule(t + (1 - t) * later)
        x_later = add_noise(x0, gamma, draw(torch.randn, x0.shape, x0, generator))
        estimate = self._estimate(denoiser, x_later, gamma, cond).clamp(-self.codec.scale, self.codec.scale)
        return torch.where((u < rate).view(-1, 1, 1, 1), estimate.to(x0.dtype), x0)

    def _estimate(self, denoiser: Callable[..., Tensor], x_t: Tensor, gamma: Tensor, cond: Any) -> Tensor:
        """(B, K, h, w) x0 estimate, without gradients."""
        with torch.no_grad():
            first = denoiser(x_t, gamma, cond, None)
            x0_estimate = self.codec.expected_bits(first) if self.target == "softmax" else first
        torch.clear_autocast_cache()  # older torch takes weights that were cast without gradients again
        return x0_estimate.detach()

    def _cross_entropy(self, logits: Tensor, codes: Tensor) -> Tensor:
        groups = zip(self.codec.split_logits(logits.float()), codes.unbind(1))
        return torch.stack([F.cross_entropy(g, c, reduction="none") for g, c in groups], 1)  # (B, G, h, w)

    def _mse(self, bits: Tensor, x0: Tensor) -> Tensor:
        error = (bits.float() - x0).square() / self.codec.scale**2
        return torch.stack([e.mean(1) for e in error.split(self.codec.group_bits, 1)], 1)


def reduce_weighted(error: Tensor, weight: Tensor | None) -> Tensor:
    """(B, G, h, w) errors -> (B,): summed over groups, averaged over the pixels whose weight is not 0."""
    if weight is None:
        return error.sum(1).mean((1, 2))
    pixels = (weight > 0).any(1).sum((1, 2)).clamp(min=1)
    return (error * weight).sum((1, 2, 3)) / pixels


def inverse_area_weight(class_codes: Tensor, instance_codes: Tensor, power: float) -> Tensor:
    """Weights that let small segments count: (1 / (pixels of the segment + 1))^power, mean 1 over labelled pixels.

    Args:
        class_codes: (B, h, w) int64, 0 = void (weight 0).
        instance_codes: (B, h, w) int64; stuff classes form one segment each.
        power: p of arXiv 2210.06366, section 3.3; 0 = uniform.

    Returns:
        (B, h, w) float32.
    """
    b = len(class_codes)
    segments = class_codes * (int(instance_codes.max()) + 1) + instance_codes
    segments = segments + torch.arange(b, device=segments.device).view(-1, 1, 1) * (int(segments.max()) + 1)
    area = torch.bincount(segments.flatten())[segments]
    weight = (area + 1).float() ** -power * (class_codes > 0)
    labelled = (class_codes > 0).sum((1, 2)).clamp(min=1)
    return weight * (labelled / weight.sum((1, 2)).clamp(min=1e-12)).view(-1, 1, 1)


def stratified_times(count: int, generator: torch.Generator) -> Tensor:
    """Times that cover [0, 1] evenly, one per sample of a batch: `((i + u_i) / count + shift) mod 1` for sample i.

    `u_i` and the shift, which all samples share, are uniform on [0, 1]; so each time is as well, while the steps of a
    training differ less in how much noise they hold (as the low-discrepancy sampler of arXiv 2107.00630, with a
    `u_i` for each sample).

    Args:
        count: samples of the batch.
        generator: on the CPU.

    Returns:
        (count,) float64.

    Raises:
        ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    shift, *within = torch.rand(count + 1, dtype=torch.float64, generator=generator)
    return ((torch.arange(count) + torch.stack(within)) / count + shift) % 1
