"""COCO's run-length encoding of masks: (H, W) masks in column order, compressed to a string as pycocotools does.

The counts alternate between pixels outside and inside of the mask, outside first. In the string a count (from the
fourth on: its difference to the count two places before) is cut into groups of 5 bits, lowest first, with a sixth bit
where another group follows, and each group is a character from "0" on.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def encode_segments(values: np.ndarray) -> Iterator[tuple[int, str]]:
    """Every value of a (H, W) integer map, ascending, with the RLE string of the mask of its pixels."""
    columns = np.ascontiguousarray(values.T).reshape(-1)
    starts = np.flatnonzero(np.concatenate([[True], columns[1:] != columns[:-1]]))
    ends = np.append(starts[1:], columns.size)
    order = np.argsort(columns[starts], kind="stable")
    keys, first = np.unique(columns[starts[order]], return_index=True)
    for key, runs in zip(keys.tolist(), np.split(order, first[1:])):
        yield key, compress_counts(_counts(starts[runs], ends[runs], columns.size))


def _counts(starts: np.ndarray, ends: np.ndarray, total: int) -> np.ndarray:
    """Alternating counts of a mask whose runs are [start, end); no count of 0 at the end."""
    edges = np.stack([starts, ends], axis=1).reshape(-1)
    return np.diff(edges, prepend=0, append=total)[: len(edges) + (edges[-1] < total)]


def compress_counts(counts: np.ndarray) -> str:
    """(N,) counts, not negative, to the string of COCO's compressed RLE."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    characters, used = [], []
    more = np.ones(len(values), bool)
    while more.any():
        group = values & 31
        values = values >> 5
        used.append(more)
        more = more & np.where(group & 16, values != -1, values != 0)
        characters.append(48 + group + 32 * more)
    return np.stack(characters, axis=1)[np.stack(used, axis=1)].astype(np.uint8).tobytes().decode("ascii")


def decode_mask(text: str, size: tuple[int, int]) -> np.ndarray:
    """The inverse: RLE string and (H, W) to a boolean mask (H, W).

    Raises:
        ValueError: a string that is none, or that holds another number of pixels.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError(f"expected an RLE string, got the character {character!r} in it")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    height, width = size
    if shift or min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"expected an RLE string of {height}x{width} pixels, got one of {sum(counts)}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T
