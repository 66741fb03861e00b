"""The training loss: values by hand, weights, randomness per sample, self-conditioning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pix2seq_d.bits import BitCodec
from pix2seq_d.diffusion.loss import DiffusionLoss, inverse_area_weight, reduce_weighted, stratified_times
from pix2seq_d.diffusion.schedule import CosineSchedule

CODEC = BitCodec((2, 3), 0.1)
B, H, W = 4, 3, 5
CODES = torch.stack([torch.randint(n, (B, H, W), generator=torch.Generator().manual_seed(n)) for n in (4, 8)], 1)
X0 = CODEC.encode(CODES)
T = torch.full((B,), 0.5)


def loss_of(**options: object) -> DiffusionLoss:
    return DiffusionLoss(CosineSchedule(), CODEC, **options)  # type: ignore[arg-type]


class Denoiser:
    """Answers fixed logits (or bits) and keeps its arguments."""

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer
        self.calls: list[tuple[Tensor, Tensor, object, Tensor | None]] = []

    def __call__(self, x_t: Tensor, gamma: Tensor, cond: object, self_cond: Tensor | None) -> Tensor:
        self.calls.append((x_t, gamma, cond, self_cond))
        return self.answer


def uniform() -> Denoiser:
    return Denoiser(torch.zeros(B, CODEC.num_logits, H, W))


def noisy_logits(x_t: Tensor, gamma: Tensor, cond: object, self_cond: Tensor | None) -> Tensor:
    """Logits that depend on everything but only within the sample."""
    x = (
        x_t.sum(1, keepdim=True)
        + gamma.view(-1, 1, 1, 1)
        + (0 if self_cond is None else self_cond.sum(1, keepdim=True))
    )
    return x * torch.linspace(-1, 1, CODEC.num_logits).view(1, -1, 1, 1)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


# values


def test_uniform_logits_cost_the_number_of_bits() -> None:
    """Groups of 2 and 3 bits: log 4 + log 8 = 5 log 2."""
    output = loss_of()(uniform(), X0, CODES, None)
    assert output.loss.item() == pytest.approx(5 * math.log(2))
    assert output.per_sample.tolist() == pytest.approx([5 * math.log(2)] * B)


def test_perfect_logits_cost_nothing() -> None:
    groups = zip(CODES.unbind(1), CODEC.group_codes)
    logits = torch.cat([F.one_hot(c, n).movedim(-1, 1) for c, n in groups], 1) * 40.0
    assert loss_of()(Denoiser(logits), X0, CODES, None).loss.item() < 1e-12


def test_cross_entropy_by_hand() -> None:
    """One pixel, codes (2, 0); the groups' probabilities of these codes are 1/2 and 1/4."""
    first = torch.tensor([1.0, 0.5, 3.0, 1.5])  # of 6
    second = torch.tensor([2.0, 1, 1, 1, 1, 1, 0.5, 0.5])  # of 8
    logits = torch.cat([first, second]).log().view(1, 12, 1, 1)
    codes = torch.tensor([2, 0]).view(1, 2, 1, 1)
    output = loss_of()(Denoiser(logits), CODEC.encode(codes), codes, None)
    assert output.loss.item() == pytest.approx(math.log(2) + math.log(4))


def test_mse_by_hand() -> None:
    """Bits 0.1 off by 0.05, 0, 0 | 0.2 in units of the scale squared: (0.25 + 0) / 2 + (0 + 4 + 4) / 3."""
    codes = torch.tensor([2, 5]).view(1, 2, 1, 1)
    x0 = CODEC.encode(codes)
    off = torch.tensor([0.05, 0, 0, 0.2, -0.2]).view(1, 5, 1, 1)
    output = loss_of(target="mse")(Denoiser(x0 + off), x0, codes, None)
    assert output.loss.item() == pytest.approx(0.125 + 8 / 3, rel=1e-5)
    assert loss_of(target="mse")(Denoiser(x0), x0, codes, None).loss.item() == 0


