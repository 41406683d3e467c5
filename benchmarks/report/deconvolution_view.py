"""What an up-convolution computes and costs: checkerboards of kernel against stride, and its multiply-adds, as a page."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import terminal
from benchmarks.complexity.profile import network_and_cost
from benchmarks.config.compose import expand_all
from benchmarks.config.trial import ConfigurationError, Trial
from benchmarks.records.lazy import np
from benchmarks.report.figures import LEGEND, bars, colour_axis, figure
from benchmarks.report.style import family_look
from benchmarks.report.view import Figure, View, add_out, note, path_of, write
from benchmarks.units import plural

DEFAULT = ("model=unet", "data=isbi2012")  # the published U-Net
STRIDES, KERNELS = (2, 3), (2, 3, 4, 5, 6)
SHOWN = 12  # output pixels on a side of a map: a multiple of the strides
CELL, GAP = 12, 24  # pixels of the page: an output pixel, and the gap between two maps
TITLE = 52  # above a map
MARGIN = {"l": 14, "r": 78, "t": TITLE + 8, "b": 10}


@dataclass(frozen=True)
class UpConvolution:
    """A transposed convolution of a network.

    Attributes:
        kernel, stride: height and width.
        macs: of one image.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    macs: int

    def others(self) -> dict[str, int]:
        """Return the multiply-adds of one image by what could stand in its place, the layer itself first.

        All of them take the same map to one that is larger by the stride. A transposed convolution multiplies once for each
        input pixel and tap of its kernel, a convolution after resizing once for each output pixel and tap.
        """
        per_tap = self.macs // math.prod(self.kernel)  # input pixels x channels in x channels out
        twice = [2 * side for side in self.stride]
        return {
            f"transposed {_sides(self.kernel)}, stride {self.stride[0]}": self.macs,
            f"transposed {_sides(twice)}, stride {self.stride[0]}": per_tap * math.prod(twice),
            "nearest neighbour, then 3×3": per_tap * 9 * math.prod(self.stride),
        }


def up_convolutions(trial: Trial) -> tuple[int, list[UpConvolution]]:
    """Return the multiply-adds of one image in the whole network, and its up-convolutions in the network's order.

    Raises:
        ValueError: a network that cannot be, that does not take the data set's images, or whose up-convolution is no layer.
    """
    from benchmarks.complexity.operator_cost import LAYERS

    net, cost = network_and_cost(trial.config)
    placed = [(layer, net.get_submodule(layer.name)) for layer in cost.layers if layer.kind == "conv_transpose"]
    for layer, module in placed:
        if not isinstance(module, tuple(LAYERS)):
            raise ConfigurationError(
                f"{layer.name or type(module).__name__} of {trial.config['name']} calls a transposed convolution itself: "
                "kernel and stride are known of torch.nn.ConvTranspose2d alone"
            )
    return cost.macs, [
        UpConvolution(
            layer.name, module.in_channels, module.out_channels, module.kernel_size, module.stride, layer.macs
        )
        for layer, module in placed
    ]


