"""Given maps: which frame one belongs to, what is refused, and what counts as another set of maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pix2seq_d.data.formats import DataError, write_image, write_kitti_step, write_png
from pix2seq_d.data.sources import open_sources
from pix2seq_d.labels import get_label_spec
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.prompt_maps import PromptMaps, read_prompt_map

SPEC = get_label_spec("kitti-step")
SIZE = (16, 32)
ROAD, CAR, VOID = 0, 13, 255


def frames(folder: Path, *names: str) -> Path:
    """Frames {sequence}/{frame}, 16 x 32."""
    for name in names:
        write_image(folder / f"{name}.png", np.zeros((*SIZE, 3), np.uint8))
    return folder


def give(path: Path, class_id: int = CAR, instance: int = 3, size: tuple[int, int] = SIZE) -> Path:
    """A map of one class and instance."""
    write_kitti_step(path, np.full(size, class_id, np.uint8), np.full(size, instance, np.int32))
    return path


def find(maps: Path, source: Path, **options: bool | int) -> PromptMaps:
    return PromptMaps.find(maps, open_sources(source), SPEC, **options)  # type: ignore[arg-type]


def refused(maps: Path, source: Path) -> str:
    with pytest.raises(DataError) as caught:
        find(maps, source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# which frame


@pytest.mark.parametrize(
    ("given", "frame"),
    [("000004", "000004"), ("4", "000004"), ("map_4", "000004"), ("left_000005", "000005"), ("0", "000000")],
)
def test_equal_names_else_equal_numbers(tmp_path: Path, given: str, frame: str) -> None:
    source = frames(tmp_path / "in", "v/000000", "v/000004", "v/000005")
    path = give(tmp_path / "maps" / "v" / f"{given}.png")
    prompts = find(tmp_path / "maps", source)
    assert prompts.paths == {"v": {frame: path}}
    assert prompts.of(open_sources(source)[0]) == {frame: path}


def test_a_name_decides_where_numbers_are_shared(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", "v/a1", "v/b1")
    path = give(tmp_path / "maps" / "v" / "b1.png")
    assert find(tmp_path / "maps", source).paths == {"v": {"b1": path}}
    path.rename(path.with_name("1.png"))
    assert refused(tmp_path / "maps", source) == (
        f"{path.with_name('1.png')}: expected one frame of number 1, found a1 and b1"
    )


def test_maps_of_a_single_sequence_lie_in_the_folder_itself_or_in_its_own(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", "v/1", "v/2")
    inside, outside = give(tmp_path / "maps" / "v" / "1.png"), give(tmp_path / "maps" / "2.png")
    assert find(tmp_path / "maps", source).paths == {"v": {"1": inside, "2": outside}}


def test_nested_sequences_and_frames_in_order(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", "a/1", "a/b/9", "a/b/10")
    for name in ("a/b/10", "a/b/9", "a/1"):
        give(tmp_path / "maps" / f"{name}.png")
    prompts = find(tmp_path / "maps", source, reverse=True)
    outer, inner = open_sources(source)
    assert (list(prompts.of(outer)), list(prompts.of(inner))) == (["1"], ["9", "10"])
    assert prompts.start(inner) == 0
    (tmp_path / "maps/a/b/9.png").unlink()
    assert find(tmp_path / "maps", source, reverse=True).start(inner) == 1
    assert find(tmp_path / "maps", source).start(inner) == 0, "without --reverse all is predicted forward"


# what is refused


def test_folders_without_maps(tmp_path: Path) -> None:
    source, maps = frames(tmp_path / "in", "v/1"), tmp_path / "maps"
    assert refused(maps, source) == f"{maps}: expected a folder of maps, found nothing"
    maps.mkdir()
    (maps / "notes.txt").write_text("x")
    assert refused(maps, source) == f"{maps}: expected maps {{sequence}}/{{frame}}.png, found none"
    assert refused(maps / "notes.txt", source) == f"{maps / 'notes.txt'}: expected a folder of maps, found a file"


def test_a_map_of_no_sequence_of_the_input(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", "a/1", "b/1")
    path = give(tmp_path / "maps" / "c" / "1.png")
    expected = "expected it in a folder called like a sequence of the input (a, b)"
    assert refused(tmp_path / "maps", source) == f"{path}: {expected}"
    path.rename(tmp_path / "maps" / "1.png")
    assert refused(tmp_path / "maps", source) == f"{tmp_path / 'maps' / '1.png'}: {expected}"


@pytest.mark.parametrize("name", ["000007", "7", "first"])
def test_a_map_of_no_frame(tmp_path: Path, name: str) -> None:
    source = frames(tmp_path / "in", "v/000000", "v/000004")
    path = give(tmp_path / "maps" / "v" / f"{name}.png")
    assert refused(tmp_path / "maps", source) == (
        f"{path}: expected a frame of its name or number in v (000000 ... 000004), found none"
    )


def test_two_maps_of_one_frame(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", "v/000004")
    second, first = (give(tmp_path / "maps" / "v" / f"{name}.png") for name in ("4", "000004"))
    assert refused(tmp_path / "maps", source) == f"{second}: expected one map of frame 000004, found {first} too"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((19, 0), "label spec kitti-step: expected class ids 0..18 or 255 (void), got 19"),
        ((ROAD, 7), "expected instance 0 on stuff, found 7 on road"),
        (None, "expected a readable image, got one that is not (cut off)"),
    ],
)
def test_a_map_that_says_what_cannot_be(tmp_path: Path, content: tuple[int, int] | None, message: str) -> None:
    source = frames(tmp_path / "in", "v/1")
    path = give(tmp_path / "maps" / "1.png", *(content or (CAR, 1)))
    if content is None:
        path.write_bytes(path.read_bytes()[:-20])
    assert refused(tmp_path / "maps", source) == f"{path}: {message}"


def test_a_picture_that_is_no_map(tmp_path: Path) -> None:
    write_png(tmp_path / "grey.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(DataError, match=r"grey\.png: expected an 8-bit RGB PNG, got 8-bit greyscale"):
        read_prompt_map(tmp_path / "grey.png", SPEC)


def test_what_void_holds_says_nothing(tmp_path: Path) -> None:
    known = read_prompt_map(give(tmp_path / "1.png", VOID, 9), SPEC)
    assert not known.has_instances(SPEC).any()
    assert known.last_id(SPEC) == 0


def test_maps_that_do_not_fit_the_frames_or_the_model(tiny_model: Callable[..., Pix2SeqD], tmp_path: Path) -> None:
    source, model = frames(tmp_path / "in", "v/1", "v/2"), tiny_model()
    (sequence,), maps = open_sources(source), tmp_path / "maps"
    path = give(maps / "2.png", size=(16, 33))
    with pytest.raises(DataError) as caught:
        find(maps, source).check(sequence, model)
    assert str(caught.value) == f"{path}: expected 16x32 pixels (height x width) as its frame, found 16x33"
    columns = np.broadcast_to(np.arange(32, dtype=np.int32) // 4 + 1, SIZE)  # 8 cars, the model has 7 codes
    write_kitti_step(path, np.full(SIZE, CAR), columns)
    with pytest.raises(DataError, match=r"2\.png: known objects: expected at most 7 of class .*, got 8"):
        find(maps, source).check(sequence, model)
    write_kitti_step(path, np.full(SIZE, CAR), np.minimum(columns, 7))
    find(maps, source).check(sequence, model)
    (source / "v" / "1.png").write_bytes(b"")
    give(path, size=(16, 33))
    with pytest.raises(DataError, match="found 16x33"):  # the first frame that can be read tells the size
        find(maps, source).check(sequence, model)


# other maps


def test_settings_are_those_of_the_content(tmp_path: Path) -> None:
    source = frames(tmp_path / "in", "v/1", "v/2")
    path = give(tmp_path / "maps" / "1.png")
    settings = find(tmp_path / "maps", source).settings
    assert list(settings) == ["past_maps"]
    assert settings["past_maps"].startswith("1 map, ")
    path.rename(tmp_path / "maps" / "01.png")
    assert find(tmp_path / "maps", source).settings == settings, "the same map of the same frame"
    both = find(tmp_path / "maps", source, reverse=True, first_id=100).settings
    assert both == {**settings, "reverse": True, "new_ids_from": 100}
    others = [settings["past_maps"]]
    for class_id, instance, name in ((CAR, 4, "01"), (11, 3, "01"), (CAR, 3, "02")):
        (tmp_path / "maps" / "01.png").unlink(missing_ok=True)
        give(tmp_path / "maps" / f"{name}.png", class_id, instance)
        others.append(find(tmp_path / "maps", source).settings["past_maps"])
    give(tmp_path / "maps" / "01.png")
    others.append(find(tmp_path / "maps", source).settings["past_maps"])
    assert others[-1].startswith("2 maps, ")
    assert len(set(others)) == 5
