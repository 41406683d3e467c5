"""Images of many formats as arrays; what is wrong with a file is said in one line that names it."""

import io
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from datamodules.readers.encoded import PILLOW_ERRORS, DamagedImageError, unreadable

# Of the names of the files that are read as images.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Percentiles of the training pixels that become 0 and 255 where pixels have 16 bits: hot pixels must not set the scale.
_PERCENTILES = (0.1, 99.9)
# In the name that Pillow has for how pixels are stored: 16 bits a channel and their order; of a pixel of 16 bits it is BGR;16.
_16_BITS = re.compile(";16[BLN]")


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (as stored) to 8; 1 where the metadata are damaged, as in some of ImageNet.

    Raises what Pillow raises on a damaged PNG, whose metadata may follow the pixels.
    """
    if image.format == "PNG":
        image.load()  # getexif does so too; once it has failed, Pillow takes what it has decoded for the whole image
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (struct.error, SyntaxError, KeyError, TypeError, ValueError, OSError):
        return 1


def stored_orientation(path: Path) -> int:
    """Return the EXIF orientation of an image file that can be read."""
    with open_stored(path.read_bytes()) as image:
        return orientation_of(image)


def turn_upright(image: Image.Image) -> int:
    """Turn an image in place as a viewer does. Return the orientation that it had; see orientation_of.

    Raises what Pillow raises on a damaged file.
    """
    orientation = orientation_of(image)  # before load(), which turns a TIFF
    image.load()
    if orientation != 1:
        ImageOps.exif_transpose(image, in_place=True)
    return orientation


def open_stored(encoded: bytes) -> ImageFile.ImageFile:
    """Return an image that is not decoded yet. Raises what Pillow raises on a damaged file."""
    # Never by a file's name: Pillow 13 garbles uncompressed TIFF of orientations 5 to 8 that it maps into memory.
    return Image.open(io.BytesIO(encoded))


def is_cut(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow keeps 8 of an image's 16 bits a channel, as of colours. To be asked before load(), which forgets how the
    pixels were stored."""
    return image.mode[0] not in "IF" and bool(image.tile) and _16_BITS.search(str(image.tile[0][3])) is not None


def open_photograph(name: object, read: Callable[[], bytes]) -> ImageFile.ImageFile:
    """Return an image of 8 bits a channel that is not decoded yet. read: returns the file's bytes.

    Raises DamagedImageError, with the name.
    """
    try:
        image = open_stored(read())
    except PILLOW_ERRORS as error:
        raise DamagedImageError(unreadable(name, error)) from error
    if image.mode[0] in "IF" or is_cut(image):
        got = "16" if is_cut(image) else f"Pillow's mode {image.mode}"
        raise DamagedImageError(f"{name} must have 8 bits a channel, got {got}; convert it")
    return image


def open_image(path: Path) -> tuple[Image.Image, int]:
    """Return an image as a viewer turns it, and the EXIF orientation that it had; of a camera's JPEG of several pictures (MPO)
    the first.

    Raises ValueError, naming the file, if it is damaged, holds several pages, or 16-bit colours or alpha.
    """
    try:
        with open_stored(path.read_bytes()) as image:
            cut = is_cut(image)
            # Cameras put previews and depth behind the photograph, which comes first (CIPA DC-007, Multi-Picture Format).
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            orientation = turn_upright(image)
    except PILLOW_ERRORS as error:
        raise ValueError(unreadable(path, error)) from error
    if frames != 1:
        raise ValueError(f"{path} must hold one two-dimensional image, got {frames} pages")
    if cut:
        raise ValueError(f"{path} must have 8 bits a channel, or be grey without alpha, got 16; convert it")
    return image, orientation


def integers(path: Path, image: Image.Image) -> np.ndarray:
    """Return the values of an image of mode I or I;16, uint16 where they fit, else int32.

    Raises ValueError on negative ones.
    """
    values = np.asarray(image)
    if values.dtype.itemsize == 2:
        return values.astype(np.uint16)
    if values.min() < 0:
        raise ValueError(f"{path} must hold values from 0 on, got {values.min()}")
    return values.astype(np.uint16 if values.max() < 1 << 16 else np.int32)


