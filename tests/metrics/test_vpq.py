"""VPQ: drawings with their arithmetic, a slow oracle, windows, protocols and the order of frames."""

import pickle

import numpy as np
import pytest
import torch
from metric_oracles import (
    LAYOUT,
    draw,
    feed,
    naive_average,
    naive_pq,
    numbers,
    random_maps,
    segments,
    videos,
    windows_of,
)

from pix2seq_d.metrics import PanopticQuality, VideoPanopticQuality


def vpq_of(frames, **options):
    metric = VideoPanopticQuality(**LAYOUT, **options)
    for sequence_id, target, pred in frames:
        feed(metric, target, pred, sequence_id)
    return metric.compute()


def test_swapped_ids():
    target = "c1 c1 c2 c2 r"
    result = vpq_of([("a", target, "c1 c1 c2 c2 r"), ("a", target, "c2 c2 c1 c1 r")], windows=(1, 2))
    # k = 1: perfect. k = 2: tube 1 has 4 pixels, of which 2 on either car: IoU 2 / 6; fp 2, fn 2; road 1
    assert result["per_window"][1]["pq"] == 1
    assert numbers(result["per_window"][2], 3) == (0, 2, 2)
    assert result["per_window"][2]["pq"] == 0.5
    assert (result["vpq"], result["vpq_things"], result["vpq_stuff"]) == (0.75, 0.5, 1)


def test_windows_overlap():
    target, swapped = "c1 c1 c2 c2 r", "c2 c2 c1 c1 r"
    result = vpq_of([("a", target, target), ("a", target, target), ("a", target, swapped)], windows=(2,))
    # windows (1, 2): two matches; (2, 3): none: tp 2, fp 2, fn 2, PQ 2 / 4; road 1
    assert result["per_window"][2]["num_windows"] == 2
    assert numbers(result["per_window"][2], 3) == (2, 2, 2)
    assert result["vpq"] == 0.75


def test_a_tube_pools_its_frames():
    result = vpq_of([("a", "c1 c1 c1 c1 r", "c1 c1 c1 c1 r"), ("a", "c1 c1 c1 c1 r", "c1 r r r r")], windows=(1, 2))
    # k = 1: second car 1/4, no match; k = 2: shared 5, union 8, IoU 0.625, matched; road: shared 2, union 5, no match
    assert numbers(result["per_window"][1], 3) == (1, 1, 1)
    assert result["per_window"][2]["per_class"][3]["pq"] == pytest.approx(5 / 8)
    assert numbers(result["per_window"][2], 0) == (0, 1, 1)


def test_void_is_pooled_as_well():
    result = vpq_of([("a", ". . r", "c1 c1 r"), ("a", ". r r", "c1 c1 r")], windows=(1, 2))
    # k = 1: on void 2/2, not wrong; 1/2, wrong. k = 2: 3/4, not wrong
    assert numbers(result["per_window"][1], 3) == (0, 1, 0)
    assert numbers(result["per_window"][2], 3) == (0, 0, 0)


def test_crowd_of_a_tube():
    frames = [("a", "c0 c0 r", "c4 c5 r")]
    assert numbers(vpq_of(frames)["per_window"][1], 3) == (0, 2, 1)  # a segment like any other
    assert numbers(vpq_of(frames, ignore_crowd=True)["per_window"][1], 3) == (0, 0, 0)


def test_unlabelled_pixels_may_stay_in_the_unions():
    frames = [("a", "c1 c1 . r", "c1 c1 c1 r"), ("a", "c1 c1 . r", "c1 c1 c1 r")]
    # tubes of 4 and 6 pixels that share 4, 2 of the predicted ones on void: 4 / 4 without them, 4 / 6 with them
    assert vpq_of(frames)["per_window"][2]["per_class"][3]["pq"] == 1
    kept = vpq_of(frames, subtract_void=False)
    assert kept["per_window"][2]["per_class"][3]["pq"] == pytest.approx(4 / 6)


def test_classes_that_never_occur_may_count():
    frames = [("a", "c1 r", "c1 r")]
    assert (vpq_of(frames)["vpq"], vpq_of(frames)["per_window"][1]["n"]) == (1, 2)
    # two of four classes have PQ 1: also one of the two kinds of things, and one of stuff
    zero = vpq_of(frames, empty_classes="zero", windows=(1,))
    assert (zero["vpq"], zero["vpq_things"], zero["vpq_stuff"], zero["per_window"][1]["n"]) == (0.5, 0.5, 0.5, 4)
    with pytest.raises(ValueError, match="empty_classes: expected one of skip, zero, got 'one'"):
        VideoPanopticQuality(empty_classes="one")


