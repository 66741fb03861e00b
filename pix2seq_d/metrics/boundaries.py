"""Boundaries of the objects of a frame, and how much of them lies near those of other objects, as DAVIS counts it
(Perazzi et al., CVPR 2016). All objects at once: a map of bit sets, bit k - 1 for object k, D bits at most.
"""

from __future__ import annotations

from math import ceil, hypot, isqrt

import numpy as np

MAX_BITS = 64
_TOLERANCE = 0.008  # of the diagonal of the image


def boundary_radius(shape: tuple[int, ...]) -> int:
    """Distance in pixels up to which two boundaries agree, for maps of shape (H, W)."""
    return ceil(_TOLERANCE * hypot(*shape))


def boundary_matches(
    pred: np.ndarray, target: np.ndarray, num_preds: int, num_targets: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boundary pixels of all objects, and those within `boundary_radius` of a boundary of the other map.

    Args:
        pred: (H, W) integers, 0 = background, k = object k.
        target: (H, W) as well.
        num_preds: P, the largest k that `pred` may have.
        num_targets: G, the largest k that `target` may have.

    Returns:
        (P,) and (G,) boundary pixels; (P, G) those of the predicted object near the target object's boundary; (P, G)
        those of the target object near the predicted object's boundary; int64 each.
    """
    radius = boundary_radius(target.shape)
    preds, targets = _boundaries(pred, num_preds), _boundaries(target, num_targets)
    near_preds = [(dilate_disk(bits, radius), n) for bits, n in preds]
    near_targets = [(dilate_disk(bits, radius), n) for bits, n in targets]
    pred_hits = np.block([[_shared(p, t) for t in near_targets] for p in preds])
    target_hits = np.block([[_shared(t, p).T for t in targets] for p in near_preds])
    return _pixels(preds), _pixels(targets), pred_hits, target_hits


def dilate_disk(bits: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) unsigned bit sets, united over the disk dx^2 + dy^2 <= radius^2 around every pixel."""
    united, rows = bits.copy(), bits.copy()  # rows: united over dx = -reach ... reach
    reach = 0
    for dy in range(radius, -1, -1):
        while reach < isqrt(radius * radius - dy * dy):
            reach += 1
            rows[:, reach:] |= bits[:, :-reach]
            rows[:, :-reach] |= bits[:, reach:]
        inside = max(len(rows) - dy, 0)
        united[dy:] |= rows[:inside]
        united[:inside] |= rows[dy:]
    return united


_Bits = tuple[np.ndarray, int]  # (H, W) bit sets, and how many bits are in use


def _boundaries(objects: np.ndarray, num_objects: int) -> list[_Bits]:
    """Boundary maps of up to 64 objects each.

    A pixel is on the boundary of an object that it, its right, its lower and its lower right neighbour do not agree
    about; at the right and lower edge the neighbours outside are copies of those inside.
    """
    found = []
    for first in range(0, max(num_objects, 1), MAX_BITS):
        n = min(num_objects - first, MAX_BITS)
        dtype = next(d for d in (np.uint8, np.uint16, np.uint32, np.uint64) if n <= np.iinfo(d).bits)
        bit_of = np.zeros(num_objects + 1, dtype)
        bit_of[first + 1 : first + n + 1] = np.left_shift(1, np.arange(n, dtype=dtype), dtype=dtype)
        bits = np.pad(bit_of[objects], ((0, 1), (0, 1)), mode="edge")
        corners = bits[:-1, :-1], bits[:-1, 1:], bits[1:, :-1], bits[1:, 1:]
        found.append((np.bitwise_or.reduce(corners) & ~np.bitwise_and.reduce(corners), n))
    return found


def _shared(a: _Bits, b: _Bits) -> np.ndarray:
    """(bits of a, bits of b) int64 pixels at which both are set."""
    where = np.flatnonzero(a[0])
    return (_unpack(a, where).T @ _unpack(b, where)).astype(np.int64)  # float32, exact below 2^24 boundary pixels


def _unpack(bits: _Bits, where: np.ndarray) -> np.ndarray:
    """(len(where), bits) float32 of 0 and 1."""
    sets, n = bits
    return (sets.ravel()[where, None] >> np.arange(n, dtype=sets.dtype) & 1).astype(np.float32)


def _pixels(boundaries: list[_Bits]) -> np.ndarray:
    return np.concatenate([_unpack(b, np.flatnonzero(b[0])).sum(0, dtype=np.float64) for b in boundaries]).astype(int)
