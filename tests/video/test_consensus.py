"""Samples of one frame, drawn by hand on maps of 2x6 pixels, put in line and averaged."""

from __future__ import annotations

import math
from itertools import chain

import pytest
import torch
from torch import Tensor

from pix2seq_d.labels import get_label_spec
from pix2seq_d.video.consensus import Consensus, align_objects, find_consensus, normalised_entropy
from pix2seq_d.video.decode import CodeProbabilities

SPEC = get_label_spec("kitti-step")
ROAD, PERSON, CAR = 1, 12, 14  # class codes
NUM_CODES = 4


def sample(classes: list[list[int]], codes: list[list[int]], *, sure: float = 0.9) -> CodeProbabilities:
    """Class codes at probability `sure`, the rest spread over the other classes; instance codes alike."""
    planes = []
    for chosen, count in ((torch.tensor(classes) - 1, SPEC.num_classes), (torch.tensor(codes) - 1, NUM_CODES)):
        p = torch.full((count, *chosen.shape), (1 - sure) / (count - 1))
        planes.append(p.scatter(0, chosen.clamp(min=0)[None], sure))
    names = torch.arange(1, SPEC.num_classes + 1), torch.arange(1, NUM_CODES + 1)
    return CodeProbabilities(tuple(planes), names, SPEC)


def cars(codes: list[list[int]], *, sure: float = 0.9) -> CodeProbabilities:
    """Cars where there is a code, else road."""
    return sample([[CAR if c else ROAD for c in row] for row in codes], codes, sure=sure)


def codes_of(found: CodeProbabilities) -> list[list[int]]:
    return found.choose()[0][1].tolist()


LEFT_RIGHT = [[1, 1, 0, 0, 2, 2], [1, 1, 0, 0, 2, 2]]


def test_codes_that_are_only_other_names_are_put_in_line() -> None:
    """Every sample calls the two cars by other codes."""
    renamed = [[[a[c] for c in row] for row in LEFT_RIGHT] for a in ([0, 1, 2], [0, 3, 1], [0, 2, 4])]
    found = find_consensus([cars(codes) for codes in renamed], num_codes=NUM_CODES)
    first = found.codes[0, 1]
    assert all(torch.equal(codes, first) for codes in found.codes[:, 1])
    assert codes_of(found.probabilities) == first.tolist()
    assert len(first.unique()) == 3
    assert not found.disagreement().any()


def test_the_majority_decides_where_objects_end() -> None:
    """Two of three say that the middle belongs to the left car."""
    samples = [[1, 1, 1, 2], [3, 3, 3, 1], [2, 2, 1, 1]]
    found = find_consensus([cars([s, s]) for s in samples], num_codes=NUM_CODES)
    row = codes_of(found.probabilities)[0]
    assert row[0] == row[1] == row[2] != row[3]
    torch.testing.assert_close(found.disagreement()[0], torch.tensor([0.0, 0.0, 1 / 3, 0.0]))


def test_an_object_that_one_sample_lacks() -> None:
    found = find_consensus([cars([[1, 0, 2, 2]]), cars([[0, 0, 1, 1]]), cars([[2, 0, 3, 3]])], num_codes=NUM_CODES)
    row = codes_of(found.probabilities)[0]
    assert len({row[0], row[2]} - {0}) == 2
    torch.testing.assert_close(found.disagreement()[0], torch.tensor([1 / 3, 0.0, 0.0, 0.0]))


def test_objects_that_only_later_samples_have_find_each_other() -> None:
    """The first two samples see one car; the others agree on a second one, under different codes."""
    samples = [cars([[1, 1, 0, 0]]), cars([[1, 1, 0, 0]]), cars([[1, 1, 0, 3]]), cars([[2, 2, 0, 1]])]
    aligned = [codes_of(s)[0] for s in align_objects(samples, num_codes=NUM_CODES)]
    assert aligned[2] == aligned[3]
    assert {row[0] for row in aligned} == {aligned[0][0]}
    assert aligned[2][3] not in (0, aligned[2][0])


def test_objects_beyond_the_codes_are_left_out() -> None:
    samples = [cars([[1, 0, 2, 0]]), cars([[0, 1, 0, 2]])]
    found = find_consensus(samples, num_codes=2)
    assert set(found.codes[:, 1].unique().tolist()) <= {0, 1, 2}


