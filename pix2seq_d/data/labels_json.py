"""labels.json: the label spec of the user's own data as a file that people write and `LabelSpec.to_dict` gives."""

from __future__ import annotations

import json
import os
import reprlib
from pathlib import Path
from typing import Any

from pix2seq_d.data.formats import DataError, write_bytes
from pix2seq_d.labels import VOID_ID, LabelSpec
from pix2seq_d.palette import class_colours

LABELS_NAME = "labels.json"
MAX_BYTES = 1 << 20  # 255 classes fill a hundredth of it

_KEYS = ("name", "class_names", "colours", "things", "thing_ids", "dataset_ids", "void_id")


def read_labels_json(path: str | os.PathLike[str]) -> LabelSpec:
    """Reads a label spec from a JSON object; only `class_names` is needed.

    The keys are those of `LabelSpec.to_dict`, and `things`:
      class_names: names by train id: up to 255 different ones.
      things: names of the classes whose objects carry instance ids; or `thing_ids`, the same as train ids. Without
        either no class has instances.
      colours: an [R, G, B] of 0-255 per class; made up where missing, the same ones every time.
      dataset_ids: the id in the maps of every class, 0-254, where that is not its place in the list. Ids that are not
        listed are void then.
      name: of the spec; the name of the file's folder where missing.
      void_id: 255, which cannot be changed.

    Raises:
        DataError: naming the file and the key: no such file, no JSON object, an unknown key, a wrong value.
    """
    values = _load(path)
    for key in values:
        if key not in _KEYS:
            raise _error(path, key, f"one of the keys {', '.join(_KEYS)}", f"the key {_short(key)}")
    if "class_names" not in values:
        raise _error(path, "class_names", "a list of names", "nothing")
    names = _names(path, "class_names", values["class_names"])
    if not 1 <= len(names) <= VOID_ID:
        raise _error(path, "class_names", f"1 to {VOID_ID} names", str(len(names)))
    if values.get("void_id", VOID_ID) != VOID_ID or isinstance(values.get("void_id"), float):
        raise _error(path, "void_id", str(VOID_ID), _short(values["void_id"]))
    folder = Path(path).resolve().parent.name
    return LabelSpec(
        name=_name(path, "name", values.get("name", folder if folder and folder.isprintable() else "folder")),
        class_names=names,
        colours=_colours(path, values["colours"], len(names)) if "colours" in values else class_colours(len(names)),
        thing_ids=_thing_ids(path, values, names),
        dataset_ids=_dataset_ids(path, values.get("dataset_ids", []), len(names)),
    )


def write_labels_json(path: str | os.PathLike[str], spec: LabelSpec) -> None:
    """Writes a label spec, the inverse of `read_labels_json`; missing folders are made, OSError as `write_bytes`."""
    write_bytes(path, (json.dumps(spec.to_dict(), indent=2) + "\n").encode())


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: expected a readable file with the names of the classes ({error.strerror})") from None
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: expected at most {MAX_BYTES} bytes, got more")
    try:
        values = json.loads(data.decode("utf-8-sig"), object_pairs_hook=lambda pairs: _unique(path, pairs))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, thousands of digits, nested too deeply
        raise DataError(f"{path}: expected JSON, got something else ({error})") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected a JSON object with class_names, got {_short(values)}")
    return values


def _unique(path: str | os.PathLike[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _error(path, next(key for key in keys if keys.count(key) > 1), "one value", "the key more than once")
    return values


def _names(path: str | os.PathLike[str], key: str, value: Any) -> tuple[str, ...]:
    names = tuple(_name(path, f"{key}[{k}]", name) for k, name in enumerate(_list(path, key, value)))
    return _different(path, key, names)


def _name(path: str | os.PathLike[str], key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _error(path, key, "a name", _short(value))
    return value


def _thing_ids(path: str | os.PathLike[str], values: dict[str, Any], names: tuple[str, ...]) -> tuple[int, ...]:
    if "things" not in values:
        key, ids = "thing_ids", _list(path, "thing_ids", values.get("thing_ids", []))
        return _different(path, key, tuple(_whole(path, f"{key}[{k}]", i, len(names) - 1) for k, i in enumerate(ids)))
    if "thing_ids" in values:
        raise _error(path, "things", "either things or thing_ids", "both")
    things = _names(path, "things", values["things"])
    for k, name in enumerate(things):
        if name not in names:
            raise _error(path, f"things[{k}]", "a name of class_names", _short(name))
    return tuple(sorted(map(names.index, things)))


def _dataset_ids(path: str | os.PathLike[str], value: Any, count: int) -> tuple[int, ...]:
    key, ids = "dataset_ids", _list(path, "dataset_ids", value)
    if len(ids) not in (0, count):
        raise _error(path, key, f"{count} ids, one per class", str(len(ids)))
    return _different(path, key, tuple(_whole(path, f"{key}[{k}]", i, VOID_ID - 1) for k, i in enumerate(ids)))


def _colours(path: str | os.PathLike[str], value: Any, count: int) -> tuple[tuple[int, int, int], ...]:
    colours = _list(path, "colours", value)
    if len(colours) != count:
        raise _error(path, "colours", f"{count} colours, one per class", str(len(colours)))
    found = []
    for k, colour in enumerate(colours):
        if not isinstance(colour, list) or len(colour) != 3:
            raise _error(path, f"colours[{k}]", "[R, G, B]", _short(colour))
        red, green, blue = (_whole(path, f"colours[{k}]", c, 255) for c in colour)
        found.append((red, green, blue))
    return tuple(found)


def _list(path: str | os.PathLike[str], key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _error(path, key, "a list", _short(value))
    return value


def _whole(path: str | os.PathLike[str], key: str, value: Any, largest: int) -> int:
    if type(value) is not int or not 0 <= value <= largest:  # true and false are int to isinstance
        raise _error(path, key, f"a whole number in 0..{largest}", _short(value))
    return value


def _different(path: str | os.PathLike[str], key: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        repeated = next(v for k, v in enumerate(values) if v in values[:k])
        raise _error(path, key, "different entries", f"{_short(repeated)} twice")
    return values


def _error(path: str | os.PathLike[str], key: str, expected: str, found: str) -> DataError:
    return DataError(f"{path}: {_short(key)[1:-1]}: expected {expected}, got {found}")


def _short(value: Any) -> str:
    """The value on one short line, however large or deep it is."""
    return reprlib.repr(value)
