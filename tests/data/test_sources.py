"""What inputs name: folders, files, patterns, lists and videos as sequences of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from videos import damage, number_of, write_video

from pix2seq_d.data.formats import DataError, write_image
from pix2seq_d.data.sources import FrameSource, open_sources


def write(*paths: Path) -> None:
    """Images of one colour each, in the order of the arguments."""
    for k, path in enumerate(paths):
        write_image(path, np.full((2, 3, 3), k, np.uint8))


def described(sources: list[FrameSource]) -> dict[str, list[str]]:
    return {source.sequence_id: list(source.names) for source in sources}


def refused(inputs: object) -> str:
    with pytest.raises(DataError) as caught:
        open_sources(inputs)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "b/10.png", tmp_path / "b/9.png", tmp_path / "a/x.jpg")
    sources = open_sources(tmp_path)
    assert described(sources) == {"a": ["x"], "b": ["9", "10"]}
    assert {source.folder for source in sources} == {tmp_path}
    assert sources[0].fps is None


def test_files_of_one_folder_are_a_sequence_in_natural_order(tmp_path: Path) -> None:
    write(*(tmp_path / "clip" / f"{k}.png" for k in (10, 9, 8)))
    files = [tmp_path / "clip" / f"{k}.png" for k in (10, 8, 9, 8)]  # as a shell sorts them; one twice
    assert described(open_sources(files)) == {"clip": ["8", "9", "10"]}
    assert open_sources(files)[0].folder == tmp_path / "clip"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/1*.png", {"a": ["1", "10"], "b": ["1"]}),
        ("a/*", {"a": ["1", "2", "10"]}),
        ("**/2.png", {"a": ["2"]}),
        ("[ab]", {"a": ["1", "2", "10"], "b": ["1"]}),  # folders
        ("deep/*/cam", {"deep/x/cam": ["7"], "deep/y/cam": ["7"]}),
        ("deep/*/cam/*.png", {"x/cam": ["7"], "y/cam": ["7"]}),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: dict[str, list[str]]) -> None:
    write(*(tmp_path / f"{name}.png" for name in ("a/10", "a/2", "a/1", "b/1", "deep/x/cam/7", "deep/y/cam/7")))
    (tmp_path / "a" / "notes.md").write_text("not a frame")
    if pattern == "deep/*/cam":
        assert "different names, found 'cam' twice" in refused(str(tmp_path / pattern))
        return
    assert described(open_sources(str(tmp_path / pattern))) == expected


def test_cityscapes_names_part_a_folder(tmp_path: Path) -> None:
    names = ["ulm_000001_000018", "ulm_000001_000019", "ulm_000002_000019"]
    write(*(tmp_path / "ulm" / f"{name}_leftImg8bit.png" for name in names))
    sources = open_sources(str(tmp_path / "ulm/*.png"))
    assert {key: len(frames) for key, frames in described(sources).items()} == {"ulm_000001": 2, "ulm_000002": 1}
    assert described(sources) == described(open_sources(tmp_path / "ulm"))
    write(tmp_path / "ulm" / "other.png")
    assert "expected frames named alike" in refused(str(tmp_path / "ulm/*.png"))


def test_a_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    write(tmp_path / "clip[1]" / "0.png")
    assert described(open_sources(str(tmp_path / "clip[1]"))) == {"clip[1]": ["0"]}


def test_a_list_keeps_its_order(tmp_path: Path) -> None:
    write(tmp_path / "a/1.png", tmp_path / "a/2.png", tmp_path / "b/1.png")
    (tmp_path / "list.txt").write_text(f"# frames\na/2.png\n\nb/1.png\n  {tmp_path}/a/1.png  \n")
    sources = open_sources(tmp_path / "list.txt")
    assert described(sources) == {"a": ["2", "1"], "b": ["1"]}
    assert [int(f.image[0, 0, 0]) for f in sources[0].read() if f.image is not None] == [1, 0]


def test_lists_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for text, message in (
        ("", "expected the path of an image or a video on each line, found none"),
        ("\n#a\nx.png\n", "line 3: expected a file, found no "),
        ("notes.md\n", "line 1: expected an image or a video file, got 'notes.md'"),
    ):
        path.write_text(text)
        assert message in refused(path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "list.txt: expected a readable list of files" in refused(path)


def test_a_video_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "street.mp4", 3)
    (source,) = open_sources(path)
    assert (source.sequence_id, list(source.names)) == ("street", ["000000", "000001", "000002"])
    assert (source.fps, source.folder) == (25, None)
    assert [frame.name for frame in source.read({"000001"})] == ["000001"]
    (tmp_path / "list.txt").write_text("street.mp4\n")
    for inputs in (str(tmp_path / "*.mp4"), tmp_path / "list.txt", [str(path)]):
        assert described(open_sources(inputs)) == {"street": ["000000", "000001", "000002"]}


def test_frames_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "a/1.png", tmp_path / "a/2.png")
    (tmp_path / "a/1.png").write_text("x")
    one, two = open_sources(tmp_path / "a")[0].read()
    assert (one.name, one.image) == ("1", None)
    assert one.error.startswith(f"{tmp_path}/a/1.png: expected a PNG")
    assert (two.name, two.where, two.error) == ("2", f"{tmp_path}/a/2.png", "")
    path = write_video(tmp_path / "v.avi", 3, codec="mjpeg", pix_fmt="yuvj420p")
    damage(path, 1)
    frames = list(open_sources(path)[0].read())
    assert [f.image is None for f in frames] == [False, True, False]
    assert frames[1].error.startswith(f"{path}, frame 1 at 0.04 s: expected a readable frame (")


def test_a_folder_of_videos_says_how_to_name_them(tmp_path: Path) -> None:
    (tmp_path / "a.MOV").touch()
    message = f"{tmp_path}: expected a folder of frames, found videos; name them: {tmp_path}/*.MOV"
    assert refused(tmp_path) == message


def test_two_sequences_of_one_name(tmp_path: Path) -> None:
    write(tmp_path / "x/a/1.png", tmp_path / "y/a/1.png")
    assert "different names, found 'a' twice" in refused([tmp_path / "x", tmp_path / "y"])


@pytest.mark.parametrize("name", ["missing", "missing.mp4", "*.png", "notes.md"])
def test_inputs_that_are_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.md").write_text("x")
    message = refused(str(tmp_path / name))
    assert message.startswith(str(tmp_path / name))
    assert message.endswith({"notes.md": "found another file", "*.png": "found none"}.get(name, "found nothing"))


def test_no_input() -> None:
    assert "got nothing" in refused([])


def test_stills_are_sources_of_one_frame(tmp_path: Path) -> None:
    write(*(tmp_path / f"{name}.png" for name in ("a/9", "a/10", "b/1")))
    sources = open_sources(tmp_path)
    assert [path for source in sources for path in source.paths] == [
        tmp_path / f"{n}.png" for n in ("a/9", "a/10", "b/1")
    ]
    stills = [still for source in sources for still in source.stills()]
    assert [(s.sequence_id, *s.names, s.folder) for s in stills] == [
        (*n, tmp_path) for n in (("a", "9"), ("a", "10"), ("b", "1"))
    ]
    (frame,) = stills[1].read()
    assert (frame.name, frame.image is not None and frame.image[0, 0, 0]) == ("10", 1)


def test_a_video_has_frames_below_its_name_and_no_stills(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 2)
    (source,) = open_sources(path)
    assert source.paths == [path / "000000", path / "000001"]
    with pytest.raises(ValueError, match=r"stills: expected images of their own, got the video .*v\.mp4; --no-stills"):
        source.stills()


# backward


def test_images_are_read_backward(tmp_path: Path) -> None:
    write(*(tmp_path / "v" / f"{k}.png" for k in (8, 9, 10, 11)))
    (tmp_path / "v" / "10.png").write_bytes(b"")
    (source,) = open_sources(tmp_path)
    assert [frame.name for frame in source.read_backward()] == ["11", "10", "9", "8"]
    frames = list(source.read_backward({"9", "10"}))
    assert [(f.name, None if f.image is None else int(f.image[0, 0, 0])) for f in frames] == [("10", None), ("9", 1)]
    assert "expected an image, got an empty file" in frames[0].error


@pytest.mark.parametrize("room", [1, 3, 100])
def test_videos_are_read_backward_by_way_of_a_bounded_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    path, store = write_video(tmp_path / "v.mp4", 8), tmp_path / "store"
    store.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(store))
    monkeypatch.setattr("pix2seq_d.data.sources.STORED_BYTES", room * 32 * 64 * 3 + 5)
    (source,) = open_sources(path)
    seen, most = [], 0
    for frame in source.read_backward({f"{k:06d}" for k in range(1, 8)}):
        assert frame.image is not None
        seen.append((frame.name, number_of(frame.image)))
        most = max(most, len(list(store.rglob("*.npy"))))
    assert seen == [(f"{k:06d}", k) for k in (7, 6, 5, 4, 3, 2, 1)]
    assert most == min(room, 7)
    assert not list(store.iterdir())
    assert list(source.read_backward(set())) == []


def test_frames_of_a_video_that_cannot_be_read_come_backward_too(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 6, codec="mjpeg", pix_fmt="yuvj420p")
    damage(path, 2)
    (source,) = open_sources(path)
    forward = [(f.name, f.where, f.error) for f in source.read()]
    assert [(f.name, f.where, f.error) for f in source.read_backward()] == forward[::-1]
    assert any(error for *_, error in forward)


def test_a_reader_that_stops_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, store = write_video(tmp_path / "v.mp4", 4), tmp_path / "store"
    store.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(store))
    frames = open_sources(path)[0].read_backward()
    assert next(frames).name == "000003"
    assert len(list(store.iterdir())) == 1
    frames.close()  # type: ignore[attr-defined]
    assert not list(store.iterdir())
