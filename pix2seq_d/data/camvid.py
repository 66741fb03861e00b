"""CamVid (Brostow et al. 2009), 11 classes without instances, from disk.

Layouts: {split}/images with {split}/labels, or {split} with {split}annot (the SegNet tutorial). Names are
{drive}_{frame}: 0001TP_006690, 0006R0_f00930; a drive is a sequence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pix2seq_d.data.folder import frame_number, list_images
from pix2seq_d.data.formats import DataError, read_label_map
from pix2seq_d.data.labelled_videos import LabelledVideos, check_split, labelled_neighbour, pair_labels
from pix2seq_d.labels import get_label_spec

SPLITS = ("train", "val", "test")


class CamVid(LabelledVideos):
    """CamVid frames with their label maps; every instance id is 0.

    Past offsets count labelled frames of the same drive and split, not frame numbers: CamVid is labelled at 1 Hz, so -1
    is the keyframe about a second earlier (in the val split, which is labelled at 15 Hz, the frame before).

    Args:
        root: folder that holds the splits.
        split: "train", "val" or "test".
        past_offsets: in labelled frames.
        all_frames: clips carry the images of the past frames too.

    Raises:
        DataError: no such layout under `root`, no frames, or frames without a label map.
        ValueError: an unknown split.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        past_offsets: Sequence[int] = (),
        all_frames: bool = False,
    ) -> None:
        check_split(split, SPLITS)
        images, labels = _find_layout(Path(root), split)
        files = pair_labels(_pairs(images, labels), root=images)
        if not files:
            raise DataError(f"{images}: expected the frames of CamVid's {split} split, found no image")
        super().__init__(files, get_label_spec("camvid"), past_offsets=past_offsets, all_frames=all_frames)

    def read_label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Class map and an instance map of zeros."""
        class_map = read_label_map(path, self.label_spec)
        return class_map, np.zeros(class_map.shape, np.int32)

    def past_frame(self, sequence_id: str, frame_id: int, offset: int) -> int | None:
        """Number of the labelled frame `offset` places away in the drive, None where there is no such frame."""
        return labelled_neighbour(self.frame_ids(sequence_id), frame_id, offset)


def _find_layout(root: Path, split: str) -> tuple[Path, Path]:
    for images, labels in (("{}/images", "{}/labels"), ("{}", "{}annot")):
        if (root / labels.format(split)).is_dir() and (root / images.format(split)).is_dir():
            return root / images.format(split), root / labels.format(split)
    raise DataError(
        f"{root}: expected CamVid as {split}/images with {split}/labels, or as {split} with {split}annot, found neither"
    )


def _pairs(images: Path, labels: Path) -> Iterator[tuple[str, int, Path, Path]]:
    for image in list_images(images):
        drive = image.stem.rpartition("_")[0]
        if not drive:
            raise DataError(f"{image}: expected a name like 0001TP_006690, found no drive before an underscore")
        yield drive, frame_number(image), image, labels / f"{image.stem}.png"
