"""Averaged weights (ema-pytorch): float32, updated every step on every process, with a warm-up of the decay."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from ema_pytorch import EMA
from torch import Tensor, nn


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of one that is sharded over processes; they have to ask for it together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class WholeEMA(EMA):
    """An average that every process holds whole, also where the parameters of the model are sharded (FSDP2)."""

    def get_params_iter(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Names and whole parameters; all processes have to ask for those of a sharded model together."""
        for name, parameter in super().get_params_iter(model):
            yield name, whole(parameter)


def build_ema(model: nn.Module, *, decay: float) -> WholeEMA:
    """An average of `model` whose decay grows as 1 - (step + 1)^(-2/3) up to `decay`.

    Build it on the unwrapped model; `ema.ema_model` is the averaged copy.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"ema_decay: expected a number in [0, 1), got {decay}")
    average = copy.deepcopy(model).requires_grad_(False).eval()
    return WholeEMA(
        model, ema_model=average, beta=decay, update_every=1, update_after_step=0, include_online_model=False
    )


@torch.no_grad()
def ema_distance(ema: EMA) -> float:
    """How far the weights are from their average, as a fraction of the average's norm."""
    apart, size = torch.zeros(()), torch.zeros(())
    for (_, own), (_, average) in zip(ema.get_params_iter(ema.model), ema.get_params_iter(ema.ema_model)):
        apart = apart + (own - average).float().square().sum().cpu()
        size = size + average.float().square().sum().cpu()
    return float((apart / size.clamp(min=1e-12)).sqrt())
