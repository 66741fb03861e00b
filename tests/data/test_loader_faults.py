"""Bad files are skipped and listed, or named when a loader process dies of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pix2seq_d.data.batch import Batch, Clip
from pix2seq_d.data.formats import DataError
from pix2seq_d.data.loader_faults import MOST_SKIPPED, OpenedFiles, SkippingClips
from pix2seq_d.data.loaders import TrainingClips, build_loader
from pix2seq_d.data.transforms import ClipTransform
from pix2seq_d.labels import get_label_spec

SPEC = get_label_spec("kitti-step")
TRANSFORM = ClipTransform((16, 24), (8, 12), flip_rate=0.5)


class Files:
    """Eight clips of road, of which the files of some are bad."""

    def __init__(self, bad: set[int], error: type[Exception] = DataError) -> None:
        self.bad, self.error = bad, error

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Clip:
        if index in self.bad:
            raise self.error(f"images/{index:06d}.png: expected a PNG file, found none")
        maps = np.zeros((1, 16, 24), np.uint8)
        return Clip(np.zeros((1, 16, 24, 3), np.uint8), maps, maps.astype(np.int32), np.ones(1, bool), "a", index)


def skipping(files: Files, listing: Path) -> SkippingClips:
    return SkippingClips(TrainingClips(files, TRANSFORM, SPEC, num_instance_codes=3, seed=0), listing)


@pytest.mark.parametrize("error", [DataError, OSError])
def test_a_bad_clip_is_replaced_by_the_next_good_one(tmp_path: Path, error: type[Exception]) -> None:
    listing = tmp_path / "run" / "bad_files.txt"
    clips = skipping(Files({2, 3, 7}, error), listing)
    assert len(clips) == 8
    assert [clips[0, k].names[0] for k in range(8)] == [f"a/00000{k}" for k in (0, 1, 4, 4, 4, 5, 6, 0)]
    assert clips[1, 2].names == ["a/000004"]
    lines = [f"images/00000{k}.png: expected a PNG file, found none" for k in (2, 3, 7)]
    assert listing.read_text().splitlines() == lines


def test_nothing_is_listed_where_all_is_well(tmp_path: Path) -> None:
    clips = skipping(Files(set()), tmp_path / "bad_files.txt")
    assert [clips[0, k].names[0] for k in range(8)] == [f"a/00000{k}" for k in range(8)]
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_the_settings_is_not_skipped(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^images/000002"):
        skipping(Files({2}, ValueError), tmp_path / "bad_files.txt")[0, 2]


def test_many_bad_clips_in_a_row_are_more_than_a_bad_file(tmp_path: Path) -> None:
    clips = skipping(Files(set(range(8))), tmp_path / "bad_files.txt")
    with pytest.raises(DataError, match=rf"^{MOST_SKIPPED} clips in a row cannot be read, listed in .*bad_files.txt"):
        clips[0, 0]
    assert len((tmp_path / "bad_files.txt").read_text().splitlines()) == 8


@pytest.mark.parametrize("skip", [True, False])
def test_the_loader_skips_where_it_is_told_to(tmp_path: Path, skip: bool) -> None:
    loader = build_loader(
        Files({5}),
        TRANSFORM,
        SPEC,
        batch_size=8,
        num_instance_codes=3,
        seed=0,
        skip_listing=tmp_path / "bad_files.txt" if skip else None,
    )
    if skip:
        names = next(iter(loader)).names
        assert sorted(names) == sorted(f"a/00000{k}" for k in (0, 1, 2, 3, 4, 6, 6, 7))
    else:
        with pytest.raises(DataError, match=r"^images/000005\.png"):
            next(iter(loader))


class Deadly(Dataset[int]):
    """Item 1 kills the process that reads it; each item opens a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        with open(self.folder / f"{index}.png", "rb") as file:
            file.read()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)  # ignored
        if index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_the_file_of_a_worker_that_dies_is_known(tmp_path: Path) -> None:
    for k in range(2):
        (tmp_path / f"{k}.png").write_bytes(b"")
    opened = OpenedFiles(1)
    assert opened.last() == [""]
    batches: DataLoader[int] = DataLoader(
        Deadly(tmp_path),
        batch_size=1,
        num_workers=1,
        prefetch_factor=1,
        worker_init_fn=opened,
        multiprocessing_context="fork",
    )
    iterator = iter(batches)
    assert torch.equal(next(iterator), torch.tensor([0]))
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        next(iterator)
    assert opened.last() == [str(tmp_path / "1.png")]


class Broken(Dataset[int]):
    """No item can be read."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        raise DataError(f"{index}.png: expected a PNG file, found none")


def end_with_a_living_iterator() -> None:
    """The end of a process whose loader met a bad file: the error keeps the iterator, and so the workers, alive."""
    batches: DataLoader[int] = DataLoader(Broken(), num_workers=2, worker_init_fn=OpenedFiles(2))
    iterator = iter(batches)
    try:
        next(iterator)
    except DataError as error:
        sys.exit(f"{iterator}: {error}")


def test_a_process_that_ends_does_not_wait_for_its_workers() -> None:
    command = [sys.executable, "-c", "import test_loader_faults as t; t.end_with_a_living_iterator()"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "0.png: expected a PNG file" in done.stderr


def test_batches_of_the_first_release() -> None:
    """Without bad files the dataset is asked as ever."""
    loader = build_loader(Files(set()), TRANSFORM, SPEC, batch_size=2, num_instance_codes=3, seed=0)
    assert isinstance(loader.dataset, TrainingClips)
    assert isinstance(next(iter(loader)), Batch)
