"""Calibration and sparsification, worked by hand; bounded memory, exact merging."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from pix2seq_d.metrics import CalibrationError, Sparsification


def test_reliability_by_hand() -> None:
    """Two bins. (0, 1/2]: 0.25 wrong, 0.5 right: confidence 0.375, accuracy 0.5. (1/2, 1]: 0.75, 1, 1, 0.75 with three
    right: confidence 0.875, accuracy 0.75. Both gaps are 0.125, so ECE = (2 * 0.125 + 4 * 0.125) / 6 = MCE.
    """
    metric = CalibrationError(num_bins=2)
    metric.update(np.array([0.25, 0.5, 0.75, 1]), np.array([False, True, True, True]))
    metric.update(np.array([[1, 0.75]]), np.array([[1, 0]]))
    result = metric.compute()
    assert result["bins"] == [
        {"low": 0.0, "high": 0.5, "count": 2, "confidence": 0.375, "accuracy": 0.5},
        {"low": 0.5, "high": 1.0, "count": 4, "confidence": 0.875, "accuracy": 0.75},
    ]
    assert result["ece"] == result["mce"] == 0.125
    assert (result["accuracy"], result["confidence"]) == (4 / 6, 4.25 / 6)
    assert (result["count"], result["num_frames"]) == (6, 2)


def test_ece_weighs_bins_by_number_and_mce_does_not() -> None:
    """0.9 three times right: gap 0.1; 0.1 once right: gap 0.9. ECE (3 * 0.1 + 0.9) / 4 = 0.3."""
    metric = CalibrationError(num_bins=10)
    metric.update(np.array([0.9, 0.9, 0.9, 0.1]), np.ones(4, bool))
    assert metric.compute()["ece"] == pytest.approx(0.3, abs=1e-6)
    assert metric.compute()["mce"] == pytest.approx(0.9, abs=1e-6)


def test_bins_are_closed_above() -> None:
    """Guo et al.: bin m is ((m - 1) / M, m / M]; 0 goes to the first."""
    metric = CalibrationError(num_bins=4)
    metric.update(np.array([0, 0.25, 0.2501, 0.5, 1]), np.zeros(5, bool))
    bins = metric.compute()["bins"]
    assert [b["count"] for b in bins] == [2, 2, 0, 1]
    assert (bins[2]["confidence"], bins[2]["accuracy"]) == (None, None)


def test_sparsification_by_hand() -> None:
    """Errors 1 0 1 0 at uncertainties 1, 2/3, 1/3, 0, points at 0, 1/4, 1/2, 3/4, 1.

    Left: 2/4, then without the first 1/3, 1/2, 0/1, in the limit 0. Oracle: 2/4, 1/3, 0, 0, 0.
    """
    metric = Sparsification(num_points=5)
    metric.update(np.array([1 / 3, 1]), np.array([True, True]))
    metric.update(np.array([0, 2 / 3]), np.array([False, False]))
    result = metric.compute()
    assert result["removed"] == [0, 0.25, 0.5, 0.75, 1]
    assert result["curve"] == pytest.approx([1 / 2, 1 / 3, 1 / 2, 0, 0])
    assert result["oracle"] == pytest.approx([1 / 2, 1 / 3, 0, 0, 0])
    assert result["error"] == 0.5
    assert result["ausc"] == pytest.approx((1 / 4 + 1 / 3 + 1 / 2 + 0) / 4)  # trapezoids
    assert result["auso"] == pytest.approx((1 / 4 + 1 / 3) / 4)
    assert result["ause"] == pytest.approx(1 / 8)
    assert result["ause_of_random"] == pytest.approx((1 / 8) / (1 / 2 - 7 / 48))
    assert result["auroc"] == 3 / 4  # of four pairs (wrong, right) only 1/3 < 2/3 is in the wrong order


def test_the_oracle_and_chance() -> None:
    rng = np.random.default_rng(0)
    error = rng.random(20_000) < 0.2
    best, blind, worst = (Sparsification() for _ in range(3))
    best.update(error, error)
    blind.update(np.full(error.shape, 0.3), error)
    worst.update(1 - error, error)
    assert best.compute()["ause"] == 0
    assert best.compute()["auroc"] == 1
    assert blind.compute()["curve"] == pytest.approx([error.mean()] * 101)
    assert blind.compute()["ause_of_random"] == pytest.approx(1)
    assert blind.compute()["auroc"] == 0.5
    assert worst.compute()["auroc"] == 0
    assert worst.compute()["ause_of_random"] > 2
    assert best.compute()["curve"] == blind.compute()["oracle"] == worst.compute()["oracle"]


def test_errors_may_be_numbers() -> None:
    """Errors 0.5 and 0.25: the oracle leaves 0.25 when half is removed, the wrong order 0.5."""
    metric = Sparsification(num_points=3)
    metric.update(np.array([0.1, 0.9]), np.array([0.5, 0.25]))
    assert metric.compute()["curve"] == pytest.approx([0.375, 0.5, 0.5])
    assert metric.compute()["oracle"] == pytest.approx([0.375, 0.25, 0.25])


def test_levels_tell_a_thousandth() -> None:
    metric, error = Sparsification(), np.zeros(100, bool)
    error[-50:] = True
    metric.update(np.linspace(0, 0.1, 100), error)
    assert metric.compute()["ause"] < 0.005


@pytest.mark.parametrize("make", [CalibrationError, Sparsification])
def test_only_what_is_valid_counts(make: type) -> None:
    said, true = np.array([[0.25, np.nan], [1, 0.5]]), np.array([[True, True], [False, True]])
    metric, other = make(), make()
    metric.update(said, true, valid=~np.isnan(said))
    other.update(torch.tensor([0.25, 1, 0.5]), torch.tensor([True, False, True]))
    assert metric.compute() == other.compute()


@pytest.mark.parametrize("make", [CalibrationError, Sparsification])
def test_merging_is_exact_in_any_order(make: type) -> None:
    rng = np.random.default_rng(1)
    frames = [(rng.random((7, 9), np.float32), rng.random((7, 9)) < 0.3) for _ in range(6)]

    def seen(numbers: list[int]) -> CalibrationError | Sparsification:
        metric = make()
        for k in numbers:
            metric.update(*frames[k], f"v{k % 2}")
        return metric

    merged = seen([4, 1])
    merged.merge(seen([5, 0, 3]))
    merged.merge(seen([2]))
    assert merged.compute() == seen(list(range(6))).compute()
    with pytest.raises(ValueError, match="merge: expected"):
        merged.merge(make(7))


@pytest.mark.parametrize("make", [CalibrationError, Sparsification])
def test_memory_does_not_grow(make: type) -> None:
    rng, metric = np.random.default_rng(2), make()
    sizes = []
    for _ in range(3):
        metric.update(rng.random((50, 60)), rng.random((50, 60)))
        sizes.append(len(pickle.dumps(metric)))
    assert max(sizes) - min(sizes) < 20


def test_nothing_has_no_score() -> None:
    assert CalibrationError().compute()["ece"] == 0
    empty = Sparsification()
    assert (empty.compute()["ause"], empty.compute()["curve"]) == (None, [])
    empty.update(np.array([0.5]), np.array([1.0]), valid=np.array([False]))
    assert empty.compute()["error"] is None
    empty.update(np.array([0.5, 0.1]), np.array([0, 0]))
    assert (empty.compute()["ause"], empty.compute()["ause_of_random"], empty.compute()["auroc"]) == (0, None, None)
    empty.reset()
    assert empty.compute()["count"] == 0


@pytest.mark.parametrize(
    ("make", "names"), [(CalibrationError, ("confidence", "correct")), (Sparsification, ("uncertainty", "error"))]
)
def test_refusals(make: type, names: tuple[str, str]) -> None:
    metric, ok = make(), np.zeros((2, 3))
    where = "^sequence 'a', frame 4: expected"
    with pytest.raises(ValueError, match=rf"{where} {names[1]} of the shape \(2, 3\), got \(3, 2\)"):
        metric.update(ok, ok.T, "a", frame=4)
    with pytest.raises(ValueError, match=rf"{where} valid of the shape \(2, 3\), got \(3,\)"):
        metric.update(ok, ok, "a", valid=np.ones(3, bool), frame=4)
    with pytest.raises(TypeError, match=rf"{where} valid as booleans, got float64"):
        metric.update(ok, ok, "a", valid=ok, frame=4)
    for wrong in (1.5, -0.1, np.nan):
        with pytest.raises(ValueError, match=rf"{where} {names[0]} in \[0, 1\], got {wrong}"):
            metric.update(ok + wrong, ok, "a", frame=4)
        with pytest.raises(ValueError, match=rf"{where} {names[1]} in \[0, 1\], got {wrong}"):
            metric.update(ok, ok + wrong, "a", frame=4)
    assert metric.compute()["count"] == metric.compute()["num_frames"] == 0
    metric.update(ok, ok, "a", frame=4)
    with pytest.raises(ValueError, match="frame 3: expected frames in ascending order"):
        metric.update(ok, ok, "a", frame=3)
    with pytest.raises(ValueError, match=r"num_\w+: expected at least \d, got 0"):
        make(0)
