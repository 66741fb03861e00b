"""BDD100K panoptic segmentation (Yu et al. 2020, arXiv 1805.04687) from disk: still images with RGBA bitmasks.

Layout: images/10k/{split}/{name}.jpg and labels/pan_seg/bitmasks/{split}/{name}.png. A bitmask holds R = category,
1-40, 0 = void; G = truncated << 3 | occluded << 2 | crowd << 1 | ignored; 256 B + A = annotation id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pix2seq_d.data.folder import list_images, search_roots
from pix2seq_d.data.formats import DataError, read_png, write_png
from pix2seq_d.data.labelled_videos import LabelledVideos, check_split, pair_labels
from pix2seq_d.labels import get_label_spec

SPLITS = ("train", "val", "test")
CROWD, IGNORED = 2, 1  # bits of the flags
MAX_ANNOTATION_ID = 65535


class Bitmask(NamedTuple):
    """The planes of a bitmask.

    Attributes:
        categories: (H, W) uint8 ids as on disk, 0 = void.
        flags: (H, W) uint8, see CROWD and IGNORED.
        annotation_ids: (H, W) int32, the segment of every pixel.
    """

    categories: np.ndarray
    flags: np.ndarray
    annotation_ids: np.ndarray


def read_bitmask(path: str | os.PathLike[str]) -> Bitmask:
    """Reads a bitmask; raises DataError if the file is no 8-bit RGBA PNG, missing or broken."""
    rgba = read_png(path, kinds=("RGBA",))
    ids = rgba[..., 2].astype(np.int32) << 8 | rgba[..., 3]
    return Bitmask(rgba[..., 0].copy(), rgba[..., 1].copy(), ids)


def write_bitmask(path: str | os.PathLike[str], bitmask: Bitmask) -> None:
    """Writes a bitmask, the inverse of `read_bitmask`.

    Raises:
        ValueError: a path that does not end in .png, planes of different or no size, or values outside 0..255 and
            0..65535.
        OSError: the file cannot be written; nothing is left behind.
    """
    categories, flags, ids = bitmask
    if categories.ndim != 2 or not categories.size or not categories.shape == flags.shape == ids.shape:
        raise ValueError(f"{path}: expected three (H, W) planes, got {[plane.shape for plane in bitmask]}")
    for name, plane, largest in zip(Bitmask._fields, bitmask, (255, 255, MAX_ANNOTATION_ID)):
        if plane.min() < 0 or plane.max() > largest:
            raise ValueError(f"{path}: expected {name} in 0..{largest}, got {plane.min()}..{plane.max()}")
    write_png(path, np.stack([categories, flags, ids >> 8, ids & 255], axis=-1).astype(np.uint8))


class Bdd100k(LabelledVideos):
    """BDD100K's images with panoptic labels; each is a sequence of its own, called by its file name, with frame 0.

    Ignored segments are void, crowds have instance 0, and things have their annotation id as instance id.

    Args:
        root: folder of the layout above, or the folder around it (bdd100k/).
        split: "train" or "val"; the labels of "test" are not public.
        past_offsets: no image has a past; the clips carry that many absent maps.
        all_frames: clips carry (black) images of the past frames too.

    Raises:
        DataError: no such layout under `root`, no images, or images without a bitmask.
        ValueError: an unknown split.
    """

    stills = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        past_offsets: Sequence[int] = (),
        all_frames: bool = False,
    ) -> None:
        check_split(split, SPLITS)
        if split == "test":
            raise DataError(f"{root}: expected a split with labels, train or val; those of BDD100K's test are secret")
        images, labels = _find_layout(Path(root), split)
        files = pair_labels(_pairs(images, labels), root=images)
        if not files:
            raise DataError(f"{images}: expected the images of BDD100K's {split} split, found none")
        super().__init__(files, get_label_spec("bdd100k"), past_offsets=past_offsets, all_frames=all_frames)

    def read_label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Class map and instance map of a bitmask."""
        categories, flags, ids = read_bitmask(path)
        if categories.max() > self.label_spec.num_classes:
            raise DataError(f"{path}: expected categories 0..{self.label_spec.num_classes}, got {categories.max()}")
        class_map = self.label_spec.to_train_ids(categories)
        class_map[flags & IGNORED != 0] = self.label_spec.void_id
        return class_map, ids * (self.label_spec.is_thing(class_map) & (flags & CROWD == 0))


def _find_layout(root: Path, split: str) -> tuple[Path, Path]:
    for base in search_roots(root):
        images, labels = base / "images" / "10k" / split, base / "labels" / "pan_seg" / "bitmasks" / split
        if images.is_dir() and labels.is_dir():
            return images, labels
    raise DataError(
        f"{root}: expected BDD100K as images/10k/{split}/*.jpg with labels/pan_seg/bitmasks/{split}/*.png, found no "
        "such pair of folders"
    )


def _pairs(images: Path, labels: Path) -> Iterator[tuple[str, int, Path, Path]]:
    for image in list_images(images):
        yield image.stem, 0, image, labels / f"{image.stem}.png"
