"""Weights of one model as the start of another: what it computes stays, wherever codes mean the same."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from tiny_runs import equal
from torch import Tensor

from pix2seq_d.engine.checkpoint import CheckpointError
from pix2seq_d.engine.handover import copy_weights, match_codes
from pix2seq_d.labels import LabelSpec
from pix2seq_d.models.pix2seq_d import Pix2SeqD

Build = Callable[..., Pix2SeqD]


def spec(name: str, *classes: str) -> LabelSpec:
    return LabelSpec(name, classes, tuple((9 * i, 0, 0) for i in range(len(classes))), thing_ids=())


OLD = spec("old", "road", "sidewalk", "tree", "car", "person")
SMALL = {"num_class_bits": 3, "num_instance_bits": 2, "past_offsets": (-1,)}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def random_planes(model: Pix2SeqD, seed: int) -> Tensor:
    return torch.randn(1, model.codec.num_bits, 16, 32, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: Pix2SeqD, x: Tensor, past: Tensor, *, fed_back: Tensor | None = None) -> Tensor:
    """Of bits x after the planes of past maps, on a fixed frame."""
    frame = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(5))
    features = model.encoder(frame)
    cond = model.denoiser.precompute(torch.cat([features.map, past], 1), features.tokens)
    return model.denoiser(x, torch.tensor([0.5]), cond, fed_back)


# what means the same


def test_codes_by_name() -> None:
    """Codes are class + 1; a tree is called vegetation elsewhere, and void is void."""

    class Model:
        def __init__(self, label_spec: LabelSpec, *bits: int) -> None:
            from pix2seq_d.bits import BitCodec

            self.label_spec, self.codec = label_spec, BitCodec(bits)

    new = spec("new", "person", "vegetation", "lake")
    match = match_codes(Model(OLD, 3, 1), Model(new, 2, 2))  # type: ignore[arg-type]
    assert match.rows == [0, 5, 3, -1, 8, 9, -1, -1]
    assert match.planes == [-1, -1, -1, 3]
    longer = spec("longer", *OLD.class_names, "lake", "sea", "hill")
    match = match_codes(Model(OLD, 3, 2), Model(longer, 4, 1))  # type: ignore[arg-type]
    assert match.rows == [0, 1, 2, 3, 4, 5] + [-1] * 10 + [8, 9]
    assert match.planes == [-1, 0, 1, 2, 4]
    assert match_codes(Model(OLD, 4, 1), Model(OLD, 3, 1)).rows == [*range(8), 16, 17]  # type: ignore[arg-type]
    assert match_codes(Model(OLD, 3), Model(spec("x", "lake"), 1)).planes == [-1]  # type: ignore[arg-type]


# what a model computes


def test_the_same_model(tiny_model: Build, caplog: pytest.LogCaptureFixture) -> None:
    source, target = tiny_model(seed=1), tiny_model(seed=2)
    copy_weights(source, target, name="x")
    assert equal(dict(source.state_dict()), dict(target.state_dict()))
    assert not caplog.records


def test_more_bits_a_longer_past_and_an_estimate_fed_back(tiny_model: Build) -> None:
    """New planes, whatever they hold, change no logit of a code that was there."""
    source = tiny_model(label_spec=OLD, **SMALL)
    longer = spec("longer", *OLD.class_names, "lake")
    target = tiny_model(
        seed=2, label_spec=longer, num_class_bits=4, num_instance_bits=3, past_offsets=(-2, -1), self_cond=True
    )
    copy_weights(source, target, name="x")
    x, past, anything = random_planes(source, 1), random_planes(source, 2).sign(), random_planes(target, 3)

    def widened(planes: Tensor) -> Tensor:
        classes, instances = planes.split((3, 2), 1)
        return torch.cat([anything[:, :1], classes, anything[:, 1:2], instances], 1)

    before = logits(source, x, past)
    after = logits(target, widened(x), torch.cat([anything, widened(past)], 1), fed_back=anything)
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[:, 16:20], before[:, 8:12], rtol=1e-4, atol=1e-5)


def test_fewer_bits(tiny_model: Build) -> None:
    """The evidence of bits that are gone moves into the logits of their codes."""
    source = tiny_model(label_spec=OLD, num_class_bits=5, num_instance_bits=4, past_offsets=())
    target = tiny_model(seed=2, label_spec=OLD, num_class_bits=3, num_instance_bits=2, past_offsets=())
    with torch.no_grad():
        source.denoiser.stem.weight[:, [0, 1, 5, 6]] = 0
    copy_weights(source, target, name="x")
    x = random_planes(source, 1)
    before = logits(source, x, x[:, :0])
    after = logits(target, x[:, [2, 3, 4, 7, 8]], x[:, :0])
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[:, 8:], before[:, 32:36], rtol=1e-4, atol=1e-5)


def test_other_classes(tiny_model: Build, caplog: pytest.LogCaptureFixture) -> None:
    """Logits go by name; the bits of other codes say nothing, so the start is a model which does not see them."""
    new = spec("new", "person", "vegetation", "lake", "road", "hill", "parking sign", "sea")
    source, target = tiny_model(label_spec=OLD, **SMALL), tiny_model(seed=2, label_spec=new, **SMALL)
    start = target.denoiser.out.weight.clone()
    with torch.no_grad():
        source.denoiser.stem.weight[:, :3] = 0
        source.denoiser.stem_cond.weight[:, 8:11] = 0
    copy_weights(source, target, name="some/run")
    x, past = random_planes(source, 1), random_planes(source, 2)
    before, after = logits(source, x, past), logits(target, x, past)
    torch.testing.assert_close(after[:, [0, 1, 2, 4]], before[:, [0, 5, 3, 1]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[:, 8:], before[:, 8:], rtol=1e-4, atol=1e-5)
    assert torch.equal(target.denoiser.out.weight[[3, 5, 6, 7]], start[[3, 5, 6, 7]])
    assert told(caplog) == [
        "some/run: classes of new that start from old: person, vegetation (from tree), road; new: lake, hill, "
        "parking sign, sea; bits of the class code are new",
        "some/run: 4 tensors are taken in part: denoiser.stem.weight (2 of 5 inputs, of 5 there), "
        "denoiser.stem_cond.weight (10 of 13 inputs, of 13 there), "
        "denoiser.out.weight (10 of 17 outputs, of 17 there), denoiser.out.bias (10 of 17 outputs, of 17 there)",
    ]
    caplog.clear()
    copy_weights(source, target, name="some/run", tell=False)
    assert told(caplog) == []


def test_bits_as_output(tiny_model: Build) -> None:
    """With the target "mse" the rows of the last layer are bits."""
    new = spec("new", "person", "road")
    source = tiny_model(label_spec=OLD, target="mse", **SMALL)
    target = tiny_model(seed=2, label_spec=new, target="mse", **SMALL)
    start = target.denoiser.out.weight.clone()
    copy_weights(source, target, name="x")
    assert torch.equal(target.denoiser.out.weight[:3], start[:3])
    assert torch.equal(target.denoiser.out.weight[3:], source.denoiser.out.weight[3:])
    assert torch.equal(target.denoiser.out.bias[3:], source.denoiser.out.bias[3:])


# what does not fit


def test_every_other_tensor_is_listed(tiny_model: Build, caplog: pytest.LogCaptureFixture) -> None:
    source = tiny_model(denoiser_layers=2, target="mse")
    target = tiny_model(seed=2, cond_channels=4)
    own = {k: v.clone() for k, v in target.state_dict().items()}
    copy_weights(source, target, name="some/run")
    found = source.state_dict()
    kept = {k for k, v in target.state_dict().items() if k not in found or not torch.equal(v, found[k])}
    assert {k: own[k] for k in kept}.keys() >= {"denoiser.stem_cond.weight", "denoiser.out.weight", "denoiser.out.bias"}
    assert all(torch.equal(target.state_dict()[k], own[k]) for k in kept)
    left = sorted(set(found) - set(own))
    assert told(caplog) == [
        f"some/run: {len(kept)} tensors keep their random start: {', '.join(sorted(kept))}",
        f"some/run: {len(left)} tensors have no place in this model: {', '.join(left)}",
    ]
    assert left
    assert all(name.startswith("denoiser.layers.1.") for name in left)


def test_a_different_model_is_refused(tiny_model: Build) -> None:
    target = tiny_model(encoder_dim=32, denoiser_dim=32, denoiser_widths=(16, 24), stage_widths=(16, 24))
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"some/run: only \d+% of the weights fit this model configuration"):
        copy_weights(tiny_model(), target, name="some/run")
    assert equal(before, dict(target.state_dict()))
