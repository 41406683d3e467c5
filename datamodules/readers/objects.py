"""Objects in images, each with a box, a class and where it is known a mask: one image's, and three splits of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from datamodules.readers.splits import ThreeSplits

MOST_FOUND = 100  # objects that a detector finds in an image, and that COCO's AP counts


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image, in its own pixels; a pixel at column 3 spans 3..4.

    boxes: float64 [n, 4], x0, y0, x1, y1. labels: int64 [n], 0..K-1. area: float64 [n], as annotated. crowd: bool [n], a region
    of uncounted objects. masks: uint8 [n, H, W] of 0 and 1, or None.
    """

    boxes: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    masks: np.ndarray | None

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: np.ndarray) -> "Objects":
        """Return some of the objects. chosen: bool [n]."""
        if chosen.all():
            return self
        masks = None if self.masks is None else self.masks[chosen]
        return Objects(self.boxes[chosen], self.labels[chosen], self.area[chosen], self.crowd[chosen], masks)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Return the smallest boxes float64 [n, 4] around masks [n, H, W]; 0 0 0 0 of an empty one."""
    edges = []
    for axis in (1, 2):  # columns, then rows
        lines: np.ndarray = np.any(masks, axis=axis)
        first, last = lines.argmax(1), lines.shape[1] - lines[:, ::-1].argmax(1)
        some = lines.any(1)
        edges.append((np.where(some, first, 0), np.where(some, last, 0)))
    (left, right), (top, bottom) = edges
    return np.stack([left, top, right, bottom], 1).astype(np.float64)


class ObjectSplit(Protocol):
    """Images and their objects, each read when it is asked for."""

    @property
    def sizes(self) -> np.ndarray:
        """int64 [N, 2], height and width."""

    def __len__(self) -> int: ...

    def image(self, row: int) -> np.ndarray:
        """Return uint8 [H, W] of a grey image, [H, W, 3] of a colour one. Raises ValueError naming a damaged file."""

    def objects(self, row: int) -> Objects:
        """Return the objects of an image. Raises ValueError naming file and annotation."""

    def digest(self, digest: Any) -> None:
        """Add to a checksum what identifies the data."""


@dataclass(frozen=True, eq=False)
class InstanceMaps:
    """Images in memory whose objects do not overlap.

    images: uint8 [N, H, W] or [N, H, W, 3]. instances: int32 [N, H, W], 0 for background, any other value one object of that
    image. labels: of each image the class of every value, int64 [largest value + 1]; None for one class.
    """

    images: np.ndarray
    instances: np.ndarray
    labels: Sequence[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sizes(self) -> np.ndarray:
        """Height and width of every image."""
        return np.tile(np.array(self.images.shape[1:3]), (len(self), 1))

    def image(self, row: int) -> np.ndarray:
        """Return the pixels."""
        return self.images[row]

    def objects(self, row: int) -> Objects:
        """Return the objects in the order of their values."""
        instances = self.instances[row]
        return objects_of(instances, None if self.labels is None else self.labels[row])

    def digest(self, digest: Any) -> None:
        """Add the arrays."""
        labels = np.concatenate(self.labels or [np.zeros(0, np.int64)])
        for array in (self.images, self.instances, labels):
            digest.update(f"{array.dtype} {list(array.shape)}\n".encode())
            digest.update(np.ascontiguousarray(array).data)


def objects_of(instances: np.ndarray, labels: np.ndarray | None = None) -> Objects:
    """Return the objects of a map of instances, int32 [H, W]. labels: the class of every value; None for class 0."""
    numbers = np.unique(instances[instances > 0])
    masks = (instances == numbers[:, None, None]).astype(np.uint8)
    classes = np.zeros(len(numbers), np.int64) if labels is None else labels[numbers]
    area = masks.sum((1, 2), dtype=np.int64).astype(np.float64)
    return Objects(boxes_of(masks), classes, area, np.zeros(len(numbers), bool), masks)


def crowded(counts: np.ndarray) -> list[str]:
    """Return what must be known where images of a test hold more objects than COCO's AP counts; nothing where none does.
    counts: of objects, int64 [N]."""
    if not (many := int((counts > MOST_FOUND).sum())):
        return []
    return [
        f"{many} of {len(counts)} test images hold more than {MOST_FOUND} objects, up to {counts.max()}: AP counts the "
        f"{MOST_FOUND} surest that are found in an image, so that it cannot be 1"
    ]


@dataclass(frozen=True, eq=False)
class ObjectSplits(ThreeSplits[ObjectSplit]):
    """Train, validation and test split of images with objects; see ThreeSplits.

    category_ids: what an annotation file calls the classes; 1..K where there is none. upright: whether a mirrored or turned
    object is none of its class any more, as with digits.
    Raises ValueError on an empty split.
    """

    category_ids: tuple[int, ...] = ()
    upright: bool = False

    def __post_init__(self) -> None:
        for name, split in self.named().items():
            if not len(split):
                raise ValueError(f"the {name} split must hold at least one image, got none")
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.classes) + 1)))

    def checksum(self, names: Sequence[str] = ("train", "val", "test")) -> str:
        """Return SHA-256 over what identifies each of some splits, as 64 hex digits."""
        digest = hashlib.sha256()
        for name in names:
            split = self.named()[name]
            digest.update(f"{name} {len(split)}\n".encode())
            split.digest(digest)
        return digest.hexdigest()
