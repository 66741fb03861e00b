"""Clip-consistent augmentation: one draw per clip, images and maps on one canvas, ids never interpolated."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pix2seq_d.data.batch import Clip
from pix2seq_d.data.corruption import PastCorruption
from pix2seq_d.data.transforms import PAD_GREY, ClipParams, ClipTransform, Letterbox, degrade, recolour

SIDES = st.integers(1, 40)
SIZES = st.tuples(SIDES, SIDES)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def random_clip(rng: np.random.Generator, size: tuple[int, int], *, maps: int = 3, images: int = 2) -> Clip:
    return Clip(
        frames=rng.integers(0, 256, (images, *size, 3), dtype=np.uint8),
        class_map=rng.choice(np.array([0, 7, 13, 255], np.uint8), (maps, *size)),
        instance_map=rng.choice(np.array([0, 3, 40000], np.int32), (maps, *size)),
        present=np.array([False] + [True] * (maps - 1)),
        sequence_id="a",
        frame_id=5,
    )


def block_clip(rng: np.random.Generator, size: tuple[int, int]) -> Clip:
    """Black and white blocks of 8 pixels whose class is 0 where black and 1 where white, in frames and maps alike."""
    blocks = rng.integers(0, 2, (size[0] // 8, size[1] // 8)).repeat(8, axis=0).repeat(8, axis=1)
    class_map = blocks.astype(np.uint8)[None].repeat(2, axis=0)
    frames = (class_map * 255)[..., None].repeat(3, axis=3)
    return Clip(frames, class_map, class_map.astype(np.int32) * 9, np.ones(2, bool), "a", 0)


# Letterbox


def test_fit_of_a_kitti_frame() -> None:
    """375x1242 into 384x1248: the width limits, 1248 / 1242; 375 * 1248 / 1242 = 376.8 rows of content."""
    box = Letterbox((375, 1242), (384, 1248))
    assert box.content_size == box.visible_size == (377, 1248)
    image = box.image(np.zeros((375, 1242, 3), np.uint8))
    assert image.shape == (384, 1248, 3)
    assert not image[:377].any()
    assert (image[377:] == PAD_GREY).all()
    mask = box.map(np.zeros((375, 1242), np.uint8), (192, 624), fill=255)
    assert not mask[:188].any()  # centre of row 188 lies at canvas row 377
    assert (mask[188:] == 255).all()


@settings(max_examples=150, deadline=None)
@given(source=SIZES, target=SIZES, size=SIZES, scale=st.floats(0.3, 3), seed=st.integers(0, 99))
def test_maps_gain_no_value_and_come_back_in_size(
    source: tuple[int, int], target: tuple[int, int], size: tuple[int, int], scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 1000, (2, *source))
    content = Letterbox(source, target, scale).content_size
    box = Letterbox(source, target, scale, (int(rng.integers(content[0])), int(rng.integers(content[1]))))
    mapped = box.map(values, size, fill=-1)
    assert mapped.shape == (2, *size)
    assert set(np.unique(mapped)) <= {*np.unique(values), -1}
    assert box.inverse_map(mapped).shape == values.shape
    assert box.image(np.zeros((*source, 3), np.uint8)).shape == (*target, 3)


@settings(max_examples=100, deadline=None)
@given(source=SIZES, grow=st.tuples(st.integers(0, 30), st.integers(0, 30)), seed=st.integers(0, 99))
def test_enlarging_letterbox_is_undone_exactly(source: tuple[int, int], grow: tuple[int, int], seed: int) -> None:
    """At identity or larger every source pixel owns a canvas pixel, so inverse after forward is exact."""
    target = (source[0] + grow[0], source[1] + grow[1])
    values = np.random.default_rng(seed).integers(0, 1000, source)
    box = Letterbox(source, target)
    np.testing.assert_array_equal(box.inverse_map(box.map(values, target, fill=-1)), values)


def test_identity_leaves_images_and_maps_alone(rng: np.random.Generator) -> None:
    clip = random_clip(rng, (12, 20))
    box = Letterbox((12, 20), (12, 20))
    np.testing.assert_array_equal(box.image(clip.frames[0]), clip.frames[0])
    np.testing.assert_array_equal(box.map(clip.class_map, (12, 20), fill=9), clip.class_map)


def test_padding_does_not_come_back() -> None:
    box = Letterbox((10, 40), (40, 40))
    mask = np.full((20, 20), 7)
    mask[:5] = 1  # content: 10 of 40 rows
    assert (box.inverse_map(mask) == 1).all()


def test_half_size_mask_samples_at_pixel_centres() -> None:
    """Canvas of 8 shown on 4: the centres 1 3 5 7 fall on pixel borders and belong to the pixel that begins there."""
    assert Letterbox((1, 8), (1, 8)).map(np.arange(8)[None], (1, 4), fill=-1).tolist() == [[1, 3, 5, 7]]
    assert Letterbox((1, 9), (1, 9)).map(np.arange(9)[None], (1, 3), fill=-1).tolist() == [[1, 4, 7]]
    thin = Letterbox((40, 2), (16, 32))  # one pixel wide, a map's column shows two
    assert thin.map(np.ones((40, 2), int), (8, 16), fill=0).sum(0).tolist() == [8] + [0] * 15
    assert thin.sample_positions((8, 16))[1].tolist() == [0, 0]


def test_positions_are_pixel_centres() -> None:
    """A frame of 2x4 on a canvas of 4x8 whose maps have 2x4 pixels: centres at 0.5, 1.5, ..."""
    rows, cols = Letterbox((2, 4), (4, 8)).positions((2, 4))
    assert rows.tolist() == [0.5, 1.5]
    assert cols.tolist() == [0.5, 1.5, 2.5, 3.5]


def test_crop_equals_crop_of_the_whole(rng: np.random.Generator) -> None:
    """Resizing a window gives the pixels of that window in the whole resized image."""
    image = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
    whole = Letterbox((30, 50), (45, 75)).image(image)
    crop = Letterbox((30, 50), (15, 25), 3.0, (11, 40)).image(image)
    assert np.abs(crop.astype(int) - whole[11:26, 40:65]).max() <= 3  # Pillow rounds after either direction
    assert np.abs(crop.astype(int) - whole[11:26, 41:66]).mean() > 20


@pytest.mark.parametrize(
    "arguments",
    [
        ((0, 4), (4, 4)),
        ((4, 4), (4, 0)),
        ((4, 4), (4, 4), 0.0),
        ((4, 4), (4, 4), 1.0, (4, 0)),
        ((4, 4), (4, 4), 1.0, (-1, 0)),
    ],
)
def test_letterbox_arguments(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        Letterbox(*arguments)


def test_other_sizes_are_refused() -> None:
    box = Letterbox((4, 6), (8, 8))
    with pytest.raises(ValueError, match=r"size \(4, 6\), got \(6, 4\)"):
        box.image(np.zeros((6, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"size \(4, 6\), got \(6, 4\)"):
        box.map(np.zeros((2, 6, 4)), (8, 8), fill=0)


# Clips


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1.37, 2.6])
def test_images_and_maps_stay_together(rng: np.random.Generator, flip: bool, scale: float) -> None:
    """Thresholded images equal their maps but for the pixels on block edges; no side is favoured."""
    clip = block_clip(rng, (64, 160))
    transform = ClipTransform((96, 200), (96, 200), scale_range=(scale, scale), flip_rate=float(flip))
    for seed in range(10):
        out = transform.apply(clip, transform.make_params(clip, np.random.default_rng(seed)))
        known = out.class_map[0] != 255
        white = out.frames[0, ..., 0] >= 128
        wrong = (white != (out.class_map[0] == 1)) & known
        assert wrong.mean() < 0.01
        assert (out.frames[0][~known] == PAD_GREY).all()
        assert white[known].any() != white[known].all()


def test_small_masks_agree_with_the_image(rng: np.random.Generator) -> None:
    """Shrunk image and map at a quarter of the size show the same blocks; shifted by one pixel they do not."""
    clip = block_clip(rng, (64, 160))
    transform = ClipTransform((192, 480), (48, 120), scale_range=(1, 2), flip_rate=0.5)
    for seed in range(5):
        out = transform.apply(clip, transform.make_params(clip, np.random.default_rng(seed)))
        small = out.frames[0, ..., 0].reshape(48, 4, 120, 4).mean(axis=(1, 3)) >= 128
        mask = out.class_map[0] == 1
        assert (small != mask).mean() < 0.005
        assert (small[:, 1:] != mask[:, :-1]).mean() > 0.03
        assert (small[:, :-1] != mask[:, 1:]).mean() > 0.03


def test_flip_mirrors_every_frame_and_map(rng: np.random.Generator) -> None:
    clip = random_clip(rng, (8, 12))
    params = ClipParams(Letterbox((8, 12), (8, 12)), flip=True)
    out = ClipTransform((8, 12), (8, 12)).apply(clip, params)
    np.testing.assert_array_equal(out.frames, clip.frames[:, :, ::-1])
    np.testing.assert_array_equal(out.class_map, clip.class_map[..., ::-1])
    np.testing.assert_array_equal(out.instance_map, clip.instance_map[..., ::-1])


@settings(max_examples=60, deadline=None)
@given(source=st.tuples(st.integers(4, 40), st.integers(4, 40)), image=SIZES, mask=SIZES, seed=st.integers(0, 999))
def test_no_transform_invents_an_id(
    source: tuple[int, int], image: tuple[int, int], mask: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    clip = random_clip(rng, source)
    transform = ClipTransform(
        image, mask, scale_range=(0.5, 3), flip_rate=0.5, brightness=0.5, contrast=0.5, saturation=0.5,
        hue=0.1, blur=2.0, noise=9.0, corruption=PastCorruption(0.3, 0.5, 2, 0.5),
    )  # fmt: skip
    out = transform.apply(clip, transform.make_params(clip, rng))
    assert out.frames.shape == (2, *image, 3)
    assert out.class_map.shape == out.instance_map.shape == (3, *mask)
    assert (out.class_map.dtype, out.instance_map.dtype) == (np.uint8, np.int32)
    assert set(np.unique(out.class_map)) <= {*np.unique(clip.class_map), 255}
    assert set(np.unique(out.instance_map)) <= {*np.unique(clip.instance_map), 0}
    assert (out.name, out.present.tolist()) == (clip.name, clip.present.tolist())


def test_equal_frames_stay_equal(rng: np.random.Generator) -> None:
    """One draw for the whole clip: frames and maps that agree before agree after."""
    clip = random_clip(rng, (20, 30), maps=3, images=3)
    clip.frames[:], clip.class_map[:], clip.instance_map[:] = clip.frames[0], clip.class_map[0], clip.instance_map[0]
    transform = ClipTransform(
        (16, 24), (8, 12), scale_range=(1, 3), flip_rate=0.5, brightness=0.4, contrast=0.4, saturation=0.4
    )
    for seed in range(8):
        out = transform.apply(clip, transform.make_params(clip, np.random.default_rng(seed)))
        for values in (out.frames, out.class_map, out.instance_map):
            assert (values == values[0]).all()


def test_the_clip_is_not_changed(rng: np.random.Generator) -> None:
    clip = random_clip(rng, (8, 12))
    before = [clip.frames.copy(), clip.class_map.copy(), clip.instance_map.copy()]
    transform = ClipTransform((8, 12), (8, 12), flip_rate=1, brightness=0.5)
    out = transform.apply(clip, transform.make_params(clip, rng))
    for values in (out.frames, out.class_map, out.instance_map):
        values[:] = 1
    for values, expected in zip((clip.frames, clip.class_map, clip.instance_map), before):
        np.testing.assert_array_equal(values, expected)


# Parameters


@pytest.mark.parametrize(
    ("settings_", "field"),
    [
        ({"scale_range": (1.5, 2.5)}, "letterbox"),
        ({"flip_rate": 0.5}, "flip"),
        ({"brightness": 0.3}, "brightness"),
        ({"contrast": 0.3}, "contrast"),
        ({"saturation": 0.3}, "saturation"),
        ({"hue": 0.1}, "hue"),
        ({"blur": 2.0}, "blur"),
    ],
)
def test_every_setting_has_its_effect_and_no_other(rng: np.random.Generator, settings_: dict, field: str) -> None:
    clip = random_clip(rng, (20, 30))
    plain = ClipTransform((20, 30), (10, 15))
    varied = ClipTransform((20, 30), (10, 15), **settings_)
    quiet = {plain.make_params(clip, np.random.default_rng(s)) for s in range(12)}
    loud = [varied.make_params(clip, np.random.default_rng(s)) for s in range(12)]
    assert quiet == {ClipParams(Letterbox((20, 30), (20, 30)))}
    assert len({getattr(p, field) for p in loud}) > 1
    others = [f.name for f in dataclasses.fields(ClipParams) if f.name != field]
    assert {tuple(getattr(p, f) for f in others) for p in loud} == {tuple(getattr(p, f) for f in others) for p in quiet}


def test_noise_and_corruption_draw_a_seed(rng: np.random.Generator) -> None:
    clip = random_clip(rng, (20, 30))
    noisy, wrong = (
        ClipTransform((20, 30), (10, 15), noise=5),
        ClipTransform((20, 30), (10, 15), corruption=PastCorruption(drop_rate=0.5)),
    )
    for transform in (noisy, wrong):
        params = [transform.make_params(clip, np.random.default_rng(s)) for s in range(8)]
        assert len({p.seed for p in params}) == 8
        assert {p.noise > 0 for p in params} == {transform is noisy}


def test_later_settings_change_no_earlier_draw(rng: np.random.Generator) -> None:
    """Not the parameters of the others, nor what the generator gives next."""
    clip = random_clip(rng, (20, 30))
    settings_ = dict(scale_range=(1, 3), flip_rate=0.5, brightness=0.4, contrast=0.4, saturation=0.4)
    plain = ClipTransform((16, 24), (8, 12), **settings_)
    rich = ClipTransform((16, 24), (8, 12), **settings_, hue=0.1, blur=1, noise=3, corruption=PastCorruption(0.1))
    one, other = np.random.default_rng(4), np.random.default_rng(4)
    params = rich.make_params(clip, other)
    assert plain.make_params(clip, one) == dataclasses.replace(params, hue=0.0, blur=0.0, noise=0.0, seed=0)
    assert one.random() == other.random()
    assert rich.make_params(clip, np.random.default_rng(4)) == params


def test_windows_reach_every_corner(rng: np.random.Generator) -> None:
    """4x4 enlarged twofold on a 4x4 canvas: offsets 0..4 in both directions."""
    clip = random_clip(rng, (4, 4))
    transform = ClipTransform((4, 4), (4, 4), scale_range=(2, 2))
    offsets = {transform.make_params(clip, rng).letterbox.offset for _ in range(400)}
    assert offsets == {(row, col) for row in range(5) for col in range(5)}


def test_colour_leaves_maps_and_padding_alone(rng: np.random.Generator) -> None:
    clip = random_clip(rng, (8, 32))
    box = Letterbox((8, 32), (16, 32))
    transform = ClipTransform((16, 32), (16, 32))
    plain = transform.apply(clip, ClipParams(box))
    bright = transform.apply(clip, ClipParams(box, brightness=1.3, contrast=0.7, saturation=0.5))
    np.testing.assert_array_equal(bright.class_map, plain.class_map)
    np.testing.assert_array_equal(bright.instance_map, plain.instance_map)
    assert (bright.frames[:, 8:] == PAD_GREY).all()
    assert (bright.frames[:, :8] != plain.frames[:, :8]).mean() > 0.5


def test_recolour_by_hand() -> None:
    """Brightness 1.5: 100 -> 150, 200 -> 255 (cut). Contrast 0.5: 24 -> 124 - 50 = 74. Saturation 0: luma of red 76."""
    box = Letterbox((1, 1), (1, 1))

    def one(rgb: tuple[int, int, int], params: ClipParams) -> list[int]:
        return np.asarray(recolour(Image.new("RGB", (1, 1), rgb), params))[0, 0].tolist()

    assert one((100, 200, 0), ClipParams(box, brightness=1.5)) == [150, 255, 0]
    assert one((24, 124, 224), ClipParams(box, contrast=0.5)) == [74, 124, 174]
    assert one((255, 0, 0), ClipParams(box, saturation=0.0)) == [76, 76, 76]


def test_hue_by_hand() -> None:
    """A third of a turn makes red green and green blue; grey stays grey; half a turn of red is 2/3, 2/3 minus 1/3."""
    box = Letterbox((1, 1), (1, 1))

    def one(rgb: tuple[int, int, int], turns: float) -> list[int]:
        return np.asarray(recolour(Image.new("RGB", (1, 1), rgb), ClipParams(box, hue=turns)))[0, 0].tolist()

    assert one((200, 0, 0), 1 / 3) == [0, 200, 0]
    assert one((10, 200, 30), 1 / 3) == [30, 10, 200]
    assert one((90, 90, 90), 0.17) == [90, 90, 90]
    assert one((150, 0, 0), 0.5) == [0, 100, 100]


def test_blur_spreads_and_keeps_the_mean() -> None:
    image = np.zeros((31, 31, 3), np.uint8)
    image[15, 15] = 255
    params = ClipParams(Letterbox((31, 31), (31, 31)), blur=1.5)
    blurred = np.asarray(degrade(Image.fromarray(image), params, 0))[..., 0].astype(float)
    assert blurred.sum() == pytest.approx(255, rel=0.2)
    rows = np.arange(31) - 15
    assert np.sqrt((blurred.sum(axis=1) * rows**2).sum() / blurred.sum()) == pytest.approx(1.5, rel=0.15)


@pytest.mark.parametrize("sigma", [0.7, 6.0])
def test_noise_has_its_deviation_and_is_new_in_every_frame(sigma: float) -> None:
    image = Image.new("RGB", (200, 100), (100, 120, 140))
    params = ClipParams(Letterbox((100, 200), (100, 200)), noise=sigma, seed=5)
    first, second = (np.asarray(degrade(image, params, frame)).astype(float) for frame in (0, 1))
    assert (first - np.asarray(image)).std() == pytest.approx(np.hypot(sigma, 12**-0.5), rel=0.05)  # rounded
    assert (first - np.asarray(image)).mean() == pytest.approx(0, abs=0.1)
    assert (first - second).std() == pytest.approx(np.sqrt(2) * (first - np.asarray(image)).std(), rel=0.05)
    np.testing.assert_array_equal(degrade(image, params, 0), first)


def test_noise_is_cut_off_at_black_and_white() -> None:
    params = ClipParams(Letterbox((9, 9), (9, 9)), noise=80.0)
    for grey in (0, 255):
        noisy = np.asarray(degrade(Image.new("RGB", (9, 9), (grey,) * 3), params, 0))
        assert noisy.dtype == np.uint8
        assert (np.abs(noisy.astype(int) - grey) < 250).all()
        assert (noisy == grey).mean() > 0.3


def test_only_past_maps_are_corrupted(rng: np.random.Generator) -> None:
    clip = random_clip(rng, (16, 24))
    plain = ClipTransform((16, 24), (8, 12))
    wrong = ClipTransform((16, 24), (8, 12), corruption=PastCorruption(drop_rate=0.7, shift=2))
    params = wrong.make_params(clip, rng)
    one, other = plain.apply(clip, params), wrong.apply(clip, params)
    np.testing.assert_array_equal(one.frames, other.frames)
    for name in ("class_map", "instance_map"):
        before, after = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(before[[0, -1]], after[[0, -1]])  # the first past map is absent
        assert (before[1] != after[1]).any()
    assert other.present is clip.present


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"flip_rate": 1.5}, "flip_rate"),
        ({"brightness": -0.1}, "brightness"),
        ({"contrast": 2.0}, "contrast"),
        ({"saturation": 1.1}, "saturation"),
        ({"hue": -0.1}, "hue"),
        ({"blur": -1.0}, "blur"),
        ({"noise": float("inf")}, "noise"),
        ({"scale_range": (2.0, 1.0)}, "scale_range"),
        ({"scale_range": (0.0, 1.0)}, "scale_range"),
    ],
)
def test_bad_settings(settings_: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ClipTransform((8, 8), (4, 4), **settings_)


def test_bad_sizes(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="image_size"):
        ClipTransform((0, 8), (4, 4))
    clip = random_clip(rng, (8, 8))
    clip.instance_map = clip.instance_map[:, :4]
    transform = ClipTransform((8, 8), (4, 4))
    with pytest.raises(ValueError, match="clip a/000005: expected frames and maps of one size"):
        transform.make_params(clip, rng)
