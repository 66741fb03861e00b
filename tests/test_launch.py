"""A training run from end to end: what it leaves, what it starts from, and what it refuses before any work is done."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from tiny_runs import accelerate_state, equal, files_below, read_records, tiny_config  # noqa: F401

import pix2seq_d.models.pix2seq_d
from pix2seq_d import launch
from pix2seq_d.config import RunConfig
from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.engine.checkpoint import CheckpointError, list_checkpoints
from pix2seq_d.engine.health import TrainingFault
from pix2seq_d.engine.runlog import RunLog, read_log
from pix2seq_d.labels import LABEL_SPECS
from pix2seq_d.models.pix2seq_d import Pix2SeqD

pytestmark = pytest.mark.usefixtures("accelerate_state")
VALIDATE = "--validation.every 2 --validation.num_sequences 2 --validation.num_frames 2".split()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps with two checkpoints and two validations."""
    run_dir = tmp_path_factory.mktemp("finished")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert launch.run_training(tiny_config(run_dir, *VALIDATE, "--train.save_every", "2")) == run_dir
    return run_dir


def test_what_a_run_leaves(finished: Path) -> None:
    assert {p.name for p in finished.iterdir()} == {"checkpoints", "config.json", "log.jsonl", "model", "samples"}
    assert [p.name for p in list_checkpoints(finished)] == ["step-00000003", "step-00000002"]
    assert files_below(finished / "samples") == {
        f"step-0000000{step}{suffix}" for step in (2, 3) for suffix in (".png", "-denoising.png", ".csv")
    }
    header, *classes = (finished / "samples" / "step-00000003.csv").read_text().splitlines()
    assert header == "Class,PQ,SQ,RQ,TP,FP,FN,IoU"
    assert [line.split(",")[0] for line in classes] == list(LABEL_SPECS["kitti-step"].class_names)
    kinds = [(record["kind"], record["step"]) for record in read_records(finished)]
    assert kinds == [("train", 1), ("train", 2), ("validation", 2), ("train", 3), ("validation", 3)]
    assert set(read_log(finished, "train")[0]) == {
        "kind", "step", "loss", "lr", "grad_norm", "ema_distance", "skipped", "frames_per_s", "data_wait", "memory_mb",
        "eta_s", "loss_by_t",
    }  # fmt: skip
    assert {"pq", "stq", "miou"} <= set(read_log(finished, "validation")[0])
    assert json.loads((finished / "config.json").read_text())["train"]["save_every"] == 2


def test_the_exported_model_is_the_average(finished: Path) -> None:
    averaged = Pix2SeqD.from_pretrained(finished / "model").state_dict()
    trained = torch.load(list_checkpoints(finished)[0] / "custom_checkpoint_0.pkl", weights_only=True)
    assert equal(dict(averaged), {k.removeprefix("ema_model."): v for k, v in trained.items() if "ema_model" in k})


def test_a_finished_run_stays_as_it_is(finished: Path) -> None:
    before = {name: (finished / name).read_bytes() for name in files_below(finished)}
    launch.run_training(tiny_config(finished, *VALIDATE, "--train.save_every", "2"))
    assert {name: (finished / name).read_bytes() for name in files_below(finished)} == before


def test_starting_over(finished: Path, tmp_path: Path) -> None:
    for k, options in enumerate((["--train.steps", "2"], ["--train.steps", "1", "--train.resume", "false"])):
        launch.run_training(tiny_config(tmp_path, *options))
        assert [p.name for p in list_checkpoints(tmp_path)] == [f"step-0000000{2 - k}"]
    assert [record["step"] for record in read_records(tmp_path)] == [1]


# where the weights come from


