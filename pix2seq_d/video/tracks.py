"""Instance codes -> track ids that last: the model's codes are few, get reused, change, and two objects may share one.

Every track expects its mask in the next frame; segments go to the tracks that expect them where they are. NumPy only.
h w map size, S segments; a box is (top, left, bottom, right) in pixels, the latter two exclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

MIN_IOU = 0.1  # of a segment with the mask that its track expects
SAME_CODE = 0.5  # what the track's code is worth in IoU
REACH = 1 / 12  # of the map's height: how far from its place an object with its code, or a hidden one, is found again
ALIKE = 3.0  # largest ratio of an object's areas before and after it was hidden
APART = 0.5  # share of an expected mask that a segment covers where its own track is not expected
MAX_GROWTH = 1.25  # a frame

Place = tuple[slice, slice]


@dataclass
class Track:
    """One object.

    Attributes:
        track_id: given to no other object before all ids were in use once.
        class_id: its class.
        code: instance code by which the model knows it; 0 when it was hidden and another object took the code.
        mask: bool, its pixels in the last sighting.
        corner: (2,) first row and column of `mask`.
        box: (4,) float64 around nearly all of its pixels: a stray one does not count.
        velocity: (2,) float64 rows and columns a frame.
        growth: change of its size a frame.
        missing: frames since the last sighting, -1 before the first.
        attached: ids of the tracks that it touched in every frame since it began: they may be parts of one object.
    """

    track_id: int
    class_id: int
    code: int = 0
    mask: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    corner: np.ndarray = field(default_factory=lambda: np.zeros(2))
    box: np.ndarray = field(default_factory=lambda: np.zeros(4))
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    growth: float = 1.0
    missing: int = -1
    attached: set[int] = field(default_factory=set)

    def see(self, corner: np.ndarray, mask: np.ndarray, box: np.ndarray) -> None:
        """A sighting in the present frame; velocity and growth are means that halve the weight of the past."""
        if self.missing >= 0:
            frames = self.missing + 1
            moved = (box[:2] + box[2:] - self.box[:2] - self.box[2:]) / 2
            grown = np.sqrt(np.prod(box[2:] - box[:2]) / np.prod(self.box[2:] - self.box[:2]))
            self.velocity = (self.velocity + moved / frames) / 2
            self.growth = float(np.sqrt(self.growth * np.clip(grown ** (1 / frames), 1 / MAX_GROWTH, MAX_GROWTH)))
        self.corner, self.mask, self.box, self.missing = corner, mask, box, 0

    def expect(self, box: np.ndarray) -> np.ndarray:
        """(4,) where a box of the last sighting lies in the next frame; hidden objects move but do not grow."""
        centre, growth = (self.box[:2] + self.box[2:]) / 2, 1.0 if self.missing else self.growth
        edges = centre + (box.reshape(2, 2) - centre) * growth + self.velocity * (self.missing + 1)
        return edges.ravel()

    def expected_mask(self, shape: tuple[int, int]) -> tuple[Place, np.ndarray]:
        """The mask of the last sighting where it lies in the next frame: a part of the map and its pixels."""
        box = self.expect(np.concatenate([self.corner, self.corner + self.mask.shape]))
        places, samples = [], []
        for first, last, length, n in zip(box[:2], box[2:], shape, self.mask.shape, strict=True):
            low, high = (min(max(round(edge), 0), length) for edge in (first, last))
            share = (np.arange(low, high) + 0.5 - first) / (last - first)
            places.append(slice(low, high))
            samples.append((share * n).astype(np.int64).clip(0, n - 1))
        return (places[0], places[1]), self.mask[samples[0][:, None], samples[1]]


class _Frame:
    """The segments of a frame, numbered from 1, what the tracks expected there, and whose they are."""

    def __init__(self, class_map: np.ndarray, code_map: np.ndarray, tracks: list[Track]) -> None:
        self.labels, self.classes, self.codes = number_segments(class_map, code_map)  # class and code of 0 are -1
        self.boxes, _, self.area = regions(self.labels, len(self.codes))
        self.owner = np.full(len(self.codes), -1)  # index of the track
        self.expected = [t.expected_mask(self.labels.shape) for t in tracks]
        overlap = [np.bincount(self.labels[place][mask], minlength=len(self.codes)) for place, mask in self.expected]
        self.overlap = np.array(overlap, np.int64).reshape(len(tracks), len(self.codes))
        self.overlap[:, 0] = 0

    def owned(self) -> set[int]:
        """Tracks that have a segment."""
        return set(self.owner[self.owner >= 0].tolist())

    def iou(self, track: int, segments: np.ndarray) -> float:
        """Of a track's expected mask with the union of segments."""
        overlap = self.overlap[track, segments].sum()
        return float(overlap / (self.expected[track][1].sum() + self.area[segments].sum() - overlap))

    def paint(self, track: int) -> np.ndarray:
        """(h, w) bool, where a track is expected."""
        canvas = np.zeros(self.labels.shape, bool)
        place, mask = self.expected[track]
        canvas[place] = mask
        return canvas

    def cut(self, part: np.ndarray, segment: int, owner: int) -> None:
        """Makes a part of a segment one of its own."""
        self.labels[part] = len(self.codes)
        self.owner = np.append(self.owner, owner)
        self.classes, self.codes = (np.append(x, x[segment]) for x in (self.classes, self.codes))


