"""Where the steps of a later frame start and where they end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scripted_model import FRAME, draw, predictor, scripted
from torch import Tensor

PICTURE = ["ss1r", "6r2r"]


def starts(options: dict[str, Any], pictures: Sequence[Sequence[str]], **model: Any) -> list[Tensor]:
    """Where the sampler started on every frame."""
    video, seen = predictor(scripted(*pictures, **model), num_steps=1, num_steps_next=1, **options), []
    for _ in pictures:
        video.step(FRAME, callback=lambda step, x_t, x0: seen.append(x_t))
    return seen


def test_a_warm_start_is_the_last_map_noised() -> None:
    """Cosine at t = 2/3 has gamma = cos^2(60 degrees) = 1/4: half the bits and sqrt(3/4) of a cold start's noise.

    The car's code 2 of the second frame is told back as 1, which the tracker made of it.
    """
    pictures = [["rrrr", row] for row in ("1sss", "2sss", "2sss")]
    cold, warm = (starts({"t_start_next": t}, pictures) for t in (1.0, 2 / 3))
    assert torch.equal(warm[0], cold[0]), "a first frame has no past"
    codec = scripted(pictures[0]).codec
    _, class_map, instances = draw(pictures[0])
    bits = codec.encode(torch.from_numpy(np.stack([class_map + 1, instances]).astype(np.int64))[None])
    for k in (1, 2):
        assert torch.allclose(warm[k], bits / 2 + math.sqrt(0.75) * cold[k], atol=1e-5)


def test_a_warm_start_waits_for_a_past_map() -> None:
    """With the offset -3 frames up to the third are first frames: they start cold."""
    pictures = [PICTURE] * 4
    cold, warm = (starts({"t_start_next": t}, pictures, past_offsets=(-3,)) for t in (1.0, 0.5))
    assert [torch.equal(a, b) for a, b in zip(cold, warm)] == [True, True, True, False]


def test_a_frame_ends_where_its_codes_stop_changing() -> None:
    """The scripted model says the same at every step: two estimates are enough to see it."""
    model = scripted(PICTURE)
    video = predictor(model, num_steps=6, num_steps_next=4, stop_unchanged=1.0)
    for _ in range(2):
        video.step(FRAME)
    assert model.steps == [2, 2], "of 6 and 4"
