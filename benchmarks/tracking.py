"""Track ids without a network: true maps of long synthetic videos, in codes as a model gives them, with its mistakes.

python benchmarks/tracking.py                     # 2 videos of 500 frames for every kind of mistakes
python benchmarks/tracking.py --endurance 5000    # memory and time over one long video
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from pix2seq_d.data.synthetic import SyntheticSequence
from pix2seq_d.labels import LABEL_SPECS
from pix2seq_d.metrics import SegmentationTrackingQuality
from pix2seq_d.video.decode import CodeProbabilities
from pix2seq_d.video.separate import separate_objects
from pix2seq_d.video.tracks import TrackIds

SPEC = LABEL_SPECS["kitti-step"]
STRIDE = 2  # of the mask
ROAD = 1  # class code under a dropped object


@dataclass(frozen=True)
class Mistakes:
    """Probabilities per object and frame; each lasts 1 to `longest` frames, but for a switch, which stays.

    Attributes:
        switch: another code, drawn from all.
        drop: the object is road.
        split: the right half has another code, drawn from all.
        merge: the code of the nearest object of the class.
        birth_merge: probability per new object that it begins with the code of the nearest one.
        longest: frames.
    """

    switch: float = 0.0
    drop: float = 0.0
    split: float = 0.0
    merge: float = 0.0
    birth_merge: float = 0.0
    longest: int = 3


MISTAKES = {
    "none": Mistakes(),
    "switch": Mistakes(switch=0.02),
    "drop": Mistakes(drop=0.02),
    "split": Mistakes(split=0.02),
    "merge": Mistakes(merge=0.02),
    "all": Mistakes(switch=0.01, drop=0.01, split=0.01, merge=0.01, birth_merge=0.1),
}


class CopyingModel:
    """Draws true maps with the codes that its past maps have where the objects were, as a trained model does.

    Args:
        num_codes: instance codes are 1 ... num_codes; a new object takes any of them, held or not.
        mistakes: what goes wrong.
        seed: of every draw.
    """

    def __init__(self, num_codes: int, mistakes: Mistakes, seed: int) -> None:
        self.num_codes, self.mistakes, self.rng = num_codes, mistakes, np.random.default_rng(seed)
        self.before: list[np.ndarray] = []  # true instances of the past maps, the newest first
        self.wrong: dict[int, tuple[str, int, int]] = {}  # object -> mistake, its code, frames left

    def step(self, class_map: np.ndarray, instance_map: np.ndarray, past: deque[np.ndarray]) -> np.ndarray:
        """(2, h, w) class and instance codes of the next frame, after `past` ones, the newest last."""
        class_codes = np.where(class_map == SPEC.void_id, 0, class_map) + 1
        codes = np.stack([class_codes, np.zeros_like(class_codes)])
        objects = [int(i) for i in np.unique(instance_map) if i]
        centres = {i: np.argwhere(instance_map == i).mean(0) for i in objects}
        class_of = {i: int(class_map[instance_map == i][0]) for i in objects}
        known = {i: self._known(i, class_of[i], past) for i in objects}
        for i in objects:
            here, code = instance_map == i, known[i]
            others = [j for j in objects if j != i and class_of[j] == class_of[i] and known[j]]
            nearest = known[min(others, key=lambda j: np.square(centres[j] - centres[i]).sum())] if others else 0
            if not code:
                code = nearest if nearest and self.rng.random() < self.mistakes.birth_merge else self._any_code()
                known[i] = code
            kind, value = self._mistake(i, nearest)
            if kind == "drop":
                codes[0][here] = ROAD
                continue
            codes[1][here] = value if kind in ("switch", "merge") else code
            if kind == "split":
                codes[1][here & (np.arange(here.shape[1]) >= centres[i][1])] = value
        self.before = [instance_map, *self.before[:1]]
        return codes

    def _known(self, i: int, class_id: int, past: deque[np.ndarray]) -> int:
        """The code that most of an object had when last seen, 0 = none."""
        for truth, codes in zip(self.before, reversed(past), strict=False):
            there = codes[1][(truth == i) & (codes[0] == class_id + 1)]
            if len(there):
                return int(np.bincount(there).argmax())
        return 0

    def _mistake(self, i: int, nearest: int) -> tuple[str, int]:
        m = self.mistakes
        if i not in self.wrong:
            kinds = [("switch", m.switch), ("drop", m.drop), ("split", m.split), ("merge", m.merge if nearest else 0)]
            drawn = [kind for kind, rate in kinds if self.rng.random() < rate]
            if not drawn:
                return "", 0
            frames = 1 if drawn[0] == "switch" else int(self.rng.integers(1, m.longest + 1))
            self.wrong[i] = (drawn[0], nearest if drawn[0] == "merge" else self._any_code(), frames)
        kind, code, frames = self.wrong.pop(i)
        if frames > 1:
            self.wrong[i] = (kind, code, frames - 1)
        return kind, code

    def _any_code(self) -> int:
        return int(self.rng.integers(1, self.num_codes + 1))


class CodeReading:
    """The naive reading: a code keeps its id while its class stays and it was seen in the last two frames."""

    def __init__(self, *, num_codes: int, memory: int = 2) -> None:
        self.memory, self.num_tracks, self.now = memory, 0, 0
        self.last: dict[tuple[int, int], tuple[int, int]] = {}  # (class, code) -> frame, id

    def update(self, class_map: np.ndarray, code_map: np.ndarray) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
        """As TrackIds."""
        there = code_map > 0
        keys = [(int(c), int(k)) for c, k in np.unique(np.stack([class_map[there], code_map[there]]), axis=1).T]
        for key in keys:
            frame, track_id = self.last.get(key, (-self.memory - 1, 0))
            if self.now - frame > self.memory:
                self.num_tracks += 1
                track_id = self.num_tracks
            self.last[key] = (self.now, track_id)
        self.now += 1
        return code_map, {key: self.last[key][1] for key in keys}


def separated(codes: np.ndarray, past: Iterable[np.ndarray], num_codes: int) -> np.ndarray:
    """As the predictor does before it associates: parts of one code that lie apart get codes of their own."""
    present = [torch.from_numpy(np.unique(c)) for c in codes]
    present[1] = present[1][present[1] > 0]
    if not len(present[1]):
        return codes
    planes = [(torch.from_numpy(c) == k[:, None, None]).float() for c, k in zip(codes, present, strict=True)]
    probabilities = CodeProbabilities(tuple(planes), tuple(present), SPEC)
    memory = [torch.from_numpy(p) for p in past]
    return separate_objects(probabilities, memory, num_codes=num_codes, min_pixels=4).choose()[0].numpy()


class Switches:
    """Counts how often the id that most of a true object has differs from the one before."""

    def __init__(self) -> None:
        self.last: dict[int, int] = {}
        self.count, self.tracks = 0, set[int]()

    def update(self, ids: np.ndarray, truth: np.ndarray) -> None:
        """(h, w) predicted ids and true instances."""
        self.tracks |= set(np.unique(ids[ids > 0]).tolist())
        for i in np.unique(truth[truth > 0]).tolist():
            found = np.bincount(ids[truth == i])
            if 2 * found[1:].sum() >= found.sum():
                best = int(found[1:].argmax()) + 1
                self.count += self.last.setdefault(i, best) != best
                self.last[i] = best


@cache
def truths(split: str, index: int, num_frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """True maps of a video at mask size."""
    sequence = SyntheticSequence(index, split=split, height=96, width=320)
    maps = (sequence.maps(t) for t in range(num_frames))
    return [(c[::STRIDE, ::STRIDE].copy(), i[::STRIDE, ::STRIDE].copy()) for c, i in maps]


def follow(
    arguments: argparse.Namespace, make: Callable[..., CodeReading | TrackIds], mistakes: Mistakes
) -> dict[str, float]:
    """STQ, AQ, id switches and ids of some videos."""
    metric, switches, num_tracks, truth_tracks = SegmentationTrackingQuality(), 0, 0, 0
    seconds = 0.0
    for index in range(arguments.num_sequences):
        model, past = CopyingModel(arguments.num_codes, mistakes, seed=index), deque[np.ndarray](maxlen=2)
        tracks, counter = make(num_codes=arguments.num_codes), Switches()
        for maps in truths(arguments.split, index, arguments.num_frames):
            class_map, instance_map = (m.astype(np.int64) for m in maps)
            known = [*past, tracks.expected_codes(class_map.shape)] if isinstance(tracks, TrackIds) else past
            codes = separated(model.step(class_map, instance_map, past), known, arguments.num_codes)
            begin = time.process_time()
            kept, table = tracks.update(codes[0], codes[1])
            seconds += time.process_time() - begin
            past.append(np.stack([codes[0], kept]))
            ids = np.zeros_like(kept)
            for (class_code, code), track_id in table.items():
                ids[(codes[0] == class_code) & (kept == code)] = track_id
            metric.update(codes[0] - 1, ids, class_map, instance_map, sequence_id=index)
            counter.update(ids, instance_map)
        switches += counter.count
        num_tracks += len(counter.tracks)
        truth_tracks += len(counter.last)
    result = metric.compute()
    frames = arguments.num_sequences * arguments.num_frames
    return {"stq": result["stq"], "aq": result["aq"], "switches": switches, "ids": num_tracks, "objects": truth_tracks,
            "ms": 1000 * seconds / frames}  # fmt: skip


class NoMotion(TrackIds):
    """Expects every object where it was."""

    def _commit(self, frame: Any, first_new: int) -> Any:
        result = super()._commit(frame, first_new)
        for track in self.tracks:
            track.velocity, track.growth = np.zeros(2), 1.0
        return result


class NoJoining(TrackIds):
    """Fragments are objects."""

    def _join_fragments(self, frame: Any, visible: list[int]) -> None:
        return


class NoSplitting(TrackIds):
    """What one code swallows is one object."""

    def _split_merged(self, frame: Any, visible: list[int], told: set[int]) -> None:
        return


class NoReentry(TrackIds):
    """Objects are remembered no longer than the model does."""

    def __init__(self, *, num_codes: int) -> None:
        super().__init__(num_codes=num_codes, memory=1)


METHODS: dict[str, Callable[..., CodeReading | TrackIds]] = {
    "codes": CodeReading,
    "TrackIds": TrackIds,
    "no motion": NoMotion,
    "no joining": NoJoining,
    "no splitting": NoSplitting,
    "no re-entry": NoReentry,
}


def endure(arguments: argparse.Namespace) -> None:
    """100 frames shown again and again as new ones: what is held and how long a frame takes, from time to time."""
    frames, tracks = truths(arguments.split, 0, 100), TrackIds(num_codes=arguments.num_codes)
    tracemalloc.start()
    seconds = 0.0
    print("| frame | ids given | tracks held | kB held | ms a frame (CPU) |\n|" + " --- |" * 5)
    for t in range(1, arguments.endurance + 1):
        class_map, instance_map = frames[t % 100]
        codes = np.where(instance_map > 0, (instance_map + t // 100) % arguments.num_codes + 1, 0)
        begin = time.process_time()
        tracks.update(class_map, codes)
        seconds += time.process_time() - begin
        if t % (arguments.endurance // 5) == 0:
            held, ms = tracemalloc.get_traced_memory()[0] / 1000, 5000 * seconds / arguments.endurance
            print(f"| {t} | {tracks.last_id} | {len(tracks.tracks)} | {held:.0f} | {ms:.1f} |", flush=True)
            seconds = 0.0


def main() -> None:
    """Prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="val")
    parser.add_argument("--num_sequences", type=int, default=2)
    parser.add_argument("--num_frames", type=int, default=500)
    parser.add_argument("--num_codes", type=int, default=15)
    parser.add_argument("--mistakes", nargs="+", choices=list(MISTAKES), default=list(MISTAKES))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS)[:2])
    parser.add_argument("--endurance", type=int, default=0, help="frames; nothing else is measured")
    arguments = parser.parse_args()
    if arguments.endurance:
        return endure(arguments)
    title = f"mistakes, {arguments.num_sequences} x {arguments.num_frames} frames"
    print(f"| {title} | ids from | STQ | AQ | id switches | ids given | ms a frame (CPU) |\n|" + " --- |" * 7)
    for kind in arguments.mistakes:
        for name in arguments.methods:
            r = follow(arguments, METHODS[name], MISTAKES[kind])
            scores = f"{r['stq']:.3f} | {r['aq']:.3f} | {r['switches']} | {r['ids']} of {r['objects']} | {r['ms']:.1f}"
            print(f"| {kind} | {name} | {scores} |", flush=True)


if __name__ == "__main__":
    main()
