"""Averages of any width from one run (EDM2, arXiv 2312.02696, section 3 and appendix C): two are kept and written to
`RUN/post_hoc/step-00001000.safetensors` now and then, others are combinations of these snapshots by least squares.

t updates of an average, gamma its exponent, N stored averages (all widths of all snapshots), R wanted ones.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pix2seq_d.engine.checkpoint import MANIFEST, CheckpointError, attempt, list_checkpoints, raise_together, sync
from pix2seq_d.engine.ema import PowerEMA, build_power_ema

MAX_WIDTH = 0.28  # 1 / sqrt(12) = 0.289 is that of all weights alike
MAX_ERROR = 0.1  # of a profile, see `combine`

_FOLDER = "post_hoc"
_HEAD = "snapshot"  # key of the metadata


# profiles


def gamma_of_width(sigma_rel: float) -> float:
    """The exponent of the profile p(s) ~ s^gamma on [0, t] with standard deviation sigma_rel * t.

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), of whose solutions the largest is taken (algorithm 2).
    """
    k = sigma_rel**-2.0
    return float(np.roots([1, 7, 16 - k, 12 - k]).real.max())


def inner_products(t_a: np.ndarray, gamma_a: np.ndarray, t_b: np.ndarray, gamma_b: np.ndarray) -> np.ndarray:
    """Integrals of products of two profiles, over all time (algorithm 3); arguments broadcast."""
    exponent = np.where(t_a < t_b, gamma_b, -gamma_a)
    product = (gamma_a + 1) * (gamma_b + 1) * (t_a / t_b) ** exponent
    return product / ((gamma_a + gamma_b + 1) * np.maximum(t_a, t_b))


def combine(
    t: np.ndarray, gamma: np.ndarray, t_wanted: float, gamma_wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How to mix stored averages for others: least squares over their profiles (algorithm 3).

    The weights are scaled to a sum of 1, so that what no training changes (buffers, frozen layers) stays what it is.

    Args:
        t: (N,) updates of the stored averages, from 1.
        gamma: (N,) their exponents.
        t_wanted: updates of the wanted averages.
        gamma_wanted: (R,) their exponents.

    Returns:
        Weights (R, N), and per wanted average (R,) the distance of its profile from the mixed one, as a fraction of its
        norm. For weights of steps that are independent it is the root mean square of what the mixture is off by, as a
        fraction of that of the wanted average.
    """
    wanted = np.full_like(gamma_wanted, t_wanted)
    gram = inner_products(t[:, None], gamma[:, None], t[None], gamma[None])
    target = inner_products(t[:, None], gamma[:, None], wanted[None], gamma_wanted[None])
    size = np.sqrt(np.diag(gram))[:, None]  # of unit size the profiles are better conditioned, and some may be equal
    weights = (np.linalg.lstsq(gram / (size * size.T), target / size, rcond=None)[0] / size).T
    weights /= weights.sum(1, keepdims=True)
    norm = inner_products(wanted, gamma_wanted, wanted, gamma_wanted)
    apart = np.einsum("ri,ij,rj->r", weights, gram, weights) - 2 * np.einsum("ri,ir->r", weights, target) + norm
    return weights, np.sqrt(np.maximum(apart, 0) / norm)


def check_widths(widths: Sequence[float]) -> tuple[float, ...]:
    """The widths of a run's averages, as they are.

    Raises:
        ValueError: fewer than two different ones, or one outside of (0, MAX_WIDTH].
    """
    if len(widths) < 2 or len(set(widths)) < len(widths):
        raise ValueError(f"train.post_hoc_ema: expected at least two different widths, got {list(widths)}")
    for width in widths:
        check_width("train.post_hoc_ema", width)
    return tuple(widths)


def check_width(name: str, width: float) -> None:
    """Raises ValueError naming the argument for a relative width outside of (0, MAX_WIDTH]."""
    if not 0 < width <= MAX_WIDTH:
        raise ValueError(f"{name}: expected a relative width in (0, {MAX_WIDTH}], got {width}")


# in a run


