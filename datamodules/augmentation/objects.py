"""Augmentation of images with objects: crops, symmetries, scale and gain, image, boxes and masks alike.

Boxes and masks stay in pixels of the annotation; only the image is scaled, and the scale goes with it. Scale jitter is that of
Detectron and its successors: the shorter side at random one of some lengths, the longer one limited.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Generator

from datamodules.augmentation.crops import check_values, is_length
from datamodules.readers.objects import Objects, boxes_of

SMALLEST_LEFT = 20  # pixels that a crop must leave of an object that is to be found; of a smaller one all


@dataclass(frozen=True)
class ObjectDraw:
    """The random numbers of one image. window: of a crop (top, left, height, width) or None. turns: quarter turns. size: of the
    result, height and width."""

    window: tuple[int, int, int, int] | None
    mirrored: bool
    turns: int
    gain: float | None
    size: tuple[int, int]


class ObjectAugmentation:
    """The augmentation of a recipe, built from its `augment` mapping.

    crop_size: side of the square cut at random out of a larger image.
    horizontal_flip: mirror with probability 1/2.
    dihedral: one of the 8 symmetries of the square.
    gain: grey values 0..255 times e^u, u uniform in -gain..gain, cut to 255.
    shorter_side: lengths, one of which the shorter side is scaled to. longest_side: what the longer one then has at most.
    Raises ValueError on any other key and on values that make no sense.
    """

    KEYS = ("crop_size", "horizontal_flip", "dihedral", "gain", "shorter_side", "longest_side")

    def __init__(self, augment: Mapping[str, Any]) -> None:
        check_values(augment, self.KEYS, " of objects")
        sides = augment.get("shorter_side", ())
        if isinstance(sides, str) or not isinstance(sides, Sequence) or not all(map(is_length, sides)):
            raise ValueError(f"augment.shorter_side must be a list of lengths in pixels, as [800], got {sides!r}")
        self.sides: Sequence[int] = tuple(sides)
        if "longest_side" in augment and not self.sides:
            raise ValueError("augment.longest_side limits what augment.shorter_side scales: give both")
        self.longest: int | None = augment.get("longest_side")
        self.crop_size = int(augment.get("crop_size", 0))
        self.dihedral = bool(augment.get("dihedral", False))
        self.flips = bool(augment.get("horizontal_flip", False)) or self.dihedral
        self.gain = float(augment.get("gain", 0))

    def check(self, sizes: np.ndarray, upright: bool) -> None:
        """Raise ValueError if this augmentation makes no sense for training images of these sizes [N, 2]."""
        if upright and self.flips:
            raise ValueError("augment.horizontal_flip and dihedral change what these objects are: leave them out")
        if self.crop_size > sizes.min():
            raise ValueError(
                f"augment.crop_size must be at most {sizes.min()}, the smallest image's, got {self.crop_size}"
            )
        if self.dihedral and not self.crop_size and (sizes[:, 0] != sizes[:, 1]).any():
            raise ValueError("augment.dihedral needs square images or a crop_size")

    def draw(self, height: int, width: int, generator: Generator) -> ObjectDraw:
        """Draw for an image of height x width."""

        def integer(stop: int) -> int:
            return int(torch.randint(stop, (), generator=generator))

        window = None
        if side := self.crop_size:
            window = (integer(height - side + 1), integer(width - side + 1), side, side)
            height = width = side
        mirrored = self.flips and bool(integer(2))
        turns = integer(4) if self.dihedral else 0
        gain = None
        if self.gain:
            gain = float((self.gain * (2 * torch.rand((), generator=generator) - 1)).exp())
        if self.sides:
            height, width = scaled_size(height, width, self.sides[integer(len(self.sides))], self.longest)
        return ObjectDraw(window, mirrored, turns, gain, (height, width))

    def apply(self, pixels: np.ndarray, objects: Objects, draw: ObjectDraw) -> tuple[np.ndarray, Objects]:
        """Return the image, uint8 or float32 of draw.size, and its objects in pixels before scaling."""
        if draw.window is not None:
            top, left, height, width = draw.window
            pixels = pixels[top : top + height, left : left + width]
            objects = cropped(objects, *draw.window)
        if draw.mirrored:
            pixels, objects = pixels[:, ::-1], mirrored(objects, pixels.shape[1])
        for _ in range(draw.turns):
            objects = turned(objects, pixels.shape[1])
            pixels = np.rot90(pixels)
        pixels = resized(pixels, draw.size)
        if draw.gain is not None:
            pixels = np.minimum(pixels.astype(np.float32) * np.float32(draw.gain), np.float32(255))
        return pixels, objects


def targets_of(objects: Objects, height: int, width: int) -> Objects:
    """Return what can be learned in an image of height x width: no crowds, boxes within the image and of at least a pixel along
    each side, and no empty masks."""
    limits = np.array([width, height, width, height])
    boxes = objects.boxes.clip(0, limits)
    good = ~objects.crowd & (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
    if objects.masks is not None:
        good &= objects.masks.any((1, 2))
    return replace(objects, boxes=boxes).where(good)


def cropped(objects: Objects, top: int, left: int, height: int, width: int) -> Objects:
    """Return the objects of which a crop leaves SMALLEST_LEFT pixels, or all, with boxes around what is left of their masks; of
    objects without masks those of whose box also a pixel along each side is left, or all."""
    if objects.masks is not None:
        masks = objects.masks[:, top : top + height, left : left + width]
        least = np.minimum(objects.masks.sum((1, 2)), SMALLEST_LEFT)
        return replace(objects, boxes=boxes_of(masks), masks=masks).where(masks.sum((1, 2)) >= least)
    boxes = (objects.boxes - [left, top, left, top]).clip(0, [width, height, width, height])
    sides, own = (each[:, 2:] - each[:, :2] for each in (boxes, objects.boxes))
    enough = (sides >= np.minimum(own, 1)).all(1) & (sides.prod(1) >= np.minimum(own.prod(1), SMALLEST_LEFT))
    return replace(objects, boxes=boxes).where(enough)


def mirrored(objects: Objects, width: int) -> Objects:
    """Return the objects of the image mirrored left and right."""
    boxes = objects.boxes[:, [2, 1, 0, 3]]
    boxes[:, [0, 2]] = width - boxes[:, [0, 2]]
    return replace(objects, boxes=boxes, masks=None if objects.masks is None else objects.masks[..., ::-1])


def turned(objects: Objects, width: int) -> Objects:
    """Return the objects of the image of this width turned anticlockwise by a quarter."""
    x0, y0, x1, y1 = objects.boxes.T
    boxes = np.stack([y0, width - x1, y1, width - x0], 1)
    return replace(objects, boxes=boxes, masks=None if objects.masks is None else np.rot90(objects.masks, axes=(1, 2)))


def scaled_size(height: int, width: int, shorter: int, longest: int | None) -> tuple[int, int]:
    """Return height and width, the shorter one scaled to `shorter`, or to less where the longer one would exceed `longest`."""
    scale = shorter / min(height, width)
    if longest is not None:
        scale = min(scale, longest / max(height, width))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return uint8 pixels [H, W] or [H, W, 3] at another size, by Pillow's bilinear interpolation, which averages where it
    shrinks."""
    if pixels.shape[:2] == size:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
