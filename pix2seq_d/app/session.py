"""One user's clip: run it, correct a frame's map, propagate from there, take the maps home. H W frame size."""

from __future__ import annotations

import copy
import zipfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor

from pix2seq_d.app.streaming import Reporter
from pix2seq_d.app.uploads import FrameClip
from pix2seq_d.data.formats import write_kitti_step
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.labels import LABEL_DIVISOR, VOID_ID
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.decode import read_estimate
from pix2seq_d.video.known import KnownMap
from pix2seq_d.video.panoptic_map import PanopticMap
from pix2seq_d.video.tracker import VideoPredictor

UNDECIDED = (VOID_ID, 0)  # the target of pixels that the model shall decide


@dataclass(frozen=True)
class RunSettings:
    """What a run may choose.

    Attributes:
        num_steps: denoising steps of the first frame.
        num_steps_next: of later frames.
        num_samples: maps drawn of every frame.
        seed: of the noise.
    """

    num_steps: int
    num_steps_next: int
    num_samples: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """What a run reports.

    Attributes:
        index: of the frame.
        step: denoising steps done, 0 when the frame is.
        num_steps: of the frame.
        estimate: class map and instance codes (H, W) as they look after the step; None when the frame is done.
    """

    index: int
    step: int = 0
    num_steps: int = 0
    estimate: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Segment:
    """A segment of a frame: class and object (0 = stuff), share of the frame, mean confidence (None once painted)."""

    class_id: int
    instance_id: int
    share: float
    confidence: float | None


