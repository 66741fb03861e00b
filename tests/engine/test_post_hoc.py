"""Averages of any width from snapshots of two: profiles by hand, mixtures against the exact average, files."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from tiny_runs import accelerate_state, equal, files_below, read_records, tiny_config  # noqa: F401
from torch import nn

from pix2seq_d import launch
from pix2seq_d.engine import checkpoint, post_hoc
from pix2seq_d.engine.checkpoint import CheckpointError, list_checkpoints
from pix2seq_d.engine.post_hoc import (
    PowerAverages,
    Snapshot,
    check_widths,
    combine,
    gamma_of_width,
    inner_products,
    remove_later_snapshots,
    synthesise,
    write_snapshot,
)

WIDTHS = (0.05, 0.1)
ALONE: Any = SimpleNamespace(is_main_process=True, num_processes=1)


def width_of(gamma: float) -> float:
    """Standard deviation of p(s) ~ s^gamma on [0, 1]: E[s] = (g+1)/(g+2), E[s^2] = (g+1)/(g+3)."""
    return float(np.sqrt((gamma + 1) / (gamma + 3) - ((gamma + 1) / (gamma + 2)) ** 2))


# profiles


@pytest.mark.parametrize("gamma", [0.5, 1.0, 6.94, 16.97, 300.0])
def test_widths_and_exponents(gamma: float) -> None:
    assert gamma_of_width(width_of(gamma)) == pytest.approx(gamma)


def test_widths_of_the_paper() -> None:
    """Its footnotes: 0.05 and 0.10 are gamma 16.97 and 6.94."""
    assert [round(gamma_of_width(width), 2) for width in WIDTHS] == [16.97, 6.94]


def test_inner_products_by_hand() -> None:
    """Alike up to 1 and up to 2: 1 * 1/2 over [0, 1]; s/2 on [0, 2] with itself: 8/12; with the first: 1/4."""
    for (t_a, gamma_a), (t_b, gamma_b), product in [
        ((1, 0), (2, 0), 1 / 2),
        ((2, 1), (2, 1), 2 / 3),
        ((2, 1), (1, 0), 1 / 4),
        ((1, 0), (2, 1), 1 / 4),
    ]:
        arguments = (np.array(float(value)) for value in (t_a, gamma_a, t_b, gamma_b))
        assert inner_products(*arguments) == pytest.approx(product)


def test_a_mixture_by_hand() -> None:
    """s/2 on [0, 2] from even averages over [0, 1] and [0, 2]: the nearest steps are 1/4 and 3/4 high, which is 3/2 of
    the second less 1/2 of the first; off by (s - 1/2)/2 on both, so by sqrt(2/48) of sqrt(2/3): a quarter.
    """
    weights, errors = combine(np.array([1.0, 2.0]), np.zeros(2), 2.0, np.array([1.0]))
    assert weights[0] == pytest.approx([-0.5, 1.5])
    assert errors[0] == pytest.approx(0.25)


def test_what_is_stored_is_taken_as_it_is() -> None:
    t, gamma = np.repeat([10.0, 20.0, 30.0], 2), np.tile([gamma_of_width(width) for width in WIDTHS], 3)
    weights, errors = combine(t, gamma, 30.0, gamma[:2])
    assert weights == pytest.approx(np.eye(6)[4:], abs=1e-9)
    assert errors == pytest.approx([0, 0], abs=1e-6)


def test_the_same_snapshot_twice_changes_nothing() -> None:
    """Between two of them every step may have been skipped."""
    gamma = np.array([7.0, 17.0])
    once, one_error = combine(np.array([10.0, 10.0]), gamma, 10.0, np.array([10.0]))
    twice, two_error = combine(np.full(4, 10.0), np.tile(gamma, 2), 10.0, np.array([10.0]))
    assert twice.reshape(2, 2).sum(0) == pytest.approx(once[0])
    assert two_error == pytest.approx(one_error)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((0.1,), "at least two different widths"),
        ((0.1, 0.1), "at least two different widths"),
        ((0.1, 0.0), r"a relative width in \(0, 0.28\], got 0.0"),
        ((0.1, 0.29), r"a relative width in \(0, 0.28\], got 0.29"),
        ((0.1, float("nan")), "a relative width"),
    ],
)
def test_refuses_what_is_no_pair_of_widths(widths: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^train\.post_hoc_ema: expected {message}"):
        check_widths(widths)


# against the exact average


class Weights(nn.Module):
    """10,000 numbers that change, and what does not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10_000))
        self.register_buffer("mean", torch.tensor([1.5, 70_000.0]))  # the second is too large for float16
        self.register_buffer("count", torch.tensor(7))


