"""Training on past maps that the model has predicted itself, as it will have to at inference.

Scheduled sampling (arXiv 1506.03099) over the past maps that condition a frame. B batch, L maps of a clip, T past ones
of the frame to predict, n past maps that are predicted, G code groups, K bit planes, h w mask size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from pix2seq_d.data.batch import Batch
from pix2seq_d.diffusion.noise import draw
from pix2seq_d.diffusion.samplers import SAMPLERS
from pix2seq_d.diffusion.schedule import Schedule
from pix2seq_d.metrics.assignment import match_pairs
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.conditioning import clip_offsets
from pix2seq_d.video.decode import code_probabilities
from pix2seq_d.video.tracks import MIN_IOU, number_segments


def own_past(
    model: Pix2SeqD,
    schedule: Schedule,
    batch: Batch,
    codes: Tensor,
    generators: Sequence[torch.Generator],
    *,
    rate: float,
    num_steps: int,
) -> tuple[Tensor, Tensor]:
    """The past maps that condition the frame to predict; for a share of the samples the model's own predictions.

    A past frame is predicted as the tracker would: conditioned on the true maps before it, by the model's own sampler
    in few steps, with the codes of the objects that it finds (`align_codes`). A past frame that is not present stays
    absent, and one without any map before it keeps its true map: first frames take more steps. The weights are those in
    training, not their average, which lives outside of the module that is wrapped, and makes other mistakes.

    Whether and what a sample is shown is a function of its generator's seed, from which nothing is drawn.

    Args:
        model: in any mode, which it keeps.
        schedule: gamma(t).
        batch: its L maps are those at `clip_offsets(model.past_offsets)` and the last; with the past images.
        codes: (B, L, G, h, w) int64, its codes.
        generators: B CPU generators.
        rate: probability per sample; 0 predicts nothing.
        num_steps: denoising steps.

    Returns:
        (B, T, G, h, w) int64 codes and (B, T) bool, which of them are present.

    Raises:
        ValueError: a batch with other maps, or without past images.
    """
    offsets = clip_offsets(model.past_offsets)
    shown = [offsets.index(o) for o in model.past_offsets]
    before = torch.tensor([[offsets.index(o + p) for p in model.past_offsets] for o in model.past_offsets])  # (T, T)
    images = len(offsets) - shown[0]
    if codes.shape[1] != len(offsets) + 1 or batch.past_frames is None or batch.past_frames.shape[1] != images:
        found = "no" if batch.past_frames is None else batch.past_frames.shape[1]
        raise ValueError(
            f"batch: expected maps at {(*offsets, 0)} and {images} past images, got {codes.shape[1]} maps and {found}"
        )
    past, present = codes[:, shown], batch.present[:, shown]
    if rate == 0:
        return past, present
    own = [_child(g) for g in generators]
    chosen = torch.stack([torch.rand(1, generator=g) for g in own]) < rate  # (B, 1)
    wanted = chosen & (batch.present[:, shown] & batch.present[:, before].any(2)).cpu()  # (B, T)
    # one prediction at least, so that processes which share weights ask for them equally often
    rows, frames = (wanted if wanted.any() else torch.ones(1, 1)).nonzero().unbind(1)
    predicted = _predict(
        model,
        schedule,
        batch.past_frames[rows, torch.tensor(shown)[frames] - shown[0]],
        codes[rows[:, None], before[frames]],
        batch.present[rows[:, None], before[frames]],
        [own[row] for row in rows.tolist()],
        num_steps=num_steps,
    )
    if not wanted.any():
        return past, present
    past = past.clone()
    for row in rows.unique().tolist():
        places = frames[rows == row]
        past[row, places] = _aligned(model, predicted[rows == row], past[row, places], codes[row]).to(past.device)
    return past, present


def _predict(
    model: Pix2SeqD,
    schedule: Schedule,
    frame: Tensor,
    past: Tensor,
    present: Tensor,
    generators: Sequence[torch.Generator],
    *,
    num_steps: int,
) -> Tensor:
    """(n, G, h, w) codes on the CPU, never void, of (n, 3, H, W) uint8 frames with their past maps."""
    with torch.no_grad(), _evaluating(model):
        denoise = model.bind(model.condition(frame.float() / 255, past, present))
        noise = draw(torch.randn, (len(frame), model.codec.num_bits, *past.shape[-2:]), frame, generators)
        sample = SAMPLERS[model.sampler]
        scale = model.codec.scale
        sample(denoise, noise, schedule, num_steps, td_steps=model.td_steps, clip=scale, generator=generators)
        assert denoise.logits is not None
        logits = denoise.logits if model.target == "softmax" else model.codec.bit_logits(denoise.logits)
        codes = [_choose(model, of_frame, frame.shape[-2:]) for of_frame in logits]
    torch.clear_autocast_cache()  # it holds weights that were cast without gradients
    return torch.stack(codes).cpu()


def _choose(model: Pix2SeqD, logits: Tensor, image_size: Sequence[int]) -> Tensor:
    """(G, h, w) codes of (S, h, w) logits; small segments are gone as from the tracker's memory."""
    min_pixels = model.min_pixels * math.prod(logits.shape[1:]) / math.prod(image_size)
    probabilities = code_probabilities(logits, model.codec, model.label_spec).winners_only()
    return probabilities.suppress_small(min_pixels).choose()[0]


