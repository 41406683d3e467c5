"""Masks in which objects are told apart: a split with instance labels, and the gap between touching objects."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.splits import Split


@dataclass(frozen=True, eq=False)
class InstanceSplit(Split):
    """A split of masks that also knows which pixels belong to which object.

    instances: int32 [N, H, W], 0 for background, any other value one object of that image; the annotation as published.
    A pixel may be background in targets and belong to an instance (the gap between two that touch), never the reverse.
    only_scored: whether nothing is learned from the instances; they are then no part of the checksum.
    Raises ValueError on another dtype or shape, a negative label or a foreground pixel without an instance.
    """

    instances: Tensor
    only_scored: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.is_mask:
            raise ValueError("instances need masks as targets, got one class per image")
        instances = self.instances
        if instances.dtype != torch.int32 or instances.shape != self.targets.shape:
            raise ValueError(
                f"instances must be int32 {list(self.targets.shape)}, as the masks, "
                f"got {instances.dtype} {list(instances.shape)}"
            )
        if int(instances.min()) < 0:
            raise ValueError(f"instance labels must be 0 (background) or positive, got {int(instances.min())}")
        if bool(((self.targets != 0) & (instances == 0)).any()):
            raise ValueError("every foreground pixel of a mask must belong to an instance, some have label 0")

    def arrays(self) -> dict[str, Tensor]:
        """Return the arrays by name, for a checksum."""
        instances = {} if self.only_scored else {"instances": self.instances}
        sizes = {} if self.sizes is None else {"sizes": self.sizes}
        return super().arrays() | instances | sizes


def components(mask: np.ndarray) -> np.ndarray:
    """Number the 4-connected components of equal, non-zero value, in the order of their first pixels, row by row.

    mask: uint8 [H, W]. Returns int32 [H, W] from 1 on, 0 where the mask is 0.
    """
    from scipy import ndimage  # which is not imported for images without masks

    numbered = np.zeros(mask.shape, dtype=np.int32)
    values = np.unique(mask[mask != 0])
    places = np.searchsorted(values, mask, side="right")  # 0 for the background
    total = 0
    for place, window in enumerate(ndimage.find_objects(places), start=1):
        of_value, count = ndimage.label(places[window] == place)
        numbered[window] += np.where(of_value, of_value + total, 0).astype(np.int32)
        total += count
    numbers, first = np.unique(numbered[numbered > 0], return_index=True)
    renumbered = np.zeros(len(numbers) + 1, dtype=np.int32)
    renumbered[numbers[first.argsort()]] = np.arange(1, len(numbers) + 1)
    return renumbered[numbered]


def separate_touching(instances: np.ndarray) -> np.ndarray:
    """Set to background every pixel that has a pixel of another instance among its 8 neighbours.

    instances: integer [H, W], 0 for background. Returns a copy in which no two instances are 8-connected. "The
    separation border is computed using morphological operations" (Ronneberger et al. 2015, section 3); which ones is
    not said. Here a pixel goes where dilation and erosion of the labels by a 3x3 square, background left out, disagree:
    a gap of two pixels that favours neither side. An instance up to two pixels thick between others can vanish.
    """
    from scipy import ndimage

    largest = ndimage.maximum_filter(instances, size=3, mode="nearest")
    ceiling = np.iinfo(instances.dtype).max
    smallest = ndimage.minimum_filter(np.where(instances == 0, ceiling, instances), size=3, mode="nearest")
    return np.where((instances != 0) & (largest == smallest), instances, 0).astype(instances.dtype)


def split_of_instances(images: np.ndarray, instances: np.ndarray) -> InstanceSplit:
    """Return the background (0) and object (1), touching objects a gap apart in the targets; the instances stay as they are.

    images: uint8 [N, C, H, W]; instances: int32 [N, H, W].
    """
    return split_of_images(images, [object_mask(labels) for labels in instances], instances)


def object_mask(instances: np.ndarray) -> np.ndarray:
    """Return the pixels of objects, touching ones a gap apart: uint8 [H, W] of instances [H, W]."""
    return (separate_touching(instances) != 0).astype(np.uint8)


def split_of_images(
    images: Sequence[np.ndarray] | np.ndarray, masks: Sequence[np.ndarray], instances: Sequence[np.ndarray] | np.ndarray
) -> InstanceSplit:
    """Return a split of images uint8 [C, H, W], masks uint8 [H, W] and instances int32 [H, W], of one size or of several."""
    sizes = torch.tensor([mask.shape for mask in masks])
    pixels, targets, labels = (torch.from_numpy(_side_by_side(part)) for part in (images, masks, instances))
    return InstanceSplit(pixels, targets, labels, sizes=None if bool((sizes == sizes[0]).all()) else sizes)


def _side_by_side(arrays: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Stack arrays [..., H, W], each in the upper left corner of zeros as large as the largest."""
    height, width = (max(array.shape[axis] for array in arrays) for axis in (-2, -1))
    stacked = np.zeros((len(arrays), *arrays[0].shape[:-2], height, width), dtype=arrays[0].dtype)
    for place, array in zip(stacked, arrays, strict=True):
        place[..., : array.shape[-2], : array.shape[-1]] = array
    return stacked
