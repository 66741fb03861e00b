"""Instance codes -> track ids that last: the model's codes are few, get reused, change, and two objects may share one.

Every track expects its mask in the next frame; segments go to the tracks that expect them where they are. NumPy only.
T tracks, S segments, h w map size; a box is top, left, bottom, right in pixels, the latter two exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MIN_IOU = 0.1  # of a segment with the expected mask of its track, unless it has the track's code
SAME_CODE = 0.5  # what the track's code is worth, in IoU
REACH = 1 / 12  # of the map's height: how far an object with its code, or one that was hidden, lies from its place
INSIDE = 0.6  # share of a segment in the expected mask of which it is a fragment
ALIKE = 3  # largest ratio of areas of one object before and after it was hidden
GROWTH = 1.25  # largest change of size in a frame
APART = 0.5  # share of a track's expected mask that a neighbour's code swallowed and the neighbour does not expect


@dataclass
class Track:
    """One object.

    Attributes:
        track_id: never given to another object.
        class_id: train id.
        code: the instance code by which the model knows the object; 0 when another object took it.
        corner: (2,) first row and column of `mask`.
        mask: bool, pixels of the last sighting.
        box: (4,) float64, where most of them are.
        velocity: (2,) float64 rows and columns a frame.
        growth: factor a frame.
        missing: frames since the last sighting.
        attached: ids of the tracks that it touched in every frame since both exist: perhaps parts of one object.
    """

    track_id: int
    class_id: int
    code: int = 0
    corner: np.ndarray = field(default_factory=lambda: np.zeros(2))
    mask: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    box: np.ndarray = field(default_factory=lambda: np.zeros(4))
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    growth: float = 1.0
    missing: int = -1
    attached: set[int] = field(default_factory=set)

    def expect(self, box: np.ndarray) -> np.ndarray:
        """(4,) where a box of the last sighting lies now: moved, and grown around the object's centre."""
        centre = (self.box[:2] + self.box[2:]) / 2
        growth = self.growth if self.missing == 0 else 1.0
        return np.concatenate([centre + self.velocity * (self.missing + 1) + (e - centre) * growth for e in (box[:2], box[2:])])

    def expected_mask(self, shape: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
        """The mask of the last sighting where it lies now: the part of the map and its pixels."""
        box = self.expect(np.concatenate([self.corner, self.corner + self.mask.shape]))
        places, samples = [], []
        for axis, length in enumerate(shape):
            first, last, n = box[axis], box[axis + 2], self.mask.shape[axis]
            low, high = (int(np.clip(np.round(edge), 0, length)) for edge in (first, last))
            share = (np.arange(low, high) + 0.5 - first) / (last - first)
            places.append(slice(low, high))
            samples.append((share * n).astype(np.int64).clip(0, n - 1))
        return (places[0], places[1]), self.mask[samples[0][:, None], samples[1]]

    def see(self, corner: np.ndarray, mask: np.ndarray, box: np.ndarray) -> None:
        """A sighting in the present frame."""
        if self.missing >= 0:
            frames = self.missing + 1
            moved = (box[:2] + box[2:] - self.box[:2] - self.box[2:]) / 2 / frames
            ratio = np.sqrt(np.prod(box[2:] - box[:2]) / np.prod(self.box[2:] - self.box[:2])) ** (1 / frames)
            self.velocity = (self.velocity + moved) / 2
            self.growth = float((self.growth * np.clip(ratio, 1 / GROWTH, GROWTH)) ** 0.5)
        self.corner, self.mask, self.box, self.missing = corner, mask, box, 0


class TrackIds:
    """Tells which segment of a frame is which object of the frames before.

    Memory is bounded by the number of codes and `memory`, time by the number of pixels.

    Args:
        num_codes: instance codes are 1 ... num_codes.
        memory: frames after which an unseen object is forgotten.
    """

    def __init__(self, *, num_codes: int, memory: int = 8) -> None:
        self.num_codes, self.memory = num_codes, memory
        self.reset()

    def reset(self) -> None:
        """Forgets the video; ids begin at 1 again."""
        self.tracks: list[Track] = []
        self.num_tracks = 0

    def update(self, class_map: np.ndarray, code_map: np.ndarray) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
        """Follows the objects into the next frame.

        Args:
            class_map: (h, w) integers.
            code_map: (h, w) instance codes, 0 = none.

        Returns:
            (h, w) int64 codes in which every object has one of its own, the same as in the frames before, and the
            (num_codes + 1,) int32 track id of each code, 0 where no object has it.
        """
        labels, classes, codes = number_segments(class_map, code_map)
        expected = [t.expected_mask(labels.shape) for t in self.tracks]
        overlap = np.array([np.bincount(labels[p][m], minlength=len(codes)) for p, m in expected], np.int64)
        overlap = overlap.reshape(len(expected), len(codes))
        overlap[:, 0] = 0
        owner = np.full(len(codes), -1)
        area = np.array([m.sum() for _, m in expected])
        self._match(owner, labels, classes, codes, overlap, area, hidden=False)
        self._join_fragments(owner, labels, classes, overlap, expected)
        self._match(owner, labels, classes, codes, overlap, area, hidden=True)
        labels, owner, classes, codes = self._split_merged(owner, labels, classes, codes, overlap, expected)
        return self._commit(labels, owner, classes, codes)

    def _match(
        self, owner: np.ndarray, labels: np.ndarray, classes: np.ndarray, codes: np.ndarray, overlap: np.ndarray, expected_area: np.ndarray, *, hidden: bool
    ) -> None:
        """Gives segments to the tracks that were seen in the last frame, or to the hidden ones: the best pairs first."""
        boxes, _, area = regions(labels, len(codes))
        pairs = []
        for t, track in enumerate(self.tracks):
            if (track.missing > 0) != hidden:
                continue
            iou = overlap[t] / np.maximum(expected_area[t] + area - overlap[t], 1)
            gap = box_gap(track.expect(track.box), boxes)
            same = codes == track.code
            size = track.mask.sum()
            alike = (area < ALIKE * size) & (size < ALIKE * area)
            near = (gap <= REACH * labels.shape[0]) & (alike if hidden else same)
            possible = (owner < 0) & (classes == track.class_id) & ((iou >= MIN_IOU) | near)
            possible[0] = False
            score = iou + SAME_CODE * same - 1e-3 * gap - 0.01 * track.missing
            pairs += [(-score[s], t, s) for s in np.flatnonzero(possible)]
        taken = set()
        for _, t, s in sorted(pairs):
            if owner[s] < 0 and t not in taken:
                owner[s] = t
                taken.add(t)

    def _join_fragments(
        self,
        owner: np.ndarray,
        labels: np.ndarray,
        classes: np.ndarray,
        overlap: np.ndarray,
        expected: list[tuple[tuple[slice, slice], np.ndarray]],
    ) -> None:
        """Segments of nobody that lie where objects expect themselves are parts of them."""
        area = np.bincount(labels.ravel(), minlength=len(owner))
        seen = [t for t in owner[owner >= 0].tolist() if not self.tracks[t].missing]
        for c in {self.tracks[t].class_id for t in seen}:
            mine = [t for t in seen if self.tracks[t].class_id == c]
            union = np.zeros(labels.shape, bool)
            for t in mine:
                union[expected[t][0]] |= expected[t][1]
            inside = np.bincount(labels[union], minlength=len(owner))
            for s in np.flatnonzero((owner < 0) & (classes == c) & (inside >= INSIDE * area)):
                owner[s] = mine[int(overlap[mine, s].argmax())]

    def _split_merged(
        self,
        owner: np.ndarray,
        labels: np.ndarray,
        classes: np.ndarray,
        codes: np.ndarray,
        overlap: np.ndarray,
        expected: list[tuple[tuple[slice, slice], np.ndarray]],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A segment that covers where another track expects itself is shared between the two."""
        for t in set(range(len(self.tracks))) - set(owner[owner >= 0]):
            track = self.tracks[t]
            s = int(overlap[t].argmax())
            if track.missing or not overlap[t, s] or owner[s] < 0 or classes[s] != track.class_id:
                continue
            other = self.tracks[owner[s]]
            if other.track_id in track.attached or track.track_id in other.attached:
                continue
            mine, theirs = (paint(labels.shape, *expected[k]) for k in (t, owner[s]))
            here = labels == s
            if (mine & ~theirs & here).sum() < APART * mine.sum():
                continue
            closer = box_distance(track.expect(track.box), labels.shape) < box_distance(
                other.expect(other.box), labels.shape
            )
            part = here & ((mine & ~theirs) | ((mine == theirs) & closer))
            labels = np.where(part, len(codes), labels)
            owner, classes = np.append(owner, t), np.append(classes, classes[s])
            codes = np.append(codes, codes[s])
        return labels, owner, classes, codes

    def _commit(
        self, labels: np.ndarray, owner: np.ndarray, classes: np.ndarray, codes: np.ndarray
    ) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
        """Moves the tracks to where they were found, begins new ones, forgets old ones, gives each a code."""
        before = len(self.tracks)
        for s in np.flatnonzero(owner[1:] < 0) + 1:
            owner[s] = len(self.tracks)
            self.num_tracks += 1
            self.tracks.append(Track(self.num_tracks, int(classes[s])))
        found = np.append(-1, owner[1:])[labels]  # (h, w) index of the track
        boxes, full, area = regions(found + 1, len(self.tracks) + 1)
        wanted = {}
        for s in np.argsort(-np.bincount(labels.ravel(), minlength=len(owner)), kind="stable"):
            if s:
                wanted.setdefault(int(owner[s]), int(codes[s]))
        for t, track in enumerate(self.tracks):
            if not area[t + 1]:
                track.missing += 1
                continue
            top, left, bottom, right = full[t + 1]
            track.see(full[t + 1, :2], found[top:bottom, left:right] == t, boxes[t + 1])
        self._attach(found, before)
        self._give_codes(wanted)
        code_of = np.array([0, *(t.code for t in self.tracks)])
        table = {(t.class_id, t.code): t.track_id for t in self.tracks if not t.missing}
        self.tracks = [t for t in self.tracks if t.missing <= self.memory]
        return code_of[found + 1], table

    def _attach(self, found: np.ndarray, before: int) -> None:
        touching: dict[int, set[int]] = {}
        for a, b in touching_pairs(found):
            touching.setdefault(a, set()).add(self.tracks[b].track_id)
            touching.setdefault(b, set()).add(self.tracks[a].track_id)
        visible = {t.track_id for t in self.tracks if not t.missing}
        for t, track in enumerate(self.tracks):
            if track.missing:
                continue
            now = touching.get(t, set())
            track.attached = set(now) if t >= before else {i for i in track.attached if i in now or i not in visible}
        alive = {t.track_id for t in self.tracks if t.missing <= self.memory}
        for track in self.tracks:
            track.attached &= alive

    def _give_codes(self, wanted: dict[int, int]) -> None:
        """New tracks take the code of their segment, or another one where it is held; a hidden track loses its code last."""
        for t, code in wanted.items():
            track = self.tracks[t]
            if track.code:
                continue
            held = {u.code for u in self.tracks}
            in_class = {u.code for u in self.tracks if u.class_id == track.class_id and not u.missing}
            choices = [code, *range(1, self.num_codes + 1)]
            free = [c for c in choices if c not in held] or [c for c in choices if c not in in_class]
            track.code = free[0]
            for other in self.tracks:
                if other.missing and other.code == track.code and other.class_id == track.class_id:
                    other.code = 0


def number_segments(class_map: np.ndarray, code_map: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(h, w) numbers 1 ... S of the segments, 0 = no instance, and (S + 1,) class and code of each number."""
    there = code_map > 0
    keys, index = np.unique(class_map[there].astype(np.int64) << 32 | code_map[there].astype(np.int64), return_inverse=True)
    labels = np.zeros(code_map.shape, np.int64)
    labels[there] = index.ravel() + 1
    return labels, np.append(-1, keys >> 32), np.append(-1, keys & 0xFFFFFFFF)


def regions(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the numbers 1 ... n - 1 of a map: (n, 4) boxes of most of their pixels, (n, 4) boxes of all, (n,) areas."""
    most, every, area = np.zeros((n, 4)), np.zeros((n, 4), np.int64), np.zeros(n, np.int64)
    rows, cols = np.nonzero(labels)
    numbers = labels[rows, cols]
    present, counts = np.unique(numbers, return_counts=True)
    area[present] = counts
    last = np.cumsum(counts) - 1
    first = last - counts + 1
    few = counts // 20
    for axis, places in enumerate((rows, cols)):
        places = places[np.lexsort((places, numbers))]
        every[present, axis], every[present, axis + 2] = places[first], places[last] + 1
        most[present, axis], most[present, axis + 2] = places[first + few], places[last - few] + 1
    return most, every, area


def box_gap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n,) distance between a box and others, 0 where they overlap: the greater one of rows and columns."""
    return np.maximum(np.maximum(boxes[:, :2] - box[2:], box[:2] - boxes[:, 2:]), 0).max(1)


def box_distance(box: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(h, w) distance from the centre of a box in half sizes of it."""
    centre, half = (box[:2] + box[2:]) / 2, np.maximum(box[2:] - box[:2], 1) / 2
    rows, cols = (np.abs(np.arange(n) + 0.5 - c) / s for n, c, s in zip(shape, centre, half, strict=True))
    return np.hypot(rows[:, None], cols)


def paint(shape: tuple[int, int], place: tuple[slice, slice], mask: np.ndarray) -> np.ndarray:
    """(h, w) boolean map of a mask at its place."""
    canvas = np.zeros(shape, bool)
    canvas[place] = mask
    return canvas


def touching_pairs(found: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of numbers >= 0 of neighbouring pixels."""
    pairs = set()
    for a, b in ((found[1:], found[:-1]), (found[:, 1:], found[:, :-1])):
        border = (a != b) & (a >= 0) & (b >= 0)
        pairs |= set(zip(a[border].tolist(), b[border].tolist(), strict=True))
    return pairs
