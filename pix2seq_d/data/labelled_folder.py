"""The user's own labelled images and videos: one layout of folders, the classes in labels.json (docs/own_dataset.md).

ROOT/labels.json
ROOT/{split}/images/{video}/{frame}.png    or .jpg, .jpeg, .bmp, .webp; still images lie in images/ itself
ROOT/{split}/panoptic/{video}/{frame}.png  KITTI-STEP encoding, or class ids alone
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pix2seq_d.data.folder import frame_number, list_folders, list_images, natural_key
from pix2seq_d.data.formats import IMAGE_SUFFIXES, DataError, check_class_ids, png_header, read_png
from pix2seq_d.data.labelled_videos import LabelledVideos, pair_labels
from pix2seq_d.data.labels_json import LABELS_NAME, read_labels_json
from pix2seq_d.labels import LabelSpec

IMAGES, MAPS = "images", "panoptic"


class LabelledFolder(LabelledVideos):
    """Labelled videos, or labelled still images: each of these is a video of one frame, called by its name.

    The split's folder is ROOT/{split}. Where no folder of ROOT holds images/, ROOT itself does: then "val" is the last
    tenth of the videos (or stills) in natural order, at least one, and "train" the others.

    Args:
        root: folder with labels.json.
        split: name of a folder in `root`; "train" or "val" where there are none.
        past_offsets: in frame numbers; where the numbers have a gap the past frame is absent.
        all_frames: clips carry the images of the past frames too.

    Raises:
        DataError: a broken labels.json, another layout, no frames, frames without a map.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        past_offsets: Sequence[int] = (),
        all_frames: bool = False,
    ) -> None:
        spec = read_labels_json(Path(root) / LABELS_NAME)
        base, whole = _find_split(Path(root), split)
        files = pair_labels(_pairs(base), root=base / IMAGES)
        if not files:
            raise DataError(
                f"{base / IMAGES}: expected images ({', '.join(IMAGE_SUFFIXES)}), or folders of frames, found none"
            )
        super().__init__(files, spec, past_offsets=past_offsets, all_frames=all_frames)
        if whole:
            self.keep_sequences(_held_out(base, self.sequence_ids, split))

    def read_label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Class map and instance map of a map file."""
        return read_own_map(path, self.label_spec)


def read_own_map(path: str | os.PathLike[str], spec: LabelSpec) -> tuple[np.ndarray, np.ndarray]:
    """Reads a map of one's own: KITTI-STEP encoding (8-bit RGB), or class ids alone (8-bit greyscale, or a palette).

    Class ids are train ids or, where the spec lists them, its dataset ids. A map of class ids alone has no instances:
    its things are crowd, which trains their class and not their instances.

    Returns:
        class_map (H, W) uint8, 255 = void, and instance_map (H, W) int32, 0 = no instance.

    Raises:
        DataError: not such a PNG, missing or broken, or an id that is neither a class of `spec` nor 255.
    """
    header = png_header(path)
    bits = (1, 2, 4, 8) if header is not None and header.kind == "palette" else (8,)
    samples = read_png(path, kinds=("RGB", "greyscale", "palette"), bits=bits)
    if samples.ndim == 3:
        class_map, instance_map = samples[..., 0].copy(), samples[..., 1].astype(np.int32) * 256 + samples[..., 2]
    else:
        class_map, instance_map = samples, np.zeros(samples.shape, np.int32)
    if spec.dataset_ids:
        return spec.to_train_ids(class_map), instance_map
    check_class_ids(path, class_map, spec)
    return class_map, instance_map


def _find_split(root: Path, split: str) -> tuple[Path, bool]:
    """The folder with the split's images/ and panoptic/, and whether it holds the other splits too."""
    splits = [folder.name for folder in list_folders(root) if (folder / IMAGES).is_dir()]
    if split in splits:
        return root / split, False
    if splits:
        raise DataError(f"{root}: expected {split}/{IMAGES}, found only {', '.join(splits)} with {IMAGES} in them")
    if not (root / IMAGES).is_dir():
        raise DataError(
            f"{root}: expected {split}/{IMAGES} with {split}/{MAPS}, or {IMAGES} with {MAPS}, found neither"
        )
    if split not in ("train", "val"):
        raise DataError(f"{root}: expected the split train or val where no folder of it holds {IMAGES}, got {split!r}")
    return root, True


def _pairs(base: Path) -> Iterator[tuple[str, int, Path, Path]]:
    """(video, frame number, image, map) of every image."""
    folders, stills = list_folders(base / IMAGES), list_images(base / IMAGES)
    if folders and stills:
        both = f"{stills[0].name} and {folders[0].name}/"
        raise DataError(f"{base / IMAGES}: expected still images or folders of frames, found both ({both})")
    for image in stills:
        yield image.stem, 0, image, base / MAPS / f"{image.stem}.png"
    for folder in folders:
        frames = list_images(folder)
        if not frames:
            raise DataError(f"{folder}: expected the frames of a video, found no image")
        for image in frames:
            yield folder.name, frame_number(image), image, base / MAPS / folder.name / f"{image.stem}.png"


def _held_out(root: Path, names: Sequence[str], split: str) -> Sequence[str]:
    """The names of the split: the last tenth is val."""
    if len(names) < 2:
        raise DataError(
            f"{root}: expected two videos or stills or more, to keep one for validation, found {len(names)}; "
            f"or make train/{IMAGES} and val/{IMAGES}"
        )
    ordered = sorted(names, key=natural_key)
    count = max(1, len(ordered) // 10)
    return ordered[-count:] if split == "val" else ordered[:-count]
