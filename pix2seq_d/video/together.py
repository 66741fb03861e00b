"""The next frames of several videos in one batch: what is asked of each, the sampling, and back to each predictor.

B videos, N samples, G code groups, K bit planes, S logit planes, H W canvas size, h w mask size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.diffusion.samplers import Callback
from pix2seq_d.video.code_denoiser import CodeDenoiser
from pix2seq_d.video.known import KnownCodes, KnownMap, code_penalty
from pix2seq_d.video.panoptic_map import PanopticMap

if TYPE_CHECKING:
    from pix2seq_d.video.tracker import VideoPredictor


@dataclass
class Request:
    """A frame on its way through `predict_together`: predictor, place on the canvas, and what is known of it, at the
    frame's and mask size.
    """

    predictor: VideoPredictor
    frame: np.ndarray
    box: Letterbox
    known: KnownMap | None
    codes: KnownCodes | None

    @property
    def image(self) -> Tensor:
        """(1, 3, H, W) in [0, 1] on the canvas."""
        image = torch.from_numpy(self.box.image(self.frame)).to(self.predictor.device)
        return image.permute(2, 0, 1)[None].float() / 255

    @property
    def penalty(self) -> Tensor | None:
        """(1, S, h, w) of the codes that are not possible."""
        predictor = self.predictor
        return code_penalty(
            predictor.model.codec,
            predictor.model.mask_size,
            known=self.codes,
            without_classes=predictor.without_classes,
            device=predictor.device,
        )

    @property
    def way(self) -> tuple[int, float, int]:
        """Number of steps and their start; and a number of its own where the samples of others would decide the end."""
        predictor = self.predictor
        alone = 0 if predictor.stop_unchanged is None else id(predictor)
        later = any(-offset <= len(predictor.memory) for offset in predictor.model.past_offsets)
        return (predictor.num_steps_next, predictor.t_start_next, alone) if later else (predictor.num_steps, 1.0, alone)


@torch.inference_mode()
def predict_together(
    predictors: Sequence[VideoPredictor],
    frames: Sequence[np.ndarray],
    *,
    known: Sequence[KnownMap | None] | None = None,
    callback: Callback | None = None,
) -> list[PanopticMap]:
    """The next frame of each of several videos, in one batch.

    Each video's maps are those that it would have alone, but for the rounding of batched sums: its noise is its own.

    Args:
        predictors: one per video, of one model and with equal settings; seeds may differ.
        frames: one per video, (H, W, 3) uint8 RGB; sizes may differ between videos.
        known: one per video, as in VideoPredictor.step; None = nothing is known.
        callback: passed to the sampler: (step, x_t, x0 estimate), each (B N, K, h, w) of the videos that are sampled
            together, the N samples of a video side by side.

    Raises:
        ValueError: as VideoPredictor.step, then no video moves on; or not one frame per predictor, predictors that
            occur twice or differ in model or settings.
    """
    known = [None] * len(frames) if known is None else known
    if not len(predictors) == len(frames) == len(known) or len(set(map(id, predictors))) < len(predictors):
        raise ValueError(
            f"frames, known: expected one for each of {len(predictors)} different predictors, "
            f"got {len(frames)}, {len(known)}"
        )
    for predictor in predictors[1:]:
        if differing := [name for name in _SHARED if getattr(predictor, name) != getattr(predictors[0], name)]:
            raise ValueError(f"predictors: expected the same {differing[0]}")
    requests = [p._prepare(frame, what) for p, frame, what in zip(predictors, frames, known)]
    groups: dict[tuple[int, float, int], list[int]] = {}
    logits: dict[int, Tensor] = {}
    for i, request in enumerate(requests):
        if request.codes is not None and request.codes.complete:
            assert request.penalty is not None
            logits[i] = request.penalty
        else:
            groups.setdefault(request.way, []).append(i)
    for (num_steps, t_start, _), members in groups.items():
        found = _sample([requests[i] for i in members], num_steps, t_start, callback)
        logits |= dict(zip(members, found.chunk(len(members))))
    return [p._finish(request, logits[i]) for i, (p, request) in enumerate(zip(predictors, requests))]


_SHARED = (
    "model",
    "num_steps",
    "num_steps_next",
    "td_steps",
    "sampler",
    "t_start_next",
    "stop_unchanged",
    "step_grid",
    "num_samples",
    "history_guidance",
)


def _sample(requests: Sequence[Request], num_steps: int, t_start: float, callback: Callback | None) -> Tensor:
    """(B N, S, h, w) logits."""
    first = requests[0].predictor
    model, n = first.model, first.num_samples
    image = torch.cat([r.image for r in requests])
    past, present = (torch.cat(parts) for parts in zip(*(r.predictor._past() for r in requests)))
    without_past = None
    if first.history_guidance and bool(present.any()):
        features = model.encoder(image)
        cond = model.condition_features(features, past, present)
        without_past = model.condition_features(features, past, torch.zeros_like(present))
    else:
        cond = model.condition(image, past, present)
    denoise = CodeDenoiser(
        model.bind(cond.repeat(n)),
        model.codec,
        target=model.target,
        without_past=None if without_past is None else model.bind(without_past.repeat(n)),
        guidance=first.history_guidance,
        penalty=_stacked([r.penalty for r in requests], n),
    )
    first.sample(
        denoise,
        torch.cat([r.predictor._start(t_start) for r in requests]),
        first.schedule,
        num_steps,
        td_steps=first.td_steps,
        t_start=t_start,
        clip=model.codec.scale,
        stop_unchanged=first.stop_unchanged,
        knots=first.step_grid,
        generator=[g for r in requests for g in r.predictor._generators(1, first.device)],
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
