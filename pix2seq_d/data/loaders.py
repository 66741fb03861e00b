"""Clips to batches of codes: augmentation, instance codes, collation, and an order to enter anywhere.

Every sample is a function of (seed, epoch, index) alone; workers, ranks and batch size do not change it.
L maps of a clip, h w mask size, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pix2seq_d.data.batch import Batch, Clip
from pix2seq_d.data.labelled_videos import PickPixels
from pix2seq_d.data.loader_faults import OpenedFiles, SkippingClips
from pix2seq_d.data.map_cache import find_runs
from pix2seq_d.data.transforms import ClipTransform
from pix2seq_d.labels import LabelSpec

_ID_BITS = 32  # of an instance id beside the class it belongs to


class ClipDataset(Protocol):
    """What training asks of a dataset: clips by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Clip: ...


@runtime_checkable
class VaryingClips(Protocol):
    """A dataset that makes another clip of the same data in every epoch."""

    def draw(self, epoch: int, index: int, /) -> Clip:
        """The clip at a position as an epoch sees it."""


@runtime_checkable
class PickingClips(Protocol):
    """A dataset that can leave the pixels alone which a sample does not show."""

    def read_clip(self, index: int, choose: Callable[[tuple[int, int]], PickPixels], /) -> Clip:
        """The clip at a position: whole frames, and the pixels of its maps that `choose` picks, given their (H, W)."""


# Instance codes


def assign_codes(
    ids: np.ndarray, frames: np.ndarray, num_codes: int, generator: np.random.Generator | None, *, name: str
) -> np.ndarray:
    """Replaces the object ids of a clip by codes 1..num_codes, drawn at random and constant inside the clip.

    Where the whole clip has more objects than codes, those of the last frame get codes of their own and the others,
    newest frame first, take a code that no object of their own frames holds: an unused one if possible, else they share
    one. An object for which no such code exists has code 0 (no instance) in the past maps.

    Args:
        ids: (N,) integers of pixels or runs of pixels, frame after frame; 0 = no instance.
        frames: (N,) number of the frame of each, ascending.
        num_codes: how many codes exist, 0 not counted.
        generator: draws the permutation; None keeps the codes in the order of the ids.
        name: of the clip, for the error message.

    Returns:
        (N,) int64 codes, 0 where the id is 0.

    Raises:
        ValueError: one frame holds more objects than there are codes.
    """
    borders = np.flatnonzero(np.diff(frames)) + 1
    present = [np.unique(part[part != 0]) for part in np.split(ids, borders)]
    most = max(map(len, present))
    if most > num_codes:
        raise ValueError(
            f"clip {name}: expected at most {num_codes} instances in a frame (num_codes), got {most}; "
            f"{most.bit_length()} instance bits hold them (--model.num_instance_bits)"
        )
    codes = np.arange(1, num_codes + 1) if generator is None else generator.permutation(num_codes) + 1
    known = np.unique(np.concatenate(present))
    few = len(known) <= num_codes
    order = np.arange(len(known)) if few else _shared_order([p.tolist() for p in present], num_codes)
    table = np.concatenate([[0], codes])[order + 1]  # code of every id; order -1 means none is free
    out = np.zeros(len(ids), np.int64)
    out[ids != 0] = table[np.searchsorted(known, ids[ids != 0])]
    return out


def _shared_order(present: list[list[int]], num_codes: int) -> np.ndarray:
    """Number in 0..num_codes-1 of every id in ascending order, -1 where none is free (see `assign_codes`)."""
    frames_of: dict[int, list[int]] = {}
    for number, ids in enumerate(present):
        for i in ids:
            frames_of.setdefault(i, []).append(number)
    taken: list[set[int]] = [set() for _ in present]  # by frame
    used: set[int] = set()
    order: dict[int, int] = {}
    for i in (i for ids in reversed(present) for i in ids):
        if i in order:
            continue
        free = set(range(num_codes)).difference(*(taken[f] for f in frames_of[i]))
        order[i] = min(free - used or free, default=-1)
        used.add(order[i])
        for f in frames_of[i]:
            taken[f].add(order[i])
    return np.array([order[i] for i in sorted(order)])


# Samples and batches


