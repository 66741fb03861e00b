"""KITTI-STEP (Weber et al., arXiv 2102.11859) from disk: video panoptic maps of street scenes, frames keyed by number.

Official layout:  images/{split}/{seq:04d}/{frame:06d}.png and panoptic_maps/{split}/{seq:04d}/{frame:06d}.png
Hub layout:       video_sequence/{split}/{seq:06d}_{frame:06d}_leftImg8bit.png and ..._panoptic.png beside it
As downloaded:    KITTI's training/image_02/{seq:04d}/{frame:06d}.png (testing/... for test) and the official maps
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pix2seq_d.data.folder import frame_number, list_folders, list_images, search_roots
from pix2seq_d.data.formats import DataError, view_kitti_step
from pix2seq_d.data.labelled_videos import LabelledVideos, check_split, pair_labels
from pix2seq_d.labels import get_label_spec

SPLITS = ("train", "val", "test")
_IMAGE, _LABEL = "_leftImg8bit", "_panoptic"


class KittiStep(LabelledVideos):
    """KITTI-STEP videos with their panoptic maps; sequence ids are "0000" ... in either layout.

    The maps of the test split are not public: its frames have images and void maps, `has_labels` is False.

    Args:
        root: folder of one of these layouts, or the folder around it (kitti_out/, kitti-step/, ...).
        split: "train", "val" or "test".
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
        past_offsets: Sequence[int] = (-2, -1),
        all_frames: bool = False,
        sequences: Sequence[str] | None = None,
    ) -> None:
        check_split(split, SPLITS)
        folder, pairs = _find_layout(Path(root), split)
        files = pair_labels(pairs, root=folder)
        if not files:
            raise DataError(f"{folder}: expected the frames of KITTI-STEP's {split} split, found no image")
        super().__init__(files, get_label_spec("kitti-step"), past_offsets=past_offsets, all_frames=all_frames)
        if sequences is not None:
            self.keep_sequences(sequences)

    def read_label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Class map and instance map of a panoptic map file."""
        return view_kitti_step(path)


Pairs = Iterator[tuple[str, int, Path, Path | None]]  # sequence, frame number, image, label


def _find_layout(root: Path, split: str) -> tuple[Path, Pairs]:
    """The folder that holds the split's frames, in whichever layout, and its pairs."""
    for base in search_roots(root):
        if (base / "images" / split).is_dir():
            return base / "images" / split, _without_test_maps(_official_pairs(base, split), split)
        for hub in (base / "video_sequence" / split, base / split):
            if hub.is_dir() and any(p.stem.endswith(_IMAGE) for p in list_images(hub)):
                return hub, _without_test_maps(_hub_pairs(hub), split)
    if tracking := _find_tracking(root, split):
        return tracking
    raise DataError(
        f"{root}: expected KITTI-STEP as images/{split}/0002/000000.png with panoptic_maps/{split}/..., or as "
        f"video_sequence/{split}/000002_000000{_IMAGE}.png with ...{_LABEL}.png, found neither; "
        "get it with: python -m pix2seq_d download kitti-step"
    )


def _find_tracking(root: Path, split: str) -> tuple[Path, Pairs] | None:
    """The archives unpacked side by side: KITTI parts training from testing, the maps part training once more."""
    bases = search_roots(root)
    name = "testing/image_02" if split == "test" else "training/image_02"
    images = next((base / name for base in bases if (base / name).is_dir()), None)
    maps = next((b / "panoptic_maps" / split for b in bases if (b / "panoptic_maps" / split).is_dir()), None)
    if images is None or (maps is None and split != "test"):
        return None
    folders = [f for f in list_folders(images) if maps is None or (maps / f.name).is_dir()]
    return images, (
        (folder.name, frame_number(image), image, maps / folder.name / f"{image.stem}.png" if maps else None)
        for folder in folders
        for image in list_images(folder)
    )


def _without_test_maps(pairs: Pairs, split: str) -> Pairs:
    return ((key, number, image, None if split == "test" else label) for key, number, image, label in pairs)


def _official_pairs(base: Path, split: str) -> Pairs:
    for folder in list_folders(base / "images" / split):
        for image in list_images(folder):
            label = base / "panoptic_maps" / split / folder.name / f"{image.stem}.png"
            yield folder.name, frame_number(image), image, label


def _hub_pairs(folder: Path) -> Pairs:
    for image in list_images(folder):
        if image.stem.endswith(_IMAGE):
            stem = image.stem.removesuffix(_IMAGE)
            sequence = stem.rpartition("_")[0]
            sequence_id = f"{int(sequence):04d}" if sequence.isdecimal() else sequence
            yield sequence_id, frame_number(stem), image, folder / f"{stem}{_LABEL}.png"
