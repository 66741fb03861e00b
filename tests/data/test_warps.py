"""Motions and warps: identities, points worked out by hand, and labels that no warp invents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seq_d.data.warps import (
    ACCELERATION,
    FILL_GREY,
    MAX_INSTANCE_ID,
    MAX_PERSPECTIVE,
    Motion,
    camera_homography,
    pack_labels,
    unpack_labels,
    warp_image,
    warp_labels,
    warp_mask,
)


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)


def point(homography: np.ndarray, x: float, y: float) -> list[float]:
    px, py, w = homography @ (x, y, 1)
    return [pytest.approx(px / w), pytest.approx(py / w)]


def test_labels_come_back() -> None:
    class_map = np.array([[0, 13, 255]], np.uint8)
    instance_map = np.array([[0, 70000, MAX_INSTANCE_ID]], np.int32)
    labels = pack_labels(class_map, instance_map)
    assert labels.tolist() == [[0, 70000 * 256 + 13, 2**32 - 1]]
    classes, instances = np.empty_like(class_map), np.empty_like(instance_map)
    unpack_labels(labels, classes, instances)
    np.testing.assert_array_equal(classes, class_map)
    np.testing.assert_array_equal(instances, instance_map)


def test_motion_starts_from_nothing_and_is_smooth() -> None:
    limits = np.array([1.0, 0.0, 10.0])
    for seed in range(5):
        motion = Motion(limits, np.random.default_rng(seed))
        path = np.stack([motion.at(t) for t in range(-3, 4)])
        assert path[3].tolist() == [0, 0, 0]
        np.testing.assert_allclose(np.diff(path, n=3, axis=0), 0, atol=1e-12)
        assert (np.abs(np.diff(path, n=2, axis=0)) <= ACCELERATION * limits + 1e-12).all()
        assert (np.abs(motion.velocity) <= limits).all()
        assert np.abs(path[0, [0, 2]]).min() > 0


def test_camera_poses_by_hand() -> None:
    """An image of 4x8, centre (4, 2): a pan of a quarter width, a zoom of 2, a quarter turn, and a change of scale.

    The change of scale by 0.4 over a width: at the right edge, half a width off, 1 + 0.2 divides: 4 + 4 / 1.2.
    """
    size = (4, 8)
    np.testing.assert_allclose(camera_homography(np.zeros(6), size), np.eye(3), atol=1e-12)
    assert point(camera_homography(np.array([0.25, 0, 0, 0, 0, 0]), size), 1, 1) == [3, 1]
    assert point(camera_homography(np.array([0, 0.25, 0, 0, 0, 0]), size), 1, 1) == [1, 3]
    assert point(camera_homography(np.array([0, 0, np.log(2), 0, 0, 0]), size), 8, 2) == [6, 2]
    assert point(camera_homography(np.array([0, 0, 0, np.pi / 2, 0, 0]), size), 8, 2) == [4, 6]
    for perspective in (MAX_PERSPECTIVE, 99.0):
        assert point(camera_homography(np.array([0, 0, 0, 0, perspective, 0]), size), 8, 2) == [4 + 4 / 1.2, 2]


def test_nearest_and_bilinear_by_hand() -> None:
    labels = np.array([[1, 2, 3, 2**32 - 2]], np.uint32)
    assert warp_labels(labels, shift(1, 0)).tolist() == [[2, 3, 2**32 - 2, 255]]
    assert warp_labels(labels, shift(0.4, 0)).tolist() == labels.tolist()
    assert warp_labels(labels, shift(-1, 0), (2, 3)).tolist() == [[255, 1, 2], [255, 255, 255]]
    assert warp_mask(labels == 2, shift(1, 0), (1, 2)).tolist() == [[True, False]]
    image = np.array([[[10, 20, 30], [30, 60, 90], [50, 100, 150]]], np.uint8)
    assert warp_image(image, shift(1, 0)).tolist() == [[[30, 60, 90], [50, 100, 150], [FILL_GREY] * 3]]
    assert warp_image(image, shift(0.5, 0), (1, 2)).tolist() == [[[20, 40, 60], [40, 80, 120]]]


def test_images_and_labels_stay_together() -> None:
    """White where the label is 1: thresholded, the warped image is the warped label but for the pixels on borders."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (6, 10)).repeat(12, axis=0).repeat(12, axis=1).astype(np.uint32)
    image = (labels * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    homography = camera_homography(np.array([0.1, -0.05, -0.2, 0.2, 0.1, -0.1]), labels.shape)
    warped = warp_labels(labels, homography)
    known = warped != 255
    white = warp_image(image, homography)[..., 0] >= 128
    assert 0.3 < known.mean() < 1
    assert (white != (warped == 1))[known].mean() < 0.02
    assert (white[:, 1:] != (warped == 1)[:, :-1])[known[:, :-1]].mean() > 0.05


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    out=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    pose=st.tuples(*[st.floats(-1, 1)] * 6),
)
def test_warps_invent_no_label(seed: int, size: tuple[int, int], out: tuple[int, int], pose: tuple[float, ...]) -> None:
    labels = np.random.default_rng(seed).integers(0, 2**32, size, dtype=np.uint32)
    warped = warp_labels(labels, camera_homography(np.array(pose), size), out)
    assert (warped.shape, warped.dtype) == (out, np.uint32)
    assert set(warped.ravel().tolist()) <= {*labels.ravel().tolist(), 255}
