"""Building blocks: sizes, reference formulas, what they depend on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pix2seq_d.models.layers import (
    Attention,
    NoiseEmbedding,
    ResidualBlock,
    SampleDropout,
    TransformerLayer,
    Upsample,
    conv3x3,
    group_norm,
    position_encoding,
    seed_dropout,
    zero_init,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("channels", "groups"), [(8, 1), (16, 2), (24, 3), (48, 6), (64, 8), (256, 32), (512, 32), (7, 1), (100, 10)]
)
def test_group_norm_has_groups_of_at_least_eight(channels: int, groups: int) -> None:
    norm = group_norm(channels)
    assert norm.num_groups == groups
    assert norm(randn(2, channels, 3, 3)).shape == (2, channels, 3, 3)


def test_conv3x3_keeps_or_halves() -> None:
    x = randn(1, 4, 6, 10)
    assert conv3x3(4, 5)(x).shape == (1, 5, 6, 10)
    assert conv3x3(4, 5, stride=2)(x).shape == (1, 5, 3, 5)
    assert conv3x3(4, 5, bias=False).bias is None


@pytest.mark.parametrize("module", [nn.Linear(50, 50), conv3x3(8, 8), conv3x3(8, 8, bias=False)])
def test_zero_init_is_small_but_not_zero(module: nn.Linear | nn.Conv2d) -> None:
    zero_init(module)
    assert 0 < module.weight.abs().max() < 1e-3
    assert module.bias is None or not module.bias.any()


def test_noise_embedding_tells_gammas_apart() -> None:
    torch.manual_seed(0)
    embedding = NoiseEmbedding(16)
    gamma = torch.tensor([1e-9, 0.001, 0.01, 0.5, 0.99, 0.999, 1.0])
    y = embedding(gamma)
    assert y.shape == (7, 16)
    distance = torch.cdist(y, y) + torch.eye(7)
    assert distance.min().item() > 1e-3
    assert torch.allclose(embedding(gamma[2:3]), y[2:3], atol=1e-6)


def test_noise_embedding_arguments_have_an_effect() -> None:
    assert NoiseEmbedding(8, num_frequencies=4).mlp[0].in_features == 8
    assert NoiseEmbedding(8, max_frequency=10.0).frequencies.max().item() == pytest.approx(10)
    assert NoiseEmbedding(8).frequencies.min().item() == 1
    assert not NoiseEmbedding(8).state_dict().keys() & {"frequencies"}


@pytest.mark.parametrize("channels_out", [8, 16])
def test_residual_block(channels_out: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(8, channels_out, 12)
    x = randn(2, 8, 4, 6)
    y = block(x, randn(2, 12, seed=1))
    assert y.shape == (2, channels_out, 4, 6)
    assert not torch.allclose(y, block(x, randn(2, 12, seed=2)), atol=1e-3)
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)  # type: ignore[arg-type]
    assert torch.equal(block(x, randn(2, 12, seed=1)), block.skip(x))


def test_residual_block_drops_in_training_only() -> None:
    torch.manual_seed(0)
    block, x, e = ResidualBlock(8, 8, 4, dropout=0.5), randn(1, 8, 4, 4), randn(1, 4)
    assert not torch.equal(block(x, e), block(x, e))
    assert torch.equal(block.eval()(x, e), block(x, e))


def test_attention_equals_the_formula() -> None:
    """softmax(q k^T / sqrt(d)) v per head, heads side by side."""
    torch.manual_seed(0)
    attention = Attention(8, 6, num_heads=2)
    x, context = randn(2, 5, 8), randn(2, 3, 6, seed=1)
    q = attention.query(x)
    k, v = attention.key_value(context).chunk(2, -1)
    heads = []
    for columns in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[..., columns] @ k[..., columns].mT / math.sqrt(4), -1)
        heads.append(weights @ v[..., columns])
    expected = attention.output(torch.cat(heads, -1))
    assert torch.allclose(attention(x, attention.project(context)), expected, atol=1e-6)


def test_attention_wants_a_divisor_as_number_of_heads() -> None:
    for num_heads in (3, 0):
        with pytest.raises(ValueError, match=f"num_heads: expected a divisor of 8, got {num_heads}"):
            Attention(8, 8, num_heads=num_heads)


def test_transformer_layer_without_context() -> None:
    torch.manual_seed(0)
    layer, x = TransformerLayer(8, num_heads=2), randn(2, 5, 8)
    y = layer(x)
    assert y.shape == x.shape
    assert not hasattr(layer, "cross_attention")
    moved = torch.cat([x[:, :4], x[:, 4:].flip(2)], 1)
    assert not torch.allclose(layer(moved)[:, 0], y[:, 0], atol=1e-5)  # tokens see each other
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(layer(x[:, order]), y[:, order], atol=1e-5)  # and have no order of their own


def test_transformer_layer_with_context() -> None:
    torch.manual_seed(0)
    layer, x = TransformerLayer(8, num_heads=2, context_dim=6), randn(2, 5, 8)
    contexts = [layer.cross_attention.project(randn(2, 3, 6, seed=s)) for s in (1, 2)]
    assert not torch.allclose(layer(x, contexts[0]), layer(x, contexts[1]), atol=1e-3)
    assert not torch.allclose(layer(x, contexts[0]), layer(x), atol=1e-3)


def test_transformer_layer_arguments_have_an_effect() -> None:
    assert TransformerLayer(8, num_heads=2, mlp_ratio=2).mlp[0].out_features == 16
    layer, x = TransformerLayer(8, num_heads=2, dropout=0.5), randn(1, 4, 8)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_upsample_repeats_then_convolves() -> None:
    up, x = Upsample(4, 3), randn(1, 4, 2, 3)
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(up(x), F.conv2d(repeated, up.conv.weight, up.conv.bias, padding=1), atol=1e-6)


def test_position_encoding_is_unique_and_independent_of_the_size() -> None:
    cpu = torch.device("cpu")
    small, large = (position_encoding(h, w, 32, device=cpu).view(h, w, 32) for h, w in ((3, 5), (9, 15)))
    assert small.abs().max() <= 1
    distance = torch.cdist(small.flatten(0, 1), small.flatten(0, 1)) + 9 * torch.eye(15)
    assert distance.min().item() > 0.1
    assert torch.allclose(small, large[1::3, 1::3], atol=1e-4)  # cell centres of the coarse grid
    assert torch.equal(small[0, :, :16], small[0, :1, :16].expand(5, 16))  # rows in the first half
    assert torch.equal(small[:, 0, 16:], small[:1, 0, 16:].expand(3, 16))  # columns in the second


# dropout by sample


def dropped(seeds: list[int], x: Tensor, rate: float = 0.25) -> Tensor:
    layers = nn.Sequential(SampleDropout(rate), SampleDropout(rate)).train()
    seed_dropout(layers, seeds)
    return layers[0](x)


def test_a_mask_is_the_samples_own() -> None:
    """Wherever the sample stands in whichever batch; other samples and other layers have other masks."""
    x = torch.ones(1, 4, 5, 6)
    alone = {seed: dropped([seed], x) for seed in (7, 8, 9)}
    together = dropped([9, 7], torch.cat([x, x]))
    assert torch.equal(together, torch.cat([alone[9], alone[7]]))
    assert not torch.equal(alone[7], alone[8])
    layers = nn.Sequential(SampleDropout(0.25), SampleDropout(0.25)).train()
    seed_dropout(layers, [7])
    assert not torch.equal(layers[0](x), layers[1](x))
    assert torch.equal(layers[0](x), layers[0](x)), "the seed decides, not the call"


def test_dropout_keeps_the_mean() -> None:
    """Values are 0 or 1 / (1 - rate): 100,000 draws of rate 1/4 have a mean of 1 to about 0.005."""
    y = dropped([1], torch.ones(1, 100_000))
    assert set(y.unique().tolist()) == {0.0, pytest.approx(4 / 3)}
    assert float(y.mean()) == pytest.approx(1, abs=0.01)


def test_dropout_without_seeds_or_rate_or_in_evaluation() -> None:
    x = randn(2, 50)
    layer = SampleDropout(0.5).train()
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(first, F.dropout(x, 0.5))
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(dropped([1, 2], x, rate=0.0), x)


def test_bad_dropout() -> None:
    with pytest.raises(ValueError, match=r"^dropout: expected a rate in \[0, 1\), got 1"):
        SampleDropout(1.0)
    with pytest.raises(ValueError, match=r"^seeds of dropout: expected 2, one per sample, got 3"):
        dropped([1, 2, 3], randn(2, 5))