def test_a_sample_without_objects() -> None:
    found = find_consensus([cars([[0, 0, 0]]), cars([[0, 0, 0]])], num_codes=NUM_CODES)
    assert codes_of(found.probabilities) == [[0, 0, 0]]
    mixed = find_consensus([cars([[0, 0, 0]]), cars([[0, 2, 2]], sure=0.99)], num_codes=NUM_CODES)
    assert mixed.codes[0, 1].tolist() == [[0, 0, 0]]
    assert mixed.codes[1, 1].tolist()[0][1] > 0


def test_mean_probabilities_count_a_sample_as_far_as_it_sees_a_thing() -> None:
    """P(car) .9 and .6, P(its code | a thing) .9 and .7: the second counts for two thirds of the first."""
    one, other = cars([[1]], sure=0.9), cars([[1]], sure=0.9)
    other.planes[0][CAR - 1], other.planes[0][ROAD - 1] = 0.6, 0.3
    other.planes[1][0], other.planes[1][1] = 0.7, 0.25
    found = find_consensus([one, other], num_codes=NUM_CODES).probabilities
    assert found.planes[0].max().item() == pytest.approx(0.75)
    rest = 0.1 / 18  # of persons
    expected = (0.9 * (0.9 + rest) + 0.7 * (0.6 + rest)) / (1.5 + 2 * rest)
    assert found.planes[1].max().item() == pytest.approx(expected, rel=1e-5)


def test_entropy_is_that_of_the_mean_over_its_largest() -> None:
    sure = find_consensus([cars([[0]], sure=1.0)] * 2, num_codes=NUM_CODES)
    assert normalised_entropy(sure.classes).item() == pytest.approx(0, abs=1e-6)
    torn = find_consensus([cars([[0]], sure=1.0), cars([[1]], sure=1.0)], num_codes=NUM_CODES)
    assert normalised_entropy(torn.classes).item() == pytest.approx(math.log(2) / math.log(19), rel=1e-5)
    lost = find_consensus([cars([[0]], sure=1 / 19)] * 2, num_codes=NUM_CODES)
    assert normalised_entropy(lost.classes).item() == pytest.approx(1, rel=1e-5)


def test_agreement_is_the_mean_iou_with_the_most_similar_segment() -> None:
    """A car of 4 pixels; in the samples 4, 2 and none of them: (1 + 1/2 + 0) / 3. Road: 2 of 2, 2 of 4, 2 of 6."""
    samples = [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    maps = torch.tensor([[[[CAR if c else ROAD for c in s]], [s]] for s in samples])
    found = Consensus(cars([samples[0]]), maps, torch.zeros(1, 6)).agreement(maps[0])
    assert found == pytest.approx({(CAR, 1): 0.5, (ROAD, 0): (1 + 2 / 4 + 2 / 6) / 3})


def test_agreement_asks_for_the_class_not_for_the_code() -> None:
    maps = torch.tensor([[[[CAR, PERSON]], [[1, 2]]], [[[CAR, CAR]], [[3, 4]]]])
    found = Consensus(cars([[1, 2]]), maps, torch.zeros(1, 2)).agreement(maps[0])
    assert found == {(CAR, 1): 1.0, (PERSON, 2): 0.5}


def test_classes_alone() -> None:
    """A model without instance bits."""

    def classes_only(p: CodeProbabilities) -> CodeProbabilities:
        return CodeProbabilities(p.planes[:1], p.codes[:1], p.spec)

    found = find_consensus([classes_only(cars([[0, 1]])), classes_only(cars([[0, 1]]))], num_codes=0)
    assert found.probabilities.choose()[0].tolist() == [[[ROAD, CAR]]]
    assert found.disagreement().tolist() == [[0, 0]]
    assert set(found.agreement(found.codes[0])) == {(ROAD, 0), (CAR, 0)}


def test_random_samples_lose_nothing() -> None:
    """Whatever the samples: each of their objects has exactly one new code, no two of a sample the same."""
    generator = torch.Generator().manual_seed(3)

    def drawn() -> Tensor:
        return torch.randint(0, 4, (4, 6), generator=generator)

    for _ in range(20):
        maps = [drawn().tolist() for _ in range(4)]
        aligned = align_objects([cars(m) for m in maps], num_codes=16)
        for old, new in zip(maps, aligned):
            pairs = {(a, b) for a, b in zip(chain(*old), chain(*codes_of(new)))}
            assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
