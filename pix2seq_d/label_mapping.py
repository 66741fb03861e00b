"""From the classes of one label spec to those of another, by name, so that runs on several datasets share one space.

A class goes to the class of the same name, else to the first synonym that the target has, else to void. Whether its
objects keep their ids is the target's affair: things stay objects only where both sides call them things.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pix2seq_d.labels import LabelSpec

# Source class -> target classes that (nearly) all of its pixels belong to, in order of preference. One way on purpose:
# a parking sign is a traffic sign by Cityscapes' definition, but a traffic sign is no parking sign.
SYNONYMS: dict[str, tuple[str, ...]] = {
    # names of Cityscapes, KITTI-STEP, MOTChallenge-STEP and BDD100K, and what CamVid and COCO call them
    "sidewalk": ("pavement", "pavement-merged"),
    "building": ("building-other-merged",),
    "wall": ("wall-other-merged",),
    "fence": ("fence-merged",),
    "traffic sign": ("sign",),
    "vegetation": ("tree", "tree-merged"),
    "terrain": ("grass-merged",),
    "sky": ("sky-other-merged",),
    "person": ("pedestrian",),
    "rider": ("bicyclist", "person"),  # COCO labels riders as persons
    # BDD100K
    "garage": ("building", "building-other-merged"),
    "parking sign": ("traffic sign", "sign"),
    # CamVid
    "pavement": ("sidewalk", "pavement-merged"),
    "tree": ("vegetation", "tree-merged"),
    "sign": ("traffic sign",),
    "pedestrian": ("person",),
    "bicyclist": ("rider", "person"),
    # COCO panoptic
    "stop sign": ("traffic sign", "sign"),
    "house": ("building",),
    "roof": ("building",),
    "building-other-merged": ("building",),
    "wall-brick": ("wall",),
    "wall-stone": ("wall",),
    "wall-tile": ("wall",),
    "wall-wood": ("wall",),
    "wall-other-merged": ("wall",),
    "fence-merged": ("fence",),
    "pavement-merged": ("sidewalk", "pavement"),
    "tree-merged": ("vegetation", "tree"),
    "grass-merged": ("terrain",),
    "dirt-merged": ("terrain",),
    "sand": ("terrain",),
    "sky-other-merged": ("sky",),
}


def class_table(source: LabelSpec, target: LabelSpec) -> np.ndarray:
    """The target's train id of every class id of the source.

    Returns:
        (256,) uint8, the target's void where a class has no counterpart, and for ids that are no class.
    """
    ids = {name: i for i, name in enumerate(target.class_names)}
    table = np.full(256, target.void_id, np.uint8)
    for i, name in enumerate(source.class_names):
        table[i] = next((ids[n] for n in (name, *SYNONYMS.get(name, ())) if n in ids), target.void_id)
    return table


def remap(
    class_map: np.ndarray, instance_map: np.ndarray, source: LabelSpec, target: LabelSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Maps of one label space in another.

    Objects are a class and an id together. Where n thing classes of the source become one thing of the target, object
    k of the j-th of them becomes k n + j + 1 - n, so that two objects never become one and a video keeps its ids;
    alone in its target class (n = 1) it keeps its id.

    Args:
        class_map: (...) integers, train ids of the source or its void.
        instance_map: (...) integers of the same shape, 0 = no instance; ignored outside the source's things.
        source: the spec of the maps.
        target: the spec wanted.

    Returns:
        Train ids of the target (uint8), and instance ids (int32): 0 outside its things, and in its things where the
        source has no object (then they are crowds).

    Raises:
        ValueError: a class id outside the source spec, or maps of different shapes.
    """
    if class_map.shape != instance_map.shape:
        raise ValueError(f"expected maps of one shape, got {class_map.shape} and {instance_map.shape}")
    source.check_class_ids(class_map)
    classes, factor, shift = _tables(source, target)
    factors = factor[class_map]
    ids = np.where((instance_map > 0) & (factors > 0), instance_map * factors + shift[class_map], 0)
    return classes[class_map], ids.astype(np.int32)


@lru_cache(maxsize=16)
def _tables(source: LabelSpec, target: LabelSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target class, factor and shift of the instance ids of every source class; factor 0 drops them."""
    classes = class_table(source, target)
    factor, shift = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for thing in target.thing_ids:
        things = [i for i in source.thing_ids if classes[i] == thing]
        for j, i in enumerate(things):
            factor[i], shift[i] = len(things), j + 1 - len(things)
    return classes, factor, shift


def same_space(source: LabelSpec, target: LabelSpec) -> bool:
    """Whether maps of one spec are maps of the other as they are: the same names, things and void id."""
    return all(getattr(source, key) == getattr(target, key) for key in ("class_names", "thing_ids", "void_id"))


def shares_classes(source: LabelSpec, target: LabelSpec) -> bool:
    """Whether any class of the source has a counterpart in the target."""
    return len(unmatched(source, target)[0]) < source.num_classes


def unmatched(source: LabelSpec, target: LabelSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Classes of the source that become void, and classes of the target that no class of the source becomes."""
    table = class_table(source, target)[: source.num_classes]
    lost = tuple(name for name, i in zip(source.class_names, table) if i == target.void_id)
    absent = tuple(name for i, name in enumerate(target.class_names) if i not in table)
    return lost, absent


def describe_mapping(source: LabelSpec, target: LabelSpec) -> str:
    """What `unmatched` finds, in one line; empty where both specs have the same space."""
    if same_space(source, target):
        return ""
    lost, absent = (", ".join(names) or "none" for names in unmatched(source, target))
    return f"labels {source.name} -> {target.name}: become void: {lost}; classes without data: {absent}"
