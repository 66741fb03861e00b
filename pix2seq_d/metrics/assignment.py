"""Optimal assignment of rows to columns: the Hungarian method by shortest augmenting paths (Crouse, IEEE TAES 2016).

The problems are proposals against the objects of one video, some twenty of each: too small to depend on SciPy for.
"""

from __future__ import annotations

import numpy as np


def best_assignment(score: np.ndarray) -> np.ndarray:
    """A different column for every row such that the sum of the scores is the largest.

    Args:
        score: (n, m) finite numbers, n <= m.

    Returns:
        (n,) int64 columns.

    Raises:
        ValueError: more rows than columns.
    """
    n, m = score.shape
    if n > m:
        raise ValueError(f"score: expected at most as many rows as columns, got {score.shape}")
    cost, row_price, column_price = -score.astype(np.float64), np.zeros(n), np.zeros(m)
    row_of = np.full(m, -1)
    for start in range(n):
        distance, came_from, done = np.full(m, np.inf), np.full(m, -1), np.zeros(m, bool)
        row, column, so_far = start, -1, 0.0
        while row >= 0:  # Dijkstra over columns, until one is free
            through = so_far + cost[row] - row_price[row] - column_price
            nearer = ~done & (through < distance)
            distance[nearer], came_from[nearer] = through[nearer], column
            column = int(np.where(done, np.inf, distance).argmin())
            so_far, done[column] = distance[column], True
            row = int(row_of[column])
        # Prices that make every assigned pair free of charge again
        taken = done & (row_of >= 0)
        row_price[start] += so_far
        row_price[row_of[taken]] += so_far - distance[taken]
        column_price[taken] -= so_far - distance[taken]
        while column >= 0:  # every row of the path moves on by one column
            before = int(came_from[column])
            row_of[column] = start if before < 0 else row_of[before]
            column = before
    columns = np.empty(n, np.int64)
    columns[row_of[row_of >= 0]] = np.flatnonzero(row_of >= 0)
    return columns


def match_pairs(score: np.ndarray, *, least: float) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one pairs of rows and columns with the largest sum of scores; a score below `least` makes no pair.

    Args:
        score: (n, m) numbers, such as the IoU of segments.
        least: positive.

    Returns:
        (k,) rows, ascending or not, and the (k,) columns that go with them.
    """
    score = np.where(score >= least, score, 0)
    rows, columns = np.flatnonzero(score.any(1)), np.flatnonzero(score.any(0))
    part = score[np.ix_(rows, columns)]
    if len(rows) <= len(columns):
        columns = columns[best_assignment(part)]
    else:
        rows = rows[best_assignment(part.T)]
    good = score[rows, columns] > 0
    return rows[good], columns[good]
