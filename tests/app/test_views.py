"""Pictures, names and HTML of a session whose maps are drawn by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pix2seq_d.app.session import UNDECIDED, Progress, Session
from pix2seq_d.app.uploads import FrameClip
from pix2seq_d.app.views import (
    LAYERS,
    draw_estimate,
    draw_frame,
    draw_to_correct,
    painted_mask,
    segments_html,
    status_html,
    targets,
    view_size,
)
from pix2seq_d.palette import colour_instances, colour_panoptic
from pix2seq_d.video.panoptic_map import PanopticMap

ROAD, PERSON, CAR = 0, 11, 13
SIZE = (96, 320)


@pytest.fixture
def session(tiny_model: Any) -> Session:
    """Car 7 on the left, person 2 in the middle, road; sure but for one half."""
    class_map, ids = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.int32)
    class_map[40:80, :100], ids[40:80, :100] = CAR, 7
    class_map[40:80, 150:170], ids[40:80, 150:170] = PERSON, 2
    confidence = np.ones(SIZE, np.float32)
    confidence[:, 160:] = 0.75
    session = Session(FrameClip(("a", "b"), (np.full((*SIZE, 3), 100, np.uint8),) * 2), tiny_model())
    session.results = [PanopticMap(class_map, ids, confidence)]
    return session


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((96, 320), (288, 960)),  # threefold
        ((375, 1242), (375, 1242)),
        ((1080, 1920), (720, 1280)),
        ((1920, 1080), (960, 540)),
        ((700, 500), (700, 500)),
        ((1, 4000), (1, 1280)),
        ((10, 10), (720, 720)),
    ],
)
def test_sizes(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert view_size(size) == shown


def test_layers(session: Session) -> None:
    pictures = {layer: draw_frame(session, 0, layer) for layer in LAYERS}
    assert {picture.shape for picture in pictures.values()} == {(288, 960, 3)}
    result = session.results[0]
    maps = result.class_map, result.instance_map
    assert (pictures["panoptic"][1::3, 1::3] == colour_panoptic(*maps, session.spec)).all()
    assert (pictures["instance"][1::3, 1::3] == colour_instances(*maps, session.spec)).all()
    assert (pictures["frame"] == 100).all()
    assert pictures["overlay"][60 * 3, 10].tolist() not in ([100] * 3, pictures["panoptic"][60 * 3, 10].tolist())
    sure, unsure = pictures["uncertainty"][0, 0], pictures["uncertainty"][0, -1]
    assert len(set(sure.tolist())) == 1  # grey
    assert max(unsure) > min(unsure) + 50  # coloured
    for layer in LAYERS:  # nothing is predicted of the second frame
        assert (draw_frame(session, 1, layer) == 100).all()


def test_estimates_are_shown_as_the_layer(session: Session) -> None:
    result = session.results[0]
    progress = Progress(0, 1, 3, (result.class_map, result.instance_map))
    for layer in ("overlay", "panoptic", "instance"):
        assert (draw_estimate(session, progress, layer) == draw_frame(session, 0, layer)).all()
    assert (draw_estimate(session, progress, "uncertainty") == draw_frame(session, 0, "panoptic")).all()


def test_numbers_stand_above_their_objects(session: Session) -> None:
    plain, numbered = draw_frame(session, 0, "overlay"), draw_to_correct(session, 0)
    rows, columns = np.nonzero((plain != numbered).any(2))
    assert rows.max() < 40 * 3
    car, person = columns < 300, columns >= 300
    assert abs(columns[car].mean() - 150) < 9
    assert abs(columns[person].mean() - 480) < 9
    session.results[0].class_map[:40, :100], session.results[0].instance_map[:40, :100] = CAR, 7
    assert draw_to_correct(session, 0).shape == plain.shape  # at the edge


def test_paint_of_an_editor_of_any_size() -> None:
    layer = np.zeros((6, 12, 4), np.uint8)
    layer[:3, :6] = 255
    other = np.zeros((2, 4, 4), np.uint8)
    other[1, 3] = 200
    other[0, 3, :3] = 255  # transparent
    mask = painted_mask([layer, other], (2, 4))
    assert mask.astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 0, 1]]
    assert not painted_mask([], (2, 4)).any()


def test_what_paint_can_stand_for(session: Session) -> None:
    found = targets(session, 0)
    assert list(found)[:5] == ["person 2", "car 7", "new person", "new car", "road"]
    assert found["car 7"] == (CAR, 7)
    assert found["new person"] == (PERSON, 8)
    assert found["road"] == (ROAD, 0)
    assert list(found.items())[-1] == ("let the model decide", UNDECIDED)
    assert len(found) == 2 + 2 + 17 + 1


def test_segments_in_their_colours(session: Session) -> None:
    text = segments_html(session, 0)
    assert [name in text for name in ("road <small>84.4%, 86% sure", "car 7 <small>13.0%, 100% sure")] == [True, True]
    red, green, blue = colour_panoptic(np.array([[CAR]]), np.array([[7]]), session.spec)[0, 0]
    assert f"rgb({red} {green} {blue})" in text
    assert segments_html(session, 1) == '<ul class="segments"></ul>'


def test_texts_from_elsewhere_are_escaped() -> None:
    assert "<b>" not in status_html("<b>.png: expected an image")
    assert 'role="alert"' in status_html("no", is_error=True)
    assert 'role="status"' in status_html("yes")
