"""inference.json: what a run was made with and how far it is, so that it can go on where it was cut off."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pix2seq_d.data.folder import natural_key
from pix2seq_d.data.formats import write_bytes
from pix2seq_d.data.sources import FrameSource
from pix2seq_d.labels import LabelSpec

RECORD = "inference.json"


@dataclass
class RunRecord:
    """The record of an output folder.

    Attributes:
        output: the folder.
        settings: what decides the result, as JSON gives it back; "stills" where frames are images of their own.
        label_spec: of the maps; None in a record of a version that did not write it.
        finished: sequences that are done; of stills images, {sequence}/{frame}.
        skipped: names of the frames without a map, by the same.
    """

    output: Path
    settings: dict[str, Any]
    label_spec: LabelSpec | None = None
    finished: set[str] = field(default_factory=set)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def open(
        cls, output: Path, settings: Mapping[str, Any], label_spec: LabelSpec, *, overwrite: bool = False
    ) -> RunRecord:
        """The record of a run that begins or goes on.

        Raises:
            ValueError: the folder holds results of other settings, or a record that cannot be read.
            OSError: the folder cannot be written.
        """
        values = json.loads(json.dumps(settings))
        new = cls(output, values, label_spec)
        if overwrite or not (output / RECORD).exists():
            new.save()
            return new
        earlier = cls.read(output)
        old = earlier.settings
        differing = [
            f"{k} {old.get(k)} -> {values.get(k)}" for k in sorted({*old, *values}) if old.get(k) != values.get(k)
        ]
        if differing:
            raise ValueError(
                f"{output}: holds results of other settings ({', '.join(differing)}); choose another output folder or "
                "pass --overwrite"
            )
        new.finished, new.skipped = earlier.finished, earlier.skipped
        return new

    @classmethod
    def read(cls, output: Path) -> RunRecord:
        """The record in a folder; raises ValueError if it cannot be read, OSError if there is none."""
        path = output / RECORD
        try:
            values = json.loads(path.read_text())
            spec = values.get("label_spec")
            return cls(
                output,
                dict(values["settings"]),
                None if spec is None else LabelSpec.from_dict(spec),
                set(values["finished"]),
                {key: list(names) for key, names in values.get("skipped", {}).items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{path}: not readable as the record of an earlier run; remove it to start over") from None

    @property
    def stills(self) -> bool:
        """Whether every frame is an image of its own."""
        return bool(self.settings.get("stills"))

    def is_finished(self, source: FrameSource, *, skipping: bool) -> bool:
        """Whether every frame of a source has its map, frames that were skipped left out where that is wanted."""
        skipped = self.skipped_of(source)
        maps = self.output / "panoptic" / source.sequence_id
        return (
            self._key(source) in self.finished
            and (skipping or not skipped)
            and all((maps / f"{name}.png").is_file() for name in source.names if name not in skipped)
        )

    def skipped_of(self, source: FrameSource) -> set[str]:
        """Names of its frames that were skipped."""
        return set(self.skipped.get(self._key(source), ()))

    def finish(self, source: FrameSource, skipped: Sequence[str]) -> None:
        """Notes that a source is done, until `save` in memory alone."""
        key = self._key(source)
        self.finished.add(key)
        self.skipped.pop(key, None)
        if skipped:
            self.skipped[key] = list(skipped)

    def _key(self, source: FrameSource) -> str:
        return f"{source.sequence_id}/{source.names[0]}" if self.stills else source.sequence_id

    def save(self) -> None:
        """Writes the record in one piece; raises OSError if that cannot be done."""
        values = {
            "settings": self.settings,
            "label_spec": self.label_spec and self.label_spec.to_dict(),
            "finished": sorted(self.finished, key=natural_key),
            "skipped": self.skipped,
        }
        write_bytes(self.output / RECORD, json.dumps(values, indent=2).encode())
