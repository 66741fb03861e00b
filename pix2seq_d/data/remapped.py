"""Datasets whose maps are brought into another label spec, clip by clip and frame by frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pix2seq_d.data.batch import Clip
from pix2seq_d.data.labelled_videos import VideoDataset
from pix2seq_d.data.loaders import ClipDataset
from pix2seq_d.label_mapping import remap
from pix2seq_d.labels import LabelSpec


class RemappedClips:
    """The clips of a dataset with the maps of `target` (ClipDataset).

    Args:
        clips: the dataset.
        source: spec of its maps.
        target: spec wanted.
    """

    def __init__(self, clips: ClipDataset, source: LabelSpec, target: LabelSpec) -> None:
        self.clips = clips
        self.source = source
        self.label_spec = target
        self.has_labels = bool(getattr(clips, "has_labels", True))

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        clip = self.clips[index]
        class_map, instance_map = remap(clip.class_map, clip.instance_map, self.source, self.label_spec)
        return replace(clip, class_map=class_map, instance_map=instance_map)


class RemappedVideos:
    """Labelled videos with the maps of `target` (VideoDataset)."""

    def __init__(self, videos: VideoDataset, target: LabelSpec) -> None:
        self.videos = videos
        self.label_spec = target
        self.stills = bool(getattr(videos, "stills", False))

    @property
    def sequence_ids(self) -> tuple[str, ...]:
        """Names of the videos, in order."""
        return self.videos.sequence_ids

    def frame_ids(self, sequence_id: str) -> tuple[int, ...]:
        """Frame numbers of a video, ascending."""
        return self.videos.frame_ids(sequence_id)

    def read_frame(self, sequence_id: str, frame_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 image, (H, W) uint8 train ids, (H, W) int32 instance ids."""
        image, class_map, instance_map = self.videos.read_frame(sequence_id, frame_id)
        return image, *remap(class_map, instance_map, self.videos.label_spec, self.label_spec)
