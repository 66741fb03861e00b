"""Evaluator, evaluation of folders, the table and the JSON file."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pix2seq_d.data.formats import write_kitti_step
from pix2seq_d.engine.evaluate import Evaluator, evaluate_folders, format_table, write_json
from pix2seq_d.labels import get_label_spec
from pix2seq_d.metrics import MeanIoU, PanopticQuality, SegmentationTrackingQuality, VideoPanopticQuality

KITTI, CAMVID = get_label_spec("kitti-step"), get_label_spec("camvid")
ROAD, PERSON, CAR, VOID = 0, 11, 13, 255


def random_video(rng, length, shape=(6, 8)):
    """(pred_semantic, pred_instance, target_semantic, target_instance) of every frame."""
    for _ in range(length):
        target = rng.choice([ROAD, 10, PERSON, CAR, VOID], shape).astype(np.uint8)
        pred = np.where(rng.random(shape) < 0.3, ROAD, target).astype(np.uint8)
        ids = rng.integers(0, 3, (2, *shape)).astype(np.int32)
        yield pred, ids[0], target, ids[1]


def kitti_tree(root, sequences, seed=0):
    """Writes random maps `{sequence}/{frame:06d}.png` to root/pred and root/gt."""
    rng = np.random.default_rng(seed)
    frames = {s: list(random_video(rng, length)) for s, length in sequences.items()}
    for sequence_id, maps in frames.items():
        for k, (pc, pi, tc, ti) in enumerate(maps):
            write_kitti_step(root / "pred" / sequence_id / f"{k:06d}.png", pc, pi)
            write_kitti_step(root / "gt" / sequence_id / f"{k:06d}.png", tc, ti)
    return frames


def grey_png(path, class_map):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(class_map, np.uint8)).save(path)


# Evaluator


def test_equals_the_single_metrics():
    rng, evaluator = np.random.default_rng(0), Evaluator(KITTI, windows=(1, 2))
    singles = PanopticQuality(), VideoPanopticQuality(windows=(1, 2)), SegmentationTrackingQuality(), MeanIoU()
    for sequence_id, length in (("0002", 4), ("0006", 2)):
        for maps in random_video(rng, length):
            evaluator.update(*maps, sequence_id)
            for metric in singles:
                metric.update(*maps, sequence_id)
    result = evaluator.compute()
    pq, vpq, stq, miou = (metric.compute() for metric in singles)
    assert result["pq"]["pq"] == pq["pq"] > 0
    assert result["vpq"]["vpq"] == vpq["vpq"] > 0
    assert result["stq"]["stq"] == stq["stq"] > 0
    assert result["miou"]["miou"] == miou["miou"] > 0
    assert (result["spec"], result["num_frames"]) == ("kitti-step", 6)
    assert result["pq"]["per_class"]["car"] == pq["per_class"][CAR]
    assert result["vpq"]["per_window"]["2"]["per_class"]["road"] == vpq["per_window"][2]["per_class"][ROAD]
    assert result["stq"]["per_sequence"]["0006"] == stq["per_sequence"]["0006"]
    assert list(result["miou"]["per_class"]) == list(KITTI.class_names)


def test_result_survives_json():
    evaluator = Evaluator(KITTI)
    for maps in random_video(np.random.default_rng(1), 3):
        evaluator.update(*maps, 7)  # a number as name of the sequence
    result = evaluator.compute()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["stq"]["per_sequence"]) == ["7"]


def test_tensors_equal_arrays():
    arrays, tensors = Evaluator(KITTI), Evaluator(KITTI)
    for maps in random_video(np.random.default_rng(2), 3):
        arrays.update(*maps)
        tensors.update(*map(torch.from_numpy, maps))
    assert arrays.compute() == tensors.compute()


def test_merge_and_reset():
    rng, joint, parts = np.random.default_rng(3), Evaluator(KITTI), [Evaluator(KITTI), Evaluator(KITTI)]
    for part, sequence_id in zip(parts, ("a", "b")):
        for maps in random_video(rng, 5):
            joint.update(*maps, sequence_id)
            part.update(*maps, sequence_id)
    parts[0].merge(parts[1])
    assert parts[0].compute() == joint.compute()
    before = parts[0].compute()
    with pytest.raises(ValueError, match="merge: expected disjoint sequences, got b in both"):
        parts[0].merge(parts[1])
    with pytest.raises(ValueError, match="merge: expected label spec kitti-step, got camvid"):
        parts[0].merge(Evaluator(CAMVID))
    assert parts[0].compute() == before
    parts[0].reset()
    assert parts[0].compute() == Evaluator(KITTI).compute()


def test_a_refused_frame_is_counted_nowhere():
    evaluator = Evaluator(KITTI)
    maps = next(random_video(np.random.default_rng(4), 1))
    for sequence_id in ("a", "b"):
        evaluator.update(*maps, sequence_id)
    before = evaluator.compute()
    with pytest.raises(ValueError, match="sequence 'a', frame 1: expected all frames in one go, got one after 'b'"):
        evaluator.update(*maps, "a")
    with pytest.raises(ValueError, match=r"^sequence 'b', frame 1: expected pred_semantic of the target's shape"):
        evaluator.update(maps[0].T, maps[1].T, *maps[2:], "b")
    assert evaluator.compute() == before


def test_without_things():
    evaluator = Evaluator(CAMVID)
    evaluator.update(np.array([[0, 1, 1]]), None, np.array([[0, 1, 255]]), None)
    result = evaluator.compute()
    assert sorted(result) == ["miou", "num_frames", "pq", "spec"]
    assert result["miou"]["miou"] == result["pq"]["pq_stuff"] == 1


# Folders


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


# Reports


def small_result():
    evaluator = Evaluator(KITTI, windows=(1, 2, 3))
    target = np.array([[ROAD, ROAD, CAR, CAR, CAR, VOID]])
    pred = np.array([[ROAD, ROAD, CAR, CAR, VOID, VOID]])
    for _ in range(2):
        evaluator.update(pred, pred * 0 + 1, target, target * 0 + 1, "0002")
    return evaluator.compute()


def test_table():
    blocks = [block.splitlines() for block in format_table(small_result()).rstrip("\n").split("\n\n")]
    rows = [[line.split() for line in block] for block in blocks]
    # car: 2 of 3 pixels; in IoU void is one more class with IoU 0
    assert rows[0][0] == ["Panoptic", "PQ", "SQ", "RQ", "N"]
    assert rows[0][2:] == [
        ["All", "83.33", "83.33", "100.00", "2"],
        ["Things", "66.67", "66.67", "100.00", "1"],
        ["Stuff", "100.00", "100.00", "100.00", "1"],
    ]
    assert rows[1][0] == ["VPQ", "k=1", "k=2", "k=3", "mean"]
    assert rows[1][2] == ["All", "83.33", "83.33", "-", "83.33"]  # there are only two frames
    # AQ = (4 * 4/6) / 6, IoU = (1 + 2/3 + 0) / 3, STQ = sqrt(0.4444 * 0.5556)
    assert rows[2][0] == ["Sequence", "STQ", "AQ", "IoU", "tracks", "frames"]
    assert rows[2][2:] == [
        ["0002", "49.69", "44.44", "55.56", "1", "2"],
        ["All", "49.69", "44.44", "55.56", "1", "2"],
    ]
    assert rows[3][2] == ["All", "83.33", "80.00", "2"]
    assert len(rows) == 4
    for block in blocks:  # aligned: every line is as long as the rule below the header
        assert {len(line) for line in block} == {len(block[1])}


def test_rows_per_class():
    lines = [line.split() for line in format_table(small_result(), per_class=True).splitlines()]
    assert ["Class", "PQ", "SQ", "RQ", "TP", "FP", "FN", "IoU"] in lines
    assert ["car", "66.67", "66.67", "100.00", "2", "0", "0", "66.67"] in lines
    assert ["train", "-", "-", "-", "0", "0", "0", "-"] in lines


def test_table_of_read_back_json(tmp_path):
    result = small_result()
    write_json(tmp_path / "new" / "result.json", result)
    read = json.loads((tmp_path / "new" / "result.json").read_text())
    assert read == result
    assert format_table(read, per_class=True) == format_table(result, per_class=True)


def test_table_without_things():
    evaluator = Evaluator(CAMVID)
    evaluator.update(np.array([[0, 1, 1]]), None, np.array([[0, 1, 255]]), None)
    table = format_table(evaluator.compute())
    assert "VPQ" not in table
    assert "STQ" not in table
    assert "mIoU" in table


def test_table_of_nothing():
    assert "nan" not in format_table(Evaluator(KITTI).compute(), per_class=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_without_nan(tmp_path, value):
    path = tmp_path / "result.json"
    write_json(path, {"pq": 1.0})
    with pytest.raises(ValueError, match=r"result\.json: expected finite numbers only, got NaN or infinity"):
        write_json(path, {"pq": value})
    assert json.loads(path.read_text()) == {"pq": 1.0}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
