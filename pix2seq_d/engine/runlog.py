"""What a run leaves to read: log.jsonl, one JSON object a line, and sample pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pix2seq_d.data.formats import write_bytes


class RunLog:
    """Appends records to `log.jsonl` of a run folder; a resumed run drops the records that it will write again first.

    Args:
        run_dir: run folder.
        start: steps done; records of later steps go.
        redo: kinds whose records of step `start` go too.
        also: called with kind, step and values of every record once it is written; None = nothing.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        start: int = 0,
        redo: Collection[str] = (),
        also: Callable[[str, int, Mapping[str, Any]], None] | None = None,
    ) -> None:
        self.path, self.also = run_dir / "log.jsonl", also
        run_dir.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            lines = [(line, _parse(line)) for line in _lines(self.path)]
            last = {kind: start - 1 for kind in redo}
            kept = [x for x, record in lines if record.get("step", math.inf) <= last.get(record.get("kind", ""), start)]
            write_bytes(self.path, "".join(line + "\n" for line in kept).encode())

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Appends one record with its kind ("train", "validation", ...) and step.

        Numbers that are not finite (the gradient norm of a step that fp16 skips) are written as null, which JSON knows.

        Raises:
            OSError: naming the file, if it cannot be written.
        """
        line = json.dumps({"kind": kind, "step": step, **{k: _json_value(v) for k, v in values.items()}})
        try:
            with self.path.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OSError(error.errno, f"cannot write the log: {error.strerror}", str(self.path)) from error
        if self.also is not None:
            self.also(kind, step, values)


def read_log(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind, oldest first; what is no record is left out."""
    return [record for record in map(_parse, _lines(run_dir / "log.jsonl")) if record.get("kind") == kind]


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()  # a crash of the machine can leave any bytes


def _parse(line: str) -> dict[str, Any]:
    """The record; {} for a line that is half-written or damaged."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}
