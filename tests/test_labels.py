"""Label specs: codes, ids on disk and dictionaries, there and back; the class lists of the datasets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seq_d.labels import LABEL_SPECS, VOID_ID, LabelSpec, get_label_spec

SPEC = LabelSpec(
    "toy", ("road", "car", "person"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), thing_ids=(1, 2), dataset_ids=(7, 26, 24)
)
CLASSES = np.array([[0, 1, 2], [VOID_ID, 1, 0]], np.uint8)
INSTANCES = np.array([[9, 3, 0], [5, 4, 0]], np.int32)  # 9 on road and 5 on void mean nothing


def as_kind(array: np.ndarray, kind: str) -> Any:
    return torch.from_numpy(array) if kind == "torch" else array


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_codes_by_hand(kind: str) -> None:
    class_codes, instance_codes = SPEC.to_codes(as_kind(CLASSES, kind), as_kind(INSTANCES, kind))
    assert class_codes.tolist() == [[1, 2, 3], [0, 2, 1]]
    assert instance_codes.tolist() == [[0, 3, 0], [0, 4, 0]]
    assert class_codes.dtype in (np.int64, torch.int64)
    assert instance_codes.dtype in (np.int64, torch.int64)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_codes_leave_their_arguments_alone(kind: str) -> None:
    classes, instances = as_kind(CLASSES.astype(np.int64), kind), as_kind(INSTANCES.astype(np.int64), kind)
    codes = SPEC.to_codes(classes, instances)
    assert classes.tolist() == CLASSES.tolist()
    assert instances.tolist() == INSTANCES.tolist()
    before = codes[0].tolist(), codes[1].tolist()
    SPEC.from_codes(*codes)
    assert (codes[0].tolist(), codes[1].tolist()) == before


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(LABEL_SPECS)), st.sampled_from(["numpy", "torch"]))
def test_codes_round_trip(seed: int, name: str, kind: str) -> None:
    spec, rng = get_label_spec(name), np.random.default_rng(seed)
    classes = rng.choice([*range(spec.num_classes), VOID_ID], (5, 6)).astype(np.uint8)
    instances = rng.integers(0, 50, (5, 6)).astype(np.int32) * np.isin(classes, spec.thing_ids)
    back = spec.from_codes(*spec.to_codes(as_kind(classes, kind), as_kind(instances, kind)))
    assert back[0].tolist() == classes.tolist()
    assert back[1].tolist() == instances.tolist()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_unused_codes_are_void_without_instance(kind: str) -> None:
    codes = as_kind(np.array([0, 1, 3, 4, 31]), kind)
    classes, instances = SPEC.from_codes(codes, as_kind(np.array([6, 6, 6, 6, 6]), kind))
    assert classes.tolist() == [VOID_ID, 0, 2, VOID_ID, VOID_ID]
    assert instances.tolist() == [0, 0, 6, 0, 0]


@pytest.mark.parametrize("wrong", [3, 254, -1])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_class_ids_outside_the_spec_raise(wrong: int, kind: str) -> None:
    classes = as_kind(np.array([0, wrong]), kind)
    with pytest.raises(ValueError, match=rf"toy: expected class ids 0\.\.2 or 255 \(void\), got {wrong}$"):
        SPEC.to_codes(classes, as_kind(np.zeros(2, np.int64), kind))
    if kind == "numpy":
        with pytest.raises(ValueError, match="toy: expected class ids"):
            SPEC.to_dataset_ids(classes, void=0)


@pytest.mark.parametrize("wrong", [3, 254])
def test_small_maps_of_ids_are_checked_too(wrong: int) -> None:
    """Eight bits, in which void + 1 is 0."""
    classes = np.array([[255, 0], [2, 1]], np.uint8)
    SPEC.check_class_ids(classes)
    classes[1, 0] = wrong
    with pytest.raises(ValueError, match=rf"toy: expected class ids 0\.\.2 or 255 \(void\), got {wrong}$"):
        SPEC.check_class_ids(classes)


def test_dataset_ids_round_trip() -> None:
    disk = SPEC.to_dataset_ids(CLASSES, void=0)
    assert disk.tolist() == [[7, 26, 24], [0, 26, 7]]
    assert SPEC.to_train_ids(disk).tolist() == CLASSES.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_unlisted_dataset_ids_become_void(dtype: type) -> None:
    disk: np.ndarray = np.array([7, 8, 26, 200]).astype(dtype)
    train = SPEC.to_train_ids(disk)
    assert train.tolist() == [0, VOID_ID, 1, VOID_ID]
    assert train.dtype == np.uint8
    assert SPEC.to_train_ids(np.array([-1, 24])).tolist() == [VOID_ID, 2]


def test_a_spec_without_dataset_ids_has_train_ids_on_disk() -> None:
    spec = replace(SPEC, dataset_ids=())
    assert spec.to_train_ids(np.array([0, 2, 3, 255, -1])).tolist() == [0, 2, VOID_ID, VOID_ID, VOID_ID]
    assert spec.to_dataset_ids(np.array([0, 2, VOID_ID]), void=99).tolist() == [0, 2, 99]
    assert spec.to_train_ids(np.zeros((0, 4), np.uint8)).shape == (0, 4)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_is_thing(kind: str) -> None:
    thing = SPEC.is_thing(as_kind(CLASSES, kind))
    assert thing.tolist() == [[False, True, True], [False, True, False]]
    assert thing.dtype in (np.bool_, torch.bool)


@pytest.mark.parametrize("name", sorted(LABEL_SPECS))
def test_dictionary_round_trip_through_json(name: str) -> None:
    spec = get_label_spec(name)
    assert LabelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("key", sorted(SPEC.to_dict().keys() - {"dataset_ids", "void_id"}))
def test_a_dictionary_without_a_key_raises(key: str) -> None:
    values = {k: v for k, v in SPEC.to_dict().items() if k != key}
    with pytest.raises(TypeError, match=key):
        LabelSpec.from_dict(values)


def test_a_dictionary_with_an_unknown_key_raises() -> None:
    with pytest.raises(TypeError, match="colors"):
        LabelSpec.from_dict({**SPEC.to_dict(), "colors": []})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colours": ((1, 2, 3),)}, "toy: expected 3 colours, got 1"),
        ({"dataset_ids": (1, 2)}, "toy: expected 3 dataset_ids, got 2"),
        ({"thing_ids": (3,)}, r"toy: expected thing_ids in 0\.\.2, got \(3,\)"),
        ({"void_id": 2}, "toy: expected at most 2 classes, got 3"),
    ],
)
def test_inconsistent_specs_raise(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SPEC, **change)


def test_unknown_names_raise_and_list_the_known() -> None:
    with pytest.raises(ValueError, match=r"expected one of kitti-step, .*, got 'kitti'"):
        get_label_spec("kitti")


def test_bits_hold_void_and_every_class() -> None:
    assert {n: s.num_class_bits for n, s in LABEL_SPECS.items()} == {
        "kitti-step": 5,  # 20 codes
        "cityscapes-step": 5,
        "cityscapes": 5,
        "cityscapes-vps": 5,
        "motchallenge-step": 3,  # 8 codes
        "bdd100k": 6,  # 41 codes
        "coco": 8,  # 134 codes
        "camvid": 4,  # 12 codes
    }
    names = tuple(str(i) for i in range(4))
    assert LabelSpec("four", names, ((0, 0, 0),) * 4, ()).num_class_bits == 3  # codes 0..4


def test_published_class_lists() -> None:
    """Train ids, ids on disk and colours of the Cityscapes label table; KITTI-STEP's two thing classes."""
    kitti, cityscapes = get_label_spec("kitti-step"), get_label_spec("cityscapes")
    assert kitti.thing_ids == (11, 13)
    assert (kitti.class_names[11], kitti.class_names[13]) == ("person", "car")
    assert kitti.stuff_ids == tuple(i for i in range(19) if i not in (11, 13))
    assert cityscapes.thing_ids == tuple(range(11, 19))
    assert cityscapes.dataset_ids[0] == 7
    assert cityscapes.dataset_ids[13] == 26
    assert cityscapes.dataset_ids[18] == 33
    assert cityscapes.colours[0] == (128, 64, 128)
    assert cityscapes.colours[18] == (119, 11, 32)
    assert get_label_spec("camvid").num_classes == 11
    assert get_label_spec("camvid").class_names[8] == "car"


