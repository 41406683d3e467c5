"""Cost of a network layer by layer, as a page."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from benchmarks import terminal
from benchmarks.complexity.cost import Complexity
from benchmarks.complexity.profile import PlacedLayer, layers_in_order
from benchmarks.config.about import NEUTRAL, read_look
from benchmarks.config.compose import expand_all
from benchmarks.config.trial import Trial
from benchmarks.report.figures import LEGEND
from benchmarks.report.view import Figure, View, add_out, note, path_of, write
from benchmarks.units import si

QUANTITIES = {"macs": "MACs", "params": "parameters", "activations": "activations"}
ALPHAS = {"grouped": "a6", "transposed": "a6", "1×1": "59", "linear": "26"}  # of a bar's colour; all others are opaque
NARROW = 0.04  # of all layers: a part of a network that has no room for its name


def layers_view(trials: Sequence[Trial]) -> View:
    """Return bars of MACs, parameters and activations by layer, a chart per network.

    Raises:
        ValueError: a network that cannot be, that does not take the data set's images, or that multiplies no tensors.
    """
    counted = [(trial, *layers_in_order(trial)) for trial in trials]
    for trial, cost, layers in counted:
        if not layers:
            size = "×".join(map(str, cost.input_size))
            raise ValueError(f"{trial.config['name']} has no layer to draw: nothing is counted for an image of {size}")
    tops = {name: max(getattr(one.cost, name) for *_, layers in counted for one in layers) for name in QUANTITIES}
    figures = [
        Figure(
            f"{trial.network} on {trial.config['data']['name']}",
            _summary(cost, layers),
            [_bars(trial, cost, layers, top) for top in ({}, tops)[: min(len(counted), 2)]],
            height=456,
            width=640,
        )
        for trial, cost, layers in counted
    ]
    return View(
        "Where the compute goes",
        "A bar for each convolution and linear layer, in the order in which an image meets them. MACs are the multiply-adds of "
        "one image, activations the output elements of these layers. What normalisation holds is not shown.",
        figures,
        "Scale",
        ("each network’s own", "the same for all") if len(figures) > 1 else (),
    )


def _summary(cost: Complexity, layers: Sequence[PlacedLayer]) -> str:
    """Return the totals, and in what kinds of layers the multiply-adds are."""
    by_kind: Counter[str] = Counter()
    for layer in layers:
        by_kind[layer.kind] += layer.cost.macs
    shares = ", ".join(f"{_share(macs, cost.macs)} {kind}" for kind, macs in by_kind.most_common())
    size = "×".join(map(str, cost.input_size))
    return f"{len(layers)} layers, an image of {size}: {cost.macs:,} MACs ({shares}), {cost.params:,} parameters."


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if part / whole >= 0.001 else "< 0.1 %"


def _bars(trial: Trial, cost: Complexity, layers: Sequence[PlacedLayer], tops: Mapping[str, int]) -> dict[str, Any]:
    """Return three charts above one another, over the layers; ``tops`` are the ends of their scales where not their own."""
    colour = (read_look(trial.config["about"]) or NEUTRAL).colour
    traces, annotations, shapes, axes = [], [], [], {}
    for row, (name, word) in enumerate(QUANTITIES.items()):
        for kind in dict.fromkeys(layer.kind for layer in layers):
            placed = [(place, layer.cost) for place, layer in enumerate(layers, start=1) if layer.kind == kind]
            alpha = next((alpha for start, alpha in ALPHAS.items() if kind.startswith(start)), "")
            values = [getattr(layer, name) for _, layer in placed]
            traces.append(
                {
                    "type": "bar",
                    "name": kind,
                    "legendgroup": kind,
                    "showlegend": row == 0,
                    "yaxis": f"y{row + 1}",
                    "x": [place for place, _ in placed],
                    "y": values,
                    "width": 0.88,
                    "marker": {"color": colour + alpha, "line": {"color": colour, "width": 1}},
                    "hoverinfo": "text",
                    "hovertext": [
                        f"<b>{layer.name}</b>, {kind}<br>{value:,} {word}, {_share(value, getattr(cost, name))} of all"
                        for value, (_, layer) in zip(values, placed, strict=True)
                    ],
                }
            )
        low = 0.34 * (len(QUANTITIES) - 1 - row)
        axes[f"yaxis{row + 1}"] = {"domain": [low, low + 0.25], "tickformat": "~s", "nticks": 4, "rangemode": "tozero"}
        if tops:
            axes[f"yaxis{row + 1}"]["range"] = [0, 1.05 * tops[name]]
        annotations.append(
            note(f"<b>{word}</b>  {si(getattr(cost, name))}", 0, low + 0.25, xref="paper", xanchor="left")
        )
    end = 0
    for part, group in groupby(layer.part for layer in layers):
        count = len(list(group))
        if end:
            shapes.append(
                {
                    "type": "line",
                    "yref": "paper",
                    **{"x0": end + 0.5, "x1": end + 0.5, "y0": 0, "y1": 1.05},
                    "line": {"color": "--rule", "width": 1},
                    "layer": "below",
                }
            )
        if count / len(layers) >= NARROW:
            annotations.append(note(part, end + count / 2 + 0.5, 1, font={"color": "--soft"}))
        end += count
    layout = {
        "margin": {"l": 58, "r": 14, "t": 62, "b": 44},
        "barmode": "overlay",
        "legend": LEGEND | {"y": 1.07},
        "annotations": annotations,
        "shapes": shapes,
        "xaxis": {
            "title": {"text": "layer"},
            "range": [0.4, len(layers) + 0.6],
            "anchor": f"y{len(QUANTITIES)}",
            "showgrid": False,
        },
        **axes,
    }
    return {"traces": traces, "layout": layout}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view layers``."""
    parser.description = (
        "MACs, parameters and activations of every convolution and linear layer, in the order in which an image meets them: a "
        "bar chart per network."
    )
    terminal.add_overrides(parser, "; several values make several charts")
    add_out(parser, "layers")


def run(arguments: argparse.Namespace) -> None:
    """Write the view of layers."""
    trials = expand_all(arguments.overrides)
    write(layers_view(trials), arguments, path_of(trials[0].config["output_root"], "layers"))
