"""The joint histogram: drawings, dtypes, devices, sizes, pooling and every bad input."""

from collections import Counter

import numpy as np
import pytest
import torch
from metric_oracles import LAYOUT, VOID, draw, random_maps, segments, similar_maps

from pix2seq_d.metrics import MeanIoU, PanopticQuality, SegmentationTrackingQuality, VideoPanopticQuality
from pix2seq_d.metrics.counts import INSTANCE_BITS, ClassLayout, _count_tensors, joint_counts, pool

CLASSES = ClassLayout(LAYOUT["num_classes"], LAYOUT["thing_ids"], LAYOUT["void_id"])
FIELDS = ("target_key", "pred_key", "area")
MAP_NAMES = ("pred_semantic", "pred_instance", "target_semantic", "target_instance")


def count(pred, target, layout=CLASSES):
    return joint_counts(*pred, *target, layout=layout, where="here")


def as_dict(counts):
    def segment(key):
        return key >> INSTANCE_BITS, key & ((1 << INSTANCE_BITS) - 1)

    rows = zip(*(getattr(counts, f).tolist() for f in FIELDS))
    return {(segment(g), segment(p)): n for g, p, n in rows}


def assert_equal(a, b):
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), strict=True)


def test_pairs_of_a_drawing():
    counts = count(draw("c1 c2 r7 . c0"), draw("c1 c1 r3 .4 s"))
    # stuff and void lose their instance ids, things keep them
    assert as_dict(counts) == {
        ((3, 1), (3, 1)): 1,
        ((3, 1), (3, 2)): 1,
        ((0, 0), (0, 0)): 1,
        ((VOID, 0), (VOID, 0)): 1,
        ((1, 0), (3, 0)): 1,
    }
    assert counts.target_class.tolist() == [0, 1, 3, 3, VOID]
    assert counts.pred_class.tolist() == [0, 3, 3, 3, VOID]
    assert count(draw("r r r"), draw("c0 c1 r")).target_crowd.tolist() == [False, True, False]


@pytest.mark.parametrize("seed", range(20))
def test_equals_a_dictionary(seed):
    rng = np.random.default_rng(seed)
    pred, target = random_maps(rng, (5, 7)), random_maps(rng, (5, 7))
    assert as_dict(count(pred, target)) == Counter(zip(segments(target), segments(pred)))


