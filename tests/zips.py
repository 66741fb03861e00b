"""Zip archives for tests: any entries, and KITTI-STEP in the layout of its archive on the Hub."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from pix2seq_d.data.formats import write_image, write_kitti_step
from pix2seq_d.data.synthetic_videos import SyntheticVideos


def make_zip(entries: Iterable[tuple[str | zipfile.ZipInfo, bytes]], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of entries in the order given; names are written as they are."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return data.getvalue()


def kitti_step_zip(*, height: int = 40, width: int = 72) -> bytes:
    """Two frames of one video in each of the splits train and val."""
    entries = []
    with tempfile.TemporaryDirectory() as folder:
        for split, sequence in (("train", 0), ("val", 2)):
            videos = SyntheticVideos(split="val", num_sequences=1, num_frames=2, height=height, width=width)
            for frame in videos.frame_ids("0000"):
                image, class_map, instance_map = videos.read_frame("0000", frame)
                stem = f"kitti_out/video_sequence/{split}/{sequence:06d}_{frame:06d}"
                write_image(Path(folder, "image.png"), image)
                write_kitti_step(Path(folder, "map.png"), class_map, instance_map)
                entries.append((f"{stem}_leftImg8bit.png", Path(folder, "image.png").read_bytes()))
                entries.append((f"{stem}_panoptic.png", Path(folder, "map.png").read_bytes()))
    return make_zip(entries)
