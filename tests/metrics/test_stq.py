"""STQ: the worked examples of its reference, drawings of every rule, a slow oracle, merging."""

import math
import pickle

import numpy as np
import pytest
from metric_oracles import LAYOUT, VOID, feed, naive_ious, naive_tracks, segments, videos

from pix2seq_d.metrics import SegmentationTrackingQuality


def stq_of(*frames):
    metric = SegmentationTrackingQuality(**LAYOUT)
    for target, pred in frames:
        feed(metric, target, pred)
    return metric.compute()


@pytest.mark.parametrize(
    ("target", "pred", "stq", "aq", "iou"),
    [
        ("c1 c1 c1 c1 c1", "c1 c1 c1 c1 c1", 1, 1, 1),
        # two predicted tracks: (2 * 2/5 + 3 * 3/5) / 5 = 2.6 / 5
        ("c1 c1 c1 c1 c1", "c1 c1 c2 c2 c2", 0.72111026, 0.52, 1),
        # two target tracks under one: (2 * 2/5 / 2 + 3 * 3/5 / 3) / 2
        ("c1 c1 c2 c2 c2", "c1 c1 c1 c1 c1", 0.70710678, 0.5, 1),
        # (1 * 1/5 + 4 * 4/5) / 5
        ("c1 c1 c1 c1 c1", "c1 c2 c2 c2 c2", 0.82462113, 0.68, 1),
        ("c1 c1 c1 c1 c1", "c1 c2 c3 c4 c5", 0.447213596, 0.2, 1),
        ("c1 c1 c1 c1 c1", "c1 c2 c1 c2 c2", 0.72111026, 0.52, 1),
        # AQ 4 * 4/5 / 5; IoU of car 4/5, of road 0/1
        ("c1 c1 c1 c1 c1", "r c1 c1 c1 c1", 0.50596443, 0.64, 0.4),
        # the first pixel is crowd: out of AQ, a car as any other in IoU
        ("c0 c1 c1 c1 c1 c1", "c1 c1 c1 c1 c1 c1", 1, 1, 1),
        # track 2 has 3 pixels outside the crowd: (3 * 3/5 + 2 * 2/5) / 5
        ("c0 c1 c1 c1 c1 c1", "c2 c2 c2 c2 c1 c1", 0.72111026, 0.52, 1),
        # (1 * 1/5 + 3 * 3/5) / 5; car 5/6, road 0/1
        ("c0 c1 c1 c1 c1 c1", "c2 c2 r c1 c1 c1", 0.40824829, 0.4, 5 / 12),
        # the road pixel makes the predicted track larger: 4 * 4/5 / 4; car 4/5, road 0/1
        ("r c1 c1 c1 c1", "c1 c1 c1 c1 c1", 0.56568542, 0.8, 0.4),
        # (2 * 2/5 + 2 * 2/4) / 4
        ("r c1 c1 c1 c1", "c2 c2 c2 c1 c1", 0.42426407, 0.45, 0.4),
        # (1 * 1/5 + 2 * 2/4) / 4; car 3/5, road 0/2
        ("r c1 c1 c1 c1", "c2 c2 r c1 c1", 0.3, 0.3, 0.3),
    ],
)
def test_worked_examples(target, pred, stq, aq, iou):
    result = stq_of((target, pred))
    assert result["stq"] == pytest.approx(stq, abs=1e-8)
    assert result["aq"] == pytest.approx(aq, abs=1e-12)
    assert result["iou"] == pytest.approx(iou, abs=1e-12)
    assert {k: v for k, v in result.items() if k != "per_sequence"} == result["per_sequence"]["0"]


def test_tracks_span_frames():
    # the first example but over time: one object for five frames, the predicted id changes after two of them
    result = stq_of(*[("c1", "c1")] * 2, *[("c1", "c2")] * 3)
    assert result["stq"] == pytest.approx(0.72111026, abs=1e-8)
    assert (result["num_tracks"], result["num_frames"]) == (1, 5)


def test_swapped_ids():
    result = stq_of(("c1 c2 r", "c1 c2 r"), ("c1 c2 r", "c2 c1 r"))
    # both tracks: 1 * 1/3 + 1 * 1/3, over 2 pixels
    assert result["aq"] == pytest.approx(1 / 3)
    assert result["iou"] == 1


