"""How commands end: exit codes, one line for every expected error, and the commands `export` and `save`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from loopback_hub import running_hub
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset
from zips import make_zip

from pix2seq_d import __main__ as entry
from pix2seq_d.commands import print_error, run_command
from pix2seq_d.data.download import DOWNLOADS
from pix2seq_d.data.formats import DataError, read_image, read_kitti_step, write_kitti_step
from pix2seq_d.engine.checkpoint import CheckpointError
from pix2seq_d.engine.interrupts import Interrupted
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.pipeline import Pix2SeqDPipeline
from pix2seq_d.presets import PRESETS

Capture = pytest.CaptureFixture[str]
Build = Callable[..., Pix2SeqD]


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_success_is_zero(capsys: Capture) -> None:
    seen = []
    assert run_command(lambda *a, **k: seen.append((a, k)), 1, two=2) == 0
    assert seen == [((1,), {"two": 2})]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("frame: too small"),
        DataError("x.png: broken"),
        CheckpointError("run: no checkpoint"),
        FloatingPointError("step 3: loss is nan"),
        OSError(28, "No space left on device", "out/x.png"),
        TypeError("frame: expected an array"),
        ImportError("MP4 needs PyAV: pip install av"),
    ],
)
def test_expected_errors_are_one_line(error: Exception, capsys: Capture) -> None:
    assert run_command(failing(error)) == 1
    assert capsys.readouterr().err == f"error: {error}\n"


def test_line_breaks_go(capsys: Capture) -> None:
    assert run_command(failing(ValueError("first\n\nsecond\n"))) == 1
    assert capsys.readouterr().err == "error: first second\n"


def test_an_error_without_words(capsys: Capture) -> None:
    assert run_command(failing(ValueError())) == 1
    assert capsys.readouterr().err == "error: ValueError\n"


def test_ctrl_c(capsys: Capture) -> None:
    assert run_command(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_mistakes_in_the_program_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(failing(ZeroDivisionError()))


class Broken(Dataset[np.ndarray]):
    """Its only item is a file that is no image."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> np.ndarray:
        return read_image(self.path)


