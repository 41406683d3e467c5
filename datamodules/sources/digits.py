"""Handwritten digits: 1,797 grey images of 8x8 pixels, the test part of UCI's Optical Recognition of Handwritten Digits
(Alpaydin and Kaynak, 1998), kept in assets/digits under CC BY 4.0. Needs no download."""

from pathlib import Path

import numpy as np
import torch

from datamodules.readers.splits import Split, Splits, hold_out

FILE = Path(__file__).parents[1] / "assets" / "digits" / "digits.csv.gz"
VAL_COUNT = 150
TEST_COUNT = 450


def load_digits(split_seed: int = 0) -> Splits:
    """Return 1,197 / 150 / 450 images uint8 [N, 1, 8, 8] of ten classes, stratified, disjoint, the same for everyone.

    The set has no official split; split_seed chooses this one and is no part of a run's seed. A pixel counts the ink
    in a 4x4 block, 0..16, and becomes round(255 * v / 16), halves up: 0 stays 0, 16 becomes 255, no two values merge.
    """
    table = np.loadtxt(FILE, dtype=np.int64, delimiter=",")
    pixels, digits = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].copy()
    images = torch.from_numpy((pixels * 255 + 8) // 16).to(torch.uint8)
    targets = torch.from_numpy(digits)

    rest, test = hold_out(digits, TEST_COUNT, split_seed)
    train, val = hold_out(digits[rest], VAL_COUNT, split_seed)
    return Splits(
        train=Split(images[rest[train]], targets[rest[train]]),
        val=Split(images[rest[val]], targets[rest[val]]),
        test=Split(images[test], targets[test]),
        classes=tuple(str(digit) for digit in range(10)),
    )