def test_tracks_of_other_thing_classes_count():
    result = stq_of(("c1 c1 r", "p1 p1 r"))
    # the right pixels under the wrong class: AQ 1; IoU of car 0/2, person 0/2, road 1
    assert result["aq"] == 1
    assert result["iou"] == pytest.approx(1 / 3)
    split = stq_of(("c1 c1 r", "p1 c1 r"))
    # one id in two classes is two tracks: (1 * 1/2 + 1 * 1/2) / 2
    assert split["aq"] == pytest.approx(0.5)


def test_predicted_instance_zero_is_a_track():
    assert stq_of(("c1 c1 r", "c0 c0 r"))["aq"] == 1


def test_stuff_is_no_track():
    assert stq_of(("c1 c1 r", "r1 r1 r1"))["aq"] == 0
    assert stq_of(("r1 r2 r3", "r4 r4 r4"))["num_tracks"] == 0


def test_target_void():
    result = stq_of(("c1 c1 . .", "c1 c1 c1 c1"))
    # the predicted track has 4 pixels: 2 * 2/4 / 2; void is left out of IoU
    assert result["aq"] == 0.5
    assert result["iou"] == 1


def test_unlabelled_pixels_may_leave_the_tracks():
    frame = "c1 c1 . .", "c1 c1 c1 c1"
    metric = SegmentationTrackingQuality(**LAYOUT, void_in_tracks=False)
    feed(metric, *frame)
    # the predicted track has the 2 labelled pixels: 2 * 2/2 / 2 instead of 2 * 2/4 / 2
    assert metric.compute()["aq"] == 1
    assert metric.compute()["iou"] == stq_of(frame)["iou"]


@pytest.mark.parametrize("seed", range(5))
def test_video_k_net_drops_unlabelled_pixels_first(seed):
    metric, tracks = SegmentationTrackingQuality(**LAYOUT, void_in_tracks=False), {}
    for sequence_id, target, pred in videos(seed):
        metric.update(*pred, *target, sequence_id=sequence_id)
        labelled = [(g, p) for g, p in zip(segments(target), segments(pred)) if g[0] != VOID]
        tracks.setdefault(sequence_id, []).append(tuple(map(list, zip(*labelled))))
    terms = [term for video in tracks.values() for term in naive_tracks(video)]
    assert metric.compute()["aq"] == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_predicted_void():
    result = stq_of(("r r c1 c1", "r . c1 ."))
    # road 1/2, car 1/2, void as one more class 0/2
    assert result["iou"] == pytest.approx(1 / 3)
    assert result["aq"] == pytest.approx(1 * (1 / 2) / 2)


def test_crowd_pixels_leave_the_predicted_track():
    # track 1 has 2 pixels outside the crowd of another thing class
    assert stq_of(("c1 c1 p0 p0", "c1 c1 c1 c1"))["aq"] == 1


def test_sequences():
    metric = SegmentationTrackingQuality(**LAYOUT)
    feed(metric, "c1 c2 c3 r r r", "c1 c2 c3 r r r", "0002")
    feed(metric, "c1 c1 c1 c1 c1 r", "c1 c1 c2 c2 c2 s", "0006")
    result = metric.compute()
    # AQ is the mean over the 4 tracks, not over the sequences; IoU that of the pooled pixels: car 1, road 3/4, sky 0/1
    assert result["aq"] == pytest.approx((3 + 0.52) / 4)
    assert result["iou"] == pytest.approx((1 + 3 / 4 + 0) / 3)
    assert result["stq"] == pytest.approx(math.sqrt(result["aq"] * result["iou"]))
    per_sequence = result["per_sequence"]
    assert per_sequence["0002"]["stq"] == 1
    assert per_sequence["0006"]["aq"] == pytest.approx(0.52)
    assert per_sequence["0006"]["iou"] == pytest.approx(1 / 3)
    assert [s["num_tracks"] for s in per_sequence.values()] == [3, 1]


def test_a_track_ends_with_its_sequence():
    metric = SegmentationTrackingQuality(**LAYOUT)
    feed(metric, "c1 r", "c1 r", "a")
    feed(metric, "c1 r", "c2 r", "b")
    assert metric.compute()["aq"] == 1


@pytest.mark.parametrize(("target", "pred"), [(". . .", "c1 r ."), (". . .", ". . .")])
def test_all_void_frame(target, pred):
    result = stq_of((target, pred))
    assert (result["stq"], result["aq"], result["iou"]) == (0, 0, 0)


def test_no_update():
    result = SegmentationTrackingQuality().compute()
    assert result == {"stq": 0, "aq": 0, "iou": 0, "num_tracks": 0, "num_frames": 0, "per_sequence": {}}


# Oracle and properties


