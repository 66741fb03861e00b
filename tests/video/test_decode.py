"""Decoding: codes that exist, small segments drawn by hand, enlargement at the sampled pixels."""

from __future__ import annotations

import torch

from pix2seq_d.bits import BitCodec
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.labels import get_label_spec
from pix2seq_d.video.decode import CodeProbabilities, code_probabilities, enlarge, small_segments

SPEC = get_label_spec("kitti-step")
CODEC = BitCodec((5, 2))
ROAD, SKY, CAR = 1, 11, 14  # class codes: train id + 1


def probabilities(class_rows: list[list[int]], instance_rows: list[list[int]]) -> CodeProbabilities:
    """Nearly certain codes; road is the second choice of class everywhere, instance 3 that of instances."""
    codes = torch.tensor([class_rows, instance_rows])
    logits = [torch.zeros(n, *codes.shape[1:]) for n in CODEC.group_codes]
    for group, code, second in zip(logits, codes, (ROAD, 3)):
        group[second] += 5
        group.scatter_(0, code[None], 10.0)
    return code_probabilities(torch.cat(logits), CODEC, SPEC)


def test_codes_that_do_not_exist_are_never_chosen() -> None:
    logits = torch.zeros(CODEC.num_logits, 1, 2)
    logits[0] = logits[25] = logits[32] = 50.0  # void, an unused class code, instance 0
    logits[CAR] = 1.0
    codes, _ = code_probabilities(logits, CODEC, SPEC).choose()
    assert (codes[0] == CAR).all()
    assert (codes[1] >= 1).all()


def test_confidence_is_the_probability_of_both_codes_on_things() -> None:
    p = CodeProbabilities(
        planes=(torch.tensor([[[0.8, 0.1]], [[0.2, 0.9]]]), torch.tensor([[[0.6, 0.6]], [[0.4, 0.4]]])),
        codes=(torch.tensor([CAR, SKY]), torch.tensor([1, 2])),
        spec=SPEC,
    )
    codes, confidence = p.choose()
    assert codes.tolist() == [[[CAR, SKY]], [[1, 0]]]
    torch.testing.assert_close(confidence, torch.tensor([[0.8 * 0.6, 0.9]]))


def test_a_small_part_joins_the_instance_it_touches_most() -> None:
    """Car 1 (six pixels) with a speckle of car 2; car 3 touches the speckle at one corner only."""
    classes = [[CAR] * 5, [CAR] * 5]
    instances = [[1, 1, 1, 3, 3], [1, 1, 2, 3, 3]]
    codes, _ = probabilities(classes, instances).suppress_small(2).choose()
    assert codes[0].tolist() == classes
    assert codes[1].tolist() == [[1, 1, 1, 3, 3], [1, 1, 1, 3, 3]]


def test_a_small_segment_alone_takes_its_next_best_class() -> None:
    classes = [[SKY, SKY, SKY, SKY], [SKY, CAR, SKY, SKY], [ROAD, ROAD, ROAD, ROAD]]
    instances = [[0] * 4, [0, 1, 0, 0], [0] * 4]
    codes, _ = probabilities(classes, instances).suppress_small(2).choose()
    assert codes[0].tolist() == [[SKY] * 4, [SKY, ROAD, SKY, SKY], [ROAD] * 4]
    assert not codes[1].any()


def test_nothing_changes_without_small_segments() -> None:
    p = probabilities([[CAR, CAR, ROAD, ROAD]], [[1, 1, 0, 0]])
    before = [plane.clone() for plane in p.planes]
    after = p.suppress_small(2)
    assert all(torch.equal(a, b) for a, b in zip(before, after.planes))
    assert all(torch.equal(a, b) for a, b in zip(before, p.suppress_small(3) and p.planes)), "the input is left alone"


def test_small_segments_lists_pixels_and_codes() -> None:
    codes = torch.tensor([[[CAR, CAR, CAR, ROAD]], [[1, 1, 2, 0]]])
    found = {segment: here.tolist() for here, segment in small_segments(codes, 2)}
    assert found == {(CAR, 2): [[False, False, True, False]], (ROAD, 0): [[False, False, False, True]]}


