"""What the data side hands over: a Clip of one sequence (NumPy, as read) and a Batch of them (torch, at model size).

L = T + 1 maps: T past ones, oldest first, then the one to predict; F <= L images. B batch, H W image, h w mask size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Clip:
    """The frame to predict with its map and the maps before it.

    Attributes:
        frames: (F, H, W, 3) uint8 RGB, images of the last F of the L frames; F = 1 unless a reader was asked for all.
        class_map: (L, H, W) uint8 train ids, oldest first, the last one belongs to the frame to predict; 255 is void.
        instance_map: (L, H, W) int32, 0 = no instance (stuff, void, or a crowd region of a thing class).
        present: (L,) bool, False where a past frame does not exist or a frame has no map; its maps are void then. A
            past frame without a map may have an image.
        sequence_id: name of the video, for example "0002".
        frame_id: number of the frame to predict, as in its file name.
    """

    frames: np.ndarray
    class_map: np.ndarray
    instance_map: np.ndarray
    present: np.ndarray
    sequence_id: str
    frame_id: int

    @property
    def name(self) -> str:
        """`sequence/frame`, for messages."""
        return f"{self.sequence_id}/{self.frame_id:06d}"


@dataclass
class Batch:
    """B clips at the model's image size and mask size.

    Loaders keep it small on its way between processes: class codes are uint8, instance codes int32, and the colours of
    a pixel lie side by side in memory. `to` makes of these what the model takes.

    Attributes:
        frame: (B, 3, H, W) uint8 RGB, the frame to predict.
        class_codes: (B, L, h, w) integers, 0 = void, train id c -> c + 1; the last of the L maps is to be predicted.
        instance_codes: (B, L, h, w) integers, 0 = no instance; constant per object inside a clip, permuted per clip.
        crowd: (B, h, w) bool, thing pixels of the last map without an instance: their instance code is unknown.
        present: (B, L) bool, as in Clip.
        names: `sequence/frame` of every sample.
        past_frames: (B, F - 1, 3, H, W) uint8 RGB, images of the last F - 1 frames before it; None where the loader
            was not asked for them.
    """

    frame: Tensor
    class_codes: Tensor
    instance_codes: Tensor
    crowd: Tensor
    present: Tensor
    names: list[str]
    past_frames: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`, every tensor contiguous and codes as int64."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=True).contiguous())
        return replace(moved, class_codes=moved.class_codes.long(), instance_codes=moved.instance_codes.long())

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; the DataLoader calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "names"}
        changed: dict[str, Any] = {name: function(tensor) for name, tensor in tensors.items() if tensor is not None}
        return replace(self, **changed)

    def __len__(self) -> int:
        return len(self.frame)
