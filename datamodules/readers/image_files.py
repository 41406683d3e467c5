"""Images and masks of many formats as arrays; what is wrong with a file is said in one line that names it."""

import logging
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

VOLUME, LABELS = "train-volume.tif", "train-labels.tif"

# What Pillow raises on damaged files, by format.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# A colour that is not grey is read as this plus its 24 bits, so that none passes for a class index.
COLOUR = 1 << 24
# Percentiles of the training pixels that become 0 and 255 where pixels have 16 bits: hot pixels must not set the scale.
_PERCENTILES = (0.1, 99.9)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            # Asked for before load(), which forgets how the pixels were stored.
            stored = str(image.tile[0][3]) if image.tile else ""
            frames = getattr(image, "n_frames", 1)
            image.load()
    except _DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} cannot be read as an image ({reason}); fetch or write it again") from error
    if frames != 1:
        raise ValueError(f"{path} must hold one two-dimensional image, got {frames} pages")
    if image.mode in ("RGB", "RGBA") and ";16" in stored:
        raise ValueError(f"{path} must have 8 bits per colour channel, got 16; convert it")
    return image


def _integers(path: Path, image: Image.Image) -> np.ndarray:
    """Return the values of an image of mode I or I;16, uint16 where they fit, else int32."""
    values = np.asarray(image)
    if values.dtype.itemsize == 2:
        return values.astype(np.uint16)
    if values.min() < 0:
        raise ValueError(f"{path} must hold values from 0 on, got {values.min()}")
    return values.astype(np.uint16 if values.max() < 1 << 16 else np.int32)


def read_image(path: Path) -> np.ndarray:
    """Return uint8 or uint16 [H, W] of a grey image, uint8 [H, W, 3] of a colour or palette image; alpha is dropped.

    Raises ValueError, naming the file, if it is damaged or holds several pages, 16-bit colours or no integers.
    """
    image = _open(path)
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = _integers(path, image)
        if values.dtype != np.uint16:
            raise ValueError(f"{path} must have grey values of 8 or 16 bits, got values up to {values.max()}")
        return values
    if image.mode in ("P", "PA", "RGB", "RGBA"):
        return np.asarray(image.convert("RGB"))
    raise ValueError(f"{path} must be grey (8 or 16 bits), colour or palette, got Pillow's mode {image.mode}")


def read_mask(path: Path) -> np.ndarray:
    """Return int32 [H, W] of the values of a mask: grey values, palette indices, or COLOUR + 24 bits for a colour not grey.

    Where there is alpha, transparent pixels are background (0).
    Raises ValueError, naming the file, if it is damaged, holds several pages, no integers or half-transparent pixels.
    """
    image = _open(path)
    if image.mode in ("1", "L", "P"):
        return np.asarray(image).astype(np.int32)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _integers(path, image).astype(np.int32)
    if image.mode not in ("LA", "PA", "RGB", "RGBA"):
        raise ValueError(f"{path} must be grey, palette, RGB or RGBA, got Pillow's mode {image.mode}")
    pixels = np.asarray(image.convert("RGBA")).astype(np.int32)
    red, green, blue, alpha = (pixels[..., channel] for channel in range(4))
    if not np.isin(alpha, (0, 255)).all():
        raise ValueError(f"{path} must be opaque or fully transparent in every pixel, some are in between")
    code = (red << 16) + (green << 8) + blue
    grey = (red == green) & (green == blue)
    return np.where(alpha == 0, 0, np.where(grey, red, COLOUR + code))


def class_mask(values: np.ndarray, classes: Sequence[str], name: str) -> np.ndarray:
    """Return the class indices uint8 [H, W]. values: integer [H, W], 0..K-1, or 0 and 255 for two classes. name: for messages.

    Raises ValueError on any other value and on a mask of background alone.
    """
    present = np.unique(values)
    if len(classes) == 2 and set(present.tolist()) <= {0, 255}:
        values = values // 255
    elif present[0] < 0 or present[-1] >= len(classes):
        wrong = [value for value in present.tolist() if not 0 <= value < len(classes)]
        shown = "colours" if wrong[-1] >= COLOUR else ", ".join(map(str, wrong[:5]))
        either = " or 0 and 255" if len(classes) == 2 else ""
        raise ValueError(f"{name} must hold classes 0..{len(classes) - 1}{either}, got {shown}")
    check_not_empty(values, name)
    return values.astype(np.uint8)


def check_not_empty(values: np.ndarray, name: str) -> None:
    """Raise ValueError if a mask is background (0) alone."""
    if not values.any():
        raise ValueError(f"{name} is empty, all background; annotate it or leave out this image and its mask")


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
    """Maps grey values low..high to 0..255, rounded and cut."""

    low: int
    high: int

    @classmethod
    def of(cls, training: np.ndarray) -> "ByteScaling":
        """Return the scaling of a data set, from its training images: none for uint8, percentiles 0.1 and 99.9 for uint16.

        Raises ValueError on images of one grey value.
        """
        if training.dtype == np.uint8:
            return cls(0, 255)
        cumulated = np.cumsum(np.bincount(training.ravel(), minlength=1 << 16))
        low, high = (int(np.searchsorted(cumulated, part / 100 * cumulated[-1])) for part in _PERCENTILES)
        if low == high:
            raise ValueError(f"the training images must vary in grey value, nearly all pixels are {low}")
        return cls(low, high)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Scale images, uint8 or uint16, to uint8 of the same shape."""
        if (self.low, self.high) == (0, 255) and images.dtype == np.uint8:
            return images
        scaled = (images.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        return np.rint(scaled.clip(0, 255)).astype(np.uint8)

    def notes(self, training: np.ndarray) -> list[str]:
        """Return what a reader of a result must know of it."""
        return [] if training.dtype == np.uint8 else [f"16-bit grey values {self.low}..{self.high} scaled to 0..255"]


class _Complaints(logging.Handler):
    """Collects the errors that tifffile only logs: of a truncated file it returns the pages that are left."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def read_stack(path: Path) -> np.ndarray:
    """Return the slices of a TIFF file, [N, H, W] of its own dtype.

    Raises FileNotFoundError if it is missing and ValueError if it is damaged, holds colours or cannot be decompressed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a folder of this layout holds {VOLUME} and {LABELS}")
    complaints = _Complaints()
    logger = logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        with tifffile.TiffFile(path) as file:
            kinds = len(file.series)
            stack = file.asarray()
        if complaints.messages:
            raise ValueError(complaints.messages[0])
    except Exception as error:  # damaged files make tifffile raise what any codec raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} cannot be read as a TIFF stack ({reason}); fetch it again or write it uncompressed"
        ) from error
    finally:
        logger.removeHandler(complaints)
    if kinds != 1:
        raise ValueError(f"{path} must hold slices of one size and type, got {kinds} kinds")
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3 or stack.shape[-1] in (3, 4):
        raise ValueError(f"{path} must hold grey slices [N, H, W], got {list(stack.shape)}")
    return stack
