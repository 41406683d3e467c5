"""Masks of many formats as class indices or instance labels; a black and white one is read as a person sees it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.readers.image_files import integers, open_image, shows_greys, white_is_zero

# A colour that is not grey is read as this plus its 24 bits, so that none passes for a class index.
COLOUR = 1 << 24
BLACK, WHITE, WHITE_16 = 0, 255, 65535  # the last in 16 bits


def read_mask(path: Path, black_and_white: bool = True) -> np.ndarray:
    """Return int32 [H, W] of the values of a mask as a viewer turns it: stored grey values, palette indices, or COLOUR + 24
    bits for a colour not grey.

    black_and_white: a mask that shows no other colours is 0 where it is black and 255 where it is white, whatever is stored:
    a palette, 1-bit and white-is-zero TIFF, or ImageJ's inverting table can say the opposite. Where there is alpha,
    or a colour that stands for it, transparent pixels are background (0).
    Raises ValueError, naming the file, if it is damaged, holds several pages, no integers, half-transparent pixels or what JPEG
    has made of its values.
    """
    image, _ = open_image(path)
    values = _values(path, image, black_and_white)
    if image.format in ("JPEG", "MPO") and not np.isin(values, (BLACK, WHITE)).all():
        raise ValueError(
            f"{path} is a JPEG, which changes the values of a mask; write masks without loss, as PNG or TIFF"
        )
    return values


def _values(path: Path, image: Image.Image, black_and_white: bool) -> np.ndarray:
    if image.mode in ("1", "L", "P"):
        shown, opaque = _shown(path, image)
        if black_and_white and np.isin(shown, (BLACK, WHITE)).all() and shows_greys(shown):
            return shown[..., 0].astype(np.int32)
        values = np.asarray(image).astype(np.int32)
        return np.where(opaque, WHITE - values if image.mode == "L" and white_is_zero(image) else values, BLACK)
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = integers(path, image).astype(np.int32)
        if black_and_white and np.isin(values, (BLACK, WHITE_16)).all():
            # Pillow inverts 8 bits, not 16.
            return (WHITE_16 - values if white_is_zero(image) else values) // (WHITE_16 // WHITE)
        return values
    if image.mode not in ("LA", "PA", "RGB", "RGBA"):
        raise ValueError(f"{path} must be grey, palette, RGB or RGBA, got Pillow's mode {image.mode}")
    shown, _ = _shown(path, image)
    red, green, blue = (shown[..., channel].astype(np.int32) for channel in range(3))
    code = (red << 16) + (green << 8) + blue
    return np.where((red == green) & (green == blue), red, COLOUR + code)


def _shown(path: Path, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours, uint8 [H, W, 3], black where the mask is transparent, and where it is opaque, bool [H, W]."""
    pixels = np.asarray(image.convert("RGBA"))
    alpha = pixels[..., 3]
    if not np.isin(alpha, (0, 255)).all():
        raise ValueError(f"{path} must be opaque or fully transparent in every pixel, some are in between")
    return np.where(alpha[..., None] == 0, BLACK, pixels[..., :3]).astype(np.uint8), alpha > 0


def class_mask(values: np.ndarray, classes: Sequence[str], name: str) -> np.ndarray:
    """Return the class indices uint8 [H, W]. values: integer [H, W], 0..K-1, or 0 and 255 for two classes. name: for messages.

    Raises ValueError on any other value, and on more classes than a byte holds.
    """
    if len(classes) > 256:
        raise ValueError(f"{name} may hold 256 classes, background included, got data.num_classes={len(classes)}")
    present = np.unique(values).tolist()
    if len(classes) == 2 and set(present) <= {BLACK, WHITE}:
        return (values // WHITE).astype(np.uint8)
    if present[0] < 0 or present[-1] >= len(classes):
        wrong = [value for value in present if not 0 <= value < len(classes)]
        shown = "colours" if wrong[-1] >= COLOUR else ", ".join(map(str, wrong[:5]))
        either = " or 0 and 255" if len(classes) == 2 else ""
        raise ValueError(f"{name} must hold classes 0..{len(classes) - 1}{either}, got {shown}")
    return values.astype(np.uint8)


def check_not_empty(values: np.ndarray, name: str) -> None:
    """Raise ValueError if a mask is background (0) alone."""
    if not values.any():
        raise ValueError(f"{name} is empty, all background; annotate it or leave out this image and its mask")
