"""Every dataset as its authors ship it, with two frames of eight pixels, and the predictions that inference writes.

Target: four pixels of stuff, three of one thing, one unlabelled. Prediction: three of the stuff, five of the thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pix2seq_d.build import READERS
from pix2seq_d.data.bdd100k import Bitmask, write_bitmask
from pix2seq_d.data.cityscapes_ids import write_instance_ids
from pix2seq_d.data.coco_format import write_panoptic_ids
from pix2seq_d.data.folder import list_sequences
from pix2seq_d.data.formats import write_image, write_kitti_step, write_png
from pix2seq_d.data.labelled_videos import LabelledVideos
from pix2seq_d.labels import LABEL_SPECS, LabelSpec

IMAGE = np.full((1, 8, 3), 90, np.uint8)
VOID = 255
# what stuff and thing are in the classes of a dataset
CLASSES = {
    "kitti-step": (0, 13),
    "motchallenge-step": (0, 4),
    "cityscapes": (0, 13),
    "cityscapes-step": (0, 13),
    "cityscapes-vps": (0, 13),
    "bdd100k": (6, 34),
    "coco": (100, 2),
    "camvid": (0, 8),
    "folder": (0, 1),
}
VPS_JSON = "panoptic_gt_val_city_vps.json"
CITY = ("frankfurt_000000_000294", "munster_000000_000019")
VPS = ("0001_0001_frankfurt_000000_000279", "0001_0002_frankfurt_000000_000284")


def target_maps(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The target of both frames: (1, 8) train ids and instances."""
    stuff, thing = CLASSES[name]
    instances = np.array([[0, 0, 0, 0, 1, 1, 1, 0]], np.int32)
    return np.array([[stuff] * 4 + [thing] * 3 + [VOID]], np.uint8), instances


def predicted_maps(name: str, *, thing_id: int) -> tuple[np.ndarray, np.ndarray]:
    """The prediction of a frame, in which the thing has that id."""
    stuff, thing = CLASSES[name]
    instances = np.array([[0] * 3 + [thing_id] * 5], np.int32)
    return np.array([[stuff] * 3 + [thing] * 5], np.uint8), instances if spec_of(name).thing_ids else 0 * instances


def spec_of(name: str) -> LabelSpec:
    """The classes of a dataset."""
    return LABEL_SPECS.get(name, LabelSpec("mine", ("floor", "box"), ((9, 9, 9), (200, 0, 0)), (1,)))


def read_dataset(root: Path, name: str) -> LabelledVideos:
    """Writes the dataset and gives its reader."""
    WRITERS[name](root, name)
    return READERS[name](root, "val")


def write_predictions(root: Path, folder: Path, name: str, *, ids: tuple[int, int] = (5, 7)) -> Path:
    """What inference writes of the dataset's images: the thing has the first id in the first frame, then the second."""
    frames = [(s.sequence_id, path.stem) for s in list_sequences(root / IMAGES_OF[name]) for path in s.paths]
    assert len(frames) == 2
    for thing_id, (sequence_id, stem) in zip(ids, frames):
        path = folder / "panoptic" / sequence_id / f"{stem}.png"
        write_kitti_step(path, *predicted_maps(name, thing_id=thing_id))
    (folder / "inference.json").write_text("{}")
    return folder


def _step(root: Path, name: str) -> None:
    for number in (0, 1):
        suffix = {"kitti-step": ".png", "motchallenge-step": ".jpg"}[name]
        write_image(root / f"images/val/0002/{number:06d}{suffix}", IMAGE)
        write_kitti_step(root / f"panoptic_maps/val/0002/{number:06d}.png", *target_maps(name))


def _cityscapes(root: Path, name: str) -> None:
    for image_id in CITY:
        city = image_id.partition("_")[0]
        write_image(root / f"leftImg8bit/val/{city}/{image_id}_leftImg8bit.png", IMAGE)
        path = root / f"gtFine/val/{city}/{image_id}_gtFine_instanceIds.png"
        write_instance_ids(path, *target_maps(name), LABEL_SPECS["cityscapes"])


def _panoptic(root: Path, name: str) -> None:
    """COCO's layout, or that of Cityscapes-VPS."""
    spec, (stuff, thing) = spec_of(name), CLASSES[name]
    known = spec.dataset_ids or tuple(range(spec.num_classes))
    segments = [{"id": 1 + k, "category_id": known[c], "iscrowd": 0} for k, c in enumerate((stuff, thing))]
    coco = name == "coco"
    stems = ("000000000009", "000000000139") if coco else VPS
    content: dict[str, list[object]] = {"images": [], "annotations": []}
    for stem in stems:
        image = f"val2017/{stem}.jpg" if coco else f"val/img/{stem}_newImg8bit.png"
        label = f"panoptic_val2017/{stem}.png" if coco else f"val/panoptic_video/{stem}_final_mask.png"
        write_image(root / image, IMAGE)
        write_panoptic_ids(root / label, np.array([[1] * 4 + [2] * 3 + [0]]))
        image_id = int(stem) if coco else stem
        content["images"].append({"id": image_id, "file_name": Path(image).name, "height": 1, "width": 8})
        entry = {"image_id": image_id, "file_name": Path(label).name, "segments_info": segments}
        content["annotations"].append(entry)
    (root / ("panoptic_val2017.json" if coco else VPS_JSON)).write_text(json.dumps(content))


def _bdd100k(root: Path, name: str) -> None:
    class_map, ids = target_maps(name)
    categories = LABEL_SPECS[name].to_dataset_ids(class_map, void=0).astype(np.uint8)
    for stem in ("a1-b2", "c3-d4"):
        write_image(root / f"images/10k/val/{stem}.jpg", IMAGE)
        bitmask = Bitmask(categories, np.zeros_like(categories), ids)
        write_bitmask(root / f"labels/pan_seg/bitmasks/val/{stem}.png", bitmask)


def _camvid(root: Path, name: str) -> None:
    for stem in ("0016E5_07959", "0016E5_07961"):
        write_image(root / f"val/images/{stem}.png", IMAGE)
        class_map = target_maps(name)[0]
        write_png(root / f"val/labels/{stem}.png", np.where(class_map == VOID, np.uint8(11), class_map))


def _folder(root: Path, name: str) -> None:
    spec = spec_of(name)
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.json").write_text(json.dumps({"class_names": spec.class_names, "things": ["box"]}))
    for number in (0, 1):
        write_image(root / f"val/images/walk/{number}.jpg", IMAGE)
        write_kitti_step(root / f"val/panoptic/walk/{number}.png", *target_maps(name))


WRITERS: dict[str, Callable[[Path, str], None]] = {
    "kitti-step": _step,
    "motchallenge-step": _step,
    "cityscapes": _cityscapes,
    "cityscapes-step": _cityscapes,
    "cityscapes-vps": _panoptic,
    "bdd100k": _bdd100k,
    "coco": _panoptic,
    "camvid": _camvid,
    "folder": _folder,
}
IMAGES_OF = {
    "kitti-step": "images/val",
    "motchallenge-step": "images/val",
    "cityscapes": "leftImg8bit/val",
    "cityscapes-step": "leftImg8bit/val",
    "cityscapes-vps": "val/img",
    "bdd100k": "images/10k/val",
    "coco": "val2017",
    "camvid": "val/images",
    "folder": "val/images",
}