class PowerAverages(nn.Module):
    """The averages that snapshots are made of; part of every checkpoint.

    Args:
        model: to average, unwrapped.
        widths: relative ones, at least two.

    Raises:
        ValueError: as `check_widths`.
    """

    def __init__(self, model: nn.Module, widths: Sequence[float]) -> None:
        super().__init__()
        self.widths = check_widths(widths)
        self.averages = nn.ModuleList(build_power_ema(model, gamma=gamma_of_width(width)) for width in widths)

    @property
    def updates(self) -> int:
        """Steps averaged so far; those that were skipped do not count."""
        return int(self._list()[0].step)

    def update(self) -> None:
        """Takes up the weights of the model as they are now; call it on every process."""
        for average in self._list():
            average.update()

    def tensors(self) -> dict[str, Tensor]:
        """`number of the width/name` -> tensor as a snapshot holds it."""
        return {
            f"{number}/{name}": _as_stored(tensor)
            for number, average in enumerate(self._list())
            for name, tensor in average.ema_model.state_dict().items()
        }

    def _list(self) -> list[PowerEMA]:
        return cast("list[PowerEMA]", list(self.averages))


def write_snapshot(run_dir: Path, step: int, averages: PowerAverages, accelerator: Accelerator) -> None:
    """Writes the averages after `step` optimizer steps; call it on every process, before the checkpoint of that step.

    A run that is cut off between the two then writes the same snapshot again, in place of the first.

    Raises:
        CheckpointError: it could not be written (disk full, no permission), on every process; nothing is left of it.
    """
    path = _path(run_dir, step)
    partial = path.with_name(path.name + ".partial")
    faults = attempt(_write, path, partial, step, averages) if accelerator.is_main_process else []
    raise_together(faults, partial, accelerator)


def remove_later_snapshots(run_dir: Path, step: int) -> None:
    """Removes those of steps after `step`, which the run will write again, and what is left of writes cut off."""
    folder = run_dir / _FOLDER
    for path in [*_paths(run_dir), *folder.glob("step-*.partial")]:
        if path.suffix == ".partial" or _step(path) > step:
            path.unlink()


def check_same_widths(run_dir: Path, widths: Sequence[float]) -> None:
    """Raises CheckpointError if the newest checkpoint keeps averages of other widths: they cannot begin in mid-run."""
    for folder in list_checkpoints(run_dir)[:1]:
        try:
            saved = json.loads((folder / MANIFEST).read_text())["config"]["train"].get("post_hoc_ema", [])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return  # `resume` says what is wrong with the checkpoint
        if list(saved) != list(widths):
            raise CheckpointError(
                f"{folder}: checkpoint of a run with train.post_hoc_ema {list(saved)}, got {list(widths)}; "
                "choose another train.output_dir, or set train.resume false to start over"
            )


