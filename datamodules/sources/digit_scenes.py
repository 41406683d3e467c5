"""Composed scenes of real handwriting: the bundled digits (sources/digits), enlarged and strewn over a noisy ground.

The pixels of a digit are a person's, their arrangement is made here: results say how networks find and tell apart small objects
that touch and overlap, and nothing about photographs. A digit is in one split only. Every visible pixel is of one digit."""

import numpy as np
from scipy import ndimage

from datamodules.readers.objects import InstanceMaps, ObjectSplits
from datamodules.readers.seeds import mix_seed
from datamodules.readers.splits import Split
from datamodules.sources.digits import load_digits

# Lengths in pixels, grey values 0..255.
SIDES = (18, 40)  # of an enlarged digit, both included
INK = 88  # a brighter pixel is the digit's
SMALLEST_DIGIT = 30  # pixels of a digit that is placed
OVERLAP = 0.15  # part of a digit's pixels that may lie on others
ATTEMPTS = 20
BLUR, CONTRAST, GROUND, NOISE = 0.7, 0.75, 20, 8


def load_digit_scenes(
    train_count: int = 200, val_count: int = 40, test_count: int = 80, size: int = 128, digits: int = 12, seed: int = 0
) -> ObjectSplits:
    """Return composed scenes of size x size pixels with up to `digits` digits of ten classes each.

    Scene i of a split depends on (seed, split, i, size, digits) alone. The digits of a split are those of the data set digits.
    Raises ValueError where not even the largest digit fits, or on an empty split.
    """
    if size < SIDES[1] or digits < 2 or min(train_count, val_count, test_count) < 1:
        raise ValueError(
            f"size must be at least {SIDES[1]} pixels, digits at least 2 and every count at least 1, got size {size}, "
            f"digits {digits} and counts {train_count}, {val_count}, {test_count}"
        )
    pools = load_digits()

    def split(name: str, count: int) -> InstanceMaps:
        scenes = []
        for index in range(count):
            # RandomState's streams are frozen (NEP 19): the same scenes under every version of numpy.
            random = np.random.RandomState(mix_seed(f"digit_scenes {name}", seed, index) % 2**32)
            scenes.append(compose(random, pools.named()[name], size, digits))
        images, instances, labels = zip(*scenes, strict=True)
        return InstanceMaps(np.stack(images), np.stack(instances), labels)

    return ObjectSplits(
        train=split("train", train_count),
        val=split("val", val_count),
        test=split("test", test_count),
        classes=pools.classes,
        upright=True,
        notes="composed scenes: real handwritten digits, arranged by a program",
    )


def compose(
    random: np.random.RandomState, pool: Split, size: int, digits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a scene uint8 [size, size], its instances int32 [size, size] and their classes int64 [n + 1], unused at 0.

    A digit lies over those before it; what it leaves of them stays theirs. A digit without room is left out.
    """
    ink, instances, labels = np.zeros((size, size)), np.zeros((size, size), np.int32), [0]
    for _ in range(random.randint(digits // 2, digits + 1)):
        number, side = random.randint(len(pool)), random.randint(SIDES[0], SIDES[1] + 1)
        grey = ndimage.zoom(pool.images[number, 0].numpy().astype(np.float64), side / 8, order=1)
        rows, columns = (slice(lines.min(), lines.max() + 1) for lines in np.nonzero(grey > INK))
        grey = grey[rows, columns]
        mask = grey > INK
        height, width = mask.shape
        if mask.sum() < SMALLEST_DIGIT:
            continue
        for _ in range(ATTEMPTS):
            top, left = random.randint(size - height + 1), random.randint(size - width + 1)
            window = slice(top, top + height), slice(left, left + width)
            if (instances[window][mask] > 0).mean() < OVERLAP:
                instances[window][mask] = len(labels)
                ink[window][mask] = grey[mask]
                labels.append(int(pool.targets[number]))
                break
    pixels = ndimage.gaussian_filter(ink, BLUR) * CONTRAST + GROUND + random.normal(0, NOISE, ink.shape)
    return np.rint(pixels).clip(0, 255).astype(np.uint8), instances, np.array(labels)
