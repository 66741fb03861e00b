"""Cityscapes-VPS (Kim et al. 2020, arXiv 2006.11339) from disk: videos of 30 frames, every fifth of them labelled.

Layout: panoptic_gt_{split}_city_vps.json, the PNGs {split}/panoptic_video/{id}_{final_mask,gtFine_color}.png and the
images {split}/img/{id}_{newImg8bit,leftImg8bit}.png, or {split}/img_all/ under Cityscapes' own names. An id is
{video:04d}_{number:04d}_{city}_{seq:06d}_{frame:06d}; im_all_info_{split}_city_vps.json lists the frames between,
which have no labels. The authors' scripts fetch the images and make the JSON and panoptic_video/.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pix2seq_d.data.coco_format import PanopticIndex, is_instance, number_instances, read_coco_panoptic
from pix2seq_d.data.folder import frame_number, search_roots
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.labelled_videos import FrameFiles, LabelledVideos, check_split, labelled_neighbour
from pix2seq_d.labels import get_label_spec

SPLITS = ("train", "val", "test")
VIDEO_DIGITS, PREFIX = 4, len("0000_0000_")  # of an id


class CityscapesVps(LabelledVideos):
    """The labelled frames of Cityscapes-VPS; sequence ids are "0001" ..., frame numbers those of Cityscapes.

    Past offsets count labelled frames, not frame numbers: -1 is the frame five numbers earlier, as in VPQ's windows.
    An object has the same instance id in all frames of its video; ids count from 1.

    Args:
        root: folder of the layout above, or the folder around it.
        split: "train" or "val" with the JSON and panoptic_video/ made; the labels of "test" are not public.
        past_offsets: in labelled frames.
        all_frames: clips carry the images of the past frames too.

    Raises:
        DataError: no such layout under `root`, a JSON that is not the format's, or images or PNGs that are missing.
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
        if split == "test":
            raise DataError(f"{root}: expected a split with labels; those of Cityscapes-VPS' test are secret")
        base = _find_layout(Path(root), split)
        spec = get_label_spec("cityscapes-vps")
        self._index = PanopticIndex(base / _json_name(split), spec)
        if not len(self._index):
            raise DataError(f"{self._index.path}: expected annotations, found none")
        self._places = {name: k for k, name in enumerate(self._index.label_names)}
        super().__init__(_gather(base / split, self._index), spec, past_offsets=past_offsets, all_frames=all_frames)
        self._tracks = self._number_tracks()

    @property
    def json_path(self) -> Path:
        """The JSON of the split."""
        return self._index.path

    def read_label(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Class map and instance map of a PNG of the split."""
        rows = self._index.rows(self._places[path.name])
        tracks = self._tracks[path.name[:VIDEO_DIGITS]]
        return read_coco_panoptic(path, rows, number_instances(rows, self.label_spec, tracks))

    def past_frame(self, sequence_id: str, frame_id: int, offset: int) -> int | None:
        """Number of the labelled frame `offset` places away in the video, None where there is no such frame."""
        return labelled_neighbour(self.frame_ids(sequence_id), frame_id, offset)

    def _number_tracks(self) -> dict[str, np.ndarray]:
        """Segment ids of the objects of every video, ascending."""
        ids: dict[str, list[np.ndarray]] = {}
        for name, place in self._places.items():
            rows = self._index.rows(place)
            ids.setdefault(name[:VIDEO_DIGITS], []).append(rows.ids[is_instance(rows, self.label_spec)])
        return {video: np.unique(np.concatenate(found)) for video, found in ids.items()}


def _json_name(split: str) -> str:
    return f"panoptic_gt_{split}_city_vps.json"


def _find_layout(root: Path, split: str) -> Path:
    for base in search_roots(root):
        if (base / _json_name(split)).is_file() and (base / split / "panoptic_video").is_dir():
            return base
    raise DataError(
        f"{root}: expected Cityscapes-VPS as {_json_name(split)} with {split}/panoptic_video/ and {split}/img/, found "
        "no such JSON with its folder; the scripts of the dataset's authors make both"
    )


def _gather(folder: Path, index: PanopticIndex) -> dict[str, dict[int, FrameFiles]]:
    files: dict[str, dict[int, FrameFiles]] = {}
    original = not (folder / "img").is_dir()
    for image_name, label_name in zip(index.image_names, index.label_names):
        stem = label_name.removesuffix(".png").removesuffix("_final_mask").removesuffix("_gtFine_color")
        video = label_name[:VIDEO_DIGITS]
        if not video.isdecimal():
            raise DataError(f"{index.path}: expected PNGs called like 0001_0001_frankfurt_..., got {label_name}")
        image = folder / "img_all" / f"{stem[PREFIX:]}_leftImg8bit.png" if original else folder / "img" / image_name
        label = folder / "panoptic_video" / label_name
        for path in (image, label):
            if not path.is_file():
                raise DataError(f"{path}: expected a file that {index.path.name} names, found none")
        pair = FrameFiles(image, label)
        if files.setdefault(video, {}).setdefault(frame_number(stem), pair) != pair:
            raise DataError(f"{index.path}: expected one PNG for each frame of video {video}, got two: {label_name}")
    return files
