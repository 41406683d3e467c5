"""The test views of the papers, as windows of images at another size.

Geometry as in fb.resnet.torch, datasets/transforms.lua. Interpolation is bicubic as there, but averages where it shrinks;
Torch's image.scale weighs 4x4 neighbours of a point at any scale.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from datamodules.readers.stored_image import StoredImage, Window


def scaled_width_and_height(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the width and height with the shorter one scaled to `side`, the other cut to whole pixels."""
    if width < height:
        return side, height * side // width
    return width * side // height, side


def cut(width: int, height: int, scaled: tuple[int, int], left: int, top: int, size: int) -> Window:
    """Return the square of `size` pixels at (left, top) of an image at the size `scaled`, as a window of width x height."""
    across, down = width / scaled[0], height / scaled[1]
    return left * across, top * down, (left + size) * across, (top + size) * down


def centre(width: int, height: int, side: int, size: int) -> Window:
    """Return the central square of `size` pixels of an image of width x height whose shorter side is scaled to `side`."""
    scaled = scaled_width_and_height(width, height, side)
    left, top = (-(-(length - size) // 2) for length in scaled)
    return cut(width, height, scaled, left, top, size)


def centre_crop(image: StoredImage, side: int, size: int) -> np.ndarray:
    """Return uint8 [size, size, 3], the central square at the scale at which the shorter side is `side`."""
    return image.resample(centre(image.width, image.height, side, size), size, size)


def ten_crops(image: StoredImage, side: int, size: int) -> np.ndarray:
    """Return uint8 [10, size, size, 3] at that scale: the centre, the corners from left to right and top to bottom, and
    the same of the mirrored image (Krizhevsky et al. 2012, §4.1)."""
    width, height = scaled_width_and_height(image.width, image.height, side)
    pixels = image.resample((0, 0, image.width, image.height), width, height)
    places = [(-(-(height - size) // 2), -(-(width - size) // 2))]
    places += [(top, left) for top in (0, height - size) for left in (0, width - size)]
    both = (pixels, pixels[:, ::-1])
    return np.stack([one[top : top + size, left : left + size] for one in both for top, left in places])


def view_of(name: str | int, size: int) -> tuple[Callable[[StoredImage], np.ndarray], int]:
    """Return a view of test images, and how many crops of size x size its pixels make up, rounded up.

    name: "1crop", the centre at the scale at which the shorter side is 256/224 of size, "10crop" at the same scale, or an
    integer S: the centre of S x S of a shorter side S (320: Xie et al. 2017, Table 5).
    Raises ValueError for another name.
    """
    side = 256 * size // 224
    if name == "1crop":
        return partial(centre_crop, side=side, size=size), 1
    if name == "10crop":
        return partial(ten_crops, side=side, size=size), 10
    if type(name) is int and name > 0:
        return partial(centre_crop, side=name, size=name), math.ceil((name / size) ** 2)
    raise ValueError(f"data.test_views are 10crop or a side in pixels such as 320, got {name!r}")
