"""Synthetic sequences as whole labelled videos (the VideoDataset protocol), for validation and benchmarks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pix2seq_d.data.synthetic import SyntheticSequence
from pix2seq_d.labels import LABEL_SPECS


class SyntheticVideos:
    """`num_sequences` sequences of `num_frames` frames; arguments as SyntheticClips."""

    label_spec = LABEL_SPECS["kitti-step"]

    def __init__(
        self,
        *,
        split: str,
        num_sequences: int,
        num_frames: int,
        height: int = 96,
        width: int = 320,
        seed: int = 0,
        difficulty: str = "default",
    ) -> None:
        if num_sequences < 1 or num_frames < 1:
            raise ValueError(f"expected num_sequences and num_frames >= 1, got {num_sequences} and {num_frames}")
        self.num_sequences, self.num_frames = num_sequences, num_frames

        @lru_cache(maxsize=2)
        def sequence(index: int) -> SyntheticSequence:
            return SyntheticSequence(index, split=split, seed=seed, height=height, width=width, difficulty=difficulty)

        self._sequence = sequence

    @property
    def sequence_ids(self) -> tuple[str, ...]:
        """Four digits each: 0000, 0001, ..."""
        return tuple(f"{i:04d}" for i in range(self.num_sequences))

    def frame_ids(self, sequence_id: str) -> tuple[int, ...]:
        """0 ... num_frames - 1."""
        return tuple(range(self.num_frames))

    def read_frame(self, sequence_id: str, frame_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 image, (H, W) uint8 train ids, (H, W) int32 instance ids."""
        frame = self._sequence(int(sequence_id)).frame(frame_id)
        return frame.image, frame.class_map, frame.instance_map
