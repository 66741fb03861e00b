"""TransUNet: sizes, inputs and arguments that must show, near-zero start, a golden value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pix2seq_d.models.denoiser import DenoiserCondition, TransUNet

K, S, C, D = 5, 12, 6, 10  # bit planes, logit planes, conditioning channels, token width
TINY: dict[str, Any] = {
    "num_bits": K,
    "out_channels": S,
    "cond_channels": C,
    "token_dim": D,
    "data_std": 0.1,
    "widths": (8, 16),
    "dim": 16,
    "num_layers": 1,
    "num_heads": 2,
}


def denoiser(*, lively: bool = True, **changes: Any) -> TransUNet:
    """With random numbers in the layers that start near zero if `lively`."""
    torch.manual_seed(0)
    net = TransUNet(**{**TINY, **changes}).eval()
    for parameter in net.parameters() if lively else ():
        if parameter.ndim > 1 and parameter.std() < 1e-3:
            torch.nn.init.normal_(parameter, std=0.3)
    return net


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def condition(net: TransUNet, size: tuple[int, int] = (8, 12), batch: int = 2) -> DenoiserCondition:
    return net.precompute(randn(batch, C, *size, seed=1), randn(batch, 7, D, seed=2))


X, GAMMA, FED_BACK = randn(2, K, 8, 12), torch.tensor([0.3, 0.8]), randn(2, K, 8, 12, seed=3) * 0.1


@pytest.mark.parametrize("size", [(8, 12), (4, 6), (2, 2)])
@pytest.mark.parametrize("out_channels", [S, K])
def test_output_has_the_size_of_the_map(size: tuple[int, int], out_channels: int) -> None:
    net = denoiser(out_channels=out_channels)
    assert net(randn(2, K, *size), GAMMA, condition(net, size)).shape == (2, out_channels, *size)


@pytest.mark.parametrize(("widths", "divisor"), [((8,), 1), ((8, 16), 2), ((8, 8, 16), 4)])
def test_sizes_that_cannot_be_halved_raise(widths: tuple[int, ...], divisor: int) -> None:
    net = denoiser(widths=widths)
    assert net.size_divisor == divisor
    assert net(randn(2, K, 4, 8), GAMMA, condition(net, (4, 8))).shape == (2, S, 4, 8)
    if divisor > 1:
        with pytest.raises(ValueError, match=rf"mask size: expected multiples of {divisor}, got \(8, 9\)"):
            condition(net, (8, 9))


def test_starts_near_zero() -> None:
    net = denoiser(lively=False, self_cond=True)
    y = net(X, GAMMA, condition(net), FED_BACK)
    assert 0 < y.abs().max().item() < 0.02


def test_every_input_shows() -> None:
    net = denoiser(self_cond=True)
    cond = condition(net)
    reference = net(X, GAMMA, cond, FED_BACK)
    other_map = net.precompute(randn(2, C, 8, 12, seed=9), randn(2, 7, D, seed=2))
    other_tokens = net.precompute(randn(2, C, 8, 12, seed=1), randn(2, 7, D, seed=9))
    for changed in (
        net(X + 0.1, GAMMA, cond, FED_BACK),
        net(X, GAMMA + 0.1, cond, FED_BACK),
        net(X, GAMMA, other_map, FED_BACK),
        net(X, GAMMA, other_tokens, FED_BACK),
        net(X, GAMMA, cond, -FED_BACK),
        net(X, GAMMA, cond, None),
    ):
        assert (changed - reference).abs().max().item() > 1e-3


def test_gamma_is_told_and_not_only_divided_out() -> None:
    """With clean bits of unit deviation the input scale is 1 at every gamma; the output must differ still."""
    net = denoiser(data_std=1.0)
    low, high = (net(X, torch.full((2,), g), condition(net)) for g in (0.1, 0.9))
    assert (low - high).abs().max().item() > 1e-3


def test_input_is_scaled_to_unit_deviation() -> None:
    """x_t has variance gamma b^2 + 1 - gamma: at gamma 0.99 and b 0.1 that is 0.0199."""
    net, seen = denoiser(), []
    net.stem.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(X, torch.tensor([0.99, 0.5]), condition(net))
    assert torch.allclose(seen[0][0], X[0] / 0.0199**0.5, rtol=1e-4)
    assert torch.allclose(seen[0][1], X[1] / 0.505**0.5, rtol=1e-4)


def test_missing_self_cond_is_zeros() -> None:
    net = denoiser(self_cond=True)
    cond = condition(net)
    assert torch.equal(net(X, GAMMA, cond), net(X, GAMMA, cond, torch.zeros_like(X)))


def test_a_denoiser_without_self_cond_ignores_it() -> None:
    net = denoiser()
    assert torch.equal(net(X, GAMMA, condition(net), FED_BACK), net(X, GAMMA, condition(net)))


def test_samples_of_a_batch_do_not_meet() -> None:
    net = denoiser()
    cond = condition(net)
    second = DenoiserCondition(cond.stem[1:], [(k[1:], v[1:]) for k, v in cond.key_values])
    assert torch.allclose(net(X, GAMMA, cond)[1:], net(X[1:], GAMMA[1:], second), atol=1e-5)


def test_a_condition_can_be_used_again() -> None:
    net = denoiser()
    cond = condition(net)
    first = net(X, GAMMA, cond)
    net(-X, GAMMA.flip(0), cond)
    assert torch.equal(net(X, GAMMA, cond), first)
    assert torch.equal(net(X, GAMMA, condition(net)), first)


def test_forward_leaves_the_conditioning_alone() -> None:
    """What depends on the conditioning alone runs in `precompute`, never in a step."""
    net, calls = denoiser(), []
    net.stem_cond.register_forward_hook(lambda *_: calls.append("stem"))
    net.get_submodule("layers.0.cross_attention.key_value").register_forward_hook(lambda *_: calls.append("keys"))
    cond = condition(net)
    for _ in range(3):
        net(X, GAMMA, cond)
    assert sorted(calls) == ["keys", "stem"]


def test_the_first_convolution_is_one_over_bits_and_conditioning() -> None:
    """What `precompute` gives and what a step adds are the two parts of its sum."""
    net, cond_map = denoiser(), randn(2, C, 8, 12, seed=1)
    weight = torch.cat([net.stem.weight, net.stem_cond.weight], 1)
    whole = torch.nn.functional.conv2d(torch.cat([X, cond_map], 1), weight, net.stem_cond.bias, padding=1)
    assert torch.allclose(net.stem(X) + net.precompute(cond_map, randn(2, 7, D)).stem, whole, atol=1e-5)


def test_every_pixel_sees_every_pixel() -> None:
    net = denoiser()
    cond, changed = condition(net), X.clone()
    changed[:, :, :2, :2] += 1
    difference = (net(changed, GAMMA, cond) - net(X, GAMMA, cond)).abs().amax(1)
    assert bool((difference > 0).all())


@pytest.mark.parametrize(
    "changes",
    [
        {"data_std": 1.0},
        {"widths": (8, 24)},
        {"widths": (8, 16, 16)},
        {"num_blocks": 2},
        {"dim": 32},
        {"num_layers": 2},
        {"num_heads": 4},
        {"self_cond": True},
        {"out_channels": S + 1},
    ],
)
def test_every_argument_has_an_effect(changes: dict[str, Any]) -> None:
    def summary(net: TransUNet) -> tuple[object, ...]:
        y = net(X, GAMMA, condition(net))
        return y.shape, y.sum().item(), sum(p.numel() for p in net.parameters())

    assert summary(denoiser()) == summary(denoiser())
    assert summary(denoiser()) != summary(denoiser(**changes))


def test_dropout_acts_in_training_only() -> None:
    net = denoiser(dropout=0.5).train()
    cond = condition(net)
    assert not torch.equal(net(X, GAMMA, cond), net(X, GAMMA, cond))
    assert torch.equal(net.eval()(X, GAMMA, cond), net(X, GAMMA, cond))


@pytest.mark.parametrize("self_cond", [False, True])
def test_gradients_reach_every_parameter(self_cond: bool) -> None:
    net = denoiser(self_cond=self_cond).train()
    net(X, GAMMA, condition(net), FED_BACK).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_evidence_for_a_bit_counts_for_every_code_that_has_it() -> None:
    code_bits = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    net = denoiser(num_bits=2, out_channels=4, code_bits=code_bits, lively=False)
    torch.nn.init.zeros_(net.out.weight)
    net.out.bias.data = torch.tensor([0.0, 0, 0, 7, 2, 0.5])  # a logit of its own for code 3, evidence for the bits
    logits = net(X[:, :2], GAMMA, condition(net))
    expected = torch.tensor([-2.5, -1.5, 1.5, 2.5 + 7])
    torch.testing.assert_close(logits, expected.view(1, 4, 1, 1).expand_as(logits))


def test_golden_value() -> None:
    """Guards the wiring against silent changes.

    Every parameter is 0.2 sin(1), 0.2 sin(2), ... in its own order (norm weights 1 + that), the inputs are cosines; the
    four numbers were computed by version 0.1.0 in float64 on a CPU with torch 2.13.
    """
    net = denoiser(lively=False, self_cond=True).double()
    with torch.no_grad():
        for name, p in net.named_parameters():
            values = 0.2 * torch.arange(1, p.numel() + 1, dtype=torch.float64).sin().view_as(p)
            p.copy_(values + 1 if "norm" in name and name.endswith("weight") else values)

    def waves(*shape: int, phase: float) -> Tensor:
        return (torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + phase).cos().view(shape)

    cond = net.precompute(waves(2, C, 4, 6, phase=0.1), waves(2, 7, D, phase=0.2))
    y = net(waves(2, K, 4, 6, phase=0.3), GAMMA.double(), cond, 0.1 * waves(2, K, 4, 6, phase=0.4))
    found = [y.mean().item(), y.std().item(), y[0, 0, 0, 0].item(), y[1, -1, -1, -1].item()]
    assert found == pytest.approx(GOLDEN, rel=1e-5)


GOLDEN = [0.024258530941761097, 0.8888184787107777, 0.2263882265036897, 0.07492559157450882]
