"""U-Net: convolutional networks for biomedical image segmentation (Ronneberger et al., MICCAI 2015).

base_channels is the width of the first level (64 in Figure 1), depth the number of poolings (4 there). The published
network is unpadded, 572 pixels in and 388 out, and has no batch normalisation; padded=True keeps the size.
"""

import math

import torch
from torch import Tensor, nn

from lightning_modules.nets.checks import check_counts


def double_conv(in_channels: int, out_channels: int, padding: int) -> list[nn.Module]:
    """Return two 3x3 convolutions, each followed by a ReLU (§2)."""
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=padding), nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=padding), nn.ReLU(inplace=True),
    ]  # fmt: skip


def skip(x: Tensor, crop: slice) -> Tensor:
    """Return the centre of x, for the expanding path. Without gradients nothing needs the margin, which a view would keep."""
    centre = x[:, :, crop, crop]
    return centre.clone() if crop.start and not torch.is_grad_enabled() else centre


class UNet(nn.Module):
    """U-Net: images [N, in_channels, H, W] to logits [N, num_classes, h, w], with (h, w) = output_size(H, W).

    Args:
        base_channels: channels of the first level, doubled at every pooling.
        depth: number of 2x2 max poolings, and of 2x2 up-convolutions.
        padded: False for the published unpadded convolutions, True for an output as large as the input.
        dropout: rate at the end of the contracting path (§3.1), in [0, 1). The paper states no place and no rate; as in
            the authors' release, on the two deepest levels, before the pooling and the skip (there 0.5).
        release: the network of the authors' Caffe release (u-net-release-2015-10-02) instead of the paper's: a ReLU after
            every up-convolution, the last of which keeps its channels, and up-sampled maps first in the concatenation.

    Raises:
        ValueError: for a size or rate that cannot be.
    """

    # What trainer.gradient_checkpointing computes again as one.
    recomputation_stages = ("contracting.*", "bottom", "expanding.*")
    part_names = {"contracting": ("down",), "up_convs": ("up",), "expanding": ("up",)}  # of a module's children

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        base_channels: int = 64,
        depth: int = 4,
        padded: bool = False,
        dropout: float = 0.0,
        release: bool = False,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, num_classes=num_classes, base_channels=base_channels, depth=depth)
        if not isinstance(padded, bool):
            raise ValueError(f"padded is true (output as large as the input) or false (as published), got {padded!r}")
        if not isinstance(release, bool):
            raise ValueError(f"release is true (the authors' Caffe network) or false (the paper's), got {release!r}")
        if type(dropout) not in (int, float) or not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), 0 for none, got {dropout!r}")
        self.depth = depth
        self.padded = padded
        padding = 1 if padded else 0
        widths = [base_channels * 2**level for level in range(depth + 1)]

        self.contracting = nn.ModuleList()
        for level in range(depth):
            layers = double_conv(widths[level - 1] if level else in_channels, widths[level], padding)
            self.contracting.append(nn.Sequential(*layers, *([nn.Dropout(dropout)] if level == depth - 1 else [])))
        self.pool = nn.MaxPool2d(2)
        self.bottom = nn.Sequential(*double_conv(widths[-2], widths[-1], padding), nn.Dropout(dropout))
        self.up_convs = nn.ModuleList()
        self.expanding = nn.ModuleList()
        self.order = slice(None, None, -1 if release else 1)  # of skip and up-sampled map in the concatenation
        self.crops = []
        margin = 0
        for level in reversed(range(depth)):
            up_channels = widths[level + 1] if release and level == 0 else widths[level]
            up_conv = nn.ConvTranspose2d(widths[level + 1], up_channels, 2, stride=2)
            self.up_convs.append(nn.Sequential(up_conv, nn.ReLU(inplace=True)) if release else up_conv)
            self.expanding.append(nn.Sequential(*double_conv(widths[level] + up_channels, widths[level], padding)))
            # Below the skip, four unpadded convolutions (two at the bottom) take a pixel from either side at half the
            # resolution, and the level below has cropped its own margin: 4, 16, 40, 88 pixels in Figure 1.
            margin = 0 if padded else 4 if level == depth - 1 else 2 * margin + 8
            self.crops.append(slice(margin, -margin or None))
        # Beside the first skip's margin: the two convolutions before it and the two after it.
        self.border = 0 if padded else margin + 4
        self.classifier = nn.Conv2d(base_channels, num_classes, 1)

        for module in self.modules():
            # §3.1: Gaussian of std sqrt(2 / N), N the incoming nodes of a neuron. Every output of the 2x2, stride 2
            # up-convolution sees one tap of each input channel.
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=math.sqrt(2 / module.in_channels))
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        # A line for each step: a map that nothing reads any more is free before the next one is made.
        skips = []
        for level, crop in zip(self.contracting, reversed(self.crops), strict=True):
            x = level(x)
            pooled = self.pool(x)
            skips.append(skip(x, crop))
            x = pooled
        x = self.bottom(x)
        for up_conv, level in zip(self.up_convs, self.expanding, strict=True):
            x = up_conv(x)
            x = torch.cat([skips.pop(), x][self.order], dim=1)
            x = level(x)
        return self.classifier(x)

    def check_image_size(self, height: int, width: int) -> None:
        """Raise ValueError for sides (in pixels) that a pooling would not halve evenly (§2) or that leave no output.

        Padded, a side is a multiple of 2^depth. Unpadded, s = 2^depth (b + 4) - 4, with b the side of the deepest map
        before its two convolutions: s mod 16 = 12 for the published depth.
        """
        step = 2**self.depth
        offset = 0 if self.padded else -4
        smallest = math.ceil((2 * self.border + 1 - offset) / step) * step + offset
        for side in (height, width):
            if side < smallest or (side - offset) % step:
                below = (side - offset) // step * step + offset
                nearest = f"{below} and {below + step}" if below >= smallest else f"{smallest} and {smallest + step}"
                kind = "padded" if self.padded else "unpadded"
                raise ValueError(
                    f"an image of {height}x{width} does not fit this {kind} U-Net of depth {self.depth}: "
                    f"the legal sides nearest to {side} are {nearest}"
                )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width (in pixels) of the logits for an image of a legal size.

        Raises:
            ValueError: as check_image_size.
        """
        self.check_image_size(height, width)
        return height - 2 * self.border, width - 2 * self.border
