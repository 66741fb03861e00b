"""Clips from still images: what is known of them is the still's, ids are constant, pasted ones new, depth is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seq_d.data.batch import Clip
from pix2seq_d.data.loaders import VaryingClips
from pix2seq_d.data.pseudo_video import PseudoVideo
from pix2seq_d.data.warps import FILL_GREY, MAX_INSTANCE_ID
from pix2seq_d.labels import get_label_spec

SPEC = get_label_spec("kitti-step")  # things 11 and 13
ROAD, SKY, PERSON, CAR, VOID = 0, 10, 11, 13, 255
SIZE = (48, 96)


def still(number: int, *boxes: tuple[int, int, int, int, int, int]) -> Clip:
    """Sky over road with boxes of (top, left, bottom, right, class, instance); red = class, blue = instance * 8."""
    class_map, instance_map = np.full(SIZE, SKY, np.uint8), np.zeros(SIZE, np.int32)
    class_map[20:] = ROAD
    for top, left, bottom, right, class_id, instance_id in boxes:
        class_map[top:bottom, left:right] = class_id
        instance_map[top:bottom, left:right] = instance_id
    image = np.stack([class_map, np.full(SIZE, 60), instance_map * 8], axis=-1).astype(np.uint8)
    return Clip(image[None], class_map[None], instance_map[None], np.ones(1, bool), f"street{number}", number)


CARS = still(3, (18, 10, 30, 30, CAR, 4), (22, 60, 34, 80, CAR, 2))
PEOPLE = still(7, (15, 40, 35, 48, PERSON, 1), (16, 70, 33, 77, PERSON, 9))


def pseudo(*stills: Clip, **options: Any) -> PseudoVideo:
    return PseudoVideo(stills, SPEC, **{"past_offsets": (-2, -1), "seed": 0, "paste_rate": 1.0, **options})


def labels(clip: Clip) -> np.ndarray:
    return clip.instance_map.astype(np.int64) * 256 + clip.class_map


def same(a: Clip, b: Clip) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values()))


def test_shapes_names_and_dtypes() -> None:
    clips = pseudo(CARS, PEOPLE)
    clip = clips[1]
    assert len(clips) == 2
    assert (clip.frames.shape, clip.frames.dtype) == ((1, *SIZE, 3), np.uint8)
    assert (clip.class_map.shape, clip.class_map.dtype) == ((3, *SIZE), np.uint8)
    assert (clip.instance_map.shape, clip.instance_map.dtype) == ((3, *SIZE), np.int32)
    assert clip.present.tolist() == [True] * 3
    assert clip.name == "street7/000007"
    assert isinstance(clips, VaryingClips)
    assert clips.has_labels


def test_stills_without_labels_stay_so() -> None:
    class Unlabelled(list):
        has_labels = False

    assert not PseudoVideo(Unlabelled([CARS]), SPEC, past_offsets=(-1,), seed=0).has_labels


def test_the_last_frame_is_the_still_and_the_past_is_seen_by_a_moving_camera() -> None:
    for epoch in range(5):
        clip = pseudo(CARS, PEOPLE, paste_rate=0.0).draw(epoch, 0)
        np.testing.assert_array_equal(clip.frames, CARS.frames)
        np.testing.assert_array_equal(labels(clip)[2:], labels(CARS))
        assert set(np.unique(labels(clip))) <= {*np.unique(labels(CARS)), VOID}
        moved = [(labels(clip)[k] != labels(clip)[2]).mean() for k in (0, 1)]
        assert moved[0] > moved[1] > 0
        unknown = (clip.class_map == VOID).mean(axis=(1, 2))
        assert unknown[0] > 0 == unknown[2]


def test_nothing_moves_where_nothing_is_asked_to() -> None:
    clip = pseudo(CARS, PEOPLE, camera_motion=0.0, paste_motion=0.0).draw(0, 0)
    assert (labels(clip) == labels(clip)[0]).all()
    assert (labels(clip) != labels(CARS)).any()


def test_pasted_things_are_those_of_another_still_with_new_ids() -> None:
    """Persons on the cars, whose ids are 2 and 4: ids 5 and 6, on the image in the same pixels and nowhere else."""
    counts = set()
    for epoch in range(20):
        clip = pseudo(CARS, PEOPLE, camera_motion=0.0, paste_max=2).draw(epoch, 0)
        last, new = labels(clip)[-1], labels(clip)[-1] != labels(CARS)[0]
        pasted = set(np.unique(last[new]).tolist())
        assert pasted <= {5 * 256 + PERSON, 6 * 256 + PERSON}
        np.testing.assert_array_equal((clip.frames[0] != CARS.frames[0]).any(axis=2), new)
        assert (clip.frames[0][new][:, 0] == PERSON).mean() > 0.5, "the rest is interpolated across the outline"
        assert set(np.unique(labels(clip)).tolist()) <= {*np.unique(labels(CARS)), *pasted}
        counts.add(len(pasted))
    assert counts == {1, 2}


def test_pasted_things_move_by_themselves() -> None:
    clip = pseudo(CARS, PEOPLE, camera_motion=0.0, paste_max=1, past_offsets=(-4, -2)).draw(0, 0)
    centres = [np.argwhere(m == 5 * 256 + PERSON).mean(axis=0) for m in labels(clip)]
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert (steps > 0.5).all()
    background = (clip.class_map != PERSON).all(axis=0)
    assert (labels(clip)[:, background] == labels(CARS)[0][background]).all()


def test_what_stands_lower_hides_what_stands_higher() -> None:
    """A car down to row 46 hides pasted persons, who end at 33 to 35; a car down to row 24 does not hide them."""
    near, far = still(0, (5, 0, 46, 96, CAR, 1)), still(0, (5, 0, 24, 96, CAR, 1))
    hides, hidden = pseudo(near, PEOPLE, camera_motion=0.0), pseudo(far, PEOPLE, camera_motion=0.0)
    for epoch in range(6):
        assert (labels(hides.draw(epoch, 0)) == labels(near)).all()
        past = labels(hidden.draw(epoch, 0))
        assert ((past != labels(far)) & (labels(far) == 256 + CAR)).any(axis=(1, 2)).all()


def test_the_order_of_depth_is_that_of_the_last_frame() -> None:
    """A wall of a car down to row 46: with a moving camera, too, no pasted thing shows through it."""
    near = still(0, (0, 0, 46, 96, CAR, 1))
    clips = pseudo(near, PEOPLE, past_offsets=(-3, -1), paste_motion=3.0)
    for epoch in range(10):
        clip = clips.draw(epoch, 0)
        shown = clip.class_map == PERSON
        plain = pseudo(near, PEOPLE, past_offsets=(-3, -1), paste_rate=0.0).draw(epoch, 0)
        assert not (shown & (plain.class_map == CAR)).any()


def test_images_of_the_past_where_they_are_asked_for() -> None:
    clip = pseudo(CARS, PEOPLE, all_frames=True, past_offsets=(-6, -3)).draw(1, 0)
    only = pseudo(CARS, PEOPLE, past_offsets=(-6, -3)).draw(1, 0)
    assert clip.frames.shape == (3, *SIZE, 3)
    np.testing.assert_array_equal(clip.frames[-1:], only.frames)
    np.testing.assert_array_equal(labels(clip), labels(only))
    unknown = clip.class_map == VOID
    assert unknown[0].any()
    assert (clip.frames[0][unknown[0]] == FILL_GREY).mean() > 0.9
    assert (np.abs(clip.frames[..., 0].astype(int) - clip.class_map)[~unknown] <= 1).mean() > 0.8


def test_one_still_has_nothing_to_paste() -> None:
    clip = pseudo(PEOPLE).draw(0, 0)
    np.testing.assert_array_equal(labels(clip)[-1:], labels(PEOPLE))


def test_images_stay_images() -> None:
    clip = pseudo(CARS, PEOPLE, past_offsets=()).draw(0, 0)
    assert clip.class_map.shape == (1, *SIZE)
    assert (labels(clip) != labels(CARS)).any()


def test_a_clip_is_a_function_of_seed_epoch_and_index() -> None:
    twice = (CARS, CARS, PEOPLE)

    def clip(seed: int = 3, epoch: int = 4, index: int = 0) -> Clip:
        return pseudo(*twice, seed=seed).draw(epoch, index)

    assert same(clip(), clip())
    assert same(pseudo(*twice, seed=3)[1], clip(epoch=0, index=1))
    for other in (clip(seed=4), clip(epoch=5), clip(index=1)):
        assert not same(clip(), other)


@pytest.mark.parametrize(
    "change",
    [{"camera_motion": 0.5}, {"paste_rate": 0.0}, {"paste_motion": 3.0}, {"past_offsets": (-3, -1)}],
)
def test_every_setting_acts(change: dict[str, Any]) -> None:
    assert not same(pseudo(CARS, PEOPLE, **change).draw(0, 0), pseudo(CARS, PEOPLE).draw(0, 0))


def test_the_past_of_the_dataset_is_not_used() -> None:
    longer = still(3)
    longer.class_map = np.concatenate([longer.class_map * 0 + CAR, CARS.class_map])
    longer.instance_map = np.concatenate([longer.instance_map, CARS.instance_map])
    longer.frames = np.concatenate([longer.frames, CARS.frames])
    assert same(pseudo(longer, PEOPLE).draw(0, 0), pseudo(CARS, PEOPLE).draw(0, 0))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), offsets=st.sets(st.integers(-30, -1), max_size=3), motion=st.floats(0, 5))
def test_no_label_is_invented(seed: int, offsets: set[int], motion: float) -> None:
    """A pasted thing's label apart, every label is one of the still, void only where something is unknown."""
    clip = pseudo(
        CARS, PEOPLE, past_offsets=sorted(offsets), seed=seed, camera_motion=motion, paste_motion=motion
    ).draw(0, 0)
    new = {(5 + k) * 256 + PERSON for k in range(3)}
    assert set(np.unique(labels(clip)).tolist()) <= {*np.unique(labels(CARS)).tolist(), *new, VOID}
    assert VOID not in clip.class_map[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"past_offsets": (-1, -2)}, r"^expected past_offsets negative and increasing, got \(-1, -2\)"),
        ({"past_offsets": (0,)}, "past_offsets"),
        ({"seed": -1}, r"^expected seed of 0 or more, got -1"),
        ({"paste_rate": 1.2}, r"^expected paste_rate in 0..1, got 1.2"),
        ({"paste_max": 0}, r"^expected paste_max of 1 or more, got 0"),
        ({"camera_motion": -0.1}, "camera_motion of 0 or more"),
        ({"paste_motion": float("nan")}, "paste_motion of 0 or more"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pseudo(CARS, **arguments)


def test_ids_too_large() -> None:
    large = still(3)
    large.instance_map[0, 0, 0] = MAX_INSTANCE_ID
    with pytest.raises(ValueError, match=r"^clip street3/000003: expected instance ids up to 16777212, got 16777215"):
        pseudo(large, PEOPLE).draw(0, 0)
