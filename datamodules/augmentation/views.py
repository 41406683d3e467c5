"""Encoded images to pixels: windows of an image at another size, and the test views of the papers.

A window (left, top, right, bottom) is in pixels of the stored image, and may lie between them. Geometry as in fb.resnet.torch,
datasets/transforms.lua. Interpolation is bicubic as there, but averages where it shrinks, as Pillow does; Torch's image.scale
weighs 4x4 neighbours of a point at any scale.
"""

import io
import math
import struct
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

from datamodules.readers.encoded import DamagedImageError, ImageFiles
from datamodules.readers.image_files import orientation_of, turn_upright

Window = tuple[float, float, float, float]
# A JPEG is scaled down while it is decoded (by 2, 4 or 8) to no less than this multiple of what is asked for: the interpolation
# then still averages over two pixels or more along a side, and photographs come out within 0.6 grey levels on average.
GAP = 2
# What Pillow raises on damaged files, by format.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class StoredImage:
    """An encoded image of which one window will be taken. width, height: in pixels, as a viewer turns it (EXIF orientation).

    Raises DamagedImageError, here or when pixels are asked for.
    """

    def __init__(self, files: ImageFiles, row: int) -> None:
        self._name = files.name(row)
        try:
            self._image = Image.open(io.BytesIO(files.read(row)))
            orientation = orientation_of(self._image)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        self.width, self.height = self._image.size
        # 5 to 8: rows are what a viewer shows as columns. Pillow gives a TIFF's size as it is shown.
        self._on_its_side = orientation in (5, 6, 7, 8) and self._image.format != "TIFF"
        if self._on_its_side:
            self.width, self.height = self.height, self.width

    def resample(self, window: Window, width: int, height: int) -> np.ndarray:
        """Return the window at another size: uint8 [height, width, 3]. Grey and CMYK images become RGB. To be called once."""
        across, down = (window[2] - window[0]) / width, (window[3] - window[1]) / height
        least = (math.ceil(self.width / across * GAP), math.ceil(self.height / down * GAP))
        try:
            stored_width = self._image.width
            drafted = self._image.draft(None, least[::-1] if self._on_its_side else least)
            turn_upright(self._image)
            pixels: Image.Image = self._image
            if pixels.mode == "RGB":
                pixels.load()  # convert would copy
            else:
                pixels = pixels.convert("RGB")
        except _DAMAGE as error:
            raise self._damaged(error) from error
        if drafted is not None:
            scale = stored_width / drafted[1][2]
            window = tuple(edge / scale for edge in window)  # type: ignore[assignment]
        return _resized(pixels, window, width, height)

    def _damaged(self, error: BaseException) -> DamagedImageError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, UnidentifiedImageError):
            reason = "of no known format"
        return DamagedImageError(f"{self._name} cannot be read as an image ({reason}); fetch it again")


def _resized(image: Image.Image, window: Window, width: int, height: int) -> np.ndarray:
    """Return the window at another size, uint8 [height, width, 3], by Pillow's bicubic interpolation.

    Where the window lies on whole pixels of the image or of the scaled image torch does it: the same to within a grey level,
    two to five times as fast (torch 2.13, AVX2).
    """
    columns, rows = (_along(window[i], window[i + 2], size, image.size[i]) for i, size in enumerate((width, height)))
    if columns is None or rows is None:
        return np.array(image.resize((width, height), Image.Resampling.BICUBIC, window))
    (left, right, scaled_width, x), (top, bottom, scaled_height, y) = columns, rows
    part = torch.from_numpy(np.array(image.crop((left, top, right, bottom)))).permute(2, 0, 1)
    scaled = F.interpolate(part[None], (scaled_height, scaled_width), mode="bicubic", antialias=True)[0]
    return scaled[:, y : y + height, x : x + width].permute(1, 2, 0).numpy()


def _along(first: float, last: float, size: int, length: int) -> tuple[int, int, int, int] | None:
    """Return how first..last of an axis of `length` pixels becomes `size` pixels: start and stop of the part to cut out, the
    size to scale it to, and where the result begins in that; None if it lies between the pixels of both."""
    if float(first).is_integer() and float(last).is_integer():
        return int(first), int(last), size, 0
    scale = size / (last - first)
    scaled, start = length * scale, first * scale
    if max(abs(scaled - round(scaled)), abs(start - round(start))) > 1e-6:
        return None
    return 0, length, round(scaled), round(start)


def scaled_size(width: int, height: int, side: int) -> tuple[int, int]:
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
    scaled = scaled_size(width, height, side)
    left, top = (-(-(length - size) // 2) for length in scaled)
    return cut(width, height, scaled, left, top, size)


def centre_crop(image: StoredImage, side: int, size: int) -> np.ndarray:
    """Return uint8 [size, size, 3], the central square at the scale at which the shorter side is `side`."""
    return image.resample(centre(image.width, image.height, side, size), size, size)


def ten_crops(image: StoredImage, side: int, size: int) -> np.ndarray:
    """Return uint8 [10, size, size, 3] at that scale: the centre, the corners from left to right and top to bottom, and
    the same of the mirrored image (Krizhevsky et al. 2012, §4.1)."""
    width, height = scaled_size(image.width, image.height, side)
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
