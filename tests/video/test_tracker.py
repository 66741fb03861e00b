"""Streaming prediction with a scripted model (its answers are drawn by hand) and with a tiny random one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scripted_model import CAR, FRAME, PERSON, ROAD, SKY, SPEC, VOID, H, Scripted, W, draw, predictor, scripted
from torch import Tensor

from pix2seq_d.bits import BitCodec
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.models.pix2seq_d import Pix2SeqD

Build = Callable[..., Pix2SeqD]


def random_frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# what comes out


@pytest.mark.parametrize("size", [(32, 64), (30, 50), (64, 128), (17, 100), (7, 5)])
@pytest.mark.parametrize("overrides", [{}, {"target": "mse"}, {"num_instance_bits": 0, "past_offsets": ()}])
def test_maps_have_the_size_of_the_frame(tiny_model: Build, size: tuple[int, int], overrides: dict[str, Any]) -> None:
    prediction = predictor(tiny_model(**overrides)).step(random_frame(*size))
    assert prediction.class_map.shape == prediction.instance_map.shape == prediction.confidence.shape == size
    assert (prediction.class_map.dtype, prediction.instance_map.dtype) == (np.uint8, np.int32)
    assert prediction.confidence.dtype == np.float32
    assert 0 <= prediction.confidence.min() <= prediction.confidence.max() <= 1
    assert prediction.class_map.max() < SPEC.num_classes  # never void
    thing = SPEC.is_thing(prediction.class_map) & bool(overrides.get("num_instance_bits", 3))
    assert np.array_equal(prediction.instance_map > 0, thing)


PICTURE = ["ss1r", "6r2r"]


@pytest.mark.parametrize("size", [(16, 32), (32, 64), (37, 74), (20, 60), (40, 41)])
def test_the_map_of_the_model_comes_back_on_the_frame(size: tuple[int, int]) -> None:
    """Sampled as training samples its maps, the prediction is the model's map; padding is gone."""
    logits, classes, codes = draw(PICTURE)
    prediction = predictor(Scripted([logits])).step(random_frame(*size))
    box = Letterbox(size, (H, W))
    back = box.map(prediction.class_map, (8, 16), fill=VOID)
    seen = back != VOID
    assert seen.any()
    assert np.array_equal(back[seen], classes[seen])
    instances = box.map(prediction.instance_map, (8, 16), fill=-1)
    pairs = {(int(c), int(i)) for c, i in zip(codes[seen], instances[seen])}
    assert len(pairs) == len({c for c, _ in pairs}) == len({i for _, i in pairs}) >= 2
    assert all((c == 0) == (i == 0) for c, i in pairs)


def test_enlarged_borders_stay_where_they_are() -> None:
    """A vertical border in the middle of the mask is one in the middle of a frame of ten times its size."""
    prediction = predictor(scripted(["ss11", "ss11"])).step(random_frame(80, 160))
    border = (prediction.class_map == SKY).sum(1)
    assert np.abs(border - 80).max() <= 5  # half a mask pixel
    assert set(np.unique(prediction.class_map)) == {SKY, CAR}


def test_frames_are_fitted_into_the_image_size_and_scaled_to_one() -> None:
    model = scripted(PICTURE)
    predictor(model).step(np.full((20, 60, 3), 255, np.uint8))
    assert model.frames[0].shape == (1, 3, H, W)
    content = round(20 * 32 / 60)
    assert bool((model.frames[0][:, :, :content] == 1).all())
    assert bool((model.frames[0][:, :, content:] == 124 / 255).all())


def test_void_unused_codes_and_instance_zero_are_never_chosen() -> None:
    """Class votes: void first, an unused code second, car third. Instance votes: none first, code 5 second."""
    logits = torch.zeros(1, 40, 8, 16)
    logits[:, 0], logits[:, 25], logits[:, CAR + 1] = 9, 8, 5
    logits[:, 32], logits[:, 32 + 5] = 9, 5
    model = Scripted([logits])
    video = predictor(model)
    for _ in range(2):
        prediction = video.step(FRAME)
        assert np.unique(prediction.class_map).tolist() == [CAR]
        assert np.unique(prediction.instance_map).tolist() == [1]
    assert model.past[1][0, 1, :, 0, 0].tolist() == [CAR + 1, 5]  # and the model remembers what was chosen


