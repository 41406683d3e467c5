"""Augmentation of ImageNet's training images: crops and colours, each a pure function of a generator.

Crops by area and colours are those of fb.resnet.torch (datasets/transforms.lua, datasets/imagenet.lua), crops by shorter side
those of He et al. 2016, §3.4. Colour changes act on values in 0..1 and are not cut off there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator

from datamodules.augmentation.views import centre, cut
from datamodules.readers.stored_image import StoredImage, Window

ATTEMPTS = 10
GREY = np.array([0.299, 0.587, 0.114])
# Of the colours of ImageNet's training pixels in 0..1 (fb.resnet.torch, datasets/imagenet.lua).
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


@dataclass(frozen=True)
class CropByArea:
    """A window of a random part of the image's area, area[0]..area[1], and a random shape.

    As the code has it: both sides are the root of the area, one times r and the other divided by r, r uniform in aspect, and
    either may be the width; so width / height is r² or 1/r², 9/16 to 16/9 for an aspect of 3/4 to 4/3. The roots of 3/4 and
    4/3 give the log-uniform 3/4 to 4/3 of torchvision and timm, to 1 % of its density. After ten windows that do not fit: the
    central square.
    """

    area: tuple[float, float]
    aspect: tuple[float, float]

    def window(self, width: int, height: int, size: int, generator: Generator) -> Window:
        """Draw a window of an image of width x height."""
        for area, aspect, turned, down, across in torch.rand(ATTEMPTS, 5, generator=generator).tolist():
            side = math.sqrt(_between(self.area, area) * width * height)
            r = _between(self.aspect, aspect)
            w, h = round(side * r), round(side / r)
            if turned < 0.5:
                w, h = h, w
            if 1 <= w <= width and 1 <= h <= height:
                left, top = math.floor(across * (width - w + 0.99)), math.floor(down * (height - h + 0.99))
                return left, top, left + w, top + h
        return centre(width, height, size, size)


@dataclass(frozen=True)
class CropByShorterSide:
    """A square of the image whose shorter side is scaled to a random whole number of pixels, shortest..longest."""

    shortest: int
    longest: int

    def window(self, width: int, height: int, size: int, generator: Generator) -> Window:
        """Draw a window of an image of width x height."""
        side, across, down = torch.rand(3, generator=generator).tolist()
        side = self.shortest + int(side * (self.longest - self.shortest + 1))
        shorter = min(width, height)
        scaled = round(width / shorter * side), round(height / shorter * side)
        left, top = int(across * (scaled[0] - size + 1)), int(down * (scaled[1] - size + 1))
        return cut(width, height, scaled, left, top, size)


def _between(limits: tuple[float, float], part: float) -> float:
    return limits[0] + part * (limits[1] - limits[0])


def jittered_colours(mean: np.ndarray, strength: float, generator: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return brightness, contrast and saturation changed in random order, as a map of colours: matrix [3, 3] and offset [3].

    Each blends the image with another one, by alpha uniform in 1-strength..1+strength: with black, with the grey of its mean,
    with its grey values. None but the first changes the mean grey value, so that the three together are one affine map.
    mean: the image's mean colour, in 0..1.
    """
    grey = float(GREY @ mean)
    own, common, shift = 1.0, 0.0, 0.0  # x becomes own * x + common * (its grey value) + shift
    alphas = [1 + strength * (2 * part - 1) for part in torch.rand(3, generator=generator).tolist()]
    for change in torch.randperm(3, generator=generator).tolist():
        alpha = alphas[change]
        if change == 0:
            own, common, shift, grey = alpha * own, alpha * common, alpha * shift, alpha * grey
        elif change == 1:
            own, common, shift = alpha * own, alpha * common, alpha * shift + (1 - alpha) * grey
        else:
            own, common = alpha * own, alpha * common + (1 - alpha) * (own + common)
    return own * np.eye(3) + common * GREY, np.full(3, shift)


def lighting(strength: float, generator: Generator) -> np.ndarray:
    """Return a shift of the colour, float [3]: along the principal axes of colours by their variances times N(0, strength²)
    (Krizhevsky et al. 2012, §4.1)."""
    alphas = strength * np.array(torch.randn(3, generator=generator).tolist())
    return EIGENVECTORS @ (alphas * EIGENVALUES)