def _aligned(model: Pix2SeqD, predicted: Tensor, true: Tensor, clip: Tensor) -> Tensor:
    """(n, G, h, w) predicted past maps of one clip, oldest first, in the codes of its (L, G, h, w) maps."""
    if predicted.shape[1] == 1:
        return predicted
    taken = set(clip[:, 1].unique().tolist())
    false: np.ndarray | None = None
    for own, truth in zip(predicted.numpy(), true.cpu().numpy()):
        own[1] = align_codes(own, truth, taken=taken, num_codes=model.num_instance_codes, false=false)
        false = np.where(np.isin(own[1], list(taken)), 0, own)
    return predicted


def align_codes(
    predicted: np.ndarray, true: np.ndarray, *, taken: set[int], num_codes: int, false: np.ndarray | None = None
) -> np.ndarray:
    """The instance codes of a predicted map in line with those of its clip.

    A predicted object takes the code of the true one of its class that it matches, one to one, by IoU. What matches
    none is a false positive: it keeps the code that it had in the map before, else takes the first one, from the code
    that it was predicted with on, that nothing in the clip has; 0 where there is none left.

    Args:
        predicted: (2, h, w) integer class and instance codes.
        true: (2, h, w), those of the data.
        taken: codes of the objects of the clip.
        num_codes: codes are 1 ... num_codes.
        false: (2, h, w) the false positives of the predicted map before, else 0; None = there is no such map.

    Returns:
        (h, w) int64 instance codes.
    """
    labels, classes, codes = number_segments(*predicted)
    new = np.zeros(len(codes), np.int64)
    for reference in (true,) if false is None else (true, false):
        unmatched = np.where(new[labels] > 0, 0, labels)
        segments, found = match_segments(unmatched, classes, reference)
        new[segments] = found
    held = taken.union(new.tolist(), () if false is None else np.unique(false[1]).tolist())
    free = [c for c in range(1, num_codes + 1) if c not in held]
    for number in (np.flatnonzero(new[1:] == 0) + 1)[: len(free)]:
        first = next((k for k, c in enumerate(free) if c >= codes[number]), 0)
        new[number] = free.pop(first)
    return new[labels]


def match_segments(labels: np.ndarray, classes: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a predicted and a reference segment of one class, such that the sum of their IoU is the largest.

    Args:
        labels: (h, w) numbers 1 ... S of predicted segments, 0 = none.
        classes: (S + 1,) their class codes.
        reference: (2, h, w) class and instance codes.

    Returns:
        (m,) numbers of predicted segments, and (m,) instance codes of the reference; of pairs of MIN_IOU or more.
    """
    others, other_classes, other_codes = number_segments(*reference)
    size = len(classes), len(other_classes)
    shared = np.bincount((labels * size[1] + others).ravel(), minlength=math.prod(size)).reshape(size)
    iou = shared / np.maximum(shared.sum(1)[:, None] + shared.sum(0) - shared, 1)
    iou *= classes[:, None] == other_classes
    rows, columns = match_pairs(iou[1:, 1:], least=MIN_IOU)
    return rows + 1, other_codes[columns + 1]


def _child(generator: torch.Generator) -> torch.Generator:
    """A generator of its own, so that a sample's time and noise are those that it has without own past maps."""
    state = np.random.SeedSequence((generator.initial_seed(), 1)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode of every module, and then the mode that each had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
