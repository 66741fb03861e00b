"""Scoring by sequence: in this process, on all its cores, and on all ranks of a `torchrun` or `accelerate launch`.

A sequence is scored in one piece and the parts are merged in the order of the sequences. Merging is exact, so the
result is that of one pass bit for bit, however the sequences were shared.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.engine.failures import FailureLog, SequenceFailures
from pix2seq_d.engine.pairs import FolderPairs, Pairs
from pix2seq_d.engine.ranks import connected_ranks
from pix2seq_d.labels import LabelSpec
from pix2seq_d.metrics.counts import joint_counts

FRAMES_PER_WORKER = 64  # fewer are scored sooner than a process has started
CHUNK_FRAMES = 64  # still images are handed out this many at a time


@dataclass(frozen=True)
class Scoring:
    """What is computed.

    Attributes:
        metrics: names of METRICS; None takes all.
        windows: sizes of VPQ.
        options: variants, as for Evaluator.
        per_sequence: also score every sequence alone.
        sequence_classes: with the scores of its classes; of many stills with many classes these take much memory.
        failures: also gather what goes wrong.
    """

    metrics: tuple[str, ...] | None = None
    windows: tuple[int, ...] = (1, 2, 3, 4)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    per_sequence: bool = False
    sequence_classes: bool = True
    failures: bool = False

    def evaluator(self, spec: LabelSpec) -> Evaluator:
        """A new one for maps of `spec`."""
        return Evaluator(spec, windows=self.windows, metrics=self.metrics, options=self.options)


@dataclass
class Scores:
    """Sequences that have been scored.

    Attributes:
        evaluator: of all of them.
        per_sequence: what `Evaluator.compute` gives for each, where it is asked for, with or without its classes.
        failures: of each, where they are asked for.
    """

    evaluator: Evaluator
    per_sequence: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, SequenceFailures] = field(default_factory=dict)

    def merge(self, other: Scores) -> None:
        """Adds other sequences; raises ValueError, and adds nothing, if one of them is here already."""
        self.evaluator.merge(other.evaluator)
        self.per_sequence |= other.per_sequence
        self.failures |= other.failures


def evaluate_folders(
    predictions: str | os.PathLike[str],
    ground_truth: str | os.PathLike[str],
    spec: LabelSpec,
    *,
    windows: Sequence[int] = (1, 2, 3, 4),
    own_maps: bool = False,
    num_workers: int | None = 0,
) -> dict[str, Any]:
    """Evaluates a folder of predicted maps with all metrics.

    Args:
        predictions: as FolderPairs says.
        ground_truth: the same.
        spec: the classes on both sides.
        windows: window sizes of VPQ.
        own_maps: as FolderPairs says.
        num_workers: as `score` says.

    Returns:
        What `Evaluator.compute` returns.

    Raises:
        ValueError: a missing folder, sequences or frames that only one side has, a broken file, sizes that differ.
    """
    pairs = FolderPairs(predictions, ground_truth, spec, own_maps=own_maps)
    return score(pairs, Scoring(windows=tuple(windows)), num_workers=num_workers).evaluator.compute()


def score(pairs: Pairs, scoring: Scoring, *, num_workers: int | None = None) -> Scores:
    """Scores all sequences in this process, or in several.

    Args:
        pairs: the frames.
        scoring: what is computed.
        num_workers: processes; 0 works in this one, None takes as many as there are cores and pay off.

    Returns:
        The same for every number of processes.

    Raises:
        ValueError: a broken file, maps of different sizes, an unknown class, or num_workers below 0.
        ChildProcessError: a process was killed, for example because memory is short.
    """
    chunks = make_chunks(pairs)
    parts = _score_chunks(pairs, scoring, chunks, _count_workers(pairs, chunks, num_workers, share=1))
    return _merged(pairs, scoring, parts)


def score_on_all_ranks(
    make_pairs: Callable[[], tuple[Pairs, Scoring]], *, num_workers: int | None = None
) -> tuple[Pairs, Scores] | None:
    """`score`, its sequences shared among the processes of a `torchrun` or `accelerate launch`, if this is one.

    Args:
        make_pairs: finds the frames and says what is computed; called on every rank.
        num_workers: as in `score`, for each rank; None takes its share of the cores.

    Returns:
        On the first rank the frames and the result of all ranks, on the others None.

    Raises:
        ValueError, OSError: as `score` and `make_pairs`, from whichever rank, on the first.
        SystemExit: the same on the other ranks, silent: one line is enough.
    """
    with connected_ranks() as ranks:

        def work() -> tuple[Pairs, Scoring, dict[int, Scores]]:
            pairs, scoring = make_pairs()
            chunks = make_chunks(pairs)
            own = _share(pairs, chunks, ranks.rank, ranks.size)
            workers = _count_workers(pairs, own, num_workers, share=ranks.size_here)
            return pairs, scoring, _score_chunks(pairs, scoring, own, workers)

        gathered = ranks.gather(work, lambda result: result[2])
        if gathered is None:
            return None
        (pairs, scoring, _), parts = gathered
        return pairs, _merged(pairs, scoring, {k: part for shard in parts for k, part in shard.items()})


def make_chunks(pairs: Pairs) -> dict[int, list[str]]:
    """Neighbouring sequences in pieces of about CHUNK_FRAMES frames, a longer sequence alone; numbered in order."""
    chunks: list[list[str]] = []
    room = 0
    for sequence_id, frames in pairs.sequences.items():
        if not chunks or len(frames) > room:
            chunks.append([])
            room = CHUNK_FRAMES
        chunks[-1].append(sequence_id)
        room -= len(frames)
    return dict(enumerate(chunks))


def _frames_of(pairs: Pairs, chunk: Sequence[str]) -> int:
    return sum(len(pairs.sequences[sequence_id]) for sequence_id in chunk)


def _largest_first(pairs: Pairs, chunks: Mapping[int, Sequence[str]]) -> list[int]:
    return sorted(chunks, key=lambda k: (-_frames_of(pairs, chunks[k]), k))


def _share(pairs: Pairs, chunks: Mapping[int, list[str]], rank: int, size: int) -> dict[int, list[str]]:
    """The chunks of a rank: the largest first, each to the rank with the fewest frames so far."""
    frames, own = [0] * size, {}
    for k in _largest_first(pairs, chunks):
        least = frames.index(min(frames))
        frames[least] += _frames_of(pairs, chunks[k])
        if least == rank:
            own[k] = chunks[k]
    return own


def _count_workers(pairs: Pairs, chunks: Mapping[int, list[str]], wanted: int | None, *, share: int) -> int:
    if wanted is not None and wanted < 0:
        raise ValueError(f"num_workers: expected at least 0, got {wanted}")
    if wanted is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        frames = sum(_frames_of(pairs, chunk) for chunk in chunks.values())
        wanted = min(cores // share, frames // FRAMES_PER_WORKER)
        wanted = wanted if wanted > 1 else 0
    return min(wanted, len(chunks)) if len(chunks) > 1 else 0


# Scoring of chunks, here or in processes


def _score_chunks(
    pairs: Pairs, scoring: Scoring, chunks: Mapping[int, list[str]], num_workers: int
) -> dict[int, Scores]:
    total = sum(_frames_of(pairs, chunk) for chunk in chunks.values())
    with tqdm(total=total, unit="frame", disable=None) as bar:
        if num_workers == 0:
            return {k: _score_sequences(pairs, scoring, chunk, bar.update) for k, chunk in chunks.items()}
        context = _clean_processes()
        stop = context.Value("b", 0, lock=False)  # without a lock, which a process that is killed might hold
        job = pairs, scoring, stop
        pool = ProcessPoolExecutor(num_workers, context, initializer=_start_worker, initargs=job)
        try:
            order = _largest_first(pairs, chunks)
            waiting = {pool.submit(_score_in_worker, chunks[k]): k for k in order}
            parts = {}
            for done in as_completed(waiting):
                k = waiting[done]
                parts[k] = done.result()
                bar.update(_frames_of(pairs, chunks[k]))
            return parts
        except BrokenProcessPool:
            reason = "a process ended before its work was done; is memory short? --num_workers 0 needs the least"
            raise ChildProcessError(f"num_workers {num_workers}: {reason}") from None
        finally:
            stop.value = 1
            pool.shutdown(cancel_futures=True)


def _clean_processes() -> Any:
    """How processes start: from one that has imported this module and done nothing else.

    Not as forks of this one, whose threads (torch's, CUDA's, the progress bar's) would not be in the copy, but their
    locks would. On Windows each starts anew, and pays for the imports.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    return context


_job: tuple[Pairs, Scoring, Any] | None = None  # of a worker process, sent once and not with every chunk


def _start_worker(pairs: Pairs, scoring: Scoring, stop: Any) -> None:
    global _job
    _job = pairs, scoring, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the main process ends the others


def _score_in_worker(sequences: Sequence[str]) -> Scores:
    assert _job is not None, "the initializer has run"
    pairs, scoring, stop = _job

    def go_on(frames: int) -> None:
        if stop.value:  # an error elsewhere, or Ctrl-C: nobody waits for the rest
            raise InterruptedError("scoring was stopped")

    go_on(0)
    return _score_sequences(pairs, scoring, sequences, go_on)


def _score_sequences(pairs: Pairs, scoring: Scoring, sequences: Sequence[str], advance: Callable[[int], Any]) -> Scores:
    scores = Scores(scoring.evaluator(pairs.spec))
    for sequence_id in sequences:
        evaluator = scoring.evaluator(pairs.spec)
        log = FailureLog(pairs.spec, scoring.options.get("pq")) if scoring.failures else None
        for frame in pairs.sequences[sequence_id]:
            prediction, target = pairs.read(frame)
            counts = joint_counts(*prediction, *target, layout=evaluator.layout, where=str(frame.prediction))
            evaluator.update_counts(counts, sequence_id, frame=frame.number)
            if log is not None:
                log.update(counts, frame.name)
            advance(1)
        part = Scores(evaluator)
        if scoring.per_sequence:
            alone = evaluator.compute()
            part.per_sequence[sequence_id] = alone if scoring.sequence_classes else _without_classes(alone)
        if log is not None:
            part.failures[sequence_id] = log.result
        scores.merge(part)
    return scores


def _without_classes(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in result.items() if key != "per_class"}
    return {key: _without_classes(value) if isinstance(value, dict) else value for key, value in kept.items()}


def _merged(pairs: Pairs, scoring: Scoring, parts: Mapping[int, Scores]) -> Scores:
    total = Scores(scoring.evaluator(pairs.spec))
    for k in sorted(parts):
        total.merge(parts[k])
    return total
