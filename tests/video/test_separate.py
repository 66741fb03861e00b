"""Objects that share a code: who keeps it, who gets another, drawn on small maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pix2seq_d.labels import LABEL_SPECS
from pix2seq_d.video.decode import CodeProbabilities, dilate
from pix2seq_d.video.separate import components, number_parts, separate_objects

SPEC = LABEL_SPECS["kitti-step"]
ROAD, PERSON, CAR = 1, 12, 14  # class codes
H, W = 24, 40  # BRIDGE is 1 pixel and REACH 2


def drawing(*objects: tuple[int, int, slice, slice]) -> Tensor:
    """(2, H, W) codes: road with (class code, instance code, rows, columns) on it."""
    codes = torch.zeros(2, H, W, dtype=torch.long)
    codes[0] = ROAD
    for class_code, code, rows, columns in objects:
        codes[0, rows, columns], codes[1, rows, columns] = class_code, code
    return codes


def sure(codes: Tensor) -> CodeProbabilities:
    """Probabilities of 0.9 for the drawn codes."""
    groups = [torch.arange(1, 20), torch.arange(1, 8)]
    planes = [0.9 * (codes[i] == known[:, None, None]).float() + 0.01 for i, known in enumerate(groups)]
    planes[1][0] += 0.02 * (codes[1] == 0)
    return CodeProbabilities((planes[0], planes[1]), (groups[0], groups[1]), SPEC)


def separated(codes: Tensor, *past: Tensor, num_codes: int = 7, min_pixels: float = 0) -> Tensor:
    """Instance codes (H, W) after separation."""
    return separate_objects(sure(codes), past, num_codes=num_codes, min_pixels=min_pixels).choose()[0][1]


LEFT, RIGHT = (slice(4, 10), slice(2, 8)), (slice(4, 12), slice(20, 30))  # 36 and 80 pixels


def test_the_larger_of_two_new_objects_keeps_the_code() -> None:
    result = separated(drawing((CAR, 3, *LEFT), (CAR, 3, *RIGHT)))
    assert result[RIGHT].unique().tolist() == [3]
    assert result[LEFT].unique().tolist() == [1]
    assert int((result > 0).sum()) == 36 + 80


def test_the_old_object_keeps_the_code_whatever_its_size() -> None:
    past = drawing((CAR, 3, slice(5, 11), slice(4, 10)))  # LEFT, two pixels further
    result = separated(drawing((CAR, 3, *LEFT), (CAR, 3, *RIGHT)), past)
    assert result[LEFT].unique().tolist() == [3]
    assert result[RIGHT].unique().tolist() == [1]


def test_a_new_object_far_from_the_one_that_left_gets_another_code() -> None:
    assert separated(drawing((CAR, 3, *RIGHT)), drawing((CAR, 3, *LEFT)))[RIGHT].unique().tolist() == [1]
    near = drawing((CAR, 3, slice(4, 12), slice(31, 38)))  # begins two pixels beyond RIGHT: it has moved
    assert separated(drawing((CAR, 3, *RIGHT)), near)[RIGHT].unique().tolist() == [3]


def test_any_past_map_knows_an_object() -> None:
    before, between = drawing((CAR, 3, *LEFT), (CAR, 3, *RIGHT)), drawing((CAR, 3, *RIGHT))
    result = separated(drawing((CAR, 3, *LEFT), (CAR, 3, *RIGHT)), before, between)
    assert result[LEFT].unique().tolist() == result[RIGHT].unique().tolist() == [3]


def test_parts_behind_a_pole_stay_one_object() -> None:
    codes = drawing((CAR, 3, *RIGHT), (6, 0, slice(0, 20), slice(24, 26)))  # a pole two pixels wide
    assert set(separated(codes)[RIGHT].unique().tolist()) == {0, 3}
    codes = drawing((CAR, 3, *RIGHT), (6, 0, slice(0, 20), slice(23, 27)))
    assert set(separated(codes)[RIGHT].unique().tolist()) == {0, 1, 3}


def test_codes_of_the_past_and_of_others_are_not_taken() -> None:
    past = drawing((PERSON, 1, slice(14, 18), slice(2, 4)))  # gone, but remembered
    codes = drawing((CAR, 3, *LEFT), (CAR, 3, *RIGHT), (PERSON, 2, slice(14, 18), slice(30, 32)))
    assert separated(codes, past)[LEFT].unique().tolist() == [4]


def test_parts_stay_together_where_codes_run_out_or_parts_are_small() -> None:
    codes = drawing((CAR, 3, *LEFT), (CAR, 3, *RIGHT))
    assert separated(codes, num_codes=1)[LEFT].unique().tolist() == [1]
    full = [drawing((PERSON, k, slice(20, 22), slice(2, 4))) for k in range(1, 8)]
    assert separated(codes, *full)[LEFT].unique().tolist() == [3]
    assert separated(codes, min_pixels=37)[LEFT].unique().tolist() == [3]
    assert separated(codes, min_pixels=36)[LEFT].unique().tolist() == [1]


def test_two_classes_of_one_code_are_two_objects_already() -> None:
    codes = drawing((CAR, 3, *LEFT), (PERSON, 3, *RIGHT))
    assert separated(codes).equal(codes[1])


def test_a_model_without_instances_is_left_alone() -> None:
    probabilities = sure(drawing())
    semantic = CodeProbabilities(probabilities.planes[:1], probabilities.codes[:1], SPEC)
    assert separate_objects(semantic, [], num_codes=0) is semantic


def test_probabilities_move_with_the_code() -> None:
    """The recoded object has its confidence, and in addition what its new code had there: 0.01 of a class of 0.91."""
    before = sure(drawing((CAR, 3, *LEFT), (CAR, 3, *RIGHT)))
    after = separate_objects(before, [], num_codes=7)
    torch.testing.assert_close(after.choose()[1][LEFT], before.choose()[1][LEFT] + 0.91 * 0.01)
    torch.testing.assert_close(after.planes[1].sum(0), before.planes[1].sum(0))


def test_components_and_dilate() -> None:
    mask = torch.zeros(5, 9, dtype=torch.bool)
    mask[1, 1], mask[2, 2], mask[0:3, 5] = True, True, True  # a diagonal is connected; two pixels lie between
    assert [int(p.sum()) for p in components(mask)] == [3, 2]
    assert [int(p.sum()) for p in components(mask, radius=1)] == [5]
    assert components(torch.zeros(3, 3, dtype=torch.bool)) == []
    assert int(dilate(mask, 1)[:, :4].sum()) == 14


def flood(mask: np.ndarray) -> np.ndarray:
    """Connected parts, slowly: every pixel takes the lowest number around it until nothing changes."""
    label = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), mask.size + 1)
    while True:
        wide = np.pad(label, 1, constant_values=mask.size + 1)
        around = [wide[r : r + mask.shape[0], c : c + mask.shape[1]] for r in range(3) for c in range(3)]
        lowest = np.where(mask, np.min(around, axis=0), mask.size + 1)
        if np.array_equal(lowest, label):
            break
        label = lowest
    numbers = np.zeros(mask.shape, np.int64)
    numbers[mask] = np.unique(label[mask], return_inverse=True)[1] + 1
    return numbers


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 1.0])
def test_number_parts_is_flooding(share: float) -> None:
    """A part's number follows its first pixel; rows that begin and end at the map's border, and worms, are in."""
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 30), (30, 1), (17, 23), (24, 24)):
        mask = rng.random(shape) < share
        assert np.array_equal(number_parts(mask), flood(mask))


def test_number_parts_of_a_spiral() -> None:
    mask = np.ones((9, 9), bool)
    mask[1, :8] = mask[1:8, 7] = mask[7, 1:8] = mask[3:8, 1] = mask[3, 1:6] = mask[3:6, 5] = mask[5, 3:6] = False
    assert np.array_equal(number_parts(mask), flood(mask))