def test_an_error_in_a_loader_process_is_its_own_last_line(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "frame.png"
    path.write_text("no image")
    with pytest.raises(DataError) as direct:
        read_image(path)
    with pytest.raises(DataError) as caught:
        next(iter(DataLoader(Broken(path), num_workers=1)))
    assert str(caught.value).startswith("Caught DataError in DataLoader worker")
    print_error(caught.value)
    assert capsys.readouterr().err == f"error: {direct.value}\n"


# python -m pix2seq_d


def test_an_unknown_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        entry.main(["segment"])
    assert end.value.code == 2
    assert "invalid choice: 'segment'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["download", "check", "train", "pretrain", "infer", "evaluate", "report", "export", "save"]
)
def test_every_command_has_help(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        entry.main([command, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: pix2seq_d {command} ")


def test_training_errors_are_one_line(capsys: Capture) -> None:
    assert entry.main(["train", "--data.root", "nowhere", "--data.download", "false"]) == 1
    assert capsys.readouterr().err.startswith("error: data.root: nowhere does not exist")
    assert entry.main(["pretrain", "--train.nope", "1"]) == 1
    assert capsys.readouterr().err == "error: unrecognized arguments: --train.nope 1\n"


# download


def test_download_then_already_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    arguments = ["download", "kitti-step", "--root", str(tmp_path / "data")]
    folder = tmp_path / "data" / "kitti_step"
    with running_hub(monkeypatch) as hub:
        assert entry.main(arguments) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: kitti-step: could not fetch kitti_step.zip of the Hub's LXT/VideoK-Net (")
        hub.files["LXT/VideoK-Net", "kitti_step.zip"] = make_zip([("video_sequence/val/000002_000000_x.png", b"1")])
        assert entry.main(arguments) == 0
    assert (folder / "video_sequence" / "val").is_dir()
    assert entry.main(arguments) == 0, "the hub is gone, the data is there"


def test_download_says_where_to(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        entry.main(["download", "--help"])
    assert "kitti-step (CC BY-NC-SA 3.0) to DIR/kitti_step" in " ".join(capsys.readouterr().out.split())
    assert PRESETS["kitti-step"].data.root == f"data/{DOWNLOADS['kitti-step'].folder}"


# export


def export(predictions: Path, output: Path, *options: object) -> int:
    return entry.main(["export", "--predictions", str(predictions), "--output", str(output), *map(str, options)])


def test_export(tmp_path: Path, capsys: Capture) -> None:
    write_kitti_step(tmp_path / "in/a/frankfurt_000000_000294_leftImg8bit.png", np.array([[13]]), np.array([[4]]))
    options = ["--format", "cityscapes", "--label_spec", "kitti-step", "--zip"]
    assert export(tmp_path / "in", tmp_path / "out/val", *options) == 0
    segments = json.loads((tmp_path / "out/val/val.json").read_text())["annotations"][0]["segments_info"]
    assert segments == [{"id": 26003, "category_id": 26, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1}]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["val", "val.zip"]
    capsys.readouterr()
    assert export(tmp_path / "in", tmp_path / "out/val", *options) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/out/val: expected a new or empty folder to write to")
    assert export(tmp_path / "in", tmp_path / "out/b", "--format", "cityscapes", "--ground_truth", "no.json") == 1
    assert capsys.readouterr().err == "error: no.json: expected the JSON of the ground truth, found no such file\n"


def test_export_of_ones_own_classes(tmp_path: Path, capsys: Capture) -> None:
    """Class 1 of labels.json is a car; the tree (0) is vegetation."""
    write_kitti_step(tmp_path / "in/0002/000001.png", np.array([[0, 1]]), np.array([[0, 4]]))
    (tmp_path / "labels.json").write_text('{"class_names": ["tree", "car"], "things": ["car"], "dataset_ids": [8, 9]}')
    options = ["--format", "kitti-step", "--label_spec"]
    assert export(tmp_path / "in", tmp_path / "out", *options, tmp_path / "labels.json") == 0
    class_map, instance_map = read_kitti_step(tmp_path / "out/0002/000001.png")
    assert (class_map.tolist(), instance_map.tolist()) == ([[8, 13]], [[0, 4]])
    assert export(tmp_path / "in", tmp_path / "b", *options, "kiti") == 1
    assert capsys.readouterr().err.endswith(
        "error: --label_spec: expected one of kitti-step, cityscapes-step, "
        "cityscapes, cityscapes-vps, motchallenge-step, bdd100k, coco, camvid, or a labels.json, got 'kiti'\n"
    )


# save


@pytest.fixture
def saved(tiny_model: Build, tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def save(*arguments: object) -> int:
    return entry.main(["save", *map(str, arguments)])


@pytest.mark.parametrize(("option", "dtype"), [([], torch.float16), (["--dtype", "float32"], torch.float32)])
def test_save_writes_the_weights_in_the_precision_asked_for(
    saved: Path, tmp_path: Path, option: list[str], dtype: torch.dtype
) -> None:
    assert save("--checkpoint", saved, "--output", tmp_path / "shared", *option) == 0
    weights, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "shared", saved))
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {dtype}
    assert all(torch.equal(weights[k], before[k].to(weights[k].dtype)) for k in before)
    frame = np.zeros((32, 64, 3), np.uint8)
    assert Pix2SeqDPipeline.from_pretrained(tmp_path / "shared", device="cpu")([frame])[0].class_map.shape == (32, 64)


def test_save_changes_defaults_of_inference(saved: Path, tmp_path: Path) -> None:
    assert save("--checkpoint", saved, "--output", tmp_path / "shared", "--num_steps", 7, "--min_pixels", 11) == 0
    model = Pix2SeqD.from_pretrained(tmp_path / "shared")
    assert (model.num_steps, model.num_steps_next, model.min_pixels) == (7, 2, 11)


@pytest.mark.parametrize("option", ["--num_steps", "--num_steps_next", "--td_steps", "--min_pixels"])
def test_save_refuses_defaults_that_cannot_be_used(saved: Path, tmp_path: Path, option: str, capsys: Capture) -> None:
    assert save("--checkpoint", saved, "--output", tmp_path / "shared", option, "-1") == 1
    assert capsys.readouterr().err.startswith(f"error: {option[2:]}: expected at least")
    assert not (tmp_path / "shared").exists()


def test_a_run_that_a_signal_stops_has_its_own_exit_code(capsys: Capture) -> None:
    def stopped() -> None:
        raise Interrupted(15, 12)

    assert run_command(stopped) == 143
    assert capsys.readouterr().err.startswith("stopped by SIGTERM after step 12, with a checkpoint")
