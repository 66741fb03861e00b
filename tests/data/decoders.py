"""Every decoder that must survive broken files.

A new one is one line of DECODERS: how a good file is written, and how it is read. `Decoder.write` gets an empty folder
and returns the file that is to be broken; files beside it stay whole.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import SIZE
from PIL import Image

from pix2seq_d.data.archive import unpack_zip
from pix2seq_d.data.bdd100k import Bitmask, read_bitmask, write_bitmask
from pix2seq_d.data.cityscapes_ids import (
    decode_ids,
    read_instance_ids,
    read_panoptic_parts,
    read_panoptic_png,
    write_instance_ids,
    write_panoptic_parts,
)
from pix2seq_d.data.cityscapes_vps import CityscapesVps
from pix2seq_d.data.coco import Coco
from pix2seq_d.data.coco_format import SegmentRows, read_coco_panoptic, segments_info, write_json, write_panoptic_ids
from pix2seq_d.data.formats import (
    DataError,
    read_image,
    read_kitti_step,
    read_label_map,
    read_png,
    write_image,
    write_kitti_step,
)
from pix2seq_d.data.labelled_folder import read_own_map
from pix2seq_d.data.labels_json import read_labels_json, write_labels_json
from pix2seq_d.data.rle import decode_mask, encode_segments
from pix2seq_d.data.segments import find_segments
from pix2seq_d.data.submission_formats import read_targets
from pix2seq_d.data.submission_readers import PredictedMaps, ScalabelMasks, read_vps_predictions
from pix2seq_d.labels import LabelSpec, get_label_spec

CAMVID, KITTI, CITY, VPS, COCO = map(get_label_spec, ("camvid", "kitti-step", "cityscapes", "cityscapes-vps", "coco"))
BDD = get_label_spec("bdd100k")


@dataclass(frozen=True)
class Decoder:
    """A function that reads a file.

    Attributes:
        name: for the report.
        write: writes a good file into an empty folder and returns its path.
        read: reads that path; may raise DataError and nothing else.
    """

    name: str
    write: Callable[[Path], Path]
    read: Callable[[Path], Any]


def _array(*shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape, dtype=np.uint8)


def _image(folder: Path, name: str) -> Path:
    write_image(folder / name, _array(*SIZE, 3))
    return folder / name


def _kitti_step(folder: Path, classes: int = 19) -> Path:
    write_kitti_step(folder / "a.png", _array(*SIZE, high=classes), _array(*SIZE).astype(np.int32) * 9)
    return folder / "a.png"


def _label_map(folder: Path) -> Path:
    write_image(folder / "a.png", _array(*SIZE, high=12))
    return folder / "a.png"


def _png16(folder: Path) -> Path:
    Image.fromarray(_array(*SIZE).astype(np.uint16) * 200).save(folder / "a.png")
    return folder / "a.png"


def _palette(folder: Path) -> Path:
    image = Image.fromarray(_array(*SIZE, high=11)).convert("P")
    image.save(folder / "a.png", bits=4)
    return folder / "a.png"


def _labels(folder: Path) -> Path:
    write_labels_json(folder / "labels.json", get_label_spec("cityscapes"))
    return folder / "labels.json"


def _bitmask(folder: Path) -> Path:
    write_bitmask(folder / "a.png", Bitmask(_array(*SIZE, high=41), _array(*SIZE, high=16), _array(*SIZE) * 250))
    return folder / "a.png"


CITY_IDS = np.array([7, 21, 24, 26000, 26001, 33999], np.int32)
CITY_ROWS = SegmentRows(CITY_IDS, decode_ids(CITY_IDS, CITY)[0], CITY_IDS == 24)
COCO_ROWS = SegmentRows(CITY_IDS, np.arange(6, dtype=np.uint8), CITY_IDS == 24)


def _panoptic_ids(folder: Path) -> Path:
    write_panoptic_ids(folder / "a.png", CITY_IDS[_array(*SIZE, high=6)])
    return folder / "a.png"


def _instance_ids(folder: Path) -> Path:
    write_instance_ids(folder / "a.png", _array(*SIZE, high=19), _array(*SIZE).astype(np.int32), CITY)
    return folder / "a.png"


def _panoptic_parts(folder: Path) -> Path:
    write_panoptic_parts(folder / "a.tif", _array(*SIZE, high=19), _array(*SIZE).astype(np.int32), CITY)
    return folder / "a.tif"


def _panoptic_json(path: Path, spec: LabelSpec, stems: Sequence[str]) -> Path:
    """The JSON of two images, and their files where the readers of COCO and Cityscapes-VPS look for them."""
    ids = [k + 1 for k in range(6)]
    categories = (spec.dataset_ids or range(spec.num_classes))[:6]
    found = find_segments(np.array([ids]))
    segments = segments_info(found, np.array(ids), np.array(categories))
    images, labels = {"coco": ("val2017", "panoptic_val2017")}.get(spec.name, ("val/img", "val/panoptic_video"))
    for stem in stems:
        write_panoptic_ids(path.parent / labels / f"{stem}.png", np.array([ids]))
        write_image(path.parent / images / f"{stem}.jpg", np.zeros((1, 6, 3), np.uint8))
    content = {
        "images": [{"id": s, "file_name": f"{s}.jpg", "height": 1, "width": 6} for s in stems],
        "annotations": [{"image_id": s, "file_name": f"{s}.png", "segments_info": segments} for s in stems],
    }
    write_json(path, content)
    return path


def _coco_json(folder: Path) -> Path:
    return _panoptic_json(folder / "panoptic_val2017.json", COCO, ("000000000009", "000000000139"))


def _vps_json(folder: Path) -> Path:
    name = "panoptic_gt_val_city_vps.json"
    return _panoptic_json(folder / name, VPS, ("0001_0001_a_000000_000004", "0001_0002_a_000000_000009"))


def _read_all(reader: type[Coco | CityscapesVps], path: Path) -> tuple[np.ndarray, ...]:
    """Every map of a dataset whose JSON is broken."""
    dataset = reader(path.parent, "val")
    maps = [dataset.read_maps(key, number) for key in dataset.sequence_ids for number in dataset.frame_ids(key)]
    return tuple(m for pair in maps for m in pair)


def _rle(folder: Path) -> Path:
    (folder / "a.txt").write_text(dict(encode_segments(_array(*SIZE, high=2)))[1])
    return folder / "a.txt"


def _read_rle(path: Path) -> np.ndarray:
    """The string of a file; errors of strings get the name of the file, as whoever reads such files would do."""
    try:
        return decode_mask(path.read_bytes().decode("latin-1"), SIZE)
    except ValueError as error:
        if str(error).startswith("expected an RLE string"):
            raise DataError(f"{path}: {error}") from None
        raise


def _scalabel(folder: Path) -> Path:
    masks = dict(encode_segments(_array(*SIZE, high=3)))
    labels = [
        {"id": str(k), "category": BDD.class_names[k], "rle": {"counts": text, "size": list(SIZE)}}
        for k, text in masks.items()
    ]
    write_json(folder / "pan_seg.json", [{"name": f"{k}.jpg", "labels": labels} for k in range(2)])
    return folder / "pan_seg.json"


def _read_predictions(maps: PredictedMaps) -> np.ndarray:
    """Every map, one behind another: a damaged JSON may give them other sizes, or none."""
    found = [m.ravel() for name in maps.files for m in maps.read(name, SIZE) if m is not None]
    return np.concatenate([[1], *found])[None]


def _vps_predictions(folder: Path) -> Path:
    """pred.json of two frames, beside the ground truth and the PNGs."""
    stems, ids = ("0001_0001_a_000000_000004", "0001_0002_a_000000_000009"), [k + 1 for k in range(6)]
    segments = segments_info(find_segments(np.array([ids])), np.array(ids), np.arange(6))
    for stem in stems:
        write_panoptic_ids(folder / "pan_pred" / f"{stem}.png", np.array([ids]))
    write_json(folder / "truth.json", {"images": [{"id": stem, "file_name": f"{stem}.png"} for stem in stems]})
    write_json(folder / "pred.json", {"annotations": [{"segments_info": segments} for _ in stems]})
    return folder / "pred.json"


def _zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for k, kind in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)):
            archive.writestr(f"data/{k}/a.png", _array(50, high=9).tobytes(), kind)
    return folder / "a.zip"


def _unpack(path: Path) -> np.ndarray:
    """The contents of an archive, one behind another; nothing lies outside of its folder or is left of a bad one."""
    try:
        unpack_zip(path, path.parent / "out")
        return np.frombuffer(b"1" + b"".join(p.read_bytes() for p in (path.parent / "out").rglob("*.png")), "u1")[None]
    finally:
        shutil.rmtree(path.parent / "out", ignore_errors=True)
        assert list(path.parent.iterdir()) == [path]


DECODERS = [
    Decoder("read_image PNG", lambda folder: _image(folder, "a.png"), read_image),
    Decoder("read_image JPEG", lambda folder: _image(folder, "a.jpg"), read_image),
    Decoder("read_image BMP", lambda folder: _image(folder, "a.bmp"), read_image),
    Decoder("read_image WebP", lambda folder: _image(folder, "a.webp"), read_image),
    Decoder("read_png 16 bits", _png16, lambda path: read_png(path, kinds=("greyscale",), bits=(16,))),
    Decoder("read_png RGBA", _kitti_step, lambda path: read_png(path, kinds=("RGB", "RGBA"))),
    Decoder("read_kitti_step", _kitti_step, read_kitti_step),
    Decoder("read_label_map", _label_map, lambda path: read_label_map(path, CAMVID)),
    Decoder("read_own_map RGB", _kitti_step, lambda path: read_own_map(path, KITTI)),
    Decoder("read_own_map palette", _palette, lambda path: read_own_map(path, KITTI)),
    Decoder("read_labels_json", _labels, read_labels_json),
    Decoder("read_bitmask", _bitmask, read_bitmask),
    Decoder("read_instance_ids", _instance_ids, lambda path: read_instance_ids(path, CITY)),
    Decoder("read_panoptic_parts", _panoptic_parts, lambda path: read_panoptic_parts(path, CITY)),
    Decoder("read_panoptic_png", _panoptic_ids, lambda path: read_panoptic_png(path, CITY_ROWS, CITY)),
    Decoder("read_coco_panoptic", _panoptic_ids, lambda path: read_coco_panoptic(path, COCO_ROWS, CITY_IDS)),
    Decoder("JSON of COCO", _coco_json, lambda path: _read_all(Coco, path)),
    Decoder("JSON of Cityscapes-VPS", _vps_json, lambda path: _read_all(CityscapesVps, path)),
    Decoder("read_targets", _vps_json, read_targets),
    Decoder("JSON of Scalabel", _scalabel, lambda path: _read_predictions(ScalabelMasks(path, BDD))),
    Decoder(
        "pred.json of Cityscapes-VPS",
        _vps_predictions,
        lambda path: _read_predictions(read_vps_predictions(path, path.with_name("truth.json"), VPS)),
    ),
    Decoder("RLE string", _rle, _read_rle),
    Decoder("unpack_zip", _zip, _unpack),
]
