"""What all metrics share: frames counted per sequence and held in order, exact merging, forgetting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias, TypeVar

SequenceId: TypeAlias = str | int
Self = TypeVar("Self", bound="StreamingMetric")


class StreamingMetric(ABC):
    """A metric that takes one frame after another and can be cut into shards of whole sequences.

    Attributes:
        options: the settings, which must be equal where two metrics merge.
        num_frames: frames seen, per sequence.
    """

    shares_sequences = False  # whether two merged metrics may have seen frames of one sequence
    interleaves = False  # whether frames of several sequences may alternate

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.reset()

    def merge(self: Self, other: Self) -> None:
        """Adds what `other` has seen; the result is exactly that of one metric that has seen everything.

        The order in which shards merge changes no bit of a score. To send a metric to another process, pickle it.

        Raises:
            TypeError: `other` is another kind of metric.
            ValueError: other settings, or a sequence that both have seen where frames of a sequence belong together.
        """
        if type(other) is not type(self):
            raise TypeError(f"merge: expected a {type(self).__name__}, got a {type(other).__name__}")
        if other.options != self.options:
            raise ValueError(f"merge: expected {self.options}, got {other.options}")
        shared = sorted(str(s) for s in self.num_frames.keys() & other.num_frames.keys())
        if shared and not self.shares_sequences:
            raise ValueError(f"merge: expected disjoint sequences, got {', '.join(shared[:10])} in both")
        self._merge(other)
        for sequence_id, n in other.num_frames.items():
            self.num_frames[sequence_id] = self.num_frames.get(sequence_id, 0) + n
        for sequence_id, frame in other._newest.items():
            self._newest[sequence_id] = max(frame, self._newest.get(sequence_id, frame))

    def reset(self) -> None:
        """Forgets everything that was added."""
        self.num_frames: dict[SequenceId, int] = {}
        self._newest: dict[SequenceId, int] = {}  # the newest frame number of every sequence, where numbers are given
        self._open: SequenceId | None = None  # the sequence of the newest frame
        self._clear()

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """The result for everything that was added; more may be added afterwards."""

    def _where(self, sequence_id: SequenceId, frame: int | None) -> str:
        """The beginning of error messages; without a frame number the place in the sequence, from 0."""
        number = self.num_frames.get(sequence_id, 0) if frame is None else frame
        return f"sequence {sequence_id!r}, frame {number}"

    def _check_order(self, sequence_id: SequenceId, frame: int | None) -> None:
        """Raises ValueError where a frame is not newer than the last one, or its sequence has been left."""
        where = self._where(sequence_id, frame)
        if not self.interleaves and sequence_id != self._open and sequence_id in self.num_frames:
            raise ValueError(f"{where}: expected all frames in one go, got one after {self._open!r}")
        if frame is not None and frame <= self._newest.get(sequence_id, frame - 1):
            raise ValueError(f"{where}: expected frames in ascending order, got it after {self._newest[sequence_id]}")

    def _count(self, sequence_id: SequenceId, frame: int | None) -> None:
        """Notes a frame that has been added."""
        self._open = sequence_id
        self.num_frames[sequence_id] = self.num_frames.get(sequence_id, 0) + 1
        if frame is not None:
            self._newest[sequence_id] = frame

    @abstractmethod
    def _merge(self, other: Any) -> None: ...

    @abstractmethod
    def _clear(self) -> None: ...
