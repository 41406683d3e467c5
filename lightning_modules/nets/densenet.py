"""Densely connected convolutional networks (Huang et al., CVPR 2017).

growth_rate is k, compression is θ. Bottleneck layers (DenseNet-B) produce 4k maps before the 3x3; θ < 1 is DenseNet-C,
both together DenseNet-BC.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from lightning_modules.nets.checks import check_counts, check_reduction

# Huang et al. 2017, Table 1; DenseNet-161 (k = 48) from the authors' repository.
IMAGENET_LAYERS = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}


def bn_relu_conv(in_channels: int, out_channels: int, kernel: int, dropout: float) -> list[nn.Module]:
    """Return the composite function (§3), and the dropout after every convolution but the first (§4.2)."""
    return [
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.Dropout(dropout),
    ]


class Composite(nn.Sequential):
    """Layers of bn_relu_conv, and what follows them, on feature maps that are concatenated first.

    memory_efficient: a convolution keeps what it normalises instead of its input, and the backward pass concatenates and
    normalises again (Pleiss et al. 2017, arXiv:1707.06990). Same outputs, gradients and running statistics.
    """

    def __init__(self, *layers: nn.Module, memory_efficient: bool = False) -> None:
        super().__init__(*layers)
        self.memory_efficient = memory_efficient

    def forward(self, *features: Tensor) -> Tensor:
        if not self.memory_efficient or not self.training or not torch.is_grad_enabled():
            return super().forward(concatenate(features))
        layers = iter(self)
        for layer in layers:
            if isinstance(layer, _BatchNorm):
                features = (normalised_again(layer, next(layers), next(layers), features),)
            else:
                features = (layer(*features),)
        return features[0]


def concatenate(features: tuple[Tensor, ...]) -> Tensor:
    """Concatenate along the channels; torch.cat would copy a single one."""
    return torch.cat(features, dim=1) if len(features) > 1 else features[0]


def normalised_again(norm: nn.Module, relu: nn.Module, conv: nn.Module, features: tuple[Tensor, ...]) -> Tensor:
    """Return conv(relu(norm(concatenated features))), keeping the features alone.

    The checkpoint stops as soon as it has what the backward pass needs: the input of conv, which is not computed again.
    """

    def layers(*features: Tensor) -> Tensor:
        return conv(relu(norm(concatenate(features))))

    if torch.compiler.is_compiling():  # which updates the running statistics once by itself, and knows no such contexts
        return checkpoint(layers, *features, use_reentrant=False, preserve_rng_state=False)
    contexts = nullcontext(), StatisticsLeft(norm)
    return checkpoint(layers, *features, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: contexts)


@dataclass
class StatisticsLeft:
    """A context in which norm normalises as before and updates copies: its running statistics have seen that batch already."""

    norm: nn.Module

    def __enter__(self) -> None:
        self.buffers = dict(self.norm.named_buffers(recurse=False))
        for name, buffer in self.buffers.items():
            setattr(self.norm, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for name, buffer in self.buffers.items():
            setattr(self.norm, name, buffer)


class DenseLayer(nn.Module):
    """x_l = H_l([x_0, ..., x_{l-1}]) of equation 2, with H_l the composite function."""

    def __init__(
        self, in_channels: int, growth_rate: int, bottleneck: bool, dropout: float, memory_efficient: bool = False
    ) -> None:
        super().__init__()
        if bottleneck:
            layers = [
                *bn_relu_conv(in_channels, 4 * growth_rate, 1, dropout),
                *bn_relu_conv(4 * growth_rate, growth_rate, 3, dropout),
            ]
        else:
            layers = bn_relu_conv(in_channels, growth_rate, 3, dropout)
        self.composite = Composite(*layers, memory_efficient=memory_efficient)

    def forward(self, *features: Tensor) -> Tensor:
        return self.composite(*features)


class DenseBlock(nn.Sequential):
    """x_0 to [x_0, ..., x_L], every layer reading all before it."""

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self:
            features.append(layer(*features))
        return torch.cat(features, dim=1)


class DenseNet(nn.Module):
    """DenseNet, -B, -C and -BC: images [N, in_channels, H, W] to logits [N, num_classes].

    Args:
        depth: layers with weights, L. stem "cifar": three dense blocks of (L-4)/3 layers, or (L-4)/6 with bottlenecks.
            stem "imagenet": 121, 169, 201, 264, or 161, four dense blocks with bottlenecks (Table 1).
        growth_rate: k, the maps that every layer adds.
        bottleneck: DenseNet-B, a 1x1 convolution to 4k maps before every 3x3.
        compression: θ in (0, 1]: a transition keeps floor(θ m) of m maps.
        dropout: rate after every convolution but the first, in [0, 1).
        stem: "imagenet" (7x7, stride 2, and 3x3 max pooling, stride 2) or "cifar" (3x3).
        initial_channels: maps of the first convolution. By the paper (§3, §4.2, Table 1): 2k for DenseNet-BC and on
            ImageNet, else 16.
        memory_efficient: training keeps memory linear in the layers of a block, where it is quadratic, for the time of
            concatenating and normalising twice (Pleiss et al. 2017). Changes no result and no key of the state_dict.

    Raises:
        ValueError: for a depth or rate that the family does not have.
    """

    recomputation_stages = ("stages.*",)  # what trainer.gradient_checkpointing computes again as one
    part_names = {"stages": ("dense block", "transition")}  # of a module's children, in turn

    def __init__(
        self,
        depth: int,
        growth_rate: int,
        *,
        bottleneck: bool = False,
        compression: float = 1.0,
        dropout: float = 0.0,
        stem: str = "imagenet",
        initial_channels: int | None = None,
        in_channels: int = 3,
        num_classes: int = 1000,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem is 'imagenet' or 'cifar', got {stem!r}")
        if not isinstance(bottleneck, bool):
            raise ValueError(f"bottleneck is true (DenseNet-B: a 1x1 to 4k maps) or false, got {bottleneck!r}")
        if not isinstance(memory_efficient, bool):
            raise ValueError(f"memory_efficient is true (normalises twice) or false, got {memory_efficient!r}")
        if type(compression) not in (int, float) or not 0 < compression <= 1:
            raise ValueError(f"compression (θ) must be in (0, 1], 1 for none, got {compression!r}")
        if type(dropout) not in (int, float) or not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), 0 for none, got {dropout!r}")
        check_counts(depth=depth, growth_rate=growth_rate)
        if initial_channels is None:
            initial_channels = 2 * growth_rate if stem == "imagenet" or (bottleneck and compression < 1) else 16
        check_counts(initial_channels=initial_channels, in_channels=in_channels, num_classes=num_classes)

        layers = _layers_per_block(depth, bottleneck, stem)
        channels = initial_channels
        if stem == "cifar":
            self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, stride=2, padding=1),
            )
        self.reduction = (1 if stem == "cifar" else 4) * 2 ** (len(layers) - 1)

        stages: list[nn.Module] = []
        for index, n_layers in enumerate(layers):
            if index > 0:
                compressed = math.floor(compression * channels)
                if compressed < 1:
                    raise ValueError(
                        f"compression {compression} leaves none of {channels} maps: at least {1 / channels:.3g}"
                    )
                transition = *bn_relu_conv(channels, compressed, 1, dropout), nn.AvgPool2d(2)
                stages.append(Composite(*transition, memory_efficient=memory_efficient))
                channels = compressed
            dense_block = [
                DenseLayer(channels + i * growth_rate, growth_rate, bottleneck, dropout, memory_efficient)
                for i in range(n_layers)
            ]
            stages.append(DenseBlock(*dense_block))
            channels += n_layers * growth_rate
        self.stages = nn.Sequential(*stages)  # dense block, transition, dense block, ...
        self.pool = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.classifier = nn.Linear(channels, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. 2015 (§4.2), by fan-out as in the authors' repository: std = sqrt(2 / (k · k · C_out)).
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.stages(self.stem(x))))

    def check_image_size(self, height: int, width: int) -> None:
        """Raise ValueError for an image (in pixels) of which the transitions would leave nothing."""
        check_reduction(height, width, self.reduction, "this DenseNet reduces it")


def _layers_per_block(depth: int, bottleneck: bool, stem: str) -> tuple[int, ...]:
    if stem == "imagenet":
        if depth not in IMAGENET_LAYERS:
            raise ValueError(f"an ImageNet DenseNet has depth {', '.join(map(str, IMAGENET_LAYERS))}, got {depth}")
        if not bottleneck:
            raise ValueError(f"an ImageNet DenseNet-{depth} counts two convolutions per layer: bottleneck must be true")
        return IMAGENET_LAYERS[depth]
    convolutions = 6 if bottleneck else 3
    n, remainder = divmod(depth - 4, convolutions)
    if n < 1 or remainder:
        name, examples = ("DenseNet-B(C)", "40, 100, 190, 250…") if bottleneck else ("DenseNet", "40, 100…")
        raise ValueError(f"a CIFAR {name} has depth {convolutions}n+4 ({examples}), got {depth}")
    return (n, n, n)
