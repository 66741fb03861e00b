"""Past maps that the model has predicted: whose they are, what they are conditioned on, and in which codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pix2seq_d.data.batch import Batch
from pix2seq_d.data.loaders import collate
from pix2seq_d.diffusion.loss import DiffusionLoss
from pix2seq_d.diffusion.schedule import CosineSchedule
from pix2seq_d.engine.own_past import align_codes, match_segments, own_past
from pix2seq_d.engine.trainer import TrainingLoss
from pix2seq_d.models.layers import SampleDropout, set_recompute
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.tracks import number_segments

Build = Callable[..., Pix2SeqD]
ROAD, PERSON, CAR = 1, 12, 14  # class codes
H, W = 16, 32


# codes


def row(*runs: tuple[int, int, int]) -> np.ndarray:
    """(2, 1, w) class and instance codes of runs of (length, class code, instance code)."""
    lengths = [length for length, _, _ in runs]
    return np.stack([np.repeat([run[k] for run in runs], lengths)[None] for k in (1, 2)])


def aligned(predicted: np.ndarray, true: np.ndarray, **options: Any) -> list[int]:
    options = {"taken": {0, *true[1].ravel().tolist()}, "num_codes": 7, **options}
    return align_codes(predicted, true, **options)[0].tolist()


def test_objects_take_the_codes_of_the_true_ones() -> None:
    """Cars 3 and 5 are predicted as 5 and 3; stuff has no code."""
    true = row((4, CAR, 3), (2, ROAD, 0), (4, CAR, 5), (2, ROAD, 0))
    predicted = row((4, CAR, 5), (1, ROAD, 0), (5, CAR, 3), (2, ROAD, 0))
    assert aligned(predicted, true) == [3] * 4 + [0] + [5] * 5 + [0] * 2


def test_false_positives_get_codes_that_the_clip_has_not() -> None:
    """A person on the road keeps 6. A car where a person is, in a code that the clip has: the next one that is free."""
    true = row((4, CAR, 3), (4, PERSON, 5), (4, ROAD, 0))
    predicted = row((4, CAR, 1), (4, CAR, 3), (4, PERSON, 6))
    assert aligned(predicted, true, taken={0, 3, 4, 5}) == [3] * 4 + [7] * 4 + [6] * 4
    assert aligned(predicted[..., 4:], true[..., 4:], taken={0, 3, 5}) == [4] * 4 + [6] * 4


def test_codes_run_out() -> None:
    """The codes 1 to 3 of the clip leave 4 of 4 for two false positives; after the last code comes the first."""
    true = row((4, ROAD, 0))
    predicted = row((2, CAR, 4), (2, CAR, 2))
    assert aligned(predicted, true, taken={0, 1, 2, 3}, num_codes=4) == [0, 0, 4, 4]
    assert aligned(predicted, true, taken={0, 2, 4}, num_codes=4) == [1, 1, 3, 3]


def test_of_two_fragments_the_larger_is_the_object() -> None:
    true = row((8, CAR, 3))
    assert aligned(row((3, CAR, 1), (5, CAR, 2)), true) == [1] * 3 + [3] * 5


def test_objects_that_hardly_overlap_do_not_match() -> None:
    """IoU 2 / 21 is below a tenth, 2 / 20 is not."""
    true = row((11, CAR, 3), (20, ROAD, 0))
    assert aligned(row((9, ROAD, 0), (12, CAR, 6), (10, ROAD, 0)), true)[9:21] == [6] * 12
    assert aligned(row((9, ROAD, 0), (11, CAR, 6), (11, ROAD, 0)), true)[9:20] == [3] * 11


def test_the_sum_of_all_matches_counts() -> None:
    """A has 7 / 15 with X and 5 / 17 with Y, B has 3 / 10 with X: B to X and A to Y, although A and X are the best."""
    true = row((10, CAR, 1), (10, CAR, 2))
    predicted = row((3, CAR, 6), (12, CAR, 7), (5, ROAD, 0))
    labels, classes, codes = number_segments(*predicted)
    segments, found = match_segments(labels, classes, true)
    assert dict(zip(codes[segments].tolist(), found.tolist())) == {6: 1, 7: 2}
    labels, classes, codes = number_segments(*true)
    segments, found = match_segments(labels, classes, predicted)
    assert dict(zip(codes[segments].tolist(), found.tolist())) == {1: 6, 2: 7}


def test_a_false_positive_keeps_its_code_in_the_next_map() -> None:
    """Predicted as 7 it goes on as 6; another one predicted as 6 gets the next code that is free."""
    true = row((4, CAR, 3), (8, ROAD, 0))
    false = row((4, ROAD, 0), (4, CAR, 6), (4, ROAD, 0))
    predicted = row((4, CAR, 3), (4, CAR, 7), (4, PERSON, 6))
    assert aligned(predicted, true, false=false) == [3] * 4 + [6] * 4 + [7] * 4


# maps of a batch


class Script:
    """Lets a model answer the codes (G, h, w) that belong to the colour of the frame, and keeps what it was asked."""

    def __init__(self, model: Pix2SeqD, answers: dict[int, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
        self.model, self.answers = model, answers
        self.asked: list[tuple[list[int], Tensor, Tensor]] = []  # colours, past codes, present
        self.modes: list[tuple[bool, bool]] = []  # training, gradients
        monkeypatch.setattr(model, "condition", self.condition)
        monkeypatch.setattr(model.denoiser, "forward", self.forward)

    def condition(self, frame: Tensor, past: Tensor, present: Tensor) -> list[int]:
        colours = (frame[:, 0, 0, 0] * 255).round().long().tolist()
        self.asked.append((colours, past, present))
        return colours

    def forward(self, x_t: Tensor, gamma: Tensor, cond: list[int], self_cond: Tensor | None) -> Tensor:
        self.modes.append((self.model.denoiser.training, torch.is_grad_enabled()))
        codes = torch.stack([self.answers[colour] for colour in cond])
        return (self.model.codec.bit_logits(self.model.codec.encode(codes)) * 10).requires_grad_()


def street(*cars: tuple[int, int]) -> Tensor:
    """(2, h, w) codes: road with cars of (left edge, instance code), 8 wide."""
    codes = torch.zeros(2, H, W, dtype=torch.long)
    codes[0] = ROAD
    for left, code in cars:
        codes[0, 4:12, left : left + 8], codes[1, 4:12, left : left + 8] = CAR, code
    return codes


def clip(number: int = 0, *, present: Sequence[bool] = (True,) * 5) -> Batch:
    """Five maps of a car (code 3) that moves by a pixel a frame; the image before frame k has the colour 10 number + k.

    Frames are numbered 0 to 4, the last being that to predict.
    """
    codes = torch.stack([street((2 + k, 3)) for k in range(5)])
    images = torch.stack([torch.full((3, 32, 64), 10 * number + k, dtype=torch.uint8) for k in range(5)])
    return Batch(
        frame=images[None, 4],
        class_codes=codes[None, :, 0],
        instance_codes=codes[None, :, 1],
        crowd=torch.zeros(1, H, W, dtype=torch.bool),
        present=torch.tensor([present]),
        names=[f"s/{number:06d}"],
        past_frames=images[None, 2:4],
    )


def joined(*parts: Batch) -> Batch:
    return collate(parts)


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 + seed) for seed in range(first, first + count)]


def predict(model: Pix2SeqD, batch: Batch, rate: float = 1.0, first: int = 0, steps: int = 2) -> tuple[Tensor, Tensor]:
    codes = torch.stack([batch.class_codes, batch.instance_codes][: len(model.codec.group_bits)], 2)
    return own_past(model, CosineSchedule(), batch, codes, generators(len(batch), first), rate=rate, num_steps=steps)


def codes_of(batch: Batch) -> Tensor:
    return torch.stack([batch.class_codes, batch.instance_codes], 2)


# the prediction of frames 2 and 3: the car in another code, and one that is not there, which changes its code
ANSWERS = {2: street((4, 6), (20, 3)), 3: street((5, 1), (20, 5))}
SHOWN = torch.stack([street((4, 3), (20, 4)), street((5, 3), (20, 4))])


def test_past_maps_are_the_models_own(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicted of the maps before, which are true; the car keeps its code 3, the other is 4 in both maps."""
    model = tiny_model()
    script = Script(model, ANSWERS, monkeypatch)
    past, present = predict(model, clip())
    assert torch.equal(past, SHOWN[None])
    assert present.tolist() == [[True, True]]
    ((colours, seen, there),) = script.asked
    assert colours == [2, 3]
    assert torch.equal(seen, torch.stack([codes_of(clip())[0, :2], codes_of(clip())[0, 1:3]]))
    assert there.all()
    assert len(script.modes) == 2, "as many evaluations as steps"


