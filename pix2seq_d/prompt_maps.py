"""Maps that a user gives for some frames of the input: found, matched with the frames, and checked before a run.

A map is a PNG in KITTI-STEP's encoding, as a run writes it; void is unknown, a thing with instance 0 has a known class.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pix2seq_d.data.folder import frame_number, image_folders
from pix2seq_d.data.formats import DataError, check_class_ids, read_kitti_step
from pix2seq_d.data.sources import FrameSource
from pix2seq_d.data.transforms import Letterbox
from pix2seq_d.labels import VOID_ID, LabelSpec
from pix2seq_d.models.pix2seq_d import Pix2SeqD
from pix2seq_d.video.known import KnownCodes, KnownMap
from pix2seq_d.video.tracks import TrackIds


@dataclass(frozen=True)
class PromptMaps:
    """The given maps of a run, on disk.

    Attributes:
        folder: where they lie.
        label_spec: of the maps.
        paths: of every sequence the files by the names of their frames.
        digest: of what they say, hexadecimal.
        last_ids: of every file the largest id of its objects.
        reverse: frames before the first map of a sequence are predicted backward from it; else forward, without it.
        first_id: ids of objects that no map names begin there.
    """

    folder: Path
    label_spec: LabelSpec
    paths: Mapping[str, Mapping[str, Path]]
    digest: str
    last_ids: Mapping[Path, int]
    reverse: bool = False
    first_id: int = 1

    @classmethod
    def find(
        cls,
        folder: str | os.PathLike[str],
        sources: Sequence[FrameSource],
        label_spec: LabelSpec,
        *,
        reverse: bool = False,
        first_id: int = 1,
    ) -> PromptMaps:
        """Reads the maps FOLDER/{sequence}/{frame}.png; of a single sequence they may lie in the folder itself.

        A map belongs to the frame of its name, else to the one of its number (4.png to frame 000004).

        Raises:
            DataError: no map at all, one of no frame of the input or of several, two of one frame, or one that cannot
                be read: no 8-bit RGB PNG, classes that the spec does not have, instances on stuff.
        """
        root = Path(folder)
        if not root.is_dir():
            raise DataError(f"{root}: expected a folder of maps, found {'a file' if root.exists() else 'nothing'}")
        paths, digest = _match(root, {source.sequence_id: source for source in sources}), hashlib.sha256()
        last_ids: dict[Path, int] = {}
        for sequence_id, frame, path in sorted((s, f, p) for s in paths for f, p in paths[s].items()):
            content = read_prompt_map(path, label_spec)
            last_ids[path] = content.last_id(label_spec)
            digest.update(f"{sequence_id}\0{frame}\0{content.class_map.shape}".encode())
            digest.update(content.class_map.tobytes() + content.instance_map.tobytes())
        return cls(root, label_spec, paths, digest.hexdigest()[:16], last_ids, reverse, first_id)

    @property
    def settings(self) -> dict[str, Any]:
        """What of them decides the result of a run, JSON-able."""
        count = sum(map(len, self.paths.values()))
        values: dict[str, Any] = {"past_maps": f"{count} map{'s' * (count > 1)}, {self.digest}"}
        if self.reverse:
            values["reverse"] = True
        return values | ({"new_ids_from": self.first_id} if self.first_id > 1 else {})

    def of(self, source: FrameSource) -> dict[str, Path]:
        """The files of a source's maps by the names of its frames, in order."""
        paths = self.paths.get(source.sequence_id, {})
        return {name: paths[name] for name in source.names if name in paths} if paths else {}

    def start(self, source: FrameSource) -> int:
        """The frame from which a source is predicted both ways; 0 = forward alone."""
        first = next(iter(self.of(source)), None) if self.reverse else None
        return 0 if first is None else list(source.names).index(first)

    def last_id(self, source: FrameSource) -> int:
        """The largest id that the maps of a source give to an object, 0 = none."""
        return max((self.last_ids[path] for path in self.of(source).values()), default=0)

    def read(self, path: Path, size: tuple[int, int]) -> KnownMap:
        """A map of a frame of `size` (H, W); DataError as `read_prompt_map`, and for another size."""
        known = read_prompt_map(path, self.label_spec)
        if known.class_map.shape != size:
            expected, found = ("x".join(map(str, s)) for s in (size, known.class_map.shape))
            raise DataError(f"{path}: expected {expected} pixels (height x width) as its frame, found {found}")
        return known

    def check(self, source: FrameSource, model: Pix2SeqD) -> None:
        """Raises DataError for a map of another size than the source's frames, or with more objects than codes."""
        paths = self.of(source)
        image = next((f.image for f in source.read() if f.image is not None), None) if paths else None
        if image is None:  # no map, or no frame: the run says so
            return
        size = (image.shape[0], image.shape[1])
        box, codes = Letterbox(size, model.image_size), model.num_instance_codes
        for path in paths.values():
            known = self.read(path, size)
            try:
                KnownCodes.of(known, self.label_spec, box, model.mask_size, TrackIds(num_codes=codes))
            except ValueError as error:
                raise DataError(f"{path}: {error}") from None