@pytest.mark.parametrize("seed", range(15))
def test_equals_the_slow_one(seed):
    metric, per_video = SegmentationTrackingQuality(**LAYOUT), {}
    for sequence_id, target, pred in videos(seed):
        metric.update(*pred, *target, sequence_id=sequence_id)
        per_video.setdefault(sequence_id, []).append((segments(target), segments(pred)))
    result = metric.compute()
    for sequence_id, video in [
        *per_video.items(),
        (None, [frame for frames in per_video.values() for frame in frames]),
    ]:
        scores = result if sequence_id is None else result["per_sequence"][sequence_id]
        of_tracks = per_video.values() if sequence_id is None else [video]
        tracks = [t for v in of_tracks for t in naive_tracks(v)]
        ious = naive_ious(video, count_void=True)
        assert scores["num_tracks"] == len(tracks)
        assert scores["aq"] == pytest.approx(sum(tracks) / len(tracks), abs=1e-12)
        assert scores["iou"] == pytest.approx(sum(ious) / len(ious), abs=1e-12)


def test_long_sequences_are_pooled_on_the_way():
    long, sizes = SegmentationTrackingQuality(**LAYOUT), []
    pixels = "c1 c1 c2 r s", "c3 c3 c2 r r"
    for k in range(400):
        feed(long, *pixels)
        if k % 9 == 0:
            sizes.append(len(pickle.dumps(long)))
    assert max(sizes[20:]) < 1.1 * max(sizes[:20])
    assert long.compute()["aq"] == pytest.approx(stq_of(pixels)["aq"])
    assert long.compute()["num_frames"] == 400


def test_perfect_is_one():
    metric = SegmentationTrackingQuality(**LAYOUT)
    for sequence_id, target, _ in videos(1):
        metric.update(*target, *target, sequence_id=sequence_id)
    assert metric.compute()["stq"] == 1


def test_instance_labels_do_not_matter():
    plain, relabelled = SegmentationTrackingQuality(**LAYOUT), SegmentationTrackingQuality(**LAYOUT)
    for sequence_id, target, pred in videos(2):
        plain.update(*pred, *target, sequence_id=sequence_id)
        ids = np.array([9, 33, 70_000, 2])[pred[1]], np.array([0, 3, 1, 2])[target[1]]  # a crowd stays a crowd
        relabelled.update(pred[0], ids[0], target[0], ids[1], sequence_id)
    a, b = plain.compute(), relabelled.compute()
    assert [a[key] for key in ("stq", "aq", "iou")] == pytest.approx(
        [b[key] for key in ("stq", "aq", "iou")], abs=1e-14
    )


@pytest.mark.parametrize("seed", range(3))
def test_merge_equals_joint(seed):
    joint, parts = SegmentationTrackingQuality(**LAYOUT), {}
    for sequence_id, target, pred in videos(seed, (70, *range(1, 9))):
        joint.update(*pred, *target, sequence_id=sequence_id)
        part = parts.setdefault(sequence_id, SegmentationTrackingQuality(**LAYOUT))
        part.update(*pred, *target, sequence_id=sequence_id)
    merged = SegmentationTrackingQuality(**LAYOUT)
    for part in list(parts.values())[::-1]:
        merged.merge(part)
    assert merged.compute() == joint.compute()  # bit for bit
    with pytest.raises(ValueError, match="merge: expected disjoint sequences, got 0001 in both"):
        merged.merge(parts["0001"])


def test_what_comes_after_a_merge_stays_apart():
    merged, part = SegmentationTrackingQuality(**LAYOUT), SegmentationTrackingQuality(**LAYOUT)
    feed(part, "c1 c1 r", "c1 c1 r")
    merged.merge(part)
    before = part.compute()
    feed(merged, "c1 c1 r", "c2 c2 s")
    assert part.compute() == before != merged.compute()


def test_interleaved_sequences():
    plain, interleaved = SegmentationTrackingQuality(**LAYOUT), SegmentationTrackingQuality(**LAYOUT)
    frames = list(videos(4))
    for metric, order in ((plain, frames), (interleaved, sorted(frames, key=lambda f: f[1][0].sum()))):
        for sequence_id, target, pred in order:
            metric.update(*pred, *target, sequence_id=sequence_id)
    assert plain.compute() == interleaved.compute()


def test_reset():
    metric = SegmentationTrackingQuality(**LAYOUT)
    feed(metric, "c1 r", "c2 s")
    metric.reset()
    feed(metric, "c1 r", "c1 r")
    assert metric.compute() == stq_of(("c1 r", "c1 r"))