def test_loss_is_the_mean_of_its_samples_and_differentiable() -> None:
    logits = torch.randn(B, CODEC.num_logits, H, W, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output = loss_of()(Denoiser(logits), X0, CODES, None)
    assert output.loss.item() == pytest.approx(output.per_sample.mean().item())
    assert len(set(output.per_sample.tolist())) == B
    assert not output.per_sample.requires_grad
    output.loss.backward()
    assert logits.grad is not None
    assert bool((logits.grad != 0).all())


def test_half_precision_logits_are_compared_in_float32() -> None:
    output = loss_of()(Denoiser(torch.zeros(B, CODEC.num_logits, H, W, dtype=torch.bfloat16)), X0, CODES, None)
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(5 * math.log(2), rel=1e-6)


# weights


def test_void_carries_neither_loss_nor_gradient() -> None:
    logits = torch.randn(B, CODEC.num_logits, H, W, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.ones(B, 2, H, W)
    weight[:, :, 1, 2:] = 0
    output = loss_of()(Denoiser(logits), X0, CODES, None, weight)
    output.loss.backward()
    assert logits.grad is not None
    assert bool((logits.grad[:, :, 1, 2:] == 0).all())
    assert bool((logits.grad[:, :, 0] != 0).all())
    other = CODES.clone()
    other[:, :, 1, 2:] = 0
    assert loss_of()(Denoiser(logits), X0, other, None, weight).loss.item() == output.loss.item()


def test_weighted_mean_by_hand() -> None:
    """Errors 1 2 3 4 (group one) and 10 20 30 40; the last pixel is void, the second lacks its instance code.

    (1*1 + 2*0.5 + 3*2 + 10*1 + 30*2) / 3 labelled pixels.
    """
    error = torch.tensor([[[[1.0, 2, 3, 4]], [[10.0, 20, 30, 40]]]])
    weight = torch.tensor([[[[1.0, 0.5, 2, 0]], [[1.0, 0, 2, 0]]]])
    assert reduce_weighted(error, weight).tolist() == pytest.approx([78 / 3])
    assert reduce_weighted(error, None).tolist() == pytest.approx([110 / 4])
    assert reduce_weighted(error, torch.zeros_like(weight)).tolist() == [0]


def test_inverse_area_by_hand() -> None:
    """Road 3 pixels, two cars of 2 and 1 pixels, void 2: (1/4)^p, (1/3)^p, (1/2)^p, 0, of mean 1 over 6 pixels."""
    classes = torch.tensor([[[1, 1, 1, 0], [14, 14, 14, 0]]])
    instances = torch.tensor([[[0, 0, 0, 0], [1, 1, 2, 0]]])
    raw = torch.tensor([[[4.0**-0.2] * 3 + [0], [3.0**-0.2] * 2 + [2.0**-0.2, 0]]])
    weight = inverse_area_weight(classes, instances, 0.2)
    assert torch.allclose(weight, raw * 6 / raw.sum())
    assert weight[classes > 0].mean().item() == pytest.approx(1)
    assert bool((weight[classes == 0] == 0).all())


def test_inverse_area_power_zero_is_uniform() -> None:
    classes = torch.randint(0, 4, (2, 5, 5), generator=torch.Generator().manual_seed(0))
    weight = inverse_area_weight(classes, torch.zeros_like(classes), 0.0)
    assert torch.equal(weight, (classes > 0).float())


def test_inverse_area_keeps_samples_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    classes, instances = (torch.randint(0, 4, (3, 6, 6), generator=generator) for _ in range(2))
    together = inverse_area_weight(classes, instances, 0.5)
    alone = torch.cat([inverse_area_weight(c[None], i[None], 0.5) for c, i in zip(classes, instances)])
    assert torch.allclose(together, alone)


def test_inverse_area_of_a_map_without_labels_is_zero() -> None:
    zeros = torch.zeros(1, 2, 2, dtype=torch.int64)
    assert inverse_area_weight(zeros, zeros, 0.2).tolist() == [[[0, 0], [0, 0]]]


# noise


def test_given_times_are_used() -> None:
    """Time 0 shows the clean bits; t = 1 shows noise of unit variance that knows nothing of them."""
    for t, gamma in ((0.0, 1.0), (1.0, 1e-9), (0.5, 0.5)):
        denoiser = uniform()
        output = loss_of()(denoiser, X0, CODES, None, t=torch.full((B,), t))
        x_t, told = denoiser.calls[0][:2]
        assert output.t.tolist() == [t] * B
        assert told.tolist() == pytest.approx([gamma] * B, rel=1e-5)
        if t == 0:
            assert torch.equal(x_t, X0)
        if t == 1:
            assert x_t.std().item() == pytest.approx(1, abs=0.15)


def test_noised_bits_have_the_noise_of_the_generator() -> None:
    denoiser = uniform()
    loss_of()(denoiser, X0, CODES, None, t=T, generator=generators(7)[0])
    eps = torch.randn(X0.shape, generator=generators(7)[0])
    assert torch.allclose(denoiser.calls[0][0], 0.5**0.5 * X0 + 0.5**0.5 * eps)


def test_drawn_times_are_uniform_and_differ_by_sample() -> None:
    x0, codes = X0[:1, :, :1, :1].expand(2000, -1, -1, -1), CODES[:1, :, :1, :1].expand(2000, -1, -1, -1)
    t = loss_of()(Denoiser(torch.zeros(2000, 12, 1, 1)), x0, codes, None, generator=generators(0)[0]).t
    assert 0 <= t.min() < 0.01
    assert 0.99 < t.max() <= 1
    assert t.mean().item() == pytest.approx(0.5, abs=0.03)


def test_the_condition_is_passed_through() -> None:
    denoiser, cond = uniform(), object()
    loss_of()(denoiser, X0, CODES, cond)
    assert denoiser.calls[0][2] is cond


def test_one_generator_decides_everything() -> None:
    loss = loss_of(self_cond_rate=0.5)
    values = [loss(noisy_logits, X0, CODES, None, generator=generators(s)[0]).loss.item() for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("options", [{}, {"self_cond_rate": 0.5}])
def test_a_sample_with_its_own_generator_ignores_the_rest_of_the_batch(options: dict[str, float]) -> None:
    loss = loss_of(**options)
    whole = loss(noisy_logits, X0, CODES, None, generator=generators(10, 11, 12, 13))
    part = loss(noisy_logits, X0[2:3], CODES[2:3], None, generator=generators(12))
    assert part.per_sample.item() == whole.per_sample[2].item()
    assert part.t.item() == whole.t[2].item()
    assert len(set(whole.t.tolist())) == B


# self-conditioning


def test_without_self_conditioning_the_denoiser_runs_once() -> None:
    denoiser = uniform()
    loss_of(self_cond_rate=0.0)(denoiser, X0, CODES, None)
    assert [call[3] for call in denoiser.calls] == [None]


@pytest.mark.parametrize("target", ["softmax", "mse"])
def test_self_conditioning_feeds_the_first_estimate_back(target: str) -> None:
    planes = CODEC.num_logits if target == "softmax" else CODEC.num_bits
    answer = torch.randn(B, planes, H, W, generator=torch.Generator().manual_seed(0)).requires_grad_()
    denoiser = Denoiser(answer)
    loss_of(target=target, self_cond_rate=1.0)(denoiser, X0, CODES, None)
    (x_first, gamma_first, _, nothing), (x_second, gamma_second, _, fed_back) = denoiser.calls
    assert nothing is None
    assert fed_back is not None
    assert not fed_back.requires_grad
    assert torch.equal(fed_back, CODEC.expected_bits(answer) if target == "softmax" else answer)
    assert torch.equal(x_first, x_second)
    assert torch.equal(gamma_first, gamma_second)


def test_self_conditioning_leaves_gradients_under_autocast() -> None:
    layer = torch.nn.Conv2d(CODEC.num_bits, CODEC.num_logits, 1)
    cached: list[Tensor] = []

    def denoiser(x_t: Tensor, gamma: Tensor, cond: object, self_cond: Tensor | None) -> Tensor:
        cached.append(layer.weight.to(torch.bfloat16) if not cached else cached[0])  # as older torch does
        return torch.nn.functional.conv2d(x_t.bfloat16(), cached[0], layer.bias.bfloat16())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "clear_autocast_cache", cached.clear)
        loss_of(self_cond_rate=1.0)(denoiser, X0, CODES, None).loss.backward()
    assert layer.weight.grad is not None


def test_self_conditioning_is_drawn_per_sample() -> None:
    b = 400
    denoiser = Denoiser(torch.randn(b, 12, 1, 1, generator=torch.Generator().manual_seed(0)))
    x0, codes = X0[:1, :, :1, :1].expand(b, -1, -1, -1), CODES[:1, :, :1, :1].expand(b, -1, -1, -1)
    loss_of(self_cond_rate=0.3)(denoiser, x0, codes, None, generator=generators(0)[0])
    fed_back = denoiser.calls[1][3]
    assert fed_back is not None
    chosen = (fed_back != 0).any(1).flatten()
    assert torch.equal(fed_back[chosen], CODEC.expected_bits(denoiser.answer)[chosen])
    assert chosen.double().mean().item() == pytest.approx(0.3, abs=0.09)  # four deviations of sqrt(.3 * .7 / 400)


# stratified times


def test_stratified_times_take_every_stratum_once() -> None:
    """Moved back by the shift, which is drawn first, time i lies in [i / 8, (i + 1) / 8)."""
    for seed in range(50):
        times = stratified_times(8, generators(seed)[0])
        shift = torch.rand(1, dtype=torch.float64, generator=generators(seed)[0])
        assert ((times >= 0) & (times < 1)).all()
        assert (((times - shift) % 1) * 8).floor().tolist() == list(range(8))


def test_each_stratified_time_is_uniform() -> None:
    """4000 batches of 4: counts of 400 in each tenth, for every place, to five deviations of sqrt(4000 * .1 * .9)."""
    source = generators(0)[0]
    times = torch.stack([stratified_times(4, source) for _ in range(4000)])
    for place in times.unbind(1):
        assert (torch.histc(place, 10, 0, 1) - 400).abs().max() < 95
    apart = (times[:, 1] - times[:, 0]) % 1
    assert ((apart > 0) & (apart < 0.5)).all(), "neighbouring strata of a quarter each"
    assert apart.std() > 0.05, "a draw of its own in each stratum"


def test_a_batch_needs_a_sample() -> None:
    with pytest.raises(ValueError, match=r"^count: expected at least 1, got 0"):
        stratified_times(0, generators(0)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "eps"}, "target: expected one of softmax, mse, got 'eps'"),
        ({"self_cond_rate": 1.5}, "self_cond_rate: expected a probability, got 1.5"),
        ({"self_cond_rate": -0.1}, "self_cond_rate: expected a probability"),
    ],
)
def test_wrong_arguments_raise(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss_of(**options)
