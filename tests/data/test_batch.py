"""The contracts between readers, loaders and models: names, lengths, devices."""

import numpy as np
import torch

from pix2seq_d.data.batch import Batch, Clip


def make_batch(size: int) -> Batch:
    return Batch(
        frame=torch.zeros(size, 3, 4, 8, dtype=torch.uint8),
        class_codes=torch.zeros(size, 2, 2, 4, dtype=torch.int64),
        instance_codes=torch.zeros(size, 2, 2, 4, dtype=torch.int64),
        crowd=torch.zeros(size, 2, 4, dtype=torch.bool),
        present=torch.ones(size, 2, dtype=torch.bool),
        names=[f"a/{i:06d}" for i in range(size)],
    )


def test_clip_name() -> None:
    maps = np.zeros((1, 2, 2), np.uint8)
    clip = Clip(np.zeros((1, 2, 2, 3), np.uint8), maps, maps.astype(np.int32), np.ones(1, bool), "a/b", 42)
    assert clip.name == "a/b/000042"


def test_batch_length() -> None:
    assert len(make_batch(3)) == 3


def test_batch_to_moves_every_tensor_and_keeps_the_rest() -> None:
    batch = make_batch(2)
    moved = batch.to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 5
    assert {t.device.type for t in tensors} == {"meta"}
    assert [t.dtype for t in tensors] == [t.dtype for t in vars(batch).values() if isinstance(t, torch.Tensor)]
    assert moved.names == batch.names
    assert batch.frame.device.type == "cpu"
