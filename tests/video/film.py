"""Frames drawn as maps of 12 rows, shown to `TrackIds`; an object is a class, a code and a box."""

from __future__ import annotations

import numpy as np

from pix2seq_d.video.tracks import TrackIds

ROAD, PERSON, CAR = 0, 11, 13
H, W = 12, 48  # REACH is one pixel

Box = tuple[int, int, int, int]  # top, left, bottom, right


class Film:
    """Draws frames of (class, code, box) on a road and follows them."""

    def __init__(self, num_codes: int = 7, memory: int = 8) -> None:
        self.tracks = TrackIds(num_codes=num_codes, memory=memory)
        self.classes = self.codes = np.zeros((H, W), np.int64)

    def show(self, *objects: tuple[int, int, Box]) -> np.ndarray:
        """(H, W) track ids."""
        self.classes, codes = np.zeros((H, W), np.int64), np.zeros((H, W), np.int64)
        for class_id, code, (top, left, bottom, right) in objects:
            self.classes[top:bottom, left:right], codes[top:bottom, left:right] = class_id, code
        self.codes, ids = self.tracks.update(self.classes, codes)
        result = np.zeros((H, W), np.int64)
        for (class_id, code), track_id in ids.items():
            assert not result[(self.classes == class_id) & (self.codes == code)].any()
            result[(self.classes == class_id) & (self.codes == code)] = track_id
        assert np.array_equal(result > 0, codes > 0)
        return result


def ids(found: np.ndarray) -> list[int]:
    """The ids from left to right."""
    columns = {int(i): int(np.nonzero(found == i)[1].min()) for i in np.unique(found[found > 0])}
    return sorted(columns, key=lambda i: columns[i])


def car(code: int, left: int, *, width: int = 8, top: int = 2, bottom: int = 8) -> tuple[int, int, Box]:
    return CAR, code, (top, left, bottom, left + width)
