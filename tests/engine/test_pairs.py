"""Maps in two folders: which file belongs to which, and what is said where one is missing or wrong."""

import numpy as np
import pytest
from map_trees import CAMVID, CAR, KITTI, ROAD, grey_png, kitti_tree

from pix2seq_d.data.formats import write_image, write_kitti_step
from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.engine.pairs import FolderPairs
from pix2seq_d.engine.scoring import Scoring, evaluate_folders, score


@pytest.mark.parametrize("subfolder", ["", "panoptic"])
def test_folders(tmp_path, subfolder):
    frames = kitti_tree(tmp_path, {"0002": 11, "0010": 2, "0006": 3})
    if subfolder:
        (tmp_path / "pred").rename(tmp_path / "panoptic")
        (tmp_path / "pred").mkdir()
        (tmp_path / "panoptic").rename(tmp_path / "pred" / "panoptic")
        (tmp_path / "pred" / "overlay.png").write_bytes(b"not a map")
    expected = Evaluator(KITTI, windows=(1, 3))
    for sequence_id in sorted(frames):
        for maps in frames[sequence_id]:
            expected.update(*maps, sequence_id)
    result = evaluate_folders(tmp_path / "pred", tmp_path / "gt", KITTI, windows=(1, 3))
    assert result == expected.compute()
    assert list(result["stq"]["per_sequence"]) == ["0002", "0006", "0010"]


def test_the_layout_of_the_hub(tmp_path):
    """Images and maps side by side; predictions are called like the images."""
    frames = kitti_tree(tmp_path, {"000002": 2, "000010": 1})
    for sequence_id in frames:
        for path in sorted((tmp_path / "gt" / sequence_id).iterdir()):
            stem = f"{sequence_id}_{path.stem}"
            path.rename(path.parents[1] / f"{stem}_panoptic.png")
            (path.parents[1] / f"{stem}_leftImg8bit.png").write_bytes(b"an image")
            path = tmp_path / "pred" / sequence_id / path.name
            path.rename(path.with_name(f"{stem}_leftImg8bit.png"))
        (tmp_path / "gt" / sequence_id).rmdir()
    expected = Evaluator(KITTI)
    for sequence_id in frames:
        for maps in frames[sequence_id]:
            expected.update(*maps, sequence_id)
    assert evaluate_folders(tmp_path / "pred", tmp_path / "gt", KITTI) == expected.compute()


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    # the car has id 1 in frames 1 and 2, and id 2 in frame 10: one of two windows is wrong
    road_and_car = np.array([[ROAD, ROAD, CAR, CAR]])
    for frame, ids in ((1, 1), (2, 1), (10, 2)):
        write_kitti_step(tmp_path / "gt" / "0" / f"{frame}.png", road_and_car, road_and_car * 0 + 1)
        write_kitti_step(tmp_path / "pred" / "0" / f"{frame:06d}.png", road_and_car, road_and_car * 0 + ids)
    result = evaluate_folders(tmp_path / "pred", tmp_path / "gt", KITTI, windows=(2,))
    car = result["vpq"]["per_window"]["2"]["per_class"]["car"]
    # (1, 2): IoU 1; (2, 10): half of the tube each, 2/4: no match. In the order 1, 10, 2 no window would match
    assert (car["tp"], car["fp"], car["fn"]) == (1, 2, 1)


def test_numbers_of_frames_that_are_in_order(tmp_path):
    for name in ("walk/3", "walk/20", "city/a_0", "city/a_1", "city/b_0"):
        for side in ("gt", "pred"):
            write_kitti_step(tmp_path / side / f"{name}.png", np.array([[ROAD]]), np.array([[0]]))
    pairs = FolderPairs(tmp_path / "pred", tmp_path / "gt", KITTI)
    numbers = {key: [frame.number for frame in frames] for key, frames in pairs.sequences.items()}
    assert numbers == {"city": [None, None, None], "walk": [3, 20]}
    pairs.sequences = {"walk": pairs.sequences["walk"][::-1]}
    with pytest.raises(
        ValueError, match=r"^sequence 'walk', frame 3: expected frames in ascending order, .* after 20$"
    ):
        score(pairs, Scoring(), num_workers=0)


def test_camvid_label_maps(tmp_path):
    target = [[0, 1, 2], [10, 11, 11]]  # 11 is void
    grey_png(tmp_path / "gt" / "0016E5_07959.png", target)
    grey_png(tmp_path / "gt" / "0001TP_07959.png", target)  # the same number in another drive
    for name in ("0016E5_07959.png", "0001TP_07959.png"):
        write_kitti_step(tmp_path / "pred" / "val" / name, np.array([[0, 1, 1], [10, 3, 255]]), np.zeros((2, 3), int))
    result = evaluate_folders(tmp_path / "pred", tmp_path / "gt", CAMVID)
    # sky 1, building 1/2, pole 0, bicyclist 1
    assert result["miou"]["miou"] == pytest.approx((1 + 1 / 2 + 0 + 1) / 4)
    assert result["num_frames"] == 2
    assert "stq" not in result
    assert "vpq" not in result


