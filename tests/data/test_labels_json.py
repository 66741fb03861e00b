"""labels.json: inverse pair, the smallest file, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pix2seq_d.data.formats import DataError
from pix2seq_d.data.labels_json import MAX_BYTES, read_labels_json, write_labels_json
from pix2seq_d.labels import LABEL_SPECS, LabelSpec


def write(folder: Path, values: Any) -> Path:
    path = folder / "labels.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


@pytest.mark.parametrize("name", LABEL_SPECS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "labels.json"
    write_labels_json(path, LABEL_SPECS[name])
    assert read_labels_json(path) == LABEL_SPECS[name]
    assert [p.name for p in path.parent.iterdir()] == ["labels.json"]


def test_names_are_enough(tmp_path: Path) -> None:
    (tmp_path / "fruit").mkdir()
    spec = read_labels_json(write(tmp_path / "fruit", {"class_names": ["table", "apple", "pear"]}))
    assert (spec.name, spec.class_names, spec.thing_ids, spec.dataset_ids) == (
        "fruit",
        ("table", "apple", "pear"),
        (),
        (),
    )
    assert len({*spec.colours, (0, 0, 0)}) == 4, "different ones, and none is void's black"
    more = read_labels_json(write(tmp_path, {"class_names": ["table", "apple", "pear", "bowl"]}))
    assert more.colours[:3] == spec.colours, "a new class changes no colour"


def test_things_by_name(tmp_path: Path) -> None:
    values = {"class_names": ["table", "apple", "pear"], "things": ["pear", "apple"], "dataset_ids": [1, 2, 9]}
    assert read_labels_json(write(tmp_path, values)) == LabelSpec(
        tmp_path.name,
        ("table", "apple", "pear"),
        read_labels_json(write(tmp_path, values)).colours,
        thing_ids=(1, 2),
        dataset_ids=(1, 2, 9),
    )


def test_a_byte_order_mark_and_other_alphabets(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(b"\xef\xbb\xbf" + '{"class_names": ["Straße", "木"]}'.encode())
    assert read_labels_json(path).class_names == ("Straße", "木")


def names(count: int) -> list[str]:
    return [f"c{k}" for k in range(count)]


def test_255_classes_and_no_more(tmp_path: Path) -> None:
    assert read_labels_json(write(tmp_path, {"class_names": names(255)})).num_classes == 255
    with pytest.raises(DataError, match=r"labels\.json: class_names: expected 1 to 255 names, got 256$"):
        read_labels_json(write(tmp_path, {"class_names": names(256)}))


AB = ["a", "b"]
MISTAKES = [
    ([], r"labels\.json: expected a JSON object with class_names, got \[\]"),
    ("", r"labels\.json: expected JSON, got something else"),
    ("{", r"labels\.json: expected JSON, got something else"),
    ('{"class_names": ["a"], "class_names": ["b"]}', r"class_names: expected one value, got the key more than once"),
    ('{"class_names": ' + "9" * 5000 + "}", r"labels\.json: expected JSON, got something else"),
    ("[" * 100_000, r"labels\.json: expected JSON, got something else"),
    ({}, r"class_names: expected a list of names, got nothing"),
    ({"class_names": []}, r"class_names: expected 1 to 255 names, got 0"),
    ({"class_names": "road"}, r"class_names: expected a list, got 'road'"),
    ({"class_names": ["a", 3]}, r"class_names\[1\]: expected a name, got 3"),
    ({"class_names": ["a", " "]}, r"class_names\[1\]: expected a name, got ' '"),
    ({"class_names": ["a", "b\nc"]}, r"class_names\[1\]: expected a name, got 'b\\nc'"),
    ('{"class_names": ["\\ud800"]}', r"class_names\[0\]: expected a name, got '\\ud800'"),
    ({"class_names": ["a", "b", "a"]}, r"class_names: expected different entries, got 'a' twice"),
    (
        {"class_names": AB, "colors": []},
        r"colors: expected one of the keys name, class_names, .*, got the key 'colors'",
    ),
    ({"class_names": AB, "things": ["c"]}, r"things\[0\]: expected a name of class_names, got 'c'"),
    ({"class_names": AB, "things": ["b", "b"]}, r"things: expected different entries, got 'b' twice"),
    ({"class_names": AB, "things": [1]}, r"things\[0\]: expected a name, got 1"),
    ({"class_names": AB, "things": ["a"], "thing_ids": [0]}, r"things: expected either things or thing_ids, got both"),
    ({"class_names": AB, "thing_ids": [2]}, r"thing_ids\[0\]: expected a whole number in 0\.\.1, got 2"),
    ({"class_names": AB, "thing_ids": [True]}, r"thing_ids\[0\]: expected a whole number in 0\.\.1, got True"),
    ({"class_names": AB, "thing_ids": [1.0]}, r"thing_ids\[0\]: expected a whole number in 0\.\.1, got 1\.0"),
    ({"class_names": AB, "thing_ids": {"a": 1}}, r"thing_ids: expected a list, got {'a': 1}"),
    ({"class_names": AB, "dataset_ids": [7]}, r"dataset_ids: expected 2 ids, one per class, got 1"),
    ({"class_names": AB, "dataset_ids": [7, 255]}, r"dataset_ids\[1\]: expected a whole number in 0\.\.254, got 255"),
    ({"class_names": AB, "dataset_ids": [7, 7]}, r"dataset_ids: expected different entries, got 7 twice"),
    ({"class_names": AB, "colours": [[1, 2, 3]]}, r"colours: expected 2 colours, one per class, got 1"),
    ({"class_names": AB, "colours": [[1, 2, 3], [1, 2]]}, r"colours\[1\]: expected \[R, G, B\], got \[1, 2\]"),
    ({"class_names": AB, "colours": [[1, 2, 3], [1, 2, 256]]}, r"colours\[1\]: expected a whole number in 0\.\.255"),
    ({"class_names": AB, "void_id": 0}, r"void_id: expected 255, got 0"),
    ({"class_names": AB, "name": None}, r"name: expected a name, got None"),
]


@pytest.mark.parametrize(("values", "says"), MISTAKES)
def test_mistakes_name_file_and_key(values: Any, says: str, tmp_path: Path) -> None:
    path = write(tmp_path, values)
    with pytest.raises(DataError, match=says) as error:
        read_labels_json(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.json: expected a readable file .*No such file"):
        read_labels_json(tmp_path / "nothing.json")
    with pytest.raises(DataError, match=r"expected a readable file .*directory"):
        read_labels_json(tmp_path)
    path = tmp_path / "labels.json"
    path.write_bytes(b"\xff\xfe\0")
    with pytest.raises(DataError, match="expected JSON"):
        read_labels_json(path)
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(DataError, match="expected at most 1048576 bytes, got more"):
        read_labels_json(path)
