"""A session without a page: runs and their reports, corrections, propagation, the zip."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pix2seq_d.app.session import UNDECIDED, Progress, RunSettings, Session
from pix2seq_d.app.streaming import stream_reports
from pix2seq_d.app.uploads import FrameClip
from pix2seq_d.data.formats import read_kitti_step
from pix2seq_d.pipeline import Pix2SeqDPipeline

ROAD, CAR, VOID = 0, 13, 255
SIZE = (24, 64)
SETTINGS = RunSettings(num_steps=3, num_steps_next=2, seed=5)


@pytest.fixture
def session(tiny_model: Any) -> Session:
    rng = np.random.default_rng(0)
    frames = tuple(rng.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(4))
    return Session(FrameClip(("a", "b", "c", "d"), frames), tiny_model(num_instance_bits=5))


def run(session: Session, settings: RunSettings = SETTINGS) -> list[Progress]:
    return list(stream_reports(lambda report: session.run(settings, report), lock=threading.Lock()))


def propagate(session: Session, index: int) -> list[Progress]:
    return list(stream_reports(lambda report: session.propagate(index, report), lock=threading.Lock()))


def classes(session: Session) -> list[np.ndarray]:
    return [result.class_map.copy() for result in session.results]


def square(top: int, left: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + 8, left : left + 16] = True
    return mask


def test_a_run_is_that_of_the_pipeline(session: Session) -> None:
    reports = run(session)
    assert [r.index for r in reports if r.estimate is None] == [0, 1, 2, 3]
    estimates = [r for r in reports if r.estimate is not None]
    assert {r.index for r in estimates} == {0}
    assert [r.step for r in estimates] == sorted({r.step for r in estimates})  # none twice, some may be left out
    assert 1 <= len(estimates) <= 3
    assert {r.num_steps for r in estimates} == {3}
    for class_map, instances in (r.estimate for r in estimates if r.estimate):
        assert class_map.shape == instances.shape == SIZE
    expected = Pix2SeqDPipeline(session.model)(session.clip.frames, num_steps=3, num_steps_next=2, seed=5)
    for result, want in zip(session.results, expected, strict=True):
        assert (result.segmentation == want.segmentation).all()


@pytest.mark.parametrize("field", ["num_steps", "num_steps_next", "num_samples", "seed"])
def test_every_setting_has_an_effect(session: Session, field: str) -> None:
    changed = {**vars(SETTINGS), field: vars(SETTINGS)[field] + 1}
    results = []
    for settings in (SETTINGS, RunSettings(**changed)):
        run(session, settings)
        results.append(np.stack([result.confidence for result in session.results]))
    assert (results[0] != results[1]).any()


def test_uncertainty_is_that_of_the_samples(session: Session) -> None:
    run(session)
    assert np.allclose(session.uncertainty(1), 1 - session.results[1].confidence)
    run(session, RunSettings(3, 2, num_samples=2))
    several = session.results[1].uncertainty
    assert several is not None
    assert (session.uncertainty(1) >= several.class_entropy).all()
    assert (session.uncertainty(1) >= several.instance_disagreement).all()


def test_settings_that_are_none(session: Session) -> None:
    with pytest.raises(ValueError, match="num_steps: expected at least 1, got 0"):
        run(session, RunSettings(0, 1))
    assert session.results == []


def test_a_correction_goes_on_and_what_was_before_stays(session: Session) -> None:
    run(session)
    before, new = classes(session), session.new_object()
    assert all((result.instance_map < new).all() for result in session.results)
    session.paint(1, square(4, 8), (CAR, new))
    maps = session.maps(1)
    assert maps is not None
    assert ((maps[0] == CAR) & (maps[1] == new) == square(4, 8)).all()
    assert session.new_object() == new + 1
    assert [r.index for r in propagate(session, 1)] == [1, 2, 3]
    assert (session.results[0].class_map == before[0]).all()
    corrected = session.results[1]
    assert ((corrected.class_map == CAR) & (corrected.instance_map == new) == square(4, 8)).all()
    assert (corrected.class_map == before[1])[~square(4, 8)].all()
    assert any((session.results[k].class_map != before[k]).any() for k in (2, 3))
    assert not session.edits


def test_propagating_goes_on_as_the_run_did(session: Session) -> None:
    """A map that is told as it was predicted changes nothing but the sureness."""
    run(session)
    before, (class_map, ids) = classes(session), (session.results[3].class_map, session.results[3].instance_map)
    target = int(class_map[0, 0]), int(ids[0, 0])
    session.paint(3, (class_map == target[0]) & (ids == target[1]), target)
    propagate(session, 3)
    assert [(a == b).all() for a, b in zip(before, classes(session))] == [True] * 4
    assert session.results[3].confidence.min() == 1
    run(session)
    assert [(a == b).all() for a, b in zip(before, classes(session))] == [True] * 4


def test_what_is_undecided_is_predicted(session: Session) -> None:
    run(session)
    kept = session.results[2].class_map.copy()
    session.paint(2, square(8, 32), UNDECIDED)
    maps = session.maps(2)
    assert maps is not None
    assert ((maps[0] == VOID) == square(8, 32)).all()
    reports = propagate(session, 2)
    assert {r.num_steps for r in reports if r.estimate} == {2}
    assert (session.results[2].class_map != VOID).all()
    assert (session.results[2].class_map == kept)[~square(8, 32)].all()


def test_corrections_in_front_stay_later_ones_are_lost(session: Session) -> None:
    run(session)
    for index in (0, 1, 2):
        session.paint(index, square(0, 0), (ROAD, 0))
    propagate(session, 1)
    assert set(session.edits) == {0}
    session.discard(0)
    assert not session.edits
    assert session.maps(0) == (session.results[0].class_map, session.results[0].instance_map)


def test_segments_of_what_is_shown(session: Session) -> None:
    assert session.segments(0) == []
    run(session)
    assert sum(segment.share for segment in session.segments(0)) == pytest.approx(1)
    assert all(0 < (segment.confidence or 0) <= 1 for segment in session.segments(0))
    session.paint(0, np.ones(SIZE, bool), (ROAD, 0))
    session.paint(0, square(0, 0), UNDECIDED)
    (segment,) = session.segments(0)
    assert (segment.class_id, segment.instance_id, segment.confidence) == (ROAD, 0, None)
    assert segment.share == 1 - 8 * 16 / (24 * 64)


def test_what_is_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="frame 2: expected a predicted frame to correct, run first"):
        session.paint(1, square(0, 0), (ROAD, 0))
    run(session)
    before = classes(session)
    with pytest.raises(ValueError, match="frame 2: expected a corrected map"):
        propagate(session, 1)
    with pytest.raises(ValueError, match="nothing is painted"):
        session.paint(1, np.zeros(SIZE, bool), (ROAD, 0))
    with pytest.raises(ValueError, match=r"mask: expected \(24, 64\)"):
        session.paint(1, np.ones((2, 2), bool), (ROAD, 0))
    with pytest.raises(ValueError, match=r"class ids 0\.\.18"):
        session.paint(1, square(0, 0), (19, 0))
    assert not session.edits
    block = np.arange(24)[:, None] // 2 * 8 + np.arange(64) // 2  # of 2x2 pixels
    for k in range(32):  # the model has codes for 31
        session.paint(1, square(0, 0) & (block == k), (CAR, 100 + k))
    with pytest.raises(ValueError, match="known objects: expected at most 31"):
        propagate(session, 1)
    assert all((a == b).all() for a, b in zip(before, classes(session)))


def test_stopping_leaves_whole_frames(session: Session) -> None:
    lock = threading.Lock()
    reports = stream_reports(lambda report: session.run(SETTINGS, report), lock=lock)
    while next(reports).estimate is not None:
        pass
    reports.close()  # type: ignore[attr-defined]
    with lock:
        assert 1 <= len(session.results) <= 4
    for index in range(4):
        assert (session.maps(index) is not None) == (index < len(session.results))


def test_sessions_do_not_see_each_other(session: Session) -> None:
    other = Session(session.clip, session.model)
    run(session)
    assert other.results == []
    session.paint(0, square(0, 0), (ROAD, 0))
    run(other)
    assert other.edits == {}
    assert (other.results[0].class_map == session.results[0].class_map).all()


def test_the_zip_holds_what_is_shown(session: Session, tmp_path: Path) -> None:
    run(session)
    session.paint(1, square(4, 4), (CAR, 300))
    with zipfile.ZipFile(session.write_zip(tmp_path / "maps.zip")) as archive:
        assert archive.namelist() == [f"panoptic/{name}.png" for name in "abcd"]
        archive.extractall(tmp_path)
    for index, name in enumerate("abcd"):
        class_map, instance_map = read_kitti_step(tmp_path / "panoptic" / f"{name}.png")
        maps = session.maps(index)
        assert maps is not None
        assert (class_map == maps[0]).all()
        assert (instance_map == maps[1]).all()
