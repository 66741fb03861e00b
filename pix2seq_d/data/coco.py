"""COCO panoptic (Kirillov et al. 2019, arXiv 1801.00868) from disk: 118,000 still images, opened one by one.

Layout: panoptic_{split}2017.json and the PNGs panoptic_{split}2017/{id:012d}.png, both in annotations/ or in the root,
and the images {split}2017/{id:012d}.jpg, in the root or in images/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pix2seq_d.data.coco_format import PanopticIndex, number_instances, read_coco_panoptic
from pix2seq_d.data.folder import natural_key
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.labelled_videos import FrameFiles, LabelledVideos, check_split
from pix2seq_d.labels import get_label_spec

SPLITS = ("train", "val", "test")


class Coco(LabelledVideos):
    """COCO's images with panoptic labels; each is a sequence of its own, called like its PNG, with frame number 0.

    The JSON is read once, the files only when they are asked for; that they are there is not checked before. Instance
    ids count the things of an image by ascending segment id; crowds have instance 0.

    Args:
        root: folder of the layout above.
        split: "train" or "val"; the labels of "test" are not public.
        past_offsets: no image has a past; the clips carry that many absent maps.
        all_frames: clips carry (black) images of the past frames too.

    Raises:
        DataError: no such layout under `root`, or a JSON that is not COCO's panoptic.
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
            raise DataError(f"{root}: expected a split with labels, train or val; those of COCO's test are secret")
        spec = get_label_spec("coco")
        super().__init__({}, spec, past_offsets=past_offsets, all_frames=all_frames)
        images, labels = _find_layout(Path(root), split)
        self._index = PanopticIndex(labels.with_suffix(".json"), spec)
        if not len(self._index):
            raise DataError(f"{self._index.path}: expected annotations, found none")
        files = _StillImages(self._index, images, labels)
        if len(files) < len(self._index):
            raise DataError(f"{self._index.path}: expected PNGs of different names, found two of one name")
        self._files, self._places = files, files.places
        self._clips = [(name, 0) for name in files]

    def read_label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Class map and instance map of a PNG of the split."""
        rows = self._index.rows(self._places[path.stem])
        return read_coco_panoptic(path, rows, number_instances(rows, self.label_spec))


class _StillImages(Mapping[str, Mapping[int, FrameFiles]]):
    """The files of every image by the name of its PNG, in natural order; paths are made when they are asked for."""

    def __init__(self, index: PanopticIndex, images: Path, labels: Path) -> None:
        names = [Path(name).stem for name in index.label_names]
        self.places = {names[k]: k for k in sorted(range(len(names)), key=lambda k: natural_key(names[k]))}
        self._index, self._images, self._labels = index, images, labels

    def __getitem__(self, name: str) -> Mapping[int, FrameFiles]:
        place = self.places[name]
        image = self._images / Path(self._index.image_names[place]).with_suffix(".jpg")
        return {0: FrameFiles(image, self._labels / self._index.label_names[place])}

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def _find_layout(root: Path, split: str) -> tuple[Path, Path]:
    """The folders of the images and of the PNGs, beside which the JSON lies."""
    images = [p for p in (root / f"{split}2017", root / "images" / f"{split}2017") if p.is_dir()]
    name = f"panoptic_{split}2017"
    labels = [p for p in (root / "annotations" / name, root / name) if p.is_dir() and p.with_suffix(".json").is_file()]
    if not images or not labels:
        raise DataError(
            f"{root}: expected COCO as {split}2017/ with annotations/{name}.json and annotations/{name}/ (unzip "
            f"{name}.zip), found no {'images' if not images else 'panoptic labels'}"
        )
    return images[0], labels[0]
