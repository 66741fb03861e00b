"""Streaming prediction with known pixels, several samples, guidance, subsets of classes, and videos in one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scripted_model import CAR, FRAME, PERSON, ROAD, SKY, VOID, draw, predictor, scripted
from torch import Tensor

from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.known import KnownMap
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor, predict_together

Build = Callable[..., Pix2SeqD]
PICTURE = ["ss1r", "6r2r"]


def random_frame(height: int = 32, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def known_of(picture: list[str], ids: dict[str, int], unknown: str = "?") -> KnownMap:
    """A map at the frame's size (16, 32) of a picture, with an id for each letter; "?" is unknown."""
    _, classes, _ = draw([row.replace(unknown, "r") for row in picture])
    letters = np.array([list(row) for row in picture]).repeat(8 // len(picture), 0).repeat(8 // len(picture), 1)
    classes = np.where(letters == unknown, VOID, classes)
    instances = np.vectorize(lambda letter: ids.get(letter, 0))(letters)
    return KnownMap(classes.repeat(2, 0).repeat(2, 1), instances.repeat(2, 0).repeat(2, 1))


def same(one: PanopticMap, other: PanopticMap) -> bool:
    return np.array_equal(one.class_map, other.class_map) and np.array_equal(one.instance_map, other.instance_map)


# known pixels


def test_a_complete_map_is_taken_without_the_network() -> None:
    model = scripted(PICTURE)
    known = known_of(PICTURE, {"1": 70, "2": 8, "6": 8})
    result = predictor(model).step(FRAME, known=known)
    assert not model.frames
    assert np.array_equal(result.class_map, known.class_map)
    assert np.array_equal(result.instance_map, known.instance_map)
    assert result.confidence.min() == 1


def test_known_objects_go_on_under_their_ids() -> None:
    """The model calls them by the codes that the past map tells: here it is scripted to do so."""
    predict = predictor(scripted(["ss2r", "3r1r"], past_offsets=(-1,)))
    known = known_of(PICTURE, {"1": 70, "2": 71, "6": 72})
    predict.step(FRAME, known=known)
    codes = predict.tracks.codes_of([(CAR + 1, 70), (CAR + 1, 71), (PERSON + 1, 72)])
    picture = ["ss1r", "7r2r"]
    for letter, key in (("1", (CAR + 1, 70)), ("2", (CAR + 1, 71))):
        picture = [row.replace(letter, chr(ord("A") + codes[key])) for row in picture]
    picture = [row.translate(str.maketrans("ABCDEF", "012345")).replace("7", "r") for row in picture]
    model = scripted(picture, past_offsets=(-1,))
    predict.model = model
    later = predict.step(FRAME)
    assert set(np.unique(later.instance_map)) == {0, 70, 71}
    past = model.past[0][0, -1]
    assert np.array_equal(past[0].numpy(), known.class_map[::2, ::2].astype(int) + 1)


def test_unknown_pixels_are_the_models_and_known_ones_the_users() -> None:
    """The right half is unknown; on the left the user says road where the model says sky and person.

    What is enlarged is mixed within a mask pixel of the border.
    """
    result = predictor(scripted(PICTURE)).step(FRAME, known=known_of(["rr??", "rr??"], {}))
    free = predictor(scripted(PICTURE)).step(FRAME)
    assert (result.class_map[:, :16] == ROAD).all()
    assert np.array_equal(result.class_map[:, 18:], free.class_map[:, 18:])
    assert np.array_equal(result.instance_map[:, 18:] > 0, free.instance_map[:, 18:] > 0)


def test_a_known_class_leaves_the_object_to_the_model() -> None:
    """The upper right is some car, says the user; the model knows which: the one of code 2."""
    said = known_of(["??1?", "????"], {})
    result = predictor(scripted(["ss2r", "6r2r"])).step(FRAME, known=said)
    cars = result.instance_map[result.class_map == CAR]
    assert len(set(cars.tolist())) == 1
    assert cars[0] > 0
    assert (result.class_map == CAR).sum() >= 64


def test_a_frame_thinner_than_a_pixel_of_the_mask_is_predicted() -> None:
    class_map = np.full((40, 2), ROAD)
    frame, known = np.zeros((40, 2, 3), np.uint8), KnownMap(class_map, np.zeros((40, 2), int))
    predict = predictor(scripted(PICTURE))
    assert np.array_equal(predict.step(frame, known=known).class_map, class_map)
    assert predict.step(frame).class_map.shape == (40, 2)


def pixel_of(class_id: int, track_id: int, elsewhere: int) -> KnownMap:
    """One pixel that no pixel of the mask samples; all others are of one class, or unknown."""
    class_map, ids = np.full((16, 32), elsewhere), np.zeros((16, 32), int)
    class_map[4, 20], ids[4, 20] = class_id, track_id
    return KnownMap(class_map, ids)


@pytest.mark.parametrize("num_samples", [1, 2])
def test_a_known_thing_too_small_for_the_mask_is_no_object(tiny_model: Build, num_samples: int) -> None:
    predict = predictor(tiny_model(image_size=(16, 32), num_instance_bits=3), num_samples=num_samples)
    result = predict.step(FRAME, known=pixel_of(CAR, 0, elsewhere=ROAD))
    assert (result.class_map[4, 20], result.instance_map[4, 20]) == (CAR, 0)
    assert result.confidence.min() == result.confidence[4, 20] == 0
    assert [s["score"] for s in result.segments_info] == [1, 0]


def test_the_id_of_an_object_too_small_for_the_mask_is_given_to_no_other() -> None:
    """The model sees two cars and a person, which are new."""
    result = predictor(scripted(PICTURE)).step(FRAME, known=pixel_of(CAR, 2, elsewhere=VOID))
    assert (result.instance_map == 2).sum() == 1
    assert np.unique(result.instance_map).tolist() == [0, 2, 3, 4, 5]


def test_the_denoiser_sees_what_is_known_at_every_step(tiny_model: Build) -> None:
    estimates: list[Tensor] = []
    model = tiny_model(past_offsets=())
    known = KnownMap(np.full((32, 64), VOID), np.zeros((32, 64), int))
    known.class_map[:, :32] = SKY
    predictor(model).step(random_frame(), known=known, callback=lambda k, x, x0: estimates.append(x0))
    assert len(estimates) == 3
    for x0 in estimates:
        classes, instances = model.codec.decode(x0)[0]
        assert bool((classes[:, :16] == SKY + 1).all())
        assert bool((instances[:, :16] == 0).all())
        assert len(classes[:, 16:].unique()) > 1
    scale = model.codec.scale
    assert bool(((x0[:, :, :, :16].abs() - scale).abs() < 1e-6).all()), "certain bits"


def test_known_maps_begin_anew_in_the_middle_of_a_video(tiny_model: Build) -> None:
    predict = predictor(tiny_model())
    for k in range(3):
        predict.step(random_frame(seed=k))
    known = KnownMap(np.full((32, 64), ROAD), np.zeros((32, 64), int))
    known.class_map[8:24, 8:40], known.instance_map[8:24, 8:40] = CAR, 1000
    result = predict.step(random_frame(seed=3), known=known)
    assert set(np.unique(result.instance_map)) == {0, 1000}
    later = predict.step(random_frame(seed=4))
    assert later.instance_map[later.instance_map > 0].size == 0 or later.instance_map.max() >= 1000


def test_a_known_map_of_another_size_is_refused_and_the_video_goes_on(tiny_model: Build) -> None:
    one, other = predictor(tiny_model()), predictor(tiny_model())
    with pytest.raises(ValueError, match=r"known class_map: expected \(32, 64\) as the frame, got \(4, 4\)"):
        one.step(random_frame(), known=KnownMap(np.zeros((4, 4), int), np.zeros((4, 4), int)))
    assert same(one.step(random_frame()), other.step(random_frame()))


# classes


def test_only_classes_leaves_the_rest_void_and_the_memory_whole(tiny_model: Build) -> None:
    part, whole = predictor(tiny_model(), only_classes=[CAR, SKY]), predictor(tiny_model())
    for k in range(2):
        some, all_of_it = part.step(random_frame(seed=k)), whole.step(random_frame(seed=k))
        kept = np.isin(all_of_it.class_map, [CAR, SKY])
        assert np.array_equal(some.class_map, np.where(kept, all_of_it.class_map, VOID))
        assert np.array_equal(some.instance_map, np.where(kept, all_of_it.instance_map, 0))
        assert all(torch.equal(a, b) for a, b in zip(part.memory, whole.memory))


def test_without_classes_never_generates_them(tiny_model: Build) -> None:
    free = predictor(tiny_model()).step(random_frame())
    common = int(np.bincount(free.class_map.ravel()).argmax())
    estimates: list[Tensor] = []
    model = tiny_model()
    result = predictor(model, without_classes=[common]).step(
        random_frame(), callback=lambda k, x, x0: estimates.append(x0)
    )
    assert common not in result.class_map
    assert common in free.class_map


# guidance


def test_guidance_changes_later_frames_only(tiny_model: Build) -> None:
    plain, guided = (predictor(tiny_model(), history_guidance=w) for w in (0.0, 3.0))
    assert same(plain.step(random_frame()), guided.step(random_frame()))
    one, other = plain.step(random_frame(seed=1)), guided.step(random_frame(seed=1))
    assert not np.array_equal(one.confidence, other.confidence)


def test_guidance_of_minus_one_forgets_the_past(tiny_model: Build) -> None:
    """Then it is the prediction without past maps: that of a first frame, with its noise and number of steps."""
    model = tiny_model(num_steps=2)
    guided = predictor(model, history_guidance=-1.0)
    guided.step(random_frame())
    got: list[Tensor] = []
    guided.step(random_frame(seed=1), callback=lambda k, x, x0: got.append(x0))
    alone = predictor(model)
    alone.frame_index = 1
    expected: list[Tensor] = []
    alone.step(random_frame(seed=1), callback=lambda k, x, x0: expected.append(x0))
    torch.testing.assert_close(got[-1], expected[-1], atol=1e-5, rtol=1e-4)


# several samples


def test_several_samples_tell_where_they_differ(tiny_model: Build) -> None:
    result = predictor(tiny_model(), num_samples=4).step(random_frame(30, 50))
    told = result.uncertainty
    assert told is not None
    assert told.class_entropy.shape == told.instance_disagreement.shape == (30, 50)
    for values in (told.class_entropy, told.instance_disagreement):
        assert values.dtype == np.float32
        assert 0 <= values.min() <= values.max() <= 1
    assert told.class_entropy.std() > 0
    segments = {(s["label_id"], s["instance_id"]) for s in result.segments_info}
    at_mask_size = segments & set(told.agreement)
    assert len(at_mask_size) >= len(segments) / 2
    assert all(0 <= share <= 1 for share in told.agreement.values())
    assert predictor(tiny_model()).step(random_frame()).uncertainty is None


def test_a_border_between_certain_pixels_is_uncertain() -> None:
    """The entropy is that of the probabilities at the frame's size, as the confidence is."""
    told = predictor(scripted(PICTURE), num_samples=2).step(FRAME)
    assert told.uncertainty is not None
    entropy, edges = told.uncertainty.class_entropy, np.diff(told.class_map.astype(int), axis=1) != 0
    beside = np.pad(edges, ((0, 0), (1, 0))) | np.pad(edges, ((0, 0), (0, 1)))
    assert entropy[beside].mean() > 0.1
    assert entropy.min() < 0.01


def test_samples_that_agree_are_the_single_one() -> None:
    """A model that says the same whatever the noise."""
    many, one = predictor(scripted(PICTURE), num_samples=3), predictor(scripted(PICTURE))
    for _ in range(2):
        first, second = many.step(FRAME), one.step(FRAME)
        assert same(first, second)
        assert first.uncertainty is not None
        assert first.uncertainty.instance_disagreement.max() == 0
        assert set(first.uncertainty.agreement.values()) == {1.0}


def test_the_first_sample_is_that_of_a_single_one(tiny_model: Build) -> None:
    def last_estimate(**options: Any) -> Tensor:
        estimates: list[Tensor] = []
        predictor(tiny_model(), **options).step(random_frame(), callback=lambda k, x, x0: estimates.append(x0))
        return estimates[-1]

    several = last_estimate(num_samples=3)
    assert several.shape[0] == 3
    torch.testing.assert_close(several[:1], last_estimate(), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(several[0], several[1], atol=1e-2)


# videos in one batch


@pytest.mark.parametrize("options", [{}, {"num_samples": 2}, {"history_guidance": 0.5}, {"stop_unchanged": 0.9}])
@pytest.mark.parametrize("sampler", ["ddim", "renoise"])
def test_videos_in_a_batch_are_those_that_they_are_alone(
    tiny_model: Build, options: dict[str, Any], sampler: str
) -> None:
    """Frames of two sizes, seeds of their own; the second video begins later."""
    model, sizes = tiny_model(), [(32, 64), (30, 50)]
    alone, batch = ([predictor(model, seed=s, sampler=sampler, **options) for s in (4, 9)] for _ in range(2))
    for k in range(3):
        videos = [v for v in range(2) if k or not v]
        frames = [random_frame(*sizes[v], seed=10 * v + k) for v in videos]
        expected = [alone[v].step(frame) for v, frame in zip(videos, frames)]
        found = predict_together([batch[v] for v in videos], frames)
        for one, other in zip(expected, found):
            assert same(one, other)
            np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-4)


def test_known_maps_in_a_batch(tiny_model: Build) -> None:
    """One frame is known whole, one in part, one not at all."""
    model, frames = tiny_model(), [random_frame(seed=k) for k in range(3)]
    whole = KnownMap(np.full((32, 64), ROAD), np.zeros((32, 64), int))
    part = KnownMap(np.full((32, 64), VOID), np.zeros((32, 64), int))
    part.class_map[:9] = SKY
    known = [whole, part, None]
    alone = [predictor(model, seed=k).step(f, known=what) for k, (f, what) in enumerate(zip(frames, known))]
    found = predict_together([predictor(model, seed=k) for k in range(3)], frames, known=known)
    assert all(same(one, other) for one, other in zip(alone, found))


def test_a_batch_is_refused_before_any_video_moves_on(tiny_model: Build) -> None:
    model = tiny_model()
    one, two = predictor(model), predictor(model)
    for predictors, frames, message in (
        ([one, two], [random_frame()], "one for each of 2 different predictors, got 1, 1"),
        ([one, one], [random_frame()] * 2, "one for each of 2 different predictors"),
        ([one, predictor(model, num_steps=9)], [random_frame()] * 2, "predictors: expected the same num_steps"),
        ([one, predictor(tiny_model())], [random_frame()] * 2, "predictors: expected the same model"),
        ([one, two], [random_frame(), np.zeros((3, 3), np.uint8)], r"frame: expected \(H, W, 3\) uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_together(predictors, frames)
    assert one.frame_index == two.frame_index == 0
    assert one.frame_size is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples: expected at least 1, got 0"),
        ({"history_guidance": float("nan")}, "history_guidance: expected a finite number"),
        ({"only_classes": [19]}, "only_classes: expected train ids in 0..18, got 19"),
        ({"without_classes": [-1]}, "without_classes: expected train ids in 0..18, got -1"),
        ({"without_classes": range(19)}, "without_classes: expected at least one class to be left"),
    ],
)
def test_settings_that_no_prediction_can_use(tiny_model: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoPredictor(tiny_model(), **options)


def test_steps_are_taken_at_the_times_of_a_grid(tiny_model: Build) -> None:
    def last_estimate(**options: Any) -> Tensor:
        estimates: list[Tensor] = []
        predictor(tiny_model(), **options).step(random_frame(), callback=lambda k, x, x0: estimates.append(x0))
        return estimates[-1]

    assert torch.equal(last_estimate(step_grid=[1.0, 0.5, 0.0]), last_estimate())
    assert not torch.equal(last_estimate(step_grid=[1.0, 0.8, 0.0]), last_estimate())
    with pytest.raises(ValueError, match="knots: expected two times or more, falling from 1 to 0"):
        predictor(tiny_model(), step_grid=[1.0, 0.2])
