"""PQ: drawings with their arithmetic, a slow oracle, torchmetrics; invariances and merging of PQ and VPQ."""

import pickle

import numpy as np
import pytest
import torch
import torchmetrics.detection
from metric_oracles import (
    LAYOUT,
    THINGS,
    feed,
    naive_average,
    naive_pq,
    numbers,
    random_maps,
    segments,
    similar_maps,
    videos,
)

from pix2seq_d.metrics import PanopticQuality, VideoPanopticQuality


def pq_of(target: str, pred: str, **options):
    metric = PanopticQuality(**LAYOUT, **options)
    feed(metric, target, pred)
    return metric.compute()


# Drawings of PQ


def test_one_car_and_the_road():
    result = pq_of("c1 c1 c1 r r", "c1 c1 r r r")
    # car: shared 2, union 3, IoU 2/3, matched; road: shared 2, union 3, IoU 2/3, matched
    assert numbers(result, 3) == numbers(result, 0) == (1, 0, 0)
    assert result["pq"] == result["sq"] == result["pq_things"] == result["pq_stuff"] == pytest.approx(2 / 3)
    assert result["rq"] == 1
    assert (result["n"], result["n_things"], result["n_stuff"]) == (2, 1, 1)
    assert not result["per_class"][1]["valid"]
    assert not result["per_class"][2]["valid"]
    assert result["num_frames"] == 1


def test_half_is_no_match():
    result = pq_of("c1 c1 r r r", "c1 r r r r")
    # car: shared 1, union 2, IoU 0.5, not above 0.5: one wrong, one missed; road: shared 3, union 4
    assert numbers(result, 3) == (0, 1, 1)
    assert numbers(result, 0) == (1, 0, 0)
    assert result["pq"] == pytest.approx((0 + 3 / 4) / 2)
    assert result["sq"] == pytest.approx((0 + 3 / 4) / 2)
    assert result["rq"] == pytest.approx((0 + 1) / 2)


def test_two_cars_one_found():
    result = pq_of("c1 c1 c2 c2 r", "c5 c5 c6 r r")
    # car 1 = pred 5: IoU 1; car 2 and pred 6: 1/2, no match: tp 1, fp 1, fn 1: PQ = 1 / (1 + 0.5 + 0.5); road 1/2: none
    assert numbers(result, 3) == (1, 1, 1)
    assert result["per_class"][3]["pq"] == pytest.approx(0.5)
    assert result["per_class"][3]["sq"] == pytest.approx(1)
    assert result["per_class"][3]["rq"] == pytest.approx(0.5)
    assert result["pq"] == pytest.approx((0.5 + 0) / 2)


def test_void_leaves_the_union():
    result = pq_of("c1 c1 . . r", "c1 c1 c1 c1 r")
    # car: shared 2, union 2 + 4 - 2 - 2 on void = 2, IoU 1
    assert result["pq"] == 1
    kept = pq_of("c1 c1 . . r", "c1 c1 c1 c1 r", subtract_void=False)
    # union 4, IoU 0.5: missed, and wrong, for void holds only half of it
    assert numbers(kept, 3) == (0, 1, 1)


def test_mostly_on_void_is_not_wrong():
    assert numbers(pq_of(". . . r r", "c1 c1 c1 c1 r"), 3) == (0, 0, 0)  # 3/4 on void
    assert numbers(pq_of(". . r r r", "c1 c1 c1 c1 r"), 3) == (0, 1, 0)  # half is not enough


def test_predicted_void_is_no_segment():
    result = pq_of("c1 c1 r r r", ". . r r r")
    assert numbers(result, 3) == (0, 0, 1)
    assert numbers(result, 0) == (1, 0, 0)


def test_crowd_is_ignored_or_not():
    ignored = pq_of("c0 c0 c0 r r", "c1 c2 c3 r r")
    # the predicted cars lie on the crowd: neither right nor wrong; nothing is missed
    assert numbers(ignored, 3) == (0, 0, 0)
    assert (ignored["pq"], ignored["n"]) == (1, 1)
    counted = pq_of("c0 c0 c0 r r", "c1 c2 c3 r r", ignore_crowd=False)
    # one target segment of 3 pixels, IoU 1/3 each: three wrong, one missed
    assert numbers(counted, 3) == (0, 3, 1)
    assert counted["pq"] == 0.5
    assert numbers(pq_of("c0 c0 c0 r r", "c7 c7 c7 r r", ignore_crowd=False), 3) == (1, 0, 0)
    assert numbers(pq_of("c0 c0 c0 r r", "r r r r r"), 3) == (0, 0, 0)
    assert numbers(pq_of("c0 c0 c0 r r", "r r r r r", ignore_crowd=False), 3) == (0, 0, 1)