def test_published_class_lists_of_the_other_datasets() -> None:
    """Ids and colours of Cityscapes-VPS, MOTChallenge-STEP, BDD100K (bdd100k.label.label) and COCO (panopticapi)."""
    vps, mot, bdd, coco = (get_label_spec(n) for n in ("cityscapes-vps", "motchallenge-step", "bdd100k", "coco"))
    assert vps == replace(get_label_spec("cityscapes"), name="cityscapes-vps", dataset_ids=())
    assert [mot.class_names[i] for i in (0, *mot.thing_ids, 6)] == ["sidewalk", "person", "bicycle"]
    assert (mot.num_classes, mot.colours[4]) == (7, (220, 20, 60))
    assert (bdd.num_classes, bdd.thing_ids, bdd.dataset_ids) == (40, tuple(range(30, 40)), tuple(range(1, 41)))
    assert [bdd.class_names[i - 1] for i in (1, 7, 30, 31, 35, 40)] == "dynamic road sky person car truck".split()
    assert bdd.colours[17] == (255, 165, 0)
    assert (coco.num_classes, coco.thing_ids) == (133, tuple(range(80)))
    names = {1: "person", 90: "toothbrush", 92: "banner", 149: "road", 187: "sky-other-merged", 200: "rug-merged"}
    assert {i: coco.class_names[coco.dataset_ids.index(i)] for i in names} == names
    assert list(coco.dataset_ids) == sorted(set(coco.dataset_ids))
    assert coco.colours[132] == (250, 141, 255)
