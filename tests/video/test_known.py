"""What a user knows of a frame, on frames of 4x8 pixels whose masks are 2x4."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pix2seq_d.bits import BitCodec
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.labels import get_label_spec
from pix2seq_d.video.code_denoiser import FORBIDDEN
from pix2seq_d.video.decode import code_probabilities
from pix2seq_d.video.known import KnownCodes, KnownMap, code_penalty
from pix2seq_d.video.panoptic_map import PanopticMap, Uncertainty
from pix2seq_d.video.tracks import TrackIds

SPEC = get_label_spec("kitti-step")
ROAD, SKY, PERSON, CAR, VOID = 0, 10, 11, 13, 255
CODEC = BitCodec((5, 2), 0.1)
SIZE, MASK = (4, 8), (2, 4)


def known(classes: list[list[int]], ids: list[list[int]], scale: int = 2) -> KnownMap:
    """A map of the mask's size, enlarged to the frame's."""
    return KnownMap(*(np.array(m).repeat(scale, 0).repeat(scale, 1) for m in (classes, ids)))


def codes_of(what: KnownMap, tracks: TrackIds | None = None, size: tuple[int, int] = SIZE) -> KnownCodes:
    return KnownCodes.of(what, SPEC, Letterbox(size, SIZE), MASK, tracks or TrackIds(num_codes=3))


DRAWN = known([[SKY, CAR, CAR, VOID], [ROAD, CAR, PERSON, CAR]], [[0, 70, 70, 0], [0, 70, 5, 0]])


def test_objects_get_codes_and_keep_their_ids() -> None:
    """The larger car chooses first, of 3, 1, 2; the last car's object is unknown, the void pixel altogether."""
    found = codes_of(DRAWN)
    assert found.class_codes.tolist() == [[SKY + 1, CAR + 1, CAR + 1, 0], [ROAD + 1, CAR + 1, PERSON + 1, CAR + 1]]
    assert found.instance_codes.tolist() == [[0, 3, 3, 0], [0, 3, 1, 0]]
    assert found.ids == {(CAR + 1, 3): 70, (PERSON + 1, 1): 5}
    assert not found.complete


def test_an_object_of_a_track_has_the_code_of_the_track() -> None:
    tracks = TrackIds(num_codes=3)
    cars = np.full(MASK, CAR + 1)
    tracks.update(cars, np.array([[3, 3, 0, 0], [3, 3, 0, 0]]), {(CAR + 1, 3): 70})
    assert codes_of(DRAWN, tracks).ids == {(CAR + 1, 3): 70, (PERSON + 1, 1): 5}


@pytest.mark.parametrize(
    ("classes", "ids", "complete"),
    [
        ([[SKY, CAR], [ROAD, CAR]], [[0, 1], [0, 2]], True),
        ([[SKY, CAR], [ROAD, VOID]], [[0, 1], [0, 0]], False),
        ([[SKY, CAR], [ROAD, CAR]], [[0, 1], [0, 0]], False),
    ],
)
def test_a_map_is_complete_where_every_class_and_object_is_known(
    classes: list[list[int]], ids: list[list[int]], complete: bool
) -> None:
    what = known([row * 2 for row in classes], [row * 2 for row in ids])
    assert codes_of(what).complete == complete
    assert codes_of(what, TrackIds(num_codes=0)).complete == (VOID not in what.class_map), "a model without objects"


def test_a_complete_map_goes_on_over_the_padding_and_another_does_not() -> None:
    """A frame of 4x4 pixels on a canvas of 4x8: the right half is padding."""
    whole = known([[SKY, CAR], [ROAD, ROAD]], [[0, 1], [0, 0]])
    assert codes_of(whole, size=(4, 4)).class_codes.tolist() == [
        [SKY + 1, CAR + 1, CAR + 1, CAR + 1],
        [ROAD + 1] * 4,
    ]
    part = known([[SKY, CAR], [ROAD, VOID]], [[0, 1], [0, 0]])
    assert codes_of(part, size=(4, 4)).class_codes.tolist() == [[SKY + 1, CAR + 1, 0, 0], [ROAD + 1, 0, 0, 0]]


def test_penalty_leaves_the_codes_that_are_known() -> None:
    penalty = code_penalty(CODEC, MASK, known=codes_of(DRAWN))
    assert penalty is not None
    assert penalty.shape == (1, CODEC.num_logits, *MASK)
    classes, instances = (p[0] == 0 for p in CODEC.split_logits(penalty))

    def possible(row: int, column: int) -> tuple[list[int], list[int]]:
        found = (p[:, row, column].nonzero().flatten().tolist() for p in (classes, instances))
        return tuple(found)  # type: ignore[return-value]

    assert possible(0, 0) == ([SKY + 1], [0])  # stuff has no object
    assert possible(0, 1) == ([CAR + 1], [3])
    assert possible(1, 3) == ([CAR + 1], [1, 2, 3])  # a thing is some object
    assert possible(0, 3) == (list(range(32)), [0, 1, 2, 3])


