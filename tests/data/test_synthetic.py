"""Synthetic street clips: determinism, exact ids, what occurs in them, the Clip layout and the files on disk."""

import hashlib
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2seq_d.data.synthetic import (
    DIFFICULTIES,
    SPLITS,
    VOID,
    SyntheticClips,
    SyntheticSequence,
    main,
    write_sequences,
)
from pix2seq_d.data.synthetic_canvas import Canvas
from pix2seq_d.data.synthetic_world import FRAMES_PER_SECOND, SETTINGS, instance_id

THINGS = (11, 13)
REQUIRED = {0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 13}


@lru_cache(maxsize=3)
def sample(difficulty: str) -> tuple[tuple[tuple[np.ndarray, np.ndarray], ...], ...]:
    """Maps of frames 0, 8, ... 32 of 24 sequences."""
    sequences = (SyntheticSequence(i, difficulty=difficulty) for i in range(24))
    return tuple(tuple(s.maps(t) for t in range(0, 40, 8)) for s in sequences)


def values(labels: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.bincount(labels.ravel())).tolist())


def ids(instance_map: np.ndarray) -> set[int]:
    return values(instance_map) - {0}


def equal(a: SyntheticSequence, b: SyntheticSequence, t: int) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.maps(t), b.maps(t), strict=True))


# Determinism


def test_frames_do_not_depend_on_order() -> None:
    forward, backward = SyntheticSequence(3), SyntheticSequence(3)
    first = [forward.frame(t) for t in range(6)]
    second = [backward.frame(t) for t in reversed(range(6))][::-1]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.class_map, b.class_map)
        np.testing.assert_array_equal(a.instance_map, b.instance_map)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_maps_equal_those_of_the_frame(difficulty: str) -> None:
    for index in range(4):
        sequence = SyntheticSequence(index, difficulty=difficulty)
        for t in (0, 17, 123):
            frame, (class_map, instance_map) = sequence.frame(t), sequence.maps(t)
            np.testing.assert_array_equal(frame.class_map, class_map)
            np.testing.assert_array_equal(frame.instance_map, instance_map)


def test_every_argument_changes_the_frame() -> None:
    base = SyntheticSequence(0)
    assert equal(base, SyntheticSequence(0, split="train", seed=0), 5)
    for other in (SyntheticSequence(1), SyntheticSequence(0, seed=1), SyntheticSequence(0, difficulty="hard")):
        assert not equal(base, other, 5)
    assert not np.array_equal(base.frame(5).image, base.frame(6).image)


def test_splits_share_nothing() -> None:
    images = {
        SyntheticSequence(index, split=split, seed=seed).frame(0).image.tobytes()
        for split in SPLITS
        for seed in (0, 1, 1 << 40)
        for index in range(2)
    }
    assert len(images) == 3 * 3 * 2


def test_golden_maps() -> None:
    """SHA-256 of the class map and the "<i4" instance map, taken from the first release; no light or noise in them."""
    class_map, instance_map = SyntheticSequence(7, split="val", seed=3).maps(25)
    digest = hashlib.sha256(class_map.tobytes() + instance_map.astype("<i4").tobytes()).hexdigest()
    assert digest == "244e94a447e31ef7a2ddda083e47101e024104fd170e0a5ff406d051953b7a96"


# Shapes


@pytest.mark.parametrize("size", [(96, 320), (33, 47), (64, 64), (32, 400), (101, 203)])
def test_shapes_and_dtypes(size: tuple[int, int]) -> None:
    height, width = size
    frame = SyntheticSequence(2, height=height, width=width).frame(9)
    assert frame.image.shape == (*size, 3)
    assert frame.class_map.shape == frame.instance_map.shape == size
    assert (frame.image.dtype, frame.class_map.dtype, frame.instance_map.dtype) == (np.uint8, np.uint8, np.int32)


def test_frames_far_away_in_time() -> None:
    class_map, instance_map = SyntheticSequence(0).maps(1_000_000)
    assert len(values(class_map)) > 5
    assert instance_map.min() == 0


# Ids


def test_only_things_carry_ids_and_an_id_keeps_its_class() -> None:
    for sequence in sample("default"):
        classes: dict[int, int] = {}
        for class_map, instance_map in sequence:
            for panoptic_id in values(instance_map * 256 + class_map):
                number, class_id = divmod(panoptic_id, 256)
                assert not number or class_id in THINGS
                assert not number or classes.setdefault(number, class_id) == class_id


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_number_of_things_in_a_frame(difficulty: str) -> None:
    counts = [len(ids(instance_map)) for sequence in sample(difficulty) for _, instance_map in sequence]
    assert max(counts) <= SETTINGS[difficulty].max_things
    assert {"easy": 1, "default": 2, "hard": 7}[difficulty] < np.mean(counts) < 14