def test_crowd_helps_its_own_class_only():
    assert numbers(pq_of("p0 p0 r r r", "c1 c1 r r r"), 3) == (0, 1, 0)
    # one pixel of crowd and one of void make 2/3 together
    assert numbers(pq_of("c0 . r r r", "c1 c1 c1 r r"), 3) == (0, 0, 0)
    assert numbers(pq_of("p0 . r r r", "c1 c1 c1 r r"), 3) == (0, 1, 0)


def test_crowd_may_excuse_other_classes():
    # BDD100K: all crowds are as void for what is wrong; they still match nothing
    anyone = {"crowd_excuses": "any_class"}
    assert numbers(pq_of("p0 p0 r r r", "c1 c1 r r r", **anyone), 3) == (0, 0, 0)
    assert numbers(pq_of("p0 . r r r", "c1 c1 c1 r r", **anyone), 3) == (0, 0, 0)
    assert numbers(pq_of("p0 r r r r", "c1 c1 r r r", **anyone), 3) == (0, 1, 0)  # half is not enough
    assert numbers(pq_of("p0 p0 r r r", "c1 c1 r r r", ignore_crowd=False, **anyone), 3) == (0, 1, 0)
    with pytest.raises(ValueError, match="crowd_excuses: expected one of own_class, any_class, got 'none'"):
        PanopticQuality(crowd_excuses="none")


def test_classes_that_never_occur_may_count():
    frame = "c1 c1 r r", "c1 c1 r r"
    assert (pq_of(*frame)["pq"], pq_of(*frame)["n"]) == (1, 2)
    zero = pq_of(*frame, empty_classes="zero")
    # sky and person are there with PQ 0
    assert [zero[key] for key in ("pq", "sq", "rq", "pq_things", "pq_stuff", "n")] == [0.5, 0.5, 0.5, 0.5, 0.5, 4]
    assert not zero["per_class"][1]["valid"]
    with pytest.raises(ValueError, match="empty_classes: expected one of skip, zero, got 'all'"):
        PanopticQuality(empty_classes="all")


def test_crowd_stays_in_the_union():
    # car 1: shared 2, pred 4, union 4, IoU 0.5: a crowd does not shrink the union as void does
    assert numbers(pq_of("c1 c1 c0 c0 r", "c1 c1 c1 c1 r"), 3) == (0, 1, 1)


def test_instances_of_stuff_do_not_count():
    assert pq_of("r1 r2 r3 s s9", "r r r4 s s")["pq"] == 1


def test_predicted_instance_zero_is_a_segment():
    assert numbers(pq_of("c1 c1 r r r", "c0 c0 r r r"), 3) == (1, 0, 0)
    assert numbers(pq_of("r r r r r", "c0 c0 r r r"), 3) == (0, 1, 0)


def test_class_only_in_the_prediction():
    result = pq_of("r r r r r", "r r r r p1")
    assert numbers(result, 2) == (0, 1, 0)
    assert result["per_class"][2]["valid"]
    assert result["pq"] == pytest.approx((4 / 5 + 0) / 2)


def test_classes_part_instances():
    # car 1 and person 1 share an id and are two segments
    assert pq_of("c1 c1 p1 p1 r", "c3 c3 p3 p3 r")["pq"] == 1


@pytest.mark.parametrize("pred", [". . .", "c1 r s"])
def test_all_void_frame(pred):
    result = pq_of(". . .", pred)
    assert (result["pq"], result["n"]) == (0, 0)


@pytest.mark.parametrize("metric", [PanopticQuality, VideoPanopticQuality])
def test_no_update(metric):
    result = metric(**LAYOUT).compute()
    assert {v for v in result.values() if isinstance(v, float)} == {0.0}
    assert result["num_frames"] == 0


def test_void_inside_the_classes():
    metric = PanopticQuality(num_classes=3, thing_ids=(1,), void_id=0)
    target = np.array([[0, 1, 1, 2]]), np.array([[0, 4, 4, 0]])
    metric.update(*target, *target)
    result = metric.compute()
    assert (result["pq"], result["n"], sorted(result["per_class"])) == (1, 2, [1, 2])


def test_defaults_are_those_of_kitti_step():
    layout = PanopticQuality().layout
    assert (layout.num_classes, layout.thing_ids, layout.void_id) == (19, (11, 13), 255)
    assert PanopticQuality().options == {
        "ignore_crowd": True,
        "subtract_void": True,
        "crowd_excuses": "own_class",
        "empty_classes": "skip",
    }
    assert VideoPanopticQuality().layout == layout
    assert VideoPanopticQuality().options == {
        "windows": (1, 2, 3, 4),
        "ignore_crowd": False,
        "subtract_void": True,
        "empty_classes": "skip",
    }


