"""train.py, pretrain.py, inference.py and evaluate.py as a user calls them, and what they say when a call is wrong."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from cityscapes_tree import write_fine, write_images
from loopback_hub import running_hub
from tiny_runs import TINY_OPTIONS, accelerate_state, tiny_config  # noqa: F401
from zips import kitti_step_zip

from pix2seq_d import inference as inference_command
from pix2seq_d.data.formats import read_kitti_step, write_image, write_kitti_step
from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.launch import initial_model
from pix2seq_d.models.pix2seq_d import Pix2SeqD

ROOT = Path(__file__).parents[1]
SCRIPTS = ("train.py", "pretrain.py", "inference.py", "evaluate.py")
Call = Callable[..., int]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """`call("train.py", *arguments)` runs a script in this process and returns its exit code."""

    def run(script: str, *arguments: object) -> int:
        monkeypatch.setattr("sys.argv", [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert isinstance(end.value.code, int)
        return end.value.code

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """images/ and maps/ of two short videos."""
    videos = SyntheticVideos(split="val", num_sequences=2, num_frames=3, height=40, width=72)
    for sequence in videos.sequence_ids:
        for frame_id in videos.frame_ids(sequence):
            image, class_map, instance_map = videos.read_frame(sequence, frame_id)
            name = f"{sequence}/{frame_id:06d}.png"
            write_image(tmp_path / "images" / name, image)
            write_kitti_step(tmp_path / "maps" / name, class_map, instance_map)
    return tmp_path


@pytest.fixture
def model(tiny_model: Callable[..., Pix2SeqD], tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def inference(call: Call, data: Path, model: Path | str, *options: object, target: str = "out") -> int:
    places = ["--input_folder", data / "images", "--output_folder", data / target, "--checkpoint", model]
    return call("inference.py", *places, "--device", "cpu", "--animation", "none", *options)


def evaluate(call: Call, predictions: Path, data: Path, *options: object) -> int:
    return call("evaluate.py", "--predictions", predictions, "--ground_truth", data / "maps", *options)


def error(capsys: Capture) -> str:
    """The last thing said, which must be one line that begins with `error: `."""
    lines = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(call: Call, script: str, capsys: Capture) -> None:
    assert call(script, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {script} ")
    description = (ROOT / script).read_text().split('"""')[1]
    assert description.split(";")[0] in " ".join(text.split())


# training