def test_pairs_are_sorted_and_unique():
    rng = np.random.default_rng(0)
    counts = count(random_maps(rng, (40, 50)), random_maps(rng, (40, 50)))
    rows = list(zip(counts.target_key.tolist(), counts.pred_key.tolist()))
    assert rows == sorted(set(rows))
    assert counts.area.sum() == 2000
    assert counts.area.min() > 0


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integer_dtypes_of_arrays(dtype):
    rng = np.random.default_rng(1)
    (pc, pi), (tc, ti) = random_maps(rng, void=False), random_maps(rng, void=False)
    expected = count((pc, pi), (tc, ti))
    assert_equal(count((pc.astype(dtype), pi.astype(dtype)), (tc.astype(dtype), ti.astype(dtype))), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_tensors_equal_arrays(dtype):
    rng = np.random.default_rng(2)
    (pc, pi), (tc, ti) = random_maps(rng), random_maps(rng)
    expected = count((pc, pi), (tc, ti))
    tensors = [torch.from_numpy(m.astype(np.int64)).to(dtype) for m in (pc, pi, tc, ti)]
    assert_equal(count(tensors[:2], tensors[2:]), expected)
    assert_equal(count(tensors[:2], (tc, ti)), expected)  # mixed


def test_non_contiguous_maps():
    rng = np.random.default_rng(3)
    (pc, pi), (tc, ti) = random_maps(rng, (8, 10)), random_maps(rng, (8, 10))
    views = [m[::-1, ::2].T for m in (pc, pi, tc, ti)]
    assert not views[0].flags.c_contiguous
    copies = [np.ascontiguousarray(v) for v in views]
    expected = count(copies[:2], copies[2:])
    assert_equal(count(views[:2], views[2:]), expected)
    tensors = [torch.from_numpy(m.copy()).flip(0)[:, ::2].T for m in (pc, pi, tc, ti)]
    assert not tensors[0].is_contiguous()
    assert_equal(count(tensors[:2], tensors[2:]), expected)


def test_more_segments_than_16_bits_hold():
    n = 300
    ids = np.arange(1, n * n + 1).reshape(n, n)  # 90,000 segments of one pixel
    cars = np.full((n, n), 3, np.uint8)
    counts = count((cars, ids), (cars, ids * 1_000_003))  # the second map is too wide for a table
    assert len(counts.area) == n * n
    assert_equal(on_device((cars, ids), (cars, ids * 1_000_003)), counts)
    assert (counts.area == 1).all()
    assert (counts.target_key & ((1 << INSTANCE_BITS) - 1)).tolist() == (ids.ravel() * 1_000_003).tolist()


def test_largest_instance_id():
    top = (1 << INSTANCE_BITS) - 1
    cars, ids = np.full((1, 2), 3), np.array([[top, top - 1]])
    counts = count((cars, ids), (cars, ids))
    assert as_dict(counts) == {((3, top), (3, top)): 1, ((3, top - 1), (3, top - 1)): 1}
    assert_equal(on_device((cars, ids), (cars, ids)), counts)


def on_device(pred, target, layout=CLASSES):
    """What GPU tensors go through, on CPU tensors."""
    maps = dict(zip(MAP_NAMES, (torch.from_numpy(np.asarray(m)) for m in (*pred, *target))))
    return _count_tensors(maps, layout, "here")


@pytest.mark.parametrize("noise", [0, 0.05, 1])
@pytest.mark.parametrize("ids", [4, 300, 1 << 40])
def test_tensors_are_counted_alike_on_their_device(noise, ids):
    rng = np.random.default_rng(ids % 97)
    target = random_maps(rng, (40, 60))
    pred = similar_maps(rng, target, noise)
    many = rng.integers(0, ids, 4)  # few and small, many, or too large for any table
    pred, target = (pred[0], many[pred[1]]), (target[0], many[::-1][target[1]])
    assert_equal(on_device(pred, target), count(pred, target))
    assert as_dict(on_device(pred, target)) == as_dict(count(pred, target))


def test_noise_is_counted_pixel_by_pixel():
    # maps without runs, whose segments are few, or more than a table holds
    rng = np.random.default_rng(8)
    classes = rng.choice([0, 1, 2, 3, VOID], (2, 60, 70)).astype(np.uint8)
    for high in (3, 5000):
        ids = rng.integers(0, high, (2, 60, 70))
        pred, target = ((classes[k], ids[k]) for k in (0, 1))
        expected = Counter(zip(segments(target), segments(pred)))
        assert as_dict(count(pred, target)) == expected
        assert_equal(on_device(pred, target), count(pred, target))


@pytest.mark.gpu
def test_gpu_tensors_equal_arrays():
    rng = np.random.default_rng(5)
    (pc, pi), (tc, ti) = random_maps(rng, (60, 70)), random_maps(rng, (60, 70))
    tensors = [torch.from_numpy(m).cuda() for m in (pc, pi, tc, ti)]
    assert_equal(count(tensors[:2], tensors[2:]), count((pc, pi), (tc, ti)))


def test_pooling_equals_one_wide_frame():
    rng = np.random.default_rng(6)
    frames = [(random_maps(rng), random_maps(rng)) for _ in range(4)]
    wide = [tuple(np.concatenate([f[side][m] for f in frames], 1) for m in (0, 1)) for side in (0, 1)]
    assert_equal(pool([count(p, t) for p, t in frames]), count(*wide))


def test_instances_may_be_left_out_where_there_are_no_things():
    stuff = ClassLayout(4, (), VOID)
    classes, ids = random_maps(np.random.default_rng(7))
    assert_equal(count((classes, None), (classes, None), stuff), count((classes, ids), (classes, ids), stuff))
    with pytest.raises(TypeError, match=r"here: expected instance maps for the thing classes \(2, 3\), got None"):
        count((classes, None), (classes, ids))


# Bad input: one line that names the place and the map

GOOD = (np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.int32))


def with_value(value, dtype=np.int64):
    m = np.zeros((2, 3), dtype)
    m[1, 2] = value
    return m