class TrainingClips(Dataset[Batch]):
    """A clip dataset with its augmentation and instance codes drawn; indexed by (epoch, index).

    Args:
        dataset: gives Clips; VaryingClips are asked for those of the epoch.
        transform: brings them to the model's sizes.
        spec: label spec of the maps.
        num_instance_codes: codes for objects, 0 not counted; 0 trains classes only (every instance code 0, no crowd).
        seed: of the whole run, not negative.
        past_images: images of past frames that a sample carries, of those that the clips have; the newest ones.

    Raises:
        ValueError: a negative number, or a dataset that says that it has no labels (`has_labels` False: test splits).
    """

    def __init__(
        self,
        dataset: ClipDataset,
        transform: ClipTransform,
        spec: LabelSpec,
        *,
        num_instance_codes: int,
        seed: int,
        past_images: int = 0,
    ) -> None:
        if num_instance_codes < 0 or seed < 0:
            raise ValueError(f"expected num_instance_codes and seed >= 0, got {num_instance_codes} and {seed}")
        if past_images < 0:
            raise ValueError(f"past_images: expected at least 0, got {past_images}")
        if not getattr(dataset, "has_labels", True):
            raise ValueError("dataset: expected frames with label maps to train on, got a split without them")
        self.dataset = dataset
        self.transform = transform
        self.spec = spec
        self.num_instance_codes = num_instance_codes
        self.seed = seed
        self.past_images = past_images

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """The sample `index` as `epoch` sees it: a Batch of one."""
        epoch, index = key
        generator = np.random.default_rng([self.seed, epoch, index])
        if isinstance(self.dataset, PickingClips):
            clip = self._read_clip(self.dataset, index, generator)
        else:
            clip = self.dataset.draw(epoch, index) if isinstance(self.dataset, VaryingClips) else self.dataset[index]
            clip = self.transform.apply(self._keep_images(clip), self.transform.make_params(clip, generator))
        return encode_clip(clip, self.spec, num_instance_codes=self.num_instance_codes, generator=generator)

    def _read_clip(self, dataset: PickingClips, index: int, generator: np.random.Generator) -> Clip:
        drawn = []

        def choose(size: tuple[int, int]) -> PickPixels:
            drawn.append(self.transform.draw_params(size, generator))
            return self.transform.pixel_picker(drawn[0])

        clip = dataset.read_clip(index, choose)
        return self.transform.finish(self._keep_images(clip), drawn[0])

    def _keep_images(self, clip: Clip) -> Clip:
        return replace(clip, frames=clip.frames[-1 - self.past_images :])


def encode_clip(
    clip: Clip, spec: LabelSpec, *, num_instance_codes: int, generator: np.random.Generator | None = None
) -> Batch:
    """A clip at model size as a Batch of one.

    An object is a class and an instance id together: equal ids in two classes get two codes.

    Args:
        clip: frames (F, H, W, 3), maps (L, h, w); the last frame is to be predicted.
        spec: label spec of the maps.
        num_instance_codes: as in TrainingClips.
        generator: draws the permutation of the codes; None keeps them in order.

    Raises:
        ValueError: a class id outside the spec, or more objects in one frame than codes.
    """
    starts, lengths = find_runs(clip.class_map, clip.instance_map, row=clip.class_map[0].size)
    class_map, instance_map = (m.reshape(-1)[starts] for m in (clip.class_map, clip.instance_map))
    try:
        class_codes, instance_ids = spec.to_codes(class_map, instance_map)
    except ValueError as error:
        raise ValueError(f"clip {clip.name}: {error}") from None
    crowd = spec.is_thing(class_map) & (instance_map == 0)
    objects = np.where(instance_ids > 0, class_codes << _ID_BITS | instance_ids, 0)
    if num_instance_codes == 0:
        objects, crowd = np.zeros_like(objects), np.zeros_like(crowd)
    frames = starts // clip.class_map[0].size
    codes = assign_codes(objects, frames, num_instance_codes, generator, name=clip.name)
    last = np.flatnonzero(frames == len(clip.class_map) - 1)
    images = torch.from_numpy(np.ascontiguousarray(clip.frames)).permute(0, 3, 1, 2)
    return Batch(
        frame=images[-1:],
        past_frames=images[None, :-1] if len(images) > 1 else None,
        class_codes=_paint(class_codes.astype(np.uint8), lengths, clip.class_map.shape),
        instance_codes=_paint(codes.astype(np.int32), lengths, clip.class_map.shape),
        crowd=_paint(crowd[last], lengths[last], clip.class_map.shape[1:]),
        present=torch.from_numpy(np.asarray(clip.present, bool))[None],
        names=[clip.name],
    )


