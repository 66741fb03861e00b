"""Frames in, panoptic maps out: the saved model with its sampler settings behind one call.

Pix2SeqDPipeline.from_pretrained("checkpoints/synthetic-tiny")(frames) -> one PanopticMap per frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pix2seq_d.data.formats import to_rgb
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.labels import LabelSpec
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.decode import read_estimate
from pix2seq_d.video.known import KnownMap
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor, predict_together

Frame = np.ndarray | Image.Image  # (H, W, 3) uint8
KnownFrames = Mapping[int, KnownMap]  # by the number of the frame in its video, from 0
Generators = torch.Generator | Sequence[torch.Generator]


class Pix2SeqDPipeline:
    """A model on a device, ready to predict videos and images.

    Args:
        model: put into eval mode and on `device`.
        device: "cpu", "cuda", ...; None takes the first GPU, or the CPU where there is none.
    """

    def __init__(self, model: Pix2SeqD, *, device: str | torch.device | None = None) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = model.eval().to(device)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, device: str | torch.device | None = None, revision: str | None = None
    ) -> Pix2SeqDPipeline:
        """Loads averaged weights and sampler settings from a folder or the Hub; errors as Pix2SeqD.from_pretrained."""
        return cls(Pix2SeqD.from_pretrained(name_or_path, revision=revision), device=device)

    @property
    def label_spec(self) -> LabelSpec:
        """Classes of the maps."""
        return self.model.label_spec

    def predictor(
        self,
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
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> VideoPredictor:
        """A streaming predictor; arguments and errors as VideoPredictor, None = the model's default.

        `seed` None is 0; a `generator` draws the seed in its place (ValueError with both).
        """
        return VideoPredictor(
            self.model,
            num_steps=num_steps,
            num_steps_next=num_steps_next,
            td_steps=td_steps,
            sampler=sampler,
            min_pixels=min_pixels,
            t_start_next=t_start_next,
            stop_unchanged=stop_unchanged,
            step_grid=step_grid,
            num_samples=num_samples,
            history_guidance=history_guidance,
            only_classes=only_classes,
            without_classes=without_classes,
            seed=_seeds(1, seed, generator)[0],
        )

    def __call__(
        self,
        frames: Iterable[Frame] | Sequence[Iterable[Frame]],
        *,
        known: KnownFrames | Sequence[KnownFrames | None] | None = None,
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
        seed: int | None = None,
        generator: Generators | None = None,
        batch_size: int = 1,
    ) -> list[Any]:
        """The panoptic maps of one video, or of several.

        A video's maps do not depend on the others' nor on `batch_size`, but for the rounding of batched sums.

        Args:
            frames: of one video, in order and of one size: PIL images or (H, W, 3) uint8 arrays, as a list, an array
                or anything that yields them. Or a list of such videos, each of a size and length of its own.
            known: {number of the frame, from 0: what is known of it}; of several videos one such for each, or None.
            num_steps: denoising steps of a first frame; None = the model's default.
            num_steps_next: of later frames; None = the model's default.
            td_steps: asymmetric time interval in steps, as the following: see VideoPredictor.
            sampler: name of the sampler.
            min_pixels: smallest segment kept, in pixels of the frame.
            t_start_next: time at which later frames start, 1 = from noise.
            stop_unchanged: share of pixels that stay the same that ends a frame's steps.
            step_grid: knots of the steps' times (`read_step_grid` reads a file of them); None = uniform.
            num_samples: maps drawn of every frame; with several, the results tell where they differ.
            history_guidance: weight of guidance by the past maps.
            only_classes: train ids of the classes to keep; empty = all.
            without_classes: train ids of classes that are known not to be there.
            seed: of the starting noise of every video; None = 0.
            generator: draws the seeds in its place: one after another for the videos, or each its own from a list.
            batch_size: videos predicted in one batch, frame by frame; one that ends makes room for the next.

        Returns:
            list of PanopticMap, one for each frame; of several videos a list of such lists, in their order.

        Raises:
            ValueError: as VideoPredictor and its `step`; something else than frames, `known` of frames that there are
                not, not one known or generator for each video, seed and generator both, a batch_size below 1.
        """
        several = _are_videos(frames)
        videos: list[Any] = list(frames) if several else [frames]
        names = [f"video {k}, frame {{}}" for k in range(len(videos))] if several else ["frame {}"]
        make = partial(
            self.predictor,
            num_steps=num_steps,
            num_steps_next=num_steps_next,
            td_steps=td_steps,
            sampler=sampler,
            min_pixels=min_pixels,
            t_start_next=t_start_next,
            stop_unchanged=stop_unchanged,
            step_grid=step_grid,
            num_samples=num_samples,
            history_guidance=history_guidance,
            only_classes=only_classes,
            without_classes=without_classes,
        )
        told = _one_each("known", known, len(videos)) if several else [known]
        seeds = _seeds(len(videos), seed, generator)
        maps = _predict(deque(_Video(*parts, make) for parts in zip(names, videos, told, seeds)), batch_size)
        return maps if several else maps[0]

    def stream(
        self,
        frames: Iterable[Frame],
        *,
        known: KnownFrames | None = None,
        num_steps: int | None = None,
        num_steps_next: int | None = None,
        num_samples: int = 1,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[PanopticMap]:
        """As calling the pipeline with one video, one map at a time: memory does not grow with the video."""
        make = partial(
            self.predictor,
            num_steps=num_steps,
            num_steps_next=num_steps_next,
            num_samples=num_samples,
        )
        video = _Video("frame {}", frames, known, _seeds(1, seed, generator)[0], make)
        while (request := video.next_request()) is not None:
            image, known_now = request
            yield video.predictor.step(image, known=known_now)

    def images(
        self,
        images: Iterable[Frame],
        *,
        known: Sequence[KnownMap | None] | None = None,
        num_steps: int | None = None,
        num_samples: int = 1,
        only_classes: Sequence[int] = (),
        without_classes: Sequence[int] = (),
        seed: int | None = None,
        generator: Generators | None = None,
        batch_size: int = 1,
    ) -> list[PanopticMap]:
        """The panoptic maps of images that are no video: each by itself and of its own size.

        Args:
            images: PIL images or (H, W, 3) uint8 arrays.
            known: of each image what is known of it, or None.
            num_steps: denoising steps; None = the model's default.
            num_samples: maps drawn of every image.
            only_classes: train ids of the classes to keep; empty = all.
            without_classes: train ids of classes that are known not to be there.
            seed: of the starting noise of every image; None = 0.
            generator: draws the seeds in its place, as in a call.
            batch_size: images predicted in one batch.

        Raises:
            ValueError: as a call.
        """
        make = partial(
            self.predictor,
            num_steps=num_steps,
            num_samples=num_samples,
            only_classes=only_classes,
            without_classes=without_classes,
        )
        videos = [[image] for image in images]
        names = [f"image {k}" for k in range(len(videos))]
        told = [None if one is None else {0: one} for one in _one_each("known", known, len(videos))]
        seeds = _seeds(len(videos), seed, generator)
        maps = _predict(deque(_Video(*parts, make) for parts in zip(names, videos, told, seeds)), batch_size)
        return [one for (one,) in maps]

    def denoising_maps(
        self,
        frame: Frame,
        *,
        num_steps: int | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The sampler's estimate of the clean map after every step of a first frame: `estimated_maps` of each."""
        image, found = _as_array(frame, "frame"), []
        predictor = self.predictor(num_steps=num_steps, seed=seed, generator=generator)
        predictor.step(image, callback=lambda step, x_t, x0: found.append(self.estimated_maps(x0, image.shape[:2])))
        return found

    def estimated_maps(self, x0: Tensor, frame_size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """What an estimate spells that the callback of VideoPredictor.step gets, its bits read by sign.

        Args:
            x0: (N, K, h, w) bits of N samples, of which the first is read.
            frame_size: (H, W) of the frame.

        Returns:
            At mask size, without the canvas's padding: class map uint8 and instance codes int64.
        """
        box = Letterbox((frame_size[0], frame_size[1]), self.model.image_size)
        sizes = zip(box.visible_size, self.model.mask_size, self.model.image_size)
        rows, columns = (-(-seen * mask // whole) for seen, mask, whole in sizes)
        return read_estimate(x0[:, :, :rows, :columns], self.model.codec, self.label_spec)


class _Video:
    """A video on its way; `name.format(k)` is what messages call its frame k."""

    def __init__(
        self,
        name: str,
        frames: Iterable[Frame],
        known: KnownFrames | None,
        seed: int,
        make: Callable[..., VideoPredictor],
    ) -> None:
        where, known = name.format(0), {} if known is None else known
        if not isinstance(frames, Iterable):
            raise ValueError(f"{where}: expected a list of frames, got {type(frames).__name__}")
        if not isinstance(known, Mapping):
            raise ValueError(f"{where}: expected known as {{0: KnownMap(...)}}, got {type(known).__name__}")
        end = len(frames) if isinstance(frames, Sized) else max(known, default=0) + 1
        if wrong := [k for k in known if not 0 <= k < end]:
            raise ValueError(f"{name.format(wrong[0])}: expected known of frames 0..{end - 1}")
        self.known = {k: one for k, one in known.items() if one is not None}
        self.name, self.frames, self.seed, self.make = name, iter(frames), seed, make
        self.count = 0
        self.maps: list[PanopticMap] = []

    @cached_property
    def predictor(self) -> VideoPredictor:
        return self.make(seed=self.seed)

    def next_request(self) -> tuple[np.ndarray, KnownMap | None] | None:
        """The next frame and what is known of it, or None at the end."""
        for frame in self.frames:
            where, known = self.name.format(self.count), self.known.get(self.count)
            image, size = _as_array(frame, where), self.predictor.frame_size
            if size not in (None, image.shape):
                raise ValueError(f"{where}: expected {size} as the frames before, got {image.shape}")
            spec = self.predictor.model.label_spec
            for k, one in self.known.items() if size is None else ():  # all of them: the frames to come are as large
                _check_known(one, spec, image, self.name.format(k))
            if known is not None:
                self.predictor.reserve_ids(max(one.last_id(spec) for one in self.known.values()))
            self.count += 1
            return image, known
        if wrong := [k for k in self.known if k >= self.count]:  # of frames that came without a number of them
            raise ValueError(f"{self.name.format(wrong[0])}: expected known of frames 0..{self.count - 1}")
        return None


def _predict(waiting: deque[_Video], batch_size: int) -> list[list[PanopticMap]]:
    """The maps of each video, `batch_size` of them side by side; videos are let go when they end."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    results: list[list[PanopticMap]] = []
    running: list[_Video] = []
    while True:
        batch = [(video, request) for video in running if (request := video.next_request()) is not None]
        while waiting and len(batch) < batch_size:
            video = waiting.popleft()
            results.append(video.maps)
            if (request := video.next_request()) is not None:
                batch.append((video, request))
        if not batch:
            return results
        running = [video for video, _ in batch]
        images, known = [image for _, (image, _) in batch], [told for _, (_, told) in batch]
        found = predict_together([video.predictor for video in running], images, known=known)
        for video, one in zip(running, found):
            video.maps.append(one)


def _are_videos(frames: object) -> bool:
    """Whether `frames` is a list of videos; of one video, it is no list or begins with a frame."""
    if not isinstance(frames, list | tuple) or not frames:
        return False
    if isinstance(frames[0], np.ndarray):
        return frames[0].ndim > 3
    return isinstance(frames[0], Iterable) and not isinstance(frames[0], str | torch.Tensor)


def _one_each(name: str, values: Any, count: int) -> list[Any]:
    if values is None:
        return [None] * count
    if not isinstance(values, Sequence) or len(values) != count:
        got = len(values) if isinstance(values, Sequence) else type(values).__name__
        raise ValueError(f"{name}: expected a list of {count}, one each, got {got}")
    return list(values)


def _seeds(count: int, seed: int | None, generator: Generators | None) -> list[int]:
    if generator is None:
        return [0 if seed is None else seed] * count
    if seed is not None:
        raise ValueError("seed, generator: expected one of them, got both")
    if isinstance(generator, torch.Generator):
        generator = [generator] * count
    each = _one_each("generator", generator, count)
    return [int(torch.randint(2**63 - 1, (), generator=g, device=g.device)) for g in each]


def _as_array(frame: Frame, where: str) -> np.ndarray:
    image = to_rgb(frame, where) if isinstance(frame, Image.Image) else frame
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{where}: expected a PIL image or an (H, W, 3) uint8 array, got {type(frame).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{where}: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return image


def _check_known(known: KnownMap, spec: LabelSpec, image: np.ndarray, where: str) -> None:
    try:
        known.check(spec, image.shape[:2])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