def test_confidence_by_hand() -> None:
    """Left: road with .6. Right: car with .8 and its code with .75. What void and code 0 would get is dealt out."""
    logits = torch.full((1, 40, 8, 16), -50.0)
    logits[:, ROAD + 1, :, :8], logits[:, CAR + 1, :, :8] = np.log(0.6), np.log(0.4)
    logits[:, ROAD + 1, :, 8:], logits[:, CAR + 1, :, 8:] = np.log(0.2), np.log(0.8)
    logits[:, 32 + 1], logits[:, 32 + 4] = np.log(0.25), np.log(0.75)
    logits[:, 0], logits[:, 32] = 3.0, 3.0
    prediction = predictor(Scripted([logits])).step(FRAME)
    assert prediction.confidence[:, 0] == pytest.approx(0.6, abs=1e-5)
    assert prediction.confidence[:, -1] == pytest.approx(0.8 * 0.75, abs=1e-5)


def test_stuff_has_no_instance_whatever_its_code() -> None:
    logits, _, _ = draw(["rrrr", "ssss"])
    logits[:, 32 + 3] = 99
    model = Scripted([logits])
    video = predictor(model)
    assert not video.step(FRAME).instance_map.any()
    video.step(FRAME)
    assert not model.past[1][:, 1, 1].any()


def test_semantic_model() -> None:
    logits, classes, _ = draw(PICTURE, semantic=True)
    model = Scripted([logits], past_offsets=(), instance_bits=0)
    video = predictor(model)
    for _ in range(3):
        prediction = video.step(FRAME)
        assert np.array_equal(Letterbox((H, W), (H, W)).map(prediction.class_map, (8, 16), fill=VOID), classes)
        assert not prediction.instance_map.any()
    assert model.steps == [3, 3, 3]  # every frame is a first frame
    assert model.past[2].shape == (1, 0, 1, 8, 16)


def test_mse_model_decodes_to_the_nearest_code_that_exists() -> None:
    _, classes, codes = draw(PICTURE)
    codec = BitCodec((5, 3), 0.1)
    x0 = codec.encode(torch.from_numpy(np.stack([classes + 1, codes]))[None])
    prediction = predictor(Scripted([x0 * 0.7], target="mse")).step(FRAME)
    back = Letterbox((H, W), (H, W)).map(prediction.class_map, (8, 16), fill=VOID)
    assert np.array_equal(back, classes)
    assert sorted(np.unique(prediction.instance_map)) == [0, 1, 2, 3]


# what is remembered


@pytest.mark.parametrize(("offsets", "length"), [((), 0), ((-1,), 1), ((-2, -1), 2), ((-4, -1), 4)])
def test_memory_is_bounded_by_the_past_offsets(offsets: tuple[int, ...], length: int) -> None:
    video = predictor(scripted(PICTURE, past_offsets=offsets), num_steps=1, num_steps_next=1)
    for _ in range(50):
        video.step(FRAME)
    assert len(video.memory) == length
    assert len(video.tracks.tracks) == 3


def test_past_maps_are_the_predictions_at_the_offsets_oldest_first() -> None:
    pictures = [["rrrr", row] for row in ("1sss", "11ss", "111s", "66ss", "666s")]
    model = scripted(*pictures, past_offsets=(-3, -1))
    video = predictor(model)
    for _ in pictures:
        video.step(FRAME)
    assert model.present == [[False, False], [False, True], [False, True], [True, True], [True, True]]
    drawn = [torch.from_numpy(np.stack([c + 1, i])) for _, c, i in map(draw, pictures)]
    assert torch.equal(model.past[1][0, 1], drawn[0])
    assert torch.equal(model.past[4][0, 0], drawn[1])
    assert torch.equal(model.past[4][0, 1], drawn[3])
    assert not model.past[1][0, 0].any()


def test_reset_forgets(tiny_model: Build) -> None:
    video = predictor(tiny_model())
    first, second = video.step(random_frame(32, 64)), video.step(random_frame(32, 64))
    assert not np.array_equal(first.confidence, second.confidence)
    video.reset()
    assert (len(video.memory), video.frame_index, video.tracks.last_id) == (0, 0, 0)
    again = video.step(random_frame(32, 64))
    assert np.array_equal(again.confidence, first.confidence)
    assert np.array_equal(again.instance_map, first.instance_map)
    video.reset()
    assert video.step(random_frame(20, 40)).class_map.shape == (20, 40)  # another size


def test_the_past_has_an_effect(tiny_model: Build) -> None:
    """The second frame is predicted from the same noise, once with and once without the first one's map."""
    model = tiny_model(num_steps_next=3)
    video = predictor(model)
    video.step(random_frame(32, 64))
    with_past = video.step(random_frame(32, 64))
    video.frame_index = 1
    video.memory.clear()
    without = video.step(random_frame(32, 64))
    assert not np.array_equal(with_past.confidence, without.confidence)


