"""The slices of TIFF files as a viewer shows them."""

import logging
import sys
from logging.handlers import BufferingHandler
from pathlib import Path

import numpy as np
import tifffile

from datamodules.readers.masks import BLACK, WHITE, WHITE_16

VOLUME, LABELS = "train-volume.tif", "train-labels.tif"


def as_turned(stack: np.ndarray, orientation: int) -> np.ndarray:
    """Turn slices [N, H, W] as a viewer does for a value of TIFF's tag Orientation (TIFF 6.0, page 36), 1 for none."""
    if orientation >= 5:  # rows and columns change places
        stack = stack.swapaxes(1, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(stack[:, ::rows, ::columns])


def as_shown(stack: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Return the grey values that a viewer shows of what a TIFF stores: white is zero, or a table of greys."""
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and stack.dtype.kind in "bu":
        return ~stack
    table = page.colormap
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and table is not None and (table == table[:1]).all():
        return (table[0] >> 8).astype(np.uint8)[stack]  # 16 bits each
    return stack


def page_count(path: Path) -> int:
    """Return the number of pages of a TIFF file, 0 where it cannot be read."""
    try:
        with tifffile.TiffFile(path) as file:
            return len(file.pages)
    except (OSError, ValueError):
        return 0


def read_stack(path: Path) -> np.ndarray:
    """Return the slices of a TIFF file as a viewer shows them, [N, H, W] of its own dtype.

    Raises FileNotFoundError if it is missing, ValueError if it is damaged or holds colours, and ImportError if its compression
    needs the extra `tiff`.
    """
    return _read(path)[1]


def read_label_stack(path: Path) -> np.ndarray:
    """Return the slices of a TIFF file of labels, [N, H, W]: as a viewer shows them where all is black and white, else as
    stored.

    Raises what read_stack does.
    """
    stored, shown = _read(path)
    if shown.dtype == np.uint16 and np.isin(shown, (BLACK, WHITE_16)).all():
        return shown // (WHITE_16 // WHITE)
    return shown if shown.dtype == bool or np.isin(shown, (BLACK, WHITE)).all() else stored


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the slices of a TIFF file as stored and as shown, both turned as a viewer turns them."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; a folder of this layout holds {VOLUME} and {LABELS}")
    # tifffile only logs some errors: of a truncated file it returns the pages that are left.
    complaints = BufferingHandler(sys.maxsize)
    complaints.setLevel(logging.ERROR)
    logger = logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        with tifffile.TiffFile(path) as file:
            kinds, page = len(file.series), file.pages.first
            stack = file.asarray()
            shown, tag = as_shown(stack, page), page.tags.get("Orientation")
            orientation = 1 if tag is None else int(tag.value)
        if complaints.buffer:
            raise ValueError(complaints.buffer[0].getMessage())
    except Exception as error:  # damaged files make tifffile raise what any codec raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "imagecodecs" in reason:
            raise ImportError(
                f'{path} is compressed ({reason}): pip install -e ".[tiff]", or write it uncompressed'
            ) from error
        raise ValueError(f"{path} cannot be read as a TIFF stack ({reason}); fetch or write it again") from error
    finally:
        logger.removeHandler(complaints)
    if kinds != 1:
        raise ValueError(f"{path} must hold slices of one size and type, got {kinds} kinds")
    if stack.ndim == 2:
        stack, shown = stack[None], shown[None]
    if stack.ndim != 3 or stack.shape[-1] in (3, 4):
        raise ValueError(f"{path} must hold grey slices [N, H, W], got {list(stack.shape)}")
    return as_turned(stack, orientation), as_turned(shown, orientation)
