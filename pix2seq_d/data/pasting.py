"""Things cut out of one still image and pasted, moving, into frames of another.

Labels hold instance * 256 + class (`warps.pack_labels`). Depth is the lowest row of a thing: on a street what stands
lower in the image is nearer. h w size of a cutout, points (x, y) as in `warps`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pix2seq_d.data.warps import Motion, Size, warp_image, warp_mask
from pix2seq_d.labels import LabelSpec

# a pasted thing's motion per frame at most: right and down (in its own heights), log growth
THING_SPEED = np.array([0.15, 0.02, 0.03])
RESIZE = 0.25  # largest log change of a thing's size
SHARES = (1 / 2000, 1 / 8)  # smallest and largest thing that is cut out, of the pixels of its image
SEARCH_ROWS = 256  # things are looked for on a grid of about so many rows


@dataclass(frozen=True)
class Cutout:
    """A thing as its image shows it.

    Attributes:
        image: (h, w, 3) uint8, its bounding box.
        mask: (h, w) bool.
        class_id: train id.
        bottom: its lowest edge, as a fraction of the image's height.
        scale: 1 / height of the image.
    """

    image: np.ndarray
    mask: np.ndarray
    class_id: int
    bottom: float
    scale: float


def cut_out(image: np.ndarray, labels: np.ndarray, spec: LabelSpec, rng: np.random.Generator) -> Iterator[Cutout]:
    """The whole things of an image in random order, each once.

    Left out are things that touch the image's edge, that have no instance id, or whose size is outside of SHARES.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) uint32.
        spec: its things are cut out.
        rng: draws the order.
    """
    step = _search_step(labels.shape)
    found, counts = np.unique(labels[::step, ::step], return_counts=True)
    sizes = counts * (step * step / labels.size)
    found = found[_is_object(found, spec) & (sizes >= SHARES[0]) & (sizes <= SHARES[1])]
    for label in rng.permutation(found):
        mask = labels == label
        rows, cols = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        box = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        whole = rows[0] > 0 and cols[0] > 0 and rows[-1] + 1 < labels.shape[0] and cols[-1] + 1 < labels.shape[1]
        if whole:
            height = labels.shape[0]
            yield Cutout(image[box], mask[box], int(label & 255), (rows[-1] + 1) / height, 1 / height)


def lowest_rows(labels: np.ndarray, spec: LabelSpec) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the things with instance ids in (H, W) uint32 labels, and their lowest edges in rows (to a few)."""
    step = _search_step(labels.shape)
    seen = labels[::-step, ::step]  # from below: the first of every label is its lowest
    found, first = np.unique(seen, return_index=True)
    things = _is_object(found, spec)
    return found[things], labels.shape[0] - (first[things] // seen.shape[1]) * step


def _search_step(shape: tuple[int, ...]) -> int:
    return max(1, shape[0] // SEARCH_ROWS)


def _is_object(labels: np.ndarray, spec: LabelSpec) -> np.ndarray:
    return np.isin(labels & np.uint32(255), spec.thing_ids) & (labels > 255)


class PastedThing:
    """A cutout that moves through the frames of a still.

    It keeps the height in the image at which it was found, about its own size, and stands anywhere across; it may be
    mirrored.

    Args:
        cutout: what is pasted.
        label: what its pixels hold.
        size: (H, W) of the still.
        speed: factor on THING_SPEED.
        rng: draws place and motion.
    """

    def __init__(self, cutout: Cutout, label: int, *, size: Size, speed: float, rng: np.random.Generator) -> None:
        across, flip, resize = rng.random(3)
        self.cutout = cutout
        self.label = np.uint32(label)
        self.bottom = cutout.bottom * size[0]  # rows, at time 0
        self._across = across * size[1]
        self._scale = size[0] * cutout.scale * np.exp(RESIZE * (2 * resize - 1))
        self._side = -1.0 if flip < 0.5 else 1.0
        self._motion = Motion(THING_SPEED * speed, rng)

    def placement(self, time: float) -> np.ndarray:
        """(3, 3) matrix from points of the cutout to points of the still as it was at `time`."""
        height, width = self.cutout.mask.shape
        right, down, growth = self._motion.at(time)
        unit, scale = height * self._scale, self._scale * np.exp(growth)
        across, along = self._across + right * unit, self.bottom + down * unit
        side = scale * self._side
        return np.array([[side, 0, across - side * width / 2], [0, scale, along - scale * height], [0, 0, 1]])

    def paint(
        self, labels: np.ndarray, image: np.ndarray | None, *, homography: np.ndarray, time: float, nearer: np.ndarray
    ) -> None:
        """Paints the thing where nothing nearer is, in place.

        Args:
            labels: (H, W) uint32 labels of the frame.
            image: (H, W, 3) uint8 image of the frame, None = labels alone.
            homography: from points of the frame to points of the still.
            time: of the frame.
            nearer: labels that hide the thing.
        """
        to_frame = np.linalg.inv(homography) @ self.placement(time)
        top, left, bottom, right = _bounds(to_frame, self.cutout.mask.shape, labels.shape)
        if top >= bottom or left >= right:
            return
        box, size = np.s_[top:bottom, left:right], (bottom - top, right - left)
        to_cutout = np.linalg.inv(to_frame) @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
        shown = warp_mask(self.cutout.mask, to_cutout, size) & ~np.isin(labels[box], nearer)
        labels[box][shown] = self.label
        if image is not None:
            image[box][shown] = warp_image(self.cutout.image, to_cutout, size)[shown]


def _bounds(matrix: np.ndarray, size: tuple[int, ...], frame: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of a cutout of `size` on a frame, cut off at its edges."""
    (height, width), corners = size, np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]], float)
    x, y, w = matrix @ (corners * [[width], [height], [1]])
    x, y = (x / w).clip(0, frame[1]), (y / w).clip(0, frame[0])
    return int(np.floor(y.min())), int(np.floor(x.min())), int(np.ceil(y.max())), int(np.ceil(x.max()))