def test_windows_of_labelled_frames():
    # Cityscapes-VPS: the labelled frames are 0, 5, 10 of the video; its k = 5 is a window of two of them
    metric = VideoPanopticQuality(**LAYOUT, windows=(1, 2), ignore_crowd=True)
    pred = {0: "c1 c1 r c9", 5: "c1 c1 r c9", 10: "c7 c7 r c9"}
    for frame, pixels in pred.items():
        metric.update(*draw(pixels), *draw("c4 c4 r c0"), sequence_id="0001", frame=frame)
    result = metric.compute()
    # windows (0, 5): car 4 is car 1; (5, 10): halves of 2 pixels, IoU 2 / 4 each: missed, and two wrong; c9 is on crowd
    assert numbers(result["per_window"][1], 3) == (3, 0, 0)
    assert numbers(result["per_window"][2], 3) == (1, 2, 1)
    assert result["vpq"] == pytest.approx((1 + (1 / 2.5 + 1) / 2) / 2)


def test_windows_end_with_their_sequence():
    result = vpq_of([("a", "c1 r", "c1 r"), ("b", "c1 r", "c2 r"), ("b", "c1 r", "c2 r")])
    # one id changes between the videos; "a" has no window of two frames, and none has three
    assert [result["per_window"][k]["num_windows"] for k in (1, 2, 3, 4)] == [3, 1, 0, 0]
    assert result["vpq"] == 1  # mean over the sizes 1 and 2
    assert result["per_window"][3]["pq"] == 0


def test_a_sequence_cannot_be_opened_again():
    metric = VideoPanopticQuality(**LAYOUT)
    for sequence_id in ("a", "b"):
        feed(metric, "c1 r", "c1 r", sequence_id)
    before = metric.compute()
    with pytest.raises(ValueError, match="sequence 'a', frame 1: expected all frames in one go, got one after 'b'"):
        feed(metric, "c1 r", "c1 r", "a")
    assert metric.compute() == before
    feed(metric, "c1 r", "c1 r", "b")
    assert metric.compute()["num_frames"] == 3


@pytest.mark.parametrize("windows", [(), (0,), (1, 1), (2, -1)])
def test_bad_windows(windows):
    with pytest.raises(ValueError, match="windows: expected distinct positive sizes"):
        VideoPanopticQuality(windows=windows)


def test_memory_is_that_of_the_largest_window():
    sizes = []
    metric = VideoPanopticQuality(**LAYOUT)
    maps = random_maps(np.random.default_rng(0))
    for _ in range(40):
        metric.update(*maps, *maps, sequence_id="a")
        sizes.append(len(pickle.dumps(metric)))
    assert max(sizes[4:]) - min(sizes[4:]) < 100  # bytes of larger counts


# Oracle and properties


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("ignore_crowd", [True, False])
def test_vpq_equals_the_slow_one(seed, ignore_crowd):
    metric, per_video = VideoPanopticQuality(**LAYOUT, ignore_crowd=ignore_crowd), {}
    for sequence_id, target, pred in videos(seed):
        metric.update(*pred, *target, sequence_id=sequence_id)
        per_video.setdefault(sequence_id, []).append((segments(target), segments(pred)))
    result, means = metric.compute(), []
    for k in (1, 2, 3, 4):
        tubes = [w for video in per_video.values() for w in windows_of(video, k)]
        assert result["per_window"][k]["num_windows"] == len(tubes)
        means.append(naive_average(naive_pq(tubes, ignore_crowd=ignore_crowd))[0])
        assert result["per_window"][k]["pq"] == pytest.approx(means[-1], abs=1e-12)
    assert result["vpq"] == pytest.approx(sum(means) / 4, abs=1e-12)


def test_a_merged_metric_goes_on():
    a, b, joint = (VideoPanopticQuality(**LAYOUT) for _ in range(3))
    feed(b, "c1 c1 r", "c1 c1 r", "b")
    feed(joint, "c1 c1 r", "c1 c1 r", "b")
    for metric in (a, joint):
        feed(metric, "c1 c1 r", "c1 c1 r", "a")
    a.merge(b)
    for metric in (a, joint):
        feed(metric, "c1 c1 r", "c2 c2 r", "a")
    assert a.compute() == joint.compute()


@pytest.mark.parametrize("seed", range(3))
def test_window_of_one_is_pq_without_crowd(seed):
    pq, vpq = PanopticQuality(**LAYOUT), VideoPanopticQuality(**LAYOUT, windows=(1,))
    for sequence_id, target, pred in videos(seed, crowd=False):
        for metric in (pq, vpq):
            metric.update(*pred, *target, sequence_id=sequence_id)
    a, b = pq.compute(), vpq.compute()["per_window"][1]
    assert a.pop("num_frames") == b.pop("num_windows")
    assert a == b


def test_tensors_equal_arrays():
    arrays, tensors = VideoPanopticQuality(**LAYOUT), VideoPanopticQuality(**LAYOUT)
    for sequence_id, target, pred in videos(4):
        maps = (*pred, *target)
        arrays.update(*maps, sequence_id=sequence_id)
        tensors.update(*map(torch.from_numpy, maps), sequence_id=sequence_id)
    assert arrays.compute() == tensors.compute()
