"""Frames of either kind in, maps out, one at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pix2seq_d.data.synthetic import SyntheticSequence
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.pipeline import Pix2SeqDPipeline
from pix2seq_d.video.known import KnownMap
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor

Build = Callable[..., Pix2SeqD]


@pytest.fixture
def pipeline(tiny_model: Build) -> Pix2SeqDPipeline:
    return Pix2SeqDPipeline(tiny_model(), device="cpu")


def frames(count: int, size: tuple[int, int] = (40, 70), seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]


def same(ones: list[PanopticMap], others: list[PanopticMap]) -> bool:
    return len(ones) == len(others) and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(ones, others)
        for name in ("class_map", "instance_map", "confidence")
    )


def test_pillow_and_numpy_frames_give_the_same_maps(pipeline: Pix2SeqDPipeline) -> None:
    arrays = frames(3)
    maps = pipeline(arrays)
    assert same(maps, pipeline([Image.fromarray(a) for a in arrays]))
    assert [m.class_map.shape for m in maps] == [(40, 70)] * 3
    assert {(m.class_map.dtype, m.instance_map.dtype, m.confidence.dtype) for m in maps} == {
        (np.dtype("uint8"), np.dtype("int32"), np.dtype("float32"))
    }


def test_other_modes_of_pillow_are_made_rgb(pipeline: Pix2SeqDPipeline) -> None:
    grey = frames(1)[0][..., 0]
    rgb = np.repeat(grey[..., None], 3, 2)
    rgba = np.concatenate([rgb, np.full((40, 70, 1), 9, np.uint8)], 2)
    maps = [pipeline([Image.fromarray(a)]) for a in (grey, rgb, rgba, grey.astype(np.uint16) * 257)]
    assert all(same(maps[0], other) for other in maps[1:])


def test_a_stream_takes_a_frame_only_when_its_map_is_asked_for(pipeline: Pix2SeqDPipeline) -> None:
    taken = []

    def camera() -> Iterator[np.ndarray]:
        for k, frame in enumerate(frames(4)):
            taken.append(k)
            yield frame

    stream = pipeline.stream(camera())
    assert taken == []
    next(stream)
    assert taken == [0]
    next(stream)
    assert taken == [0, 1]


def test_calls_do_not_know_of_each_other(pipeline: Pix2SeqDPipeline) -> None:
    video = frames(3)
    first = pipeline(video, seed=4)
    assert same(first, pipeline(video, seed=4))
    assert same(first, list(pipeline.stream(video, seed=4)))
    assert not same(first, pipeline(video, seed=5))


@pytest.mark.parametrize("method", ["predictor", "__call__"])
def test_every_setting_of_the_predictor_is_reached(pipeline: Pix2SeqDPipeline, method: str) -> None:
    """An unusual value of each, and what the pipeline makes of it."""
    settings: dict[str, Any] = {
        "num_steps": 1,
        "num_steps_next": 4,
        "td_steps": 0.5,
        "sampler": "ddpm",
        "min_pixels": 5,
        "t_start_next": 0.5,
        "stop_unchanged": 0.9,
        "step_grid": (1.0, 0.7, 0.0),
        "num_samples": 2,
        "history_guidance": 0.5,
        "only_classes": (13, 0),
        "without_classes": (11,),
        "seed": 3,
    }
    arguments = inspect.signature(VideoPredictor.__init__).parameters
    assert list(arguments)[2:] == list(settings)
    offered = inspect.signature(getattr(Pix2SeqDPipeline, method)).parameters
    assert all(offered[name].default == arguments[name].default for name in settings if name != "seed")
    made = []
    if method == "__call__":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pix2seq_d.pipeline.predict_together", lambda p, *_, **__: made.extend(p) or [None])
            pipeline(frames(1), **settings)
    else:
        made.append(pipeline.predictor(**settings))
    assert {name: getattr(made[0], name) for name in settings} == settings


def test_steps_reach_the_predictor(pipeline: Pix2SeqDPipeline) -> None:
    video = frames(2)
    predictor = pipeline.predictor(num_steps=1, num_steps_next=4, td_steps=0.0, sampler="ddpm", min_pixels=5, seed=2)
    assert isinstance(predictor, VideoPredictor)
    assert (predictor.num_steps, predictor.num_steps_next, predictor.min_pixels) == (1, 4, 5)
    assert (predictor.td_steps, predictor.seed) == (0.0, 2)
    warm = pipeline.predictor(t_start_next=0.5, stop_unchanged=0.9)
    assert (warm.t_start_next, warm.stop_unchanged) == (0.5, 0.9)
    assert (pipeline.predictor().t_start_next, pipeline.predictor().stop_unchanged) == (1.0, None)
    assert (pipeline.predictor().num_steps, pipeline.predictor().num_steps_next) == (3, 2)
    assert not same(pipeline(video, num_steps=1), pipeline(video, num_steps=8))


def test_no_frames(pipeline: Pix2SeqDPipeline) -> None:
    assert pipeline([]) == []


def test_a_saved_model_predicts_the_same(tiny_model: Build, tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    loaded = Pix2SeqDPipeline.from_pretrained(tmp_path, device="cpu")
    assert same(loaded(frames(2)), Pix2SeqDPipeline(model, device="cpu")(frames(2)))
    assert loaded.label_spec == model.label_spec
    assert not loaded.model.training


def test_frames_of_another_size_or_kind_are_refused(pipeline: Pix2SeqDPipeline) -> None:
    with pytest.raises(ValueError, match=r"^frame 1: expected \(40, 70, 3\) as the frames before, got \(40, 72, 3\)"):
        pipeline([*frames(1), *frames(1, (40, 72))])
    with pytest.raises(ValueError, match=r"^frame 0: expected \(H, W, 3\) uint8"):
        pipeline([frames(1)[0].astype(np.float32)])


def test_denoising_maps_are_one_for_every_step(pipeline: Pix2SeqDPipeline) -> None:
    maps = pipeline.denoising_maps(frames(1)[0], num_steps=5)
    assert len(maps) == 5
    assert {(c.shape, c.dtype.name, i.shape) for c, i in maps} == {((16, 28), "uint8", (16, 28))}  # of 16 x 32


def test_denoising_maps_are_those_of_the_first_of_several_samples(pipeline: Pix2SeqDPipeline) -> None:
    frame, seen = frames(1)[0], []

    def look(step: int, x_t: Tensor, x0: Tensor) -> None:
        assert len(x0) == 3
        seen.append(pipeline.estimated_maps(x0, frame.shape))

    pipeline.predictor(num_steps=5, num_samples=3, seed=1).step(frame, callback=look)
    alone = pipeline.denoising_maps(frame, num_steps=5, seed=1)
    assert all(np.mean(a == b) > 0.99 for pair, other in zip(seen, alone) for a, b in zip(pair, other))
    other = pipeline.denoising_maps(frame, num_steps=5, seed=2)
    assert not np.array_equal(alone[0][0], other[0][0])


# several at once


def nearly(ones: list[PanopticMap], others: list[PanopticMap]) -> bool:
    """The same but for the rounding of batched sums, which may decide a pixel here and there."""
    return len(ones) == len(others) and all(
        np.mean(a.class_map == b.class_map) > 0.995
        and np.mean(a.instance_map == b.instance_map) > 0.995
        and np.mean(np.abs(a.confidence - b.confidence)) < 1e-3
        for a, b in zip(ones, others)
    )


VIDEOS = [frames(3), frames(1, (30, 64), 1), frames(0), frames(4, (40, 70), 2), frames(2, (17, 20), 3)]


@pytest.mark.parametrize("batch_size", [1, 3, 9])
def test_videos_come_out_as_each_alone(pipeline: Pix2SeqDPipeline, batch_size: int) -> None:
    """Of every length and size, one of them empty, in their order."""
    results = pipeline(VIDEOS, seed=4, batch_size=batch_size)
    assert [len(maps) for maps in results] == [3, 1, 0, 4, 2]
    agree = same if batch_size == 1 else nearly
    assert all(agree(maps, pipeline(video, seed=4)) for maps, video in zip(results, VIDEOS))


def test_the_shipped_weights_do_not_see_the_batch() -> None:
    shipped = Pix2SeqDPipeline.from_pretrained(Path(__file__).parents[1] / "checkpoints/synthetic-tiny", device="cpu")
    clips = [[SyntheticSequence(k).frame(t).image for t in range(2)] for k in range(2)]
    steps = {"num_steps": 2, "num_steps_next": 1}
    together = shipped(clips, batch_size=2, **steps)
    assert all(nearly(maps, shipped(clip, **steps)) for maps, clip in zip(together, clips))
    assert not nearly(together[0], together[1])


def test_a_video_that_ends_makes_room_for_the_next(pipeline: Pix2SeqDPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def count(predictors: list[VideoPredictor], images: list[np.ndarray], **_: object) -> list[int]:
        sizes.append(len(predictors))
        return [int(image[0, 0, 0]) for image in images]

    monkeypatch.setattr("pix2seq_d.pipeline.predict_together", count)
    videos = [[np.full((4, 4, 3), 10 * k + t, np.uint8) for t in range(n)] for k, n in enumerate((1, 3, 2, 1))]
    assert pipeline(videos, batch_size=2) == [[0], [10, 11, 12], [20, 21], [30]]
    assert sizes == [2, 2, 2, 1]


def test_videos_may_be_arrays_or_whatever_yields_frames(pipeline: Pix2SeqDPipeline) -> None:
    video = frames(2)
    alone = pipeline(video)
    assert same(alone, pipeline(np.stack(video)))
    assert same(alone, pipeline(iter(video)))
    several = pipeline([np.stack(video), iter(video), tuple(Image.fromarray(f) for f in video)])
    assert all(same(alone, maps) for maps in several)


def test_images_are_first_frames(pipeline: Pix2SeqDPipeline) -> None:
    images = [*frames(2), *frames(1, (30, 64), 1)]
    known = KnownMap(np.zeros((40, 70), np.uint8), np.zeros((40, 70), np.int32))
    results = pipeline.images(images, seed=2, batch_size=2)
    assert nearly(results, [pipeline([image], seed=2)[0] for image in images])
    assert not nearly(results[1:2], pipeline(images[:2], seed=2)[1:])  # there it has a past
    told = pipeline.images(images, known=[None, known, None], seed=2, num_steps=2, num_samples=2, without_classes=[13])
    assert not told[1].class_map.any()
    assert told[0].class_map.any()
    assert all(m.uncertainty is not None and 13 not in m.class_map for m in (told[0], told[2]))
    assert pipeline.images([]) == []


# what is known


def test_known_frames_are_given_by_their_number(pipeline: Pix2SeqDPipeline) -> None:
    video = frames(3)
    class_map, instance_map = np.full((40, 70), 255, np.uint8), np.zeros((40, 70), np.int32)
    class_map[5:15, 10:30], instance_map[5:15, 10:30] = 13, 77
    known = {1: KnownMap(class_map, instance_map)}
    maps = pipeline(video, known=known)
    assert [bool((m.instance_map[5:15, 10:30] == 77).all()) for m in maps] == [False, True, False]
    assert same(maps, list(pipeline.stream(video, known=known)))
    several = pipeline([video, video], known=[None, known])
    assert same(several[0], pipeline(video))
    assert same(several[1], maps)


@pytest.mark.parametrize(
    ("videos", "known", "message"),
    [
        (VIDEOS[0], {3: None}, r"^frame 3: expected known of frames 0\.\.2"),
        (VIDEOS[0], {-1: None}, "^frame -1: expected known of frames"),
        (VIDEOS[0], [None], "expected known as .*got list"),
        (VIDEOS[:2], [{}], "^known: expected a list of 2, one each, got 1"),
        (VIDEOS[:2], {}, "^known: expected a list of 2, one each, got dict"),
        (
            VIDEOS[:2],
            [{2: KnownMap(np.zeros((9, 9), int), np.zeros((9, 9), int))}, {}],
            r"^video 0, frame 2: known class_map: expected \(40, 70\)",
        ),
    ],
)
def test_known_maps_that_do_not_fit_are_refused(
    pipeline: Pix2SeqDPipeline, videos: Any, known: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(videos, known=known)


def test_new_objects_leave_the_ids_of_later_known_frames_alone(pipeline: Pix2SeqDPipeline) -> None:
    class_map, instance_map = np.full((40, 70), 255, np.uint8), np.zeros((40, 70), np.int32)
    class_map[5:15, 10:30], instance_map[5:15, 10:30] = 13, 7
    first, later = KnownMap(class_map, instance_map), KnownMap(class_map, 100 * instance_map)
    for maps in (pipeline(frames(2), known={0: first, 1: later}), pipeline(frames(1), known={0: first})):
        found = set(np.unique(maps[0].instance_map).tolist()) - {0, 7}
        assert found
        assert min(found) > (700 if len(maps) == 2 else 7)


def test_known_maps_of_later_frames_are_looked_at_before_the_first(pipeline: Pix2SeqDPipeline) -> None:
    known = {1: KnownMap(np.zeros((9, 9), int), np.zeros((9, 9), int))}
    with pytest.raises(ValueError, match=r"^frame 1: known class_map: expected \(40, 70\)"):
        next(pipeline.stream(frames(2), known=known))


def test_known_frames_beyond_the_end_of_a_stream_are_refused(pipeline: Pix2SeqDPipeline) -> None:
    """How long a generator is shows when it ends."""
    known = {2: KnownMap(np.zeros((40, 70), np.uint8), np.zeros((40, 70), np.int32))}
    for predict in (pipeline, lambda *args, **options: list(pipeline.stream(*args, **options))):
        with pytest.raises(ValueError, match=r"^frame 2: expected known of frames 0\.\.1"):
            predict(iter(frames(2)), known=known)


# seeds


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_generator_decides_the_noise(pipeline: Pix2SeqDPipeline) -> None:
    video = frames(2)
    generator = seeded(5)
    first, second = pipeline(video, generator=generator), pipeline(video, generator=generator)
    assert not same(first, second)
    assert same(first, pipeline(video, generator=seeded(5)))
    assert same(first, list(pipeline.stream(video, generator=seeded(5))))
    predictor = pipeline.predictor(generator=seeded(5))
    assert same(first, [predictor.step(frame) for frame in video])
    assert same(first[:1], pipeline.images(video[:1], generator=seeded(5)))
    assert same([first, second][1], pipeline([video, video], generator=seeded(5))[1])  # one after another
    own = pipeline([video, video], generator=[seeded(6), seeded(5)], batch_size=2)
    assert nearly(own[1], first)
    assert nearly(own[0], pipeline(video, generator=seeded(6)))


def test_generators_that_do_not_fit_are_refused(pipeline: Pix2SeqDPipeline) -> None:
    with pytest.raises(ValueError, match=r"^seed, generator: expected one of them, got both"):
        pipeline(frames(1), seed=0, generator=seeded(0))
    with pytest.raises(ValueError, match=r"^generator: expected a list of 2, one each, got 1"):
        pipeline(VIDEOS[:2], generator=[seeded(0)])


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (Image.new("RGB", (8, 8)), "^frame 0: expected a list of frames, got Image"),
        (["a.png"], r"^frame 0: expected a PIL image or an \(H, W, 3\) uint8 array, got str"),
        (torch.zeros(1, 8, 8, 3), "^frame 0: expected a PIL image .* got Tensor"),
        ([frames(1), Image.new("RGB", (8, 8))], "^video 1, frame 0: expected a list of frames, got Image"),
        ([frames(2), [*frames(1), None]], "^video 1, frame 1: expected a PIL image .* got NoneType"),
    ],
)
def test_what_is_no_video_is_refused(pipeline: Pix2SeqDPipeline, videos: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(videos)


def test_an_empty_batch_is_refused(pipeline: Pix2SeqDPipeline) -> None:
    with pytest.raises(ValueError, match=r"^batch_size: expected at least 1, got 0"):
        pipeline(VIDEOS, batch_size=0)
    with pytest.raises(ValueError, match=r"^image 1: expected \(H, W, 3\) uint8"):
        pipeline.images([*frames(1), np.zeros((4, 4), np.uint8)])