def pattern(weights: Any, stride: int, size: int) -> Any:
    """Return what a transposed convolution makes of an image of ones, far from its border: shape [size, size].

    The taps that reach an output pixel are those whose place in the kernel differs from the pixel's by a multiple of the
    stride (Odena, Dumoulin and Olah 2016), so the pattern repeats with the stride.

    Args:
        weights: of one input and one output channel, shape [k, k].
    """
    sums = [[weights[y::stride, x::stride].sum() for x in range(stride)] for y in range(stride)]
    repeats = -(-size // stride)
    return np.tile(np.array(sums), (repeats, repeats))[:size, :size]


def deconvolution_view(trials: Sequence[Trial]) -> View:
    """Return the checkerboards, and the cost of each network's up-convolutions beside what could stand in their place.

    Raises:
        ValueError: a network without an up-convolution, or one that cannot be.
    """
    return View(
        "Deconvolution",
        "An up-convolution, or transposed convolution, multiplies each input pixel with its whole kernel and adds the results "
        "into the output, stride pixels apart. It learns how to enlarge a map.",
        [
            Figure(
                "Checkerboards: kernel against stride",
                f"How an image of ones comes out, as a part of the mean, each in {SHOWN}×{SHOWN} output pixels. Where the "
                "stride divides the kernel, every output pixel gets equally many taps: with equal weights the output is even. "
                "With random weights it is not: the pixels between two steps have weights of their own.",
                [_boards(random) for random in (False, True)],
                height=2 * (SHOWN * CELL) + GAP + TITLE + MARGIN["t"] + MARGIN["b"],
                width=len(KERNELS) * (SHOWN * CELL + GAP) - GAP + MARGIN["l"] + MARGIN["r"],
            ),
            *(_cost(trial) for trial in trials),
        ],
        "Weights",
        ("all equal", "random"),
    )


def _boards(random: bool) -> dict[str, Any]:
    """Return a heat map for each kernel (columns) and stride (rows)."""
    side = SHOWN * CELL
    width, height = len(KERNELS) * (side + GAP) - GAP, len(STRIDES) * (side + GAP + TITLE) - GAP - TITLE
    generator = np.random.default_rng(0)
    layout: dict[str, Any] = {
        "margin": MARGIN,
        "annotations": [],
        "coloraxis": colour_axis([0, 1, 2]),
    }
    traces = []
    for place, (stride, kernel) in enumerate(((stride, kernel) for stride in STRIDES for kernel in KERNELS), start=1):
        weights = generator.random((kernel, kernel)) if random else np.ones((kernel, kernel))
        values = pattern(weights, stride, SHOWN)
        taps = pattern(np.ones((kernel, kernel)), stride, SHOWN).astype(int)
        least, most = taps.min(), taps.max()
        span = f"{plural(most, 'tap')} each" if least == most else f"{least}–{most} taps"
        left = (place - 1) % len(KERNELS) * (side + GAP)
        top = (place - 1) // len(KERNELS) * (side + GAP + TITLE)
        hidden = {"showgrid": False, "showline": False, "showticklabels": False, "ticks": "", "zeroline": False}
        layout[f"xaxis{place}"] = {**hidden, "domain": [left / width, (left + side) / width], "anchor": f"y{place}"}
        layout[f"yaxis{place}"] = {
            **hidden,
            "domain": [max(0, 1 - (top + side) / height), 1 - top / height],
            "anchor": f"x{place}",
            "autorange": "reversed",
        }
        traces.append(
            {
                "type": "heatmap",
                "xaxis": f"x{place}",
                "yaxis": f"y{place}",
                "coloraxis": "coloraxis",
                "z": (values / values.mean()).tolist(),
                "hoverinfo": "text",
                "text": [[plural(count, "tap") for count in row] for row in taps.tolist()],
            }
        )
        layout["annotations"].append(
            note(
                f"<b>{kernel}×{kernel}, stride {stride}</b><br>{span}",
                left / width,
                1 - top / height,
                xref="paper",
                xanchor="left",
                align="left",
            )
        )
    return {"traces": traces, "layout": layout}


def _cost(trial: Trial) -> Figure:
    """Return bars of multiply-adds for each up-convolution of a network."""
    total, layers = up_convolutions(trial)
    if not layers:
        raise ConfigurationError(f"{trial.config['name']} has no up-convolution, model=unet has")
    look = family_look(trial.config["family"])
    own = sum(layer.macs for layer in layers)
    resized = sum(list(layer.others().values())[-1] for layer in layers)
    traces = []
    for place, alpha in enumerate(("", "80", "33")):
        words, values = zip(*(list(layer.others().items())[place] for layer in layers), strict=True)
        names = [f"{layer.name}<br>{layer.in_channels} → {layer.out_channels}" for layer in layers]
        marker = {"color": look.colour + alpha, "line": {"color": look.colour, "width": 1}}
        hover = [f"<b>{word}</b><br>{value:,} MACs" for word, value in zip(words, values, strict=True)]
        word = words[0] if len(set(words)) == 1 else ("as built", "twice the stride", words[0])[place]
        traces.append(bars(names, values, marker, hover, name=word))
    costs = figure(
        traces,
        {"showgrid": False},
        {"title": "MACs of one image", "tickformat": "~s", "rangemode": "tozero"},
        bargap=0.25,
        bargroupgap=0.06,
        legend=LEGEND,
    )
    return Figure(
        f"{trial.network} on {trial.config['data']['name']}",
        f"{len(layers)} up-convolutions, {own:,} of {total:,} MACs ({100 * own / total:.1f} %). Resized by nearest neighbour "
        f"and then convolved by 3×3, the same steps would take {resized / own:.3g} times as many.",
        [costs, costs],
        height=420,
        width=640,
    )


def _sides(kernel: Sequence[int]) -> str:
    return "×".join(map(str, kernel))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view deconvolution``."""
    parser.description = (
        "What an up-convolution computes and costs: checkerboards of kernel against stride, and the multiply-adds of each "
        "up-convolution of a network beside what could stand in its place."
    )
    terminal.add_overrides(parser, f" (default: {' '.join(DEFAULT)})")
    add_out(parser, "deconvolution")


def run(arguments: argparse.Namespace) -> None:
    """Write the view of deconvolution."""
    trials = expand_all(arguments.overrides or DEFAULT)
    write(deconvolution_view(trials), arguments, path_of(trials[0].config["output_root"], "deconvolution"))