def test_enlarge_is_exact_at_the_sampled_pixels() -> None:
    """At half size the map shows the odd pixels: these keep their value, those between are means."""
    box = Letterbox((2, 8), (2, 8))
    values = torch.tensor([[[0.0, 1.0, 4.0, 8.0]]])
    assert enlarge(values, box)[0, 1].tolist() == [0.0, 0.0, 0.5, 1.0, 2.5, 4.0, 6.0, 8.0]


def test_small_segments_of_classes_alone_take_their_next_best_class() -> None:
    """A model without instances: the car in the sky becomes road, and the road is large."""
    classes = torch.tensor([[SKY, SKY, CAR, SKY], [ROAD, ROAD, ROAD, ROAD]])
    logits = torch.zeros(32, 2, 4)
    logits[ROAD] = 5.0
    logits.scatter_(0, classes[None], 10.0)
    codes, _ = code_probabilities(logits, BitCodec((5,)), SPEC).suppress_small(2).choose()
    assert codes.tolist() == [[[SKY, SKY, ROAD, SKY], [ROAD] * 4]]


# recoding


def test_recode_moves_the_probability_of_whole_codes() -> None:
    """Codes 1 and 2 change places: planes too, so that borders stay where they are."""
    before = probabilities([[CAR] * 4], [[1, 1, 2, 2]])
    after = before.recode(torch.tensor([[2, 2, 1, 1]]))
    assert after.choose()[0][1].tolist() == [[2, 2, 1, 1]]
    torch.testing.assert_close(after.planes[1][[1, 0, 2]], before.planes[1])
    torch.testing.assert_close(after.choose()[1], before.choose()[1])
    assert before.choose()[0][1].tolist() == [[1, 1, 2, 2]]


def test_recode_to_a_code_without_a_plane_and_into_another_segment() -> None:
    before = probabilities([[CAR] * 4], [[1, 1, 2, 2]])
    after = before.recode(torch.tensor([[9, 9, 2, 2]]))
    assert after.choose()[0][1].tolist() == [[9, 9, 2, 2]]
    assert after.codes[1].tolist() == [1, 2, 3, 9]
    joined = before.recode(torch.tensor([[2, 2, 2, 2]]))
    assert joined.choose()[0][1].tolist() == [[2, 2, 2, 2]]
    assert float(joined.planes[1][0].abs().max()) == 0
    torch.testing.assert_close(joined.planes[1].sum(0), before.planes[1].sum(0))


def test_recode_of_a_part_takes_the_pixels_beside_it_but_none_of_the_rest() -> None:
    before = probabilities([[CAR] * 6], [[1, 1, 1, 1, 2, 2]])
    after = before.recode(torch.tensor([[1, 1, 7, 7, 2, 2]]))
    assert after.choose()[0][1].tolist() == [[1, 1, 7, 7, 2, 2]]
    moved = after.planes[1][after.codes[1].tolist().index(7)]
    assert (moved > 0).tolist() == [[False, False, True, True, True, False]]


def test_recode_to_the_same_codes_changes_nothing() -> None:
    same = probabilities([[CAR, SKY]], [[1, 0]])
    assert same.recode(same.choose()[0][1]) is same


def test_only_known_pairs_of_class_and_code_are_chosen() -> None:
    """A pixel of a car whose best code is a person's takes the best code of a car."""
    person = 12
    p = CodeProbabilities(
        planes=(torch.tensor([[[0.6, 0.4]], [[0.4, 0.6]], [[0.0, 0.0]]]), torch.tensor([[[0.5, 0.5]], [[0.3, 0.3]]])),
        codes=(torch.tensor([CAR, person, SKY]), torch.tensor([1, 2])),
        spec=SPEC,
    )
    objects = torch.zeros(20, 4, dtype=torch.bool)
    objects[person, 1] = objects[CAR, 2] = True
    known = p.only(objects)
    assert known.codes[0].tolist() == [CAR, person]
    codes, confidence = known.choose()
    assert codes.tolist() == [[[CAR, person]], [[2, 1]]]
    torch.testing.assert_close(confidence, torch.tensor([[0.6 * 0.3, 0.6 * 0.5]]))
    assert p.choose()[0][1].tolist() == [[1, 1]]
    assert p.only(torch.zeros_like(objects)).choose()[1].tolist() == [[0, 0]]  # no object at all
