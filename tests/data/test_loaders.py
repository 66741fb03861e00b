"""Instance codes, samples, collation, and the order of training."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard
from accelerate.state import AcceleratorState, GradientState, PartialState
from golden_samples import golden_hash
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pix2seq_d.data.batch import Batch, Clip
from pix2seq_d.data.corruption import PastCorruption
from pix2seq_d.data.labelled_videos import PickPixels
from pix2seq_d.data.loaders import EpochBatches, TrainingClips, assign_codes, build_loader, collate, encode_clip
from pix2seq_d.data.transforms import ClipTransform
from pix2seq_d.labels import get_label_spec

SPEC = get_label_spec("kitti-step")  # things 11 and 13
TRANSFORM = ClipTransform((16, 24), (8, 12), scale_range=(1, 2), flip_rate=0.5, brightness=0.2)


class MemoryClips:
    """Clips of three cars and a person on road, held in memory."""

    has_labels = True

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(1)
        self.clips = []
        for number in range(count):
            instance_map = rng.integers(0, 5, (3, 16, 24), dtype=np.int32)
            class_map = np.where(instance_map == 4, 11, np.where(instance_map > 0, 13, 0)).astype(np.uint8)
            frames = rng.integers(0, 256, (1, 16, 24, 3), dtype=np.uint8)
            self.clips.append(Clip(frames, class_map, instance_map, np.array([False, True, True]), "a", number))

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        return self.clips[index]


def small_clip(class_map: list, instance_map: list) -> Clip:
    classes, instances = np.array(class_map, np.uint8), np.array(instance_map, np.int32)
    frames = np.zeros((1, *classes.shape[1:], 3), np.uint8)
    return Clip(frames, classes, instances, np.ones(len(classes), bool), "a", 7)


def equal(a: Batch, b: Batch) -> bool:
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(vars(a).values(), vars(b).values())
    )


# Instance codes


def codes_of(
    instance_map: np.ndarray, num_codes: int, generator: np.random.Generator | None = None, *, name: str = "c"
) -> np.ndarray:
    """`assign_codes` pixel by pixel of an (L, h, w) map."""
    frames = np.arange(len(instance_map)).repeat(instance_map[0].size)
    return assign_codes(instance_map.ravel(), frames, num_codes, generator, name=name).reshape(instance_map.shape)


def test_codes_in_order_without_a_generator() -> None:
    instance_map = np.array([[[0, 70000, 5]], [[5, 0, 9]]])
    codes = codes_of(instance_map, 7)
    assert codes.tolist() == [[[0, 3, 1]], [[1, 0, 2]]]
    assert codes.dtype == np.int64


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), num_objects=st.integers(0, 12), num_codes=st.integers(1, 12))
def test_codes_are_a_renaming(seed: int, num_objects: int, num_codes: int) -> None:
    """Where the codes suffice, an object has one code in all frames and no two objects share one."""
    rng = np.random.default_rng(seed)
    num_objects = min(num_objects, num_codes)
    ids = np.concatenate([[0], rng.choice(50000, num_objects, replace=False) + 1])
    instance_map = ids[rng.integers(0, len(ids), (3, 5, 6))]
    codes = codes_of(instance_map, num_codes, rng)
    pairs = set(zip(instance_map.ravel().tolist(), codes.ravel().tolist()))
    assert len(pairs) == len({i for i, _ in pairs}) == len({c for _, c in pairs})
    assert ((codes == 0) == (instance_map == 0)).all()
    assert codes.max(initial=0) <= num_codes


def test_codes_are_drawn_from_all_of_them() -> None:
    drawn = {int(codes_of(np.array([[[8]]]), 5, np.random.default_rng(s))[0, 0, 0]) for s in range(99)}
    assert drawn == {1, 2, 3, 4, 5}


def test_more_instances_than_codes_in_one_frame() -> None:
    with pytest.raises(
        ValueError, match=r"^clip a/000007: expected at most 2 instances .*, got 3; 2 instance bits hold them"
    ):
        codes_of(np.array([[[0, 0, 0]], [[4, 5, 6]]]), 2, name="a/000007")


def test_union_above_the_codes_shares() -> None:
    """Frames {1 2} {2 3} {3 4} with two codes: 3 4 of the last frame get 1 2; then 2 gets 2, 1 gets 1."""
    instance_map = np.array([[[1, 2]], [[2, 3]], [[3, 4]]])
    assert codes_of(instance_map, 2).tolist() == [[[1, 2]], [[2, 1]], [[1, 2]]]


def test_union_above_the_codes_prefers_unused_ones() -> None:
    """Frames {1 2} {3 4} with three codes: 3 4 get 1 2, 1 the unused 3, 2 shares 1."""
    assert codes_of(np.array([[[1, 2]], [[3, 4]]]), 3).tolist() == [[[3, 1]], [[1, 2]]]


def test_object_without_a_free_code_is_unknown() -> None:
    """Two codes; 1 in frames 0 and 2, 2 in 1 and 2, 3 in 0 and 1: beside 1 and 2 nothing is left for 3."""
    instance_map = np.array([[[1, 3]], [[2, 3]], [[1, 2]]])
    assert codes_of(instance_map, 2).tolist() == [[[1, 0]], [[2, 0]], [[1, 2]]]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), num_codes=st.integers(2, 6))
def test_shared_codes_never_meet_in_a_frame(seed: int, num_codes: int) -> None:
    rng = np.random.default_rng(seed)
    instance_map = np.stack([rng.choice(20, num_codes, replace=False) + 1 for _ in range(3)])[:, None]
    codes = codes_of(instance_map, num_codes, rng)
    assert sorted(codes[-1, 0].tolist()) == list(range(1, num_codes + 1))
    for frame in codes:
        known = frame[frame > 0]
        assert len(set(known.tolist())) == len(known)
    pairs = set(zip(instance_map.ravel().tolist(), codes.ravel().tolist()))
    assert len(pairs) == len({i for i, _ in pairs})


# Samples


def test_encoded_clip_by_hand() -> None:
    """Road with a stray instance, car 5, crowd car, person 5 (another object than car 5), void."""
    clip = small_clip([[[0, 13, 13, 11, 255]]], [[[9, 5, 0, 5, 3]]])
    batch = encode_clip(clip, SPEC, num_instance_codes=3)
    assert batch.class_codes.tolist() == [[[[1, 14, 14, 12, 0]]]]
    assert batch.instance_codes.tolist() == [[[[0, 2, 0, 1, 0]]]]
    assert batch.crowd.tolist() == [[[False, False, True, False, False]]]
    assert (batch.names, batch.present.tolist()) == (["a/000007"], [[True]])


def test_large_ids_of_two_classes_stay_apart() -> None:
    """Remapped and pseudo-video ids need more than 16 bits: person 2 * 65536 + 5 is another object than car 5."""
    batch = encode_clip(small_clip([[[11, 13]]], [[[2 * 65536 + 5, 5]]]), SPEC, num_instance_codes=3)
    assert batch.instance_codes.tolist() == [[[[1, 2]]]]


def test_objects_do_not_run_on_into_the_next_map() -> None:
    """Equal neighbours at the end of one map and the start of the next, of one row and the next."""
    clip = small_clip([[[0, 13], [13, 13]], [[13, 13], [0, 255]]], [[[0, 4], [4, 9]], [[9, 9], [0, 0]]])
    batch = encode_clip(clip, SPEC, num_instance_codes=2)
    assert batch.class_codes.tolist() == [[[[1, 14], [14, 14]], [[14, 14], [1, 0]]]]
    assert batch.instance_codes.tolist() == [[[[0, 1], [1, 2]], [[2, 2], [0, 0]]]]


def test_crowd_is_of_the_last_map() -> None:
    clip = small_clip([[[13, 13]], [[13, 13]]], [[[0, 1]], [[1, 0]]])
    assert encode_clip(clip, SPEC, num_instance_codes=3).crowd.tolist() == [[[False, True]]]


def test_no_instance_codes_means_classes_only() -> None:
    batch = encode_clip(small_clip([[[13, 13, 0]]], [[[5, 0, 0]]]), SPEC, num_instance_codes=0)
    assert not batch.instance_codes.any()
    assert not batch.crowd.any()
    assert batch.class_codes.tolist() == [[[[14, 14, 1]]]]


def test_sample_shapes_and_dtypes() -> None:
    clips = TrainingClips(MemoryClips(2), TRANSFORM, SPEC, num_instance_codes=7, seed=0)
    sample = clips[0, 1]
    assert len(clips) == 2
    assert (sample.frame.shape, sample.frame.dtype) == ((1, 3, 16, 24), torch.uint8)
    assert (sample.class_codes.shape, sample.class_codes.dtype) == ((1, 3, 8, 12), torch.uint8)
    assert (sample.instance_codes.shape, sample.instance_codes.dtype) == ((1, 3, 8, 12), torch.int32)
    assert (sample.crowd.shape, sample.crowd.dtype) == ((1, 8, 12), torch.bool)
    assert sample.present.tolist() == [[False, True, True]]


def test_the_last_image_is_the_frame() -> None:
    clip = small_clip([[[0]]], [[[0]]])
    clip.frames = np.array([[[[1, 2, 3]]], [[[4, 5, 6]]]], np.uint8)
    assert encode_clip(clip, SPEC, num_instance_codes=1).frame.flatten().tolist() == [4, 5, 6]


@pytest.mark.parametrize("change", ["seed", "epoch", "index"])
def test_a_sample_is_a_function_of_seed_epoch_and_index(change: str) -> None:
    """The same data under every index: only the draws differ."""
    dataset = MemoryClips(1)
    dataset.clips *= 2
    keys = {"seed": 3, "epoch": 4, "index": 0}

    def sample(seed: int, epoch: int, index: int) -> Batch:
        return TrainingClips(dataset, TRANSFORM, SPEC, num_instance_codes=7, seed=seed)[epoch, index]

    assert equal(sample(**keys), sample(**keys))
    assert not equal(sample(**keys), sample(**{**keys, change: keys[change] + 1}))


def test_samples_are_those_of_the_first_release() -> None:
    """The hash was computed by `golden_hash` with the code of the first release (commit ba4905c) and Pillow 13.0.0."""
    transform = ClipTransform(
        (48, 64), (24, 32), scale_range=(0.8, 2.2), flip_rate=0.5, brightness=0.3, contrast=0.4, saturation=0.5
    )
    assert golden_hash(transform) == "8140939f9511b2131e2910719807cadf8e4ac98b6440c674a0385bcb44a8979d"


class PickedClips(MemoryClips):
    """The same clips, giving away nothing but the pixels that are asked for."""

    def __getitem__(self, index: int) -> Clip:
        raise AssertionError("expected to be asked for pixels")

    def read_clip(self, index: int, choose: Callable[[tuple[int, int]], PickPixels]) -> Clip:
        clip = self.clips[index]
        pick = choose(clip.class_map.shape[1:])
        maps = [
            np.stack([pick(m, fill) for m in values])
            for values, fill in ((clip.class_map, 255), (clip.instance_map, 0))
        ]
        return replace(clip, class_map=maps[0], instance_map=maps[1])


def test_picked_pixels_make_the_same_samples() -> None:
    """With whole maps and with the pixels of the sample alone; scales below 1 leave padding."""
    corruption = PastCorruption(drop_rate=0.5, shift=1)
    transform = ClipTransform((16, 24), (8, 12), scale_range=(0.6, 2), flip_rate=0.5, noise=3, corruption=corruption)
    whole, picked = (
        TrainingClips(clips, transform, SPEC, num_instance_codes=7, seed=0)
        for clips in (MemoryClips(2), PickedClips(2))
    )
    for key in ((epoch, index) for epoch in range(5) for index in range(2)):
        assert equal(whole[key], picked[key])


def test_varying_clips_are_those_of_the_epoch() -> None:
    class Epochs(MemoryClips):
        def draw(self, epoch: int, index: int) -> Clip:
            return self.clips[(epoch + index) % len(self.clips)]

    dataset = Epochs(3)
    clips = TrainingClips(dataset, TRANSFORM, SPEC, num_instance_codes=7, seed=0)
    assert [clips[epoch, 1].names for epoch in range(3)] == [["a/000001"], ["a/000002"], ["a/000000"]]


def test_bad_clips_are_named() -> None:
    with pytest.raises(ValueError, match=r"^clip a/000007: .*got 19"):
        encode_clip(small_clip([[[19]]], [[[0]]]), SPEC, num_instance_codes=3)
    with pytest.raises(ValueError, match=r"^clip a/000007: expected at most 1 instances"):
        encode_clip(small_clip([[[13, 13]]], [[[1, 2]]]), SPEC, num_instance_codes=1)
    with pytest.raises(ValueError, match="seed"):
        TrainingClips(MemoryClips(1), TRANSFORM, SPEC, num_instance_codes=1, seed=-1)


def test_a_split_without_labels_is_refused() -> None:
    clips = MemoryClips(1)
    clips.has_labels = False
    with pytest.raises(ValueError, match=r"^dataset: expected frames with label maps to train on"):
        TrainingClips(clips, TRANSFORM, SPEC, num_instance_codes=1, seed=0)
    clips.has_labels = True
    assert len(TrainingClips(clips, TRANSFORM, SPEC, num_instance_codes=1, seed=0)) == 1


def test_collate_keeps_order() -> None:
    clips = TrainingClips(MemoryClips(3), TRANSFORM, SPEC, num_instance_codes=7, seed=0)
    samples = [clips[0, i] for i in (2, 0, 1)]
    batch = collate(samples)
    assert batch.names == ["a/000002", "a/000000", "a/000001"]
    assert len(batch) == 3
    assert batch.class_codes.shape == (3, 3, 8, 12)
    assert torch.equal(batch.frame[1], samples[1].frame[0])
    with pytest.raises(ValueError, match="at least one"):
        collate([])


# Order


@settings(max_examples=60, deadline=None)
@given(num_clips=st.integers(1, 12), batch_size=st.integers(1, 15), start=st.integers(0, 30), shuffle=st.booleans())
def test_entering_anywhere_equals_walking_there(num_clips: int, batch_size: int, start: int, shuffle: bool) -> None:
    walked = EpochBatches(num_clips, batch_size, seed=5, shuffle=shuffle)
    entered = EpochBatches(num_clips, batch_size, seed=5, start=start, shuffle=shuffle)
    assert list(islice(entered, 6)) == list(islice(walked, start, start + 6))


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    """10 clips in batches of 4: 5 batches are 2 epochs, and the third batch lies across the border."""
    batches = list(islice(EpochBatches(10, 4, seed=0), 5))
    samples = [sample for batch in batches for sample in batch]
    assert {len(batch) for batch in batches} == {4}
    assert [epoch for epoch, _ in samples] == [0] * 10 + [1] * 10
    first, second = [i for _, i in samples[:10]], [i for _, i in samples[10:]]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [s for b in islice(EpochBatches(10, 4, seed=1), 5) for s in b] != samples


def test_a_late_start_is_immediate() -> None:
    batch = next(iter(EpochBatches(7, 3, seed=0, start=10**12)))
    assert batch[0][0] == 3 * 10**12 // 7


def test_order_without_shuffling() -> None:
    batches = islice(EpochBatches(3, 2, seed=0, shuffle=False), 3)
    assert list(batches) == [[(0, 0), (0, 1)], [(0, 2), (1, 0)], [(1, 1), (1, 2)]]


@pytest.mark.parametrize("arguments", [(0, 1, 0, 0), (1, 0, 0, 0), (1, 1, -1, 0), (1, 1, 0, -1)])
def test_bad_order_arguments(arguments: tuple[int, int, int, int]) -> None:
    num_clips, batch_size, seed, start = arguments
    with pytest.raises(ValueError, match="expected"):
        EpochBatches(num_clips, batch_size, seed=seed, start=start)


@pytest.mark.parametrize("split_batches", [False, True])
def test_two_processes_share_the_order(split_batches: bool) -> None:
    """Whole batches in turn, or halves of each: together they are the order of one process."""
    ranks = [BatchSamplerShard(EpochBatches(7, 4, seed=2), 2, rank, split_batches=split_batches) for rank in (0, 1)]
    dealt = [b for pair in islice(zip(*ranks), 6) for b in pair]
    alone = list(islice(EpochBatches(7, 4, seed=2), 6 if split_batches else 12))
    assert [s for b in dealt for s in b] == [s for b in alone for s in b]


# Loaders


def make_loader(*, start: int = 0, num_workers: int = 0) -> DataLoader[Batch]:
    return build_loader(
        MemoryClips(5),
        TRANSFORM,
        SPEC,
        batch_size=2,
        num_instance_codes=7,
        seed=9,
        start=start,
        num_workers=num_workers,
    )


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield Accelerator(cpu=True)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def test_loader_repeats_itself_and_starts_anywhere() -> None:
    straight = list(islice(make_loader(), 6))
    assert [len(b) for b in straight] == [2] * 6
    assert len({name for b in straight for name in b.names}) == 5
    assert all(equal(a, b) for a, b in zip(straight[4:], islice(make_loader(start=4), 2)))
    assert not equal(straight[0], straight[1])


def test_workers_change_nothing_and_use_one_thread() -> None:
    loader = make_loader(num_workers=2)
    with_workers = list(islice(loader, 4))
    assert all(equal(a, b) for a, b in zip(with_workers, islice(make_loader(), 4)))
    assert loader.persistent_workers
    threads: DataLoader[int] = DataLoader(
        [0, 1],  # type: ignore[arg-type]
        num_workers=1,
        collate_fn=lambda _: torch.get_num_threads(),
    )
    assert list(threads) == [1, 1]


def test_accelerate_keeps_the_order(accelerator: Accelerator) -> None:
    prepared = accelerator.prepare(make_loader(start=1))
    batches = list(islice(prepared, 5))
    assert all(isinstance(b, Batch) for b in batches)
    assert all(equal(a, b) for a, b in zip(batches, islice(make_loader(), 1, 6)))
