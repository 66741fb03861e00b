"""BDD100K's bitmasks: by hand, there and back, the reader on a small drawing and on two published images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pix2seq_d.data.bdd100k import Bdd100k, Bitmask, read_bitmask, write_bitmask
from pix2seq_d.data.formats import DataError, write_image
from pix2seq_d.metrics import PanopticQuality

#        road        car          car, crowd   car, ignored  car, occluded   void
PIXELS = [(7, 0, 7), (35, 0, 31), (35, 2, 300), (35, 1, 301), (35, 4, 32), (0, 0, 0)]


def planes(pixels: list[tuple[int, int, int]]) -> Bitmask:
    return Bitmask(*(np.array([column]) for column in zip(*pixels)))


def make_bdd(root: Path, split: str = "val") -> Path:
    for name in ("b10-2", "b9-1"):
        write_image(root / "images/10k" / split / f"{name}.jpg", np.full((1, 6, 3), 90, np.uint8))
        write_bitmask(root / "labels/pan_seg/bitmasks" / split / f"{name}.png", planes(PIXELS))
    return root


# Bitmasks


def test_a_bitmask_by_hand(tmp_path: Path) -> None:
    """300 = 256 * 1 + 44."""
    write_bitmask(tmp_path / "a.png", planes(PIXELS))
    rgba = np.asarray(Image.open(tmp_path / "a.png"))
    assert rgba[0].tolist() == [[7, 0, 0, 7], [35, 0, 0, 31], [35, 2, 1, 44], [35, 1, 1, 45], [35, 4, 0, 32], [0] * 4]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535)), min_size=1, max_size=9))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, pixels: list[tuple[int, int, int]]) -> None:
    path = tmp_path_factory.mktemp("bitmask") / "a.png"
    write_bitmask(path, planes(pixels))
    back = read_bitmask(path)
    for plane, expected in zip(back, planes(pixels)):
        np.testing.assert_array_equal(plane, expected)
    assert [plane.dtype for plane in back] == [np.uint8, np.uint8, np.int32]


@pytest.mark.parametrize(
    ("bitmask", "message"),
    [
        (planes([(256, 0, 0)]), r"categories in 0\.\.255, got 256\.\.256"),
        (planes([(0, -1, 0)]), r"flags in 0\.\.255, got -1\.\.-1"),
        (planes([(0, 0, 65536)]), r"annotation_ids in 0\.\.65535, got 65536\.\.65536"),
        (Bitmask(np.zeros((1, 2), int), np.zeros((1, 2), int), np.zeros((2, 1), int)), r"three \(H, W\) planes"),
    ],
)
def test_planes_that_do_not_fit(tmp_path: Path, bitmask: Bitmask, message: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.png: expected {message}"):
        write_bitmask(tmp_path / "a.png", bitmask)
    assert not (tmp_path / "a.png").exists()


# The dataset


@pytest.mark.parametrize("outer", ["", "bdd100k"])
def test_flags(tmp_path: Path, outer: str) -> None:
    """Ignored is void, a crowd has no instance, occluded is like any other."""
    make_bdd(tmp_path / outer)
    dataset = Bdd100k(tmp_path, "val")
    assert dataset.sequence_ids == ("b9-1", "b10-2")
    clip = dataset[0]
    assert clip.name == "b9-1/000000"
    assert clip.class_map[0, 0].tolist() == [6, 34, 34, 255, 34, 255]
    assert clip.instance_map[0, 0].tolist() == [0, 31, 0, 0, 32, 0]
    assert (clip.class_map.dtype, clip.instance_map.dtype) == (np.uint8, np.int32)


def test_no_image_has_a_past(tmp_path: Path) -> None:
    clip = Bdd100k(make_bdd(tmp_path, "train"), "train", past_offsets=(-1,), all_frames=True)[1]
    assert clip.present.tolist() == [False, True]
    assert clip.frames.shape == (2, 1, 6, 3)


def test_bad_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'dev'"):
        Bdd100k(tmp_path, "dev")
    with pytest.raises(DataError, match="test are secret"):
        Bdd100k(tmp_path, "test")
    with pytest.raises(DataError, match=r"expected BDD100K as images/10k/val/\*\.jpg with labels/pan_seg/bitmasks/val"):
        Bdd100k(tmp_path, "val")
    for folder in ("images/10k/val", "labels/pan_seg/bitmasks/val"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match="expected the images of BDD100K's val split, found none"):
        Bdd100k(tmp_path, "val")
    label = make_bdd(tmp_path) / "labels/pan_seg/bitmasks/val/b9-1.png"
    dataset = Bdd100k(tmp_path, "val")
    write_bitmask(label, planes([(41, 0, 0)] * 6))
    with pytest.raises(DataError, match=r"b9-1\.png: expected categories 0\.\.40, got 41"):
        dataset[0]
    write_image(label, np.zeros((1, 6, 3), np.uint8))
    with pytest.raises(DataError, match=r"b9-1\.png: expected an 8-bit RGBA PNG, got 8-bit RGB"):
        dataset[0]
    label.unlink()
    with pytest.raises(DataError, match=r"b9-1\.png: expected the label map of .*1 of 2 frames"):
        Bdd100k(tmp_path, "val")


def test_published_scores_through_the_reader(tmp_path: Path) -> None:
    """PQ of the official evaluator for its two test images; it does not subtract void from the union."""
    folder = os.environ.get("PIX2SEQ_D_TEST_DATA")
    if not folder:
        pytest.skip("PIX2SEQ_D_TEST_DATA is not set: no published bitmasks")
    for side in ("gt", "pred"):
        for name in ("a", "b"):
            write_image(tmp_path / side / "images/10k/val" / f"{name}.jpg", np.zeros((720, 1280, 3), np.uint8))
            target = tmp_path / side / "labels/pan_seg/bitmasks/val" / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(folder) / "vectors/bdd100k_pan_seg" / side / f"{name}.png")
    truth, prediction = (Bdd100k(tmp_path / side, "val") for side in ("gt", "pred"))
    spec = truth.label_spec
    metric = PanopticQuality(spec.num_classes, spec.thing_ids, spec.void_id, subtract_void=False)
    for name in truth.sequence_ids:
        metric.update(*prediction.read_maps(name, 0), *truth.read_maps(name, 0), sequence_id=name)
    result = metric.compute()
    expected = {"pq": 66.46278879, "pq_stuff": 64.38602381, "pq_things": 82.03852616, "rq": 85.29411765}
    assert {key: 100 * result[key] for key in expected} == pytest.approx(expected, abs=1e-7)
