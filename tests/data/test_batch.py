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
    assert moved.names == batch.names
    assert batch.frame.device.type == "cpu"


def test_batch_to_makes_what_the_model_takes() -> None:
    """Codes of 64 bits and contiguous frames, from small codes and frames in the memory order of images."""
    small = make_batch(2)
    small.frame = torch.arange(192, dtype=torch.uint8).reshape(2, 4, 8, 3).permute(0, 3, 1, 2)
    small.class_codes, small.instance_codes = (
        small.class_codes.to(torch.uint8) + 200,
        small.instance_codes.int() + 70000,
    )
    moved = small.to("cpu")
    assert (moved.class_codes.dtype, moved.instance_codes.dtype) == (torch.int64, torch.int64)
    assert (moved.class_codes == 200).all()
    assert (moved.instance_codes == 70000).all()
    assert moved.frame.is_contiguous()
    assert torch.equal(moved.frame, small.frame)
    assert (moved.frame.dtype, moved.crowd.dtype, moved.present.dtype) == (torch.uint8, torch.bool, torch.bool)