def read_prompt_map(path: str | os.PathLike[str], label_spec: LabelSpec) -> KnownMap:
    """Reads one map; raises DataError for what cannot be read, classes that the spec lacks, instances on stuff."""
    class_map, instance_map = read_kitti_step(path)
    check_class_ids(path, class_map, label_spec)
    wrong = (instance_map > 0) & (class_map != VOID_ID) & ~label_spec.is_thing(class_map)
    if wrong.any():
        name = label_spec.class_names[int(class_map[wrong][0])]
        raise DataError(f"{path}: expected instance 0 on stuff, found {int(instance_map[wrong][0])} on {name}")
    return KnownMap(class_map, instance_map)


def _match(root: Path, sources: Mapping[str, FrameSource]) -> dict[str, dict[str, Path]]:
    """The maps in a folder as PromptMaps.paths."""
    matched: dict[str, dict[str, Path]] = {}
    for folder, files in image_folders(root):
        name = folder.relative_to(root).as_posix()
        if folder == root and len(sources) == 1:
            name = next(iter(sources))
        if not files:
            continue
        if name not in sources:
            known = ", ".join(list(sources)[:3]) + (", ..." if len(sources) > 3 else "")
            raise DataError(f"{files[0]}: expected it in a folder called like a sequence of the input ({known})")
        frames, of_sequence = _Frames(sources[name]), matched.setdefault(name, {})
        for path in files:
            frame = frames.of(path)
            if frame in of_sequence:
                raise DataError(f"{path}: expected one map of frame {frame}, found {of_sequence[frame]} too")
            of_sequence[frame] = path
    if not matched:
        raise DataError(f"{root}: expected maps {{sequence}}/{{frame}}.png, found none")
    return matched


class _Frames:
    """The frames of a source by name and by number."""

    def __init__(self, source: FrameSource) -> None:
        self.sequence_id, self.names = source.sequence_id, dict.fromkeys(source.names)
        self.by_number: dict[int, list[str]] = {}
        for name in self.names:
            if (number := _number(name)) is not None:
                self.by_number.setdefault(number, []).append(name)

    def of(self, path: Path) -> str:
        """Name of the frame that a map belongs to; raises DataError where it is none or one of several."""
        if path.stem in self.names:
            return path.stem
        number = _number(path.stem)
        fitting = [] if number is None else self.by_number.get(number, [])
        if len(fitting) > 1:
            raise DataError(f"{path}: expected one frame of number {number}, found {fitting[0]} and {fitting[1]}")
        if not fitting:
            known = f"{self.sequence_id} ({next(iter(self.names))} ... {next(reversed(self.names))})"
            raise DataError(f"{path}: expected a frame of its name or number in {known}, found none")
        return fitting[0]


def _number(name: str) -> int | None:
    try:
        return frame_number(name)
    except DataError:
        return None
