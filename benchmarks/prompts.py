"""What given maps and guidance by the past are worth: quality of a saved model on unseen procedural clips.

python benchmarks/prompts.py --checkpoint checkpoints/synthetic-tiny  # 8 clips of 20 frames
python benchmarks/prompts.py --checkpoint checkpoints/synthetic-tiny --num_frames 8 --rows nothing "first frame"

Scored are the frames that no row is given a map of, so that no map is scored against itself.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pix2seq_d.data.synthetic_videos import SyntheticVideos
from pix2seq_d.engine.checkpoint import find_model
from pix2seq_d.engine.evaluate import Evaluator
from pix2seq_d.engine.validation import summary
from pix2seq_d.labels import VOID_ID
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.known import KnownMap
from pix2seq_d.video.tracker import VideoPredictor

COLUMNS = ("stq", "aq", "iou", "pq", "pq_things", "pq_stuff")
EVERY = 10
OWN_IDS = 1001  # first id of objects that no map names: true ids are smaller
Change = Callable[[KnownMap], KnownMap]


@dataclass(frozen=True)
class Row:
    """What the predictor is told.

    Attributes:
        given: numbers of the frames with a map, negative ones from the end.
        change: makes the given map from the true one.
        backward: the frames are predicted from the last to the first.
        guidance: by the past maps.
    """

    given: tuple[int, ...] = ()
    change: Change = lambda known: known
    backward: bool = False
    guidance: float = 0.0


def left_half(known: KnownMap) -> KnownMap:
    """The map with its right half unknown."""
    class_map = known.class_map.copy()
    class_map[:, class_map.shape[1] // 2 :] = VOID_ID
    return KnownMap(class_map, known.instance_map)


def classes_only(known: KnownMap) -> KnownMap:
    """The map without its objects."""
    return KnownMap(known.class_map, np.zeros_like(known.instance_map))


def rows(num_frames: int) -> dict[str, Row]:
    """By name."""
    every = tuple(range(0, num_frames, EVERY))
    return {
        "nothing": Row(),
        "first frame": Row((0,)),
        f"every {EVERY}th frame": Row(every),
        "last frame, backward": Row((-1,), backward=True),
        "left half of the first frame": Row((0,), left_half),
        "classes of the first frame": Row((0,), classes_only),
        "nothing, guidance -1": Row(guidance=-1.0),
        "nothing, guidance 0.5": Row(guidance=0.5),
        "nothing, guidance 1": Row(guidance=1.0),
    }


def score(model: Pix2SeqD, videos: SyntheticVideos, row: Row, *, seed: int) -> dict[str, float]:
    """Metrics over the frames that no row is given, and frames a second."""
    predictor = VideoPredictor(model, history_guidance=row.guidance, seed=seed)
    evaluator, begin = Evaluator(videos.label_spec), time.perf_counter()
    for sequence in videos.sequence_ids:
        clip = [videos.read_frame(sequence, k) for k in videos.frame_ids(sequence)]
        given = {k % len(clip): row.change(KnownMap(*clip[k % len(clip)][1:])) for k in row.given}
        maps = predict(predictor, [frame for frame, _, _ in clip], given, backward=row.backward)
        for k in sorted(set(range(len(clip))) - {len(clip) - 1, *range(0, len(clip), EVERY)}):
            evaluator.update(*maps[k], *clip[k][1:], sequence_id=sequence)
    frames = videos.num_sequences * videos.num_frames
    return summary(evaluator.compute()) | {"frames_per_s": frames / (time.perf_counter() - begin)}


def predict(
    predictor: VideoPredictor, frames: list[np.ndarray], given: Mapping[int, KnownMap], *, backward: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Class and instance maps of a clip in the order of its frames."""
    predictor.reset(first_id=OWN_IDS)
    order = range(len(frames))[:: -1 if backward else 1]
    results = {k: predictor.step(frames[k], known=given.get(k)) for k in order}
    return [(results[k].class_map, results[k].instance_map) for k in range(len(frames))]


def main() -> None:
    """Prints a Markdown table and, with --output, writes all numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--num_sequences", type=int, default=8)
    parser.add_argument("--num_frames", type=int, default=20)
    parser.add_argument("--num_steps_next", type=int, help="default: the model's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="of the table; default: all")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    table = rows(arguments.num_frames)
    if unknown := set(arguments.rows or ()) - set(table):
        parser.error(f"--rows: expected some of {', '.join(table)}, got {sorted(unknown)[0]!r}")
    model = Pix2SeqD.from_pretrained(find_model(arguments.checkpoint))
    model.configure(num_steps_next=arguments.num_steps_next)
    videos = SyntheticVideos(
        split=arguments.split,
        num_sequences=arguments.num_sequences,
        num_frames=arguments.num_frames,
        height=model.image_size[0],
        width=model.image_size[1],
    )
    print(f"| given | {' | '.join(COLUMNS)} | frames/s |\n|" + " --- |" * (len(COLUMNS) + 2))
    results = {}
    for name in arguments.rows or table:
        values = score(model, videos, table[name], seed=arguments.seed)
        results[name] = values
        print(f"| {name} | {' | '.join(f'{values[c]:.3f}' for c in (*COLUMNS, 'frames_per_s'))} |", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps({"arguments": vars(arguments), "results": results}, default=str))


if __name__ == "__main__":
    main()
