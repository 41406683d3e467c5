"""Nuclei in fluorescence microscopy: one image of the 2018 Data Science Bowl with its human mask (BBBC038; Caicedo et
al., Nature Methods 16, 2019), kept beside this file under CC0 1.0 (assets/nuclei/LICENCE-DATA). A demonstration: three
splits of one image show that a segmentation works, not how well it generalises."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datamodules.readers.splits import Split, Splits

FOLDER = Path(__file__).parents[1] / "assets" / "nuclei"
# Rows of the 512x512 image; the 15 or 16 rows between two splits belong to none. A nucleus is 24 rows high (median): two of
# the 125 reach across each gap. The last row is left out, as its mask is not drawn: 8 pixels of nuclei beside 80 in the row
# above, where the image goes on as bright.
TRAIN_ROWS = slice(0, 320)
VAL_ROWS = slice(336, 400)
TEST_ROWS = slice(415, 511)
TRAIN_TILE, TRAIN_STRIDE = 160, 32
EVALUATION_WIDTH = 256  # halves, so that two processes can share them; every cut takes context from the network


def _tiles(image: np.ndarray, height: int, width: int, stride: int) -> torch.Tensor:
    """Return [N, height, width]: every tile of image at multiples of stride in both directions, row by row."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (height, width))[::stride, ::stride]
    return torch.from_numpy(windows.reshape(-1, height, width).copy())


def otsu_threshold(image: np.ndarray) -> int:
    """Return the grey value that parts uint8 pixels into two classes with the greatest variance between their means.

    The first of several equal ones; pixels above it are the brighter class (Otsu, IEEE Transactions on Systems, Man, and
    Cybernetics 9, 1979).
    """
    counts = np.bincount(image.ravel(), minlength=256).astype(float)
    sums = counts * np.arange(256)
    darker, brighter = counts.cumsum()[:-1], counts[::-1].cumsum()[::-1][1:]
    with np.errstate(invalid="ignore"):  # an empty class has no mean
        distance = sums.cumsum()[:-1] / darker - sums[::-1].cumsum()[::-1][1:] / brighter
    return int(np.nan_to_num(darker * brighter * distance**2).argmax())


def otsu_dice(image: np.ndarray, foreground: np.ndarray) -> float:
    """Return Dice of the test rows under Otsu's threshold, a fraction: what a method of 1979 reaches without a network.

    image: uint8 [H, W]; foreground: bool [H, W]. The threshold is chosen on the training rows, as a network is.
    """
    predicted = image[TEST_ROWS] > otsu_threshold(image[TRAIN_ROWS])
    truth = foreground[TEST_ROWS]
    return float(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))


def load_nuclei() -> Splits:
    """Return the tiles of background (0) and nucleus (1): images uint8 [N, 1, H, W], masks uint8 [N, H, W].

    train: 72 overlapping tiles of 160x160 at a stride of 32, for a random crop of 128. val: 2 tiles of 64x256, test: 2
    of 96x256, side by side, so that every pixel counts once.
    Raises FileNotFoundError if the two images are missing.
    """
    for path in (FOLDER / "image.png", FOLDER / "mask.png"):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; it belongs to the project: install or check it out again")
    image = np.array(Image.open(FOLDER / "image.png"))
    foreground = np.array(Image.open(FOLDER / "mask.png")) > 0

    def split(rows: slice, height: int, width: int, stride: int) -> Split:
        tiles = (_tiles(array[rows], height, width, stride) for array in (image, foreground.astype(np.uint8)))
        images, masks = tiles
        return Split(images.unsqueeze(1), masks)

    return Splits(
        train=split(TRAIN_ROWS, TRAIN_TILE, TRAIN_TILE, TRAIN_STRIDE),
        val=split(VAL_ROWS, VAL_ROWS.stop - VAL_ROWS.start, EVALUATION_WIDTH, EVALUATION_WIDTH),
        test=split(TEST_ROWS, TEST_ROWS.stop - TEST_ROWS.start, EVALUATION_WIDTH, EVALUATION_WIDTH),
        classes=("background", "nucleus"),
        baselines={"otsu_dice": otsu_dice(image, foreground)},
        notes="one image split by rows: a demonstration",
    )