def _as_stored(tensor: Tensor) -> Tensor:
    """float16, in half the bytes: as exact as models saved for sharing; what is too large for it stays as it is."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return (half if bool(torch.isfinite(half).all()) else tensor).cpu().contiguous()


def _write(path: Path, partial: Path, step: int, averages: PowerAverages) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"step": step, "updates": averages.updates, "widths": averages.widths}
    try:
        save_file(averages.tensors(), partial, metadata={_HEAD: json.dumps(about)})  # several keys have no fixed order
        partial.chmod(path.parent.stat().st_mode & 0o666)  # safetensors makes it private, whatever the umask
        sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def _path(run_dir: Path, step: int) -> Path:
    return run_dir / _FOLDER / f"step-{step:08d}.safetensors"


def _paths(run_dir: Path) -> list[Path]:
    found = (run_dir / _FOLDER).glob("step-*.safetensors")
    return sorted(path for path in found if re.fullmatch(r"step-\d{8}", path.stem))


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


# afterwards


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot says of itself.

    Attributes:
        path: its file.
        step: optimizer steps done.
        updates: of them those that were not skipped: the t of its profiles.
        widths: of its averages.
    """

    path: Path
    step: int
    updates: int
    widths: tuple[float, ...]

    @classmethod
    def read(cls, path: Path) -> Snapshot:
        """Reads the head of the file.

        Raises:
            CheckpointError: it is no such file, or cut off.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()[_HEAD])
            return cls(path, int(about["step"]), int(about["updates"]), tuple(map(float, about["widths"])))
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            raise CheckpointError(f"{path}: expected a snapshot of averages, found none ({error})") from None

    def tensors(self) -> Iterator[tuple[int, str, Tensor]]:
        """Number of the width, name and tensor, one at a time."""
        with safe_open(self.path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not iterable by itself
                number, _, name = key.partition("/")
                yield int(number), name, file.get_tensor(key)


@dataclass(frozen=True)
class Synthesis:
    """An average that was put together.

    Attributes:
        state: its tensors by name, those of numbers float32.
        step: of the run.
        snapshots: how many it was made of.
        error: distance of its profile from the wanted one, as a fraction of that one's norm.
    """

    state: Mapping[str, Tensor]
    step: int
    snapshots: int
    error: float


def synthesise(run_dir: Path, *, sigma_rel: float, step: int | None = None) -> Synthesis:
    """The average of relative width `sigma_rel` over the steps up to `step`, from the snapshots of a run.

    Args:
        run_dir: run folder.
        sigma_rel: standard deviation of the profile as a fraction of the steps, in (0, MAX_WIDTH].
        step: of one of the snapshots; None = of the last.

    Raises:
        CheckpointError: there is no snapshot, none of that step, or one that cannot be read.
        ValueError: a width that is none, or whose profile the snapshots miss by more than MAX_ERROR.
    """
    check_width("--sigma_rel", sigma_rel)
    snapshots = _snapshots_until(run_dir, step)
    t = np.array([s.updates for s in snapshots for _ in s.widths], float)
    gamma = np.array([gamma_of_width(width) for s in snapshots for width in s.widths])
    (weights,), (error,) = combine(t, gamma, t[-1], np.array([gamma_of_width(sigma_rel)]))
    if error > MAX_ERROR:
        raise ValueError(
            f"--sigma_rel: expected a width that {_counted(len(snapshots))} up to step {snapshots[-1].step} can be "
            f"mixed to within {MAX_ERROR:.0%}, got {sigma_rel} ({error:.0%} off); "
            f"the nearest is {_nearest(t, gamma, snapshots, sigma_rel):g}"
        )
    return Synthesis(_mix(snapshots, weights), snapshots[-1].step, len(snapshots), float(error))


def _snapshots_until(run_dir: Path, step: int | None) -> list[Snapshot]:
    paths = _paths(run_dir)
    if not paths:
        raise CheckpointError(f"{run_dir}: expected a run with snapshots (train.post_hoc_ema), found none in {_FOLDER}")
    steps = [_step(path) for path in paths]
    if step is not None and step not in steps:
        few = steps if len(steps) < 8 else [*steps[:3], "...", *steps[-3:]]
        raise CheckpointError(f"{run_dir}: expected a step with a snapshot, {', '.join(map(str, few))}, got {step}")
    return [Snapshot.read(path) for path, number in zip(paths, steps) if step is None or number <= step]


def _nearest(t: np.ndarray, gamma: np.ndarray, snapshots: Sequence[Snapshot], sigma_rel: float) -> float:
    """The width nearest to `sigma_rel` that can be mixed well; those of the last snapshot always can."""
    widths = np.array([*snapshots[-1].widths, *np.arange(5, 1000 * MAX_WIDTH) / 1000])
    _, errors = combine(t, gamma, t[-1], np.array([gamma_of_width(width) for width in widths]))
    good = widths[errors <= MAX_ERROR]
    return float(good[np.abs(np.log(good / sigma_rel)).argmin()])


def _mix(snapshots: Sequence[Snapshot], weights: np.ndarray) -> dict[str, Tensor]:
    """The weighted sum in float64; what is no floating-point number is that of the last snapshot."""
    total: dict[str, Tensor] = {}
    first = 0
    for snapshot in snapshots:
        for number, name, tensor in snapshot.tensors():
            if tensor.is_floating_point():
                part = tensor.double() * weights[first + number]
                total[name] = total[name].add_(part) if name in total else part
            else:
                total[name] = tensor
        first += len(snapshot.widths)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in total.items()}


def _counted(count: int) -> str:
    return "the 1 snapshot" if count == 1 else f"the {count} snapshots"
