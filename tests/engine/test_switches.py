"""Activation checkpointing and torch.compile: other costs, the same training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny_runs import accelerate_state, read_records, tiny_config  # noqa: F401
from torch import Tensor, nn

from pix2seq_d import launch
from pix2seq_d.data.batch import Batch
from pix2seq_d.diffusion.loss import DiffusionLoss
from pix2seq_d.diffusion.schedule import CosineSchedule
from pix2seq_d.engine.checkpoint import list_checkpoints
from pix2seq_d.engine.trainer import LoopSettings, TrainingLoss, step_generators
from pix2seq_d.models.layers import RecomputedBlock, set_recompute
from pix2seq_d.models.pix2seq_d import Pix2SeqD

Build = Callable[..., Pix2SeqD]
SETTINGS = LoopSettings(steps=1, batch_size=2)


def batch() -> Batch:
    """Two clips of stripes in 4 classes."""
    classes = (torch.arange(16)[:, None] // 4 + 1).expand(2, 3, 16, 32).contiguous()
    return Batch(
        frame=torch.arange(2 * 3 * 32 * 64).view(2, 3, 32, 64).to(torch.uint8),
        class_codes=classes,
        instance_codes=torch.zeros_like(classes),
        crowd=torch.zeros(2, 16, 32, dtype=torch.bool),
        present=torch.ones(2, 3, dtype=torch.bool),
        names=["s/000000", "s/000001"],
    )


def loss_and_gradients(model: Pix2SeqD) -> tuple[Tensor, list[Tensor]]:
    module = TrainingLoss(model, DiffusionLoss(CosineSchedule(), model.codec, self_cond_rate=0.5)).train()
    loss = module(batch(), step_generators(SETTINGS, 0, 0, 2, 0)).loss
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """The bytes of each storage that autograd keeps for the backward pass."""
    seen: dict[int, int] = {}
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen[storage.data_ptr()] = storage.nbytes()
            sizes.append(storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


@pytest.mark.parametrize("options", [{"self_cond": True, "dropout": 0.3}, {"block": "bottleneck", "self_cond": True}])
def test_activation_checkpointing_changes_no_number(tiny_model: Build, options: dict[str, object]) -> None:
    """The layers' outputs are computed twice from equal inputs, so loss and gradients are equal bit for bit."""
    plain, frugal = tiny_model(**options), tiny_model(**options)
    set_recompute(frugal, True)
    loss, gradients = loss_and_gradients(plain)
    same_loss, same_gradients = loss_and_gradients(frugal)
    assert torch.equal(loss, same_loss)
    assert len(gradients) == len(same_gradients) == len(list(plain.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(gradients, same_gradients))


def test_activation_checkpointing_keeps_less(tiny_model: Build) -> None:
    kept = []
    for active in (False, True):
        model = tiny_model()
        set_recompute(model, active)
        module = TrainingLoss(model, DiffusionLoss(CosineSchedule(), model.codec)).train()
        with kept_bytes() as sizes:
            module(batch(), step_generators(SETTINGS, 0, 0, 2, 0))
        kept.append(sum(sizes))
    assert kept[1] < 0.6 * kept[0]


def test_activation_checkpointing_is_for_training(tiny_model: Build) -> None:
    model = tiny_model()
    set_recompute(model, True)
    blocks = [module for module in model.modules() if isinstance(module, RecomputedBlock)]
    assert len(blocks) > 6
    assert all(block.recompute for block in blocks)
    calls = []
    blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    frame, codes = torch.zeros(1, 3, 32, 64), torch.zeros(1, 2, 2, 16, 32, dtype=torch.long)
    model.eval().condition(frame, codes, torch.ones(1, 2, dtype=torch.bool)).stem.sum().backward()
    assert len(calls) == 1
    model.train().condition(frame, codes, torch.ones(1, 2, dtype=torch.bool)).stem.sum().backward()
    assert len(calls) == 3


@pytest.mark.slow
def test_compiled_parts_are_traced_whole(tiny_model: Build) -> None:
    """Without the code generator, which takes minutes: one graph each for encoder and denoiser."""
    model = tiny_model()
    names = list(model.state_dict())
    loss, gradients = loss_and_gradients(copy.deepcopy(model))
    for part in (model.encoder, model.denoiser):
        part.compile(backend="eager", fullgraph=True)
    same_loss, same_gradients = loss_and_gradients(model)
    assert torch.allclose(loss, same_loss, rtol=1e-6)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(gradients, same_gradients))
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("on", [False, True])
def test_the_settings_reach_the_model(tiny_model: Build, on: bool) -> None:
    model: nn.Module = tiny_model()
    value = str(on).lower()
    options = f"--train.compile {value} --train.activation_checkpointing {value}".split()
    launch._switch_memory_and_speed(model, tiny_config("run", *options).train)
    assert all((part._compiled_call_impl is not None) == on for part in (model.encoder, model.denoiser))
    assert all(block.recompute == on for block in model.modules() if isinstance(block, RecomputedBlock))


@pytest.mark.slow
@pytest.mark.usefixtures("accelerate_state")
def test_a_compiled_run_trains_like_any_other(tmp_path: Path) -> None:
    """Generated kernels add in another order: losses of three steps to 1e-3, and the same files."""
    runs = []
    for value in ("false", "true"):
        run_dir = tmp_path / value
        launch.run_training(tiny_config(run_dir, "--train.compile", value))
        runs.append([record["loss"] for record in read_records(run_dir)])
        assert len(list_checkpoints(run_dir)) == 1
        Pix2SeqD.from_pretrained(run_dir / "model")
    assert runs[1] == pytest.approx(runs[0], rel=1e-3)
