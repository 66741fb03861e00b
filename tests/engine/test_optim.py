"""Learning rates by hand, and which parameters decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pix2seq_d.engine.optim import build_optimizer, lr_at, set_lr
from pix2seq_d.models.pix2seq_d import Pix2SeqD

COSINE: dict[str, Any] = {"lr": 2.0, "warmup_steps": 4, "steps": 14, "decay": "cosine", "final": 0.1}
CONSTANT = {**COSINE, "decay": "constant"}


@pytest.mark.parametrize("settings", [COSINE, CONSTANT])
def test_warm_up_is_linear_and_never_zero(settings: dict[str, Any]) -> None:
    assert [lr_at(s, **settings) for s in range(4)] == [0.5, 1.0, 1.5, 2.0]


def test_constant_stays() -> None:
    assert {lr_at(s, **CONSTANT) for s in (4, 5, 13, 14, 10_000)} == {2.0}


def test_cosine_end_points_and_middle() -> None:
    assert lr_at(4, **COSINE) == 2.0
    assert lr_at(9, **COSINE) == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert lr_at(14, **COSINE) == pytest.approx(0.2)
    assert lr_at(20, **COSINE) == pytest.approx(0.2)
    falling = [lr_at(s, **COSINE) for s in range(4, 15)]
    assert falling == sorted(falling, reverse=True)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert lr_at(0, **{**COSINE, "warmup_steps": 0}) == 2.0


def test_warm_up_longer_than_the_run() -> None:
    assert lr_at(2, **{**COSINE, "warmup_steps": 100, "steps": 3}) == pytest.approx(0.06)
    assert lr_at(3, **{**COSINE, "warmup_steps": 3, "steps": 3}) == 2.0


def test_lr_is_a_function_of_the_step_alone() -> None:
    once = [lr_at(s, **COSINE) for s in range(20)]
    assert [lr_at(s, **COSINE) for s in reversed(range(20))] == once[::-1]


def test_biases_and_norms_do_not_decay(tiny_model: Callable[..., Pix2SeqD]) -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, lr=0.1, betas=(0.8, 0.9), weight_decay=0.05)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    norms = {id(p) for m in model.modules() if isinstance(m, nn.GroupNorm | nn.LayerNorm) for p in m.parameters()}
    assert norms
    for name, parameter in model.named_parameters():
        plain = name.endswith("bias") or id(parameter) in norms
        assert decay[id(parameter)] == (0.0 if plain else 0.05), name
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.9)}


def test_frozen_parameters_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    optimizer = build_optimizer(module, lr=0.1, betas=(0.9, 0.99), weight_decay=0.1)
    assert [tuple(p.shape) for group in optimizer.param_groups for p in group["params"]] == [(1, 3), (1,)]


def test_decay_without_gradient_by_hand() -> None:
    module = nn.Linear(2, 2)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    optimizer = build_optimizer(module, lr=0.5, betas=(0.9, 0.99), weight_decay=0.1)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    set_lr(optimizer, 0.2)
    optimizer.step()
    assert torch.allclose(module.weight, torch.tensor(1 - 0.2 * 0.1))
    assert torch.equal(module.bias, torch.ones(2))


def test_set_lr_reaches_every_group() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), lr=0.5, betas=(0.9, 0.99), weight_decay=0.1)
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
