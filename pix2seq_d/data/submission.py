"""A folder of predictions to what a benchmark takes: the formats by name, written whole or not at all, and as a zip."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pix2seq_d.data import submission_formats as formats
from pix2seq_d.data.folder import list_folders, list_images
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.submission_formats import Prediction, Selected, read_targets, select
from pix2seq_d.label_mapping import describe_mapping, shares_classes
from pix2seq_d.labels import LabelSpec, get_label_spec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubmissionFormat:
    """One way to hand in predictions.

    Attributes:
        label_spec: name of the label spec whose classes and ids it has.
        write: writes the files of the selected predictions into a folder.
        image_id: what the benchmark calls the image of a prediction; DataError for a name that it does not have.
        about: what is written, in a line.
        order: "required" where the ground truth's JSON says which frames are handed in, "optional" where it may.
        stills: the benchmark is one of images, not of videos.
    """

    label_spec: str
    write: Callable[[Sequence[Selected], LabelSpec, Path], None]
    image_id: Callable[[Prediction], str | int]
    about: str
    order: str = "none"
    stills: bool = False


_TREE, _COCO = "{seq}/{frame}.png", "panoptic JSON and PNGs"
SUBMISSION_FORMATS = {
    "kitti-step": SubmissionFormat("kitti-step", formats.write_step, formats.step_id, _TREE),
    "motchallenge-step": SubmissionFormat("motchallenge-step", formats.write_step, formats.step_id, _TREE),
    "cityscapes": SubmissionFormat(
        "cityscapes", formats.write_cityscapes, formats.cityscapes_id, _COCO, "optional", stills=True
    ),
    "cityscapes-vps": SubmissionFormat(
        "cityscapes-vps", formats.write_cityscapes_vps, formats.cityscapes_id, "pred.json and pan_pred/", "required"
    ),
    "bdd100k": SubmissionFormat("bdd100k", formats.write_bdd100k, formats.bdd100k_id, "bitmasks", stills=True),
    "bdd100k-json": SubmissionFormat(
        "bdd100k", formats.write_scalabel, formats.bdd100k_id, "Scalabel JSON with RLE", stills=True
    ),
    "coco": SubmissionFormat("coco", formats.write_coco, formats.coco_id, _COCO, "optional", stills=True),
}


def export_predictions(
    predictions: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    name: str,
    label_spec: LabelSpec | None = None,
    ground_truth: str | os.PathLike[str] | None = None,
    zipped: bool = False,
) -> int:
    """Writes the predictions of a folder in a benchmark's format, in one piece: beside its place, then renamed.

    Args:
        predictions: KITTI-STEP maps {sequence}/{frame}.png, or a folder that holds them as panoptic/.
        output: new (or empty) folder; the JSON of COCO and Cityscapes and its PNGs are called like it.
        name: of the format, a key of SUBMISSION_FORMATS.
        label_spec: of the predictions; where it is not the format's, classes are mapped by name, and what becomes void
            is logged. None takes the format's.
        ground_truth: panoptic or image_info JSON: exactly its images, in its order. None writes all predictions.
        zipped: also writes {output}.zip, the same bytes for the same files.

    Returns:
        Number of predictions found.

    Raises:
        DataError: no predictions, a broken map, a name or class that the format does not know, a missing frame.
        ValueError: an unknown format, no class in common with it, a ground truth missing or of no use, an output in
            use.
        OSError: the output cannot be written; nothing is left behind.
    """
    options: dict[str, Any] = {"name": name, "label_spec": label_spec, "ground_truth": ground_truth, "zipped": zipped}
    check_submission(output=output, **options)
    maps = _maps_folder(Path(predictions))
    if Path(os.path.abspath(output)).is_relative_to(os.path.abspath(maps)):
        raise ValueError(f"{output}: expected an output outside of the predictions {maps}")
    found = list_predictions(predictions, label_spec)
    write_submission(found, output, **options)
    return len(found)


def write_submission(
    predictions: Sequence[Prediction],
    output: str | os.PathLike[str],
    *,
    name: str,
    label_spec: LabelSpec | None = None,
    ground_truth: str | os.PathLike[str] | None = None,
    zipped: bool = False,
) -> None:
    """`export_predictions` of a list of maps; arguments and errors are the same."""
    chosen = check_submission(name, output, label_spec=label_spec, ground_truth=ground_truth, zipped=zipped)
    output, spec = Path(os.path.abspath(output)), get_label_spec(chosen.label_spec)
    selected = select_frames(predictions, name=name, ground_truth=ground_truth)
    if label_spec is not None and (mapping := describe_mapping(label_spec, spec)):
        logger.info(mapping)
    work = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        folder = work / output.name  # files are called like it
        folder.mkdir(parents=True)
        chosen.write(selected, spec, folder)
        archive = work / _zip_path(output).name
        if zipped:
            write_zip(archive, folder)
        if output.exists():
            output.rmdir()
        os.replace(folder, output)
        if zipped:
            os.replace(archive, _zip_path(output))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def select_frames(
    predictions: Iterable[Prediction], *, name: str, ground_truth: str | os.PathLike[str] | None = None
) -> list[Selected]:
    """The frames that are handed in, by their names alone: nothing is opened but the ground truth.

    Args:
        predictions: maps that need not exist yet.
        name: of the format.
        ground_truth: as in `export_predictions`.

    Raises:
        DataError: a name that the format does not have, two frames of one image, an image of the ground truth without
            frame, or a ground truth that is none.
    """
    chosen = SUBMISSION_FORMATS[name]
    one_order = chosen.order == "required"
    targets = None if ground_truth is None else read_targets(Path(ground_truth), one_order=one_order)
    return select(predictions, chosen.image_id, targets)


def check_submission(
    name: str,
    output: str | os.PathLike[str],
    *,
    label_spec: LabelSpec | None = None,
    ground_truth: str | os.PathLike[str] | None = None,
    zipped: bool = False,
) -> SubmissionFormat:
    """The format, if `export_predictions` can write it there: the same arguments and the same ValueErrors.

    For callers who predict for hours before they export, as is `select_frames`.
    """
    if name not in SUBMISSION_FORMATS:
        raise ValueError(f"format: expected one of {', '.join(SUBMISSION_FORMATS)}, got {name!r}")
    chosen, output = SUBMISSION_FORMATS[name], Path(os.path.abspath(output))
    own = get_label_spec(chosen.label_spec)
    if label_spec is not None and not shares_classes(label_spec, own):
        raise ValueError(
            f"format {name}: expected predictions that share classes with {own.name}, got those of {label_spec.name}"
        )
    if chosen.order == "required" and ground_truth is None:
        raise ValueError(f"format {name}: expected ground_truth, the JSON with the order of its frames, got none")
    if chosen.order == "none" and ground_truth is not None:
        raise ValueError(f"format {name}: expected no ground_truth, it has no order; got {ground_truth}")
    if ground_truth is not None and not Path(ground_truth).is_file():
        raise ValueError(f"{ground_truth}: expected the JSON of the ground truth, found no such file")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ValueError(f"{output}: expected a new or empty folder to write to, found one that is in use")
    if zipped and _zip_path(output).exists():
        raise ValueError(f"{_zip_path(output)}: expected no such file, it would be written; remove it first")
    return chosen


def list_predictions(root: str | os.PathLike[str], label_spec: LabelSpec | None = None) -> list[Prediction]:
    """The maps in a folder (or in its panoptic/) and in the folders in it, in natural order, hidden ones left out.

    Args:
        root: the folder.
        label_spec: the classes of the maps, None = those of the format.

    Raises:
        DataError: a missing folder, or no PNG in it.
    """
    base = _maps_folder(Path(root))
    if not base.is_dir():
        raise DataError(f"{base}: expected a folder of predictions, found {'a file' if base.exists() else 'nothing'}")
    found = [Prediction(path, path.parent.relative_to(base).as_posix(), label_spec) for path in _walk(base)]
    if not found:
        raise DataError(f"{base}: expected predictions {{sequence}}/{{frame}}.png, found no PNG")
    return found


def _maps_folder(root: Path) -> Path:
    return root / "panoptic" if (root / "panoptic").is_dir() else root


def _walk(folder: Path) -> Iterator[Path]:
    yield from (path for path in list_images(folder) if path.suffix.lower() == ".png")
    for inner in list_folders(folder):
        yield from _walk(inner)


def _zip_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.zip")


def write_zip(path: str | os.PathLike[str], folder: Path) -> None:
    """Packs the files of a folder, without the folder itself: names sorted, times and modes fixed, PNGs not deflated.

    Raises:
        OSError: the archive cannot be written.
    """
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            entry.external_attr, entry.create_system = 0o644 << 16, 3
            archive.writestr(entry, (folder / name).read_bytes())