def test_the_training_loss_conditions_on_them(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps reach the model, past dropout comes after, and modes and gradients of training are as ever."""
    model = tiny_model().train()
    script = Script(model, {**ANSWERS, 4: street((6, 3))}, monkeypatch)
    loss = DiffusionLoss(CosineSchedule(), model.codec)
    for rate_all in (0.0, 1.0):
        module = TrainingLoss(model, loss, past_dropout=0, past_dropout_all=rate_all, own_past_rate=1).train()
        script.asked.clear(), script.modes.clear()
        module(clip(), generators(1))
        colours, past, present = script.asked[-1]
        assert colours == [4]
        assert torch.equal(past, SHOWN[None])
        assert present.all() == (rate_all == 0)
        assert script.modes == [(False, False), (False, False), (True, True)]
        assert all(part.training for part in model.modules())


def test_the_mode_of_every_module_stays(tiny_model: Build) -> None:
    model = tiny_model().train()
    model.encoder.eval()
    modes = [part.training for part in model.modules()]
    predict(model, clip())
    assert [part.training for part in model.modules()] == modes
    assert len(set(modes)) == 2


def test_what_is_absent_stays_absent(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frame 3 is not there; frame 2 of another clip has no map before it and keeps its true one, frame 3 has that."""
    model = tiny_model()
    script = Script(model, {2: ANSWERS[2], 13: ANSWERS[3]}, monkeypatch)
    batch = joined(clip(present=(True, True, True, False, True)), clip(1, present=(False, False, True, True, True)))
    past, present = predict(model, batch)
    ((colours, _, there),) = script.asked
    assert colours == [2, 13]
    assert there.tolist() == [[True, True], [False, True]]
    assert present.tolist() == [[True, False], [True, True]]
    assert torch.equal(past[0], torch.stack([SHOWN[0], codes_of(batch)[0, 3]]))
    assert torch.equal(past[1], torch.stack([codes_of(batch)[1, 2], street((5, 3), (20, 5))]))


def test_a_rate_is_the_share_of_the_samples(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both maps of a sample or none: 0.3 of 400 samples, to three standard deviations of 0.023."""
    model = tiny_model()
    Script(model, ANSWERS, monkeypatch)
    batch = joined(*[clip()] * 400)
    past, _ = predict(model, batch, rate=0.3, steps=1)
    own = (past == SHOWN).flatten(2).all(2)
    true = (past == codes_of(batch)[:, 2:4]).flatten(2).all(2)
    assert torch.equal(own, ~true)
    assert torch.equal(own[:, 0], own[:, 1])
    assert float(own.float().mean()) == pytest.approx(0.3, abs=0.07)


def test_a_rate_of_zero_asks_nothing(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    script = Script(model, {}, monkeypatch)
    past, present = predict(model, clip(), rate=0.0)
    assert torch.equal(past, codes_of(clip())[:, 2:4])
    assert present.all()
    assert not script.asked


def test_processes_without_a_chosen_sample_ask_as_often(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are spread over processes are gathered by all of them; what is predicted changes nothing."""
    model = tiny_model()
    script = Script(model, ANSWERS, monkeypatch)
    past, _ = predict(model, clip(), rate=1e-9)
    assert len(script.modes) == 2
    assert torch.equal(past, codes_of(clip())[:, 2:4])


@pytest.mark.parametrize("sampler", ["ddim", "renoise"])
def test_a_sample_does_not_depend_on_its_batch(tiny_model: Build, sampler: str) -> None:
    model = tiny_model(sampler=sampler, dropout=0.3).train()
    parts = [clip(number) for number in range(4)]
    whole, _ = predict(model, joined(*parts), rate=0.6)
    for first in range(4):
        past, _ = predict(model, parts[first], rate=0.6, first=first)
        assert torch.equal(past[0], whole[first])
    assert not torch.equal(whole, codes_of(joined(*parts))[:, 2:4])
    other, _ = predict(model, joined(*parts), rate=0.6, first=9)
    assert not torch.equal(whole, other)


@pytest.mark.parametrize("options", [{"target": "mse"}, {"num_instance_bits": 0}, {"past_offsets": (-1,)}])
def test_other_kinds_of_model(tiny_model: Build, options: dict[str, Any]) -> None:
    """No map has void, and no code that an object of another class could not have."""
    model = tiny_model(**options)
    batch = clip()
    if model.past_offsets == (-1,):  # maps at -2, -1 and the last, and one image
        maps = {name: getattr(batch, name)[:, 2:] for name in ("class_codes", "instance_codes", "present")}
        batch = Batch(batch.frame, maps["class_codes"], maps["instance_codes"], batch.crowd, maps["present"], ["s"])
        batch.past_frames = clip().past_frames[:, 1:]  # type: ignore[index]
    past, _ = predict(model, batch)
    assert past.shape == (1, len(model.past_offsets), len(model.codec.group_bits), H, W)
    assert ((past[:, :, 0] >= 1) & (past[:, :, 0] <= 19)).all()
    assert not model.codec.group_bits[1:] or not past[:, :, 1][~model.label_spec.is_thing(past[:, :, 0] - 1)].any()


# beside the other switches


def gradients(model: Pix2SeqD, *, bf16: bool = False, **options: Any) -> tuple[Tensor, list[Tensor | None]]:
    loss = DiffusionLoss(CosineSchedule(), model.codec, self_aligned_rate=0.5, self_cond_rate=0.5)
    module = TrainingLoss(model, loss, own_past_rate=0.5, **options).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        value = module(joined(clip(), clip(1)), generators(2)).loss
    value.backward()
    return value.detach(), [p.grad for p in model.parameters()]


@pytest.mark.parametrize("bf16", [False, True])
def test_every_weight_has_a_gradient(tiny_model: Build, bf16: bool) -> None:
    """Casts of weights that were made for a prediction, without gradients, are not taken again."""
    _, found = gradients(tiny_model(self_cond=True), bf16=bf16)
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in found)


def test_activation_checkpointing_changes_no_number(tiny_model: Build) -> None:
    plain, frugal = (tiny_model(self_cond=True, dropout=0.3) for _ in range(2))
    set_recompute(frugal, True)
    (loss, found), (same_loss, same) = gradients(plain), gradients(frugal)
    assert torch.equal(loss, same_loss)
    assert all(torch.equal(a, b) for a, b in zip(found, same) if a is not None and b is not None)


def test_time_noise_and_dropout_of_a_sample_stay_what_they_are(tiny_model: Build) -> None:
    """With a prediction that is thrown away, the loss and the masks' seeds are those of training without it."""
    model, batch = tiny_model(dropout=0.3).train(), clip()
    loss = DiffusionLoss(CosineSchedule(), model.codec)
    layers = [part for part in model.modules() if isinstance(part, SampleDropout)]
    results = []
    for rate in (1e-9, 0.0):
        module = TrainingLoss(model, loss, own_past_rate=rate).train()
        given = batch
        if rate == 0:
            maps = {name: getattr(batch, name)[:, 2:] for name in ("class_codes", "instance_codes", "present")}
            given = Batch(frame=batch.frame, crowd=batch.crowd, names=batch.names, **maps)
        own = generators(1)
        results.append((module(given, own).loss, own[0].get_state(), [layer.seeds for layer in layers]))
    (one, state, seeds), (other, same_state, same_seeds) = results
    assert torch.equal(one, other)
    assert torch.equal(state, same_state)
    assert seeds == same_seeds


@pytest.mark.slow
def test_compiled_parts_predict_too(tiny_model: Build) -> None:
    """Traced whole, without the code generator, for batches of one and of several predictions."""
    loss, found = gradients(tiny_model(self_cond=True))
    model = tiny_model(self_cond=True)
    for part in (model.encoder, model.denoiser):
        part.compile(backend="eager", fullgraph=True)
    same_loss, same = gradients(model)
    assert torch.allclose(loss, same_loss, rtol=1e-6)
    assert all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, same) if a is not None and b is not None
    )
    assert torch.equal(predict(model, clip(), steps=1)[0], predict(tiny_model(self_cond=True), clip(), steps=1)[0])


# errors


def test_a_batch_without_what_is_needed(tiny_model: Build) -> None:
    few = clip()
    few.past_frames = None
    message = r"^batch: expected maps at \(-4, -3, -2, -1, 0\) and 2 past images, got 5 maps and no"
    with pytest.raises(ValueError, match=message):
        predict(tiny_model(), few)
    few = clip()
    few.class_codes, few.instance_codes = few.class_codes[:, 2:], few.instance_codes[:, 2:]
    with pytest.raises(ValueError, match=r"got 3 maps and 2"):
        predict(tiny_model(), few)


@pytest.mark.parametrize(("name", "value"), [("own_past_rate", 1.5), ("own_past_steps", 0)])
def test_wrong_numbers(tiny_model: Build, name: str, value: float) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        TrainingLoss(model, DiffusionLoss(CosineSchedule(), model.codec), **{name: value})
