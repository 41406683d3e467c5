"""What came out for each image of a split, in the order of the split."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Outcomes(Metric):
    """Rows of integers, one for each image; those of all processes one after the other.

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
        return self.rows if isinstance(self.rows, Tensor) else torch.cat(self.rows)