# steps, sampler, seed


def test_steps_of_first_and_later_frames() -> None:
    model = scripted(PICTURE)
    video = predictor(model)
    for _ in range(3):
        video.step(FRAME)
    video.reset()
    video.step(FRAME)
    assert model.steps == [3, 2, 2, 3]


def test_steps_can_be_given() -> None:
    model = scripted(PICTURE)
    video = predictor(model, num_steps=5, num_steps_next=1)
    for _ in range(2):
        video.step(FRAME)
    assert model.steps == [5, 1]


def test_a_frame_counts_as_first_until_a_past_map_exists() -> None:
    model = scripted(PICTURE, past_offsets=(-3,))
    video = predictor(model)
    for _ in range(5):
        video.step(FRAME)
    assert model.steps == [3, 3, 3, 2, 2]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m", "renoise"])
def test_the_seed_decides_everything(tiny_model: Build, sampler: str) -> None:
    model = tiny_model(sampler=sampler)

    def run(seed: int) -> list[np.ndarray]:
        video = predictor(model, seed=seed)
        torch.rand(1)  # global randomness does not matter
        return [video.step(random_frame(32, 64)).confidence for _ in range(2)]

    assert np.array_equal(run(0), run(0))
    assert not np.array_equal(run(0)[0], run(1)[0])
    assert not np.array_equal(run(0)[1], run(1)[1])


def test_every_frame_has_noise_of_its_own() -> None:
    seen: list[Tensor] = []
    video = predictor(scripted(PICTURE), num_steps=1, num_steps_next=1)
    for _ in range(3):
        video.step(FRAME, callback=lambda step, x_t, x0: seen.append(x_t))
    assert len({x.sum().item() for x in seen}) == 3
    assert all(abs(x.std().item() - 1) < 0.1 for x in seen)


def test_callback_sees_the_steps() -> None:
    seen: list[int] = []
    predictor(scripted(PICTURE), num_steps=4).step(FRAME, callback=lambda step, x_t, x0: seen.append(step))
    assert seen == [0, 1, 2, 3]


def test_settings_reach_the_sampler(tiny_model: Build) -> None:
    model = tiny_model()
    reference = predictor(model, num_steps=4).step(random_frame(32, 64)).confidence
    for options in ({"num_steps": 5}, {"td_steps": 2.0}, {"sampler": "ddpm"}):
        changed = predictor(model, **{"num_steps": 4, **options}).step(random_frame(32, 64)).confidence
        assert not np.array_equal(changed, reference), options


def test_defaults_come_from_the_model(tiny_model: Build) -> None:
    model = tiny_model(num_steps=4, num_steps_next=3, td_steps=0.5, min_pixels=7, sampler="ddpm", schedule="linear")
    video = predictor(model)
    assert (video.num_steps, video.num_steps_next, video.td_steps, video.min_pixels) == (4, 3, 0.5, 7)
    assert (video.sample.__name__, type(video.schedule).__name__) == ("sample_ddpm", "LinearSchedule")
    zeros = predictor(model, td_steps=0.0, min_pixels=0)  # zero is not "missing"
    assert (zeros.td_steps, zeros.min_pixels) == (0, 0)


def test_weights_and_their_gradients_are_left_alone(tiny_model: Build) -> None:
    model = tiny_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    predictor(model).step(random_frame(32, 64))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


# small segments

SPECKLED = ["ssssssss", "sss1ssss", "rrrrrrrr", "rrrrrr2r"]  # a car is 4 x 4 pixels of the frame


def with_second_choice(picture: Sequence[str]) -> Tensor:
    """Logits whose second choice is the road everywhere."""
    logits = draw(picture)[0]
    logits[:, ROAD + 1] += 10
    return logits


def test_small_segments_go_to_their_next_best_class() -> None:
    model = Scripted([with_second_choice(SPECKLED)])
    kept, dropped = (predictor(model, min_pixels=n).step(FRAME) for n in (0, 40))
    assert set(np.unique(kept.class_map)) == {ROAD, SKY, CAR}
    assert set(np.unique(kept.instance_map)) == {0, 1, 2}
    assert set(np.unique(dropped.class_map)) == {ROAD, SKY}
    assert not dropped.instance_map.any()
    assert dropped.class_map[5, 13] == ROAD  # where the car in the sky was
    stayed = kept.class_map != CAR
    assert np.array_equal(dropped.class_map[stayed], kept.class_map[stayed])