def _paint(values: np.ndarray, lengths: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """The value of every run on all of its pixels: (1, *shape)."""
    return torch.from_numpy(np.repeat(values, lengths).reshape(1, *shape))


def collate(samples: Sequence[Batch]) -> Batch:
    """Batches joined into one, in order."""
    if not samples:
        raise ValueError("expected at least one sample, got none")
    parts = {f.name: [getattr(s, f.name) for s in samples] for f in fields(Batch)}
    names = [name for part in parts.pop("names") for name in part]
    past = parts.pop("past_frames")
    images = {"frame": parts.pop("frame")} | ({} if past[0] is None else {"past_frames": past})
    tensors: dict[str, Tensor] = {key: torch.cat(values) for key, values in parts.items()}
    # images in their own memory order, as `encode_clip` leaves them: copying is six times faster than turning
    for key, values in images.items():
        tensors[key] = torch.cat([image.movedim(-3, -1) for image in values]).movedim(-1, -3)
    return Batch(names=names, **tensors)


# Order


class EpochBatches:
    """Endless batches of (epoch, index): every epoch is a permutation of its own, and batches run across its border.

    Iterating always begins at batch `start`, which is computed and not skipped to: a resumed run pays nothing for it.
    With several processes `accelerate` deals out whole batches in turn: then `start` counts the batches of all of them.

    Args:
        num_clips: length of the dataset.
        batch_size: samples a batch.
        seed: of the permutations, not negative.
        start: number of the first batch.
        shuffle: False keeps every epoch in order.
    """

    drop_last = False

    def __init__(self, num_clips: int, batch_size: int, *, seed: int, start: int = 0, shuffle: bool = True) -> None:
        if min(num_clips, batch_size) < 1:
            raise ValueError(f"expected num_clips and batch_size of 1 or more, got {num_clips} and {batch_size}")
        if min(seed, start) < 0:
            raise ValueError(f"expected seed and start >= 0, got {seed} and {start}")
        self.num_clips = num_clips
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        self.shuffle = shuffle

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        samples = self._samples()
        while True:
            yield [next(samples) for _ in range(self.batch_size)]

    def _samples(self) -> Iterator[tuple[int, int]]:
        epoch, position = divmod(self.start * self.batch_size, self.num_clips)
        while True:
            for index in self._epoch(epoch)[position:]:
                yield epoch, int(index)
            epoch, position = epoch + 1, 0

    def _epoch(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.num_clips)
        # The last word keeps this stream apart from those of the samples: NumPy pads short seeds with zeros.
        return np.random.default_rng([self.seed, epoch, 0, 1]).permutation(self.num_clips)


def build_loader(
    dataset: ClipDataset,
    transform: ClipTransform,
    spec: LabelSpec,
    *,
    batch_size: int,
    num_instance_codes: int,
    seed: int,
    start: int = 0,
    num_workers: int = 0,
    skip_listing: Path | None = None,
    past_images: int = 0,
) -> DataLoader[Batch]:
    """The endless training loader: TrainingClips in the order of EpochBatches, see there for the arguments.

    Workers stay alive and use one thread each (PyTorch sees to that); memory is pinned where CUDA is present. With a
    `skip_listing`, clips that cannot be read are skipped and listed there, see SkippingClips; else they raise.
    """
    clips = TrainingClips(
        dataset, transform, spec, num_instance_codes=num_instance_codes, seed=seed, past_images=past_images
    )
    return DataLoader(
        clips if skip_listing is None else SkippingClips(clips, skip_listing),
        batch_sampler=EpochBatches(len(clips), batch_size, seed=seed, start=start),
        collate_fn=collate,
        num_workers=num_workers,
        worker_init_fn=OpenedFiles(num_workers),
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
