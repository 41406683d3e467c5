"""Sums over samples and processes, and lists of them, that are updated without waiting for a GPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.utilities.data import dim_zero_cat


class MeanLoss(Metric):
    """Mean over all samples of all processes, and their number.

    torchmetrics' MeanMetric and SumMetric look for NaN, and copy Python numbers to the device: both wait for it.
    """

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], *others: Any) -> "MeanLoss":
        """Move to a device, and stay in float64: a sum in bfloat16 stops growing, one in float16 ends at 65,504."""
        exact = self.total
        super()._apply(fn, *others)
        if self.total.dtype != exact.dtype:
            self.total = exact.to(self.total.device)
        return self

    def reset(self) -> None:
        """Begin anew."""
        super().reset()
        self.total = torch.zeros_like(self.total, dtype=torch.float64)

    def update(self, losses: Tensor) -> None:
        """Add the loss of each sample, shape (N,)."""
        self.total += losses.sum(dtype=torch.float64)
        self.count += len(losses)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return mean, float64, NaN of nothing, and number of samples, int64."""
        return self.total / self.count, self.count


class Outcomes(Metric):
    """Rows of integers, what came out for each image of a split; those of all processes one after the other.

    Shards of evaluation are consecutive images in the order of ranks, so the rows are in the order of the split.
    """

    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, rows: Tensor) -> None:
        """Add images: integers (N, …)."""
        self.rows.append(rows.int())

    def compute(self) -> Tensor:
        """Return int32 (images, …)."""
        return dim_zero_cat(self.rows)


class ConfusionMatrix(MulticlassConfusionMatrix):
    """Counts by true and predicted class.

    torchmetrics counts with bincount, for whose size the host waits, as the size depends on the values.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, validate_args=False)  # the splits have been checked when they were read

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add samples: logits (N, K, …), classes (N, …)."""
        cells = targets.long() * self.num_classes + logits.argmax(dim=1)
        once = torch.ones((), dtype=self.confmat.dtype, device=cells.device).expand(cells.numel())
        self.confmat.view(-1).scatter_add_(0, cells.flatten(), once)