@pytest.mark.parametrize("min_pixels", [1, 5, 12, 40])
def test_no_smaller_segment_is_left(tiny_model: Build, min_pixels: int) -> None:
    """A random model draws speckles of all classes; what a small segment turns into is not a small segment either."""
    prediction = predictor(tiny_model(seed=2), min_pixels=min_pixels).step(random_frame(32, 64))
    segments = prediction.class_map.astype(np.int64) * 1000 + prediction.instance_map
    assert np.unique(segments, return_counts=True)[1].min() >= min_pixels


def test_a_frame_smaller_than_min_pixels_still_has_classes() -> None:
    prediction = predictor(scripted(PICTURE), min_pixels=10_000).step(FRAME)
    assert prediction.class_map.max() < SPEC.num_classes


# errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps: expected at least 1, got 0"),
        ({"num_steps_next": 0}, "num_steps_next: expected at least 1, got 0"),
        ({"td_steps": -1.0}, "td_steps: expected at least 0, got -1.0"),
        ({"td_steps": math.nan}, "td_steps: expected at least 0, got nan"),
        ({"min_pixels": -1}, "min_pixels: expected at least 0, got -1"),
        ({"t_start_next": 0.0}, r"t_start_next: expected a number in \(0, 1\], got 0.0"),
        ({"t_start_next": 1.5}, r"t_start_next: expected a number in \(0, 1\], got 1.5"),
        ({"stop_unchanged": 0.0}, r"stop_unchanged: expected a number in \(0, 1\], got 0.0"),
        ({"stop_unchanged": 1.01}, r"stop_unchanged: expected a number in \(0, 1\], got 1.01"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"sampler": "euler"}, "sampler: expected one of ddim, ddpm, dpmpp_2m, renoise, got 'euler'"),
    ],
)
def test_wrong_settings_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor(scripted(PICTURE), **options)


def test_an_unknown_schedule_raises(tiny_model: Build) -> None:
    with pytest.raises(ValueError, match="schedule: expected one of cosine, linear, sigmoid, got 'sine'"):
        predictor(tiny_model(schedule="sine"))


@pytest.mark.parametrize(
    "frame", [FRAME[..., :2], FRAME[..., 0], FRAME.astype(np.float32), np.zeros((H, W, 4), np.uint8), FRAME[None]]
)
def test_wrong_frames_raise(frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"frame: expected \(H, W, 3\) uint8, got"):
        predictor(scripted(PICTURE)).step(frame)


def test_a_change_of_the_frame_size_raises_and_keeps_the_memory() -> None:
    video = predictor(scripted(PICTURE))
    video.step(FRAME)
    with pytest.raises(ValueError, match=r"frame: expected \(16, 32, 3\) as the frames before, got \(32, 16, 3\)"):
        video.step(np.zeros((W, H, 3), np.uint8))
    assert (len(video.memory), video.frame_index) == (1, 1)
    video.step(FRAME)


# track ids and classes of instances


def test_ids_of_a_video() -> None:
    """A car with code 1 is hidden for one frame, then for longer than tracks are remembered."""
    hidden = ["rrrr", "ssss"]
    model = scripted(PICTURE, hidden, PICTURE, *[hidden] * 9, PICTURE)
    video = predictor(model)
    found = [np.unique(video.step(FRAME).instance_map).tolist() for _ in range(13)]
    assert found == [[0, 1, 2, 3], [0], [0, 1, 2, 3], *[[0]] * 9, [0, 4, 5, 6]]


def test_the_model_remembers_the_codes_of_the_tracks() -> None:
    """A car changes from code 1 to 2: the map says car 1 still, and so does the memory."""
    video = predictor(scripted(["11rr", "11rr"], ["22rr", "22rr"], ["22rr", "22rr"]))
    for _ in range(3):
        assert np.unique(video.step(FRAME).instance_map).tolist() == [0, 1]
        assert video.memory[-1][1].unique().tolist() == [0, 1]


def test_a_code_of_two_classes_is_two_objects() -> None:
    """Code 1 holds car on five cells and person on three: the model has few codes and gave one to two objects."""
    logits, _, _ = draw(["1111", "1666"])
    logits[:, 32:] = draw(["1111", "1111"])[0][:, 32:]
    prediction = predictor(Scripted([logits])).step(FRAME)
    assert np.unique(prediction.class_map).tolist() == [PERSON, CAR]
    ids = {c: np.unique(prediction.instance_map[prediction.class_map == c]).tolist() for c in (PERSON, CAR)}
    assert ids == {PERSON: [1], CAR: [2]}