STEPS, EVERY = 320, 10


def history(kind: str) -> np.ndarray:
    """(steps, weights): independent from step to step, or a walk."""
    noise = np.random.default_rng(0).standard_normal((STEPS, 10_000))
    return noise if kind == "noise" else noise.cumsum(0) / STEPS**0.5


def exact_average(values: np.ndarray, width: float) -> np.ndarray:
    """Step k of n counts (k/n)^(g+1) - ((k-1)/n)^(g+1)."""
    n = len(values)
    shares = np.diff((np.arange(n + 1) / n) ** (gamma_of_width(width) + 1))
    return shares @ values


@pytest.fixture(scope="module", params=["noise", "walk"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The run folder of weights that changed at random, with 32 snapshots, and the weights."""
    run_dir, model, values = tmp_path_factory.mktemp("stored"), Weights(), history(request.param)
    averages = PowerAverages(model, WIDTHS)
    for step, weights in enumerate(values, 1):
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(weights))
        averages.update()
        if step % EVERY == 0:
            write_snapshot(run_dir, step, averages, ALONE)
    return run_dir, values


@pytest.mark.parametrize("step", [STEPS, 160])
@pytest.mark.parametrize("width", [0.03, 0.05, 0.08, 0.15, 0.2])
def test_a_mixture_is_the_exact_average(stored: tuple[Path, np.ndarray], width: float, step: int) -> None:
    """Tolerance: for independent weights of variance 1 the root mean square that `combine` promises, error * norm of
    the profile, and float16's rounding, 2^-12 of the size of an average on the whole; 3 % for chance. A walk is smooth,
    so less is lost of it: it has to come within 2 % of what the average is from the last weights.
    """
    run_dir, values = stored
    made = synthesise(run_dir, sigma_rel=width, step=step)
    assert (made.step, made.snapshots) == (step, step // EVERY)
    exact = exact_average(values[:step], width)
    off = float(np.sqrt(np.mean((made.state["weight"].numpy() - exact) ** 2)))
    if values[:2].std() > 0.5:
        gamma = gamma_of_width(width)
        norm = (gamma + 1) / np.sqrt((2 * gamma + 1) * step)
        assert off < 1.03 * np.hypot(made.error * norm, 2**-12 * norm)
        assert np.sqrt(np.mean(exact**2)) == pytest.approx(norm, rel=0.05), "the tolerance is no blindfold"
    else:
        assert off < 0.02 * float(np.sqrt(np.mean((exact - values[step - 1]) ** 2)))


def test_what_does_not_change_stays(stored: tuple[Path, np.ndarray]) -> None:
    state = synthesise(stored[0], sigma_rel=0.08).state
    assert state["mean"].tolist() == pytest.approx([1.5, 70_000.0], rel=1e-6)
    assert (state["count"].item(), state["count"].dtype) == (7, torch.int64)
    assert state["weight"].dtype == torch.float32


def test_a_stored_width_comes_back(stored: tuple[Path, np.ndarray]) -> None:
    made = synthesise(stored[0], sigma_rel=0.1, step=30)
    with safe_open(stored[0] / "post_hoc" / "step-00000030.safetensors", framework="pt") as file:
        expected = file.get_tensor("1/weight")
    assert expected.dtype == torch.float16
    assert torch.allclose(made.state["weight"], expected.float(), atol=1e-6)


def test_refuses_what_cannot_be_made_well(stored: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    run_dir = stored[0]
    with pytest.raises(ValueError, match=r"^--sigma_rel: expected a relative width in \(0, 0.28\], got 0.4$"):
        synthesise(run_dir, sigma_rel=0.4)
    message = r"^--sigma_rel: expected a width that the 32 snapshots up to step 320 .* 10%, got 0.01 \(17% off\); "
    with pytest.raises(ValueError, match=message + r"the nearest is 0\.0\d+$") as refused:
        synthesise(run_dir, sigma_rel=0.01)
    assert synthesise(run_dir, sigma_rel=float(str(refused.value).split()[-1])).error <= post_hoc.MAX_ERROR
    with pytest.raises(ValueError, match=r"that the 1 snapshot up to step 10 .*; the nearest is 0.0"):
        synthesise(run_dir, sigma_rel=0.02, step=10)
    with pytest.raises(
        CheckpointError, match=r"expected a step with a snapshot, 10, 20, 30, \.\.\., 300, 310, 320, got 15$"
    ):
        synthesise(run_dir, sigma_rel=0.1, step=15)
    with pytest.raises(CheckpointError, match=r", got 330$"):
        synthesise(run_dir, sigma_rel=0.1, step=330)
    with pytest.raises(CheckpointError, match=r"expected a run with snapshots \(train\.post_hoc_ema\), found none"):
        synthesise(tmp_path, sigma_rel=0.1)


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_snapshot_is_named(tmp_path: Path, damage: str) -> None:
    averages = PowerAverages(Weights(), WIDTHS)
    averages.update()
    write_snapshot(tmp_path, 1, averages, ALONE)
    (path,) = (tmp_path / "post_hoc").iterdir()
    if damage == "other":
        post_hoc.save_file({"x": torch.zeros(1)}, path)
    else:
        os.truncate(path, 1000 if damage == "cut" else 0)
    with pytest.raises(CheckpointError, match=rf"^{path}: expected a snapshot of averages, found none"):
        synthesise(tmp_path, sigma_rel=0.1)


# files


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: full")]
)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    averages = PowerAverages(Weights(), WIDTHS)
    averages.update()
    write_snapshot(tmp_path, 1, averages, ALONE)

    def full(tensors: Any, path: Path, **_: Any) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(post_hoc, "save_file", full)
    message = r"step-00000002\.safetensors: could not be written, earlier checkpoints are kept: .*(space|full)"
    with pytest.raises(CheckpointError, match=message):
        write_snapshot(tmp_path, 2, averages, ALONE)
    assert files_below(tmp_path) == {"post_hoc/step-00000001.safetensors"}


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    averages = PowerAverages(Weights(), WIDTHS)
    averages.update()
    write_snapshot(tmp_path, 1, averages, SimpleNamespace(is_main_process=False, num_processes=1))  # type: ignore[arg-type]
    assert not files_below(tmp_path)


def test_a_snapshot_says_what_it_is(tmp_path: Path) -> None:
    """Four steps, of which the second was skipped."""
    averages = PowerAverages(Weights(), WIDTHS)
    for _ in range(3):
        averages.update()
    write_snapshot(tmp_path, 4, averages, ALONE)
    (path,) = (tmp_path / "post_hoc").iterdir()
    assert Snapshot.read(path) == Snapshot(path, step=4, updates=3, widths=WIDTHS)
    assert path.stat().st_mode & 0o777 == path.parent.stat().st_mode & 0o666


def test_snapshots_of_later_steps_go(tmp_path: Path) -> None:
    folder = tmp_path / "post_hoc"
    folder.mkdir()
    for name in ("step-00000010.safetensors", "step-00000020.safetensors", "step-00000030.safetensors.partial", "mine"):
        (folder / name).touch()
    remove_later_snapshots(tmp_path, 10)
    assert files_below(folder) == {"step-00000010.safetensors", "mine"}
    remove_later_snapshots(tmp_path / "nothing", 10)


# in a run

OPTIONS = "--train.steps 5 --train.save_every 2 --train.post_hoc_every 4 --model.dropout 0.1".split()
SWITCH = ["--train.post_hoc_ema", "[0.05,0.1]"]


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 5 steps, with checkpoints of 2, 4, 5 and snapshots of 4, 5."""
    run_dir = tmp_path_factory.mktemp("straight")
    launch.run_training(tiny_config(run_dir, *OPTIONS, *SWITCH))
    return run_dir


@pytest.mark.usefixtures("accelerate_state")
def test_the_switch_changes_nothing_else(straight: Path, tmp_path: Path) -> None:
    launch.run_training(tiny_config(tmp_path, *OPTIONS))
    assert read_records(straight) == read_records(tmp_path)
    snapshots = {"post_hoc/step-00000004.safetensors", "post_hoc/step-00000005.safetensors"}
    assert files_below(straight) - files_below(tmp_path) == {
        *snapshots, *(f"checkpoints/step-0000000{step}/custom_checkpoint_1.pkl" for step in (4, 5)),
    }  # fmt: skip
    assert (straight / "model/model.safetensors").read_bytes() == (tmp_path / "model/model.safetensors").read_bytes()


@pytest.mark.usefixtures("accelerate_state")
@pytest.mark.parametrize("accident", ["before the snapshot", "between snapshot and checkpoint"])
def test_a_resumed_run_has_the_same_snapshots(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accident: str
) -> None:
    """Cut off around step 4; also a leftover of a longer run that this one starts over."""
    (tmp_path / "post_hoc").mkdir()
    (tmp_path / "post_hoc" / "step-00000100.safetensors").touch()

    owner, name = (launch, "write_snapshot") if accident == "before the snapshot" else (checkpoint, "save")
    original = getattr(owner, name)

    def killed(run_dir: Path, step: int, *arguments: Any, **named: Any) -> None:
        if step == 4:
            raise Killed
        original(run_dir, step, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            launch.run_training(tiny_config(tmp_path, *OPTIONS, *SWITCH))
    snapshots = files_below(tmp_path / "post_hoc")
    assert snapshots == (set() if accident == "before the snapshot" else {"step-00000004.safetensors"})
    launch.run_training(tiny_config(tmp_path, *OPTIONS, *SWITCH))
    assert files_below(tmp_path) == files_below(straight)
    for name in files_below(straight):
        a, b = straight / name, tmp_path / name
        if name.endswith(".safetensors"):
            assert a.read_bytes() == b.read_bytes(), name
        elif "custom_checkpoint" in name:
            assert equal(*(torch.load(path, weights_only=True) for path in (a, b))), name


@pytest.mark.usefixtures("accelerate_state")
def test_skipped_steps_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is skipped: there is nothing to average, so there is no snapshot."""
    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *_: torch.tensor(float("nan")))
    launch.run_training(tiny_config(tmp_path, *OPTIONS, *SWITCH, "--train.steps", "1"))
    assert len(list_checkpoints(tmp_path)) == 1
    assert not files_below(tmp_path / "post_hoc")


def test_refuses_snapshots_without_a_checkpoint(tmp_path: Path) -> None:
    for every in (0, 3):
        options = [*OPTIONS, *SWITCH, "--train.post_hoc_every", str(every)]
        message = rf"^train\.post_hoc_every: expected a multiple of train\.save_every 2, got {every}$"
        with pytest.raises(ValueError, match=message):
            launch.check_numbers(tiny_config(tmp_path, *options))
        launch.check_numbers(tiny_config(tmp_path, *options, "--train.post_hoc_ema", "[]"))


@pytest.mark.parametrize("widths", ["[]", "[0.05,0.2]"])
def test_refuses_other_widths_in_mid_run(straight: Path, widths: str) -> None:
    options = [*OPTIONS, "--train.post_hoc_ema", widths]
    with pytest.raises(CheckpointError, match=r"of a run with train\.post_hoc_ema \[0\.05, 0\.1\], got \["):
        launch.check_data(tiny_config(straight, *options))
    launch.check_data(tiny_config(straight, *options, "--train.resume", "false"))


def test_a_manifest_that_cannot_be_read_is_left_to_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    for text in ("", "{}", json.dumps({"config": {"train": None}})):
        (folder / "checkpoint.json").write_text(text)
        with caplog.at_level(logging.WARNING):
            post_hoc.check_same_widths(tmp_path, WIDTHS)
    (folder / "checkpoint.json").write_text(json.dumps({"config": {"train": {}}}))
    with pytest.raises(CheckpointError, match=r"train\.post_hoc_ema \[\], got \[0\.05, 0\.1\]"):
        post_hoc.check_same_widths(tmp_path, WIDTHS)
