"""Deep residual learning for image recognition (He et al., CVPR 2016) and
aggregated residual transformations for deep neural networks (Xie et al., CVPR 2017).

cardinality is C, base_width is d: the bottleneck of the first stage has C groups of d channels, and both double in
width, not in number, from stage to stage. ResNeXt is the bottleneck ResNet with C > 1; C = 1, d = 64 is ResNet.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.nets.checks import check_counts, check_reduction

# He et al. 2016, Table 1; ResNet-200 from He et al., "Identity mappings in deep residual networks", ECCV 2016.
IMAGENET_BLOCKS = {
    "basic": {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
    "bottleneck": {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)},
}


def conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return the convolution without bias, which the batch normalisation after it would cancel."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


class ZeroPadShortcut(nn.Module):
    """Option A (He et al. 2016, §3.3): identity, subsampled, with zeros for the channels that are new."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class NoShortcut(nn.Module):
    """Adds nothing: the block is its residual path, as in the plain networks of He et al. 2016."""

    def forward(self, x: Tensor) -> float:
        return 0.0


def make_shortcut(option: str, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the shortcut of option A, B or C of He et al. 2016, §4.1, or "none".

    A and B are the identity where the shape stays, and a zero-padded identity or a projection where it changes; C is a
    projection everywhere.
    """
    if option == "none":
        return NoShortcut()
    if option != "C" and in_channels == out_channels and stride == 1:
        return nn.Identity()
    if option == "A":
        return ZeroPadShortcut(out_channels - in_channels, stride)
    return nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, Figure 5, left)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_bn(in_channels, out_channels, 3, stride), nn.ReLU(inplace=True),
            *conv_bn(out_channels, out_channels, 3),
        )  # fmt: skip
        self.shortcut = make_shortcut(shortcut, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 in C groups, 1x1, and a shortcut (He et al. 2016, Figure 5, right; Xie et al. 2017, Figure 3c)."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        cardinality: int,
        stride: int,
        stride_in: str,
        shortcut: str,
    ) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.residual = nn.Sequential(
            *conv_bn(in_channels, width, 1, stride_1x1), nn.ReLU(inplace=True),
            *conv_bn(width, width, 3, stride_3x3, groups=cardinality), nn.ReLU(inplace=True),
            *conv_bn(width, out_channels, 1),
        )  # fmt: skip
        self.shortcut = make_shortcut(shortcut, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet and ResNeXt: images [N, in_channels, H, W] to logits [N, num_classes].

    Args:
        depth: layers with weights. stem "cifar": 6n+2 (basic) or 9n+2 (bottleneck), three stages (He et al. 2016, §4.2;
            Xie et al. 2017, §5.3). stem "imagenet": 18, 34 (basic) or 50, 101, 152, 200 (bottleneck), four stages.
        block: "basic" or "bottleneck".
        cardinality: C, the groups of the 3x3 of a bottleneck.
        base_width: d, the channels of one group in the first stage; base_channels if not given.
        base_channels: channels of the stem and of the first stage, which a bottleneck leaves with four times as many.
        stem: "imagenet" (7x7, stride 2, and 3x3 max pooling, stride 2) or "cifar" (3x3).
        shortcut: where the shape changes, "A" (zero-padded identity, free of parameters) or "B" (projection); "C": a
            projection in every block; "none": the plain network (He et al. 2016, §4.1; Xie et al. 2017, §5.1).
        stride_in: convolution of a bottleneck with the stride: "1x1" (He et al. 2016) or "3x3" (Xie et al. 2017).

    Raises:
        ValueError: for a depth, block or width that the family does not have.
    """

    recomputation_stages = ("stages.*",)  # what trainer.gradient_checkpointing computes again as one
    part_names = {"stages": ("stage",)}  # of a module's children, as the paper calls them

    def __init__(
        self,
        depth: int,
        *,
        block: str = "bottleneck",
        cardinality: int = 1,
        base_width: int | None = None,
        base_channels: int = 64,
        in_channels: int = 3,
        num_classes: int = 1000,
        stem: str = "imagenet",
        shortcut: str = "B",
        stride_in: str = "3x3",
    ) -> None:
        super().__init__()
        for name, choice, choices in (
            ("block", block, ("basic", "bottleneck")),
            ("stem", stem, ("imagenet", "cifar")),
            ("shortcut", shortcut, ("A", "B", "C", "none")),
            ("stride_in", stride_in, ("1x1", "3x3")),
        ):
            if choice not in choices:
                raise ValueError(f"{name} is {' or '.join(map(repr, choices))}, got {choice!r}")
        if block == "basic" and (cardinality != 1 or base_width is not None):
            raise ValueError(
                f"cardinality and base_width belong to the bottleneck: a basic block has cardinality 1 and no "
                f"base_width, got {cardinality!r} and {base_width!r}"
            )
        if block == "basic" and stride_in == "1x1":
            raise ValueError("a basic block has no 1x1 convolution: stride_in must be '3x3'")
        if base_width is None:
            base_width = base_channels
        check_counts(depth=depth, cardinality=cardinality, base_channels=base_channels)
        check_counts(in_channels=in_channels, num_classes=num_classes)
        if type(base_width) is not int or base_width < 1:
            raise ValueError(
                f"base_width must be an integer of at least 1: the channels of one of the {cardinality} groups "
                f"(inner width / cardinality), got {base_width!r}"
            )

        blocks = _blocks_per_stage(depth, block, stem)
        if stem == "cifar":
            self.stem = nn.Sequential(*conv_bn(in_channels, base_channels, 3), nn.ReLU(inplace=True))
        else:
            self.stem = nn.Sequential(
                *conv_bn(in_channels, base_channels, 7, stride=2), nn.ReLU(inplace=True),
                nn.MaxPool2d(3, stride=2, padding=1),
            )  # fmt: skip
        self.reduction = (1 if stem == "cifar" else 4) * 2 ** (len(blocks) - 1)

        stages = []
        channels = base_channels
        for stage, n_blocks in enumerate(blocks):
            layers: list[nn.Module] = []
            for index in range(n_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                if block == "basic":
                    out_channels = base_channels * 2**stage
                    layers.append(BasicBlock(channels, out_channels, stride, shortcut))
                else:
                    width = base_width * cardinality * 2**stage  # C · d, doubled at every stage
                    out_channels = 4 * base_channels * 2**stage
                    layers.append(Bottleneck(channels, width, out_channels, cardinality, stride, stride_in, shortcut))
                channels = out_channels
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. 2015 by fan-out, whole even where grouped (ResNeXt.torch: std = sqrt(2 / (k · k · C_out))).
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.stages(self.stem(x))))

    def check_image_size(self, height: int, width: int) -> None:
        """Raise ValueError for an image (in pixels) so small that the last stage would see less than one pixel."""
        check_reduction(height, width, self.reduction, "this ResNet reduces it")


def _blocks_per_stage(depth: int, block: str, stem: str) -> tuple[int, ...]:
    if stem == "imagenet":
        depths = IMAGENET_BLOCKS[block]
        if depth not in depths:
            other = "basic" if block == "bottleneck" else "bottleneck"
            hint = f"; {depth} is a depth of block={other!r}" if depth in IMAGENET_BLOCKS[other] else ""
            raise ValueError(f"an ImageNet {block} ResNet has depth {', '.join(map(str, depths))}, got {depth}{hint}")
        return depths[depth]
    layers = 6 if block == "basic" else 9
    n, remainder = divmod(depth - 2, layers)
    if n < 1 or remainder:
        examples = "20, 32, 44, 56, 110…" if block == "basic" else "29, 47, 164…"
        raise ValueError(f"a CIFAR {block} ResNet has depth {layers}n+2 ({examples}), got {depth}")
    return (n, n, n)
