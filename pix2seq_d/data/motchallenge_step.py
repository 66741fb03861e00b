"""MOTChallenge-STEP (Weber et al., arXiv 2102.11859) from disk: video panoptic maps of pedestrian scenes.

Layout: images/{split}/{seq:04d}/{frame:06d}.jpg, or as MOTS.zip has them, images/{split}/MOTS20-{seq}/img1/, and
panoptic_maps/{split}/{seq:04d}/{frame:06d}.png in KITTI-STEP's encoding. Frames count from 1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pix2seq_d.data.folder import frame_number, list_folders, list_images, search_roots
from pix2seq_d.data.formats import DataError, view_kitti_step
from pix2seq_d.data.labelled_videos import LabelledVideos, check_split, pair_labels
from pix2seq_d.labels import get_label_spec

SPLITS = ("train", "val", "test")
_MOTS_NAME = re.compile(r"MOTS(?:20)?-([0-9]+)")


class MotChallengeStep(LabelledVideos):
    """MOTChallenge-STEP videos with their panoptic maps; person is the only class with instances.

    Args:
        root: folder of the layout above, or the folder around it.
        split: "train" (sequences 0002 and 0009), or a "val" of your own making; the maps of "test" are not public.
        past_offsets: in frame numbers; where the numbers have a gap the past frame is absent.
        all_frames: clips carry the images of the past frames too.
        sequences: ids to keep, None = all.

    Raises:
        DataError: no such layout under `root`, no frames, or frames without a map.
        ValueError: an unknown split or sequence.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        past_offsets: Sequence[int] = (),
        all_frames: bool = False,
        sequences: Sequence[str] | None = None,
    ) -> None:
        check_split(split, SPLITS)
        if split == "test":
            raise DataError(
                f"{root}: expected a split with maps, train; the maps of MOTChallenge-STEP's test are secret"
            )
        base = _find_layout(Path(root), split)
        files = pair_labels(_pairs(base, split), root=base / "images" / split)
        if not files:
            raise DataError(f"{base / 'images' / split}: expected folders of frames, found no image")
        super().__init__(files, get_label_spec("motchallenge-step"), past_offsets=past_offsets, all_frames=all_frames)
        if sequences is not None:
            self.keep_sequences(sequences)

    def read_label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Class map and instance map of a panoptic map file."""
        return view_kitti_step(path)


def _find_layout(root: Path, split: str) -> Path:
    for base in search_roots(root):
        if (base / "images" / split).is_dir():
            return base
    raise DataError(
        f"{root}: expected MOTChallenge-STEP as images/{split}/0002/000001.jpg with "
        f"panoptic_maps/{split}/0002/000001.png, found no images/{split}"
    )


def _pairs(base: Path, split: str) -> Iterator[tuple[str, int, Path, Path]]:
    for folder in list_folders(base / "images" / split):
        match = _MOTS_NAME.fullmatch(folder.name)
        sequence_id = f"{int(match[1]):04d}" if match else folder.name
        maps = base / "panoptic_maps" / split / sequence_id
        inner = folder / "img1"
        for image in list_images(inner if inner.is_dir() else folder):
            yield sequence_id, frame_number(image), image, maps / f"{image.stem}.png"