@pytest.mark.parametrize(
    ("pred", "target", "error", "message"),
    [
        ((GOOD[0].astype(float), GOOD[1]), GOOD, TypeError, "pred_semantic of an integer dtype, got float64"),
        (GOOD, (GOOD[0].astype(bool), GOOD[1]), TypeError, "target_semantic of an integer dtype, got bool"),
        ((torch.zeros(2, 3), GOOD[1]), GOOD, TypeError, "pred_semantic of an integer dtype, got torch.float32"),
        ((GOOD[0], torch.zeros(2, 3) > 0), GOOD, TypeError, "pred_instance of an integer dtype, got torch.bool"),
        ((GOOD[0].tolist(), GOOD[1]), GOOD, TypeError, "pred_semantic as a NumPy array or a tensor, got list"),
        (GOOD, (GOOD[0].tolist(), GOOD[1]), TypeError, "target_semantic as a NumPy array or a tensor, got list"),
        ((GOOD[0][None], GOOD[1]), GOOD, ValueError, r"pred_semantic of shape \(H, W\), got \(1, 2, 3\)"),
        ((GOOD[0][:, :0], GOOD[1]), GOOD, ValueError, r"pred_semantic of shape \(H, W\), got \(2, 0\)"),
        ((GOOD[0].T, GOOD[1]), GOOD, ValueError, r"pred_semantic of the target's shape \(2, 3\), got \(3, 2\)"),
        (GOOD, (GOOD[0], GOOD[1][:1]), ValueError, r"target_instance of the target's shape \(2, 3\), got \(1, 3\)"),
        ((with_value(-1), GOOD[1]), GOOD, ValueError, r"pred_semantic class ids 0\.\.3 or 255 \(void\), got -1"),
        ((with_value(4), GOOD[1]), GOOD, ValueError, r"pred_semantic class ids 0\.\.3 or 255 \(void\), got 4"),
        (GOOD, (with_value(256), GOOD[1]), ValueError, r"target_semantic class ids .*, got 256"),
        (GOOD, (GOOD[0], with_value(-7)), ValueError, r"target_instance ids in 0\.\.2\^47 - 1, got -7"),
        ((GOOD[0], with_value(1 << 63, np.uint64)), GOOD, ValueError, "pred_instance ids .*, got 9223372036854775808"),
    ],
)
@pytest.mark.parametrize("metric", [PanopticQuality, VideoPanopticQuality, SegmentationTrackingQuality])
def test_bad_maps(pred, target, error, message, metric):
    m = metric(**LAYOUT)
    m.update(*GOOD, *GOOD, sequence_id="0002")
    before = m.compute()
    with pytest.raises(error, match=f"^sequence '0002', frame 1: expected {message}$"):
        m.update(*pred, *target, sequence_id="0002")
    assert m.compute() == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pred_semantic", -1, r"class ids 0\.\.3 or 255 \(void\), got -1"),
        ("target_semantic", 17, r"class ids 0\.\.3 or 255 \(void\), got 17"),
        ("target_semantic", 1 << 40, r"class ids 0\.\.3 or 255 \(void\), got 1099511627776"),
        ("pred_instance", -3, r"ids in 0\.\.2\^47 - 1, got -3"),
        ("target_instance", 1 << 47, r"ids in 0\.\.2\^47 - 1, got 140737488355328"),
    ],
)
def test_bad_ids_on_a_device(name, value, message):
    maps = dict(zip(MAP_NAMES, (*GOOD, *GOOD)))
    maps[name] = with_value(value)
    with pytest.raises(ValueError, match=f"^here: expected {name} {message}$"):
        on_device((maps["pred_semantic"], maps["pred_instance"]), (maps["target_semantic"], maps["target_instance"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, r"num_classes: expected 1\.\.65535, got 0"),
        ({"void_id": -1}, r"void_id: expected 0\.\.65535, got -1"),
        ({"thing_ids": (19,)}, r"thing_ids: expected classes 0\.\.18 other than void, got 19"),
        ({"thing_ids": (3,), "void_id": 3}, r"thing_ids: expected classes 0\.\.18 other than void, got 3"),
    ],
)
@pytest.mark.parametrize("metric", [PanopticQuality, VideoPanopticQuality, SegmentationTrackingQuality])
def test_bad_layouts(arguments, message, metric):
    with pytest.raises(ValueError, match=message):
        metric(**arguments)


@pytest.mark.parametrize("metric", [PanopticQuality, VideoPanopticQuality, SegmentationTrackingQuality, MeanIoU])
def test_counts_of_other_classes_are_refused(metric):
    with pytest.raises(ValueError, match="counts: expected ClassLayout"):
        metric().update_counts(count(GOOD, GOOD))


def test_merge_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"merge: expected ClassLayout\(num_classes=19, .*, got ClassLayout"):
        MeanIoU(19).merge(MeanIoU(11))
    with pytest.raises(TypeError, match="merge: expected a PanopticQuality, got a MeanIoU"):
        PanopticQuality().merge(MeanIoU(11))


def test_frame_numbers_are_in_the_messages():
    metric = PanopticQuality(**LAYOUT)
    metric.update(*GOOD, *GOOD, sequence_id="0002", frame=41)
    with pytest.raises(ValueError, match=r"^sequence '0002', frame 42: expected pred_semantic class ids .*, got 9$"):
        metric.update(with_value(9), GOOD[1], *GOOD, sequence_id="0002", frame=42)