class TrackIds:
    """Tells which segment of a frame is which object of the frames before.

    Memory is bounded by the number of codes and `memory`; time is linear in the pixels.

    Args:
        num_codes: instance codes are 1 ... num_codes.
        past_frames: a code says nothing about an object that the model has not seen for so many frames.
        memory: an object that was not seen for so many frames is forgotten.
        max_id: track ids are 1 ... max_id, which is what a map on disk holds; after it come those that are free again.
    """

    def __init__(self, *, num_codes: int, past_frames: int = 2, memory: int = 8, max_id: int = (1 << 16) - 1) -> None:
        self.num_codes, self.past_frames, self.memory, self.max_id = num_codes, past_frames, memory, max_id
        self.reset()

    def reset(self, *, first_id: int = 1) -> None:
        """Forgets the video; ids of new tracks begin at `first_id`; raises ValueError if it is not 1 ... max_id."""
        if not 1 <= first_id <= self.max_id:
            raise ValueError(f"first_id: expected 1..{self.max_id}, got {first_id}")
        self.tracks: list[Track] = []
        self.last_id = first_id - 1

    def reserve(self, last_id: int) -> None:
        """New tracks get ids above this one, which a user has given to an object."""
        self.last_id = max(self.last_id, last_id)

    def expected_codes(self, shape: tuple[int, int]) -> np.ndarray:
        """(2, h, w) int64 classes and codes where the objects of the last frames are expected; elsewhere 0."""
        codes = np.zeros((2, *shape), np.int64)
        for track in self.tracks:
            if track.missing < self.past_frames:
                place, mask = track.expected_mask(shape)
                codes[0][place][mask], codes[1][place][mask] = track.class_id, track.code
        return codes

    def codes_of(self, objects: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
        """Codes for objects whose ids are told: a track keeps its own, any other object takes one that is free.

        Args:
            objects: (class, track id); the first ones choose first. At most `num_codes` of a class.

        Returns:
            {(class, track id): code}, different ones within a class, and everywhere as far as there are enough.
        """
        own = {(t.class_id, t.track_id): t.code for t in self.tracks if t.code}
        codes: dict[tuple[int, int], int] = {}
        for known in objects:
            if known in own and own[known] not in self._codes_of_class(codes, known[0]):
                codes[known] = own[known]
        hidden_first = sorted(self.tracks, key=lambda track: -track.missing)
        held = [t.code for t in hidden_first if t.code]
        # in an order as random as training's codes: 1, 2, 3, ... differ from each other, and from 0, in a bit or two
        spread = np.random.default_rng(0).permutation(self.num_codes) + 1
        order = [k for k in spread.tolist() if k not in held] + held
        for known in objects:
            if known not in codes:
                taken = self._codes_of_class(codes, known[0])
                free = [k for k in order if k not in taken]
                codes[known] = next((k for k in free if k not in codes.values()), free[0])
        return codes

    @staticmethod
    def _codes_of_class(codes: Mapping[tuple[int, int], int], class_id: int) -> set[int]:
        return {code for (of_class, _), code in codes.items() if of_class == class_id}

    def update(
        self, class_map: np.ndarray, code_map: np.ndarray, known: Mapping[tuple[int, int], int] | None = None
    ) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
        """Follows the objects into the next frame.

        Args:
            class_map: (h, w) integers >= 0.
            code_map: (h, w) instance codes, 0 = no instance.
            known: {(class, code): track id} of objects that are told, in the codes of `codes_of`; None = none are.

        Returns:
            (h, w) int64 codes by which the model should remember the frame: every object has the code that it had
            before, and no other object of its class has it; and {(class, code): track id} of the frame's objects.
        """
        frame = _Frame(class_map, code_map, self.tracks)
        visible = [t for t, track in enumerate(self.tracks) if not track.missing]
        hidden = [t for t, track in enumerate(self.tracks) if track.missing]
        told = self._tell(frame, known or {})
        self._match(frame, [t for t in visible if t not in told])
        self._join_fragments(frame, visible)
        self._match(frame, [t for t in hidden if t not in told])
        self._split_merged(frame, visible, told)
        return self._commit(frame, first_new=len(visible) + len(hidden))

    def _tell(self, frame: _Frame, known: Mapping[tuple[int, int], int]) -> set[int]:
        """Gives the segments that are told to their tracks, or to new ones; the indices of these tracks."""
        index = {(t.class_id, t.track_id): i for i, t in enumerate(self.tracks)}
        for s in range(1, len(frame.codes)):
            class_id, code = int(frame.classes[s]), int(frame.codes[s])
            if (class_id, code) in known:
                track_id = known[class_id, code]
                if (class_id, track_id) not in index:
                    index[class_id, track_id] = len(self.tracks)
                    self.tracks.append(Track(track_id, class_id))
                frame.owner[s] = index[class_id, track_id]
                for rival in self.tracks:
                    rival.code *= (rival.class_id, rival.code) != (class_id, code)
                self.tracks[frame.owner[s]].code = code
                self.reserve(track_id)
        return frame.owned()

    def _match(self, frame: _Frame, candidates: list[int]) -> None:
        """One segment for each track, the best pairs first."""
        pairs = []
        for t in candidates:
            track, overlap = self.tracks[t], frame.overlap[t]
            union = frame.expected[t][1].sum() + frame.area - overlap
            iou = overlap / np.maximum(union, 1)
            gap = box_gap(track.expect(track.box), frame.boxes)
            same = (frame.codes == track.code) & (track.missing < self.past_frames)
            if track.missing:
                size = track.mask.sum()
                likely = (frame.area <= ALIKE * size) & (size <= ALIKE * frame.area)
            else:
                likely = iou >= MIN_IOU
            near = gap <= REACH * frame.labels.shape[0]
            possible = (frame.owner < 0) & (frame.classes == track.class_id) & near & (likely | same)
            score = iou + SAME_CODE * same - 1e-3 * gap
            pairs += [(-score[s], t, s) for s in np.flatnonzero(possible)]
        matched: set[int] = set()
        for _, t, s in sorted(pairs):
            if frame.owner[s] < 0 and t not in matched:
                frame.owner[s] = t
                matched.add(t)

    def _join_fragments(self, frame: _Frame, visible: list[int]) -> None:
        """A segment of nobody that makes an object more like its expected mask is a part of it."""
        found = [t for t in visible if t in frame.owned()]
        for s in np.argsort(-frame.overlap.max(0, initial=0), kind="stable"):
            of_class = [t for t in found if self.tracks[t].class_id == frame.classes[s]]
            if frame.owner[s] < 0 and of_class:
                t = max(of_class, key=lambda t: frame.overlap[t, s])
                parts = np.flatnonzero(frame.owner == t)
                if frame.iou(t, np.append(parts, s)) > frame.iou(t, parts):
                    frame.owner[s] = t

    def _split_merged(self, frame: _Frame, visible: list[int], told: set[int]) -> None:
        """A segment where two objects that once were apart are expected, and with room for both, is shared out."""
        for t in sorted(set(visible) - frame.owned()):
            track, s = self.tracks[t], int(frame.overlap[t].argmax())
            alone = frame.owner[s] < 0 or frame.owner[s] in told
            if alone or frame.classes[s] != track.class_id or len(frame.codes) > self.num_codes:
                continue
            other = self.tracks[frame.owner[s]]
            here, mine, theirs = frame.labels == s, frame.paint(t), frame.paint(int(frame.owner[s]))
            room = here.sum() >= theirs.sum() + APART * mine.sum()
            if room and (here & mine & ~theirs).sum() >= APART * mine.sum() and not self._attached(track, other):
                boxes = (k.expect(k.box) for k in (track, other))
                closer, further = (box_distance(box, here.shape) for box in boxes)
                frame.cut(here & np.where(mine == theirs, closer < further, mine), s, t)

    def _commit(self, frame: _Frame, first_new: int) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
        """Begins tracks for the segments that are left, moves all to where they were found, forgets old ones."""
        for s in np.flatnonzero(frame.owner[1:] < 0) + 1:
            frame.owner[s] = len(self.tracks)
            self.tracks.append(Track(self._next_id(), int(frame.classes[s])))
        found = frame.owner[frame.labels]  # (h, w) index of the track, -1 = none
        boxes, full, area = regions(found + 1, len(self.tracks) + 1)
        for t, track in enumerate(self.tracks):
            if area[t + 1]:
                top, left, bottom, right = full[t + 1]
                track.see(full[t + 1, :2], found[top:bottom, left:right] == t, boxes[t + 1])
            else:
                track.missing += 1
        self._attach(found, first_new)
        self._give_codes(frame)
        codes = np.array([*(t.code for t in self.tracks), 0])[found]  # -1 is the last
        self.tracks = [t for t in self.tracks if t.missing <= self.memory]
        return codes, {(t.class_id, t.code): t.track_id for t in self.tracks if not t.missing}

    def _next_id(self) -> int:
        """The id of a new track; in a video of more objects than ids, the next one that nobody has."""
        taken = {track.track_id for track in self.tracks}
        while True:
            self.last_id = self.last_id % self.max_id + 1
            if self.last_id not in taken:
                return self.last_id

    def _attach(self, found: np.ndarray, first_new: int) -> None:
        """Drops what a track no longer touches; a new track is attached to all that it touches."""
        ids = {t: track.track_id for t, track in enumerate(self.tracks) if not track.missing}
        beside: dict[int, set[int]] = {t: set() for t in ids}
        for a, b in touching_pairs(found):
            beside[a].add(ids[b])
            beside[b].add(ids[a])
        hidden = {track.track_id for track in self.tracks if 0 < track.missing <= self.memory}
        for t, track in enumerate(self.tracks):
            if t >= first_new:
                track.attached = beside[t]
            else:
                track.attached &= hidden | (beside[t] if t in ids else set(ids.values()))

    def _attached(self, one: Track, other: Track) -> bool:
        return other.track_id in one.attached or one.track_id in other.attached

    def _give_codes(self, frame: _Frame) -> None:
        """A track keeps its code; a new one takes that of its largest segment or, where it is held, another one."""
        for s in np.argsort(-frame.area, kind="stable"):
            if frame.owner[s] < 0 or self.tracks[frame.owner[s]].code:
                continue
            track = self.tracks[frame.owner[s]]
            rivals = [t for t in self.tracks if t.class_id == track.class_id]
            held, seen = {t.code for t in self.tracks}, {t.code for t in rivals if not t.missing}
            choices = [int(frame.codes[s]), *range(1, self.num_codes + 1)]
            track.code = next((c for c in choices if c not in held), 0) or next(c for c in choices if c not in seen)
            for rival in rivals:
                if rival.missing and rival.code == track.code:
                    rival.code = 0


def number_segments(class_map: np.ndarray, code_map: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(h, w) numbers 1 ... S of the pairs of a class and a code, 0 = code 0; (S + 1,) their classes and codes."""
    there = code_map > 0
    keys = class_map[there].astype(np.int64) << 32 | code_map[there].astype(np.int64)
    keys, index = np.unique(keys, return_inverse=True)
    labels = np.zeros(code_map.shape, np.int64)
    labels[there] = index.ravel() + 1
    return labels, np.append(-1, keys >> 32), np.append(-1, keys & 0xFFFFFFFF)


def regions(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the numbers 1 ... n - 1 of a map are; 0 where one is not.

    Returns:
        (n, 4) float64 boxes without the outermost twentieth of the pixels on each side, (n, 4) int64 boxes of all
        pixels, and (n,) numbers of pixels.
    """
    inner, full, area = np.zeros((n, 4)), np.zeros((n, 4), np.int64), np.zeros(n, np.int64)
    rows, columns = np.nonzero(labels)
    numbers = labels[rows, columns]
    present, counts = np.unique(numbers, return_counts=True)
    last = np.cumsum(counts) - 1
    first = last - counts + 1
    for axis, places in enumerate((rows, columns)):
        places = places[np.lexsort((places, numbers))]
        full[present, axis], full[present, axis + 2] = places[first], places[last] + 1
        inner[present, axis], inner[present, axis + 2] = places[first + counts // 20], places[last - counts // 20] + 1
    area[present] = counts
    return inner, full, area


def box_gap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n,) rows or columns, the greater of both, between a box and each of (n, 4) boxes; 0 where they touch."""
    return np.maximum(np.maximum(boxes[:, :2] - box[2:], box[:2] - boxes[:, 2:]), 0).max(1)


def box_distance(box: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w) distance of every pixel from the centre of a box, in half sizes of the box."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    rows, columns = (np.abs(np.arange(n) + 0.5 - c) / r for n, c, r in zip(shape, centre, half, strict=True))
    return np.hypot(rows[:, None], columns)


def touching_pairs(numbers: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of different numbers >= 0 that neighbouring pixels have."""
    pairs = set()
    for a, b in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
        border = (a != b) & (a >= 0) & (b >= 0)
        pairs |= set(zip(a[border].tolist(), b[border].tolist(), strict=True))
    return pairs
