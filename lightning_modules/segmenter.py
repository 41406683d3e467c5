"""Semantic segmentation."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from lightning_modules.supervised import Supervised


class Segmenter(Supervised):
    """Pixel-wise cross-entropy training; Dice, IoU and pixel error pooled over all pixels of a split.

    Dice and IoU are those of the foreground: the mean over all classes but class 0. Targets are cropped centrally to the size
    that an unpadded network puts out.

    Args:
        net: images (N, C, H, W) to logits (N, num_classes, H', W') with H' ≤ H and W' ≤ W.
        num_classes: K ≥ 2, class 0 is the background.
    """

    primary = "dice_err"
    label = "100 − Dice (%)"
    definitions = {
        "dice": "2 TP / (2 TP + FP + FN), pixels pooled over the split, mean over foreground classes",
        "dice_err": "100 * (1 - dice), percent",
        "iou": "TP / (TP + FP + FN), pixels pooled over the split, mean over foreground classes",
        "pixel_err": "wrong pixels, percent",
        "loss": "cross-entropy, mean over pixels, nats",
    }

    def __init__(self, net: nn.Module, num_classes: int, optimizer: Any, scheduler: Any) -> None:
        super().__init__(net, optimizer, scheduler)
        self.confusion_matrices = nn.ModuleDict(
            {split: MulticlassConfusionMatrix(num_classes) for split in ("val", "test")}
        )

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over each image's pixels, shape (N,)."""
        return F.cross_entropy(logits, _crop(targets, logits), reduction="none").mean(dim=(1, 2))

    def update_metrics(self, split: str, logits: Tensor, targets: Tensor) -> None:
        """Adds a batch of logits (N, K, H', W') and masks (N, H, W)."""
        matrix: Any = self.confusion_matrices[split]
        matrix.update(logits, _crop(targets, logits))

    def compute_metrics(self, split: str) -> dict[str, Tensor]:
        """Pooled scores; a class with no pixel in truth and prediction is left out of the means."""
        matrix: Any = self.confusion_matrices[split]
        self.confusion = matrix.compute()
        matrix.reset()
        counts = self.confusion.double()
        hits, truth, found = counts.diag(), counts.sum(dim=1), counts.sum(dim=0)
        dice = (2 * hits / (truth + found))[1:].nanmean()
        iou = (hits / (truth + found - hits))[1:].nanmean()
        return {
            "dice": dice,
            "dice_err": 100 * (1 - dice),
            "iou": iou,
            "pixel_err": 100 * (1 - hits.sum() / counts.sum()),
            "n_pixels": counts.sum(),
        }


def _crop(targets: Tensor, logits: Tensor) -> Tensor:
    top, left = ((a - b) // 2 for a, b in zip(targets.shape[-2:], logits.shape[-2:], strict=True))
    return targets[..., top : top + logits.shape[-2], left : left + logits.shape[-1]]