def white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF stores white as 0."""
    return getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == 0


def read_image(path: Path) -> np.ndarray:
    """Return uint8 or uint16 [H, W] of a grey image, of a palette of greys too, uint8 [H, W, 3] of another, as a viewer shows
    and turns it; alpha is dropped.

    Raises ValueError, naming the file, if it is damaged or holds several pages, 16-bit colours or no integers.
    """
    return shown_pixels(path, open_image(path)[0])


def shown_pixels(path: Path, image: Image.Image) -> np.ndarray:
    """Return what read_image does, of an image that open_image has opened. Raises ValueError, naming the file, as that does."""
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = integers(path, image)
        if values.dtype != np.uint16:
            raise ValueError(f"{path} must have grey values of 8 or 16 bits, got values up to {values.max()}")
        # Pillow inverts 8 bits, not 16.
        return np.iinfo(np.uint16).max - values if white_is_zero(image) else values
    if image.mode in ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        shown = np.asarray(image.convert("RGB"))
        # ImageJ writes grey images whose contrast was changed with a table of greys.
        return shown[..., 0].copy() if image.mode[0] == "P" and shows_greys(shown) else shown
    raise ValueError(f"{path} must be grey (8 or 16 bits), colour or palette, got Pillow's mode {image.mode}")


def shows_greys(colours: np.ndarray) -> bool:
    """Whether RGB pixels [..., 3] are nothing but greys."""
    return bool((colours == colours[..., :1]).all())


def check_channels(channels: int) -> None:
    """Raise ValueError unless there are 1, of grey images, or 3, of RGB."""
    if channels not in (1, 3):
        raise ValueError(f"data.in_channels of a folder of images is 1, grey, or 3, RGB, got {channels}")


def check_same_size(image: np.ndarray, mask: np.ndarray, image_name: str, mask_name: str) -> None:
    """Raise ValueError unless an image [H, W, ...] and its mask [H, W] are of one size."""
    if image.shape[:2] != mask.shape:
        sizes = [f"{array.shape[0]}x{array.shape[1]}" for array in (image, mask)]
        raise ValueError(f"{image_name} ({sizes[0]}) and its mask {mask_name} ({sizes[1]}) must be of one size")


def stack_images(images: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Stack images [H, W] or [H, W, 3] as [N, C, H, W]. Raises ValueError, naming two files, if they differ in kind or size."""
    for image, name in zip(images, names, strict=True):
        if image.shape != images[0].shape or image.dtype != images[0].dtype:
            kinds = [f"{array.dtype} {list(array.shape)}" for array in (images[0], image)]
            raise ValueError(f"all images must be of one kind and size: {names[0]} is {kinds[0]}, {name} is {kinds[1]}")
    stacked = np.stack(images)
    return stacked[:, None] if stacked.ndim == 3 else np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class ByteScaling:
    """Maps grey values low..high of so many bits to 0..255, rounded and cut."""

    low: int
    high: int
    bits: int

    @classmethod
    def of(cls, images: np.ndarray, name: str = "the training images") -> "ByteScaling":
        """Return the scaling of a data set from its training images, or of a file: none for uint8, percentiles 0.1 and 99.9 for
        uint16.

        Raises ValueError, with the name, on images of one grey value.
        """
        if images.dtype == np.uint8:
            return cls(0, 255, 8)
        cumulated = np.cumsum(np.bincount(images.ravel(), minlength=1 << 16))
        low, high = (int(np.searchsorted(cumulated, part / 100 * cumulated[-1])) for part in _PERCENTILES)
        if low == high:
            raise ValueError(f"{name} must vary in grey value, nearly all pixels are {low}")
        return cls(low, high, 16)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Scale images, uint8 or uint16, to uint8 of the same shape."""
        if self.bits == 8:
            return images
        scaled = (images.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        return np.rint(scaled.clip(0, 255)).astype(np.uint8)

    @property
    def grey_range(self) -> tuple[int, int] | None:
        """The 16-bit values that become 0 and 255, which `predict` needs again; None for 8 bits."""
        return None if self.bits == 8 else (self.low, self.high)

    def notes(self) -> list[str]:
        """Return what a reader of a result must know of it."""
        return [] if self.bits == 8 else [f"16-bit grey values {self.low}..{self.high} scaled to 0..255"]
