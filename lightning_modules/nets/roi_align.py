"""RoIAlign (He et al., "Mask R-CNN", ICCV 2017, §3) in plain torch, on all levels of a pyramid at once.

A bin of a region is the mean of samples x samples bilinear interpolations, so it is a weighted sum of 4 · samples² rows of
the table of all feature vectors: one embedding_bag, forward and backward.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def roi_align(
    features: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    size: int,
    samples: int = 2,
    half_pixel: bool = True,
) -> Tensor:
    """Return the features of each region, [K, C, size, size], float32 or float64 as the features are.

    features: [N, C, H, W] of each level, whose cells are ``strides`` pixels wide. boxes: [K, 4] in pixels of the image;
    images, levels: int64 [K], from which image and level each region is cut. samples: along each side of a bin.
    half_pixel: the centre of the first cell lies half a cell from the edge; False as in the first implementations, where it
    lies on the edge and a region is at least one cell wide. A point more than one cell outside the map counts as 0.
    """
    table = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in features])
    table = table if table.dtype == torch.float64 else table.float()
    shapes = [tuple(level.shape) for level in features]
    cells = [n * h * w for n, _, h, w in shapes]

    def of_level(values: Sequence[float], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, device=boxes.device, dtype=dtype)[levels]

    heights, widths = (of_level([shape[axis] for shape in shapes], torch.int64) for axis in (2, 3))
    first = of_level([sum(cells[:level]) for level in range(len(cells))], torch.int64) + images * heights * widths
    corners = boxes / of_level(strides, boxes.dtype)[:, None] - (0.5 if half_pixel else 0.0)
    low, high = corners[:, :2], corners[:, 2:]
    if not half_pixel:
        high = torch.maximum(high, low + 1)
    columns, column_weights = _neighbours(low[:, 0], high[:, 0], widths, size * samples)
    rows, row_weights = _neighbours(low[:, 1], high[:, 1], heights, size * samples)

    # [K, bin row, bin column, points and their neighbours along y, along x]
    count = len(boxes)
    vertical, horizontal = (count, size, 1, 2 * samples, 1), (count, 1, size, 1, 2 * samples)
    index = (
        first.view(-1, 1, 1, 1, 1)
        + rows.view(vertical) * widths.view(-1, 1, 1, 1, 1)
        + columns.view(horizontal)
    )  # fmt: skip
    weight = row_weights.view(vertical) * column_weights.view(horizontal) / samples**2
    bags = (count * size * size, 4 * samples**2)
    pooled = F.embedding_bag(
        index.reshape(bags), table, mode="sum", per_sample_weights=weight.to(table.dtype).reshape(bags)
    )
    return pooled.view(count, size, size, table.shape[1]).permute(0, 3, 1, 2)


def _neighbours(low: Tensor, high: Tensor, length: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Return the two cells beside each of ``points`` positions from low to high, and their weights in linear interpolation.

    low, high, length: [K], in cells. Returns int64 and float [K, points, 2].
    """
    steps = (torch.arange(points, device=low.device, dtype=low.dtype) + 0.5) / points
    positions = low[:, None] + steps * (high - low)[:, None]
    last = (length - 1)[:, None].to(low.dtype)
    inside = ((positions >= -1) & (positions <= last + 1)).to(low.dtype)
    positions = positions.clamp(min=0).minimum(last)
    before = positions.floor()
    share = positions - before
    cells = torch.stack([before, (before + 1).minimum(last)], dim=-1).long()
    return cells, torch.stack([(1 - share) * inside, share * inside], dim=-1)
