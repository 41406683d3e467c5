"""What a source of data hands over: three validated splits, held in memory as decoded arrays."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

AnySplit = TypeVar("AnySplit")


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their targets.

    images: uint8 [N, C, H, W]. targets: int64 [N] (one class per image) or uint8 [N, H, W] (a mask of class indices).
    sizes: int64 [N, 2], height and width of images of different sizes: each lies in the upper left corner of the arrays, and
    what is beyond belongs to no image; None where all are as large as the arrays.
    Raises ValueError on any other dtype or shape, on an empty split and on counts that differ.
    """

    images: Tensor
    targets: Tensor
    sizes: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        images, targets = self.images, self.targets
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 [N, C, H, W], got {images.dtype} {list(images.shape)}")
        if (targets.dtype, targets.ndim) not in ((torch.int64, 1), (torch.uint8, 3)):
            raise ValueError(f"targets must be int64 [N] or uint8 [N, H, W], got {targets.dtype} {list(targets.shape)}")
        if len(images) == 0:
            raise ValueError("a split must hold at least one image, got none")
        if len(images) != len(targets):
            raise ValueError(
                f"a split must hold one target per image, got {len(images)} images, {len(targets)} targets"
            )
        if self.is_mask and targets.shape[1:] != images.shape[2:]:
            raise ValueError(
                f"masks must be as large as images {list(images.shape[2:])}, got {list(targets.shape[1:])}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def arrays(self) -> dict[str, Tensor]:
        """Return the arrays by name, for a checksum."""
        return {"images": self.images, "targets": self.targets}

    def extent(self, row: int) -> tuple[slice, slice]:
        """Return the rows and columns of the arrays that are of one image: all, where images are of one size."""
        height, width = self.images.shape[2:] if self.sizes is None else self.sizes[row].tolist()
        return slice(height), slice(width)

    def image_sizes(self) -> list[list[int]]:
        """Return height and width of the images in ascending order, each size once."""
        return [list(self.images.shape[2:])] if self.sizes is None else self.sizes.unique(dim=0).tolist()

    def to(self, device: torch.device) -> Self:
        """The split with its arrays on another device; itself where they are there already."""
        if self.images.device == device:
            return self
        arrays = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: array.to(device) for name, array in arrays.items() if isinstance(array, Tensor)})

    @property
    def is_mask(self) -> bool:
        """Whether the targets are masks (segmentation) rather than one class per image."""
        return self.targets.ndim == 3