@pytest.mark.usefixtures("accelerate_state")
def test_train_infer_evaluate(call: Call, data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert call("train.py", *TINY_OPTIONS, "--train.output_dir", tmp_path / "run") == 0
    assert inference(call, data, tmp_path / "run", "--num_steps", 2, "--num_steps_next", 1) == 0
    assert evaluate(call, data / "out", data, "--output", data / "scores.json", "--per_class") == 0
    assert "Panoptic" in capsys.readouterr().out
    assert json.loads((data / "scores.json").read_text())["num_frames"] == 6


@pytest.mark.parametrize(("script", "preset"), [("train.py", "kitti-step"), ("pretrain.py", "kitti-step")])
def test_training_without_data(
    call: Call, script: str, preset: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(script, "--preset", preset, "--data.download", "false") == 1
    assert error(capsys).startswith("data.root: data/kitti_step does not exist")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("accelerate_state")
def test_training_fetches_its_data(
    call: Call, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    options = [*TINY_OPTIONS, "--data.dataset", "kitti-step", "--train.steps", 1, "--train.output_dir", "run"]
    with running_hub(monkeypatch) as hub:
        assert call("train.py", *options) == 1
        assert "or its content into data/kitti_step" in error(capsys)
        assert not Path("run").exists()
        hub.files["LXT/VideoK-Net", "kitti_step.zip"] = kitti_step_zip()
        assert call("train.py", *options, "--validation.every", 1, "--validation.num_frames", 1) == 0
    assert Path("data/kitti_step/kitti_out/video_sequence/train").is_dir()
    assert Path("run/model/model.safetensors").is_file()


def test_the_defaults_of_the_training_scripts(call: Call, capsys: Capture) -> None:
    for script, preset in (("train.py", "kitti-step"), ("pretrain.py", "cityscapes")):
        assert call(script, "--print_config", "--train.seed", 3) == 0
        text = capsys.readouterr().out
        assert f"preset: {preset}" in text
        assert f"output_dir: results/{script.removesuffix('.py')}" in text


@pytest.mark.usefixtures("accelerate_state")
def test_pretraining_on_cityscapes(call: Call, tmp_path: Path, capsys: Capture) -> None:
    """Its own preset on a tiny tree, at a tiny size; what it saves is what training on KITTI-STEP starts from."""
    data, run_dir = tmp_path / "cityscapes", tmp_path / "pretrain"
    for split in ("train", "val"):
        write_fine(write_images(data, split, size=(20, 40)), split, size=(20, 40))
    tiny = [o for o in TINY_OPTIONS if o not in ("--preset", "synthetic-tiny")]
    tiny += "--model.block basic --model.norm group --train.encoder_weights= --train.precision no".split()
    tiny += "--train.steps 2 --train.warmup_steps 1 --validation.every 2 --validation.num_steps 1".split()
    assert call("pretrain.py", *tiny, "--data.root", data, "--train.output_dir", run_dir) == 0, capsys.readouterr().err
    config = json.loads((run_dir / "config.json").read_text())
    assert (config["data"]["dataset"], config["data"]["pseudo_video"]) == ("cityscapes", True)
    records = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "validation"] == [2]
    pretrained = Pix2SeqD.from_pretrained(run_dir / "model")
    assert pretrained.label_spec.name == "cityscapes"
    kitti = tiny_config(tmp_path / "run", "--train.init_from", str(run_dir))
    for name, tensor in initial_model(kitti).state_dict().items():
        assert torch.equal(tensor, pretrained.state_dict()[name]), name


@pytest.mark.usefixtures("accelerate_state")
def test_more_objects_than_codes(call: Call, tmp_path: Path, capsys: Capture) -> None:
    options = [*TINY_OPTIONS, "--model.num_instance_bits", 1, "--data.difficulty", "hard", "--train.steps", 20]
    assert call("train.py", *options, "--train.output_dir", tmp_path / "run") == 1
    assert "expected at most 1 instances in a frame (num_codes), got" in error(capsys)


# inference


def test_inference_resumes_and_refuses_other_settings(call: Call, data: Path, model: Path, capsys: Capture) -> None:
    assert inference(call, data, model) == 0
    record = json.loads((data / "out" / "inference.json").read_text())
    settings = record["settings"]
    assert record["finished"] == ["0000", "0001"]
    assert (settings["num_steps"], settings["num_steps_next"], settings["sampler"]) == (3, 2, "ddim")
    times = {p: p.stat().st_mtime_ns for p in (data / "out").rglob("*.png")}
    assert inference(call, data, model, "--num_steps", 3) == 0, "what is the model's default is no other setting"
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert inference(call, data, model, "--num_steps", 4, "--seed", 1) == 1
    assert "other settings (num_steps 3 -> 4, seed 0 -> 1)" in error(capsys)
    assert inference(call, data, model, "--num_steps", 4, "--overwrite") == 0
    assert all(p.stat().st_mtime_ns > t for p, t in times.items())


def test_other_weights_in_the_same_place_are_noticed(
    call: Call, data: Path, model: Path, tiny_model: Callable[..., Pix2SeqD], capsys: Capture
) -> None:
    assert inference(call, data, model) == 0
    tiny_model(seed=1).save_pretrained(model)
    assert inference(call, data, model) == 1
    assert "other settings (weights " in error(capsys)


def test_inference_is_deterministic(call: Call, data: Path, model: Path) -> None:
    for target in ("one", "two"):
        assert inference(call, data, model, "--seed", 5, target=target) == 0
    maps = [{p.name: p.read_bytes() for p in (data / t).rglob("*.png")} for t in ("one", "two")]
    assert maps[0] == maps[1]
    assert inference(call, data, model, "--seed", 6, target="three") == 0
    assert maps[0] != {p.name: p.read_bytes() for p in (data / "three").rglob("*.png")}


def test_inference_writes_the_animation_asked_for(call: Call, data: Path, model: Path) -> None:
    places = ["--input_folder", data / "images", "--output_folder", data / "out", "--checkpoint", model]
    assert call("inference.py", *places, "--animation", "webp", "--fps", 5) == 0
    assert {p.name for p in (data / "out" / "overview").iterdir()} == {"0000.webp", "0001.webp"}


def test_inference_exports_when_it_is_done(call: Call, data: Path, model: Path, capsys: Capture) -> None:
    assert inference(call, data, model, "--format", "kitti-step", "--zip") == 0
    exported = {p.relative_to(data / "out/kitti-step").as_posix() for p in (data / "out/kitti-step").rglob("*.png")}
    assert exported == {f"{s}/{n:06d}.png" for s in ("0000", "0001") for n in range(3)}
    assert (data / "out" / "kitti-step.zip").is_file()
    assert evaluate(call, data / "out/kitti-step", data) == 0
    assert inference(call, data, model, "--format", "kitti-step") == 1, "before anything is predicted"
    assert "kitti-step: expected a new or empty folder to write to" in error(capsys)
    assert inference(call, data, model) == 0, "the maps themselves are kept"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num_steps", 0], "num_steps: expected at least 1, got 0"),
        (["--num_steps_next", -3], "num_steps_next: expected at least 1, got -3"),
        (["--td_steps", -1], "td_steps: expected at least 0, got -1.0"),
        (["--t_start_next", 0], "t_start_next: expected"),
        (["--stop_unchanged", 2], "stop_unchanged: expected"),
        (["--seed", -1], "seed: expected at least 0, got -1"),
        (["--device", "toaster"], "--device: expected a device of this machine, got 'toaster'"),
        (["--device", "meta"], "--device: expected a device of this machine, got 'meta'"),
        (["--device", "cuda:99"], "--device: expected a device of this machine, got 'cuda:99'"),
        (["--animation", "gif", "--fps", 0], "fps: expected above 0"),
        (
            ["--format", "bdd100k", "--ground_truth", "x.json"],
            "format bdd100k: expected no ground_truth, it has no order",
        ),
        (["--format", "cityscapes-vps"], "format cityscapes-vps: expected ground_truth"),
        (["--zip"], "--zip and --ground_truth: expected --format with them, got none"),
    ],
)
def test_bad_options_of_inference(
    call: Call, data: Path, model: Path, options: list[Any], words: str, capsys: Capture
) -> None:
    assert inference(call, data, model, *options) == 1
    assert words in error(capsys)
    assert not list((data / "out").rglob("*.png"))


