"""Boundaries: drawings, disks, and bit sets of many objects against one mask at a time."""

import numpy as np
import pytest
from object_oracles import naive_boundary, naive_near

from pix2seq_d.metrics.boundaries import boundary_matches, boundary_radius, dilate_disk


def test_radius_is_a_share_of_the_diagonal():
    assert boundary_radius((480, 854)) == 8  # 0.008 * 979.7 = 7.8
    assert boundary_radius((375, 1242)) == 11  # 0.008 * 1297.4 = 10.4
    assert boundary_radius((3, 4)) == 1


def test_boundary_of_a_square():
    frame = np.zeros((7, 7), int)
    frame[2:5, 2:5] = 1
    pred_size, target_size, pred_hits, target_hits = boundary_matches(frame, frame, 1, 1)
    # inside: its right and lower sides, 5 pixels; outside: above and left of it, 3 + 3 + 1 corner: 12
    assert len(naive_boundary(frame == 1)) == 12
    assert pred_size.tolist() == target_size.tolist() == [12]
    assert pred_hits.tolist() == target_hits.tolist() == [[12]]


def test_the_edge_of_the_image_is_no_boundary():
    whole = np.ones((5, 6), int)
    assert boundary_matches(whole, whole, 1, 1)[0].tolist() == [0]


def test_near_counts_both_ways():
    target, pred = np.zeros((2, 30, 40), int)
    target[:, 20:] = 1  # boundary: column 19, 30 pixels; the radius is 1
    pred[:10, 21:] = 1  # columns 20: near; the lower side is a boundary as well
    pred[10:, 30:] = 1
    pred_size, target_size, pred_hits, target_hits = boundary_matches(pred, target, 1, 1)
    # pred: 10 at column 20, row 9 from 21 to 29, 20 more at column 29
    assert (pred_size.tolist(), target_size.tolist()) == ([39], [30])
    assert pred_hits.tolist() == [[10]]
    # target: rows 0 to 9 of column 19, one left of column 20; row 10 would need the diagonal, at distance sqrt(2)
    assert target_hits.tolist() == [[10]]


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 12])
def test_disk(radius):
    bits = np.zeros((9, 11), np.uint8)
    bits[4, 5], bits[0, 0] = 1, 6
    y, x = np.mgrid[:9, :11]
    expected = ((y - 4) ** 2 + (x - 5) ** 2 <= radius**2) | (y**2 + x**2 <= radius**2) * 6
    np.testing.assert_array_equal(dilate_disk(bits, radius), expected)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("num_preds", "num_targets"), [(1, 3), (4, 2), (12, 9)])
def test_equals_one_mask_at_a_time(seed, num_preds, num_targets):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(3, 22, 2)
    pred, target = (
        np.kron(rng.integers(0, n + 1, (8, 8)), np.ones((3, 3), int))[:h, :w] for n in (num_preds, num_targets)
    )
    pred_size, target_size, pred_hits, target_hits = boundary_matches(pred, target, num_preds, num_targets)
    a, b = ([naive_boundary(m == k + 1) for k in range(n)] for m, n in ((pred, num_preds), (target, num_targets)))
    assert (pred_size.tolist(), target_size.tolist()) == ([len(p) for p in a], [len(t) for t in b])
    radius = boundary_radius((h, w))
    assert pred_hits.tolist() == [[naive_near(p, t, radius) for t in b] for p in a]
    assert target_hits.tolist() == [[naive_near(t, p, radius) for t in b] for p in a]


def test_more_objects_than_a_bit_set_holds():
    cells = np.kron(np.arange(1, 151).reshape(10, 15), np.ones((4, 4), int))
    both = boundary_matches(cells, cells[:, ::-1], 150, 150)
    for k in (0, 63, 64, 127, 128, 149):
        one = boundary_matches((cells == k + 1).astype(int), cells[:, ::-1], 1, 150)
        assert both[0][k] == one[0][0] > 0
        np.testing.assert_array_equal(both[2][k], one[2][0])
        np.testing.assert_array_equal(both[3][k], one[3][0])


def test_no_objects():
    nothing = np.zeros((4, 5), int)
    shapes = [part.shape for part in boundary_matches(nothing, nothing, 0, 2)]
    assert shapes == [(0,), (2,), (0, 2), (0, 2)]
