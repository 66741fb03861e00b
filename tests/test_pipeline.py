"""Frames of either kind in, maps out, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.pipeline import Pix2SeqDPipeline
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor

Build = Callable[..., Pix2SeqD]


@pytest.fixture
def pipeline(tiny_model: Build) -> Pix2SeqDPipeline:
    return Pix2SeqDPipeline(tiny_model(), device="cpu")


def frames(count: int, size: tuple[int, int] = (40, 70)) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
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
    with pytest.raises(ValueError, match="as the frames before"):
        pipeline([*frames(1), *frames(1, (40, 72))])
    with pytest.raises(ValueError, match=r"^frame: expected \(H, W, 3\) uint8"):
        pipeline([frames(1)[0].astype(np.float32)])


def test_denoising_maps_are_one_for_every_step(pipeline: Pix2SeqDPipeline) -> None:
    maps = pipeline.denoising_maps(frames(1)[0], num_steps=5)
    assert len(maps) == 5
    assert {(c.shape, c.dtype.name, i.shape) for c, i in maps} == {((16, 32), "uint8", (16, 32))}
