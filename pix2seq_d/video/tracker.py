"""Streaming prediction: one frame in, one panoptic map out, remembering only the maps at the past offsets.

The model's instance codes are few and get reused; `tracks.py` makes them track ids that last.
G code groups (class, instance), S logit planes, H W frame size, h w mask size.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.diffusion.process import add_noise
from pix2seq_d.diffusion.samplers import SAMPLERS, Callback
from pix2seq_d.diffusion.schedule import SCHEDULES
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.decode import CodeProbabilities, code_probabilities
from pix2seq_d.video.separate import separate_objects
from pix2seq_d.video.tracks import TrackIds


@dataclass
class PanopticMap:
    """The prediction of one frame at the frame's own size.

    Attributes:
        class_map: (H, W) uint8 train ids.
        instance_map: (H, W) int32 track ids, 0 on stuff.
        confidence: (H, W) float32 in [0, 1], probability of the chosen codes.
    """

    class_map: np.ndarray
    instance_map: np.ndarray
    confidence: np.ndarray


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
        seed: of the starting noise; the same seed and frames give the same maps.

    Raises:
        ValueError: a step number below 1, a negative td_steps or min_pixels, t_start_next or stop_unchanged outside
            (0, 1], an unknown sampler or schedule.
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
        seed: int = 0,
    ) -> None:
        self.model = model
        self.num_steps = model.num_steps if num_steps is None else num_steps
        self.num_steps_next = model.num_steps_next if num_steps_next is None else num_steps_next
        self.td_steps = model.td_steps if td_steps is None else td_steps
        self.min_pixels = model.min_pixels if min_pixels is None else min_pixels
        self.t_start_next, self.stop_unchanged, self.seed = t_start_next, stop_unchanged, seed
        for name, least in (("num_steps", 1), ("num_steps_next", 1), ("td_steps", 0), ("min_pixels", 0), ("seed", 0)):
            if not getattr(self, name) >= least:  # nor NaN
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("t_start_next", "stop_unchanged"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name}: expected a number in (0, 1], got {value}")
        sampler = model.sampler if sampler is None else sampler
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler: expected one of {', '.join(SAMPLERS)}, got {sampler!r}")
        self.sample = SAMPLERS[sampler]
        if model.schedule not in SCHEDULES:
            raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {model.schedule!r}")
        self.schedule = SCHEDULES[model.schedule]()
        self.device = next(model.parameters()).device
        self.reset()

    def reset(self) -> None:
        """Forgets the video: the next frame is a first frame."""
        self.memory: deque[Tensor] = deque(maxlen=max((-o for o in self.model.past_offsets), default=0))
        self.tracks = TrackIds(num_codes=self.model.num_instance_codes, past_frames=self.memory.maxlen or 0)
        self.frame_index = 0
        self.frame_size: tuple[int, ...] | None = None

    @torch.inference_mode()
    def step(self, frame: np.ndarray, *, callback: Callback | None = None) -> PanopticMap:
        """Predicts the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB, the same size throughout a video.
            callback: passed to the sampler: (step, x_t, x0 estimate), each (1, K, h, w).

        Raises:
            ValueError: not (H, W, 3) uint8, or another size than the frames before.
        """
        self._check(frame)
        box = Letterbox((frame.shape[0], frame.shape[1]), self.model.image_size)
        image = torch.from_numpy(box.image(frame)).to(self.device).permute(2, 0, 1)[None].float() / 255
        past, present = self._past()
        denoise = self.model.bind(self.model.condition(image, past, present))
        num_steps, t_start = (self.num_steps_next, self.t_start_next) if present.any() else (self.num_steps, 1.0)
        self.sample(
            denoise,
            self._start(t_start),
            self.schedule,
            num_steps,
            td_steps=self.td_steps,
            t_start=t_start,
            clip=self.model.codec.scale,
            stop_unchanged=self.stop_unchanged,
            generator=self._generator(1, self.device),
            callback=callback,
        )
        assert denoise.logits is not None
        probabilities, ids = self._associate(self._probabilities(denoise.logits[0], box))
        self.memory.append(probabilities.choose()[0])
        result = self._to_frame(probabilities, ids, box)
        self.frame_index += 1
        return result

    def _check(self, frame: np.ndarray) -> None:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"frame: expected (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
        if self.frame_size is not None and frame.shape != self.frame_size:
            raise ValueError(f"frame: expected {self.frame_size} as the frames before, got {frame.shape}")
        self.frame_size = frame.shape

    def _generator(self, stream: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
        state = np.random.SeedSequence([self.seed, self.frame_index, stream]).generate_state(1, np.uint64)
        return torch.Generator(device).manual_seed(int(state[0] >> 1))

    def _start(self, t: float) -> Tensor:
        """(1, K, h, w) at time t: noise, below 1 mixed with the last map, so that what is new can still appear."""
        codec = self.model.codec
        noise = torch.randn(1, codec.num_bits, *self.model.mask_size, generator=self._generator()).to(self.device)
        if t == 1:
            return noise
        return add_noise(codec.encode(self.memory[-1][None]), self.schedule(torch.tensor(t, device=self.device)), noise)

    def _past(self) -> tuple[Tensor, Tensor]:
        """Codes (1, T, G, h, w) of the past maps and whether each exists (1, T)."""
        offsets, groups = self.model.past_offsets, len(self.model.codec.group_bits)
        absent = torch.zeros(groups, *self.model.mask_size, dtype=torch.long, device=self.device)
        maps = [self.memory[o] if -o <= len(self.memory) else absent for o in offsets]
        present = torch.tensor([[-o <= len(self.memory) for o in offsets]], dtype=torch.bool, device=self.device)
        return torch.stack(maps)[None] if maps else absent[None, None][:, :0], present

    def _probabilities(self, logits: Tensor, box: Letterbox) -> CodeProbabilities:
        """At mask size; segments that are small there are gone, so that no later frame takes them over, and so are
        codes that two objects share.
        """
        if self.model.target == "mse":
            logits = self.model.codec.bit_logits(logits[None])[0]
        probabilities = code_probabilities(logits, self.model.codec, self.model.label_spec).winners_only()
        area = math.prod  # of a size, in pixels
        mask_per_frame = area(box.content_size) / area(box.source_size) * area(self.model.mask_size)
        min_pixels = self.min_pixels * mask_per_frame / area(self.model.image_size)
        expected = torch.from_numpy(self.tracks.expected_codes(self.model.mask_size)).to(self.device)
        return separate_objects(
            probabilities.suppress_small(min_pixels),
            [*self.memory, expected],
            num_codes=self.model.num_instance_codes,
            min_pixels=min_pixels,
        )

    def _associate(self, probabilities: CodeProbabilities) -> tuple[CodeProbabilities, np.ndarray]:
        """Every object in the code that it had before, and the track ids of (class code, instance code)."""
        codes, _ = probabilities.choose()
        ids = np.zeros((self.model.label_spec.num_classes + 1, self.model.num_instance_codes + 1), np.int32)
        if len(codes) < 2:
            return probabilities, ids
        class_codes, instance_codes = codes.cpu().numpy()
        kept, tracks = self.tracks.update(class_codes, instance_codes)
        for key, track_id in tracks.items():
            ids[key] = track_id
        known = torch.from_numpy(ids > 0).to(codes.device)
        return probabilities.recode(torch.from_numpy(kept).to(codes.device)).only(known), ids

    def _to_frame(self, probabilities: CodeProbabilities, ids: np.ndarray, box: Letterbox) -> PanopticMap:
        """Enlarged to the frame's size, then decided."""
        codes, confidence = probabilities.enlarge(box).suppress_small(self.min_pixels).choose()
        instance_codes = codes[1] if len(codes) > 1 else torch.zeros_like(codes[0])
        class_map, _ = self.model.label_spec.from_codes(codes[0], instance_codes)
        class_codes, instances = (m.cpu().numpy() for m in (codes[0], instance_codes))
        return PanopticMap(
            class_map.cpu().numpy().astype(np.uint8), ids[class_codes, instances], confidence.cpu().numpy()
        )
