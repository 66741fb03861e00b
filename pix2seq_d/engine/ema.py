"""Averaged weights (ema-pytorch): float32, updated every step on every process, with a warm-up of the decay."""

from __future__ import annotations

import copy

from ema_pytorch import EMA
from torch import nn


def build_ema(model: nn.Module, *, decay: float) -> EMA:
    """An average of `model` whose decay grows as 1 - (step + 1)^(-2/3) up to `decay`.

    Build it on the unwrapped model; `ema.ema_model` is the averaged copy.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"ema_decay: expected a number in [0, 1), got {decay}")
    average = copy.deepcopy(model).requires_grad_(False).eval()
    return EMA(model, ema_model=average, beta=decay, update_every=1, update_after_step=0, include_online_model=False)
