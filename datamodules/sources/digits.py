"""Handwritten digits that scikit-learn ships: 1,797 grey images of 8x8 pixels, the test part of UCI's Optical
Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998). Needs no download."""

import torch
from sklearn import datasets

from datamodules.readers.splits import Split, Splits, hold_out

VAL_COUNT = 150
TEST_COUNT = 450


def load_digits(split_seed: int = 0) -> Splits:
    """1,197 / 150 / 450 images uint8 [N, 1, 8, 8] of ten classes, stratified, disjoint, the same for everyone.

    The set has no official split; split_seed chooses this one and is no part of a run's seed. A pixel counts the ink
    in a 4x4 block, 0..16, and becomes round(255 * v / 16), halves up: 0 stays 0, 16 becomes 255, no two values merge.
    """
    digits = datasets.load_digits()
    images = torch.from_numpy((digits.images.astype("int64") * 255 + 8) // 16).to(torch.uint8).unsqueeze(1)
    targets = torch.from_numpy(digits.target.astype("int64"))

    rest, test = hold_out(digits.target, TEST_COUNT, split_seed)
    train, val = hold_out(digits.target[rest], VAL_COUNT, split_seed)
    return Splits(
        train=Split(images[rest[train]], targets[rest[train]]),
        val=Split(images[rest[val]], targets[rest[val]]),
        test=Split(images[test], targets[test]),
        classes=tuple(str(digit) for digit in range(10)),
    )