@pytest.mark.parametrize("kind", ["other", "cut", "other weights", "config", "file"])
def test_a_checkpoint_that_cannot_be_used(
    call: Call, data: Path, model: Path, kind: str, capsys: Capture, tiny_model: Callable[..., Pix2SeqD]
) -> None:
    weights = model / "model.safetensors"
    if kind == "other":
        weights.rename(model / "pytorch_model.bin")
    elif kind == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "other weights":
        tiny_model(encoder_dim=32).save_pretrained(data / "wider")
        shutil.copy(data / "wider" / "model.safetensors", weights)
    elif kind == "config":
        (model / "config.json").write_text("{}")
    assert inference(call, data, weights if kind == "file" else model) == 1
    assert str(model) in error(capsys)
    assert not (data / "out").exists()


def test_a_checkpoint_that_is_a_foreign_pickle_only(call: Call, data: Path, capsys: Capture) -> None:
    (data / "foreign").mkdir()
    torch.save({"state_dict": {}}, data / "foreign" / "model.pt")
    assert inference(call, data, data / "foreign") == 1
    assert "expected a saved model" in error(capsys)


@pytest.mark.parametrize("place", ["missing", "file"])
def test_an_input_folder_that_is_none(call: Call, data: Path, model: Path, place: str, capsys: Capture) -> None:
    shutil.rmtree(data / "images")
    if place == "file":
        (data / "images").write_text("x")
    assert inference(call, data, model) == 1
    assert error(capsys).startswith(
        f"{data / 'images'}: expected a folder, a video, an image, a list (.txt) or a pattern"
    )


