"""All metrics in one pass over maps in memory, from one histogram per frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pix2seq_d.labels import LabelSpec
from pix2seq_d.metrics import MeanIoU, PanopticQuality, SegmentationTrackingQuality, VideoPanopticQuality
from pix2seq_d.metrics.counts import (
    ClassLayout,
    IntegerMap,
    JointCounts,
    SegmentationMetric,
    SequenceId,
    joint_counts,
)

VIDEO_METRICS = ("stq", "vpq")  # they follow objects from frame to frame
IMAGE_METRICS = ("pq", "miou")
METRICS = (*VIDEO_METRICS, *IMAGE_METRICS)


class Evaluator:
    """PQ, VPQ, STQ and mIoU from one histogram per frame; VPQ and STQ only where the spec has things.

    Args:
        spec: the classes.
        windows: window sizes of VPQ.
        metrics: names of METRICS; None takes all that the spec has.
        options: further keyword arguments of single metrics by their names, for example the variant of a benchmark:
            {"pq": {"subtract_void": False}}.

    Raises:
        ValueError: an unknown metric, none, or one of things for a spec without them.
    """

    def __init__(
        self,
        spec: LabelSpec,
        *,
        windows: Sequence[int] = (1, 2, 3, 4),
        metrics: Sequence[str] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        known = METRICS if spec.thing_ids else IMAGE_METRICS
        chosen = known if metrics is None else tuple(metrics)
        if not chosen or any(name not in known for name in chosen):
            got = next((name for name in chosen if name not in known), "none")
            raise ValueError(f"metrics: expected some of {', '.join(known)} for label spec {spec.name}, got {got}")
        self.spec = spec
        self.num_frames: dict[SequenceId, int] = {}
        classes = spec.num_classes, spec.thing_ids, spec.void_id
        self.layout = ClassLayout(*classes)
        more = {name: dict((options or {}).get(name, {})) for name in METRICS}
        # VPQ first: it is the one that may refuse a frame or a merge, before another metric has counted it.
        makers = {
            "vpq": lambda: VideoPanopticQuality(*classes, windows=windows, **more["vpq"]),
            "stq": lambda: SegmentationTrackingQuality(*classes, **more["stq"]),
            "pq": lambda: PanopticQuality(*classes, **more["pq"]),
            "miou": lambda: MeanIoU(spec.num_classes, spec.void_id, **more["miou"]),
        }
        self.metrics: dict[str, SegmentationMetric] = {name: make() for name, make in makers.items() if name in chosen}

    def update(
        self,
        pred_semantic: IntegerMap,
        pred_instance: IntegerMap | None,
        target_semantic: IntegerMap,
        target_instance: IntegerMap | None,
        sequence_id: SequenceId = "0",
        *,
        frame: int | None = None,
        where: str | None = None,
    ) -> None:
        """Adds one frame; the frames of a sequence come in order and in one go.

        Args:
            pred_semantic: (H, W) class ids, NumPy array or tensor of any integer dtype.
            pred_instance: (H, W) instance ids; None only for a spec without things.
            target_semantic: (H, W) class ids.
            target_instance: (H, W) instance ids, 0 = crowd in thing classes; None as above.
            sequence_id: the video.
            frame: its number, for error messages and to have the order checked; gaps are allowed. None: unknown.
            where: beginning of messages about the maps, sequence and frame number if None.

        Raises:
            TypeError, ValueError: as `pix2seq_d.metrics.counts.joint_counts`; nothing is counted then.
            ValueError: `frame` is not above the last one of its sequence; nothing is counted then.
        """
        number = self.num_frames.get(sequence_id, 0) if frame is None else frame
        where = where or f"sequence {sequence_id!r}, frame {number}"
        maps = pred_semantic, pred_instance, target_semantic, target_instance
        self.update_counts(joint_counts(*maps, layout=self.layout, where=where), sequence_id, frame=frame)

    def update_counts(self, counts: JointCounts, sequence_id: SequenceId = "0", *, frame: int | None = None) -> None:
        """Adds one frame whose histogram (`joint_counts` with this layout) is known already; `frame` as in `update`."""
        for metric in self.metrics.values():
            metric.update_counts(counts, sequence_id=sequence_id, frame=frame)
        self.num_frames[sequence_id] = self.num_frames.get(sequence_id, 0) + 1

    def merge(self, other: Evaluator) -> None:
        """Adds what `other` has seen: the result is exactly that of one evaluator that has seen everything.

        Raises:
            ValueError: another spec or other metrics, or a sequence that both have seen; nothing is added then.
        """
        if other.spec != self.spec:
            raise ValueError(f"merge: expected label spec {self.spec.name}, got {other.spec.name}")
        if other.metrics.keys() != self.metrics.keys():
            raise ValueError(f"merge: expected metrics {', '.join(self.metrics)}, got {', '.join(other.metrics)}")
        if shared := sorted(str(s) for s in self.num_frames.keys() & other.num_frames.keys()):
            raise ValueError(f"merge: expected disjoint sequences, got {', '.join(shared[:10])} in both")
        for name, metric in self.metrics.items():
            metric.merge(other.metrics[name])
        self.num_frames |= other.num_frames

    def compute(self) -> dict[str, Any]:
        """Everything as one dict that JSON can hold.

        Returns:
            `spec` and `num_frames`; under `pq`, `vpq`, `stq` and `miou` what those metrics' `compute` gives, with class
            names as keys of `per_class` and strings as all other keys; what is not computed is missing.
        """
        results = {name: self.metrics[name].compute() for name in ("pq", "vpq", "stq", "miou") if name in self.metrics}
        return {
            "spec": self.spec.name,
            "num_frames": sum(self.num_frames.values()),
            **{name: _with_names(result, self.spec.class_names) for name, result in results.items()},
        }

    def reset(self) -> None:
        """Forgets everything that was added."""
        self.num_frames = {}
        for metric in self.metrics.values():
            metric.reset()


def _with_names(result: Any, class_names: Sequence[str], *, of_classes: bool = False) -> Any:
    if not isinstance(result, dict):
        return result
    names = {key: class_names[key] if of_classes and isinstance(key, int) else str(key) for key in result}
    return {names[k]: _with_names(v, class_names, of_classes=k == "per_class") for k, v in result.items()}
