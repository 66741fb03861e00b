"""Assignment: every small problem against all permutations."""

from itertools import permutations

import numpy as np
import pytest

from pix2seq_d.metrics.assignment import best_assignment, match_pairs


def test_greedy_is_not_best():
    # row 0 would take column 0, which costs row 1 more: 0.9 + 0.1 < 0.8 + 0.8
    assert best_assignment(np.array([[0.9, 0.8], [0.8, 0.1]])).tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_best_permutation(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    m = int(rng.integers(n, 7))
    score = rng.normal(size=(n, m)) if seed % 2 else rng.integers(0, 3, (n, m)) / 2  # the latter with many ties
    columns = best_assignment(score)
    assert len(set(columns.tolist())) == n
    best = max(score[range(n), columns_].sum() for columns_ in map(list, permutations(range(m), n)))
    assert score[range(n), columns].sum() == pytest.approx(best, abs=1e-12)


def test_no_rows():
    assert best_assignment(np.zeros((0, 3))).shape == (0,)


def test_a_diagonal_of_twenty_is_found():
    order = np.random.default_rng(0).permutation(20)
    score = np.random.default_rng(1).random((20, 20)) * 0.5
    score[range(20), order] += 0.6
    assert best_assignment(score).tolist() == order.tolist()


def test_more_rows_than_columns():
    with pytest.raises(ValueError, match=r"score: expected at most as many rows as columns, got \(3, 2\)"):
        best_assignment(np.zeros((3, 2)))


def test_pairs_stay_alone_rather_than_below_the_least() -> None:
    """Rows 0 and 1 want column 0: .9 + .4 is more than .8 + .3, and row 2 has nothing of .2 or more."""
    score = np.array([[0.9, 0.3], [0.8, 0.4], [0.1, 0.19]])
    rows, columns = match_pairs(score, least=0.2)
    assert sorted(zip(rows.tolist(), columns.tolist())) == [(0, 0), (1, 1)]
    swapped = match_pairs(score.T, least=0.2)
    assert sorted(zip(*(part.tolist() for part in swapped))) == [(0, 0), (1, 1)]
    assert [len(part) for part in match_pairs(np.zeros((0, 3)), least=0.2)] == [0, 0]
    assert [len(part) for part in match_pairs(np.zeros((2, 3)), least=0.2)] == [0, 0]
