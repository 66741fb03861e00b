"""Resizing and augmentation of clips: parameters are drawn once per clip, images bilinear, labels nearest.

`Letterbox` is the geometry: it fits a frame into a canvas without changing its shape and pads at the bottom and right.
Images and maps of different sizes see the same canvas; training moves and enlarges it, inference inverts it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from pix2seq_d.data.batch import Clip
from pix2seq_d.data.corruption import PastCorruption
from pix2seq_d.labels import VOID_ID

Size = tuple[int, int]  # (height, width)
PAD_GREY = 124  # near the mean of street images


@dataclass(frozen=True)
class Letterbox:
    """Places a frame of `source_size` on a canvas of `target_size`.

    The frame is scaled to whole canvas pixels so that it fits (then `scale`-fold), and the canvas shows it from
    `offset` on; where the frame ends the canvas is padding. A map of any other size covers the same canvas, so a mask
    at half or a quarter of the image size agrees with the image; it is sampled at its pixel centres.

    Attributes:
        source_size: (H, W) of the frame.
        target_size: (H, W) of the canvas, in image pixels.
        scale: enlargement beyond the fit; 1 shows the whole frame.
        offset: (top, left) of the canvas on the scaled frame, in image pixels, not negative.
    """

    source_size: Size
    target_size: Size
    scale: float = 1.0
    offset: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if min(*self.source_size, *self.target_size) < 1 or self.scale <= 0:
            raise ValueError(f"expected positive sizes and scale, got {self}")
        if any(not 0 <= o < n for o, n in zip(self.offset, self.content_size)):
            raise ValueError(f"expected an offset inside the scaled frame {self.content_size}, got {self.offset}")

    @property
    def content_size(self) -> Size:
        """(H, W) of the scaled frame in canvas pixels."""
        fit = min(t / s for s, t in zip(self.source_size, self.target_size)) * self.scale
        height, width = (max(1, round(s * fit)) for s in self.source_size)
        return height, width

    @property
    def visible_size(self) -> Size:
        """(H, W) of the part of the scaled frame that the canvas shows; the rest of the canvas is padding."""
        pairs = zip(self.content_size, self.offset, self.target_size)
        height, width = (min(c - o, t) for c, o, t in pairs)
        return height, width

    def image_content(self, image: np.ndarray, *, flip: bool = False) -> Image.Image:
        """The visible part of a (H, W, 3) uint8 image (mirrored first), bilinear with antialiasing, without padding."""
        self._check(image)
        (sy, sx), (top, left), (height, width) = self._source_per_canvas(), self.offset, self.visible_size
        rows, cols = self.source_size
        box = (left * sx, top * sy, min((left + width) * sx, cols), min((top + height) * sy, rows))
        source = Image.fromarray(np.ascontiguousarray(image))
        if flip:
            source = source.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return source.resize((width, height), Image.Resampling.BILINEAR, box=box)

    def pad(self, content: Image.Image | np.ndarray) -> np.ndarray:
        """The visible part on the whole canvas: (target height, target width, 3) uint8."""
        height, width = self.visible_size
        if (height, width) == self.target_size:
            return np.array(content)
        canvas = np.full((*self.target_size, 3), PAD_GREY, np.uint8)
        canvas[:height, :width] = np.asarray(content)
        return canvas

    def image(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 image to the canvas, (target height, target width, 3) uint8."""
        return self.pad(self.image_content(image))

    def map(self, values: np.ndarray, size: Size, *, fill: int, flip: bool = False) -> np.ndarray:
        """(..., H, W) map to (..., *size) over the same canvas: nearest, `fill` on the padding, never a new value.

        With `flip` the map is mirrored first, as `image_content` does.
        """
        self._check(values[..., None])
        rows, cols = (self._source_index(axis, n) for axis, n in enumerate(size))
        if flip:
            cols = self.source_size[1] - 1 - cols
        inside = values[..., rows, :].take(cols, axis=-1)  # whole rows first: several times faster than both at once
        if inside.shape[-2:] == size:
            return inside
        out = np.full((*values.shape[:-2], *size), fill, values.dtype)
        out[..., : len(rows), : len(cols)] = inside
        return out

    def inverse_map(self, values: np.ndarray) -> np.ndarray:
        """(..., h, w) map over the canvas back to (..., H, W) of the frame: nearest, the padding falls away."""
        rows, cols = (np.floor(p).astype(np.int64) for p in self.positions(values.shape[-2:]))
        last_row, last_col = values.shape[-2] - 1, values.shape[-1] - 1
        return values[..., rows.clip(0, last_row)[:, None], cols.clip(0, last_col)]

    def positions(self, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Where the frame's pixel centres lie on a map of `size` over the canvas, in its pixels (0 = its first edge).

        Returns:
            (H,) rows and (W,) columns, float64; subtract 0.5 for the convention in which 0 is the first pixel's centre.
        """
        rows, cols = (self._canvas_position(axis, n) for axis, n in enumerate(size))
        return rows, cols

    def sample_positions(self, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """Where the frame's pixels lie between the pixels that `map` samples, to interpolate what was predicted there.

        Args:
            size: (h, w) of the map over the canvas.

        Returns:
            (H,) rows and (W,) columns, float64, in map pixels: exactly i at the frame pixel that map pixel i shows.
        """
        indices = (self._source_index(axis, n) for axis, n in enumerate(size))
        rows, cols = (np.interp(np.arange(n), i, np.arange(len(i))) for n, i in zip(self.source_size, indices))
        return rows, cols

    def _canvas_position(self, axis: int, n: int) -> np.ndarray:
        scaled = (np.arange(self.source_size[axis]) + 0.5) * self.content_size[axis] / self.source_size[axis]
        return (scaled - self.offset[axis]) * n / self.target_size[axis]

    def _source_index(self, axis: int, n: int) -> np.ndarray:
        on_canvas = (np.arange(n) + 0.5) * self.target_size[axis] / n
        inside = int((on_canvas < self.visible_size[axis]).sum())
        on_canvas = on_canvas[: max(1, inside)]  # of a frame thinner than half a map pixel: the first shows it
        index = np.floor((on_canvas + self.offset[axis]) * self.source_size[axis] / self.content_size[axis])
        return np.minimum(index.astype(np.int64), self.source_size[axis] - 1)

    def _source_per_canvas(self) -> tuple[float, float]:
        (rows, cols), (height, width) = self.source_size, self.content_size
        return rows / height, cols / width

    def _check(self, array: np.ndarray) -> None:
        if array.shape[-3:-1] != self.source_size:
            raise ValueError(f"expected an image or map of size {self.source_size}, got {array.shape[-3:-1]}")


@dataclass(frozen=True)
class ClipParams:
    """What `ClipTransform.make_params` drew for one clip; every frame and map of the clip gets the same.

    Attributes:
        letterbox: placement on the canvas, of the frame after its flip.
        flip: mirror left and right.
        brightness, contrast, saturation: factors on the frames, 1 = unchanged.
        hue: rotation of the colours, in turns.
        blur: standard deviation of a Gaussian blur, in canvas pixels.
        noise: standard deviation of the noise, in grey levels.
        seed: of the noise and of the past maps' corruption; 0 where neither is in use.
    """

    letterbox: Letterbox
    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    seed: int = 0


class ClipTransform:
    """Brings clips to the model's sizes, with augmentation where asked for.

    Args:
        image_size: (H, W) of the frames.
        mask_size: (h, w) of the maps.
        scale_range: enlargement beyond the fit, drawn uniformly; the window is placed at random where the enlarged
            frame is larger than it, and padded at the bottom and right where it is smaller.
        flip_rate: probability of a left-right flip.
        brightness: factor drawn from 1 +- this.
        contrast: factor drawn from 1 +- this, around mean grey.
        saturation: factor drawn from 1 +- this.
        hue: rotation of the colours around grey drawn from +- this, in turns.
        blur: standard deviation of a Gaussian blur drawn from 0 to this, in canvas pixels.
        noise: standard deviation of the noise drawn from 0 to this, in grey levels; every frame has its own noise.
        corruption: mistakes made in the past maps at mask size; None makes none.

    Raises:
        ValueError: a size, range or rate that makes no sense.
    """

    def __init__(
        self,
        image_size: Size,
        mask_size: Size,
        *,
        scale_range: tuple[float, float] = (1.0, 1.0),
        flip_rate: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        blur: float = 0.0,
        noise: float = 0.0,
        corruption: PastCorruption | None = None,
    ) -> None:
        if min(*image_size, *mask_size) < 1:
            raise ValueError(f"expected positive image_size and mask_size, got {image_size} and {mask_size}")
        if not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(f"expected scale_range to rise from above 0, got {scale_range}")
        for name, value in dict(
            flip_rate=flip_rate, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
        ).items():
            if not 0 <= value <= 1:
                raise ValueError(f"expected {name} in 0..1, got {value}")
        if not (0 <= blur < np.inf and 0 <= noise < np.inf):
            raise ValueError(f"expected blur and noise of 0 or more, got {blur} and {noise}")
        self.image_size: Size = (image_size[0], image_size[1])
        self.mask_size: Size = (mask_size[0], mask_size[1])
        self.scale_range = scale_range
        self.flip_rate = flip_rate
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.blur = blur
        self.noise = noise
        self.corruption = corruption or PastCorruption()

    def make_params(self, clip: Clip, generator: np.random.Generator) -> ClipParams:
        """Draws the parameters of one clip, as `draw_params` does for its size."""
        return self.draw_params(_source_size(clip), generator)

    def draw_params(self, size: Size, generator: np.random.Generator) -> ClipParams:
        """Draws parameters for frames of (H, W); always takes the same number of draws, whatever the settings.

        Hue, blur, noise and corruption draw from a child of the generator: they change nothing drawn after them.
        """
        scale, flip, top, left, *colour = generator.random(7)
        low, high = self.scale_range
        fit = Letterbox(size, self.image_size, low + (high - low) * scale)
        offset = tuple(int(u * (max(0, c - t) + 1)) for u, c, t in zip((top, left), fit.content_size, fit.target_size))
        amounts = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (1 + amount * (2 * u - 1) for amount, u in zip(amounts, colour))
        letterbox = Letterbox(fit.source_size, fit.target_size, fit.scale, (offset[0], offset[1]))
        child = generator.spawn(1)[0]
        hue, blur, noise = child.random(3) * (2, 1, 1) - (1, 0, 0)
        return ClipParams(
            letterbox,
            bool(flip < self.flip_rate),
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=self.hue * float(hue),
            blur=self.blur * float(blur),
            noise=self.noise * float(noise),
            seed=int(child.integers(1 << 62)) if self.noise or self.corruption else 0,
        )

    def apply(self, clip: Clip, params: ClipParams) -> Clip:
        """The clip at the new sizes: frames (F, H, W, 3) uint8, maps (L, h, w), ids untouched, void on the padding."""
        pick = self.pixel_picker(params)
        class_map, instance_map = pick(clip.class_map, VOID_ID), pick(clip.instance_map, 0)
        return self.finish(replace(clip, class_map=class_map, instance_map=instance_map), params)

    def pixel_picker(self, params: ClipParams) -> Callable[[np.ndarray, int], np.ndarray]:
        """What `apply` does to (..., H, W) maps first, as a function of them and of the value on the padding."""
        return partial(_pick, params=params, size=self.mask_size)

    def finish(self, clip: Clip, params: ClipParams) -> Clip:
        """The rest of `apply`, for a clip of whole frames whose maps the `pixel_picker` of these parameters made."""
        box = params.letterbox
        contents = [recolour(box.image_content(frame, flip=params.flip), params) for frame in clip.frames]
        frames = [box.pad(degrade(content, params, k)) for k, content in enumerate(contents)]
        mapped = replace(clip, frames=frames[0][None] if len(frames) == 1 else np.stack(frames))
        return self.corruption.apply(mapped, params.seed) if self.corruption else mapped


def _pick(values: np.ndarray, fill: int, *, params: ClipParams, size: Size) -> np.ndarray:
    return params.letterbox.map(values, size, fill=fill, flip=params.flip)


def recolour(image: Image.Image, params: ClipParams) -> Image.Image:
    """Brightness, then contrast around mean grey, then saturation, then hue of an RGB image."""
    if params.brightness != 1 or params.contrast != 1:
        levels = (np.arange(256) * params.brightness - PAD_GREY) * params.contrast + PAD_GREY
        image = image.point(np.rint(levels).clip(0, 255).astype(int).tolist() * 3)
    if params.saturation != 1:
        image = ImageEnhance.Color(image).enhance(params.saturation)
    if params.hue:
        image = image.convert("RGB", _hue_rotation(params.hue))
    return image


def _hue_rotation(turns: float) -> tuple[float, ...]:
    """3x4 matrix, row by row, of the rotation of RGB around the grey axis; a third of a turn makes red green."""
    cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns) / np.sqrt(3)
    same, lower, upper = ((1 + 2 * cos) / 3, (1 - cos) / 3 + sin, (1 - cos) / 3 - sin)
    rows = ((same, upper, lower, 0), (lower, same, upper, 0), (upper, lower, same, 0))
    return tuple(float(x) for row in rows for x in row)


def degrade(image: Image.Image, params: ClipParams, frame: int) -> Image.Image | np.ndarray:
    """Blur, then noise of an RGB image; `frame` is its number in the clip. The image itself where there is neither."""
    if params.blur:
        image = image.filter(ImageFilter.GaussianBlur(params.blur))
    if not params.noise:
        return image
    # the sum of two uniform bytes is triangular: near enough to sensor noise, and a tenth of the price of a normal
    rng = np.random.default_rng([params.seed, frame])
    bytes_ = rng.integers(0, 256, (2, image.height, image.width, 3), dtype=np.uint8)
    levels = np.rint((np.arange(511) - 255) * (params.noise / np.sqrt((256**2 - 1) / 6))).astype(np.int16)
    noisy = levels[np.add(*bytes_, dtype=np.uint16)] + np.asarray(image)
    return noisy.clip(0, 255).astype(np.uint8)


def _source_size(clip: Clip) -> Size:
    height, width = clip.class_map.shape[-2:]
    if clip.frames.shape[1:] != (height, width, 3) or clip.instance_map.shape != clip.class_map.shape:
        raise ValueError(
            f"clip {clip.name}: expected frames and maps of one size, got "
            f"{clip.frames.shape}, {clip.class_map.shape} and {clip.instance_map.shape}"
        )
    return height, width
