"""Feature pyramid networks for object detection (Lin et al., CVPR 2017)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Feature pyramid: the last maps {C2, C3, …} of a network's stages to {P2, P3, …}, all of ``channels`` channels (§3).

    A map is upsampled by 2 (nearest) and added to the lateral 1x1 convolution of the next finer one; a 3x3 convolution on each
    merged map gives the level. A last, coarser level is the coarsest subsampled by 2, for the RPN alone (footnote 2).

    in_channels: of C2, C3, …
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for conv in (*self.lateral, *self.output):
            nn.init.kaiming_uniform_(conv.weight, a=1)  # Detectron's "Xavier": uniform, variance 1 / fan-in
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        laterals = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            merged.insert(0, lateral + F.interpolate(merged[0], size=lateral.shape[-2:], mode="nearest"))
        levels = [output(x) for output, x in zip(self.output, merged, strict=True)]
        return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]
