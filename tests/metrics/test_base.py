"""What all metrics share: the order of frames, merging of shards in other processes, associativity."""

import multiprocessing
import pickle

import numpy as np
import pytest
from metric_oracles import LAYOUT, videos

from pix2seq_d.metrics import JAndF, MeanIoU, PanopticQuality, SegmentationTrackingQuality, VideoPanopticQuality

METRICS = {
    "pq": lambda: PanopticQuality(**LAYOUT),
    "vpq": lambda: VideoPanopticQuality(**LAYOUT),
    "stq": lambda: SegmentationTrackingQuality(**LAYOUT),
    "miou": lambda: MeanIoU(LAYOUT["num_classes"], LAYOUT["void_id"]),
    "jf": JAndF,
}
LENGTHS = (4, 3, 5, 2, 6, 1, 3, 4)


def add(metric, sequence_id, target, pred, frame=None):
    maps = (pred[1], target[1]) if isinstance(metric, JAndF) else (*pred, *target)
    metric.update(*maps, sequence_id=sequence_id, frame=frame)


def evaluate(name, shard, seed=5):
    """A metric of the sequences of one of four shards, or of all."""
    metric = METRICS[name]()
    for sequence_id, target, pred in videos(seed, LENGTHS):
        if shard is None or int(sequence_id) % 4 == shard:
            add(metric, sequence_id, target, pred)
    return metric


def evaluate_all(shard):
    return pickle.dumps({name: evaluate(name, shard) for name in METRICS})


def test_four_processes_equal_one():
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("processes cannot be forked here")
    with multiprocessing.get_context("fork").Pool(4) as workers:
        shards = [pickle.loads(s) for s in workers.map(evaluate_all, range(4), chunksize=1)]
    for name in METRICS:
        merged = METRICS[name]()
        for shard in (shards[2], shards[0], shards[3], shards[1]):
            merged.merge(shard[name])
        assert merged.compute() == evaluate(name, None).compute()  # bit for bit


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(3))
def test_merging_is_associative(name, seed):
    def shard(k):
        return evaluate(name, k, seed)

    left, right, inner = shard(0), shard(0), shard(1)
    left.merge(shard(1))
    left.merge(shard(2))
    inner.merge(shard(2))
    right.merge(inner)
    empty = METRICS[name]()
    empty.merge(right)
    assert left.compute() == right.compute() == empty.compute()


@pytest.mark.parametrize("name", ["vpq", "stq", "jf"])
def test_a_sequence_in_two_shards_is_refused(name):
    merged, before = evaluate(name, 1), evaluate(name, 1).compute()
    with pytest.raises(ValueError, match="merge: expected disjoint sequences, got 0001, 0005 in both"):
        merged.merge(evaluate(name, 1))
    assert merged.compute() == before


@pytest.mark.parametrize("name", ["pq", "miou"])
def test_metrics_of_frames_may_share_a_sequence(name):
    halves, whole = [METRICS[name](), METRICS[name]()], METRICS[name]()
    for k, (sequence_id, target, pred) in enumerate(videos(6)):
        add(halves[k % 2], sequence_id, target, pred)
        add(whole, sequence_id, target, pred)
    halves[0].merge(halves[1])
    assert halves[0].compute() == whole.compute()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (PanopticQuality(), PanopticQuality(ignore_crowd=False)),
        (PanopticQuality(), PanopticQuality(empty_classes="zero")),
        (VideoPanopticQuality(), VideoPanopticQuality(windows=(1, 2))),
        (SegmentationTrackingQuality(), SegmentationTrackingQuality(void_in_tracks=False)),
        (JAndF(), JAndF("semi-supervised")),
    ],
)
def test_merge_refuses_other_settings(one, other):
    with pytest.raises(ValueError, match=r"merge: expected \{.*\}, got \{.*\}"):
        one.merge(other)
    with pytest.raises(TypeError, match=f"merge: expected a {type(one).__name__}, got a MeanIoU"):
        one.merge(MeanIoU())


# Order of frames


@pytest.mark.parametrize("name", METRICS)
def test_frames_come_in_order(name):
    metric = METRICS[name]()
    frames = [(target, pred) for _, target, pred in videos(0, (4,))]
    add(metric, "a", *frames[0], frame=3)
    add(metric, "a", *frames[1], frame=8)  # gaps are allowed
    before = metric.compute()
    for frame in (8, 5):
        with pytest.raises(
            ValueError, match=f"^sequence 'a', frame {frame}: expected frames in ascending order, got it after 8$"
        ):
            add(metric, "a", *frames[2], frame=frame)
    assert metric.compute() == before
    add(metric, "a", *frames[2])  # without a number nothing is known
    add(metric, "b", *frames[3], frame=0)
    assert metric.num_frames == {"a": 3, "b": 1}
    metric.reset()
    add(metric, "a", *frames[0], frame=1)


@pytest.mark.parametrize("name", ["vpq", "jf"])
def test_a_sequence_cannot_be_opened_again(name):
    metric = METRICS[name]()
    target, pred = next((target, pred) for _, target, pred in videos(0, (1,)))
    add(metric, "a", target, pred, frame=0)
    add(metric, 7, target, pred, frame=0)
    before = metric.compute()
    with pytest.raises(ValueError, match=r"^sequence 'a', frame 12: expected all frames in one go, got one after 7$"):
        add(metric, "a", target, pred, frame=12)
    assert metric.compute() == before
    other = METRICS[name]()
    add(other, "c", target, pred)
    metric.merge(other)
    with pytest.raises(ValueError, match=r"^sequence 'c', frame 1: expected all frames in one go, got one after 7$"):
        add(metric, "c", target, pred)
    add(metric, 7, target, pred, frame=1)


def test_a_merge_knows_the_newest_frame():
    a, b = PanopticQuality(**LAYOUT), PanopticQuality(**LAYOUT)
    target, pred = next((target, pred) for _, target, pred in videos(0, (1,)))
    add(a, "a", target, pred, frame=2)
    add(b, "a", target, pred, frame=9)
    a.merge(b)
    with pytest.raises(ValueError, match="sequence 'a', frame 9: expected frames in ascending order, got it after 9"):
        add(a, "a", target, pred, frame=9)


def test_computing_changes_nothing():
    for name in METRICS:
        once, often = METRICS[name](), METRICS[name]()
        for sequence_id, target, pred in videos(8):
            add(once, sequence_id, target, pred)
            add(often, sequence_id, target, pred)
            often.compute()
        assert once.compute() == often.compute(), name


def test_memory_is_bounded_by_the_segments():
    rng = np.random.default_rng(0)
    classes = rng.choice([0, 1, 2, 3], (2, 20, 30)).astype(np.uint8)  # noise, the worst case
    metrics = [METRICS[name]() for name in ("pq", "vpq", "stq", "miou")]
    sizes = []
    for k in range(200):
        ids = rng.integers(1, 5, (2, 20, 30))
        for metric in metrics:
            metric.update(classes[0], ids[0], classes[1], ids[1])
        if k % 8 == 0:
            sizes.append(sum(len(pickle.dumps(metric)) for metric in metrics))
    assert max(sizes[13:]) < 1.1 * max(sizes[:13])
