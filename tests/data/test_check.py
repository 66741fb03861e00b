"""What a dataset holds, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pix2seq_d.data.camvid import CamVid
from pix2seq_d.data.check import check_videos, format_report
from pix2seq_d.data.formats import write_image, write_kitti_step
from pix2seq_d.data.labelled_folder import LabelledFolder

# frames of 1x4: class 0 table, 1 apple, 2 pear (never there)
FRAMES = {
    "a/1": ([1, 1, 1, 0], [1, 2, 2, 5]),  # two apples; the instance id of the table counts nothing
    "a/2": ([1, 1, 255, 0], [2, 0, 3, 0]),  # one apple, one pixel of crowd, one of void
    "b/7": ([0, 0, 0, 0], [0, 0, 0, 0]),
}


@pytest.fixture
def data(tmp_path: Path) -> LabelledFolder:
    names = {"class_names": ["table", "apple", "pear"], "things": ["apple", "pear"]}
    (tmp_path / "labels.json").write_text(json.dumps(names))
    for name, (classes, instances) in FRAMES.items():
        write_image(tmp_path / "train" / "images" / f"{name}.png", np.zeros((1, 4, 3), np.uint8))
        write_kitti_step(tmp_path / "train" / "panoptic" / f"{name}.png", np.array([classes]), np.array([instances]))
    return LabelledFolder(tmp_path, "train")


def test_counts(data: LabelledFolder) -> None:
    report = check_videos(data)
    assert (report.num_videos, report.num_frames, report.followers) == (2, 3, 1)
    assert report.pixels.tolist() == [6, 5, 0, 1]
    assert report.frames_with.tolist() == [3, 2, 0, 1]
    assert report.objects.tolist() == [0, 3, 0, 0]
    assert report.crowd == 1
    assert (report.most_objects, report.fullest, report.num_instance_bits) == (2, "a/000001", 2)
    assert dict(report.sizes) == {(1, 4): 3}
    assert report.problems == []


def test_bits_hold_the_objects_and_none(data: LabelledFolder) -> None:
    """With n bits there are 2^n codes, one of them for no instance: 3 objects need 2 bits, 4 need 3."""
    report = check_videos(data)
    bits = []
    for report.most_objects in (0, 1, 3, 4, 7, 8):
        bits.append(report.num_instance_bits)
    assert bits == [0, 1, 2, 3, 3, 4]


def test_equal_ids_of_two_classes_are_two_objects(data: LabelledFolder) -> None:
    report = check_videos(data)
    report.add("c/1", np.array([[1, 2]], np.uint8), np.array([[4, 4]], np.int32))
    assert report.objects.tolist() == [0, 4, 1, 0]


def test_frames_that_cannot_be_used_are_listed(data: LabelledFolder) -> None:
    label = data._frame("a", 2).label
    write_kitti_step(label, np.array([[3, 0, 0, 0]]), np.zeros((1, 4), int))
    data._frame("b", 7).image.write_bytes(b"")
    report = check_videos(data)
    assert report.num_frames == 1
    assert [problem.split(": ")[0] for problem in report.problems] == [str(label), str(data._frame("b", 7).image)]
    assert "2 frames cannot be used:\n" + "\n".join(report.problems) in format_report(report)


def test_frames_of_several_sizes_in_a_video_cannot_be_used(data: LabelledFolder) -> None:
    """Training and prediction refuse them: a past map has to fit. The next video may have another size."""
    files = data._frame("a", 2)
    write_image(files.image, np.zeros((2, 3, 3), np.uint8))
    write_kitti_step(files.label, np.zeros((2, 3), int), np.zeros((2, 3), int))
    report = check_videos(data)
    assert report.problems == ["a/000002: expected the size of the frames before it, 1x4, got 2x3"]
    assert report.num_frames == 2


def test_followers_are_counted_as_the_dataset_counts_them(tmp_path: Path) -> None:
    """CamVid is labelled once a second: the frame before is 30 numbers away."""
    for number in (6690, 6720, 6750):
        for kind in ("images", "labels"):
            path = tmp_path / f"train/{kind}/0001TP_{number:06d}.png"
            write_image(path, np.zeros((2, 3, 3) if kind == "images" else (2, 3), np.uint8))
    assert check_videos(CamVid(tmp_path, "train")).followers == 2


def test_report(data: LabelledFolder) -> None:
    lines = format_report(check_videos(data)).splitlines()
    assert lines[0] == "2 videos, 3 frames, of these 1 right after another"
    assert lines[1] == "height x width (frames): 1x4 (3)"
    assert lines[2] == "most objects in a frame: 2 (a/000001)"
    assert lines[3] == "pixels of things without an instance id (crowd): 1"
    assert [line.split() for line in lines[6:]] == [
        ["table", "stuff", "50.00", "100.0", "-"],
        ["apple", "thing", "41.67", "66.7", "1.00"],
        ["pear", "thing", "0.00", "0.0", "0.00"],
        ["(void)", "8.33", "33.3", "-"],
    ]


def test_many_sizes_and_no_frame(data: LabelledFolder) -> None:
    report = check_videos(data)
    for width in range(5, 11):
        report.add("c/1", np.zeros((1, width), np.uint8), np.zeros((1, width), np.int32))
    assert format_report(report).splitlines()[1].endswith(", and 2 others")
    data.keep_sequences([])
    assert format_report(check_videos(data)).startswith("0 videos, 0 frames, of these 0 right after another\nheight x")
