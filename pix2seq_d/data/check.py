"""Reads every frame of a labelled dataset: what its maps hold, class by class, and every file that cannot be used."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from pix2seq_d.data.formats import DataError
from pix2seq_d.data.labelled_videos import LabelledVideos, check_same_size
from pix2seq_d.labels import LABEL_DIVISOR, LabelSpec


@dataclass
class DatasetReport:
    """What `check_videos` has found; rows of the counts are train ids, the last row is void.

    Attributes:
        spec: label spec of the maps.
        num_videos: videos of the dataset.
        num_frames: frames that could be read.
        pixels: (num_classes + 1,) int64 pixels of each class.
        frames_with: (num_classes + 1,) int64 frames that show the class.
        objects: (num_classes + 1,) int64 objects of each class, counted in every frame anew.
        crowd: pixels of thing classes without an instance id.
        most_objects: objects in the fullest frame.
        fullest: that frame, as video/frame; "" where no frame has objects.
        followers: frames whose predecessor (past offset -1) is labelled too.
        sizes: frames by (H, W).
        problems: one line for every frame that cannot be used.
    """

    spec: LabelSpec
    num_videos: int = 0
    num_frames: int = 0
    pixels: np.ndarray = field(init=False)
    frames_with: np.ndarray = field(init=False)
    objects: np.ndarray = field(init=False)
    crowd: int = 0
    most_objects: int = 0
    fullest: str = ""
    followers: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pixels, self.frames_with, self.objects = np.zeros((3, self.spec.num_classes + 1), np.int64)

    @property
    def num_instance_bits(self) -> int:
        """Bits that hold 0 (no instance) and the objects of the fullest frame."""
        return self.most_objects.bit_length()

    def add(self, name: str, class_map: np.ndarray, instance_map: np.ndarray) -> None:
        """Counts one frame: (H, W) train ids, 255 = void, and (H, W) instance ids, 0 = none."""
        rows = np.minimum(class_map, self.spec.num_classes)  # void is the last row
        counts = np.bincount(rows.ravel(), minlength=len(self.pixels))
        thing = self.spec.is_thing(class_map)
        keys = rows[thing].astype(np.int64) * LABEL_DIVISOR + instance_map[thing]
        ids = np.unique(keys[keys % LABEL_DIVISOR > 0])
        self.num_frames += 1
        self.sizes[class_map.shape[0], class_map.shape[1]] += 1
        self.pixels += counts
        self.frames_with += counts > 0
        self.objects += np.bincount(ids // LABEL_DIVISOR, minlength=len(self.objects))
        self.crowd += int(np.count_nonzero(keys % LABEL_DIVISOR == 0))
        if len(ids) > self.most_objects:
            self.most_objects, self.fullest = len(ids), name


def check_videos(videos: LabelledVideos) -> DatasetReport:
    """Reads every frame with its map, image included; a frame that cannot be used becomes a line of `problems`."""
    report = DatasetReport(videos.label_spec, num_videos=len(videos.sequence_ids))
    frames = [(key, number) for key in videos.sequence_ids for number in videos.frame_ids(key)]
    sizes: dict[str, tuple[int, ...]] = {}
    for key, number in tqdm(frames, unit="frame", disable=None):
        name = f"{key}/{number:06d}"
        try:
            _, class_map, instance_map = videos.read_frame(key, number)
            if not videos.stills:
                check_same_size(name, class_map.shape, "the frames before it", sizes.setdefault(key, class_map.shape))
        except DataError as error:
            report.problems.append(str(error))
            continue
        report.add(name, class_map, instance_map)
        report.followers += videos.past_frame(key, number, -1) is not None
    return report


def format_report(report: DatasetReport) -> str:
    """The report as lines of text: totals, a table of classes, the problems."""
    spec, frames = report.spec, max(1, report.num_frames)
    sizes = ", ".join(f"{h}x{w} ({count})" for (h, w), count in report.sizes.most_common(5))
    if len(report.sizes) > 5:
        sizes += f", and {len(report.sizes) - 5} others"
    lines = [
        f"{report.num_videos} videos, {report.num_frames} frames, of these {report.followers} right after another",
        f"height x width (frames): {sizes or 'none'}",
        f"most objects in a frame: {report.most_objects}{f' ({report.fullest})' if report.fullest else ''}",
        f"pixels of things without an instance id (crowd): {report.crowd}",
        "",
        f"{'class':<24}{'kind':<7}{'% pixels':>9}{'% frames':>9}{'objects/frame':>15}",
    ]
    kinds = ["thing" if i in spec.thing_ids else "stuff" for i in range(spec.num_classes)]
    for k, (name, kind) in enumerate(zip([*spec.class_names, "(void)"], [*kinds, ""])):
        pixels = 100 * report.pixels[k] / max(1, report.pixels.sum())
        objects = f"{report.objects[k] / frames:.2f}" if kind == "thing" else "-"
        lines.append(f"{name:<24}{kind:<7}{pixels:>9.2f}{100 * report.frames_with[k] / frames:>9.1f}{objects:>15}")
    if report.problems:
        lines += ["", f"{len(report.problems)} frames cannot be used:", *report.problems]
    return "\n".join(lines) + "\n"