def test_ctrl_c_during_inference(
    call: Call, data: Path, model: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(inference_command, "predict_sources", interrupted)
    assert inference(call, data, model) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")


# evaluation


def test_the_truth_scores_one(call: Call, data: Path, capsys: Capture) -> None:
    assert evaluate(call, data / "maps", data, "--output", data / "scores.json") == 0
    scores = json.loads((data / "scores.json").read_text())
    assert [scores["pq"]["pq"], scores["vpq"]["vpq"], scores["stq"]["stq"], scores["miou"]["miou"]] == [1.0] * 4
    table = capsys.readouterr().out
    assert "100.00" in table
    assert "\nClass" not in table
    assert evaluate(call, data / "maps", data, "--per_class", "--windows", 1, 2) == 0
    assert "k=2" in (table := capsys.readouterr().out)
    assert "\nClass" in table


def test_missing_and_extra_maps(call: Call, data: Path, capsys: Capture) -> None:
    predictions = data / "predictions"
    shutil.copytree(data / "maps", predictions)
    (predictions / "0000" / "000001.png").rename(predictions / "0000" / "000077.png")
    assert evaluate(call, predictions, data, "--output", data / "scores.json") == 1
    text = error(capsys)
    assert "1 missing frames (0000/000001.png)" in text
    assert "1 extra frames (0000/000077.png)" in text
    assert not (data / "scores.json").exists()
    shutil.rmtree(predictions / "0001")
    assert evaluate(call, predictions, data) == 1
    assert "1 missing sequences (0001)" in error(capsys)


def test_a_class_outside_the_label_spec(call: Call, data: Path, capsys: Capture) -> None:
    path = data / "predictions" / "0001" / "000002.png"
    shutil.copytree(data / "maps", data / "predictions")
    class_map, instance_map = read_kitti_step(path)
    class_map[3, 4] = 77
    write_kitti_step(path, class_map, instance_map)
    assert evaluate(call, data / "predictions", data) == 1
    text = error(capsys)
    assert str(path) in text
    assert "77" in text


def test_a_broken_map_and_one_of_another_size(call: Call, data: Path, capsys: Capture) -> None:
    path = data / "predictions" / "0001" / "000002.png"
    shutil.copytree(data / "maps", data / "predictions")
    path.write_bytes(path.read_bytes()[:80])
    assert evaluate(call, data / "predictions", data) == 1
    assert str(path) in error(capsys)
    write_kitti_step(path, np.zeros((40, 71), np.uint8), np.zeros((40, 71), np.int32))
    assert evaluate(call, data / "predictions", data) == 1
    assert str(path) in error(capsys)


def test_scores_that_cannot_be_written(call: Call, data: Path, capsys: Capture) -> None:
    (data / "file").write_text("mine")
    assert evaluate(call, data / "maps", data, "--output", data / "file" / "scores.json") == 1
    assert str(data / "file") in error(capsys)
    assert (data / "file").read_text() == "mine"


def test_no_folder_of_predictions(call: Call, data: Path, capsys: Capture) -> None:
    assert evaluate(call, data / "nowhere", data) == 1
    assert str(data / "nowhere") in error(capsys)
