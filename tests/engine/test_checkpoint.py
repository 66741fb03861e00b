"""Checkpoints: whole or absent, refused by name when foreign, and a resumed run equal to the straight one."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import resource
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate.checkpointing
import pytest
import torch
from saved_states import CONFIG, State, steps
from tiny_runs import accelerate_state, equal, files_below  # noqa: F401

from pix2seq_d.engine import checkpoint
from pix2seq_d.engine.checkpoint import CheckpointError, Progress, list_checkpoints
from pix2seq_d.models.pix2seq_d import Pix2SeqD

pytestmark = pytest.mark.usefixtures("accelerate_state")
Build = Callable[..., Pix2SeqD]


# saving and loading


def test_everything_comes_back(saved: tuple[State, Path], new_state: Callable[[], State]) -> None:
    state, run_dir = saved
    other = new_state()
    assert other.resume(run_dir.parent) == 0, "no run there"
    assert not equal(state.values(), other.values())
    assert other.resume(run_dir) == 2
    assert equal(state.values(), other.values())
    for s in (state, other):
        s.step(0.3)
    assert equal(state.values(), other.values())


def test_files_of_a_checkpoint(saved: tuple[State, Path]) -> None:
    state, run_dir = saved
    assert steps(run_dir) == [2, 1]
    folder = run_dir / "checkpoints" / "step-00000002"
    manifest = json.loads((folder / "checkpoint.json").read_text())
    assert manifest["step"] == 2
    assert manifest["config"] == CONFIG
    assert set(manifest["files"]) == files_below(folder) - {"checkpoint.json"}
    averaged = Pix2SeqD.from_pretrained(folder / "model")
    assert equal(dict(averaged.state_dict()), dict(state.ema.ema_model.state_dict()))


def test_the_newest_are_kept(new_state: Callable[[], State], tmp_path: Path) -> None:
    state = new_state()
    for step in (1, 2, 3, 4):
        state.save(tmp_path, step, keep=2)
    assert steps(tmp_path) == [4, 3]
    state.save(tmp_path, 5, keep=0)
    assert steps(tmp_path) == [5]


def test_a_run_that_starts_over_replaces_the_old_one(saved: tuple[State, Path], new_state: Callable[[], State]) -> None:
    old, run_dir = saved
    old.save(run_dir, 50)
    other = new_state()
    other.step(0.7)
    other.save(run_dir, 1, keep=2)
    assert steps(run_dir) == [1]
    assert other.resume(run_dir) == 1


# broken checkpoints


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "model/config.json", "custom_checkpoint_0.pkl"])
@pytest.mark.parametrize("damage", [cut, flip_a_bit, Path.unlink])
def test_a_broken_newest_one_falls_back(
    saved: tuple[State, Path], caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    state, run_dir = saved
    damage(run_dir / "checkpoints" / "step-00000002" / name)
    with caplog.at_level(logging.WARNING):
        assert state.resume(run_dir) == 1
    assert [r.levelname for r in caplog.records if "falling back to the one before" in r.message] == ["WARNING"]
    assert f"step-00000002/{name}: expected" in caplog.text


WRONG = '{"step": 2, "files": {}, "config": {"model": {}}, "progress": 3}'


@pytest.mark.parametrize("manifest", ["", "{", "[]", "{}", '{"step": 2, "files": {}}', '{"files": 3}', "\ud800", WRONG])
def test_a_broken_manifest_falls_back(saved: tuple[State, Path], manifest: str) -> None:
    state, run_dir = saved
    path = run_dir / "checkpoints" / "step-00000002" / "checkpoint.json"
    path.write_bytes(manifest.encode("utf-8", "surrogatepass"))
    assert state.resume(run_dir) == 1


def test_none_is_complete(saved: tuple[State, Path]) -> None:
    state, run_dir = saved
    for folder in list_checkpoints(run_dir):
        (folder / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints is complete"):
        state.resume(run_dir)


def test_a_left_over_partial_folder_is_ignored_and_replaced(saved: tuple[State, Path]) -> None:
    state, run_dir = saved
    partial = run_dir / "checkpoints" / "step-00000003.partial"
    shutil.copytree(run_dir / "checkpoints" / "step-00000002", partial)
    (partial / "rubbish").write_text("from a run that was killed")
    (run_dir / "checkpoints" / "step-00000001.partial").mkdir()
    assert state.resume(run_dir) == 2
    folder = state.save(run_dir, 3)
    assert not list((run_dir / "checkpoints").glob("*.partial"))
    assert "rubbish" not in files_below(folder)
    assert state.resume(run_dir) == 3


def test_another_configuration_is_refused_with_its_differences(saved: tuple[State, Path]) -> None:
    state, run_dir = saved
    before = state.values()
    other = {"model": {**CONFIG["model"], "num_instance_bits": 4, "target": "mse"}, "data": {"label_spec": "camvid"}}
    with pytest.raises(CheckpointError) as caught:
        state.resume(run_dir, config=other)
    message = str(caught.value)
    for difference in ("label_spec kitti-step -> camvid", "num_instance_bits 3 -> 4", "target None -> mse"):
        assert difference in message
    assert "widths" not in message
    assert "\n" not in message
    assert equal(state.values(), before)


def test_tuples_and_lists_are_the_same_configuration(saved: tuple[State, Path]) -> None:
    state, run_dir = saved
    assert state.resume(run_dir, config={**CONFIG, "model": {**CONFIG["model"], "widths": (8, 16)}}) == 2


# counts of the run


def test_counts_come_back(new_state: Callable[[], State], tmp_path: Path) -> None:
    state, known = (
        new_state(),
        Progress(samples=24, skipped=3, skipped_in_a_row=1, validated=1, best=1 / 3, best_step=1),
    )
    state.save(tmp_path, 2, progress=known)
    assert state.resume(tmp_path, progress=(found := Progress())) == 2
    assert found == known
    later = replace(known, validated=2, best=0.5, best_step=2)
    checkpoint.note_progress(tmp_path, 2, later)
    checkpoint.note_progress(tmp_path, 7, Progress(skipped=99))  # of a step without a checkpoint
    assert state.resume(tmp_path, progress=found) == 2
    assert found == later
    assert steps(tmp_path) == [2]


def test_a_checkpoint_of_the_first_release_counts_no_samples(saved: tuple[State, Path]) -> None:
    """Its manifest has step, configuration and sizes."""
    state, run_dir = saved
    path = run_dir / "checkpoints" / "step-00000002" / "checkpoint.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({k: manifest[k] for k in ("step", "config", "files")}))
    assert state.resume(run_dir, progress=(found := Progress())) == 2
    assert found == Progress(samples=None)


# the disk


def test_a_file_that_pytorch_could_not_finish_is_explained(
    saved: tuple[State, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch.save says on a full disk names neither the disk nor the file."""
    state, run_dir = saved

    def full(*_: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 271296 vs 271188")

    monkeypatch.setattr(state.accelerator, "save_state", full)
    with pytest.raises(CheckpointError, match=r"step-00000003: could not .*: a file was cut off, as on a full disk \("):
        state.save(run_dir, 3)
    assert steps(run_dir) == [2, 1]


def test_names_and_files_are_on_the_disk_before_the_checkpoint_has_its_name(
    saved: tuple[State, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not leave a folder of that name without its files."""
    state, run_dir = saved
    partial, synced = run_dir / "checkpoints" / "step-00000003.partial", set()
    monkeypatch.setattr(checkpoint, "sync", synced.add)
    folder = state.save(run_dir, 3)
    wanted = {partial / name for name in files_below(folder) - {"checkpoint.json"}}
    assert synced >= wanted | {partial, partial / "model", partial / "checkpoint.json.partial", folder.parent}


# foreign files


class Trap:
    """Loading its pickle makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Also in the manifest, as an attacker would."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "checkpoint.json").read_text())
    manifest["files"][name], manifest["crc32"][name] = len(content), zlib.crc32(content)
    (folder / "checkpoint.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["optimizer.bin", "custom_checkpoint_0.pkl", "random_states_0.pkl"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_not_run(saved: tuple[State, Path], tmp_path: Path, name: str, zipped: bool) -> None:
    state, run_dir = saved
    trap = tmp_path / "sprung"
    if zipped:
        torch.save(Trap(trap), tmp_path / "evil")
    else:
        (tmp_path / "evil").write_bytes(pickle.dumps(Trap(trap), protocol=2))
    replace_file(run_dir / "checkpoints" / "step-00000002", name, (tmp_path / "evil").read_bytes())
    with pytest.raises(CheckpointError, match=f"step-00000002/{name}: expected saved tensors and numbers"):
        state.resume(run_dir)
    assert not trap.exists()
    torch.load(tmp_path / "evil", weights_only=False) if zipped else pickle.loads((tmp_path / "evil").read_bytes())
    assert trap.exists(), "the trap works when it is stepped on"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("optimizer.bin", b"no pickle at all"),
        ("optimizer.bin", None),
        ("model.safetensors", b"no safetensors at all"),
        ("custom_checkpoint_0.pkl", None),
    ],
)
def test_other_contents_are_refused_in_one_line(
    saved: tuple[State, Path], tmp_path: Path, name: str, content: bytes | None
) -> None:
    state, run_dir = saved
    if content is None:
        torch.save({"something": torch.zeros(3)}, tmp_path / "other")
        content = (tmp_path / "other").read_bytes()
    replace_file(run_dir / "checkpoints" / "step-00000002", name, content)
    with pytest.raises(CheckpointError, match="step-00000002") as caught:
        state.resume(run_dir)
    assert "\n" not in str(caught.value)


# a disk that is full


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_that_nothing_is_lost(state: State, run_dir: Path) -> None:
    before = {name: (run_dir / name).read_bytes() for name in files_below(run_dir)}
    with pytest.raises(CheckpointError, match="step-00000003: could not be written, earlier checkpoints are kept") as e:
        state.save(run_dir, 3, keep=1)
    assert "\n" not in str(e.value)
    assert {name: (run_dir / name).read_bytes() for name in files_below(run_dir)} == before
    assert sorted(p.name for p in (run_dir / "checkpoints").iterdir()) == ["step-00000001", "step-00000002"]


def test_disk_full_while_the_state_is_saved(saved: tuple[State, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerate.checkpointing, "save", no_space)
    check_that_nothing_is_lost(*saved)


def test_disk_full_while_the_model_is_saved(saved: tuple[State, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pix2SeqD, "_save_pretrained", no_space)
    check_that_nothing_is_lost(*saved)


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [100_000, 300_000])  # less than the weights; less than the optimizer's state
def test_a_write_that_the_system_refuses(saved: tuple[State, Path], limit: int) -> None:
    with file_size_limit(limit):
        check_that_nothing_is_lost(*saved)


def test_saving_a_model_that_the_system_refuses(tiny_model: Build, tmp_path: Path) -> None:
    with file_size_limit(100_000), pytest.raises(OSError, match=r"model\.safetensors: cannot write the file"):
        tiny_model().save_pretrained(tmp_path)
    assert not [name for name in files_below(tmp_path) if "safetensors" in name]


def test_a_file_in_place_of_the_run_folder(new_state: Callable[[], State], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(CheckpointError, match="could not be written"):
        new_state().save(tmp_path / "run", 1)
    assert (tmp_path / "run").read_text() == "a file"
