"""Weights of the pixels in U-Net's loss (Ronneberger, Fischer and Brox, MICCAI 2015, section 3, equation 2):

    w(x) = w_c(x) + w_0 · exp(-(d_1(x) + d_2(x))² / 2σ²),  w_0 = 10, σ = 5 pixels

w_c balances the classes, d_1 and d_2 are the distances to the border of the nearest and the second nearest cell.
Two things the paper does not say, and our choice. The formula of w_c: inverse frequency, see class_weights. Where the
second term acts: on background only, since it is there to teach "the small separation borders" between cells; d_1 and
d_2 run from the centre of the pixel to the centre of the closest pixel of a cell.
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.decoded import whole_file
from datamodules.readers.instances import InstanceSplit

W0 = 10.0
SIGMA = 5.0
# The second term is taken as 0 where it is smaller.
_NEGLIGIBLE = 1e-8
# Part of the cache's key: raise it when border_weights changes.
_VERSION = 1


def class_weights(targets: Tensor, class_count: int) -> Tensor:
    """Return w_c of each class: float32 [K], pixels / (K · pixels of the class), whose mean over all pixels is 1.

    targets: uint8 [N, H, W], the training split: the paper balances "the different frequency of pixels from a certain
    class in the training data set". Raises ValueError if a class has no pixel.
    """
    counts = torch.bincount(targets.flatten().long(), minlength=class_count)
    absent = [str(number) for number in range(class_count) if counts[number] == 0]
    if absent:
        raise ValueError(f"every class needs pixels in the training split to be weighed, {', '.join(absent)} has none")
    return (targets.numel() / (class_count * counts.double())).float()


def checked_border_weights(arguments: Any) -> Mapping[str, float] | None:
    """Return arguments of border_weights, None for none. Raises ValueError on others."""
    if arguments is None:
        return None
    if not isinstance(arguments, Mapping) or not all(
        name in ("w0", "sigma") and isinstance(value, int | float) for name, value in arguments.items()
    ):
        raise ValueError(f"augment.border_weights takes numbers as w0 and sigma, or is null for none, got {arguments}")
    return arguments


def border_weights(instances: np.ndarray, w0: float = W0, sigma: float = SIGMA) -> np.ndarray:
    """Return w_0 · exp(-(d_1 + d_2)² / 2σ²) on background, 0 on cells and where there are fewer than two cells.

    instances: integer [H, W], 0 for background, touching cells separated. sigma: in pixels. Returns float32 [H, W],
    exact but for terms under 1e-8. Raises ValueError unless w0 >= 0 and sigma > 0.
    """
    from scipy import ndimage  # which is not imported for images without masks

    if w0 < 0 or sigma <= 0:
        raise ValueError(f"w0 must be at least 0 and sigma positive, got {w0} and {sigma}")
    height, width = instances.shape
    # d_2 <= d_1 + d_2, so a cell matters only this far from its bounding box.
    reach = math.ceil(sigma * math.sqrt(2 * math.log(max(w0 / _NEGLIGIBLE, 1.0))))
    nearest = np.full((height, width), np.inf)
    second = np.full((height, width), np.inf)
    _, numbered = np.unique(instances, return_inverse=True)
    # np.unique numbers background 0 where there is any; without it there is nothing to weigh.
    numbered = numbered.reshape(height, width) if (instances == 0).any() else np.zeros((height, width), dtype=int)
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        window = tuple(
            slice(max(side.start - reach, 0), min(side.stop + reach, length))
            for side, length in zip(box, (height, width), strict=True)
        )
        distance = ndimage.distance_transform_edt(numbered[window] != number)
        second[window] = np.minimum(second[window], np.maximum(nearest[window], distance))
        nearest[window] = np.minimum(nearest[window], distance)
    weights = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return np.where(instances == 0, weights, 0).astype(np.float32)


def weight_maps(
    split: InstanceSplit, weights: Tensor, cache_dir: str | Path, w0: float = W0, sigma: float = SIGMA
) -> Tensor:
    """Return w(x) of every image of a split, float32 [N, H, W].

    weights: w_c, see class_weights. w0, sigma: see border_weights; cells are instances where the target is not
    background, so that the gap between touching ones counts. The second term, which depends on one annotation alone, is
    kept in cache_dir in one .npy file per image, named by a hash of the annotation, w0 and sigma.
    Raises ValueError on a damaged file of the cache.
    """
    cells = torch.where(split.targets != 0, split.instances, 0).numpy()
    border = np.stack([_cached_border_weights(labels, Path(cache_dir), w0, sigma) for labels in cells])
    return weights[split.targets.long()] + torch.from_numpy(border)


def _cached_border_weights(instances: np.ndarray, cache_dir: Path, w0: float, sigma: float) -> np.ndarray:
    digest = hashlib.sha256(f"{_VERSION} {float(w0)} {float(sigma)} {instances.dtype} {instances.shape}".encode())
    digest.update(np.ascontiguousarray(instances).data)
    path = cache_dir / f"border-{digest.hexdigest()[:32]}.npy"
    if path.is_file():
        try:
            weights = np.load(path)
            if weights.dtype != np.float32 or weights.shape != instances.shape:
                raise ValueError(f"{weights.dtype} {list(weights.shape)}")
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"the cached weight map {path} is damaged ({error}); delete it and run again") from error
        return weights
    weights = border_weights(instances, w0, sigma)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        np.save(file, weights)
    return weights
