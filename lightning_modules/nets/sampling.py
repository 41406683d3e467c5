"""Which anchors and regions a detector learns from: labels by overlap, and a random sample of them (Fast R-CNN, §2.3)."""

import torch
from torch import Tensor

IGNORED = -1


def sample(labels: Tensor, count: int, positive_share: float, generator: torch.Generator) -> Tensor:
    """Return the rows of at most ``count`` labels, positives first: int64 [S].

    Positives (labels above 0) are at most ``positive_share`` of the count, negatives (0) fill it up; IGNORED is left out.
    The draw depends on the labels and the generator alone, which is the CPU's.
    """
    positive, negative = (labels > 0).nonzero()[:, 0], (labels == 0).nonzero()[:, 0]
    positive = _draw(positive, int(count * positive_share), generator)
    return torch.cat([positive, _draw(negative, count - len(positive), generator)])


def _draw(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(rows), generator=generator)[:most]
    return rows[order.to(rows.device)]
