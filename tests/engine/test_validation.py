"""Scoring during training: which frames are predicted, in which order, and what is reported."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pix2seq_d.bits import BitCodec
from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.diffusion.samplers import Callback
from pix2seq_d.engine import validation
from pix2seq_d.engine.validation import summary, validate
from pix2seq_d.labels import get_label_spec
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor

SPEC = get_label_spec("kitti-step")
NAMES = {"miou", "pq", "pq_things", "pq_stuff", "vpq", "stq", "aq", "iou"}


@pytest.fixture(scope="module")
def videos() -> SyntheticVideos:
    return SyntheticVideos(split="val", num_sequences=3, num_frames=4, height=32, width=64)


class Oracle:
    """Knows the ground truth; notes its calls."""

    def __init__(self, videos: SyntheticVideos, *, miss: int | None = None) -> None:
        self.videos, self.miss = videos, miss
        self.model = SimpleNamespace(label_spec=SPEC, codec=BitCodec((5, 6), 0.1))
        self.watched: list[str] = []
        self.calls: list[str] = []
        self.truth = {
            videos.read_frame(s, f)[0].tobytes(): (s, f, *videos.read_frame(s, f)[1:])
            for s in videos.sequence_ids
            for f in videos.frame_ids(s)
        }

    def reset(self) -> None:
        self.calls.append("reset")

    def step(self, frame: np.ndarray, *, callback: Callback | None = None) -> PanopticMap:
        sequence, frame_id, class_map, instance_map = self.truth[frame.tobytes()]
        self.calls.append(f"{sequence}/{frame_id}")
        if callback is not None:
            self.watched.append(self.calls[-1])
            for step in range(2):
                callback(step, torch.zeros(1, 11, 16, 32), torch.full((1, 11, 16, 32), -0.1))
        if frame_id == self.miss:
            class_map = np.zeros_like(class_map)
        return PanopticMap(class_map, instance_map, np.ones(class_map.shape, np.float32))


def score(predictor: Any, videos: SyntheticVideos, **limits: int) -> tuple[dict[str, float], list[np.ndarray]]:
    limits = {"num_sequences": 2, "num_frames": 3, **limits}
    found = validate(predictor, videos, SPEC, **limits)
    return summary(found.result), found.pictures


def test_the_truth_scores_one(videos: SyntheticVideos) -> None:
    scores, _ = score(Oracle(videos), videos)
    assert scores == dict.fromkeys(NAMES, 1.0)


def test_a_wrong_frame_costs(videos: SyntheticVideos) -> None:
    scores, _ = score(Oracle(videos, miss=1), videos)
    assert all(0 < scores[name] < 1 for name in NAMES - {"pq_things", "aq"}), scores


def test_first_frames_of_the_first_sequences_in_order(videos: SyntheticVideos) -> None:
    oracle = Oracle(videos)
    score(oracle, videos)
    assert oracle.calls == ["reset", "0000/0", "0000/1", "0000/2", "reset", "0001/0", "0001/1", "0001/2"]


@pytest.mark.parametrize("dataset", [False, True], ids=["a model of images", "a dataset of images"])
def test_still_images_are_predicted_one_by_one(videos: SyntheticVideos, dataset: bool) -> None:
    oracle = Oracle(videos)
    names = ("sequence_ids", "frame_ids", "read_frame")
    shown = SimpleNamespace(stills=dataset, **{name: getattr(videos, name) for name in names})
    score(oracle, shown, num_sequences=1, num_frames=2, independent=not dataset)
    assert [call for call in oracle.calls if call != "reset"] == ["0000/0", "0000/1"]
    assert oracle.calls[oracle.calls.index("0000/0") + 1] == "reset"


def test_limits_beyond_what_is_there(videos: SyntheticVideos) -> None:
    oracle = Oracle(videos)
    _, pictures = score(oracle, videos, num_sequences=99, num_frames=99)
    assert len(oracle.calls) == 3 * (1 + 4)
    assert len(pictures) == 3


def test_pictures_show_the_prediction_above_the_truth(videos: SyntheticVideos) -> None:
    _, pictures = score(Oracle(videos, miss=2), videos)
    assert [p.shape for p in pictures] == [(64, 64, 3), (64, 64, 3)]
    assert not np.array_equal(pictures[0][:32], pictures[0][32:])
    _, right = score(Oracle(videos), videos)
    assert np.array_equal(right[0][:32], right[0][32:])


def test_the_first_frame_of_all_is_watched(videos: SyntheticVideos) -> None:
    """Its 64 pixels are enlarged to 200, and two estimates stand in a second row."""
    oracle = Oracle(videos)
    found = validate(oracle, videos, SPEC, num_sequences=2, num_frames=3)  # type: ignore[arg-type]
    assert oracle.watched == ["0000/0"]
    assert found.panels is not None
    assert found.panels.shape == (3 * 8 + 2 * (24 + 100), 4 * 8 + 3 * 200, 3)


def test_another_process_has_no_panels(videos: SyntheticVideos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "gather_object", lambda own: own)
    oracle = Oracle(videos)
    second: Any = SimpleNamespace(process_index=1, num_processes=2)
    found = validate(oracle, videos, SPEC, num_sequences=2, num_frames=3, accelerator=second)  # type: ignore[arg-type]
    assert (found.panels, oracle.watched, len(found.pictures)) == (None, [], 1)


def test_a_model_scores_like_itself(videos: SyntheticVideos, tiny_model: Callable[..., Pix2SeqD]) -> None:
    model = tiny_model()
    first, second = (score(VideoPredictor(model, num_steps=2, seed=3), videos) for _ in range(2))
    assert first[0] == second[0]
    assert set(first[0]) == NAMES
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in first[0].values())


def test_a_spec_without_things_has_no_tracking_scores() -> None:
    result = {"pq": {"pq": 1, "pq_things": 0, "pq_stuff": 1}, "miou": {"miou": 0.5}}
    assert summary(result) == {"miou": 0.5, "pq": 1.0, "pq_things": 0.0, "pq_stuff": 1.0}