def test_starting_from_a_run(finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config(tmp_path, "--train.init_from", str(finished))
    assert equal(
        dict(launch.initial_model(config).state_dict()),
        dict(Pix2SeqD.from_pretrained(finished / "model").state_dict()),
    )
    assert not caplog.records


def test_starting_from_a_run_with_other_instance_bits(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(tmp_path, "--train.init_from", str(finished), "--model.num_instance_bits", "3")
    own = launch.initial_model(config).state_dict()
    source = Pix2SeqD.from_pretrained(finished / "model").state_dict()
    (message,) = [r.getMessage() for r in caplog.records]
    assert message == (
        f"{finished}: 4 tensors are taken in part: denoiser.stem.weight (8 of 8 inputs, of 10 there), "
        "denoiser.stem_cond.weight (24 of 24 inputs, of 28 there), "
        "denoiser.out.weight (48 of 48 outputs, of 74 there), denoiser.out.bias (48 of 48 outputs, of 74 there)"
    )
    assert all(torch.equal(own[name], source[name]) for name in own if name not in message)


@pytest.mark.parametrize("kind", ["run", "checkpoint", "model"])
def test_every_place_that_weights_come_from(finished: Path, tmp_path: Path, kind: str) -> None:
    newest = finished / "checkpoints" / "step-00000003"
    place = {"run": finished, "checkpoint": newest, "model": newest / "model"}[kind]
    found = launch.initial_model(tiny_config(tmp_path, "--train.init_from", str(place))).state_dict()
    assert equal(dict(found), dict(Pix2SeqD.from_pretrained(finished / "model").state_dict()))


def test_starting_from_the_hub(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def fetch(name: str, file: str, **_: object) -> str:
        fetched.append((name, file))
        return str(finished / "model" / file)

    monkeypatch.setattr(pix2seq_d.models.pix2seq_d, "hf_hub_download", fetch)
    found = launch.initial_model(tiny_config(tmp_path, "--train.init_from", "someone/some-model")).state_dict()
    assert fetched == [("someone/some-model", "config.json"), ("someone/some-model", "model.safetensors")]
    assert equal(dict(found), dict(Pix2SeqD.from_pretrained(finished / "model").state_dict()))


@pytest.mark.parametrize("name", ["model-0.pt", "model-latest.pt"])
def test_weights_put_into_the_run_folder_by_hand(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They would not be read: said at once, unless the run has weights of its own or is told of others."""
    (tmp_path / name).write_bytes(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(launch, "build_model", None)
        with pytest.raises(CheckpointError, match=rf"{name}: weights alone are not read, .*--train\.init_from"):
            launch.run_training(tiny_config(tmp_path))
    launch.check_data(tiny_config(tmp_path, "--train.init_from", str(finished)))
    shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints")
    launch.check_data(tiny_config(tmp_path))


def test_starting_from_a_different_model(finished: Path, tmp_path: Path) -> None:
    options = "--model.encoder_dim 32 --model.denoiser_dim 32 --model.denoiser_widths [16,24]".split()
    with pytest.raises(CheckpointError, match="of the weights fit this model configuration"):
        launch.initial_model(tiny_config(tmp_path, "--train.init_from", str(finished), *options))


def test_a_resumed_run_asks_for_no_other_weights(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(config: RunConfig) -> Any:
        raise AssertionError("asked for the initial weights of a run that has a checkpoint")

    monkeypatch.setattr(launch, "initial_model", never)
    launch.run_training(tiny_config(finished, "--train.save_every", "2", "--train.init_from", "no/such-model"))


def test_a_checkpoint_of_another_model_is_refused(finished: Path) -> None:
    with pytest.raises(CheckpointError, match="num_instance_bits 5 -> 4") as caught:
        launch.run_training(tiny_config(finished, "--model.num_instance_bits", "4"))
    assert "\n" not in str(caught.value)


# the best model


def test_the_best_model_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores .2 .5 .5 .4: the model of step 2 stays, and the next checkpoint knows why."""
    scores, digests = iter([0.2, 0.5, 0.5, 0.4]), []

    def score(config: RunConfig, model: Pix2SeqD, *_: object) -> dict[str, float]:
        digests.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"pq": next(scores)}

    monkeypatch.setattr(launch, "_score", score)
    options = "--train.steps 4 --train.save_every 1 --validation.every 1 --validation.best pq".split()
    launch.run_training(tiny_config(tmp_path, *options))
    assert equal(dict(Pix2SeqD.from_pretrained(tmp_path / "best").state_dict()), digests[1])
    progress = json.loads((list_checkpoints(tmp_path)[0] / "checkpoint.json").read_text())["progress"]
    assert progress == {
        "samples": 8, "skipped": 0, "skipped_in_a_row": 0, "validated": 4, "best": 0.5, "best_step": 2
    }  # fmt: skip


# errors explained


@pytest.mark.parametrize(
    ("error", "told", "words"),
    [
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory. More"),
            TrainingFault,
            "out of memory: lower train.batch_size",
        ),
        (RuntimeError("shapes differ"), RuntimeError, "^shapes differ$"),
    ],
)
def test_errors_of_the_loop(
    error: RuntimeError, told: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(launch, "fit", fails)
    with pytest.raises(told, match=words):
        launch.run_training(tiny_config(tmp_path))


# what is refused before any work is done


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> Any:
        raise AssertionError("built a model although the configuration cannot work")

    monkeypatch.setattr(launch, "build_model", never)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--data.dataset kitti-step --data.root nowhere --data.download false", "data.root: nowhere does not exist"),
        ("--data.train_split nosplit", "expected split to be one of"),
        ("--data.val_split nosplit --validation.every 5", "expected split to be one of"),
        ("--validation.every 5 --validation.num_frames 0", "validation.num_frames: expected at least 1, got 0"),
        ("--validation.every 5 --validation.num_steps 0", "validation.num_steps: expected at least 1, got 0"),
        ("--sampling.num_steps_next 0", "sampling.num_steps_next: expected at least 1, got 0"),
        ("--sampling.td_steps -1", "sampling.td_steps: expected at least 0, got -1"),
        ("--train.max_skips 0", "max_skips: expected at least 1, got 0"),
        ("--train.steps 0", "steps: expected at least 1, got 0"),
        ("--train.accumulation 0", "accumulation: expected at least 1, got 0"),
        ("--train.precision fp16 --train.cpu true", "train.precision: expected"),
        ("--train.threads -1", "train.threads: expected at least 0, got -1"),
        ("--train.lr -1", "train.lr: expected at least 0, got -1"),
        ("--train.lr_final -1", "train.lr_final: expected at least 0, got -1"),
        ("--train.warmup_steps -1", "train.warmup_steps: expected at least 0, got -1"),
        ("--train.weight_decay -1", "train.weight_decay: expected at least 0, got -1"),
        ("--train.keep_checkpoints 0", "train.keep_checkpoints: expected at least 1, got 0"),
    ],
)
def test_refused_at_once(options: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^[^\n]*{re.escape(words)}[^\n]*$"):
        launch.run_training(tiny_config(tmp_path / "run", *options.split()))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_work")
def test_processes_that_do_not_find_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "Accelerator", lambda **options: SimpleNamespace(num_processes=1))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"^WORLD_SIZE: expected 2 processes, Accelerate started 1; .*torchrun"):
        launch.run_training(tiny_config(tmp_path))


