"""Models of a run: found in its folders, exported, and taken over by another run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from saved_states import State
from tiny_runs import accelerate_state, equal, files_below  # noqa: F401

from pix2seq_d.engine.checkpoint import CheckpointError, copy_weights, export, find_model
from pix2seq_d.models.pix2seq_d import Pix2SeqD

pytestmark = pytest.mark.usefixtures("accelerate_state")
Build = Callable[..., Pix2SeqD]


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


# starting from another model


def test_copy_weights_of_the_same_model(tiny_model: Build, caplog: pytest.LogCaptureFixture) -> None:
    source, target = tiny_model(seed=1), tiny_model(seed=2)
    copy_weights(source, target, name="x")
    assert equal(dict(source.state_dict()), dict(target.state_dict()))
    assert not caplog.records


def test_copy_weights_lists_what_does_not_fit(tiny_model: Build, caplog: pytest.LogCaptureFixture) -> None:
    source, target = tiny_model(num_instance_bits=3), tiny_model(seed=2, num_instance_bits=5)
    own = {k: v.clone() for k, v in target.state_dict().items()}
    copy_weights(source, target, name="some/run")
    found, now = source.state_dict(), target.state_dict()
    differing = {k for k, v in own.items() if found[k].shape != v.shape}
    assert differing
    for name, value in now.items():
        assert torch.equal(value, own[name] if name in differing else found[name]), name
    (message,) = [r.getMessage() for r in caplog.records]
    assert message == (f"some/run: {len(differing)} tensors keep their random start: {', '.join(sorted(differing))}")


def test_copy_weights_refuses_a_different_model(tiny_model: Build) -> None:
    target = tiny_model(encoder_dim=32, denoiser_dim=32, denoiser_widths=(16, 24), stage_widths=(16, 24))
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"some/run: only \d+% of the weights fit this model configuration"):
        copy_weights(tiny_model(), target, name="some/run")
    assert equal(before, dict(target.state_dict()))
