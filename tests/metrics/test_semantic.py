"""Confusion matrix and mIoU: drawings, a slow oracle, merging."""

import numpy as np
import pytest
from metric_oracles import LAYOUT, draw, feed, naive_ious, random_maps, segments, similar_maps

from pix2seq_d.metrics import MeanIoU
from pix2seq_d.metrics.counts import ClassLayout, joint_counts
from pix2seq_d.metrics.semantic import confusion_matrix


def miou_of(target, pred):
    metric = MeanIoU(num_classes=4)
    feed(metric, target, pred)
    return metric.compute()


def test_two_classes():
    result = miou_of("r r r s s", "r r s s s")
    # road 2/3, sky 2/3, four of five pixels right
    assert result["per_class"][0]["iou"] == result["per_class"][1]["iou"] == pytest.approx(2 / 3)
    assert result["miou"] == pytest.approx(2 / 3)
    assert result["pixel_accuracy"] == 0.8
    assert (result["n"], result["num_frames"]) == (2, 1)
    assert not result["per_class"][2]["valid"]


def test_void():
    result = miou_of("r r r . .", "r r . c1 r")
    # target void does not count whatever is predicted there; predicted void is a miss: road 2/3, no car
    assert result["miou"] == pytest.approx(2 / 3)
    assert result["pixel_accuracy"] == pytest.approx(2 / 3)
    assert result["n"] == 1


def test_class_only_in_the_prediction():
    assert miou_of("r r", "r s")["miou"] == pytest.approx((1 / 2 + 0) / 2)


@pytest.mark.parametrize("pred", ["r s", ". ."])
def test_all_void(pred):
    result = miou_of(". .", pred)
    assert (result["miou"], result["pixel_accuracy"], result["n"]) == (0, 0, 0)


def test_no_update():
    assert MeanIoU().compute()["miou"] == 0


def test_confusion_matrix():
    layout = ClassLayout(2, (), 255)
    counts = joint_counts(*draw("r s s . r")[:1], None, *draw("r r s s .")[:1], None, layout=layout, where="here")
    assert confusion_matrix(counts).tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 0]]


def test_instances_are_not_needed():
    metric = MeanIoU(num_classes=4)
    metric.update(draw("c1 c2")[0], None, draw("c c")[0], None)
    assert metric.compute()["miou"] == 1


@pytest.mark.parametrize("seed", range(10))
def test_equals_the_slow_one_and_merges(seed):
    rng = np.random.default_rng(seed)
    joint, parts, frames = MeanIoU(4), [MeanIoU(4), MeanIoU(4)], []
    for k in range(6):
        target = random_maps(rng)
        pred = similar_maps(rng, target)
        joint.update(*pred, *target)
        parts[k % 2].update(*pred, *target)
        frames.append((segments(target), segments(pred)))
    ious = naive_ious(frames, count_void=False)
    assert joint.compute()["miou"] == pytest.approx(sum(ious) / len(ious), abs=1e-12)
    parts[1].merge(parts[0])
    assert parts[1].compute() == joint.compute()


def test_counts_with_things_are_shared():
    layout = ClassLayout(LAYOUT["num_classes"], LAYOUT["thing_ids"], LAYOUT["void_id"])
    shared, own = MeanIoU(4), MeanIoU(4)
    pred, target = draw("c1 c2 r s ."), draw("c1 c1 r r s")
    shared.update_counts(joint_counts(*pred, *target, layout=layout, where="here"))
    own.update(*pred, *target)
    assert shared.compute() == own.compute()
    shared.reset()
    assert shared.compute() == MeanIoU(4).compute()