@dataclass(frozen=True, eq=False)
class ThreeSplits(Generic[AnySplit]):
    """Train, validation and test split of one data set.

    classes are the names in the order of the class indices. baselines are scores of methods without a network on the
    test split, as fractions. notes say what a reader of a result must know ("" normally), remarks what the one who started the
    run must know at once.
    """

    train: AnySplit
    val: AnySplit
    test: AnySplit
    classes: tuple[str, ...]
    baselines: Mapping[str, float] = field(default_factory=dict)
    notes: str = ""
    remarks: tuple[str, ...] = ()

    def named(self) -> dict[str, AnySplit]:
        """Return the splits by name, in the order train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True, eq=False)
class Splits(ThreeSplits[Split]):
    """Train, validation and test split of decoded images; see ThreeSplits.

    grey_range: the 16-bit grey values that became 0 and 255, None where the files have 8 bits.
    Raises ValueError on a target outside the classes and on splits of different channels or kinds of target.
    """

    grey_range: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, split in self.named().items():
            low, high = int(split.targets.min()), int(split.targets.max())
            if low < 0 or high >= len(self.classes):
                raise ValueError(f"{name} targets must lie in 0..{len(self.classes) - 1}, got {low}..{high}")
            if split.is_mask != self.train.is_mask:
                raise ValueError(f"{name} targets must be of the same kind as train's: all classes or all masks")
            if split.images.shape[1] != self.train.images.shape[1]:
                channels = self.train.images.shape[1]
                raise ValueError(f"{name} images must have train's {channels} channels, got {split.images.shape[1]}")

    def foreground(self) -> float | None:
        """Return the part of the training pixels that are of another class than the first, None where targets are no masks."""
        if not self.train.is_mask:
            return None
        pixels = sum(self.train.targets[(row, *self.train.extent(row))].numel() for row in range(len(self.train)))
        return int((self.train.targets != 0).sum()) / pixels

    def checksum(self, names: Sequence[str] = ("train", "val", "test")) -> str:
        """Return SHA-256 over name, dtype, shape and bytes of every decoded array of some splits, as 64 hex digits."""
        digest = hashlib.sha256()
        for name in names:
            split = self.named()[name]
            for kind, array in split.arrays().items():
                digest.update(f"{name} {kind} {array.dtype} {list(array.shape)}\n".encode())
                digest.update(array.contiguous().numpy().data)
        return digest.hexdigest()


def repeated(train: Split, val: Split, test: Split) -> list[str]:
    """Return what must be known where validation or test images are training images, too; nothing where none is."""

    def digests(split: Split) -> list[bytes]:
        images = (split.images[(row, ..., *split.extent(row))] for row in range(len(split)))
        return [hashlib.sha256(f"{list(image.shape)}".encode() + image.numpy().tobytes()).digest() for image in images]

    known = set(digests(train))
    remarks = []
    for name, split in (("validation", val), ("test", test)):
        if count := sum(digest in known for digest in digests(split)):
            remarks.append(f"{count} of {len(split)} {name} images are training images, too, equal in every pixel")
    return remarks


def check_counts(counts: Mapping[str, int], total: int, what: str) -> None:
    """Raise ValueError unless the counts of images drawn for some parts, by part, are positive and leave some of the total.

    what: is drawn from, "images" with more to find them by.
    """
    if not all(counts.values()) or min(counts.values(), default=1) < 1 or sum(counts.values()) >= total:
        raise ValueError(
            f"{count_keys(counts)} must be positive and leave some of the {total} {what} to train on, got "
            f"{' and '.join(map(str, counts.values()))}"
        )


def count_keys(parts: Iterable[str]) -> str:
    """Return the keys that say how many images are drawn for some parts: ``data.val_count and data.test_count``."""
    return " and ".join(f"data.{part}_count" for part in parts)


def hold_out(targets: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into (rest, held out), stratified: every class gives its share of count, to within one image.

    targets: integer [N]. Both results are ascending row numbers. The draw uses numpy's RandomState, whose stream is
    frozen (NEP 19), so that a split is the same on every machine and under every version of numpy.
    Raises ValueError unless 0 < count < N.
    """
    if not 0 < count < len(targets):
        raise ValueError(f"what is held out must be positive and leave some of the {len(targets)} rows, got {count}")
    _, sizes = np.unique(targets, return_counts=True)
    shares, remainders = np.divmod(sizes * count, len(targets))
    # Largest remainders, the lower class first on a tie: the shares then add up to count.
    shares[np.argsort(-remainders, kind="stable")[: count - shares.sum()]] += 1
    return _draw(targets, sizes, shares, seed)


def hold_out_each(targets: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into (rest, held out) with count of every class held out; see hold_out.

    Raises ValueError unless every class has more than count, which is positive.
    """
    _, sizes = np.unique(targets, return_counts=True)
    if not 0 < count < sizes.min():
        raise ValueError(f"the images held out of each class must number 1..{sizes.min() - 1}, got {count}")
    return _draw(targets, sizes, np.full(len(sizes), count), seed)


def part_by_name(
    targets: np.ndarray, names: Sequence[str], fractions: Sequence[float], classes: Sequence[object]
) -> list[np.ndarray]:
    """Split rows into the rest and, for each fraction, the part of every class that is held out: one image at least.

    targets: integer [N], the classes. names: of the images, whose SHA-256 gives the order in which they are taken: a part
    depends on no seed, and an image more moves few others. classes: what messages call each.
    Raises ValueError on fractions that leave nothing and on a class that is too small.
    """
    if not all(0 < fraction < 1 for fraction in fractions) or sum(fractions) >= 1:
        raise ValueError(
            "data.val_fraction and data.test_fraction, of what is drawn, lie between 0 and 1 and sum up to less than 1, got "
            f"{' and '.join(map(str, fractions))}"
        )
    places = np.array([hashlib.sha256(os.fsencode(name)).hexdigest() for name in names])
    order = np.argsort(places, kind="stable")
    parts: list[list[np.ndarray]] = [[] for _ in (None, *fractions)]
    for label in np.unique(targets):
        rows = order[targets[order] == label]
        counts = [max(1, round(fraction * len(rows))) for fraction in fractions]
        if len(rows) <= sum(counts):
            raise ValueError(
                f"{classes[label]} holds {len(rows)} images, and {sum(counts)} of them would be held out; lower "
                "data.val_fraction and data.test_fraction"
            )
        pieces = np.split(rows, np.cumsum([len(rows) - sum(counts), *counts])[:-1])
        for part, piece in zip(parts, pieces, strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def _draw(targets: np.ndarray, sizes: np.ndarray, shares: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    held_out = np.zeros(len(targets), dtype=bool)
    by_class = np.split(np.argsort(targets, kind="stable"), np.cumsum(sizes)[:-1])
    for rows, share in zip(by_class, shares, strict=True):
        held_out[random.permutation(rows)[:share]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
