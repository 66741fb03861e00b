"""Cityscapes (Cordts et al., arXiv 1604.01685) from disk, as csDownload unpacks it; the encodings: cityscapes_ids.py.

Images   leftImg8bit/{split}/{city}/{city}_{seq:06d}_{frame:06d}_leftImg8bit.png
Labels   gtFine/..._gtFine_instanceIds.png, gtFine/cityscapes_panoptic_{split}[_trainId].json with the folder of that
         name, gtFinePanopticParts/..._gtFinePanopticParts.tif, gtCoarse/..._gtCoarse_instanceIds.png
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pix2seq_d.data.archive import find_zips
from pix2seq_d.data.cityscapes_ids import (
    Maps,
    check_spec,
    read_instance_ids,
    read_panoptic_parts,
    read_panoptic_png,
)
from pix2seq_d.data.coco_format import PanopticIndex
from pix2seq_d.data.folder import list_folders, search_roots
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.labelled_videos import LabelledVideos, check_split, pair_labels
from pix2seq_d.labels import LABEL_SPECS, LabelSpec

SPLITS = ("train", "val", "test", "train_extra")
LABELS = ("auto", "instance_ids", "panoptic", "panoptic_parts", "coarse")
# archives of cityscapes-dataset.com -> a folder that each gives; not leftImg8bit_sequence_trainvaltest.zip, 324 GB of
# images of the past, at which training does not look
ZIPS = {
    "leftImg8bit_trainvaltest.zip": "leftImg8bit/train",
    "gtFine_trainvaltest.zip": "gtFine/train",
    "gtFinePanopticParts*.zip": "gtFinePanopticParts",
    "leftImg8bit_trainextra.zip": "leftImg8bit/train_extra",
    "gtCoarse.zip": "gtCoarse/train",
}
_COARSE_ZIPS = ("leftImg8bit_trainextra.zip", "gtCoarse.zip")
_IMAGE, _PANOPTIC = "_leftImg8bit.png", "_gtFine_panoptic.png"
_NAME = re.compile(r"(.+_[0-9]+)_([0-9]+)")  # {city}_{seq} and {frame}


class Cityscapes(LabelledVideos):
    """Cityscapes' frames with their panoptic maps; sequence ids are "aachen_000000" ..., a frame's number its last one.

    Only the 20th of a snippet's 30 frames is labelled. Where leftImg8bit_sequence/ is there and `all_frames` asks
    for them, clips carry the images of the frames before; these have no maps: void, not `present`.

    Args:
        root: folder that holds leftImg8bit/ and the folders of labels, or one around them.
        split: "train", "val", "test" or "train_extra". The labels of test are not public (gtFine has dummies): its
            maps are void, `has_labels` is False.
        past_offsets: in frame numbers.
        all_frames: clips carry the images of the past frames too.
        labels: where the maps come from: "instance_ids" (gtFine), "panoptic" (class ids before train ids),
            "panoptic_parts" or "coarse" (gtCoarse); "auto" takes the first of these that is there, but coarse labels
            for train_extra alone, which has no others. The first three hold the same maps.
        spec: `LABEL_SPECS["cityscapes"]` (8 things) or `LABEL_SPECS["cityscapes-step"]` (person and car), or another
            one with Cityscapes' ids as `dataset_ids`.

    Raises:
        DataError: no such layout under `root`, no frames, no such labels, or frames without a label file.
        ValueError: an unknown split, labels that the split does not have, or a spec without dataset ids.
    """

    stills = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        past_offsets: Sequence[int] = (),
        all_frames: bool = False,
        labels: str = "auto",
        spec: LabelSpec = LABEL_SPECS["cityscapes"],
    ) -> None:
        check_spec(spec)
        _check_choice(split, labels)
        root = Path(root)
        images = _find_images(root, split)
        found = None if split == "test" else _find_labels(root, split, labels)
        exists = found.files.__contains__ if found else Path.is_file
        files = pair_labels(_pairs(images, found), root=images, exists=exists)
        if not files:
            raise DataError(
                f"{images}: expected the frames of the {split} split, found none; {how_to_get(root, split)}"
            )
        super().__init__(files, spec, past_offsets=past_offsets, all_frames=all_frames)
        self._labels = found
        self._snippets = next((f / split for f in _folders(root, "leftImg8bit_sequence")), None)

    def read_label(self, path: Path) -> Maps:
        """Class map and instance map of a label file of the kind that was found."""
        assert self._labels is not None, "only frames with a label file are asked for"
        return self._labels.read(path, self.label_spec)

    def past_image(self, sequence_id: str, frame_id: int, offset: int) -> Path | None:
        """As in LabelledVideos, with the unlabelled frames of leftImg8bit_sequence/ where they are there."""
        labelled = super().past_image(sequence_id, frame_id, offset)
        if labelled is not None or self._snippets is None:
            return labelled
        city = sequence_id.rpartition("_")[0]
        path = self._snippets / city / f"{sequence_id}_{frame_id + offset:06d}{_IMAGE}"
        return path if path.is_file() else None


def zips_of(splits: Collection[str]) -> dict[str, str]:
    """The part of ZIPS that holds the splits."""
    coarse, fine = "train_extra" in splits, bool(set(splits) - {"train_extra"})
    return {name: folder for name, folder in ZIPS.items() if (coarse if name in _COARSE_ZIPS else fine)}


def how_to_get(root: Path, split: str = "train") -> str:
    """What to do where the files of a split are not under `root`, for the end of an error message.

    Archives that lie there or beside it are named where they would give a folder of the split that is missing. Training
    has unpacked them before it reads, unless a part of them was there already.
    """
    missing = [p for p, folder in ZIPS.items() if not (root / folder.partition("/")[0] / split).is_dir()]
    if zips := [str(archive) for pattern in missing for archive in find_zips(root, pattern)]:
        return f"unpack {', '.join(zips)} in {root} first"
    archives = "leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip"
    if split == "train_extra":
        archives = "leftImg8bit_trainextra.zip gtCoarse.zip"
    return (
        f"get it with: pip install cityscapesscripts; csDownload -d {root} {archives}; training unpacks these, "
        "or unpack them there"
    )


def _check_choice(split: str, labels: str) -> None:
    check_split(split, SPLITS)
    if labels not in LABELS:
        raise ValueError(f"expected labels to be one of {', '.join(LABELS)}, got {labels!r}")
    if split == "test" and labels != "auto":
        raise ValueError(f'labels: expected "auto" for the test split, whose labels are not public, got {labels!r}')
    if split == "train_extra" and labels not in ("auto", "coarse"):
        raise ValueError(f'labels: expected "auto" or "coarse" for train_extra, which has no others, got {labels!r}')


# Images


def _folders(root: Path, name: str) -> Iterator[Path]:
    """The folders called `name` in `root`, and in the folders of it (an archive unpacked into a folder of its own)."""
    yield from (base / name for base in search_roots(root) if (base / name).is_dir())


def _find_images(root: Path, split: str) -> Path:
    for folder in _folders(root, "leftImg8bit"):
        if (folder / split).is_dir():
            return folder / split
    raise DataError(
        f"{root}: expected Cityscapes as leftImg8bit/{split}/..., found no such folder; {how_to_get(root, split)}"
    )


def _walk(folder: Path, suffix: str) -> Iterator[tuple[Path, str]]:
    """Folder of the city and image id (name without `suffix`) of every such file: one listing per city."""
    for city in list_folders(folder):
        yield from ((city, name.removesuffix(suffix)) for name in _list(city, suffix))


def _list(folder: Path, suffix: str) -> list[str]:
    try:
        return [n for n in os.listdir(folder) if n.endswith(suffix) and not n.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: expected a readable folder ({error.strerror})") from None


def _pairs(images: Path, labels: _Labels | None) -> Iterator[tuple[str, int, Path, Path | None]]:
    for folder, stem in _walk(images, _IMAGE):
        image = folder / f"{stem}{_IMAGE}"
        match = _NAME.fullmatch(stem)
        if match is None:
            raise DataError(f"{image}: expected a name like aachen_000000_000019{_IMAGE}, found other fields")
        yield match[1], int(match[2]), image, labels.place(folder.name, stem) if labels else None


# Labels


class _Kind(NamedTuple):
    """Labels with one folder per city."""

    folder: str
    suffix: str
    read: Callable[[Path, LabelSpec], Maps]


_KINDS = {
    "instance_ids": _Kind("gtFine", "_gtFine_instanceIds.png", read_instance_ids),
    "panoptic_parts": _Kind("gtFinePanopticParts", "_gtFinePanopticParts.tif", read_panoptic_parts),
    "coarse": _Kind("gtCoarse", "_gtCoarse_instanceIds.png", read_instance_ids),
}


@dataclass(frozen=True)
class _CityLabels:
    """The label files of one kind and split."""

    folder: Path
    kind: _Kind
    files: frozenset[Path]  # those that are there

    def place(self, city: str, image_id: str) -> Path:
        return self.folder / city / f"{image_id}{self.kind.suffix}"

    def read(self, path: Path, spec: LabelSpec) -> Maps:
        return self.kind.read(path, spec)


@dataclass(frozen=True)
class _PanopticLabels:
    """The panoptic PNGs of one split, all in one folder, and their JSON."""

    folder: Path
    index: PanopticIndex
    places: dict[str, int]  # in the index, by file name
    files: frozenset[Path]

    def place(self, city: str, image_id: str) -> Path:
        return self.folder / f"{image_id}{_PANOPTIC}"

    def read(self, path: Path, spec: LabelSpec) -> Maps:
        if path.name not in self.places:
            raise DataError(f"{path}: expected an entry in {self.index.path.name}, found none")
        return read_panoptic_png(path, self.index.rows(self.places[path.name]), spec)


_Labels = _CityLabels | _PanopticLabels


def _find_labels(root: Path, split: str, labels: str) -> _Labels:
    wanted = [labels]
    if labels == "auto":
        wanted = ["coarse"] if split == "train_extra" else ["instance_ids", "panoptic", "panoptic_parts"]
    for name in wanted:
        found = _find_panoptic(root, split) if name == "panoptic" else _find_in_cities(root, split, _KINDS[name])
        if found is not None:
            return found
    places = {name: f"{kind.folder}/{split}/*/*{kind.suffix}" for name, kind in _KINDS.items()}
    places["panoptic"] = f"gtFine/cityscapes_panoptic_{split}.json with the folder of that name"
    expected = " or ".join(places[name] for name in wanted)
    raise DataError(
        f"{root}: expected the labels of Cityscapes' {split} split as {expected}, found none; {how_to_get(root, split)}"
    )


def _find_in_cities(root: Path, split: str, kind: _Kind) -> _CityLabels | None:
    for folder in (found / split for found in _folders(root, kind.folder)):
        walk = _walk(folder, kind.suffix) if folder.is_dir() else ()
        if files := frozenset(city / f"{image_id}{kind.suffix}" for city, image_id in walk):
            return _CityLabels(folder, kind, files)
    return None


def _find_panoptic(root: Path, split: str) -> _PanopticLabels | None:
    for suffix, categories in (("", "cityscapes"), ("_trainId", "cityscapes-vps")):
        for folder in (found / f"cityscapes_panoptic_{split}{suffix}" for found in _folders(root, "gtFine")):
            path = folder.with_suffix(".json")
            if folder.is_dir() and path.is_file():
                index = PanopticIndex(path, LABEL_SPECS[categories])
                places = {name: k for k, name in enumerate(index.label_names)}
                return _PanopticLabels(folder, index, places, frozenset(folder / n for n in _list(folder, _PANOPTIC)))
    return None
