"""Clips from labelled still images: a camera that moves over the still, and things of another still that move on it.

Times count frames: 0 is the still, -1 the frame before it. L = T + 1 maps, F images, H W frame size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pix2seq_d.data.batch import Clip
from pix2seq_d.data.loaders import ClipDataset
from pix2seq_d.data.pasting import PastedThing, cut_out, lowest_rows
from pix2seq_d.data.warps import (
    MAX_INSTANCE_ID,
    Motion,
    camera_homography,
    pack_labels,
    unpack_labels,
    warp_image,
    warp_labels,
)
from pix2seq_d.labels import LabelSpec

# a frame's motion at most: right, down (in widths), log zoom, roll (radians), perspective across and down
CAMERA_SPEED = np.array([0.02, 0.01, 0.03, 0.006, 0.01, 0.01])


class PseudoVideo:
    """A map-style dataset of Clips with a made-up past, from any dataset of Clips (whose own past is not used).

    The last frame is the still itself, with the pasted things on it; the past is the still as a moving camera saw it,
    with the pasted things where they were. An object keeps its id through the clip, and a pasted one gets an id that
    the still does not have. What the still does not show is void, and grey in the images. Of a pasted thing and another
    thing the one that stands lower in the last frame hides the other, in every frame.

    Args:
        dataset: gives Clips; the last image and map of each is the still.
        spec: label spec of the maps; things with an instance id are pasted.
        past_offsets: times of the past maps, negative and increasing, for example (-2, -1); () only pastes.
        seed: of all draws, not negative; a clip is a function of seed, epoch and index.
        camera_motion: factor on CAMERA_SPEED; 0 = a camera that stands.
        paste_rate: probability of pasting; it costs the reading of another still.
        paste_max: most things pasted into a clip, all from one still; how many is drawn from 1 to this.
        paste_motion: factor on the speed of pasted things; 0 = they stand.
        all_frames: make the images of the past too, bilinear; training needs the last one alone.

    Raises:
        ValueError: a bad argument.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        spec: LabelSpec,
        *,
        past_offsets: Sequence[int],
        seed: int,
        camera_motion: float = 1.0,
        paste_rate: float = 0.5,
        paste_max: int = 3,
        paste_motion: float = 1.0,
        all_frames: bool = False,
    ) -> None:
        offsets = tuple(past_offsets)
        if any(offset >= 0 for offset in offsets) or list(offsets) != sorted(set(offsets)):
            raise ValueError(f"expected past_offsets negative and increasing, got {offsets}")
        if not 0 <= paste_rate <= 1:
            raise ValueError(f"expected paste_rate in 0..1, got {paste_rate}")
        for name, value, least in (
            ("seed", seed, 0),
            ("camera_motion", camera_motion, 0),
            ("paste_max", paste_max, 1),
            ("paste_motion", paste_motion, 0),
        ):
            if not least <= value < np.inf:
                raise ValueError(f"expected {name} of {least} or more, got {value}")
        self.dataset, self.spec, self.past_offsets, self.seed = dataset, spec, offsets, seed
        self.has_labels = bool(getattr(dataset, "has_labels", True))
        self.camera_motion, self.all_frames = camera_motion, all_frames
        self.paste_rate, self.paste_max, self.paste_motion = paste_rate, paste_max, paste_motion

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Clip:
        """The clip `index` of epoch 0."""
        return self.draw(0, index)

    def draw(self, epoch: int, index: int) -> Clip:
        """The clip `index` as `epoch` sees it: always the same still, with a motion and pasted things of its own.

        Returns:
            A Clip of L maps and, with `all_frames`, L images (else one), all of the still's size and all present.

        Raises:
            ValueError: an instance id that leaves no room below MAX_INSTANCE_ID.
        """
        # the last word keeps this stream apart from those of TrainingClips and EpochBatches
        rng = np.random.default_rng([self.seed, epoch, index, 2])
        clip = self.dataset[index]
        scene = self._scene(clip, index, rng)
        times = (*self.past_offsets, 0)
        maps = (len(times), *scene.labels.shape)
        class_map, instance_map = np.empty(maps, np.uint8), np.empty(maps, np.int32)
        images = []
        for k, time in enumerate(times):
            labels, image = scene.render(time, with_image=self.all_frames or time == 0)
            unpack_labels(labels, class_map[k], instance_map[k])
            images += [] if image is None else [image]
        return Clip(
            frames=np.stack(images) if len(images) > 1 else images[0][None],
            class_map=class_map,
            instance_map=instance_map,
            present=np.ones(len(times), bool),
            sequence_id=clip.sequence_id,
            frame_id=clip.frame_id,
        )

    def _scene(self, clip: Clip, index: int, rng: np.random.Generator) -> _Scene:
        camera = Motion(CAMERA_SPEED * self.camera_motion, rng)
        paste, other = rng.random(2)
        image, labels = self._still(clip)
        others = len(self.dataset) - 1
        if paste >= self.paste_rate or others == 0:
            return _Scene(image, labels, camera, (), np.empty(0, np.uint32), np.empty(0))
        source = self._still(self.dataset[(index + 1 + int(other * others)) % len(self.dataset)])
        count, first_id = int(rng.integers(1, self.paste_max + 1)), int(labels.max() >> 8) + 1
        things = [
            PastedThing(
                cutout, (first_id + k) << 8 | cutout.class_id, size=image.shape[:2], speed=self.paste_motion, rng=rng
            )
            for k, cutout in enumerate(islice(cut_out(*source, self.spec, rng), count))
        ]
        things.sort(key=lambda thing: thing.bottom)
        return _Scene(image, labels, camera, tuple(things), *lowest_rows(labels, self.spec))

    def _still(self, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        largest = int(clip.instance_map[-1].max(initial=0))
        if largest > MAX_INSTANCE_ID - self.paste_max:
            raise ValueError(
                f"clip {clip.name}: expected instance ids up to {MAX_INSTANCE_ID - self.paste_max}, got {largest}"
            )
        return clip.frames[-1], pack_labels(clip.class_map[-1], clip.instance_map[-1])


@dataclass(frozen=True)
class _Scene:
    """A still, its camera, and the pasted things from far to near; the still's own things with their lowest rows."""

    image: np.ndarray
    labels: np.ndarray
    camera: Motion
    things: tuple[PastedThing, ...]
    own: np.ndarray
    own_bottoms: np.ndarray

    def render(self, time: int, *, with_image: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """(H, W) uint32 labels and, where asked for, the (H, W, 3) uint8 image at `time`: not to be written to."""
        homography, still = camera_homography(self.camera.at(time), self.labels.shape), time == 0
        labels = self.labels if still else warp_labels(self.labels, homography)
        image = None
        if with_image:
            image = self.image if still else warp_image(self.image, homography)
        if still and self.things:
            labels, image = labels.copy(), None if image is None else image.copy()
        for thing in self.things:
            nearer = self.own[self.own_bottoms > thing.bottom]
            thing.paint(labels, image, homography=homography, time=time, nearer=nearer)
        return labels, image
