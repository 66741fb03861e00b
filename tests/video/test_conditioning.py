"""Past maps as conditioning planes: the null value, the order, dropout."""

from __future__ import annotations

import pytest
import torch

from pix2seq_d.bits import BitCodec
from pix2seq_d.video.conditioning import clip_offsets, drop_past, encode_past, null_past

CODEC = BitCodec((2, 3), 0.1)
B, T, H, W = 3, 2, 4, 5
CODES = torch.stack(
    [torch.randint(n, (B, T, H, W), generator=torch.Generator().manual_seed(n)) for n in CODEC.group_codes], 2
)
EVERY = torch.ones(B, T, dtype=torch.bool)


def generators(n: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(n)]


def test_planes_are_the_signs_of_the_bits_oldest_first() -> None:
    planes = encode_past(CODES, EVERY, CODEC)
    assert planes.shape == (B, T * CODEC.num_bits, H, W)
    assert planes.dtype == torch.float32
    for t in range(T):
        own = planes[:, t * CODEC.num_bits : (t + 1) * CODEC.num_bits]
        assert torch.equal(own, CODEC.encode(CODES[:, t]).sign())


def test_the_scale_of_the_bits_does_not_matter() -> None:
    assert torch.equal(encode_past(CODES, EVERY, BitCodec((2, 3), 1.0)), encode_past(CODES, EVERY, CODEC))


def test_a_missing_map_is_zero_whatever_its_codes_and_no_code_is() -> None:
    present = torch.tensor([[True, False], [False, True], [False, False]])
    planes = encode_past(CODES, present, CODEC).view(B, T, CODEC.num_bits, H, W)
    assert torch.equal(planes.abs().sum((2, 3, 4)) > 0, present)
    assert torch.equal(planes[present].abs(), torch.ones_like(planes[present]))
    other = encode_past((CODES + 1) % 4, present, CODEC).view_as(planes)
    assert torch.equal(other[~present], planes[~present])


def test_null_past_is_what_a_missing_past_encodes_to() -> None:
    null = null_past((B, T * CODEC.num_bits, H, W))
    assert torch.equal(encode_past(CODES, ~EVERY, CODEC), null)


def test_no_past_offsets_give_no_planes() -> None:
    planes = encode_past(CODES[:, :0], EVERY[:, :0], CODEC)
    assert planes.shape == (B, 0, H, W)
    assert planes.dtype == torch.float32


# dropout


def test_dropout_rates() -> None:
    """4000 samples of two maps: each is kept with (1 - .3) (1 - .2), both are gone with .2 + .8 * .09."""
    kept = drop_past(torch.ones(4000, 2, dtype=torch.bool), rate=0.3, rate_all=0.2, generators=generators(4000))
    assert kept.double().mean(0).tolist() == pytest.approx([0.56, 0.56], abs=0.032)  # four deviations
    assert (~kept).all(1).double().mean().item() == pytest.approx(0.272, abs=0.029)


@pytest.mark.parametrize(("rate", "rate_all", "kept"), [(0.0, 0.0, True), (1.0, 0.0, False), (0.0, 1.0, False)])
def test_certain_rates(rate: float, rate_all: float, kept: bool) -> None:
    present = torch.ones(50, 2, dtype=torch.bool)
    assert bool((drop_past(present, rate=rate, rate_all=rate_all) == kept).all())


def test_a_missing_map_never_appears() -> None:
    present = torch.tensor([[False, True]]).expand(200, 2)
    kept = drop_past(present, rate=0.5, generators=generators(200))
    assert not kept[:, 0].any()
    assert 0 < int(kept[:, 1].sum()) < 200


def test_each_sample_obeys_its_generator() -> None:
    present = torch.ones(8, 2, dtype=torch.bool)
    whole = drop_past(present, rate=0.5, generators=generators(8))
    assert torch.equal(drop_past(present, rate=0.5, generators=generators(8)), whole)
    assert torch.equal(drop_past(present[5:6], rate=0.5, generators=generators(1, first=5)), whole[5:6])
    assert not torch.equal(drop_past(present, rate=0.5, generators=generators(8, first=100)), whole)


def test_without_generators_the_global_one_draws() -> None:
    present = torch.ones(8, 2, dtype=torch.bool)
    torch.manual_seed(0)
    first = drop_past(present, rate=0.5)
    torch.manual_seed(0)
    assert torch.equal(drop_past(present, rate=0.5), first)
    assert not torch.equal(drop_past(present, rate=0.5), first)


def test_one_generator_per_sample_is_wanted() -> None:
    with pytest.raises(ValueError, match="generators: expected 8, one per sample, got 1"):
        drop_past(torch.ones(8, 2, dtype=torch.bool), rate=0.5, generators=generators(1))


def test_no_past_maps_stay_none() -> None:
    assert drop_past(torch.ones(3, 0, dtype=torch.bool), rate=0.5, generators=generators(3)).shape == (3, 0)


@pytest.mark.parametrize(
    ("offsets", "maps"),
    [((-1,), (-2, -1)), ((-2, -1), (-4, -3, -2, -1)), ((-3, -1), (-6, -4, -3, -2, -1)), ((), ())],
)
def test_clips_hold_the_past_of_their_past(offsets: tuple[int, ...], maps: tuple[int, ...]) -> None:
    assert clip_offsets(offsets) == maps
