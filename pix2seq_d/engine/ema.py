"""Averaged weights (ema-pytorch): float32, updated every step on every process, exponential or by a power function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from ema_pytorch import EMA, KarrasEMA
from torch import Tensor, nn


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of one that is sharded over processes; they have to ask for it together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class _WholeParameters:
    """What makes an average that every process holds whole, also where the parameters are sharded (FSDP2)."""

    def get_params_iter(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Names and whole parameters; all processes have to ask for those of a sharded model together."""
        for name, parameter in super().get_params_iter(model):  # type: ignore[misc]
            yield name, whole(parameter)


class WholeEMA(_WholeParameters, EMA):
    """An exponential average; `also`, if given, is called after each of its updates."""

    also: Callable[[], None] | None = None

    def update(self) -> None:
        """Takes up the weights of the model as they are now."""
        super().update()
        if self.also is not None:
            self.also()


class PowerEMA(_WholeParameters, KarrasEMA):
    """An average over the whole run whose weights grow as a power of time (EDM2, arXiv 2312.02696, section 3.1).

    The library counts the first weights for two steps; here every step counts once, as in the paper.
    """

    @property
    def beta(self) -> float:
        """Share of the average so far: (1 - 1/t)^(gamma + 1); 0 at the first step."""
        return (1 - 1 / self.step.item()) ** (self.gamma + 1)


def build_ema(model: nn.Module, *, decay: float, also: Callable[[], None] | None = None) -> WholeEMA:
    """An average of `model` whose decay grows as 1 - (step + 1)^(-2/3) up to `decay`.

    Build it on the unwrapped model; `ema.ema_model` is the averaged copy.

    Args:
        model: to average.
        decay: in [0, 1).
        also: called after each update, for averages of other kinds; None = nothing.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"ema_decay: expected a number in [0, 1), got {decay}")
    ema = WholeEMA(
        model, ema_model=_copy(model), beta=decay, update_every=1, update_after_step=0, include_online_model=False
    )
    ema.also = also
    return ema


def build_power_ema(model: nn.Module, *, gamma: float) -> PowerEMA:
    """An average of `model` with weights t^gamma; build it on the unwrapped model."""
    return PowerEMA(model, ema_model=_copy(model), gamma=gamma, update_every=1)


def _copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def ema_distance(ema: EMA) -> float:
    """How far the weights are from their average, as a fraction of the average's norm."""
    apart, size = torch.zeros(()), torch.zeros(())
    for (_, own), (_, average) in zip(ema.get_params_iter(ema.model), ema.get_params_iter(ema.ema_model)):
        apart = apart + (own - average).float().square().sum().cpu()
        size = size + average.float().square().sum().cpu()
    return float((apart / size.clamp(min=1e-12)).sqrt())
