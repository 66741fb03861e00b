"""What is asked of a frame, as tensors, and the sampling of several frames in one batch.

B frames, N samples, T past frames, G code groups, K bit planes, S logit planes, H W canvas size, h w mask size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.diffusion.samplers import Callback, Sampler
from pix2seq_d.diffusion.schedule import Schedule
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.code_denoiser import CodeDenoiser
from pix2seq_d.video.known import KnownCodes, KnownMap


@dataclass
class Request:
    """A frame to predict.

    Attributes:
        image: (1, 3, H, W) in [0, 1] on the canvas.
        past: (1, T, G, h, w) codes of the past maps.
        present: (1, T) bool, which of them exist.
        start: (N, K, h, w) bits at the time `t_start`.
        t_start: time at which the steps begin, in (0, 1].
        num_steps: denoising steps.
        generators: N, of the noise of the steps.
        penalty: (1, S, h, w) of codes that are not possible; None = all are.
        box: place of the frame on the canvas.
        known: what is known of the map, at the frame's size.
        codes: the same at mask size.
    """

    image: Tensor
    past: Tensor
    present: Tensor
    start: Tensor
    t_start: float
    num_steps: int
    generators: list[torch.Generator]
    penalty: Tensor | None
    box: Letterbox
    known: KnownMap | None
    codes: KnownCodes | None


def sample_requests(
    model: Pix2SeqD,
    requests: Sequence[Request],
    *,
    sample: Sampler,
    schedule: Schedule,
    td_steps: float,
    stop_unchanged: float | None,
    knots: Sequence[float] | None,
    guidance: float,
    callback: Callback | None,
) -> Tensor:
    """(B N, S, h, w) logits of frames that begin at one time and take equally many steps.

    What the steps and samples of a frame share is computed once. Settings as in VideoPredictor.
    """
    image, past, present = (torch.cat([getattr(r, name) for r in requests]) for name in ("image", "past", "present"))
    num_samples, without_past = len(requests[0].start), None
    if guidance and bool(present.any()):
        features = model.encoder(image)
        cond = model.condition_features(features, past, present)
        without_past = model.condition_features(features, past, torch.zeros_like(present))
    else:
        cond = model.condition(image, past, present)
    denoise = CodeDenoiser(
        model.bind(cond.repeat(num_samples)),
        model.codec,
        target=model.target,
        without_past=None if without_past is None else model.bind(without_past.repeat(num_samples)),
        guidance=guidance,
        penalty=_stacked([r.penalty for r in requests], num_samples),
    )
    sample(
        denoise,
        torch.cat([r.start for r in requests]),
        schedule,
        requests[0].num_steps,
        td_steps=td_steps,
        t_start=requests[0].t_start,
        clip=model.codec.scale,
        stop_unchanged=stop_unchanged,
        knots=knots,
        generator=[g for r in requests for g in r.generators],
        callback=callback,
    )
    assert denoise.logits is not None
    return denoise.logits


def _stacked(penalties: Sequence[Tensor | None], num_samples: int) -> Tensor | None:
    """(B N or 1, S, h, w), or None where nothing is forbidden."""
    some = next((p for p in penalties if p is not None), None)
    if some is None or len(penalties) == 1:
        return some
    return torch.cat([torch.zeros_like(some) if p is None else p for p in penalties]).repeat_interleave(num_samples, 0)
