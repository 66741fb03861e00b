"""Streaming prediction with a scripted model (its answers are drawn by hand) and with a tiny random one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pix2seq_d.bits import BitCodec
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.labels import get_label_spec
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.tracker import TrackIds, VideoPredictor, majority_class

Build = Callable[..., Pix2SeqD]
SPEC = get_label_spec("kitti-step")
ROAD, SKY, PERSON, CAR, VOID = 0, 10, 11, 13, 255
H, W = 16, 32  # image size of the scripted model; its masks are 8 x 16
FRAME = np.zeros((H, W, 3), np.uint8)


class Scripted(nn.Module):
    """Stands in for Pix2SeqD: answers frame k with `logits[k]` (the last one for ever) and notes what it was asked."""

    def __init__(
        self,
        logits: Sequence[Tensor],
        *,
        past_offsets: tuple[int, ...] = (-2, -1),
        instance_bits: int = 3,
        target: str = "softmax",
    ) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))  # tells the device
        self.answers, self.past_offsets, self.target = list(logits), past_offsets, target
        self.codec = BitCodec((5, instance_bits) if instance_bits else (5,), 0.1)
        self.label_spec, self.schedule, self.sampler = SPEC, "cosine", "ddim"
        self.image_size, self.mask_size = (H, W), (H // 2, W // 2)
        self.num_steps, self.num_steps_next, self.td_steps, self.min_pixels = 3, 2, 0.0, 0
        self.frames: list[Tensor] = []
        self.past: list[Tensor] = []
        self.present: list[list[bool]] = []
        self.steps: list[int] = []

    def condition(self, frame: Tensor, past: Tensor, present: Tensor) -> Tensor:
        self.frames.append(frame)
        self.past.append(past)
        self.present.append(present[0].tolist())
        self.steps.append(0)
        return self.answers[min(len(self.frames), len(self.answers)) - 1]

    def bind(self, answer: Tensor) -> Answer:
        return Answer(self, answer)


class Answer:
    """A bound denoiser that knows its answer."""

    def __init__(self, model: Scripted, logits: Tensor) -> None:
        self.model, self.logits = model, logits

    def __call__(self, x_t: Tensor, gamma: Tensor, self_cond: Tensor | None = None) -> Tensor:
        self.model.steps[-1] += 1
        return self.logits if self.model.target == "mse" else self.model.codec.expected_bits(self.logits)


def predictor(model: nn.Module, **options: Any) -> VideoPredictor:
    return VideoPredictor(model, **options)  # type: ignore[arg-type]


def draw(picture: Sequence[str], *, semantic: bool = False) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Logits, class map and instance codes (8, 16) of a picture: r road, s sky, 1-3 cars by code, 6 7 persons by code.

    A picture of 2 rows of 4 letters is enlarged fourfold, one of 4 rows of 8 twofold.
    """
    scale = 8 // len(picture)
    letters = np.array([list(row) for row in picture]).repeat(scale, 0).repeat(scale, 1)
    classes = np.select([letters == "r", letters == "s", np.isin(letters, ["6", "7"])], [ROAD, SKY, PERSON], CAR)
    codes = np.where(np.isin(letters, ["r", "s"]), "0", letters).astype(np.int64)
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
        ({"min_pixels": -1}, "min_pixels: expected at least 0, got -1"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"sampler": "euler"}, "sampler: expected one of ddim, ddpm, got 'euler'"),
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


# track ids: five pixels in a row, one string a frame; letters are classes (c car, p person, . road), digits codes


def track(frames: Sequence[str], memory: int) -> list[str]:
    """Track ids of the frames as strings of digits, 0 = none."""
    tracks = TrackIds(memory=memory)
    shown = []
    for frame in frames:
        pixels = frame.split()
        classes = np.array([[{"c": CAR, "p": PERSON, ".": ROAD}[p[0]] for p in pixels]])
        codes = np.array([[int(p[1:] or 0) for p in pixels]])
        shown.append("".join(str(i) for i in tracks.update(classes, codes)[0]))
    return shown


def test_codes_keep_their_track_while_seen() -> None:
    assert track([". c4 c4 p2 .", ". . c4 c4 p2", "p2 . . . c4"], memory=2) == ["02210", "00221", "10002"]


def test_a_track_survives_frames_within_memory() -> None:
    """Unseen in one frame and back in the next: two frames apart, as far as memory 2 reaches."""
    assert track(["c1 .", ". .", "c1 ."], memory=2) == ["10", "00", "10"]


def test_a_code_back_after_memory_is_a_new_object() -> None:
    assert track(["c1 .", ". .", ". .", "c1 ."], memory=2) == ["10", "00", "00", "20"]
    assert track(["c1 .", ". .", "c1 ."], memory=1) == ["10", "00", "20"]


def test_a_code_of_another_class_is_a_new_object() -> None:
    assert track(["c1 .", "p1 .", "c1 ."], memory=2) == ["10", "20", "10"]  # the car was seen two frames ago


def test_tracks_are_never_given_twice() -> None:
    frames = [f"c{k % 3 + 1} ." for k in range(30)]  # every code comes back after three frames
    ids = [int(row[: len(row) - 1]) for row in track(frames, memory=2)]
    assert ids == list(range(1, 31))


def test_ids_of_a_video() -> None:
    """A car with code 1 is hidden for one frame, then for three."""
    hidden = ["rrrr", "ssss"]
    model = scripted(PICTURE, hidden, PICTURE, hidden, hidden, hidden, PICTURE)
    video = predictor(model)
    found = [np.unique(video.step(FRAME).instance_map).tolist() for _ in range(7)]
    assert found == [[0, 1, 2, 3], [0], [0, 1, 2, 3], [0], [0], [0], [0, 4, 5, 6]]


@pytest.mark.parametrize(("offsets", "same"), [((-1,), False), ((-2, -1), True), ((-3,), True)])
def test_tracks_live_as_long_as_the_model_sees_them(offsets: tuple[int, ...], same: bool) -> None:
    """A car hidden for one frame is still on the map two frames back."""
    video = predictor(scripted(["1111", "1111"], ["rrrr", "rrrr"], ["1111", "1111"], past_offsets=offsets))
    first, _, third = (video.step(FRAME).instance_map for _ in range(3))
    assert (first[0, 0] == third[0, 0]) == same


# majority


def test_majority_class_by_hand() -> None:
    """Instance 1: car, car, person -> car; instance 2: person; pixels without an instance keep their class."""
    classes, instances = np.array([[CAR, CAR, PERSON, PERSON, ROAD]]), np.array([[1, 1, 1, 2, 0]])
    before = classes.copy()
    assert majority_class(classes, instances).tolist() == [[CAR, CAR, CAR, PERSON, ROAD]]
    assert np.array_equal(classes, before)


def test_an_instance_of_two_classes_becomes_one() -> None:
    """Code 1 votes for car on five cells of eight and for person on three."""
    logits, classes, _ = draw(["1111", "1666"])
    logits[:, 32:] = draw(["1111", "1111"])[0][:, 32:]
    prediction = predictor(Scripted([logits])).step(FRAME)
    assert np.unique(prediction.class_map).tolist() == [CAR]
    assert np.unique(prediction.instance_map).tolist() == [1]
    assert (classes == PERSON).sum() == 48