def map_colours(colours: np.ndarray, matrix: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """Write matrix @ x + offset for each x of colours, float32 [3, N], into out."""
    weights = matrix.astype(np.float32)
    if (matrix == np.diag(np.diagonal(matrix))).all():
        np.multiply(colours, np.diagonal(weights)[:, None], out=out)
    else:
        # Not a matrix product, whose rounding depends on the number of threads.
        np.einsum("ij,jn->in", weights, colours, out=out)
    out += offset.astype(np.float32)[:, None]


class ImageAugmentation:
    """The augmentation of a recipe, built from its `augment` mapping.

    area and aspect: see CropByArea. Or shorter_side: shortest and longest of CropByShorterSide. horizontal_flip: mirror with
    probability 1/2. colour_jitter: strength of jittered_colours. lighting: strength of lighting.
    size: of the square crops, in pixels.
    Raises ValueError on any other key, on values that are no such ranges and strengths, and on crops that do not fit.
    """

    KEYS = ("area", "aspect", "shorter_side", "horizontal_flip", "colour_jitter", "lighting")

    def __init__(self, augment: Mapping[str, Any], size: int) -> None:
        if unknown := sorted(augment.keys() - set(self.KEYS)):
            raise ValueError(
                f"augment of files takes {', '.join(self.KEYS)}, got {unknown[0]!r}; recipe=fb_resnet_torch suits every network"
            )
        if ("shorter_side" in augment) == ("area" in augment) or ("area" in augment) != ("aspect" in augment):
            raise ValueError("augment takes either area and aspect or shorter_side, which say how images are cropped")
        self.size = size
        self.crop: CropByArea | CropByShorterSide
        if "area" in augment:
            area, aspect = _range("area", augment["area"]), _range("aspect", augment["aspect"])
            if area[1] > 1:
                raise ValueError(f"augment.area is of parts of an image, up to 1, got {area[1]}")
            self.crop = CropByArea(area, aspect)
        else:
            shortest, longest = _range("shorter_side", augment["shorter_side"])
            if shortest < size or int(shortest) != shortest or int(longest) != longest:
                raise ValueError(
                    f"augment.shorter_side is two whole numbers from {size}, the crop's, got {shortest} and {longest}"
                )
            self.crop = CropByShorterSide(int(shortest), int(longest))
        self.flips = augment.get("horizontal_flip", False)
        if not isinstance(self.flips, bool):
            raise ValueError(f"augment.horizontal_flip must be true or false, got {self.flips!r}")
        self.jitter = _strength("colour_jitter", augment)
        self.lighting = _strength("lighting", augment)

    def __call__(
        self, image: StoredImage, mean: np.ndarray, std: np.ndarray, generator: Generator, out: np.ndarray
    ) -> None:
        """Write a crop as the network takes it into out, float32 [3, size, size]. mean, std: float [3], of values in 0..1."""
        window = self.crop.window(image.width, image.height, self.size, generator)
        planes = torch.from_numpy(image.resample(window, self.size, self.size)).permute(2, 0, 1)
        if self.flips and torch.rand((), generator=generator).item() < 0.5:
            planes = planes.flip(-1)
        colours = planes.to(torch.float32, memory_format=torch.contiguous_format)
        matrix, offset = np.eye(3), np.zeros(3)
        if self.jitter:
            total = colours.sum(-1).sum(-1, dtype=torch.float64)  # both exact: of whole numbers
            matrix, offset = jittered_colours(total.numpy() / (255 * self.size**2), self.jitter, generator)
        if self.lighting:
            offset = offset + lighting(self.lighting, generator)
        matrix, offset = matrix / (255 * std[:, None]), (offset - mean) / std
        map_colours(colours.view(3, -1).numpy(), matrix, offset, out.reshape(3, -1))


def _range(name: str, values: Any) -> tuple[float, float]:
    numbers: list[Any] = list(values) if not isinstance(values, str | int | float) else [values]
    if len(numbers) != 2 or any(isinstance(n, bool | str) for n in numbers) or not 0 < numbers[0] <= numbers[1]:
        raise ValueError(f"augment.{name} is a range of two positive numbers, the smaller one first, got {values!r}")
    return numbers[0], numbers[1]


def _strength(name: str, augment: Mapping[str, Any]) -> float:
    value = augment.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"augment.{name} is a strength in 0..1 (0, or left out, for none), got {value!r}")
    return float(value)
