"""Self-aligned denoising: for a share of the samples, x_t is made of the denoiser's own estimate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pix2seq_d.bits import BitCodec
from pix2seq_d.diffusion.loss import DiffusionLoss
from pix2seq_d.diffusion.process import add_noise
from pix2seq_d.diffusion.schedule import CosineSchedule

CODEC, SCHEDULE = BitCodec((2, 3), 0.1), CosineSchedule()
B, K, H, W = 4, 5, 3, 5
CODES = torch.stack([torch.randint(n, (B, H, W), generator=torch.Generator().manual_seed(n)) for n in (4, 8)], 1)
X0 = CODEC.encode(CODES)
ANSWER = torch.randn(B, CODEC.num_logits, H, W, generator=torch.Generator().manual_seed(1))


class Denoiser:
    """Answers the same for every input, and keeps its inputs; `weight` shows where gradients come from."""

    def __init__(self, answer: Tensor = ANSWER) -> None:
        self.answer, self.weight = answer, torch.ones((), requires_grad=True)
        self.x_t: list[Tensor] = []
        self.gamma: list[Tensor] = []
        self.self_cond: list[Tensor | None] = []
        self.with_gradients: list[bool] = []

    def __call__(self, x_t: Tensor, gamma: Tensor, cond: object, self_cond: Tensor | None) -> Tensor:
        self.x_t.append(x_t)
        self.gamma.append(gamma)
        self.self_cond.append(self_cond)
        self.with_gradients.append(torch.is_grad_enabled())
        return self.answer * self.weight


class Draws:
    """What the samples' generators give, in the order of the loss: t, noise, choice and later time, its noise."""

    def __init__(self) -> None:
        rows = generators()
        self.t = torch.stack([torch.rand((), generator=g) for g in rows])
        self.eps = torch.stack([torch.randn(K, H, W, generator=g) for g in rows])
        self.u, share = torch.stack([torch.rand(2, generator=g) for g in rows]).unbind(1)
        self.later = self.t + (1 - self.t) * share
        self.eps_later = torch.stack([torch.randn(K, H, W, generator=g) for g in rows])


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(B)]


def run(denoiser: Denoiser, *, ramp: float = 1.0, t: Tensor | None = None, **options: object) -> Tensor:
    loss = DiffusionLoss(SCHEDULE, CODEC, **options)  # type: ignore[arg-type]
    return loss(denoiser, X0, CODES, None, None, t, generators(), ramp=ramp).loss


def test_the_estimate_is_noised_in_place_of_the_truth() -> None:
    """First call: the true bits at a later time. Second call: the answer's expected bits at t, noise as ever."""
    denoiser, draws = Denoiser(), Draws()
    run(denoiser, self_aligned_rate=1.0)
    assert len(denoiser.x_t) == 2
    gamma, later = SCHEDULE(draws.t), SCHEDULE(draws.later)
    assert torch.equal(denoiser.gamma[0], later)
    assert torch.equal(denoiser.gamma[1], gamma)
    assert torch.equal(denoiser.x_t[0], add_noise(X0, later, draws.eps_later))
    assert torch.equal(denoiser.x_t[1], add_noise(CODEC.expected_bits(ANSWER), gamma, draws.eps))
    assert denoiser.with_gradients == [False, True]


def test_the_target_stays_the_truth() -> None:
    """The denoiser's answer does not depend on its input here, so the loss is that of plain training."""
    assert torch.equal(run(Denoiser(), self_aligned_rate=1.0), run(Denoiser()))


def test_a_rate_is_the_share_of_the_samples() -> None:
    """Of the seeds 0 ... 3, those whose draw is below the rate."""
    denoiser, draws = Denoiser(), Draws()
    rate = float(draws.u.sort().values[1:3].mean())
    run(denoiser, self_aligned_rate=rate)
    gamma, chosen = SCHEDULE(draws.t), draws.u < rate
    assert chosen.sum() == 2
    true, own = (add_noise(x, gamma, draws.eps) for x in (X0, CODEC.expected_bits(ANSWER)))
    assert torch.equal(denoiser.x_t[1], torch.where(chosen.view(-1, 1, 1, 1), own, true))
    ramped = Denoiser()
    run(ramped, self_aligned_rate=1.0, ramp=rate)
    assert torch.equal(ramped.x_t[1], denoiser.x_t[1])


@pytest.mark.parametrize("options", [{"self_aligned_rate": 0.0}, {"self_aligned_rate": 1.0, "ramp": 0.0}])
def test_a_rate_of_zero_draws_and_computes_nothing(options: dict[str, float]) -> None:
    denoiser, plain = Denoiser(), Denoiser()
    loss = DiffusionLoss(SCHEDULE, CODEC, self_aligned_rate=options["self_aligned_rate"])
    own, others = generators(), generators()
    loss(denoiser, X0, CODES, None, None, None, own, ramp=options.get("ramp", 1.0))
    DiffusionLoss(SCHEDULE, CODEC)(plain, X0, CODES, None, None, None, others)
    assert len(denoiser.x_t) == 1
    assert torch.equal(denoiser.x_t[0], plain.x_t[0])
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in zip(own, others))


def test_times_that_are_given_are_the_earlier_ones() -> None:
    denoiser = Denoiser()
    t = torch.tensor([0.1, 0.4, 0.6, 0.9])
    run(denoiser, self_aligned_rate=1.0, t=t)
    assert torch.equal(denoiser.gamma[1], SCHEDULE(t))
    later = SCHEDULE.inverse(denoiser.gamma[0])
    assert (later > t).all()
    assert (later < 1).all()


def test_self_conditioning_starts_from_what_the_network_sees() -> None:
    """Three calls: the estimate to be noised, the estimate to be fed back, made of the same x_t, and the last one."""
    denoiser = Denoiser()
    run(denoiser, self_aligned_rate=1.0, self_cond_rate=1.0)
    assert denoiser.with_gradients == [False, False, True]
    assert denoiser.self_cond[:2] == [None, None]
    assert torch.equal(denoiser.x_t[1], denoiser.x_t[2])
    assert torch.equal(denoiser.x_t[1], add_noise(CODEC.expected_bits(ANSWER), SCHEDULE(Draws().t), Draws().eps))
    fed_back = denoiser.self_cond[2]
    assert fed_back is not None
    assert torch.equal(fed_back, CODEC.expected_bits(ANSWER))


def test_bits_are_clipped_as_in_the_samplers() -> None:
    denoiser, draws = Denoiser(X0 * 7), Draws()
    run(denoiser, self_aligned_rate=1.0, target="mse")
    assert torch.allclose(denoiser.x_t[1], add_noise(X0, SCHEDULE(draws.t), draws.eps))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    loss = DiffusionLoss(SCHEDULE, CODEC, self_aligned_rate=0.5)
    whole = loss(Denoiser(), X0, CODES, None, None, None, generators())
    halves = [
        loss(Denoiser(ANSWER[part]), X0[part], CODES[part], None, None, None, generators()[part])
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert torch.equal(whole.per_sample, torch.cat([half.per_sample for half in halves]))


def test_no_probability() -> None:
    with pytest.raises(ValueError, match=r"^self_aligned_rate: expected a probability, got 1.5"):
        DiffusionLoss(SCHEDULE, CODEC, self_aligned_rate=1.5)