# Oracles


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("ignore_crowd", [True, False])
@pytest.mark.parametrize("subtract_void", [True, False])
def test_pq_equals_the_slow_one(seed, ignore_crowd, subtract_void):
    options = {"ignore_crowd": ignore_crowd, "subtract_void": subtract_void}
    metric, frames = PanopticQuality(**LAYOUT, **options), []
    for sequence_id, target, pred in videos(seed):
        metric.update(*pred, *target, sequence_id=sequence_id)
        frames.append((segments(target), segments(pred)))
    result, stats = metric.compute(), naive_pq(frames, **options)
    assert {c: numbers(result, c) for c in range(4)} == {c: tuple(s[1:]) for c, s in stats.items()}
    for suffix, classes in (("", range(4)), ("_things", THINGS), ("_stuff", (0, 1))):
        scores = [result[key + suffix] for key in ("pq", "sq", "rq")]
        assert scores == pytest.approx(naive_average(stats, classes), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_pq_equals_torchmetrics(seed):
    rng = np.random.default_rng(seed)
    ours = PanopticQuality(**LAYOUT)
    arguments = {"things": set(THINGS), "stuffs": {0, 1}}
    theirs = torchmetrics.detection.PanopticQuality(**arguments, return_sq_and_rq=True)
    for _ in range(4):
        target = random_maps(rng, (8, 12), void=False, crowd=False)
        pred = similar_maps(rng, target, 0.15, void=False, crowd=False)
        ours.update(*pred, *target)
        theirs.update(*(torch.from_numpy(np.stack(m, -1).astype(np.int64))[None] for m in (pred, target)))
    result = ours.compute()
    assert [result["pq"], result["sq"], result["rq"]] == pytest.approx(theirs.compute().tolist(), abs=1e-6)


# Properties


@pytest.mark.parametrize("metric", [PanopticQuality, VideoPanopticQuality])
def test_perfect_is_one(metric):
    m = metric(**LAYOUT)
    for sequence_id, target, _ in videos(1):
        m.update(*target, *target, sequence_id=sequence_id)
    result = m.compute()
    assert result["pq" if metric is PanopticQuality else "vpq"] == 1


@pytest.mark.parametrize("metric", [PanopticQuality, VideoPanopticQuality])
def test_instance_labels_do_not_matter(metric):
    plain, relabelled = metric(**LAYOUT), metric(**LAYOUT)
    for sequence_id, target, pred in videos(2):
        plain.update(*pred, *target, sequence_id=sequence_id)
        pred_ids, target_ids = np.array([977, 5, 40_000, 0]), np.array([0, 3, 1, 2])  # a crowd stays a crowd
        relabelled.update(pred[0], pred_ids[pred[1]], target[0], target_ids[target[1]], sequence_id)
    assert plain.compute() == relabelled.compute()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", [PanopticQuality, VideoPanopticQuality])
def test_merge_equals_joint(metric, seed):
    joint, parts = metric(**LAYOUT), {}
    for sequence_id, target, pred in videos(seed, (4, 3, 2, 6)):
        joint.update(*pred, *target, sequence_id=sequence_id)
        parts.setdefault(sequence_id, metric(**LAYOUT)).update(*pred, *target, sequence_id=sequence_id)
    merged = metric(**LAYOUT)
    for part in list(parts.values())[::-1]:
        merged.merge(pickle.loads(pickle.dumps(part)))
    assert merged.compute() == joint.compute()  # bit for bit


def test_merge_of_a_shared_sequence():
    a, b, joint = (PanopticQuality(**LAYOUT) for _ in range(3))
    for part, pred in ((a, "c1 c1 r"), (b, "c1 r r")):
        feed(part, "c1 c1 r", pred)
        feed(joint, "c1 c1 r", pred)
    a.merge(b)
    assert a.compute() == joint.compute()
    x, y = VideoPanopticQuality(**LAYOUT), VideoPanopticQuality(**LAYOUT)
    feed(x, "c1 r", "c1 r", "0002")
    feed(y, "c1 r", "c1 r", "0002")
    before = x.compute()
    with pytest.raises(ValueError, match="merge: expected disjoint sequences, got 0002 in both"):
        x.merge(y)
    assert x.compute() == before


@pytest.mark.parametrize("metric", [PanopticQuality, VideoPanopticQuality])
def test_reset(metric):
    m, fresh = metric(**LAYOUT), metric(**LAYOUT)
    feed(m, "c1 c1 r", "c1 r r")
    m.reset()
    assert m.compute() == fresh.compute()
    feed(m, "c1 c1 r", "c1 c1 r")
    feed(fresh, "c1 c1 r", "c1 c1 r")
    assert m.compute() == fresh.compute()


def test_many_matches_of_one_class():
    n = 300
    ids = np.arange(n * n).reshape(n, n)
    cars = np.full((n, n), 3, np.uint8)
    metric = PanopticQuality(**LAYOUT, ignore_crowd=False)
    metric.update(cars, ids, cars, ids)
    assert numbers(metric.compute(), 3) == (n * n, 0, 0)
    assert metric.compute()["pq"] == 1
