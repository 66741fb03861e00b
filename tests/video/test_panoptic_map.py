"""Maps of a frame, drawn by hand, and what is told of their segments."""

from __future__ import annotations

import numpy as np

from pix2seq_d.video.panoptic_map import PanopticMap, Uncertainty

ROAD, SKY, PERSON, CAR, VOID = 0, 10, 11, 13, 255
CLASSES = np.array([[SKY, SKY, CAR, CAR], [ROAD, CAR, CAR, VOID]], np.uint8)
INSTANCES = np.array([[0, 0, 7, 7], [0, 9, 7, 0]], np.int32)
CONFIDENCE = np.array([[0.5, 0.7, 0.9, 0.9], [1.0, 0.2, 0.6, 0.1]], np.float32)


def drawn(uncertainty: Uncertainty | None = None) -> PanopticMap:
    return PanopticMap(CLASSES, INSTANCES, CONFIDENCE, uncertainty)


def test_segmentation_holds_panoptic_ids() -> None:
    """Class * 65536 + instance; void is -1."""
    sky, seven, nine = SKY * 65536, CAR * 65536 + 7, CAR * 65536 + 9
    assert drawn().segmentation.tolist() == [[sky, sky, seven, seven], [0, nine, seven, -1]]
    assert drawn().segmentation.dtype == np.int32


def test_segments_are_listed_as_transformers_lists_them() -> None:
    """Scores: road 1.0; sky (.5 + .7) / 2; car 7 (.9 + .9 + .6) / 3; car 9 .2."""
    segments = drawn().segments_info
    assert [s["id"] for s in segments] == [0, SKY * 65536, CAR * 65536 + 7, CAR * 65536 + 9]
    assert [s["label_id"] for s in segments] == [ROAD, SKY, CAR, CAR]
    assert [s["instance_id"] for s in segments] == [0, 0, 7, 9]
    assert [s["area"] for s in segments] == [1, 2, 3, 1]
    np.testing.assert_allclose([s["score"] for s in segments], [1.0, 0.6, 0.8, 0.2], rtol=1e-6)
    assert {s["was_fused"] for s in segments} == {False}
    assert "agreement" not in segments[0]


def test_segments_of_several_samples_tell_their_agreement() -> None:
    told = Uncertainty(np.zeros((2, 4)), np.zeros((2, 4)), {(ROAD, 0): 1.0, (CAR, 7): 0.75})
    assert [s["agreement"] for s in drawn(told).segments_info] == [1.0, 0.0, 0.75, 0.0]


def test_only_some_classes() -> None:
    kept = drawn().only([CAR])
    assert kept.class_map.tolist() == [[VOID, VOID, CAR, CAR], [VOID, CAR, CAR, VOID]]
    assert kept.instance_map.tolist() == INSTANCES.tolist()
    assert (kept.class_map.dtype, kept.instance_map.dtype) == (np.uint8, np.int32)
    assert drawn().only([SKY]).instance_map.max() == 0
    assert [s["label_id"] for s in kept.segments_info] == [CAR, CAR]