def test_slivers_are_void(monkeypatch: pytest.MonkeyPatch) -> None:
    def maps() -> list[tuple[np.ndarray, np.ndarray]]:
        return [SyntheticSequence(i).maps(t) for i, t in product(range(12), (0, 11, 22))]

    cleaned = maps()
    monkeypatch.setattr("pix2seq_d.data.synthetic.MIN_INSTANCE_SHARE", 0.0)
    num_slivers = 0
    for (class_map, instance_map), (drawn_class, drawn_instance) in zip(cleaned, maps(), strict=True):
        sliver = np.isin(drawn_instance, [i for i in ids(drawn_instance) if (drawn_instance == i).sum() < 12])
        np.testing.assert_array_equal(class_map, np.where(sliver, VOID, drawn_class))
        np.testing.assert_array_equal(instance_map, np.where(sliver, 0, drawn_instance))
        num_slivers += sliver.any()
    assert num_slivers > 3


def test_a_cap_drops_whole_far_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = SyntheticSequence(4, difficulty="hard")
    world, time = sequence._world, 2.0
    view = world.view(time, sequence._columns, sequence._rows)
    things = sorted((a for a in world.actors(view, time) if a.label >= 256), key=lambda a: a.depth)
    monkeypatch.setattr(world, "difficulty", replace(SETTINGS["hard"], max_things=3))
    kept = [a for a in world.actors(view, time) if a.label >= 256]
    assert len(things) > 3
    assert {a.label for a in kept} == {a.label for a in things[:3]}


def test_instance_ids_are_unique() -> None:
    numbers = [instance_id(slot, stream, 9) for slot in range(-50, 50) for stream in range(9)]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) == 1


# Content


def test_required_classes_occur() -> None:
    seen = values(np.stack([class_map for sequence in sample("default") for class_map, _ in sequence]))
    assert seen >= REQUIRED
    assert seen & {14, 15}
    assert seen <= {*range(19), VOID}


def test_distractors_have_no_instance() -> None:
    hard = [pair for sequence in sample("hard") for pair in sequence]
    assert {14, 15} <= values(np.stack([class_map for class_map, _ in hard]))
    assert all(not instance_map[(class_map == 14) | (class_map == 15)].any() for class_map, instance_map in hard)


def test_objects_enter_leave_and_persist() -> None:
    entered = sum(bool(ids(s[-1][1]) - ids(s[0][1])) for s in sample("default"))
    left = sum(bool(ids(s[0][1]) - ids(s[-1][1])) for s in sample("default"))
    stayed = sum(bool(ids(s[0][1]) & ids(s[1][1])) for s in sample("default"))
    assert min(entered, left, stayed) > 12


def alone(sequence: SyntheticSequence, t: int) -> dict[int, np.ndarray]:
    """Masks of the thing instances of a frame as if nothing stood in front of them."""
    time, masks = t / FRAMES_PER_SECOND, {}
    view = sequence._world.view(time, sequence._columns, sequence._rows)
    for actor in sequence._world.actors(view, time):
        if actor.label >= 256:
            canvas = Canvas(sequence.height, sequence.width, with_colours=False)
            canvas.labels[:] = 0
            sequence._painter.paint(canvas, view, actor, time)
            masks[actor.label >> 8] = canvas.labels > 0
    return masks


def test_objects_occlude_each_other() -> None:
    """Some instances cover a part of others, some things hide behind other classes, and most are whole."""
    by_things = by_others = whole = 0
    for index, t in product(range(12), (5, 25)):
        sequence = SyntheticSequence(index)
        instance_map = sequence.maps(t)[1]
        for number, mask in alone(sequence, t).items():
            cover = instance_map[mask]
            assert mask[instance_map == number].all()
            by_things += bool(((cover > 0) & (cover != number)).any())
            by_others += bool((cover == 0).any())
            whole += bool((cover == number).all() and mask.any())
    assert min(by_things, by_others, whole) >= 3


def test_an_object_moves_smoothly() -> None:
    """Centres of large objects move by less than a sixth of the width between frames of 0.1 s."""
    sequence, moves = SyntheticSequence(2), []
    maps = [sequence.maps(t)[1] for t in range(20)]
    for before, after in pairwise(maps):
        for number in ids(before) & ids(after):
            columns = [np.nonzero(m == number)[1].mean() for m in (before, after)]
            moves.append(abs(columns[1] - columns[0]))
    assert max(moves) < 320 / 6
    assert 0.1 < np.median(moves) < 8


def test_void_and_crowds_occur_in_some_clips() -> None:
    void = [any((c == VOID).any() for c, _ in s) for s in sample("default")]
    crowd = [any((np.isin(c, THINGS) & (i == 0)).any() for c, i in s) for s in sample("default")]
    assert 2 <= sum(void) <= 16
    assert 2 <= sum(crowd) <= 12


def test_difficulty_adds_objects_and_noise() -> None:
    counts = [np.mean([len(ids(i)) for s in sample(d) for _, i in s]) for d in DIFFICULTIES]
    assert counts[0] < counts[1] < counts[2]
    rough = []
    for difficulty in DIFFICULTIES:
        image = SyntheticSequence(0, difficulty=difficulty).frame(0).image.astype(float)
        rough.append(np.abs(np.diff(image[:20], axis=1)).mean())
    assert rough[0] < rough[1] < rough[2]


