"""Memory of a training step, counted and not measured: what autograd keeps, and weights with their states.

Runs without a GPU and without computing anything: tensors are fake, every storage that the backward pass needs is added
up once. A real step takes more: temporary buffers, the loss's share, the CUDA context, fragmentation.

    python benchmarks/memory.py --preset kitti-step
"""

from __future__ import annotations

import argparse
import dataclasses

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pix2seq_d.build import build_model
from pix2seq_d.config import RunConfig
from pix2seq_d.models.layers import set_recompute
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.presets import PRESETS

STATES = {"weights": 1, "gradients": 1, "AdamW": 2, "average": 1}  # float32 copies of the parameters


def kept_gib(config: RunConfig, *, precision: str, recompute: bool) -> tuple[float, float]:
    """GiB that the backward pass of one sample needs, and GiB of the states."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage._cdata, storage.nbytes())
        alive.append(storage)  # or its address is used again
        return tensor

    alive: list[torch.UntypedStorage] = []
    model = build_model(config).train()
    set_recompute(model, recompute)
    parameters = sum(p.numel() for p in model.parameters())
    with FakeTensorMode() as mode:
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        fakes = {f"model.{name}": mode.from_tensor(tensor) for name, tensor in named.items()}
        own = {tensor.untyped_storage()._cdata for tensor in fakes.values()}
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        ):
            torch.func.functional_call(_Step(model), fakes, ())
    activations = sum(size for address, size in kept.items() if address not in own)
    return activations / 2**30, 4 * parameters * sum(STATES.values()) / 2**30


class _Step(nn.Module):
    """The forward pass and the loss of one sample."""

    def __init__(self, model: Pix2SeqD) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> Tensor:
        model, (h, w) = self.model, self.model.mask_size
        features = model.encoder(torch.rand(1, 3, *model.image_size))
        past = torch.zeros(1, len(model.past_offsets) * model.codec.num_bits, h, w, dtype=features.map.dtype)
        cond = model.denoiser.precompute(torch.cat([features.map, past], 1), features.tokens)
        logits = model.denoiser(torch.randn(1, model.codec.num_bits, h, w), torch.tensor([0.5]), cond).float()
        target = torch.zeros(1, h, w, dtype=torch.long)
        losses = [nn.functional.cross_entropy(part, target) for part in model.codec.split_logits(logits)]
        return torch.stack(losses).sum()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="kitti-step")
    parser.add_argument("--gib", type=float, default=24.0, help="memory of the GPU (default: 24)")
    parser.add_argument("--spare", type=float, default=3.0, help="of it for all that is not counted (default: 3)")
    arguments = parser.parse_args()
    preset = PRESETS[arguments.preset]
    config = dataclasses.replace(preset, data=dataclasses.replace(preset.data, download=False))
    print(f"{arguments.preset}, {config.model.image_size[0]}x{config.model.image_size[1]}, counted per sample:")
    print("| precision | activation checkpointing | activations, GiB | states, GiB | largest batch |")
    print("| --- | --- | --- | --- | --- |")
    for precision in ("no", "bf16"):
        for recompute in (False, True):
            sample, states = kept_gib(config, precision=precision, recompute=recompute)
            largest = int((arguments.gib - arguments.spare - states) / sample)
            answer = "yes" if recompute else "no"
            print(f"| {precision} | {answer} | {sample:.2f} | {states:.2f} | {largest} |")


if __name__ == "__main__":
    main()
