"""How every dataset is scored: what its frames are called, which metrics it has, and in which of their variants."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pix2seq_d.data.cityscapes import Cityscapes
from pix2seq_d.data.cityscapes_vps import CityscapesVps
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.labelled_videos import LabelledVideos
from pix2seq_d.data.submission_formats import Prediction, cityscapes_id, coco_id, step_id
from pix2seq_d.data.submission_readers import find_predictions
from pix2seq_d.engine.evaluate import IMAGE_METRICS, METRICS
from pix2seq_d.engine.pairs import Frame, Maps, check_same_frames
from pix2seq_d.label_mapping import describe_mapping
from pix2seq_d.labels import LabelSpec


@dataclass(frozen=True)
class Benchmark:
    """The rules of a dataset.

    Attributes:
        name: what a frame is called, from its image or from the map predicted for it.
        options: the variant of single metrics that its official evaluator computes.
    """

    name: Callable[[Prediction], str]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _stem(frame: Prediction) -> str:
    return frame.stem


def _in_folder(frame: Prediction) -> str:
    return f"{frame.sequence_id}/{frame.stem}"


def _coco_name(frame: Prediction) -> str:
    return f"{coco_id(frame):012d}"


BENCHMARKS = {
    "kitti-step": Benchmark(step_id),
    "motchallenge-step": Benchmark(step_id),
    "cityscapes": Benchmark(cityscapes_id),
    "cityscapes-step": Benchmark(cityscapes_id),
    # crowds are ignored and windows count labelled frames: k = 0, 5, 10, 15 of the paper
    "cityscapes-vps": Benchmark(cityscapes_id, {"vpq": {"ignore_crowd": True}}),
    "bdd100k": Benchmark(_stem, {"pq": {"subtract_void": False, "crowd_excuses": "any_class"}}),
    "coco": Benchmark(_coco_name),
    "camvid": Benchmark(_stem),
    "folder": Benchmark(_in_folder),
}


class BenchmarkPairs:
    """The labelled frames of a dataset with their predictions, whatever form these have.

    Of a dataset whose videos are labelled in part (Cityscapes, Cityscapes-VPS), predictions of the frames between are
    left out.

    Args:
        name: key of BENCHMARKS.
        predictions: a folder as `find_predictions` takes it.
        dataset: reader of the ground truth.
        source: classes of our own predictions where they are others than the dataset's; mapped by name.

    Attributes:
        metrics: those that its frames and classes have: of still images no VPQ and STQ.
        options: their variants, for Evaluator.

    Raises:
        DataError: a dataset without labels, predictions that are none, of which two are one frame, or a broken JSON.
        ValueError: frames that only one side has, or a source for a form that has its own classes.
    """

    def __init__(
        self,
        name: str,
        predictions: str | os.PathLike[str],
        dataset: LabelledVideos,
        *,
        source: LabelSpec | None = None,
    ) -> None:
        if not dataset.has_labels:
            raise DataError(f"{name}: expected a split with public label maps, found one without")
        self.spec, self._dataset = dataset.label_spec, dataset
        frames = {(key, n): _image(dataset, key, n) for key in dataset.sequence_ids for n in dataset.frame_ids(key)}
        lonely = name == "folder" and all(key == (image.path.stem, 0) for key, image in frames.items())
        name_of = _stem if lonely else BENCHMARKS[name].name
        self.metrics = METRICS if self.spec.thing_ids and not (lonely or dataset.stills) else IMAGE_METRICS
        self.options = {m: o for m, o in BENCHMARKS[name].options.items() if m in self.metrics}
        wanted = {name_of(image): key for key, image in frames.items()}
        targets = dataset.json_path if isinstance(dataset, CityscapesVps) else None
        self._found = find_predictions(predictions, self.spec, name_of, source=source, targets=targets)
        files = self._found.files
        extra = files.keys() - wanted.keys()
        if isinstance(dataset, Cityscapes | CityscapesVps):
            snippets = {frame.rpartition("_")[0] for frame in wanted}
            extra = {frame for frame in extra if frame.rpartition("_")[0] not in snippets}
        check_same_frames(Path(predictions), wanted.keys() - files.keys(), extra)
        self._source, self._num_left_out = source, len(files) - len(wanted)
        sequences: dict[str, list[Frame]] = {}
        for frame, key in wanted.items():
            sequences.setdefault(key[0], []).append(Frame(frame, files[frame], key, key[1]))
        self.sequences: Mapping[str, Sequence[Frame]] = sequences

    def notes(self) -> list[str]:
        """What people should know of how both sides were brought together, a line each."""
        mapping = describe_mapping(self._source, self.spec) if self._source else ""
        count = self._num_left_out
        left_out = f"{count} predicted frames between the labelled ones are left out" if count else ""
        return [line for line in (mapping, left_out) if line]

    def read(self, frame: Frame) -> tuple[Maps, Maps]:
        """Both maps; raises DataError for a broken file, or a class that is none."""
        class_map, instance_map = self._dataset.read_maps(*frame.target)
        height, width = class_map.shape
        target = class_map, instance_map if self.spec.thing_ids else None
        return self._found.read(frame.name, (height, width)), target

    def read_image(self, frame: Frame) -> np.ndarray | None:
        """The image, None where its file is missing or broken."""
        try:
            return self._dataset.read_frame(*frame.target)[0]
        except DataError:
            return None


def _image(dataset: LabelledVideos, sequence_id: str, frame_id: int) -> Prediction:
    """The image of a frame, whose name decides as that of a prediction does."""
    path = dataset.past_image(sequence_id, frame_id, 0)
    assert path is not None, "every frame of a dataset has an image"
    return Prediction(path, sequence_id)