def test_frozen_norms_need_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'^model.norm: expected "group" for an encoder with random weights'):
        launch.run_training(tiny_config(tmp_path, "--model.norm", "frozen_batch"))


# validation during training


class Mixed:
    """Two videos of different size, as KITTI-STEP has them."""

    def __init__(self) -> None:
        self.parts = {
            f"{k:04d}": SyntheticVideos(split="val", num_sequences=1, num_frames=2, height=32, width=64 + 8 * k)
            for k in range(2)
        }

    @property
    def sequence_ids(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def frame_ids(self, sequence_id: str) -> tuple[int, ...]:
        return (0, 1)

    def read_frame(self, sequence_id: str, frame_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.parts[sequence_id].read_frame("0000", frame_id)


def test_videos_of_different_size_are_validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "build_videos", lambda config: Mixed())
    config = tiny_config(tmp_path, *VALIDATE)
    launch._score(config, launch.build_model(config), Accelerator(cpu=True), RunLog(tmp_path), tmp_path, 7)
    assert [record["step"] for record in read_log(tmp_path, "validation")] == [7]
    with Image.open(tmp_path / "samples" / "step-00000007.png") as picture:
        assert picture.width >= 72
        assert picture.height >= 128


def test_only_one_process_says_where_the_model_is(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pix2seq_d"):
        launch.run_training(tiny_config(finished, "--train.save_every", "2"))
    told = [r.getMessage() for r in caplog.records if r.name == "pix2seq_d.launch"]
    assert told == [f"resumed {finished} at step 3", f"model with averaged weights: {finished / 'model'}"]
