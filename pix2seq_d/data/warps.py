"""Smooth motions and the warps they make: labels nearest, images bilinear, one homography per frame.

Points are (x, y) in pixels, 0 the outer edge of the first one. A homography (3, 3) takes points of the output to points
of the input, as Pillow has it. Labels hold class and instance in one number, so that a warp moves both at once.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from pix2seq_d.labels import VOID_ID

Size = tuple[int, int]  # (height, width)
FILL_GREY = 124  # of images where the input ends
MAX_INSTANCE_ID = (1 << 24) - 1  # class and instance share 32 bits
MAX_PERSPECTIVE = 0.4  # keeps the horizon out of the frame
ACCELERATION = 0.2  # of the largest velocity, per frame


def pack_labels(class_map: np.ndarray, instance_map: np.ndarray) -> np.ndarray:
    """Class map and instance map (ids in 0..MAX_INSTANCE_ID) to uint32 labels, instance * 256 + class."""
    labels = instance_map.astype(np.uint32)
    labels <<= np.uint32(8)
    labels |= class_map
    return labels


def unpack_labels(labels: np.ndarray, class_map: np.ndarray, instance_map: np.ndarray) -> None:
    """The inverse of `pack_labels`, written into a uint8 class map and an int32 instance map."""
    np.copyto(class_map, labels, casting="unsafe")
    np.right_shift(labels, np.uint32(8), out=instance_map.view(np.uint32))


# Motion


class Motion:
    """Quantities that are 0 at time 0 and change smoothly: velocity and acceleration, drawn once.

    Args:
        limits: (n,) largest change of each quantity per frame at time 0; accelerations stay under ACCELERATION of it.
        rng: draws both.
    """

    def __init__(self, limits: np.ndarray, rng: np.random.Generator) -> None:
        self.velocity, self.acceleration = rng.uniform(-1, 1, (2, len(limits))) * limits
        self.acceleration *= ACCELERATION

    def at(self, time: float) -> np.ndarray:
        """(n,) values at `time`, in frames."""
        return self.velocity * time + self.acceleration * (time * time / 2)


def camera_homography(pose: np.ndarray, size: Size) -> np.ndarray:
    """Homography of a camera pose about the centre of an image.

    Args:
        pose: (6,) right, down (in widths), log zoom, roll (radians), perspective across and down (change of scale over
            one width, cut off at MAX_PERSPECTIVE); zeros are the identity.
        size: (H, W) of the image.
    """
    (height, width), (right, down, zoom, roll) = size, pose[:4]
    cos, sin = np.exp(-zoom) * np.cos(roll), np.exp(-zoom) * np.sin(roll)
    across, along = pose[4:].clip(-MAX_PERSPECTIVE, MAX_PERSPECTIVE)
    centred = np.array([[1 / width, 0, -0.5], [0, 1 / width, -0.5 * height / width], [0, 0, 1]])
    view = np.array([[cos, -sin, right], [sin, cos, down], [across, along, 1]])
    return np.linalg.inv(centred) @ view @ centred


# Warps


def warp_labels(labels: np.ndarray, homography: np.ndarray, size: Size | None = None) -> np.ndarray:
    """(h, w) uint32 labels to (H, W), nearest; void outside of the input. `size` None keeps the size."""
    image = Image.fromarray(labels.view(np.int32))
    warped = _transform(image, homography, size or labels.shape, Image.Resampling.NEAREST, fill=VOID_ID)
    return np.array(warped).view(np.uint32)


def warp_mask(mask: np.ndarray, homography: np.ndarray, size: Size) -> np.ndarray:
    """(h, w) bool mask to (H, W), nearest; False outside of the input."""
    image = Image.fromarray(mask.view(np.uint8))
    return np.asarray(_transform(image, homography, size, Image.Resampling.NEAREST, fill=0)).view(bool)


def warp_image(image: np.ndarray, homography: np.ndarray, size: Size | None = None) -> np.ndarray:
    """(h, w, 3) uint8 image to (H, W, 3), bilinear; grey outside of the input. `size` None keeps the size."""
    fill = (FILL_GREY,) * 3
    size = size or (image.shape[0], image.shape[1])
    return np.array(_transform(Image.fromarray(image), homography, size, Image.Resampling.BILINEAR, fill=fill))


def _transform(
    image: Image.Image,
    homography: np.ndarray,
    size: tuple[int, ...],
    resample: Image.Resampling,
    *,
    fill: int | tuple[int, int, int],
) -> Image.Image:
    coefficients = (homography / homography[2, 2]).ravel()[:8].tolist()
    height, width = size
    return image.transform((width, height), Image.Transform.PERSPECTIVE, coefficients, resample, fillcolor=fill)
