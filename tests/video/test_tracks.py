"""Objects followed from frame to frame, drawn as maps of 12 rows; a letter and its digit are a class and a code."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from film import CAR, PERSON, ROAD, Box, Film, H, W, car, ids

from pix2seq_d.data.formats import read_kitti_step
from pix2seq_d.labels import LABEL_SPECS
from pix2seq_d.video.tracks import Track, TrackIds, box_distance, box_gap, number_segments, regions, touching_pairs

SPEC = LABEL_SPECS["kitti-step"]


# codes that tell the truth


def test_an_object_keeps_its_id_and_its_code_while_it_moves() -> None:
    film = Film()
    for k in range(6):
        found = film.show(car(3, 2 * k), (PERSON, 5, (4, 40 - k, 10, 43 - k)))
        assert ids(found) == [2, 1]
        assert (film.codes[4, 2 * k + 3], film.codes[6, 41 - k]) == (3, 5)


def test_an_object_is_expected_where_its_motion_takes_it() -> None:
    """In the last frame it has another code and lies beside its place in the frame before."""
    film = Film()
    for code, left in ((3, 0), (3, 5), (3, 12), (3, 20), (5, 28)):
        assert ids(film.show(car(code, left, width=6))) == [1]
    assert film.codes.max() == 3


def test_ids_are_never_given_twice() -> None:
    film = Film()
    given = [ids(film.show(car(1, 0 if k % 2 else 30)))[0] for k in range(20)]  # of one code, too far to be one car
    assert given[:2] == [1, 2]
    assert sorted(set(given)) == list(range(1, max(given) + 1))


# codes that change hands


def test_a_code_switch_keeps_the_id_and_is_undone_in_memory() -> None:
    film = Film()
    film.show(car(3, 10))
    for left in (11, 12):
        assert ids(film.show(car(6, left))) == [1]
        assert np.unique(film.codes).tolist() == [0, 3]


def test_two_objects_that_exchange_their_codes_keep_their_ids() -> None:
    film = Film()
    film.show(car(1, 4), car(2, 30))
    found = film.show(car(2, 4), car(1, 30))
    assert ids(found) == [1, 2]
    assert (film.codes[4, 6], film.codes[4, 32]) == (1, 2)


def test_a_code_taken_over_by_an_object_elsewhere_is_another_track_and_gets_another_code() -> None:
    film = Film()
    film.show(car(3, 2))
    assert ids(film.show(car(3, 30))) == [2]
    assert np.unique(film.codes).tolist() == [0, 1]  # code 3 waits for its car
    assert ids(film.show(car(3, 2), car(1, 30))) == [1, 2]


def test_a_class_is_never_exchanged() -> None:
    film = Film()
    film.show(car(1, 10))
    assert ids(film.show((PERSON, 1, (2, 10, 8, 18)))) == [2]
    assert ids(film.show(car(1, 10))) == [1]


def test_one_code_in_two_classes_is_two_tracks_with_codes_of_their_own() -> None:
    film = Film()
    found = film.show(car(1, 4), (PERSON, 1, (4, 12, 10, 15)))
    assert len(ids(found)) == 2
    assert len(np.unique(film.codes)) == 3


# hidden objects


@pytest.mark.parametrize(("frames", "same"), [(1, True), (4, True), (8, True), (9, False)])
def test_an_object_hidden_for_no_longer_than_memory_is_found_again(frames: int, same: bool) -> None:
    """It moves on by two columns a frame while hidden, and comes back with another code."""
    film = Film()
    for k in range(8):
        film.show(car(3, 2 * k))
    for _ in range(frames):
        film.show()
    assert ids(film.show(car(5, 2 * (8 + frames) - 2))) == [1 if same else 2]
    assert film.codes.max() == (3 if same else 5)


@pytest.mark.parametrize("back", [car(5, 30), car(5, 4, top=0, bottom=12, width=14), (PERSON, 5, (2, 4, 8, 12))])
def test_what_appears_elsewhere_or_of_another_size_or_class_is_new(back: tuple[int, int, Box]) -> None:
    film = Film()
    film.show(car(3, 4, width=5))
    for _ in range(3):
        film.show()
    assert ids(film.show(back)) == [2]


def test_a_seen_track_comes_before_a_hidden_one() -> None:
    film = Film()
    film.show(car(1, 4), car(2, 13))
    film.show(car(2, 11))
    assert ids(film.show(car(5, 9))) == [2]


def test_a_hidden_object_whose_code_was_needed_comes_back_with_another() -> None:
    film = Film(num_codes=2)
    film.show(car(1, 2), car(2, 36))
    film.show(car(2, 36))
    film.show(car(1, 18), car(2, 36))  # no third code
    assert [t.code for t in film.tracks.tracks] == [0, 2, 1]
    film.show(car(1, 18))
    assert ids(film.show(car(2, 2), car(1, 18))) == [1, 3]


# splits and merges


def test_a_fragment_joins_the_object_in_which_it_lies() -> None:
    film = Film()
    film.show(car(3, 10, width=12))
    found = film.show(car(3, 10, width=7), car(5, 17, width=5))
    assert ids(found) == [1]
    assert np.unique(film.codes).tolist() == [0, 3]


def test_a_new_object_beside_an_old_one_is_no_fragment() -> None:
    film = Film()
    film.show(car(3, 10, width=12))
    assert ids(film.show(car(3, 10, width=12), car(5, 22, width=5))) == [1, 2]


def test_objects_that_were_apart_stay_two_when_one_code_swallows_them() -> None:
    film = Film()
    film.show(car(3, 10, width=8), car(5, 20, width=8))
    film.show(car(3, 10, width=8), car(5, 19, width=8))
    found = film.show(car(3, 10, width=16))
    assert ids(found) == [1, 2]
    assert np.unique(found[4]).tolist() == [0, 1, 2]
    border = int(np.nonzero(found[4] == 2)[0].min())
    assert border == 18
    assert (film.codes[4, 17], film.codes[4, 18]) == (3, 5)


def test_fragments_from_the_first_frame_on_may_become_one() -> None:
    film = Film()
    assert ids(film.show(car(3, 10, width=8), car(5, 18, width=8))) == [1, 2]
    assert len(ids(film.show(car(3, 10, width=16)))) == 1


def test_an_object_that_goes_behind_another_is_not_cut_out_of_it() -> None:
    film = Film()
    film.show(car(3, 12, width=16, top=0, bottom=12))
    for left in (4, 7, 10):
        film.show(car(5, left, width=6), car(3, 12, width=16, top=0, bottom=12))
    assert ids(film.show(car(3, 12, width=16, top=0, bottom=12))) == [1]


def test_nothing_is_split_where_no_code_is_free() -> None:
    film = Film(num_codes=2)
    film.show(car(1, 10, width=8), car(2, 20, width=8))
    film.show(car(1, 10, width=8), car(2, 19, width=8))
    assert len(ids(film.show(car(1, 10, width=16), (PERSON, 2, (8, 40, 12, 44))))) == 2


# real maps


def test_objects_of_kitti_keep_their_ids_when_every_code_changes() -> None:
    folder = os.environ.get("PIX2SEQ_D_TEST_DATA")
    if not folder:
        pytest.skip("PIX2SEQ_D_TEST_DATA is not set: no real KITTI-STEP maps")
    maps = Path(folder) / "kitti_step_fixture" / "official" / "panoptic_maps" / "train" / "0001"
    tracks, ids_of = TrackIds(num_codes=63), []
    for path, factor in ((maps / "000000.png", 1), (maps / "000001.png", 7)):
        class_map, instance_map = read_kitti_step(path)
        instance_map = instance_map * SPEC.is_thing(class_map)
        codes = np.where(instance_map > 0, instance_map * factor % 61 + 1, 0)
        kept, ids = tracks.update(class_map, codes)
        objects = np.unique(np.stack([instance_map, class_map, kept])[:, kept > 0], axis=1).T.tolist()
        ids_of.append({i: ids[class_id, code] for i, class_id, code in objects})
        assert len(objects) == len(ids_of[-1]) == 7
    assert ids_of[0] == ids_of[1]


# a long video


def test_random_maps_keep_every_promise_with_bounded_memory() -> None:
    """Boxes at random: every pixel has an id, ids are never shared, codes are unique in a class, memory is bounded."""
    rng, film = np.random.default_rng(0), Film(num_codes=3, memory=4)
    last, seen = 0, {}
    for frame in range(300):
        objects = []
        for _ in range(rng.integers(0, 7)):
            top, left = int(rng.integers(0, 9)), int(rng.integers(0, 42))
            box = (top, left, top + int(rng.integers(2, 8)), left + int(rng.integers(2, 16)))
            objects.append((int(rng.choice([PERSON, CAR])), int(rng.integers(1, 4)), box))
        found = film.show(*objects)
        pairs = np.unique(np.stack([film.classes[found > 0], film.codes[found > 0]]), axis=1)
        assert pairs.shape[1] == len(ids(found)) == len(np.unique(found[found > 0]))
        assert film.codes.max() <= 3
        for i in ids(found):
            assert i > last or frame - seen[i] <= 5  # never back after it was forgotten
            seen[i] = frame
        last = max(seen, default=0)
        assert len(film.tracks.tracks) <= 2 * 3 * (4 + 1)
        alive = {t.track_id for t in film.tracks.tracks}
        assert all(t.attached <= alive for t in film.tracks.tracks)


def test_reset_forgets() -> None:
    film = Film()
    film.show(car(3, 10), car(5, 30))
    film.tracks.reset()
    assert not film.tracks.expected_codes((H, W)).any()
    assert ids(film.show(car(5, 30))) == [1]


# what a track expects


def seen_twice(first: Box, second: Box) -> Track:
    track = Track(1, CAR, 3)
    for top, left, bottom, right in (first, second):
        mask, box = np.ones((bottom - top, right - left), bool), np.array([top, left, bottom, right], float)
        track.see(box[:2], mask, box)
    return track


def test_velocity_and_growth_are_halfway_to_what_was_measured() -> None:
    track = seen_twice((2, 4, 6, 8), (2, 8, 6, 12))
    assert track.velocity.tolist() == [0, 2]
    assert track.growth == 1
    assert track.expect(track.box).tolist() == [2, 10, 6, 14]
    grown = seen_twice((4, 4, 8, 8), (3, 3, 9, 9))  # by half, taken for MAX_GROWTH = 1.25
    assert grown.growth == pytest.approx(1.25**0.5)
    assert grown.expect(grown.box) == pytest.approx([6 - 3 * 1.25**0.5] * 2 + [6 + 3 * 1.25**0.5] * 2)
    grown.missing = 2
    assert grown.expect(grown.box).tolist() == [3, 3, 9, 9]


def test_the_expected_mask_ends_at_the_map() -> None:
    track = seen_twice((2, 0, 6, 4), (2, 0, 6, 4))
    track.velocity = np.array([0.0, -3.0])
    (rows, columns), mask = track.expected_mask((H, W))
    assert (rows, columns, mask.shape) == (slice(2, 6), slice(0, 1), (4, 1))
    track.velocity = np.array([0.0, -9.0])
    assert track.expected_mask((H, W))[1].size == 0


def test_expected_codes_are_those_of_the_frames_that_the_model_remembers() -> None:
    film = Film()
    film.show(car(3, 4))
    for frames in (0, 1, 2):
        expected = film.tracks.expected_codes((H, W))
        assert (np.unique(expected[1]).tolist() == [0, 3]) == (frames < 2)
        film.show()


def test_ids_that_nobody_has_come_again_when_all_were_given() -> None:
    tracks = TrackIds(num_codes=7, memory=0, max_id=3)
    lasting, found = (slice(2, 8), slice(0, 8)), []
    for k in range(5):  # a car stays, and beside it another one is new in every frame, far from the last
        codes = np.zeros((H, W), np.int64)
        codes[lasting], codes[2:8, 12 + 16 * (k % 2) : 20 + 16 * (k % 2)] = 1, 2 + k % 2
        found.append(sorted(tracks.update(np.where(codes > 0, CAR, ROAD), codes)[1].values()))
    assert found == [[1, 2], [1, 3], [1, 2], [1, 3], [1, 2]]


# helpers


def test_number_segments_and_regions() -> None:
    classes, codes = np.array([[CAR, CAR, PERSON, ROAD]]), np.array([[2, 2, 2, 0]])
    labels, of_class, of_code = number_segments(classes, codes)
    assert labels.tolist() == [[2, 2, 1, 0]]
    assert (of_class.tolist(), of_code.tolist()) == ([-1, PERSON, CAR], [-1, 2, 2])
    inner, full, area = regions(labels, 4)
    assert full.tolist() == inner.tolist() == [[0, 0, 0, 0], [0, 2, 1, 3], [0, 0, 1, 2], [0, 0, 0, 0]]
    assert area.tolist() == [0, 1, 2, 0]


def test_a_stray_pixel_is_outside_of_the_inner_box() -> None:
    labels = np.zeros((H, W), int)
    labels[2:8, 4:12], labels[0, 40] = 1, 1
    inner, full, _ = regions(labels, 2)
    assert full[1].tolist() == [0, 4, 8, 41]
    assert inner[1].tolist() == [2, 4, 8, 12]


def test_box_measures_and_neighbours() -> None:
    boxes = np.array([[0.0, 0, 2, 2], [0, 5, 2, 6], [9, 3, 10, 4]])
    assert box_gap(np.array([0.0, 0, 2, 3]), boxes).tolist() == [0, 2, 7]
    distance = box_distance(np.array([0.0, 0, 4, 2]), (4, 4))
    assert distance[0, 0] == pytest.approx(np.hypot(1.5 / 2, 0.5))
    assert distance[2, 3] == pytest.approx(np.hypot(0.5 / 2, 2.5))
    assert touching_pairs(np.array([[0, 1, -1], [0, -1, 2]])) == {(1, 0)}
