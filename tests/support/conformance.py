"""The table of docs/reference/counting.md: nine layers, their exact cost by hand, and what counters say of it.

``python tests/support/conformance.py`` prints it. ptflops, thop and torchinfo, which are no dependencies, have columns where
they are installed.
"""

import contextlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[2]
CHANNELS, SIDE, HEADS = 32, 16, 4
TOKENS = SIDE * SIDE
FIRST = TOKENS * 3 * CHANNELS  # the 1x1 convolution before the layer, so that the layer's input has a gradient


class Tokens(nn.Module):
    """A layer that takes the positions of a map as a sequence."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        return (
            self.layer(x, x, x, need_weights=False)[0]
            if isinstance(self.layer, nn.MultiheadAttention)
            else self.layer(x)
        )


def twice(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, layer)


def conv(kernel: int, groups: int = 1) -> nn.Module:
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, groups=groups, bias=False)


def transposed(groups: int = 1) -> nn.Module:
    return nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2, groups=groups, bias=False)


# Each with its multiply-adds: every weight at every position, of the input where the convolution is transposed; of attention
# the maps to queries, keys, values and from them, the scores of every pair and the means that they weigh.
LAYERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "convolution 3×3": (lambda: conv(3), TOKENS * 9 * CHANNELS**2),
    "the same, 8 groups": (lambda: conv(3, 8), TOKENS * 9 * CHANNELS**2 // 8),
    "depthwise 7×7": (lambda: conv(7, CHANNELS), TOKENS * 49 * CHANNELS),
    "transposed 2×2, stride 2": (transposed, TOKENS * 4 * CHANNELS**2),
    "the same, 4 groups": (lambda: transposed(4), TOKENS * 4 * CHANNELS**2 // 4),
    "the same, depthwise": (lambda: transposed(CHANNELS), TOKENS * 4 * CHANNELS),
    "linear, at every position": (lambda: Tokens(nn.Linear(CHANNELS, CHANNELS, bias=False)), TOKENS * CHANNELS**2),
    "attention, 4 heads": (
        lambda: Tokens(nn.MultiheadAttention(CHANNELS, HEADS, bias=False, batch_first=True)),
        TOKENS * 4 * CHANNELS**2 + 2 * TOKENS**2 * CHANNELS,
    ),
    "one convolution, applied twice": (lambda: twice(conv(3)), 2 * TOKENS * 9 * CHANNELS**2),
}


def ours(net: nn.Module, image: Tensor) -> float:
    from benchmarks.complexity.counting import measure

    return measure(net, tuple(image.shape[1:])).macs


def ours_training(net: nn.Module, image: Tensor) -> float:
    from benchmarks.complexity.counting import measure

    return measure(net, tuple(image.shape[1:])).train_macs_per_sample


def fvcore(net: nn.Module, image: Tensor) -> float:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(net, image)
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none").total()


def torchs(net: nn.Module, image: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        net(image)
    return counter.get_total_flops() / 2


def torchs_training(net: nn.Module, image: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        net(image).sum().backward()
    return counter.get_total_flops() / 2


def ptflops(net: nn.Module, image: Tensor) -> float:
    from ptflops import get_model_complexity_info

    shape = tuple(image.shape[1:])
    return get_model_complexity_info(net, shape, as_strings=False, print_per_layer_stat=False, backend="pytorch")[0]


def thop(net: nn.Module, image: Tensor) -> float:
    from thop import profile

    return profile(net, inputs=(image,), verbose=False)[0]


def torchinfo(net: nn.Module, image: Tensor) -> float:
    from torchinfo import summary

    return summary(net, input_data=image, verbose=0).total_mult_adds


# Of the forward, and of a training step.
FORWARD: Mapping[str, Callable[[nn.Module, Tensor], float]] = {
    "ours": ours, "fvcore": fvcore, "torch": torchs, "ptflops": ptflops, "thop": thop, "torchinfo": torchinfo,
}  # fmt: skip
TRAINING: Mapping[str, Callable[[nn.Module, Tensor], float]] = {"ours": ours_training, "torch": torchs_training}


def ratio(counter: Callable[[nn.Module, Tensor], float], name: str, training: bool) -> str:
    """Return how often a counter counts what a layer computes, 1 being exact."""
    make, macs = LAYERS[name]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, CHANNELS, 1, bias=False), make()).eval()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        counted = counter(net, torch.zeros(1, 3, SIDE, SIDE))
    counted, exact = (counted - 2 * FIRST, 3 * macs) if training else (counted - FIRST, macs)
    return "1" if counted == exact else f"**{counted / exact:.3g}**"


def rows(names: list[str]) -> list[str]:
    """Return the table in Markdown, with the columns of these counters."""
    heads = ["layer", "MACs", *(f"{name}" for name in names), *(f"training, {name}" for name in TRAINING)]
    lines = [heads, ["---", "---:", *["---:"] * (len(heads) - 2)]]
    for name, (_, macs) in LAYERS.items():
        forward = [ratio(FORWARD[counter], name, training=False) for counter in names]
        lines.append(
            [name, f"{macs:,}", *forward, *(ratio(counter, name, training=True) for counter in TRAINING.values())]
        )
    return ["| " + " | ".join(line) + " |" for line in lines]


def versions(names: list[str]) -> str:
    packages: dict[str, Any] = {name: version(name).split("+")[0] for name in names if name != "ours"}
    return ", ".join(f"{name} {number}" for name, number in packages.items())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    installed = [name for name in FORWARD if name == "ours" or importlib.util.find_spec(name)]
    print(*rows(installed), "", f"Versions: {versions(installed)}.", sep="\n")