def test_missing_and_extra_frames(tmp_path):
    kitti_tree(tmp_path, {"0002": 15, "0006": 1, "0007": 1})
    for k in range(12):
        (tmp_path / "pred" / "0002" / f"{k:06d}.png").unlink()
    (tmp_path / "gt" / "0002" / "000014.png").unlink()
    (tmp_path / "pred" / "0006").rename(tmp_path / "pred" / "0008")
    with pytest.raises(ValueError) as error:
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", KITTI)
    listed = ", ".join(f"0002/{k:06d}.png" for k in range(10))
    assert str(error.value) == (
        f"{tmp_path / 'pred'}: expected the sequences and frames of the ground truth, got 1 missing sequences (0006); "
        f"1 extra sequences (0008); 12 missing frames ({listed}, ...); 1 extra frames (0002/000014.png)"
    )


def test_two_files_of_one_frame(tmp_path):
    kitti_tree(tmp_path, {"0002": 2})
    write_kitti_step(tmp_path / "pred" / "0002" / "1.png", *(np.zeros((6, 8), int),) * 2)
    with pytest.raises(ValueError, match=r"expected one file per frame number, got .*1\.png as well"):
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", KITTI)


def test_a_wrong_size_names_the_file(tmp_path):
    kitti_tree(tmp_path, {"0002": 2})
    path = tmp_path / "pred" / "0002" / "000001.png"
    write_kitti_step(path, *(np.zeros((6, 9), int),) * 2)
    with pytest.raises(ValueError) as error:
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", KITTI)
    assert str(error.value) == f"{path}: expected pred_semantic of the target's shape (6, 8), got (6, 9)"


def test_other_wrong_files(tmp_path):
    kitti_tree(tmp_path, {"0002": 1})
    path = tmp_path / "pred" / "0002" / "000000.png"
    write_kitti_step(path, np.full((6, 8), 19), np.zeros((6, 8), int))
    with pytest.raises(ValueError, match=r"000000\.png: expected pred_semantic class ids .*, got 19"):
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", KITTI)
    grey_png(path, np.zeros((6, 8)))
    with pytest.raises(ValueError, match=r"000000\.png: expected .*RGB"):  # instances are needed
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", KITTI)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"000000\.png: expected"):
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", KITTI)


@pytest.mark.parametrize("side", ["pred", "gt"])
def test_a_missing_folder(tmp_path, side):
    kitti_tree(tmp_path, {"0002": 1})
    (tmp_path / side).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"{side}: expected a folder of frames, found nothing"):
        evaluate_folders(tmp_path / "pred", tmp_path / "gt", KITTI)


@pytest.mark.parametrize(
    ("place", "image"),
    [
        ("images/val/0002/000000.png", "panoptic_maps/val/0002/000000.png"),
        ("val/images/a1.jpg", "val/panoptic/a1.png"),
        ("val/images/0002/7.png", "val/labels/0002/7.png"),
        ("val/000002_000000_leftImg8bit.png", "val/000002_000000_panoptic.png"),
        (None, "maps/0002/000000.png"),
    ],
)
def test_images_are_where_the_layout_has_them(tmp_path, place, image):
    maps = np.zeros((2, 3), int), np.zeros((2, 3), int)
    write_kitti_step(tmp_path / image, *maps)
    write_kitti_step(tmp_path / "pred" / "x" / image.rpartition("/")[2].replace("_panoptic", "_leftImg8bit"), *maps)
    if place:
        write_image(tmp_path / place, np.full((2, 3, 3), 7, np.uint8))
    pairs = FolderPairs(tmp_path / "pred/x", (tmp_path / image).parent, KITTI)
    (frames,) = pairs.sequences.values()
    found = pairs.read_image(frames[0])
    assert (found is None) == (place is None)
    assert place is None or found.max() <= 8


def test_a_target_of_another_label_space_is_named(tmp_path):
    kitti_tree(tmp_path, {"0002": 1})
    write_kitti_step(tmp_path / "gt/0002/000000.png", np.full((6, 8), 40), np.zeros((6, 8), int))
    pairs = FolderPairs(tmp_path / "pred", tmp_path / "gt", KITTI)
    with pytest.raises(ValueError, match=r"gt/0002/000000\.png: label spec kitti-step: expected class ids .*got 40"):
        pairs.read(pairs.sequences["0002"][0])
