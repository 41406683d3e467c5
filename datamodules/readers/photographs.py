"""A photograph of a known size, as stored or turned as its camera noted."""

from pathlib import Path

import numpy as np
from PIL import ExifTags

from datamodules.readers.encoded import PILLOW_ERRORS, DamagedImageError, unreadable
from datamodules.readers.image_files import open_photograph, orientation_of, turn_upright


def read_photograph(path: Path, height: int, width: int, channels: int, annotated_in: Path) -> np.ndarray:
    """Return uint8 [H, W], or [H, W, 3] for 3 channels, of the size that an annotation file says.

    A camera notes in EXIF how an image is to be turned. Some programs annotate what is stored, others what is shown; where both
    are of the annotated size, what is stored is taken, as COCO's own programs do.
    Raises DamagedImageError naming the file.
    """
    image, mode = open_photograph(path, path.read_bytes), "L" if channels == 1 else "RGB"
    try:
        orientation = orientation_of(image)
        if image.format == "TIFF":
            image.getexif()[ExifTags.Base.Orientation] = 1  # Pillow turns a TIFF while it decodes
        pixels = image.convert(mode)
        if pixels.size != (width, height) and orientation != 1:
            image.getexif()[ExifTags.Base.Orientation] = orientation
            turn_upright(image)
            pixels = image.convert(mode)
    except PILLOW_ERRORS as error:
        raise DamagedImageError(unreadable(path, error)) from error
    if pixels.size != (width, height):
        raise DamagedImageError(
            f"{path} is {pixels.height} x {pixels.width}, and {height} x {width} in {annotated_in} (height x width)"
        )
    return np.array(pixels)
