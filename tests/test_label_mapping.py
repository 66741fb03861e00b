"""Classes of one dataset in the space of another: tables by name, objects that stay apart, and the synonyms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pix2seq_d.label_mapping import (
    SYNONYMS,
    class_table,
    describe_mapping,
    remap,
    same_space,
    shares_classes,
    unmatched,
)
from pix2seq_d.labels import LABEL_SPECS, LabelSpec, get_label_spec

KITTI, CITY, STEP, CAMVID = map(get_label_spec, ("kitti-step", "cityscapes", "cityscapes-step", "camvid"))
VOID = 255


def spec(name: str, names: str, things: str = "", *, void_id: int = VOID) -> LabelSpec:
    """Classes from "a,b c,d"; `things` names some of them."""
    classes = tuple(names.split(","))
    thing_ids = tuple(classes.index(t) for t in things.split(",") if t)
    return LabelSpec(name, classes, ((0, 0, 0),) * len(classes), thing_ids, void_id=void_id)


# A few classes of the datasets whose names differ most; the whole lists are in LABEL_SPECS where they are read.
BDD = spec(
    "bdd", "ego vehicle,parking,road,sidewalk,garage,parking sign,traffic sign,sky,person,rider,bicycle,car,truck",
    "person,rider,bicycle,car,truck",
)  # fmt: skip
COCO = spec(
    "coco-part", "person,bicycle,car,bus,traffic light,stop sign,road,house,tree-merged,fence-merged,sky-other-merged,"
    "pavement-merged,grass-merged,wall-brick,building-other-merged,banana",
    "person,bicycle,car,bus,traffic light,banana",
)  # fmt: skip


def named(source: LabelSpec, target: LabelSpec) -> dict[str, str]:
    """Source class -> target class, those without one left out."""
    table = class_table(source, target)
    return {n: target.class_names[table[i]] for i, n in enumerate(source.class_names) if table[i] != target.void_id}


# Tables


@pytest.mark.parametrize("source", LABEL_SPECS.values(), ids=LABEL_SPECS)
def test_a_spec_maps_onto_itself(source: LabelSpec) -> None:
    table = class_table(source, source)
    assert (table.shape, table.dtype) == ((256,), np.uint8)
    assert table[: source.num_classes].tolist() == list(range(source.num_classes))
    assert (table[source.num_classes :] == VOID).all()
    assert unmatched(source, source) == ((), ())
    assert same_space(source, source)
    assert describe_mapping(source, source) == ""


def test_cityscapes_and_kitti_step_share_one_code_space() -> None:
    """Pretraining on one and training on the other keeps every code; only what counts as an object differs."""
    for one, other in ((CITY, KITTI), (KITTI, CITY), (CITY, STEP)):
        np.testing.assert_array_equal(class_table(one, other), class_table(one, one))
    assert same_space(STEP, KITTI)
    assert not same_space(CITY, KITTI)
    assert CITY.num_class_bits == KITTI.num_class_bits


def test_camvid_in_cityscapes() -> None:
    assert named(CAMVID, CITY) == {
        "sky": "sky", "building": "building", "pole": "pole", "road": "road", "pavement": "sidewalk",
        "tree": "vegetation", "sign": "traffic sign", "fence": "fence", "car": "car", "pedestrian": "person",
        "bicyclist": "rider",
    }  # fmt: skip
    back = named(CITY, CAMVID)
    assert back["rider"] == "bicyclist"
    assert back["person"] == "pedestrian"
    assert unmatched(CITY, CAMVID) == (
        ("wall", "traffic light", "terrain", "truck", "bus", "train", "motorcycle", "bicycle"), ()
    )  # fmt: skip


def test_bdd100k_in_cityscapes() -> None:
    mapped = named(BDD, CITY)
    assert (mapped["parking sign"], mapped["garage"], mapped["bicycle"]) == ("traffic sign", "building", "bicycle")
    assert unmatched(BDD, CITY)[0] == ("ego vehicle", "parking")
    assert "terrain" in unmatched(BDD, CITY)[1]
    assert "parking sign" not in named(CITY, BDD).values(), "synonyms go one way"


def test_coco_and_cityscapes() -> None:
    assert named(COCO, CITY) == {
        "person": "person", "bicycle": "bicycle", "car": "car", "bus": "bus", "traffic light": "traffic light",
        "stop sign": "traffic sign", "road": "road", "house": "building", "tree-merged": "vegetation",
        "fence-merged": "fence", "sky-other-merged": "sky", "pavement-merged": "sidewalk", "grass-merged": "terrain",
        "wall-brick": "wall", "building-other-merged": "building",
    }  # fmt: skip
    back = named(CITY, COCO)
    assert (back["rider"], back["vegetation"], back["building"]) == ("person", "tree-merged", "building-other-merged")
    assert "traffic sign" not in back, "not every traffic sign is a stop sign"


def test_the_same_name_comes_before_a_synonym() -> None:
    source, target = spec("a", "rider"), spec("b", "person,bicyclist,rider")
    assert named(source, target) == {"rider": "rider"}
    assert named(source, spec("b", "person,bicyclist")) == {"rider": "bicyclist"}


def test_another_void_id() -> None:
    table = class_table(spec("a", "x,y", void_id=200), spec("b", "y", void_id=9))
    assert table[:3].tolist() == [9, 0, 9]
    assert table[200] == 9


@pytest.mark.parametrize("name", ["bdd100k", "coco", "motchallenge-step"])
def test_whole_lists_where_they_are_read(name: str) -> None:
    if name not in LABEL_SPECS:
        pytest.skip(f"no label spec {name}")
    source, mapped = LABEL_SPECS[name], named(LABEL_SPECS[name], CITY)
    assert {"person", "bicycle"} <= set(mapped)
    shared = set(source.class_names) & set(CITY.class_names)
    assert all(mapped[n] == n for n in shared)
    if name == "bdd100k":
        assert unmatched(source, CITY)[1] == (), "BDD100K has every class of Cityscapes"
    if name == "coco":
        assert set(unmatched(source, CITY)[1]) == {"pole", "rider"}


def test_a_mapping_in_words() -> None:
    source, target = spec("a", "car,unicorn", "car"), spec("b", "car,road", "car")
    assert describe_mapping(source, target) == "labels a -> b: become void: unicorn; classes without data: road"
    assert shares_classes(source, target)
    assert not shares_classes(source, spec("c", "road"))


def test_synonyms_are_names_of_classes() -> None:
    """No typing error: every name is in a spec of the package, or is one of those that come with COCO or BDD100K."""
    known = {n for s in LABEL_SPECS.values() for n in s.class_names} | {*BDD.class_names, *COCO.class_names}
    known |= {"roof", "wall-stone", "wall-tile", "wall-wood", "wall-other-merged", "dirt-merged", "sand"}
    assert not {*SYNONYMS, *(n for names in SYNONYMS.values() for n in names)} - known
    assert all(name not in names and len(set(names)) == len(names) for name, names in SYNONYMS.items())


# Maps


def test_instances_stay_where_both_sides_have_things() -> None:
    """Cityscapes -> KITTI-STEP: a car keeps its id, a truck is stuff; back, KITTI's trucks are a crowd."""
    class_map, instance_map = np.array([[13, 14, 11, 0, 255]]), np.array([[7, 3, 0, 5, 9]])
    classes, instances = remap(class_map, instance_map, CITY, KITTI)
    assert (classes.dtype, instances.dtype) == (np.uint8, np.int32)
    assert classes.tolist() == [[13, 14, 11, 0, 255]]
    assert instances.tolist() == [[7, 0, 0, 0, 0]]
    assert remap(class_map, instance_map, KITTI, CITY)[1].tolist() == [[7, 0, 0, 0, 0]]
    assert remap(np.array([8, 9, 10]), np.array([4, 4, 4]), CAMVID, CITY)[0].tolist() == [13, 11, 12]
    assert remap(np.array([8, 9, 10]), np.array([4, 4, 4]), CAMVID, CITY)[1].tolist() == [0, 0, 0]


