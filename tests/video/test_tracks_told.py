"""Objects whose ids a user tells, among those that are followed."""

from __future__ import annotations

import numpy as np
from film import CAR, PERSON, Box, Film, H, W, car, ids


def told(film: Film, objects: list[tuple[int, int]], *boxes: Box, also: tuple[tuple[int, int, Box], ...] = ()) -> list:
    """Shows objects (class, id) that are told, in the codes for them, beside others; ids from left to right."""
    codes = film.tracks.codes_of(objects)
    known = {(class_id, codes[class_id, track_id]): track_id for class_id, track_id in objects}
    drawn = [(key[0], codes[key], box) for key, box in zip(objects, boxes)]
    classes, code_map = np.zeros((H, W), np.int64), np.zeros((H, W), np.int64)
    for class_id, code, (top, left, bottom, right) in (*drawn, *also):
        classes[top:bottom, left:right], code_map[top:bottom, left:right] = class_id, code
    kept, found = film.tracks.update(classes, code_map, known)
    result = np.zeros((H, W), np.int64)
    for (class_id, code), track_id in found.items():
        result[(classes == class_id) & (kept == code)] = track_id
    return ids(result)


def test_ids_that_are_told_go_on_and_new_ones_lie_above() -> None:
    film = Film()
    assert told(film, [(CAR, 70), (PERSON, 5)], (2, 0, 8, 8), (2, 20, 8, 24)) == [70, 5]
    codes = film.tracks.codes_of([(CAR, 70), (PERSON, 5)])
    later = film.show(car(codes[CAR, 70], 2), (PERSON, codes[PERSON, 5], (2, 21, 8, 25)), car(7, 36))
    assert ids(later) == [70, 5, 71]


def test_told_objects_take_the_tracks_that_have_their_ids() -> None:
    film = Film()
    film.show(car(4, 0), car(6, 20))
    assert told(film, [(CAR, 2)], (2, 30, 8, 38), also=(car(4, 1),)) == [1, 2], "a jump that no match would allow"
    assert {t.track_id: t.code for t in film.tracks.tracks} == {1: 4, 2: 6}


def test_an_object_that_is_told_another_id_becomes_another_track() -> None:
    film = Film()
    film.show(car(4, 0))
    assert told(film, [(CAR, 9)], (2, 1, 8, 9)) == [9]
    assert {t.track_id: t.missing for t in film.tracks.tracks} == {1: 1, 9: 0}


def test_classes_have_ids_of_their_own() -> None:
    film = Film()
    assert told(film, [(CAR, 1), (PERSON, 1)], (2, 0, 8, 8), (2, 20, 8, 24)) == [1]
    assert sorted((t.class_id, t.track_id) for t in film.tracks.tracks) == [(PERSON, 1), (CAR, 1)]


def test_codes_for_told_objects_are_different_and_free_where_possible() -> None:
    film = Film(num_codes=3)
    film.show(car(2, 0))
    codes = film.tracks.codes_of([(PERSON, 8), (CAR, 1), (CAR, 9)])
    assert codes[CAR, 1] == 2
    assert sorted(codes.values()) == [1, 2, 3]
    assert sorted(film.tracks.codes_of([(CAR, k) for k in (7, 8, 9)]).values()) == [1, 2, 3], "the code of a track"


def test_more_told_objects_than_codes_share_them_across_classes() -> None:
    """As a prediction may: a code belongs to an object together with its class."""
    film, objects = Film(num_codes=3), [*((CAR, k) for k in (4, 5, 6)), *((PERSON, k) for k in (1, 2))]
    codes = film.tracks.codes_of(objects)
    assert sorted(codes[CAR, k] for k in (4, 5, 6)) == [1, 2, 3]
    assert len({codes[PERSON, k] for k in (1, 2)}) == 2
    boxes = [(2, 9 * k, 8, 9 * k + 7) for k in range(5)]
    assert told(film, objects, *boxes) == [4, 5, 6, 1, 2]
    assert film.tracks.codes_of(objects) == codes


def test_a_told_object_in_two_parts_stays_one() -> None:
    """Both parts have its code; the track that was expected in the right one takes nothing from it."""
    film = Film()
    film.show(car(4, 0), car(6, 20))
    assert told(film, [(CAR, 1)], (2, 0, 8, 28)) == [1]
