"""Models of a run: found in its folders, and exported."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from saved_states import State
from tiny_runs import accelerate_state, files_below  # noqa: F401

from pix2seq_d.engine.checkpoint import CheckpointError, export, export_best, find_model

pytestmark = pytest.mark.usefixtures("accelerate_state")


# finding and exporting models


def test_find_model(saved: tuple[State, Path], tmp_path: Path) -> None:
    run_dir = saved[1]
    newest = run_dir / "checkpoints" / "step-00000002"
    assert find_model(str(newest / "model")) == str(newest / "model")
    assert find_model(str(newest)) == str(newest / "model")
    assert find_model(str(run_dir)) == str(newest / "model")
    assert find_model("someone/some-model") == "someone/some-model"


def test_the_model_of_a_run_that_went_on_is_the_newest(saved: tuple[State, Path]) -> None:
    state, run_dir = saved
    exported = export(run_dir)
    assert exported == run_dir / "model"
    state.save(run_dir, 3)  # the run was started again with more steps, and stopped
    assert find_model(str(run_dir)) == str(run_dir / "checkpoints" / "step-00000003" / "model")
    shutil.rmtree(run_dir / "checkpoints")
    assert find_model(str(run_dir)) == str(exported)


@pytest.mark.parametrize("kind", ["empty", "other", "config only", "file"])
def test_find_model_refuses_what_holds_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("x")
    else:
        path.mkdir()
    if kind == "other":
        (path / "pytorch_model.bin").write_bytes(b"x")
    if kind == "config only":
        (path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"expected a saved model .* a checkpoint or a run folder, found none"):
        find_model(str(path))


@pytest.mark.parametrize("name", ["model-0.pt", "model-latest.pt", "model-12.safetensors"])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_weights_put_there_by_hand_are_explained(tmp_path: Path, name: str, given: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    words = rf"^{re.escape(str(tmp_path / name))}: weights alone are not read, .*--train\.init_from"
    with pytest.raises(CheckpointError, match=words):
        find_model(str(tmp_path / name if given == "file" else tmp_path))


def test_weights_put_beside_a_model_do_not_matter(saved: tuple[State, Path]) -> None:
    (saved[1] / "model-0.pt").write_bytes(b"x")
    assert find_model(str(saved[1])).endswith("step-00000002/model")


def test_export_replaces_the_model_before(saved: tuple[State, Path]) -> None:
    state, run_dir = saved
    first = (export(run_dir) / "model.safetensors").read_bytes()
    (run_dir / "model" / "old").write_text("")
    (run_dir / "model.partial").mkdir()
    state.step(0.5)
    state.save(run_dir, 3)
    assert (export(run_dir) / "model.safetensors").read_bytes() != first
    assert sorted(p.name for p in run_dir.iterdir()) == ["checkpoints", "model"]
    assert "old" not in files_below(run_dir / "model")


def test_export_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a run with a checkpoint, found none"):
        export(tmp_path)


@pytest.mark.parametrize("write", [export, lambda run_dir: export_best(run_dir, _Full())])
def test_nothing_stays_of_a_model_that_does_not_fit_on_the_disk(
    saved: tuple[State, Path], write: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run_dir = saved
    before = files_below(export(run_dir)), export_best(run_dir, saved[0].ema.ema_model)
    monkeypatch.setattr(shutil, "copytree", lambda source, target, **_: _Full().save_pretrained(target))
    with pytest.raises(OSError, match="No space left on device"):
        write(run_dir)
    assert sorted(p.name for p in run_dir.iterdir()) == ["best", "checkpoints", "model"]
    assert files_below(run_dir / "model") == files_below(before[1]) == before[0]


class _Full:
    """A model on a disk that has room for half of it."""

    def save_pretrained(self, folder: Any) -> None:
        (folder / "model.safetensors").write_bytes(bytes(100))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
