"""J and F: drawings with their arithmetic, a slow oracle, proposals, given objects, void, merging and bad input."""

import numpy as np
import pytest
import torch
from object_oracles import METRICS, naive_statistics, naive_unsupervised

from pix2seq_d.metrics import JAndF, j_and_f

KEYS = ("j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")


def boxes(*columns, shape=(12, 24)):
    """A map with objects 1, 2, ... of 6 rows and the given columns (start, end)."""
    m = np.zeros(shape, np.uint8)
    for k, (start, end) in enumerate(columns, 1):
        m[3:9, start:end] = k
    return m


def blobs(rng, num_objects, shape=(9, 13), void=False):
    cells = rng.integers(0, num_objects + 1, ((shape[0] + 2) // 3, (shape[1] + 2) // 3))
    m = np.kron(cells, np.ones((3, 3), int))[: shape[0], : shape[1]]
    m[0, :num_objects] = range(1, num_objects + 1)  # all of them occur
    if void:
        m[4:6, 3:8] = 255
    return m


def video(seed, length, num_objects, num_proposals, *, void=False):
    rng = np.random.default_rng(seed)
    targets = [blobs(rng, num_objects, void=void) for _ in range(length)]
    preds = []
    for t in targets:
        other = blobs(rng, num_proposals)
        preds.append(np.where((rng.random(t.shape) < 0.3) | (t > num_proposals), other, t))
    return preds, targets


def test_half_of_an_object():
    result = j_and_f(boxes((4, 8)), boxes((4, 12)))
    # 24 of 48 pixels
    scores = result["per_sequence"]["0"]["per_object"][1]
    assert result["j_mean"] == scores["j_mean"] == 0.5
    assert (result["j_recall"], result["j_decay"]) == (0, 0)
    # boundaries: rings of rows 2 to 8 and columns 3 to 7 (20 pixels) and 3 to 11 (28); the radius is 1. Of the
    # predicted one all but 3 pixels of its right side are near: 17 / 20; of the target's 6 + 6 + 5: 17 / 28
    precision, recall = 17 / 20, 17 / 28
    assert result["f_mean"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert result["j_and_f"] == (result["j_mean"] + result["f_mean"]) / 2
    assert (result["num_objects"], result["num_frames"]) == (1, 1)


def test_a_shift_of_the_radius_costs_no_boundary():
    result = j_and_f(boxes((5, 13)), boxes((4, 12)))
    assert result["f_mean"] == 1
    assert result["j_mean"] == pytest.approx(7 / 9)


def test_proposals_are_assigned_over_the_whole_video():
    target = boxes((2, 8), (12, 20))
    swapped = boxes((12, 20), (2, 8))
    result = j_and_f([swapped, swapped, target], [target] * 3)
    # as object 1 proposal 2 is right in two of three frames
    objects = result["per_sequence"]["0"]["per_object"]
    assert {i: scores["pred_id"] for i, scores in objects.items()} == {1: 2, 2: 1}
    assert result["j_mean"] == result["j_recall"] == pytest.approx(2 / 3)
    # of three frames the first two are the first quarter, the last one is the last
    assert result["j_decay"] == 1
    given = j_and_f([target, swapped, target, target], [target] * 4, task="semi-supervised")
    assert given["j_mean"] == 0.5  # frames 2 and 3


def test_missing_and_absent_objects():
    target, empty = boxes((2, 8), (12, 20)), boxes()
    result = j_and_f([boxes((2, 8))] * 2, [target, boxes((2, 8))])
    objects = result["per_sequence"]["0"]["per_object"]
    # object 2 has no proposal: 0 where it is there, 1 where it is not
    assert objects[2] | {"pred_id": 0} == objects[2] | {"pred_id": 0, "j_mean": 0.5, "f_mean": 0.5}
    assert objects[2]["pred_id"] is None
    assert objects[1]["j_and_f"] == 1
    # a proposal that comes late was empty before
    late = j_and_f([empty, boxes((2, 8))], [boxes((2, 8))] * 2)
    assert (late["j_mean"], late["f_mean"], late["j_decay"]) == (0.5, 0.5, -1)
    # an object that comes late is background
    assert j_and_f([target] * 2, [boxes((2, 8)), target])["num_objects"] == 1


def test_void():
    target, pred = boxes((4, 12)), boxes((4, 18))
    target[3:9, 12:18] = 255
    assert j_and_f(pred, target)["j_and_f"] == 1  # left out
    given = j_and_f([pred] * 3, [target] * 3, task="semi-supervised")
    assert given["j_mean"] == pytest.approx(8 / 14)  # background
    pred[:3] = 255  # predicted void is background
    assert j_and_f(pred, target)["j_and_f"] == 1


def test_the_first_and_the_last_given_frame_are_not_scored():
    target, wrong = boxes((4, 12)), boxes((14, 20))
    assert j_and_f([wrong, target, target, wrong], [target] * 4, task="semi-supervised")["j_and_f"] == 1
    assert j_and_f([wrong, target, target, wrong], [target] * 4)["j_mean"] == 0.5


def test_no_objects():
    result = j_and_f([boxes((2, 8))] * 3, [boxes()] * 3)
    assert {result[key] for key in KEYS} == {0}
    assert result["num_objects"] == 0
    assert JAndF().compute() == {
        **dict.fromkeys(("j_and_f", *KEYS), 0),
        "num_objects": 0,
        "num_frames": 0,
        "per_sequence": {},
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("num_objects", "num_proposals", "void"), [(2, 2, False), (3, 2, True), (2, 4, True)])
def test_unsupervised_equals_the_slow_one(seed, num_objects, num_proposals, void):
    preds, targets = video(seed, 5, num_objects, num_proposals, void=void)
    result = j_and_f(preds, targets)
    expected = naive_unsupervised(preds, targets)
    objects = result["per_sequence"]["0"]["per_object"].values()
    for scores, wanted in zip(objects, expected, strict=True):
        assert [scores[key] for key in KEYS] == pytest.approx(wanted, abs=1e-12)
    assert [result[key] for key in KEYS] == pytest.approx(np.mean(expected, 0), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_semi_supervised_equals_the_slow_one(seed):
    preds, targets = video(seed, 8, 3, 3)
    objects = j_and_f(preds, targets, task="semi-supervised")["per_sequence"]["0"]["per_object"]
    for i, scores in objects.items():
        wanted = ()
        for metric in METRICS:
            wanted += naive_statistics([metric(p == i, t == i) for p, t in zip(preds[1:-1], targets[1:-1])])
        assert [scores[key] for key in KEYS] == pytest.approx(wanted, abs=1e-12)
        assert scores["pred_id"] == i


@pytest.mark.parametrize("task", ["unsupervised", "semi-supervised"])
def test_perfect_is_one(task):
    _, targets = video(3, 6, 4, 4)
    result = j_and_f(targets, targets, task=task)
    assert {result[key] for key in ("j_and_f", "j_mean", "j_recall", "f_mean", "f_recall")} == {1}
    assert result["j_decay"] == result["f_decay"] == 0


def test_ids_do_not_matter():
    preds, targets = video(4, 5, 3, 4)
    names = np.array([0, 70_000, 9, 256, 41])
    renamed = j_and_f([names[p] for p in preds], [names[t] for t in targets])
    plain = j_and_f(preds, targets)
    assert [renamed[key] for key in KEYS] == pytest.approx([plain[key] for key in KEYS], abs=1e-14)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint16"])
def test_dtypes_tensors_and_views(dtype):
    preds, targets = video(5, 3, 3, 3)
    plain = j_and_f(preds, targets)
    cast = [[np.asfortranarray(m.astype(dtype)) for m in maps] for maps in (preds, targets)]
    assert j_and_f(*cast) == plain
    assert j_and_f(*(torch.from_numpy(np.stack(maps)) for maps in cast)) == plain


@pytest.mark.gpu
def test_gpu_tensors_equal_arrays():
    preds, targets = video(5, 3, 3, 3)
    assert j_and_f(*(torch.from_numpy(np.stack(m)).cuda() for m in (preds, targets))) == j_and_f(preds, targets)


def test_sequences_are_averaged_by_object():
    metric = JAndF()
    two, one = boxes((2, 8), (12, 20)), boxes((4, 12))
    for target, pred, sequence_id in ((two, two, "a"), (two, two, "a"), (one, boxes((14, 20)), "b")):
        metric.update(pred, target, sequence_id)
    result = metric.compute()
    assert result["j_mean"] == pytest.approx((1 + 1 + 0) / 3)
    assert (result["num_objects"], result["num_frames"]) == (3, 3)
    assert [s["j_mean"] for s in result["per_sequence"].values()] == [1, 0]
    assert [s["num_frames"] for s in result["per_sequence"].values()] == [2, 1]


# Bad input: one line that names the place


def test_bad_settings():
    with pytest.raises(ValueError, match="task: expected one of unsupervised, semi-supervised, got 'supervised'"):
        JAndF("supervised")
    with pytest.raises(ValueError, match="max_proposals: expected at least 1, got 0"):
        JAndF(max_proposals=0)


@pytest.mark.parametrize(
    ("pred", "target", "error", "message"),
    [
        (boxes().astype(float), boxes(), TypeError, "pred of an integer dtype, got float64"),
        (boxes(), boxes().tolist(), TypeError, "target as a NumPy array or a tensor, got list"),
        (boxes()[None], boxes(), ValueError, r"pred of shape \(H, W\), got \(1, 12, 24\)"),
        (boxes()[:5], boxes(), ValueError, r"pred of the target's shape \(12, 24\), got \(5, 24\)"),
        (boxes() - np.int8(1), boxes(), ValueError, "pred ids of at least 0, got -1"),
        (boxes(), boxes().astype(int) - 7, ValueError, "target ids of at least 0, got -7"),
        (np.arange(288).reshape(12, 24), boxes(), ValueError, "at most 20 proposals, got 286"),
    ],
)
def test_bad_maps(pred, target, error, message):
    metric = JAndF()
    metric.update(boxes((2, 8)), boxes((2, 8)), "judo", frame=0)
    before = metric.compute()
    for sequence_id, frame in (("judo", 5), ("dogs", 0)):
        with pytest.raises(error, match=f"^sequence '{sequence_id}', frame {frame}: expected {message}$"):
            metric.update(pred, target, sequence_id, frame=frame)
    assert metric.compute() == before


def test_ids_that_were_not_given():
    metric = JAndF("semi-supervised")
    metric.update(boxes((2, 8)), boxes((2, 8)), "judo")
    with pytest.raises(
        ValueError, match=r"^sequence 'judo', frame 1: expected pred ids of the first frame's objects \[1\], got 2$"
    ):
        metric.update(boxes((2, 8), (12, 20)), boxes((2, 8)), "judo")
    with pytest.raises(ValueError, match=r"^sequence 'judo': expected at least 3 frames, got 1$"):
        metric.compute()
    with pytest.raises(ValueError, match=r"^sequence 'judo': expected at least 3 frames, got 1$"):
        metric.update(boxes((2, 8)), boxes((2, 8)), "dogs")
    for _ in range(2):
        metric.update(boxes((2, 8)), boxes((2, 8)), "judo")
    assert metric.compute()["j_and_f"] == 1
