"""Images of past frames on their way from a clip to a batch: brought where asked for, and treated as the last one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pix2seq_d.data.batch import Batch, Clip
from pix2seq_d.data.labelled_videos import PickPixels
from pix2seq_d.data.loaders import TrainingClips, build_loader, collate
from pix2seq_d.data.transforms import ClipTransform
from pix2seq_d.labels import get_label_spec

SPEC = get_label_spec("kitti-step")
TRANSFORM = ClipTransform((16, 24), (8, 12), scale_range=(1, 2), flip_rate=0.5, brightness=0.3, hue=0.3, blur=1.0)


class Clips:
    """Clips of four maps and four images, of which the first and the last are the same."""

    has_labels = True

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Clip:
        rng = np.random.default_rng(index)
        frames = rng.integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
        frames[0] = frames[3]
        maps = rng.integers(0, 3, (4, 20, 30), dtype=np.uint8)
        return Clip(frames, maps, np.zeros((4, 20, 30), np.int32), np.ones(4, bool), "a", index)


class PickedClips(Clips):
    """The same by the way of readers from disk."""

    def read_clip(self, index: int, choose: Callable[[tuple[int, int]], PickPixels]) -> Clip:
        clip = self[index]
        pick = choose((20, 30))
        return Clip(
            clip.frames, pick(clip.class_map, 255), pick(clip.instance_map, 0), clip.present, "a", clip.frame_id
        )


def samples(past_images: int, clips: Clips | None = None) -> TrainingClips:
    return TrainingClips(clips or Clips(), TRANSFORM, SPEC, num_instance_codes=7, seed=5, past_images=past_images)


def test_samples_have_no_past_images_unless_asked() -> None:
    assert samples(0)[0, 1].past_frames is None


@pytest.mark.parametrize("clips", [Clips(), PickedClips()])
def test_all_frames_of_a_clip_are_treated_alike(clips: Clips) -> None:
    """The oldest image equals the last one, and still does after flip, crop and colours."""
    plain, whole, newest = (samples(count, clips)[2, 1] for count in (0, 3, 2))
    assert whole.past_frames is not None
    assert newest.past_frames is not None
    assert (whole.past_frames.shape, whole.past_frames.dtype) == ((1, 3, 3, 16, 24), torch.uint8)
    assert torch.equal(whole.past_frames[:, 0], whole.frame)
    assert not torch.equal(whole.past_frames[:, 1], whole.frame)
    assert torch.equal(newest.past_frames, whole.past_frames[:, 1:])
    for batch in (whole, newest):
        assert torch.equal(batch.frame, plain.frame)
        assert torch.equal(batch.class_codes, plain.class_codes)


def test_batches_keep_past_images_in_order() -> None:
    parts = [samples(2)[0, index] for index in range(3)]
    batch = collate(parts)
    assert batch.past_frames is not None
    assert batch.past_frames.shape == (3, 2, 3, 16, 24)
    assert all(torch.equal(batch.past_frames[k], part.past_frames[0]) for k, part in enumerate(parts))
    moved = batch.to("cpu").past_frames
    assert moved is not None
    assert moved.is_contiguous()
    assert torch.equal(moved, batch.past_frames)


def test_the_loader_passes_the_number_on() -> None:
    loader = build_loader(Clips(), TRANSFORM, SPEC, batch_size=2, num_instance_codes=7, seed=5, past_images=1)
    batch: Batch = next(iter(loader))
    assert batch.past_frames is not None
    assert batch.past_frames.shape == (2, 1, 3, 16, 24)


def test_a_negative_number_of_images() -> None:
    with pytest.raises(ValueError, match=r"^past_images: expected at least 0, got -1"):
        samples(-1)
