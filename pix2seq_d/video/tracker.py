"""Streaming prediction: one frame in, one panoptic map out, remembering only the maps at the past offsets.

The model's instance codes are few and get reused; `tracks.py` makes them track ids that last.
B videos, N samples, G code groups (class, instance), S logit planes, H W frame size, h w mask size.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.diffusion.process import add_noise
from pix2seq_d.diffusion.samplers import SAMPLERS, Callback
from pix2seq_d.diffusion.schedule import SCHEDULES, check_knots
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.consensus import Consensus, find_consensus, normalised_entropy
from pix2seq_d.video.decode import CodeProbabilities, code_probabilities, enlarge
from pix2seq_d.video.known import KnownCodes, KnownMap, code_penalty
from pix2seq_d.video.panoptic_map import PanopticMap, Uncertainty
from pix2seq_d.video.request import Request, sample_requests
from pix2seq_d.video.separate import separate_objects
from pix2seq_d.video.tracks import TrackIds


class VideoPredictor:
    """Predicts the frames of a video in order; memory depends on the past offsets, never on the length of the video.

    Args:
        model: in eval mode, on the device to use.
        num_steps: denoising steps of a first frame; None = the model's default, as for the following three.
        num_steps_next: denoising steps of frames with past maps.
        td_steps: asymmetric time interval in steps.
        sampler: name of the sampler.
        min_pixels: smallest segment kept, in pixels of the frame; see CodeProbabilities.suppress_small.
        t_start_next: time at which frames with past maps start, in (0, 1]: 1 = from noise, below from the bits of the
            last frame's map, noised to this time.
        stop_unchanged: ends a frame's steps where this share of pixels, in (0, 1], or more keeps its code from one
            estimate to the next; None takes all steps.
        step_grid: knots of the steps' times, see time_grid; None = uniform.
        num_samples: maps drawn of every frame; their consensus is the prediction and what later frames see as past, and
            the prediction says where they differ.
        history_guidance: weight w of guidance by the past maps, see CodeDenoiser; not 0 doubles the evaluations.
        only_classes: train ids of the classes to keep in the predictions, all else becomes void; empty = all.
        without_classes: train ids of classes that are known not to be there: they are never generated.
        seed: of the starting noise; the same seed and frames give the same maps.

    Raises:
        ValueError: a number of steps or samples below 1, a negative td_steps or min_pixels, t_start_next or
            stop_unchanged outside (0, 1], a step grid that does not fall from 1 to 0, an unknown sampler, schedule or
            class, classes that leave none, guidance that is not finite.
    """

    def __init__(
        self,
        model: Pix2SeqD,
        *,
        num_steps: int | None = None,
        num_steps_next: int | None = None,
        td_steps: float | None = None,
        sampler: str | None = None,
        min_pixels: int | None = None,
        t_start_next: float = 1.0,
        stop_unchanged: float | None = None,
        step_grid: Sequence[float] | None = None,
        num_samples: int = 1,
        history_guidance: float = 0.0,
        only_classes: Sequence[int] = (),
        without_classes: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        self.model = model
        self.num_steps = model.num_steps if num_steps is None else num_steps
        self.num_steps_next = model.num_steps_next if num_steps_next is None else num_steps_next
        self.td_steps = model.td_steps if td_steps is None else td_steps
        self.min_pixels = model.min_pixels if min_pixels is None else min_pixels
        self.t_start_next, self.stop_unchanged, self.seed = t_start_next, stop_unchanged, seed
        self.step_grid = None if step_grid is None else check_knots(step_grid)
        self.num_samples, self.history_guidance = num_samples, history_guidance
        self.only_classes, self.without_classes = tuple(only_classes), tuple(without_classes)
        self.sampler = model.sampler if sampler is None else sampler
        self._check_settings()
        self.sample, self.schedule = SAMPLERS[self.sampler], SCHEDULES[model.schedule]()
        self.device = next(model.parameters()).device
        self.reset()

    def _check_settings(self) -> None:
        least = {"num_steps": 1, "num_steps_next": 1, "td_steps": 0, "min_pixels": 0, "seed": 0, "num_samples": 1}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:  # nor NaN
                raise ValueError(f"{name}: expected at least {bound}, got {getattr(self, name)}")
        for name in ("t_start_next", "stop_unchanged"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name}: expected a number in (0, 1], got {value}")
        if not math.isfinite(self.history_guidance):
            raise ValueError(f"history_guidance: expected a finite number, got {self.history_guidance}")
        for name, known in (("sampler", SAMPLERS), ("schedule", SCHEDULES)):
            value = self.sampler if name == "sampler" else self.model.schedule
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        num_classes = self.model.label_spec.num_classes
        for name in ("only_classes", "without_classes"):
            if wrong := [i for i in getattr(self, name) if not 0 <= i < num_classes]:
                raise ValueError(f"{name}: expected train ids in 0..{num_classes - 1}, got {wrong[0]}")
        if len(set(self.without_classes)) == num_classes:
            raise ValueError("without_classes: expected at least one class to be left, got all")

    def reset(self, *, first_id: int = 1) -> None:
        """Forgets the video: the next frame is a first frame.

        Args:
            first_id: ids of objects that are not told begin there, so that those below stay a user's own.

        Raises:
            ValueError: an id that a map on disk cannot hold.
        """
        self.memory: deque[Tensor] = deque(maxlen=max((-o for o in self.model.past_offsets), default=0))
        self.tracks = TrackIds(num_codes=self.model.num_instance_codes, past_frames=self.memory.maxlen or 0)
        self.tracks.reset(first_id=first_id)
        self.frame_index = 0
        self.frame_size: tuple[int, ...] | None = None

    def reserve_ids(self, last_id: int) -> None:
        """Leaves ids up to this one to what is told: objects that no known map names begin above it."""
        self.tracks.reserve(last_id)

    def step(
        self, frame: np.ndarray, *, known: KnownMap | None = None, callback: Callback | None = None
    ) -> PanopticMap:
        """Predicts the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB, the same size throughout a video.
            known: pixels whose class or object is known: they come out as they are, the others are generated to fit;
                with every pixel known nothing is. Objects that are told keep their ids in later frames.
            callback: passed to the sampler: (step, x_t, x0 estimate), each (N, K, h, w).

        Raises:
            ValueError: not (H, W, 3) uint8, another size than the frames before, or a known map that is not one of
                this frame and label spec.
        """
        return predict_together([self], [frame], known=[known], callback=callback)[0]

    def _prepare(self, frame: np.ndarray, known: KnownMap | None) -> Request:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"frame: expected (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
        if self.frame_size is not None and frame.shape != self.frame_size:
            raise ValueError(f"frame: expected {self.frame_size} as the frames before, got {frame.shape}")
        box = Letterbox((frame.shape[0], frame.shape[1]), self.model.image_size)
        codes = None
        if known is not None:
            codes = KnownCodes.of(known, self.model.label_spec, box, self.model.mask_size, self.tracks)
        image = torch.from_numpy(box.image(frame)).to(self.device).permute(2, 0, 1)[None].float() / 255
        past, present = self._past()
        later = bool(present.any())
        t_start = self.t_start_next if later else 1.0
        return Request(
            image,
            past,
            present,
            start=self._start(t_start),
            t_start=t_start,
            num_steps=self.num_steps_next if later else self.num_steps,
            generators=self._generators(1, self.device),
            penalty=code_penalty(
                self.model.codec,
                self.model.mask_size,
                known=codes,
                without_classes=self.without_classes,
                device=self.device,
            ),
            box=box,
            known=known,
            codes=codes,
        )

    def _generators(self, stream: int, device: torch.device | str) -> list[torch.Generator]:
        """One for each sample; the first is that of a single one."""
        keys = [[self.seed, self.frame_index, stream, *[k][:k]] for k in range(self.num_samples)]
        states = [np.random.SeedSequence(key).generate_state(1, np.uint64)[0] for key in keys]
        return [torch.Generator(device).manual_seed(int(state >> np.uint64(1))) for state in states]

    def _start(self, t: float) -> Tensor:
        """(N, K, h, w) at time t: noise, below 1 mixed with the last map, so that what is new can still appear."""
        codec = self.model.codec
        shape = codec.num_bits, *self.model.mask_size
        noise = torch.stack([torch.randn(shape, generator=g) for g in self._generators(0, "cpu")]).to(self.device)
        if t == 1:
            return noise
        gamma = self.schedule(torch.tensor(t, device=self.device))
        return add_noise(codec.encode(self.memory[-1][None]).expand_as(noise), gamma, noise)

    def _past(self) -> tuple[Tensor, Tensor]:
        """Codes (1, T, G, h, w) of the past maps and whether each exists (1, T)."""
        offsets, groups = self.model.past_offsets, len(self.model.codec.group_bits)
        absent = torch.zeros(groups, *self.model.mask_size, dtype=torch.long, device=self.device)
        maps = [self.memory[o] if -o <= len(self.memory) else absent for o in offsets]
        present = torch.tensor([[-o <= len(self.memory) for o in offsets]], dtype=torch.bool, device=self.device)
        return torch.stack(maps)[None] if maps else absent[None, None][:, :0], present

    def _finish(self, request: Request, logits: Tensor) -> PanopticMap:
        """(N, S, h, w) logits -> the map, which goes into the memory and the tracks."""
        model, known = self.model, request.codes
        samples = [code_probabilities(each, model.codec, model.label_spec) for each in logits]
        together = find_consensus(samples, num_codes=model.num_instance_codes) if len(samples) > 1 else None
        probabilities = self._clean(together.probabilities if together else samples[0].winners_only(), request)
        probabilities, ids = self._associate(probabilities if known is None else known.force(probabilities), known)
        codes, _ = probabilities.choose()
        self.memory.append(codes)
        result = self._to_frame(probabilities, ids, request)
        if together is not None:
            result.uncertainty = self._uncertainty(together, codes, ids, request.box)
        elif self.num_samples > 1:  # all is known
            result.uncertainty = Uncertainty.none(request.box.source_size)
        if request.known is not None:
            result = request.known.over(result, model.label_spec)
        self.frame_index, self.frame_size = self.frame_index + 1, (*request.box.source_size, 3)
        return result.only(self.only_classes) if self.only_classes else result

    def _clean(self, probabilities: CodeProbabilities, request: Request) -> CodeProbabilities:
        """At mask size; segments that are small there are gone, so that no later frame takes them over, and so are
        codes that two objects share.
        """
        area, box = math.prod, request.box  # of a size, in pixels
        mask_per_frame = area(box.content_size) / area(box.source_size) * area(self.model.mask_size)
        min_pixels = self.min_pixels * mask_per_frame / area(self.model.image_size)
        told = [torch.from_numpy(self.tracks.expected_codes(self.model.mask_size)).to(self.device)]
        if request.codes is not None:
            told.append(request.codes.stacked(self.device))
        return separate_objects(
            probabilities.suppress_small(min_pixels),
            [*self.memory, *told],
            num_codes=self.model.num_instance_codes,
            min_pixels=min_pixels,
        )

    def _associate(
        self, probabilities: CodeProbabilities, known: KnownCodes | None
    ) -> tuple[CodeProbabilities, np.ndarray]:
        """Every object in the code that it had before, and the track ids of (class code, instance code)."""
        codes, _ = probabilities.choose()
        ids = np.zeros((self.model.label_spec.num_classes + 1, self.model.num_instance_codes + 1), np.int32)
        if len(codes) < 2:
            return probabilities, ids
        class_codes, instance_codes = codes.cpu().numpy()
        if known is not None:
            self.tracks.reserve(known.last_id)
        kept, tracks = self.tracks.update(class_codes, instance_codes, known.ids if known else None)
        for key, track_id in tracks.items():
            ids[key] = track_id
        chosen = torch.from_numpy(ids > 0).to(codes.device)
        return probabilities.recode(torch.from_numpy(kept).to(codes.device)).only(chosen), ids

    def _to_frame(self, probabilities: CodeProbabilities, ids: np.ndarray, request: Request) -> PanopticMap:
        """Enlarged to the frame's size, then decided."""
        large = probabilities.enlarge(request.box).suppress_small(self.min_pixels)
        codes, confidence = (large if request.known is None else request.known.force_classes(large)).choose()
        instance_codes = codes[1] if len(codes) > 1 else torch.zeros_like(codes[0])
        class_map, _ = self.model.label_spec.from_codes(codes[0], instance_codes)
        class_codes, instances = (m.cpu().numpy() for m in (codes[0], instance_codes))
        return PanopticMap(
            class_map.cpu().numpy().astype(np.uint8), ids[class_codes, instances], confidence.cpu().numpy()
        )

    def _uncertainty(self, together: Consensus, codes: Tensor, ids: np.ndarray, box: Letterbox) -> Uncertainty:
        """Of the frame; `codes` (G, h, w) are those of the prediction.

        The entropy is that of the frame's pixels: between two certain pixels of the mask a border is uncertain.
        """
        entropy = normalised_entropy(enlarge(together.classes, box)).float().cpu().numpy()
        disagreement = enlarge(together.disagreement()[None], box)[0].float().cpu().numpy()
        agreement = together.agreement(codes)
        by_segment = {(c - 1, int(ids[c, i])): share for (c, i), share in agreement.items()}
        return Uncertainty(entropy, disagreement, by_segment)


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
    first = predictors[0]
    for i, request in enumerate(requests):
        if request.codes is not None and request.codes.complete:
            assert request.penalty is not None
            logits[i] = request.penalty
        else:  # where the samples of others would decide the end, each alone
            alone = 0 if first.stop_unchanged is None else i
            groups.setdefault((request.num_steps, request.t_start, alone), []).append(i)
    for members in groups.values():
        found = sample_requests(
            first.model,
            [requests[i] for i in members],
            sample=first.sample,
            schedule=first.schedule,
            td_steps=first.td_steps,
            stop_unchanged=first.stop_unchanged,
            knots=first.step_grid,
            guidance=first.history_guidance,
            callback=callback,
        )
        logits |= dict(zip(members, found.chunk(len(members))))
    return [p._finish(request, logits[i]) for i, (p, request) in enumerate(zip(predictors, requests))]