def test_light_changes_over_time() -> None:
    sequence = SyntheticSequence(1, difficulty="hard")
    means = [sequence.frame(t).image.mean() for t in range(0, 200, 20)]
    assert max(means) - min(means) > 15


# Clips


def test_clip_layout_at_the_start_and_later() -> None:
    clips = SyntheticClips(split="val", num_sequences=2, num_frames=5, height=48, width=160, seed=9)
    assert len(clips) == 10
    first, later = clips[5], clips[8]
    assert (first.sequence_id, first.frame_id, later.frame_id) == ("0001", 0, 3)
    assert first.present.tolist() == [False, False, True]
    assert later.present.tolist() == [True, True, True]
    assert (first.class_map[:2] == VOID).all()
    assert not first.instance_map[:2].any()
    assert later.frames.shape == (1, 48, 160, 3)
    assert later.class_map.shape == later.instance_map.shape == (3, 48, 160)
    sequence = SyntheticSequence(1, split="val", height=48, width=160, seed=9)
    np.testing.assert_array_equal(later.frames[0], sequence.frame(3).image)
    for position, t in enumerate((1, 2, 3)):
        np.testing.assert_array_equal(later.class_map[position], sequence.maps(t)[0])
        np.testing.assert_array_equal(later.instance_map[position], sequence.maps(t)[1])


def test_all_frames_and_other_offsets() -> None:
    clips = SyntheticClips(split="train", num_sequences=1, num_frames=9, past_offsets=(-4, -1), all_frames=True)
    clip = clips[2]
    assert clip.frames.shape == (3, 96, 320, 3)
    assert clip.present.tolist() == [False, True, True]
    assert not clip.frames[0].any()
    np.testing.assert_array_equal(clip.frames[1], SyntheticSequence(0).frame(1).image)


def test_clips_end() -> None:
    clips = SyntheticClips(split="test", num_sequences=1, num_frames=2, past_offsets=())
    assert [clip.frame_id for clip in clips] == [0, 1]
    with pytest.raises(IndexError, match="expected an item"):
        clips[-1]


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"index": -1}, "expected index >= 0, got -1"),
        ({"index": 0, "split": "dev"}, "expected split to be one of train, val, test, got 'dev'"),
        ({"index": 0, "difficulty": "insane"}, "expected difficulty to be one of"),
        ({"index": 0, "height": 31}, "expected height >= 32, got 31"),
        ({"index": 0, "width": 0}, "expected width >= 32, got 0"),
        ({"index": 0, "seed": -5}, "expected seed >= 0, got -5"),
    ],
)
def test_bad_sequence_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticSequence(**arguments)


def test_bad_times_and_clips() -> None:
    for call in (SyntheticSequence(0).frame, SyntheticSequence(0).maps):
        with pytest.raises(ValueError, match="expected t >= 0, got -1"):
            call(-1)
    with pytest.raises(ValueError, match="num_frames >= 1"):
        SyntheticClips(split="val", num_sequences=1, num_frames=0)
    for offsets in ((-1, -2), (0,), (-1, -1)):
        with pytest.raises(ValueError, match="past_offsets"):
            SyntheticClips(split="val", num_sequences=1, num_frames=1, past_offsets=offsets)


# On disk


def test_written_files_hold_the_frames(tmp_path: Path) -> None:
    write_sequences(tmp_path, split="val", num_sequences=2, num_frames=2, height=40, width=120, seed=4)
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    names = [f"val/{s:04d}/{t:06d}.png" for s in range(2) for t in range(2)]
    assert files == sorted(f"{kind}/{name}" for kind in ("images", "panoptic_maps") for name in names)
    frame = SyntheticSequence(1, split="val", height=40, width=120, seed=4).frame(1)
    label = np.asarray(Image.open(tmp_path / "panoptic_maps/val/0001/000001.png")).astype(int)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "images/val/0001/000001.png")), frame.image)
    np.testing.assert_array_equal(label[..., 0], frame.class_map)
    np.testing.assert_array_equal(label[..., 1] * 256 + label[..., 2], frame.instance_map)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--num_sequences", "1", "--num_frames", "1", "--height", "32", "--width", "64"]
    main(["--output", str(tmp_path), "--split", "train", *small])
    main(["--output", str(tmp_path), "--split", "val", *small])  # another split beside it
    capsys.readouterr()
    bad = (["--split", "val", *small], ["--num_frames", "0"], ["--split", "dev"], ["--height", "8"], ["--seed", "-1"])
    for arguments in bad:
        with pytest.raises(SystemExit) as stop:
            main(["--output", str(tmp_path / "new") if "val" not in arguments else str(tmp_path), *arguments])
        assert stop.value.code == 2
        message = capsys.readouterr().err.strip()
        assert len(message.splitlines()) == 1
        assert "expected" in message
    assert not (tmp_path / "new").exists()
