"""Evaluator: equal to the single metrics, exact merging, the choice of metrics and their variants."""

import json

import numpy as np
import pytest
import torch
from map_trees import CAMVID, CAR, KITTI, ROAD, random_video

from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.metrics import MeanIoU, PanopticQuality, SegmentationTrackingQuality, VideoPanopticQuality


def test_equals_the_single_metrics():
    rng, evaluator = np.random.default_rng(0), Evaluator(KITTI, windows=(1, 2))
    singles = PanopticQuality(), VideoPanopticQuality(windows=(1, 2)), SegmentationTrackingQuality(), MeanIoU()
    for sequence_id, length in (("0002", 4), ("0006", 2)):
        for maps in random_video(rng, length):
            evaluator.update(*maps, sequence_id)
            for metric in singles:
                metric.update(*maps, sequence_id)
    result = evaluator.compute()
    pq, vpq, stq, miou = (metric.compute() for metric in singles)
    assert result["pq"]["pq"] == pq["pq"] > 0
    assert result["vpq"]["vpq"] == vpq["vpq"] > 0
    assert result["stq"]["stq"] == stq["stq"] > 0
    assert result["miou"]["miou"] == miou["miou"] > 0
    assert (result["spec"], result["num_frames"]) == ("kitti-step", 6)
    assert result["pq"]["per_class"]["car"] == pq["per_class"][CAR]
    assert result["vpq"]["per_window"]["2"]["per_class"]["road"] == vpq["per_window"][2]["per_class"][ROAD]
    assert result["stq"]["per_sequence"]["0006"] == stq["per_sequence"]["0006"]
    assert list(result["miou"]["per_class"]) == list(KITTI.class_names)


def test_result_survives_json():
    evaluator = Evaluator(KITTI)
    for maps in random_video(np.random.default_rng(1), 3):
        evaluator.update(*maps, 7)  # a number as name of the sequence
    result = evaluator.compute()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["stq"]["per_sequence"]) == ["7"]


def test_a_sequence_may_be_called_as_a_key_is():
    evaluator = Evaluator(KITTI)
    for maps in random_video(np.random.default_rng(1), 2):
        evaluator.update(*maps, "per_class")
    result = evaluator.compute()["stq"]
    assert result["per_sequence"]["per_class"]["stq"] == result["stq"]


def test_tensors_equal_arrays():
    arrays, tensors = Evaluator(KITTI), Evaluator(KITTI)
    for maps in random_video(np.random.default_rng(2), 3):
        arrays.update(*maps)
        tensors.update(*map(torch.from_numpy, maps))
    assert arrays.compute() == tensors.compute()


def test_merge_and_reset():
    rng, joint, parts = np.random.default_rng(3), Evaluator(KITTI), [Evaluator(KITTI), Evaluator(KITTI)]
    for part, sequence_id in zip(parts, ("a", "b")):
        for maps in random_video(rng, 5):
            joint.update(*maps, sequence_id)
            part.update(*maps, sequence_id)
    parts[0].merge(parts[1])
    assert parts[0].compute() == joint.compute()
    before = parts[0].compute()
    with pytest.raises(ValueError, match="merge: expected disjoint sequences, got b in both"):
        parts[0].merge(parts[1])
    with pytest.raises(ValueError, match="merge: expected label spec kitti-step, got camvid"):
        parts[0].merge(Evaluator(CAMVID))
    assert parts[0].compute() == before
    parts[0].reset()
    assert parts[0].compute() == Evaluator(KITTI).compute()


def test_a_refused_frame_is_counted_nowhere():
    evaluator = Evaluator(KITTI)
    maps = next(random_video(np.random.default_rng(4), 1))
    for sequence_id in ("a", "b"):
        evaluator.update(*maps, sequence_id)
    before = evaluator.compute()
    with pytest.raises(ValueError, match="sequence 'a', frame 1: expected all frames in one go, got one after 'b'"):
        evaluator.update(*maps, "a")
    with pytest.raises(ValueError, match=r"^sequence 'b', frame 1: expected pred_semantic of the target's shape"):
        evaluator.update(maps[0].T, maps[1].T, *maps[2:], "b")
    assert evaluator.compute() == before


def test_without_things():
    evaluator = Evaluator(CAMVID)
    evaluator.update(np.array([[0, 1, 1]]), None, np.array([[0, 1, 255]]), None)
    result = evaluator.compute()
    assert sorted(result) == ["miou", "num_frames", "pq", "spec"]
    assert result["miou"]["miou"] == result["pq"]["pq_stuff"] == 1


def test_some_metrics_and_their_variants():
    rng, maps = np.random.default_rng(5), []
    evaluator = Evaluator(KITTI, metrics=["miou", "vpq"], options={"vpq": {"ignore_crowd": True}})
    vpq = VideoPanopticQuality(ignore_crowd=True)
    for maps in random_video(rng, 3):
        evaluator.update(*maps)
        vpq.update(*maps)
    result = evaluator.compute()
    assert sorted(result) == ["miou", "num_frames", "spec", "vpq"]
    assert result["num_frames"] == 3
    assert result["vpq"]["vpq"] == vpq.compute()["vpq"]
    with pytest.raises(ValueError, match="merge: expected metrics vpq, miou, got miou"):
        evaluator.merge(Evaluator(KITTI, metrics=["miou"]))


@pytest.mark.parametrize(
    ("spec", "metrics", "message"),
    [
        (KITTI, ["pq", "ap"], "metrics: expected some of stq, vpq, pq, miou for label spec kitti-step, got ap"),
        (KITTI, [], "metrics: expected some of .*, got none"),
        (CAMVID, ["stq"], "metrics: expected some of pq, miou for label spec camvid, got stq"),
    ],
)
def test_metrics_that_cannot_be(spec, metrics, message):
    with pytest.raises(ValueError, match=message):
        Evaluator(spec, metrics=metrics)


@pytest.mark.parametrize("metrics", [None, ["stq"], ["pq", "miou"]])
def test_frames_out_of_order_are_refused(metrics):
    evaluator = Evaluator(KITTI, metrics=metrics)
    maps = next(random_video(np.random.default_rng(6), 1))
    for frame in (3, 5):
        evaluator.update(*maps, "a", frame=frame)
    before = evaluator.compute()
    for frame in (5, 4):
        text = f"^sequence 'a', frame {frame}: expected frames in ascending order, got it after 5$"
        with pytest.raises(ValueError, match=text):
            evaluator.update(*maps, "a", frame=frame)
    with pytest.raises(ValueError, match=r"^sequence 'a', frame 9: expected pred_semantic of the target's shape"):
        evaluator.update(maps[0].T, maps[1].T, *maps[2:], "a", frame=9)
    assert evaluator.compute() == before
    evaluator.update(*maps, "b", frame=0)
