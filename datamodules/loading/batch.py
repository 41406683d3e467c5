"""A batch of images and what is to be predicted of them."""

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """images: float32 [B, C, H, W], normalised. targets: int64 [B] or [B, H, W]. weights: of the loss, float32 [B, H, W], in
    training with border weights. instances: int32 [B, H, W], in evaluation where the data set has them."""

    images: Tensor
    targets: Tensor
    weights: Tensor | None = None
    instances: Tensor | None = None


class ObjectBatch(NamedTuple):
    """images: float32 [B, C, H, W], normalised, padded right and bottom with 0. targets: of each image

    boxes [n, 4] (x0, y0, x1, y1) and masks uint8 [n, h, w] in pixels of the annotation, labels int64 [n], scale float32 [2]
    (pixels of the batch per pixel of the annotation, across and down), size int64 [2] (height and width within the batch) and
    image, int64, its number in the split. In evaluation boxes are float64, and there are crowd, bool [n], area, float64 [n].
    """

    images: Tensor
    targets: list[dict[str, Tensor]]


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Return ``values``, which lie in the machine's memory, on ``device``; nothing waits for the copy."""
    return values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)