def test_penalty_of_classes_that_are_not_there() -> None:
    assert code_penalty(CODEC, MASK) is None
    penalty = code_penalty(CODEC, MASK, without_classes=[CAR, SKY])
    assert penalty is not None
    assert (penalty[0, :, 0, 0] == FORBIDDEN).nonzero().flatten().tolist() == [SKY + 1, CAR + 1]
    both = code_penalty(CODEC, MASK, known=codes_of(DRAWN), without_classes=[CAR])
    assert both is not None
    assert both[0, CAR + 1, 0, 1] == 0, "what is known is known"
    assert both[0, CAR + 1, 0, 3] == FORBIDDEN


def test_what_is_known_is_certain() -> None:
    logits = torch.randn(CODEC.num_logits, *MASK, generator=torch.Generator().manual_seed(0)) * 5
    found = codes_of(DRAWN)
    codes, confidence = found.force(code_probabilities(logits, CODEC, SPEC).winners_only()).choose()
    class_known, object_known = found.class_codes > 0, found.instance_codes > 0
    assert np.array_equal(codes[0][class_known], found.class_codes[class_known])
    assert np.array_equal(codes[1][object_known], found.instance_codes[object_known])
    assert bool((confidence.numpy()[object_known] == 1).all())
    free, _ = code_probabilities(logits, CODEC, SPEC).choose()
    assert codes[0][0, 3] == free[0][0, 3]


def test_a_prediction_with_what_is_known_in_its_place() -> None:
    shape = DRAWN.class_map.shape
    result = PanopticMap(np.full(shape, CAR, np.uint8), np.full(shape, 9, np.int32), np.full(shape, 0.5, np.float32))
    merged = DRAWN.over(result, SPEC)
    small = merged.class_map[::2, ::2], merged.instance_map[::2, ::2], merged.confidence[::2, ::2]
    assert small[0].tolist() == [[SKY, CAR, CAR, CAR], [ROAD, CAR, PERSON, CAR]]
    assert small[1].tolist() == [[0, 70, 70, 9], [0, 70, 5, 9]]
    assert small[2].tolist() == [[1, 1, 1, 0.5], [1, 1, 1, 0.5]]
    assert (merged.class_map.dtype, merged.instance_map.dtype) == (np.uint8, np.int32)


def test_what_is_known_is_not_uncertain() -> None:
    """Sky, road, and the objects 70 and 5 are known; of the sky the samples have said something."""
    shape = DRAWN.class_map.shape
    half = np.full(shape, 0.5, np.float32)
    result = PanopticMap(np.full(shape, CAR, np.uint8), np.full(shape, 9, np.int32), half)
    result.uncertainty = Uncertainty(half, half, {(CAR, 9): 0.3, (SKY, 0): 0.9})
    uncertainty = DRAWN.over(result, SPEC).uncertainty
    assert uncertainty is not None
    assert uncertainty.class_entropy[::2, ::2].tolist() == [[0, 0, 0, 0.5], [0, 0, 0, 0]]
    assert uncertainty.instance_disagreement[::2, ::2].tolist() == [[0, 0, 0, 0.5], [0, 0, 0, 0.5]]
    assert uncertainty.class_entropy.dtype == uncertainty.instance_disagreement.dtype == np.float32
    certain = {(CAR, 70): 1.0, (PERSON, 5): 1.0, (ROAD, 0): 1.0}
    assert uncertainty.agreement == {(CAR, 9): 0.3, (SKY, 0): 0.9, **certain}


@pytest.mark.parametrize(
    ("classes", "ids", "message"),
    [
        (
            np.zeros((3, 8), int),
            np.zeros((4, 8), int),
            r"known class_map: expected \(4, 8\) as the frame, got \(3",
        ),
        (np.zeros((4, 8), int), np.zeros((4, 9), int), r"known instance_map: expected \(4, 8\)"),
        (np.zeros((4, 8)), np.zeros((4, 8), int), "known class_map: expected integers, got float64"),
        (np.full((4, 8), 77), np.zeros((4, 8), int), "expected class ids 0..18 or 255"),
        (np.zeros((4, 8), int), np.full((4, 8), 1 << 16), r"ids in 0..65535, got 0..65536"),
        (np.zeros((4, 8), int), np.full((4, 8), -1), r"ids in 0..65535, got -1..0"),
        (
            np.full((4, 8), CAR),
            np.arange(32).reshape(4, 8) // 2,
            "known objects: expected at most 3 of class car, one per instance code, got 8",
        ),
    ],
)
def test_a_map_that_is_none_of_the_frame_is_refused(classes: np.ndarray, ids: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codes_of(KnownMap(classes, ids))