def test_two_classes_of_things_that_become_one_stay_apart() -> None:
    """Persons and riders are persons in COCO: person k -> 2k - 1, rider k -> 2k; cars are alone and keep their ids."""
    class_map, instance_map = np.array([11, 11, 12, 12, 12, 13]), np.array([1, 2, 1, 2, 0, 2])
    classes, instances = remap(class_map, instance_map, CITY, COCO)
    assert classes.tolist() == [0, 0, 0, 0, 0, 2]
    assert instances.tolist() == [1, 3, 2, 4, 0, 2]


@settings(max_examples=40, deadline=None)
@given(
    class_map=hnp.arrays(np.uint8, (2, 5), elements=st.sampled_from([*range(19), VOID])),
    instance_map=hnp.arrays(np.int32, (2, 5), elements=st.integers(0, 65535)),
    target=st.sampled_from([KITTI, CAMVID, COCO, BDD]),
)
def test_objects_neither_merge_nor_split(class_map: np.ndarray, instance_map: np.ndarray, target: LabelSpec) -> None:
    classes, instances = remap(class_map, instance_map, CITY, target)
    target.check_class_ids(classes)
    assert not instances[~target.is_thing(classes)].any()
    kept = CITY.is_thing(class_map) & target.is_thing(classes)
    assert ((instances > 0) == (kept & (instance_map > 0))).all()
    before = set(zip(class_map[kept].tolist(), instance_map[kept].tolist()))
    pairs = {
        (c, i, k, j)
        for c, i, k, j in zip(
            *(m[kept & (instance_map > 0)].tolist() for m in (class_map, instance_map, classes, instances))
        )
    }
    assert len(pairs) == len({p[:2] for p in pairs}) == len({p[2:] for p in pairs}) <= len(before)


def test_bad_maps() -> None:
    with pytest.raises(ValueError, match=r"label spec camvid: expected class ids 0\.\.10 or 255 \(void\), got 11"):
        remap(np.array([11]), np.array([0]), CAMVID, CITY)
    with pytest.raises(ValueError, match=r"expected maps of one shape, got \(2,\) and \(1,\)"):
        remap(np.array([1, 1]), np.array([0]), CAMVID, CITY)
