"""A batch of images and labels."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """images: float32 [B, C, H, W], normalised. targets: int64 [B] or [B, H, W]. weights: of the loss, float32 [B, H, W], in
    training with border weights. instances: int32 [B, H, W], in evaluation where the data set has them."""

    images: Tensor
    targets: Tensor
    weights: Tensor | None = None
    instances: Tensor | None = None
