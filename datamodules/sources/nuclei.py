"""Nuclei in fluorescence microscopy: one image of the 2018 Data Science Bowl with its human mask (BBBC038; Caicedo et
al., Nature Methods 16, 2019), kept beside this file under CC0 1.0 (assets/nuclei/LICENCE-DATA). A demonstration: three
splits of one image show that a segmentation works, not how well it generalises."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from datamodules.readers.instances import InstanceSplit
from datamodules.readers.objects import InstanceMaps, ObjectSplits
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
# Of each split: rows, and the height, width and stride of its tiles.
TILES = {
    "train": (TRAIN_ROWS, TRAIN_TILE, TRAIN_TILE, TRAIN_STRIDE),
    "val": (VAL_ROWS, VAL_ROWS.stop - VAL_ROWS.start, EVALUATION_WIDTH, EVALUATION_WIDTH),
    "test": (TEST_ROWS, TEST_ROWS.stop - TEST_ROWS.start, EVALUATION_WIDTH, EVALUATION_WIDTH),
}
SMALLEST_NUCLEUS = 20  # pixels: Otsu's threshold also finds specks


def _tiles(array: np.ndarray, split: str) -> np.ndarray:
    """Return [N, height, width]: the tiles of a split of an array [H, W], row by row."""
    rows, height, width, stride = TILES[split]
    windows = np.lib.stride_tricks.sliding_window_view(array[rows], (height, width))[::stride, ::stride]
    return windows.reshape(-1, height, width).copy()


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


def otsu_ap(image: np.ndarray, instances: np.ndarray, score: Any) -> dict[str, float]:
    """Return AP and AP50 of the components above Otsu's threshold on the test tiles, as fractions, or none without a score.

    image: uint8 [H, W]; instances: int32 [H, W]. score: a metric of foregrounds and instances that computes mask_ap and
    mask_ap50. All components are equally sure.
    """
    if score is None:
        return {}
    bright = _tiles(image, "test") > otsu_threshold(image[TRAIN_ROWS])
    foreground = np.stack([without_specks(tile, SMALLEST_NUCLEUS) for tile in bright]).astype(np.float32)
    score.update(torch.from_numpy(foreground), torch.from_numpy(_tiles(instances, "test")))
    values = score.compute()
    return {f"otsu_{name}": float(values[name]) for name in ("mask_ap", "mask_ap50")}


def without_specks(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Return a mask, bool [H, W], without its 4-connected components of less than ``smallest`` pixels."""
    numbered, _ = ndimage.label(mask)
    large = np.bincount(numbered.ravel()) >= smallest
    large[0] = False
    return large[numbered]


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Return the image, uint8, and its instances, int32, both [512, 512].

    Raises FileNotFoundError if one is missing.
    """
    for path in (FOLDER / "image.png", FOLDER / "mask.png"):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; it belongs to the project: install or check it out again")
    return np.array(Image.open(FOLDER / "image.png")), np.array(Image.open(FOLDER / "mask.png")).astype(np.int32)


def load_nuclei(score: Any = None) -> Splits:
    """Return the tiles of background (0) and nucleus (1): images uint8 [N, 1, H, W], masks uint8 [N, H, W].

    The test split knows the nuclei as instances, too, for scores alone. score: what the baseline is scored by, see otsu_ap.

    train: 72 overlapping tiles of 160x160 at a stride of 32, for a random crop of 128. val: 2 tiles of 64x256, test: 2
    of 96x256, side by side, so that every pixel counts once.
    Raises FileNotFoundError if the two images are missing.
    """
    image, instances = _read()
    foreground = instances > 0

    def split(name: str) -> Split:
        images, masks = (torch.from_numpy(_tiles(array, name)) for array in (image, foreground.astype(np.uint8)))
        return Split(images.unsqueeze(1), masks)

    test = split("test")
    of_test = torch.from_numpy(_tiles(instances, "test"))
    return Splits(
        train=split("train"),
        val=split("val"),
        test=InstanceSplit(test.images, test.targets, of_test, only_scored=True),
        classes=("background", "nucleus"),
        baselines={"otsu_dice": otsu_dice(image, foreground), **otsu_ap(image, instances, score)},
        notes="one image split by rows: a demonstration",
    )


def load_nuclei_instances(score: Any = None) -> ObjectSplits:
    """Return the same tiles with every nucleus as an object of its own; one that a tile cuts is an object as far as it goes.

    score: what the baseline is scored by, see otsu_ap.
    Raises FileNotFoundError if the two images are missing.
    """
    image, instances = _read()
    train, val, test = (InstanceMaps(_tiles(image, name), _tiles(instances, name)) for name in TILES)
    return ObjectSplits(
        train=train,
        val=val,
        test=test,
        classes=("nucleus",),
        baselines=otsu_ap(image, instances, score),
        notes="one image split by rows: a demonstration",
    )
