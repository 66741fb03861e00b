"""Label specs: the classes of a dataset, which of them are things, their colours, and the ids used on disk.

Inside the library a class is its train id 0 ... num_classes - 1 and 255 is void; the codes that become analog bits keep
0 for void (class code = train id + 1) and for "no instance" (instance code).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from pix2seq_d.label_tables import BDD100K_COLOURS, BDD100K_NAMES, COCO_COLOURS, COCO_IDS, COCO_NAMES

VOID_ID = 255
LABEL_DIVISOR = 1 << 16  # panoptic_id = class_id * LABEL_DIVISOR + instance_id; 16 bits are what KITTI-STEP's PNGs hold

Map = TypeVar("Map", np.ndarray, Tensor)


@dataclass(frozen=True)
class LabelSpec:
    """The label space of a dataset.

    Attributes:
        name: short name, the key in LABEL_SPECS.
        class_names: one name per train id.
        colours: one (R, G, B) per train id, 0-255.
        thing_ids: train ids of the classes whose objects carry instance ids; all others are stuff.
        dataset_ids: the id on disk of every train id (empty: the disk holds train ids).
        void_id: train id of pixels without a label.
    """

    name: str
    class_names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    thing_ids: tuple[int, ...]
    dataset_ids: tuple[int, ...] = ()
    void_id: int = VOID_ID

    def __post_init__(self) -> None:
        if len(self.colours) != self.num_classes:
            raise ValueError(f"{self.name}: expected {self.num_classes} colours, got {len(self.colours)}")
        if self.dataset_ids and len(self.dataset_ids) != self.num_classes:
            raise ValueError(f"{self.name}: expected {self.num_classes} dataset_ids, got {len(self.dataset_ids)}")
        if any(not 0 <= i < self.num_classes for i in self.thing_ids):
            raise ValueError(f"{self.name}: expected thing_ids in 0..{self.num_classes - 1}, got {self.thing_ids}")
        if self.num_classes > self.void_id:
            raise ValueError(f"{self.name}: expected at most {self.void_id} classes, got {self.num_classes}")

    @property
    def num_classes(self) -> int:
        """Number of classes, void not counted."""
        return len(self.class_names)

    @property
    def stuff_ids(self) -> tuple[int, ...]:
        """Train ids of the classes without instances."""
        return tuple(i for i in range(self.num_classes) if i not in self.thing_ids)

    @property
    def num_class_bits(self) -> int:
        """Bits that hold the class codes 0 (void) ... num_classes."""
        return self.num_classes.bit_length()

    def to_codes(self, class_map: Map, instance_map: Map) -> tuple[Map, Map]:
        """Train ids and instance ids to class codes and instance codes.

        Args:
            class_map: (...) integers, train ids or void_id.
            instance_map: (...) integers of the same shape; what stuff and void pixels hold is ignored.

        Returns:
            Class codes (void 0, class c -> c + 1) and instance codes (things only, else 0), both int64.

        Raises:
            ValueError: a class id outside the spec.
        """
        self.check_class_ids(class_map)
        class_codes = _int64(class_map) + 1
        class_codes[class_map == self.void_id] = 0
        return class_codes, _int64(instance_map) * self.is_thing(class_map)

    def from_codes(self, class_codes: Map, instance_codes: Map) -> tuple[Map, Map]:
        """The inverse of `to_codes`: codes to train ids and instance ids (int64); code 0 and unused codes are void."""
        class_map = _int64(class_codes) - 1
        class_map[(class_codes < 1) | (class_codes > self.num_classes)] = self.void_id
        return class_map, _int64(instance_codes) * self.is_thing(class_map)

    def is_thing(self, class_map: Map) -> Map:
        """Boolean map of the pixels of thing classes."""
        thing = class_map != class_map
        for i in self.thing_ids:
            thing |= class_map == i
        return thing

    def to_train_ids(self, dataset_map: np.ndarray) -> np.ndarray:
        """(...) ids as on disk to uint8 train ids; ids that the spec does not list become void."""
        if not self.dataset_ids:
            known = (dataset_map >= 0) & (dataset_map < self.num_classes)
            return np.where(known, dataset_map, self.void_id).astype(np.uint8)
        table = np.full(max(int(dataset_map.max(initial=0)), *self.dataset_ids) + 1, self.void_id, np.uint8)
        table[list(self.dataset_ids)] = np.arange(self.num_classes, dtype=np.uint8)
        return np.where(dataset_map < 0, np.uint8(self.void_id), table[np.maximum(dataset_map, 0)])

    def to_dataset_ids(self, class_map: np.ndarray, *, void: int) -> np.ndarray:
        """(...) train ids to int64 ids as on disk, `void` for void pixels."""
        self.check_class_ids(class_map)
        table = np.full(self.void_id + 1, void, np.int64)
        table[: self.num_classes] = self.dataset_ids or np.arange(self.num_classes)
        return table[class_map]

    def check_class_ids(self, class_map: np.ndarray | Tensor) -> None:
        """Raises ValueError if `class_map` holds an id that is neither a class of the spec nor void."""
        if (
            self.void_id == VOID_ID
            and isinstance(class_map, np.ndarray)
            and class_map.dtype == np.uint8
            and int((class_map + np.uint8(1)).max(initial=0)) <= self.num_classes
        ):
            return  # one pass over a good map: void + 1 is 0 in eight bits
        wrong = (class_map != self.void_id) & ((class_map < 0) | (class_map >= self.num_classes))
        if bool(wrong.any()):
            raise ValueError(
                f"label spec {self.name}: expected class ids 0..{self.num_classes - 1} or {self.void_id} (void), "
                f"got {int(class_map[wrong][0])}"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description, the inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LabelSpec:
        """Builds a spec from `to_dict`'s (or JSON's) values; unknown or missing keys raise TypeError."""
        if not isinstance(values, dict):
            raise TypeError(f"label_spec: expected a dictionary, got {values!r}")
        sequences = {k: tuple(v) for k, v in values.items() if k in ("class_names", "thing_ids", "dataset_ids")}
        if "colours" in values:
            sequences["colours"] = tuple(tuple(c) for c in values["colours"])
        return cls(**{**values, **sequences})


def _int64(x: Map) -> Map:
    return x.astype(np.int64) if isinstance(x, np.ndarray) else x.long()


def get_label_spec(name: str) -> LabelSpec:
    """The spec called `name`; raises ValueError with the known names."""
    if name not in LABEL_SPECS:
        raise ValueError(f"label spec: expected one of {', '.join(LABEL_SPECS)}, got {name!r}")
    return LABEL_SPECS[name]


def _rgb(*colours: str) -> tuple[tuple[int, int, int], ...]:
    return tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in colours)


# Cityscapes' 19 evaluated classes

_CITYSCAPES_NAMES = tuple(
    "road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,person,rider,car,truck,"
    "bus,train,motorcycle,bicycle".split(",")
)
_CITYSCAPES_COLOURS = _rgb(
    *"804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98".split(),
    *"4682b4 dc143c ff0000 00008e 000046 003c64 005064 0000e6 770b20".split(),
)
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

_CAMVID_NAMES = tuple("sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,bicyclist".split(","))
_CAMVID_COLOURS = _rgb(*"808080 800000 c0c080 804080 3c28de 808000 c08080 404080 400080 404000 0080c0".split())

# Weber et al., arXiv 2102.11859: Cityscapes' classes that occur on foot, renumbered

_MOT_NAMES = tuple("sidewalk,building,vegetation,sky,person,rider,bicycle".split(","))
_MOT_COLOURS = tuple(_CITYSCAPES_COLOURS[_CITYSCAPES_NAMES.index(name)] for name in _MOT_NAMES)

LABEL_SPECS = {
    spec.name: spec
    for spec in (
        LabelSpec("kitti-step", _CITYSCAPES_NAMES, _CITYSCAPES_COLOURS, thing_ids=(11, 13)),
        LabelSpec("cityscapes-step", _CITYSCAPES_NAMES, _CITYSCAPES_COLOURS, (11, 13), _CITYSCAPES_IDS),
        LabelSpec("cityscapes", _CITYSCAPES_NAMES, _CITYSCAPES_COLOURS, tuple(range(11, 19)), _CITYSCAPES_IDS),
        LabelSpec("cityscapes-vps", _CITYSCAPES_NAMES, _CITYSCAPES_COLOURS, tuple(range(11, 19))),
        LabelSpec("motchallenge-step", _MOT_NAMES, _MOT_COLOURS, thing_ids=(4,)),
        LabelSpec("bdd100k", tuple(BDD100K_NAMES), _rgb(*BDD100K_COLOURS), tuple(range(30, 40)), tuple(range(1, 41))),
        LabelSpec("coco", tuple(COCO_NAMES), _rgb(*COCO_COLOURS), tuple(range(80)), tuple(map(int, COCO_IDS))),
        LabelSpec("camvid", _CAMVID_NAMES, _CAMVID_COLOURS, thing_ids=()),
    )
}
