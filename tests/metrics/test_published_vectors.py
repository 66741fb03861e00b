"""Maps and scores that other evaluators publish, read from the folder named by PIX2SEQ_D_TEST_DATA."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2seq_d.metrics import PanopticQuality, SegmentationTrackingQuality

DATA = os.environ.get("PIX2SEQ_D_TEST_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="PIX2SEQ_D_TEST_DATA names no folder with the vectors")

# deeplab2 (Apache-2.0): colours of the predicted classes, class of every ground-truth value
COLOURS = [(0, 0, 0), (0, 0, 255), (255, 0, 0), (0, 255, 0), (255, 0, 255), (0, 255, 255), (255, 255, 0)]
GROUND_TRUTH = {
    "bird": ("bird_gt.png", {92: 5, 176: 3, 255: 4}),
    "cat": ("cat_gt.png", {0: 0, 255: 6}),
    "team": ("team_gt_instance.png", {0: 0, 198: 2} | dict.fromkeys((47, 97, 133, 150, 174, 215, 244, 255), 1)),
}


def folder(name: str) -> Path:
    return Path(DATA) / "vectors" / name


def grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def deeplab2_maps(name: str):
    file, classes = GROUND_TRUTH[name]
    target = grey(folder("deeplab2_pq") / file)
    rgb = np.asarray(Image.open(folder("deeplab2_pq") / f"{name}_pred_class.png").convert("RGB"))
    pred = np.full(rgb.shape[:2], 99)
    for c, colour in enumerate(COLOURS):
        pred[(rgb == colour).all(-1)] = c
    target_class = np.vectorize(classes.__getitem__)(target)
    return pred, grey(folder("deeplab2_pq") / f"{name}_pred_instance.png"), target_class, target


@pytest.mark.parametrize(
    ("names", "num_classes", "expected"),
    [
        (["team"], 3, (0.62156284, 0.64664984, 0.9666667)),
        (["bird", "cat", "team"], 7, (0.76855499, 0.7769174, 0.98888892)),
    ],
)
def test_deeplab2(names, num_classes, expected):
    things = tuple(range(1, num_classes))  # every (class, instance) is a segment
    metric = PanopticQuality(num_classes, things, 0, ignore_crowd=False)
    for name in names:
        metric.update(*deeplab2_maps(name))
    result = metric.compute()
    assert [result[key] for key in ("pq", "sq", "rq")] == pytest.approx(expected, abs=1e-7)


def bdd100k_maps(path: Path):
    rgba = np.asarray(Image.open(path)).astype(np.int64)
    assert not (rgba[..., 1] & 3).any()  # neither ignored nor crowd regions
    return rgba[..., 0], rgba[..., 2] * 256 + rgba[..., 3]


@pytest.mark.parametrize(
    ("subtract_void", "expected"),
    [
        (False, {"pq": 66.46278879, "pq_stuff": 64.38602381, "pq_things": 82.03852616, "sq": 68.35183709}),
        (True, {"pq": 66.463011, "rq": 85.29411765}),
    ],
)
def test_bdd100k(subtract_void, expected):
    metric = PanopticQuality(41, tuple(range(31, 41)), 0, subtract_void=subtract_void)
    for name in ("a.png", "b.png"):
        metric.update(*(m for side in ("pred", "gt") for m in bdd100k_maps(folder("bdd100k_pan_seg") / side / name)))
    result = metric.compute()
    tolerance = 1e-7 if not subtract_void else 1e-6
    assert {key: 100 * result[key] for key in expected} == pytest.approx(expected, abs=tolerance)


def coco_maps(annotation, categories):
    rgb = np.asarray(Image.open(folder("panopticapi_sample") / "panoptic_examples" / annotation["file_name"]))
    ids = rgb.astype(np.int64) @ [1, 256, 65536]
    classes, instances = np.zeros_like(ids), np.zeros_like(ids)
    for segment in annotation["segments_info"]:
        pixels = ids == segment["id"]
        classes[pixels] = segment["category_id"]
        instances[pixels] = segment["id"] * (categories[segment["category_id"]] and not segment["iscrowd"])
    return classes, instances


def test_panopticapi_sample_against_itself():
    content = json.loads((folder("panopticapi_sample") / "panoptic_examples.json").read_text())
    categories = {c["id"]: c["isthing"] for c in content["categories"]}
    things = tuple(c for c, isthing in categories.items() if isthing)
    metrics = [m(max(categories) + 1, things, 0) for m in (PanopticQuality, SegmentationTrackingQuality)]
    for annotation in content["annotations"]:
        maps = coco_maps(annotation, categories)
        for metric in metrics:
            metric.update(*maps, *maps, sequence_id=annotation["image_id"])
    pq, stq = (metric.compute() for metric in metrics)
    segments = [s for a in content["annotations"] for s in a["segments_info"] if not s["iscrowd"]]
    assert pq["pq"] == stq["stq"] == 1
    assert sum(c["tp"] for c in pq["per_class"].values()) == len(segments)
