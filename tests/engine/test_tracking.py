"""Trackers: which are chosen, what they are given, and that none of them ends a run."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from tiny_runs import accelerate_state, read_records, tiny_config  # noqa: F401

from pix2seq_d import launch
from pix2seq_d.data.formats import read_image
from pix2seq_d.engine import tracking
from pix2seq_d.engine.interrupts import Interrupted
from pix2seq_d.engine.runlog import RunLog
from pix2seq_d.engine.tracking import choose_trackers, markdown, start_trackers, track, track_picture, track_table

pytestmark = pytest.mark.usefixtures("accelerate_state")


class Own(GeneralTracker):
    """Keeps everything that Accelerate gives it."""

    requires_logging_directory = False

    def __init__(self, name: str = "own") -> None:
        self.name = name
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[tuple[int, dict[str, np.ndarray], dict[str, str]]] = []
        self.finished = False
        super().__init__()

    @property
    def tracker(self) -> Own:
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        self.logged.append((step or 0, values))

    def log_images(self, values: dict[str, np.ndarray], step: int | None = None, **options: Any) -> None:
        self.pictures.append((step or 0, values, options))

    def finish(self) -> None:
        self.finished = True


class NumbersOnly(Own):
    """A tracker that takes no pictures, as many do."""

    def __getattribute__(self, name: str) -> Any:
        if name == "log_images":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., Accelerator]:
    def start(*trackers: GeneralTracker) -> Accelerator:
        accelerator = Accelerator(cpu=True, log_with=list(trackers))
        start_trackers(accelerator, tmp_path / "run", {"train": {"lr": 0.1}})
        return accelerator

    return start


# choosing


def test_tensorboard_is_the_default_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [LoggerType.WANDB]
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: installed)
    assert choose_trackers(["auto"]) == []
    installed.append(LoggerType.TENSORBOARD)
    assert choose_trackers(["auto"]) == ["tensorboard"]
    assert choose_trackers(["auto", "wandb", "tensorboard"]) == ["tensorboard", "wandb"]
    assert choose_trackers([]) == []
    assert choose_trackers(["wandb", "tensorboard"]) == ["wandb", "tensorboard"]
    with pytest.raises(ValueError, match=r"^train\.trackers: mlflow is not installed"):
        choose_trackers(["wandb", "mlflow"])


@pytest.mark.parametrize("name", ["tensorbord", "all", ""])
def test_unknown_trackers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^train\.trackers: expected names of auto, .*tensorboard.*, got '{name}'$"):
        choose_trackers([name])


# what they are given


def test_settings_are_flat_and_plain(tmp_path: Path) -> None:
    own = Own()
    config = tiny_config(tmp_path)
    start_trackers(Accelerator(cpu=True, log_with=[own]), tmp_path, asdict(config))
    assert own.settings["train.lr"] == 1e-3
    assert own.settings["model.image_size"] == "[32, 64]"
    assert own.settings["data.pseudo_video"] is False
    assert own.settings["train.trackers"] == "[]"
    assert {type(v) for v in own.settings.values()} <= {bool, int, float, str}


def test_numbers_of_the_log(started: Callable[..., Accelerator], tmp_path: Path) -> None:
    own = Own()
    log = RunLog(tmp_path, also=partial(track, started(own)))
    log.write("train", 3, loss=0.5, grad_norm=float("nan"), samples=["a"])
    log.write("skipped", 4, loss=float("inf"), samples=["b"])
    log.write("validation", 5, pq=0.25, miou=1)
    assert own.logged == [(3, {"train/loss": 0.5}), (5, {"validation/pq": 0.25, "validation/miou": 1})]
    assert [r["step"] for r in read_records(tmp_path)] == [3, 4, 5]


def test_pictures_as_each_tracker_takes_them(started: Callable[..., Accelerator]) -> None:
    trackers = [Own(name) for name in ("own", "tensorboard", "aim")]
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    track_picture(started(*trackers, NumbersOnly()), 7, "samples", picture)
    shapes = [(1, 2, 4, 3), (1, 2, 4, 3), (2, 4, 3)]
    for own, shape, options in zip(trackers, shapes, [{}, {"dataformats": "NHWC"}, {}]):
        ((step, values, given),) = own.pictures
        assert (step, list(values), given) == (7, ["samples"], options)
        assert values["samples"].shape == shape
        assert np.array_equal(values["samples"].reshape(picture.shape), picture)


ROWS = [["Class", "PQ", "TP"], ["road", 0.5, 3], ["car|van", None, 0]]


class Tables(Own):
    """Takes tables as wandb and clearml do."""

    tables: list[Any]

    def log_table(
        self, name: str, columns: list[str] | None = None, data: list[list[Any]] | None = None, *, step: int
    ) -> None:
        self.tables = [*getattr(self, "tables", []), (step, name, columns, data)]


def test_tables_as_each_tracker_takes_them(started: Callable[..., Accelerator]) -> None:
    """As they are where the tracker has tables, as text in TensorBoard, and elsewhere not at all."""
    tables, board, other = Tables("wandb"), Own("tensorboard"), Own("mlflow")
    track_table(started(tables, board, other), 7, "validation/classes", ROWS)
    assert tables.tables == [(7, "validation/classes", ROWS[0], ROWS[1:])]
    assert board.logged == [(7, {"validation/classes": markdown(ROWS)})]
    assert (tables.logged, other.logged) == ([], [])


def test_tables_as_text() -> None:
    assert markdown(ROWS).splitlines() == [
        "| Class | PQ | TP |",
        "| :-- | --: | --: |",
        "| road | 50.00 | 3 |",
        "| car\\|van | - | 0 |",
    ]


def test_what_a_tracker_does_not_take_is_said_once(
    started: Callable[..., Accelerator], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        started(Tables("wandb"), Own("tensorboard"), Own("swanlab"), NumbersOnly("mlflow"))
    messages = [r.getMessage() for r in caplog.records if r.name == tracking.logger.name]
    place = tmp_path / "run" / "samples"
    assert messages == [
        f"tracker swanlab takes no tables: see {place}",
        f"tracker mlflow takes no pictures and no tables: see {place}",
    ]


def test_a_tracker_that_fails_is_dropped(
    started: Callable[..., Accelerator], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fails(values: dict[str, float], step: int | None = None) -> None:
        calls.append(step)
        raise ConnectionError("no route to host")

    broken, own = Own("broken"), Own()
    monkeypatch.setattr(broken, "log", fails)
    accelerator = started(broken, own)
    for step in (1, 2):
        track(accelerator, "train", step, {"loss": 1.0})
    assert calls == [1]
    assert [step for step, _ in own.logged] == [1, 2]
    (message,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert message == "tracker broken failed and gets nothing more, log.jsonl goes on: no route to host"


# in a run


def test_a_run_with_a_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Tables()
    monkeypatch.setattr(launch, "choose_trackers", lambda names: [own])
    options = "--validation.every 3 --validation.num_sequences 1 --validation.num_frames 1".split()
    launch.run_training(tiny_config(tmp_path / "run", *options))
    assert own.settings["train.output_dir"] == str(tmp_path / "run")
    assert [(step, next(iter(v)).split("/")[0]) for step, v in own.logged] == [
        (1, "train"), (2, "train"), (3, "train"), (3, "validation"),
    ]  # fmt: skip
    records = read_records(tmp_path / "run")
    assert [v["train/loss"] for _, v in own.logged[:3]] == [r["loss"] for r in records[:3]]
    assert own.logged[3][1]["validation/miou"] == records[3]["miou"]
    assert [(step, *v) for step, v, _ in own.pictures] == [(3, "samples"), (3, "denoising")]
    shown = {"samples": "step-00000003.png", "denoising": "step-00000003-denoising.png"}
    for _, values, _ in own.pictures:
        ((name, picture),) = values.items()
        assert np.array_equal(picture[0], read_image(tmp_path / "run" / "samples" / shown[name]))
    ((step, name, columns, data),) = own.tables
    assert (step, name, columns[0], len(data)) == (3, "validation/classes", "Class", 19)
    assert own.finished


def test_a_tracker_that_fails_in_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is there, and the run has ended well."""

    def fails() -> None:
        raise ConnectionError("no route to host")

    broken, own = Own("broken"), Own()
    monkeypatch.setattr(broken, "finish", fails)
    monkeypatch.setattr(launch, "choose_trackers", lambda names: [broken, own])
    assert launch.run_training(tiny_config(tmp_path / "run", "--train.steps", "1")) == tmp_path / "run"
    assert own.finished
    assert [r.getMessage().split(",")[0] for r in caplog.records if "broken" in r.getMessage()][-1:] == [
        "tracker broken failed and gets nothing more"
    ]


