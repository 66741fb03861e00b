"""Labelled video on disk: what the readers of the datasets share, and what others ask of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from pix2seq_d.data.batch import Clip
from pix2seq_d.data.folder import natural_key
from pix2seq_d.data.formats import DataError, check_class_ids, read_image
from pix2seq_d.data.map_cache import MapCache
from pix2seq_d.labels import LabelSpec


class VideoDataset(Protocol):
    """What validation asks of a dataset: whole videos, frame by frame, at their own size."""

    label_spec: LabelSpec

    @property
    def sequence_ids(self) -> tuple[str, ...]:
        """Names of the videos, in order."""

    def frame_ids(self, sequence_id: str, /) -> tuple[int, ...]:
        """Frame numbers of a video, ascending."""

    def read_frame(self, sequence_id: str, frame_id: int, /) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 image, (H, W) uint8 train ids, (H, W) int32 instance ids."""


PickPixels = Callable[[np.ndarray, int], np.ndarray]  # an (H, W) map and its value for "nothing" -> (h, w)


class FrameFiles(NamedTuple):
    """The two files of a frame; `label` is None where its map is not public (test splits)."""

    image: Path
    label: Path | None


class LabelledVideos:
    """Labelled frames on disk as videos (VideoDataset) and as a map-style dataset of Clips, one for every frame.

    A reader of a dataset gathers the files and says in `read_label` how a label file is read. Nothing is opened before
    it is asked for; the clips come as they are on disk, without augmentation. Frames without a label file have void
    maps that are not `present`.

    Args:
        files: files of every frame, by sequence and frame number.
        label_spec: label spec of the maps.
        past_offsets: frames before the one to predict whose maps belong to the clip, oldest first, for example
            (-2, -1); a past frame that does not exist is void and not `present`.
        all_frames: clips carry the images of the past frames too (black where absent), not only the last one.

    Attributes:
        stills: the labelled frames of a sequence are too far apart for the map of one to help with the next.
    """

    stills = False

    def __init__(
        self,
        files: Mapping[str, Mapping[int, FrameFiles]],
        label_spec: LabelSpec,
        *,
        past_offsets: Sequence[int] = (),
        all_frames: bool = False,
    ) -> None:
        if list(past_offsets) != sorted(set(past_offsets)) or any(offset >= 0 for offset in past_offsets):
            raise ValueError(f"expected past_offsets below 0, oldest first, got {tuple(past_offsets)}")
        self.label_spec = label_spec
        self.past_offsets = tuple(past_offsets)
        self.all_frames = all_frames
        self._cache = MapCache(0)
        self._files: Mapping[str, Mapping[int, FrameFiles]] = {
            key: dict(sorted(files[key].items())) for key in sorted(files, key=natural_key)
        }
        self._clips = [(key, number) for key, frames in self._files.items() for number in frames]

    @property
    def sequence_ids(self) -> tuple[str, ...]:
        """Names of the videos in natural order."""
        return tuple(self._files)

    @property
    def has_labels(self) -> bool:
        """Whether every frame has a label file; False for a test split, which cannot be trained or scored on."""
        return all(files.label is not None for frames in self._files.values() for files in frames.values())

    def frame_ids(self, sequence_id: str) -> tuple[int, ...]:
        """Frame numbers of a video, ascending; raises ValueError for an unknown video."""
        return tuple(self._frames(sequence_id))

    def cache_maps(self, max_bytes: int) -> None:
        """Keeps maps in memory once they are read, in every process that reads, up to `max_bytes` in each."""
        self._cache = MapCache(max_bytes)

    def keep_sequences(self, sequence_ids: Sequence[str]) -> None:
        """Drops all other videos; raises ValueError for an unknown one."""
        for key in sequence_ids:
            self._frames(key)
        kept = set(sequence_ids)
        self._files = {key: frames for key, frames in self._files.items() if key in kept}
        self._clips = [clip for clip in self._clips if clip[0] in self._files]

    def read_label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Reads one label file: (H, W) train ids and (H, W) instance ids, 0 = no instance; integers, views allowed."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a label file is read")

    def past_frame(self, sequence_id: str, frame_id: int, offset: int) -> int | None:
        """Number of the frame `offset` away from `frame_id`, None where the video has no such frame."""
        number = frame_id + offset
        return number if number in self._frames(sequence_id) else None

    def past_image(self, sequence_id: str, frame_id: int, offset: int) -> Path | None:
        """Image file of the frame `offset` away, with or without a map; None where there is none."""
        number = self.past_frame(sequence_id, frame_id, offset)
        return None if number is None else self._frame(sequence_id, number).image

    def read_maps(self, sequence_id: str, frame_id: int) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) uint8 train ids and (H, W) int32 instance ids of one frame; void where it has no label file.

        Raises:
            DataError: the label file is missing or broken, or holds a class id outside the spec.
            ValueError: an unknown video or frame.
        """
        image, path = self._frame(sequence_id, frame_id)
        if path is None:
            return self._void_maps(read_image(image).shape[:2])
        class_map, instance_map = self._checked_maps(path)
        return class_map.astype(np.uint8, order="C", copy=False), instance_map.astype(np.int32, order="C", copy=False)

    def read_frame(self, sequence_id: str, frame_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 image with the maps of `read_maps`; raises as that, and DataError if their sizes differ."""
        files = self._frame(sequence_id, frame_id)
        image = read_image(files.image)
        if files.label is None:
            return image, *self._void_maps(image.shape[:2])
        class_map, instance_map = self.read_maps(sequence_id, frame_id)
        check_same_size(files.label, class_map.shape, files.image, image.shape[:2])
        return image, class_map, instance_map

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Clip:
        """The clip that ends at frame `index` of all frames of all videos."""
        return self.read_clip(index, lambda size: lambda values, fill: values)

    def read_clip(self, index: int, choose: Callable[[tuple[int, int]], PickPixels]) -> Clip:
        """The clip at a position with the pixels of its maps that are wanted: what is not wanted need not be unpacked.

        Args:
            index: as in `dataset[index]`.
            choose: gets the (H, W) of the clip's frames and says which pixels; called once, before maps are read.

        Returns:
            A Clip with whole frames, and the maps that were picked.
        """
        sequence_id, frame_id = self._clips[index]
        image_path, label = self._frame(sequence_id, frame_id)
        image = read_image(image_path)
        size = image.shape[:2]
        numbers = [self.past_frame(sequence_id, frame_id, offset) for offset in self.past_offsets]
        labels = [None if n is None else self._frame(sequence_id, n).label for n in numbers]
        maps = self._pick_maps([*labels, label], choose((size[0], size[1])), size, image_path)
        frames = [image]
        if self.all_frames:
            paths = [self.past_image(sequence_id, frame_id, offset) for offset in self.past_offsets]
            frames = [np.zeros_like(image) if path is None else _past_image(path, size=size) for path in paths] + frames
        present = np.array([path is not None for path in (*labels, label)])
        return Clip(frames[0][None] if len(frames) == 1 else np.stack(frames), *maps, present, sequence_id, frame_id)

    def _pick_maps(
        self, labels: Sequence[Path | None], pick: PickPixels, size: tuple[int, ...], image: Path
    ) -> tuple[np.ndarray, np.ndarray]:
        """(L, h, w) uint8 class maps and int32 instance maps of label files, void for None; the last is of `image`."""
        picked = []
        for k, path in enumerate(labels):
            if path is None:
                class_map, instance_map = np.full(size, self.label_spec.void_id, np.uint8), np.zeros(size, np.uint8)
            else:
                class_map, instance_map = self._checked_maps(path)
                other = image if k == len(labels) - 1 else "the frame to predict"
                check_same_size(path, class_map.shape, other, size)
            picked.append((pick(class_map, self.label_spec.void_id), pick(instance_map, 0)))
        shape = (len(picked), *picked[0][0].shape)
        class_maps, instance_maps = np.empty(shape, np.uint8), np.empty(shape, np.int32)
        for k, (class_map, instance_map) in enumerate(picked):
            class_maps[k], instance_maps[k] = class_map, instance_map
        return class_maps, instance_maps

    def _checked_maps(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        class_map, instance_map = self._cache.read(path, self.read_label)
        check_class_ids(path, class_map, self.label_spec)
        return class_map, instance_map

    def _void_maps(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        return np.full(shape, self.label_spec.void_id, np.uint8), np.zeros(shape, np.int32)

    def _frames(self, sequence_id: str) -> Mapping[int, FrameFiles]:
        if sequence_id not in self._files:
            known = ", ".join(islice(self._files, 20)) + (", ..." if len(self._files) > 20 else "")
            raise ValueError(f"expected a sequence of {known}, got {sequence_id!r}")
        return self._files[sequence_id]

    def _frame(self, sequence_id: str, frame_id: int) -> FrameFiles:
        frames = self._frames(sequence_id)
        if frame_id not in frames:
            raise ValueError(f"sequence {sequence_id}: expected one of its {len(frames)} frame numbers, got {frame_id}")
        return frames[frame_id]


def labelled_neighbour(numbers: Sequence[int], frame_id: int, offset: int) -> int | None:
    """The number `offset` places away from `frame_id` among the ascending ones, None beyond their ends."""
    place = numbers.index(frame_id) + offset
    return numbers[place] if 0 <= place < len(numbers) else None


def pair_labels(
    pairs: Iterable[tuple[str, int, Path, Path | None]],
    *,
    root: Path,
    exists: Callable[[Path], bool] = Path.is_file,
) -> dict[str, dict[int, FrameFiles]]:
    """Index for LabelledVideos with every label file there.

    Args:
        pairs: (sequence, frame number, image, label); label None = the frame has none.
        root: folder of the images, for messages.
        exists: whether a label file is there; a look into a listing saves a call to the file system per file.

    Raises:
        DataError: two images with one number, or images without their label file: names the first, counts the rest.
    """
    files: dict[str, dict[int, FrameFiles]] = {}
    missing: list[FrameFiles] = []
    for sequence_id, number, image, label in pairs:
        frames = files.setdefault(sequence_id, {})
        if number in frames:
            raise DataError(f"{image}: expected one image for frame {number}, found {frames[number].image.name} too")
        frames[number] = FrameFiles(image, label)
        if label is not None and not exists(label):
            missing.append(frames[number])
    if missing:
        raise DataError(
            f"{missing[0].label}: expected the label map of {missing[0].image}, found no such file "
            f"({len(missing)} of {sum(map(len, files.values()))} frames under {root} have none)"
        )
    return files


def _past_image(path: Path, *, size: tuple[int, ...]) -> np.ndarray:
    image = read_image(path)
    check_same_size(path, image.shape[:2], "the frame to predict", size)
    return image


def check_split(split: str, known: Sequence[str]) -> None:
    """Raises ValueError for a split that a dataset does not have."""
    if split not in known:
        raise ValueError(f"expected split to be one of {', '.join(known)}, got {split!r}")


def check_same_size(path: Path | str, size: tuple[int, ...], other: Path | str, expected: tuple[int, ...]) -> None:
    """Raises DataError if the (H, W) of `path` is not the expected one, that of `other`."""
    if size != expected:
        raise DataError(f"{path}: expected the size of {other}, {expected[0]}x{expected[1]}, got {size[0]}x{size[1]}")