class Session:
    """A clip with what is known of it so far; frames are predicted from the first on, and each remembers its past.

    Args:
        clip: the frames.
        model: in eval mode; shared by sessions, used by one at a time.
    """

    def __init__(self, clip: FrameClip, model: Pix2SeqD) -> None:
        self.clip, self.model, self.spec = clip, model, model.label_spec
        self.results: list[PanopticMap] = []
        self.edits: dict[int, KnownMap] = {}
        self._starts: list[VideoPredictor] = []  # as they stood before each frame

    def run(self, settings: RunSettings, report: Reporter[Progress]) -> None:
        """Predicts all frames anew; raises ValueError as VideoPredictor."""
        predictor = VideoPredictor(
            self.model,
            num_steps=settings.num_steps,
            num_steps_next=settings.num_steps_next,
            num_samples=settings.num_samples,
            seed=settings.seed,
        )
        self._predict(predictor, 0, None, report)

    def propagate(self, index: int, report: Reporter[Progress]) -> None:
        """Predicts a frame anew from its corrected map, and all later ones, with the settings of the run.

        Earlier frames stay; corrections of later ones are lost.

        Raises:
            ValueError: the frame is not corrected, or as VideoPredictor.step; then everything stays as it is.
        """
        if index not in self.edits:
            raise ValueError(f"frame {index + 1}: expected a corrected map, paint something first")
        self._predict(_copied(self._starts[index]), index, self.edits[index], report)

    def _predict(
        self, predictor: VideoPredictor, first: int, known: KnownMap | None, report: Reporter[Progress]
    ) -> None:
        for k in range(first, len(self.clip.frames)):
            before = _copied(predictor)
            is_first = k == first
            callback = self._watch(k, predictor, report) if is_first else None
            result = predictor.step(self.clip.frames[k], known=known if is_first else None, callback=callback)
            if is_first:
                del self.results[first:], self._starts[first:]
                self.edits = {index: edit for index, edit in self.edits.items() if index < first}
            self.results.append(result)
            self._starts.append(before)
            report(Progress(k))

    def _watch(
        self, index: int, predictor: VideoPredictor, report: Reporter[Progress]
    ) -> Callable[[int, Tensor, Tensor], None]:
        num_steps = predictor.num_steps if index == 0 else predictor.num_steps_next
        box = Letterbox(self.clip.size, self.model.image_size)

        def callback(step: int, x_t: Tensor, x0: Tensor) -> None:
            if report.is_heard:
                report(Progress(index, step + 1, num_steps, _read_estimate(self.model, x0, box)))

        return callback

    def maps(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Class map and instance map (H, W) of a frame, as corrected; None before it is predicted."""
        if index in self.edits:
            return self.edits[index].class_map, self.edits[index].instance_map
        if index >= len(self.results):
            return None
        return self.results[index].class_map, self.results[index].instance_map

    def uncertainty(self, index: int) -> np.ndarray:
        """(H, W) float32 in [0, 1]: where samples differ, or of a single one how improbable the choice is."""
        result = self.results[index]
        if result.uncertainty is None:
            return np.clip(1 - result.confidence, 0, 1)
        return np.maximum(result.uncertainty.class_entropy, result.uncertainty.instance_disagreement)

    def segments(self, index: int) -> list[Segment]:
        """Of a frame's map as corrected, the largest first; pixels to decide are none of them."""
        if (maps := self.maps(index)) is None:
            return []
        ids = maps[0].astype(np.int64) * LABEL_DIVISOR + maps[1]
        values, place, areas = np.unique(ids, return_inverse=True, return_counts=True)
        sums = np.bincount(place.ravel(), weights=self.results[index].confidence.ravel())
        found = [
            Segment(
                class_id=value // LABEL_DIVISOR,
                instance_id=value % LABEL_DIVISOR,
                share=area / ids.size,
                confidence=None if index in self.edits else total / area,
            )
            for value, area, total in zip(values.tolist(), areas.tolist(), sums.tolist())
            if value // LABEL_DIVISOR != VOID_ID
        ]
        return sorted(found, key=lambda segment: -segment.share)

    def new_object(self) -> int:
        """An instance id that no frame has, and no object that is out of sight."""
        maps = [result.instance_map for result in self.results] + [edit.instance_map for edit in self.edits.values()]
        used = [int(ids.max()) for ids in maps] + [predictor.tracks.last_id for predictor in self._starts]
        return min(max(used, default=0) + 1, LABEL_DIVISOR - 1)

    def paint(self, index: int, mask: np.ndarray, target: tuple[int, int]) -> None:
        """Gives pixels of a predicted frame to a segment; propagating takes it as known.

        Args:
            index: of the frame.
            mask: (H, W) bool.
            target: class id and instance id (0 for stuff), or UNDECIDED.

        Raises:
            ValueError: the frame is not predicted yet, the mask has another size or no pixel, or an unknown class.
        """
        if (maps := self.maps(index)) is None:
            raise ValueError(f"frame {index + 1}: expected a predicted frame to correct, run first")
        if mask.shape != self.clip.size:
            raise ValueError(f"mask: expected {self.clip.size} as the frame, got {mask.shape}")
        if not mask.any():
            raise ValueError("nothing is painted yet: draw on the picture first")
        class_map, instance_map = (np.where(mask, value, m).astype(m.dtype) for value, m in zip(target, maps))
        edit = KnownMap(class_map, instance_map)
        edit.check(self.spec, self.clip.size)
        self.edits[index] = edit

    def discard(self, index: int) -> None:
        """Forgets what is painted on a frame."""
        self.edits.pop(index, None)

    def write_zip(self, path: Path) -> Path:
        """Writes the maps of all predicted frames, as corrected, as KITTI-STEP PNGs panoptic/{name}.png in a zip."""
        with TemporaryDirectory() as folder, zipfile.ZipFile(path, "w") as archive:
            for index in range(len(self.results)):
                maps = self.maps(index)
                assert maps is not None
                name = f"{self.clip.names[index]}.png"
                write_kitti_step(Path(folder) / name, *maps)
                archive.write(Path(folder) / name, f"panoptic/{name}")
        return path


def _copied(predictor: VideoPredictor) -> VideoPredictor:
    """A predictor that goes on from the same frame on its own; maps in the memory are shared, nobody changes them."""
    twin = copy.copy(predictor)
    twin.memory = deque(predictor.memory, predictor.memory.maxlen)
    twin.tracks = copy.deepcopy(predictor.tracks)
    return twin


def _read_estimate(model: Pix2SeqD, x0: Tensor, box: Letterbox) -> tuple[np.ndarray, np.ndarray]:
    """Class map and instance codes, (H, W), of the first of (N, K, h, w) estimates, read by sign."""
    class_map, instances = read_estimate(x0, model.codec, model.label_spec)
    rows, columns = (
        ((np.arange(n) + 0.5) / n * content / canvas * mask).astype(int)
        for n, content, canvas, mask in zip(box.source_size, box.content_size, box.target_size, model.mask_size)
    )
    nearest = np.ix_(rows, columns)
    return class_map[nearest], instances[nearest]