def test_a_run_that_a_signal_stops_closes_its_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Own()
    monkeypatch.setattr(launch, "choose_trackers", lambda names: [own])
    monkeypatch.setattr(own, "log", lambda values, step=None: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        launch.run_training(tiny_config(tmp_path / "run"))
    assert own.finished


def test_a_tracker_that_cannot_be_opened(started: Callable[..., Accelerator], monkeypatch: pytest.MonkeyPatch) -> None:
    own = Own()

    def fails(values: dict[str, Any]) -> None:
        raise RuntimeError("no account")

    monkeypatch.setattr(own, "store_init_configuration", fails)
    with pytest.raises(ValueError, match=r"^train\.trackers: cannot be opened, leave out what fails: no account$"):
        started(own)


def test_resuming_hides_what_tensorboard_has_of_later_steps(tmp_path: Path) -> None:
    class Fake:
        trackers: tuple[()] = ()
        is_main_process = True

        def __init__(self) -> None:
            self.calls: list[tuple[str, dict[str, Any]]] = []

        def init_trackers(self, project: str, *, config: dict[str, Any], init_kwargs: dict[str, Any]) -> None:
            self.calls.append((project, init_kwargs))

    fake = Fake()
    start_trackers(fake, tmp_path / "mine", {})  # type: ignore[arg-type]
    start_trackers(fake, tmp_path / "mine", {}, start=5)  # type: ignore[arg-type]
    assert fake.calls == [
        ("pix2seq_d", {"wandb": {"name": "mine"}}),
        ("pix2seq_d", {"wandb": {"name": "mine"}, "tensorboard": {"purge_step": 6}}),
    ]


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_a_run_with_tensorboard(tmp_path: Path) -> None:
    options = "--train.trackers [tensorboard] --validation.every 3 --validation.num_sequences 1".split()
    launch.run_training(tiny_config(tmp_path, *options, "--validation.num_frames", "1"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "trackers" / "pix2seq_d")).Reload()
    losses = [r["loss"] for r in read_records(tmp_path) if r["kind"] == "train"]
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx(losses)
    assert [e.step for name in ("samples", "denoising") for e in events.Images(name)] == [3, 3]
    (table,) = events.Tensors("validation/classes/text_summary")
    assert table.tensor_proto.string_val[0].decode().startswith("| Class | PQ | SQ | RQ | TP | FP | FN | IoU |")
    assert json.loads((tmp_path / "config.json").read_text())["train"]["trackers"] == ["tensorboard"]
