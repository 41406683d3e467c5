"""What is held fixed and what varies: ``python -m benchmarks views layers model=resnet,resnext data=cifar10``.

Layer by layer where a network's compute goes, error over cardinality at constant cost, families at matched cost, and which
layers of a DenseNet use which features. Each view is one HTML file that opens from disk with no network, styled as the page.
"""

import argparse
import importlib.resources
import math
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks import published
from benchmarks.complexity import LAYERS, Complexity, LayerCost, build
from benchmarks.configuration import Cell, ConfigurationError, config_hash, expand
from benchmarks.page import plotly_js, script_json
from benchmarks.record import CONFIG, write_atomic
from benchmarks.results import Run, family_style, load_runs, metric_text, same_but_seed, si

QUANTITIES = {"macs": "MACs", "params": "parameters", "activations": "activations"}
ALPHAS = {"grouped": "a6", "transposed": "a6", "1×1": "59", "linear": "26"}  # of a bar's colour; all others are opaque
NARROW = 0.04  # of all layers: a part of a network that has no room for its name
EXPERIMENT, MATCHED = "group_convolution", "compute_accuracy"
REUSE = "feature_reuse.html"
CELL, GAP, PAGE = 44, 62, 1176  # pixels of the heat maps: the largest cell, the gap between two, the width of the page


@dataclass(frozen=True)
class Figure:
    """A chart of a view.

    Attributes:
        caption: how to read it.
        choices: plotly's traces and layout for each choice of the view's switch; a colour may be a token of the page's style.
        height, width: in pixels, the width at least.
    """

    title: str
    caption: str
    choices: list[dict[str, Any]]
    height: int
    width: int


@dataclass(frozen=True)
class View:
    """A page of charts, with one switch for all of them where there is more than one way to draw them."""

    title: str
    lead: str
    figures: list[Figure]
    choice: str = ""
    options: tuple[str, ...] = ()


def main(argv: Sequence[str]) -> int:
    """Writes a view and prints where it is. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks views",
        description="Views of what is held fixed and what varies. Each is one HTML file, which needs no network.",
    )
    commands = parser.add_subparsers(metavar="VIEW", dest="view", required=True)
    command = commands.add_parser(
        "layers",
        help="MACs, parameters and activations of every layer: a bar chart per network",
        description="MACs, parameters and activations of every convolution and linear layer, in the order in which an image "
        "meets them: a bar chart per network.",
    )
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py; several values make several charts"
    )
    command.add_argument("--out", metavar="FILE", type=Path, help="default: OUTPUT_ROOT/views/layers.html")
    command.set_defaults(make=lambda given: _of_cells(layers_view, given.overrides))
    command = commands.add_parser(
        "cardinality",
        help=f"error over cardinality at constant cost, from the runs of experiment={EXPERIMENT}",
        description=f"Test error over cardinality from the finished runs of experiment={EXPERIMENT}, in a band from the lowest "
        "to the highest seed, and below it what the networks cost. Without runs the cost alone.",
    )
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py: data=digits …")
    command.add_argument("--out", metavar="FILE", type=Path, help="default: OUTPUT_ROOT/views/cardinality.html")
    command.set_defaults(make=lambda given: _of_cells(cardinality_view, _with_experiment(given.overrides)))
    command = commands.add_parser(
        "accuracy",
        help=f"error over the cost of an image, a curve for each family, from the runs of experiment={MATCHED}",
        description=f"Test error over multiply-adds of one image from the finished runs of experiment={MATCHED}: a curve "
        "for each family, in a band from the lowest to the highest seed.",
    )
    command.add_argument("output_root", metavar="OUTPUT_ROOT", type=Path, nargs="?", default=Path("outputs"))
    command.add_argument("--experiment", default=MATCHED, help=f"default: {MATCHED}")
    command.add_argument("--out", metavar="FILE", type=Path, help="default: OUTPUT_ROOT/views/accuracy.html")
    command.set_defaults(
        make=lambda given: (
            accuracy_view(given.output_root, given.experiment),
            given.output_root / "views" / "accuracy.html",
        )
    )
    command = commands.add_parser(
        "reuse",
        help="how much each layer of a trained DenseNet uses of each layer before it: a heat map per dense block",
        description="How much weight each layer of a trained DenseNet puts on the feature maps of each layer before it: a heat "
        "map per dense block, as in Figure 5 of Huang et al. 2017.",
    )
    command.add_argument(
        "run", metavar="RUN", type=Path, help="folder of the run, as in outputs/digits/densenet…/seed0"
    )
    command.add_argument("--checkpoint", choices=("last", "best"), default="last", help="which weights (default: last)")
    command.add_argument("--out", metavar="FILE", type=Path, help=f"default: RUN/{REUSE}")
    command.set_defaults(make=lambda given: (reuse_view(given.run, given.checkpoint), given.run / REUSE))
    arguments = parser.parse_args(argv)
    try:
        view, path = arguments.make(arguments)
        path = arguments.out or path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, render(view))
    except (ValueError, OSError) as error:
        print(f"python -m benchmarks views {arguments.view}: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


def render(view: View) -> str:
    """The page, self-contained."""
    templates = importlib.resources.files("benchmarks")
    page = templates.joinpath("page.html").read_text(encoding="utf-8")
    [style] = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    fragments = {
        "title": escape(view.title),
        "lead": escape(view.lead),
        "style": style,
        "choice": escape(view.choice),
        "choice_hidden": "" if view.options else "hidden",
        "options": "".join(
            f'<label><input type="radio" name="choice" value="{index}"{" checked" * (index == 0)}> {escape(option)}</label>'
            for index, option in enumerate(view.options)
        ),
        "figures": "".join(
            f'<figure><figcaption><div><h2 id="title-{index}">{escape(figure.title)}</h2>'
            f'<span id="caption-{index}">{escape(figure.caption)}</span></div></figcaption>'
            f'<div class="scroll"><div class="chart" id="chart-{index}" role="img" '
            f'aria-labelledby="title-{index} caption-{index}" '
            f'style="--height: {figure.height}px; --width: {figure.width}px"></div></div></figure>'
            for index, figure in enumerate(view.figures)
        ),
        "data": script_json([figure.choices for figure in view.figures]),
        "plotly": plotly_js(),
    }
    template = templates.joinpath("views.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fragments[match[1]], template)


# Layers


def layers_view(cells: Sequence[Cell]) -> View:
    """Bars of MACs, parameters and activations by layer, a chart per network.

    Raises:
        ValueError: a network that cannot be, or that does not take the data set's images.
    """
    counted = [(cell, *_measured(cell)) for cell in cells]
    tops = {name: max(getattr(cost, name) for *_, layers in counted for _, cost in layers) for name in QUANTITIES}
    figures = [
        Figure(
            f"{cell.config['name']} on {cell.config['data']['name']}",
            _summary(cost, layers),
            [_bars(cell, cost, layers, top) for top in ({}, tops)[: min(len(counted), 2)]],
            height=456,
            width=640,
        )
        for cell, cost, layers in counted
    ]
    return View(
        "Where the compute goes",
        "A bar for each convolution and linear layer, in the order in which an image meets them. MACs are the multiply-adds of "
        "one image, activations the output elements of these layers. What normalisation holds is not shown.",
        figures,
        "Scale",
        ("each network’s own", "the same for all") if len(figures) > 1 else (),
    )


def _measured(cell: Cell) -> tuple[Complexity, list[tuple[str, LayerCost]]]:
    """The cost, and that of each layer with what it is, in the order in which an image meets them."""
    data = cell.config["data"]
    net, cost = build(cell.config["model"], (data["in_channels"], *data["image_size"]))
    names = {module: name for name, module in net.named_modules()}
    costs = {layer.name: layer for layer in cost.layers}
    met: list[tuple[str, LayerCost]] = []
    for module, name in names.items():
        if name in costs:
            module.register_forward_pre_hook(lambda module, _: met.append((_kind(module), costs[names[module]])))
    with torch.no_grad():
        net.eval()(torch.zeros(1, *cost.input_size))
    return cost, met


def _kind(layer: Any) -> str:
    """`3×3`, `1×1`, `grouped 3×3`, `transposed 2×2` or `linear`."""
    kind = LAYERS[type(layer)]
    if kind == "linear":
        return kind
    kernel = "×".join(map(str, layer.kernel_size))
    if kind == "conv_transpose":
        return f"transposed {kernel}"
    return f"grouped {kernel}" if layer.groups > 1 else kernel


def _part(name: str, names: Sequence[str]) -> str:
    """What a paper calls the part of the network that a layer is in."""
    top, _, rest = name.partition(".")
    number = int(rest.partition(".")[0]) + 1 if rest[:1].isdigit() else 0
    if top == "stages" and any(".composite." in other for other in names):  # dense block, transition, dense block, ...
        return f"dense block {number // 2 + 1}" if number % 2 else "transition"
    words = {"stages": "stage", "contracting": "down", "up_convs": "up", "expanding": "up"}
    return f"{words[top]} {number}" if top in words else top


def _summary(cost: Complexity, layers: Sequence[tuple[str, LayerCost]]) -> str:
    """The totals, and in what kinds of layers the multiply-adds are."""
    by_kind: dict[str, int] = {}
    for kind, layer in layers:
        by_kind[kind] = by_kind.get(kind, 0) + layer.macs
    largest = sorted(by_kind.items(), key=lambda entry: -entry[1])
    shares = ", ".join(f"{_share(macs, cost.macs)} {kind}" for kind, macs in largest)
    size = "×".join(map(str, cost.input_size))
    return f"{len(layers)} layers, an image of {size}: {cost.macs:,} MACs ({shares}), {cost.params:,} parameters."


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if part / whole >= 0.001 else "< 0.1 %"


def _bars(
    cell: Cell, cost: Complexity, layers: Sequence[tuple[str, LayerCost]], tops: Mapping[str, int]
) -> dict[str, Any]:
    """Three charts above one another, over the layers; ``tops`` are the ends of their scales where not their own."""
    colour = family_style(cell.config["family"]).colour
    traces, annotations, shapes, axes = [], [], [], {}
    for row, (name, word) in enumerate(QUANTITIES.items()):
        for kind in dict.fromkeys(kind for kind, _ in layers):
            those = [(place, layer) for place, (other, layer) in enumerate(layers, start=1) if other == kind]
            alpha = next((alpha for start, alpha in ALPHAS.items() if kind.startswith(start)), "")
            values = [getattr(layer, name) for _, layer in those]
            traces.append(
                {
                    "type": "bar",
                    "name": kind,
                    "legendgroup": kind,
                    "showlegend": row == 0,
                    "yaxis": f"y{row + 1}",
                    "x": [place for place, _ in those],
                    "y": values,
                    "width": 0.88,
                    "marker": {"color": colour + alpha, "line": {"color": colour, "width": 1}},
                    "hoverinfo": "text",
                    "hovertext": [
                        f"<b>{layer.name}</b>, {kind}<br>{value:,} {word}, {_share(value, getattr(cost, name))} of all"
                        for value, (_, layer) in zip(values, those, strict=True)
                    ],
                }
            )
        low = 0.34 * (len(QUANTITIES) - 1 - row)
        axes[f"yaxis{row + 1}"] = {"domain": [low, low + 0.25], "tickformat": "~s", "nticks": 4, "rangemode": "tozero"}
        if tops:
            axes[f"yaxis{row + 1}"]["range"] = [0, 1.05 * tops[name]]
        annotations.append(
            _note(f"<b>{word}</b>  {si(getattr(cost, name))}", 0, low + 0.25, xref="paper", xanchor="left")
        )
    end = 0
    names = [layer.name for _, layer in layers]
    for part, those_names in groupby(_part(name, names) for name in names):
        count = len(list(those_names))
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
            annotations.append(_note(part, end + count / 2 + 0.5, 1, font={"color": "--soft"}))
        end += count
    layout = {
        "margin": {"l": 58, "r": 14, "t": 62, "b": 44},
        "barmode": "overlay",
        "legend": {
            "orientation": "h",
            "x": 1,
            "xanchor": "right",
            "y": 1.07,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
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


def _note(text: str, x: float, y: float, **changes: Any) -> dict[str, Any]:
    """A text above a height of the whole chart."""
    return {"text": text, "x": x, "y": y, "yref": "paper", "yanchor": "bottom", "showarrow": False} | changes


# Cardinality


@dataclass(frozen=True)
class Point:
    """A network of a sweep over cardinality: its cost, its finished runs, which differ in the seed alone, the paper's error."""

    cardinality: int
    width: int
    macs: int
    params: int
    runs: tuple[Run, ...]
    paper: float | None

    @property
    def label(self) -> str:
        return f"{self.cardinality}×{self.width}d"


def cardinality_view(cells: Sequence[Cell]) -> View:
    """Error and cost over cardinality, a chart for each data set, recipe and depth.

    Raises:
        ValueError: a network that cannot be, that does not take the data set's images, or that has no cardinality.
    """
    kinds: dict[str, dict[Path, Cell]] = {}
    for cell in cells:
        if "cardinality" not in cell.config["model"]:
            raise ConfigurationError(f"{cell.config['name']} has no cardinality, model=resnext has one")
        title = f"{cell.config['model']['depth']} layers on {cell.config['data']['name']}, {cell.directory.parent.name}"
        kinds.setdefault(title, {})[cell.directory.parent] = cell
    figures = []
    for title, its in kinds.items():
        points = sorted(map(_point, its.values()), key=lambda point: point.cardinality)
        figures.append(Figure(title, _told(points), [_over_cardinality(points)], height=560, width=640))
    return View(
        "Cardinality at constant cost",
        "The same depth and, as nearly as whole numbers allow, the same cost: what differs is into how many groups "
        "(cardinality) of how many channels (d) the 3×3 convolutions are split (Xie et al. 2017, Table 2).",
        figures,
    )


def _over(
    finished: Mapping[Any, Sequence[Run]], family: str, name: str, labels: Mapping[Any, str]
) -> list[dict[str, Any]]:
    """The reported metric over x: a band from the lowest to the highest seed, every seed, and the mean.

    finished: runs by x, ascending. name: of the curve, empty where there is one alone. labels: of the points, by x.
    """
    if not finished:
        return []
    style = family_style(family)
    errors = {x: [run.value or 0.0 for run in runs] for x, runs in finished.items()}
    means = {x: statistics.fmean(values) for x, values in errors.items()}
    edge = {"x": list(errors), "line": {"width": 0}, "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    return [
        {**edge, "y": [min(values) for values in errors.values()]},
        {**edge, "y": [max(values) for values in errors.values()], "fill": "tonexty", "fillcolor": f"{style.colour}33"},
        {
            "name": "each seed",
            "showlegend": not name,
            "mode": "markers",
            "x": [x for x, values in errors.items() for _ in values],
            "y": [value for values in errors.values() for value in values],
            "marker": {"color": f"{style.colour}80", "size": 5},
            "hovertext": [f"seed {run.seed}: {run.value_text}" for runs in finished.values() for run in runs],
        },
        {
            "name": name or "mean over seeds",
            "mode": "lines+markers",
            "x": list(means),
            "y": list(means.values()),
            "line": {"color": style.colour, "width": 2, "dash": style.dash},
            "marker": {"color": style.colour, "size": 9, "symbol": style.symbol},
            "hovertext": [
                f"<b>{labels[x]}</b>, mean of {len(errors[x])}<br>{metric_text(mean, finished[x][0].metric_label)}, "
                f"n = {finished[x][0].n}"
                for x, mean in means.items()
            ],
        },
    ]


def _point(cell: Cell) -> Point:
    """With the finished runs of any seed that may be averaged; the most of them, where conditions differ."""
    model, (cost, _) = cell.config["model"], _measured(cell)
    found = load_runs(cell.directory.parent)[0] if cell.directory.parent.is_dir() else []
    its = [run for run in found if run.record.get("config_hash") == config_hash({**cell.config, "seed": run.seed})]
    runs: tuple[Run, ...] = max(same_but_seed(its), key=len, default=())
    table = published.tables().get(str(cell.config["experiment"]))
    rows = [row for row in table.rows if row.row == cell.config["row"]] if table else []
    paper = next((row.figures.get("top1_err") for row in rows if row.data == cell.config["data"]["name"]), None)
    return Point(model["cardinality"], model["base_width"], cost.macs, cost.params, runs, paper)


def _told(points: Sequence[Point]) -> str:
    """What the chart shows, in words."""
    counts = sorted({len(point.runs) for point in points if point.runs})
    if not counts:
        told = "No run has finished: run.py with the same overrides and several seeds makes them."
    elif counts == [1]:
        told = "One run each: no mean and no band."
    else:
        told = f"Mean of {'–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds, in a band from lowest to highest."
    if any(point.paper is not None for point in points):
        told += " Hollow: Xie et al. 2017, Table 3."
    for word, costs in (("MACs", [point.macs for point in points]), ("Parameters", [point.params for point in points])):
        told += f" {word} from {si(min(costs))} to {si(max(costs))}, {100 * (max(costs) / min(costs) - 1):.1f} % apart."
    return told


def _over_cardinality(points: Sequence[Point]) -> dict[str, Any]:
    """Error above, cost below."""
    style = family_style("resnext")
    papers = {place: point.paper for place, point in enumerate(points) if point.paper is not None}
    label = next((run.metric_label for point in points for run in point.runs), "top-1 error (%)")
    marker = {"color": style.colour, "size": 9, "symbol": style.symbol}
    finished = {place: point.runs for place, point in enumerate(points) if point.runs}
    traces = _over(finished, "resnext", "", {place: points[place].label for place in finished})
    if papers:
        traces.append(
            {
                "name": "Xie et al. 2017",
                "mode": "lines+markers",
                "x": list(papers),
                "y": list(papers.values()),
                "line": {"color": "--soft", "width": 1, "dash": "dot"},
                "marker": {**marker, "color": "--soft", "symbol": f"{style.symbol}-open"},
                "hovertext": [
                    f"<b>{points[place].label}</b><br>{paper} % in the paper" for place, paper in papers.items()
                ],
            }
        )
    has_errors = bool(traces)
    for word, alpha, costs in (
        ("MACs", "", [point.macs for point in points]),
        ("parameters", "80", [point.params for point in points]),
    ):
        traces.append(
            {
                "type": "bar",
                "name": word,
                "yaxis": "y2",
                "x": list(range(len(points))),
                "y": [cost / costs[0] for cost in costs],
                "marker": {"color": style.colour + alpha},
                "text": [si(cost) for cost in costs],
                "textposition": "outside",
                "textangle": 0,
                "cliponaxis": False,
                "hovertext": [
                    f"<b>{point.label}</b><br>{cost:,} {word}, {cost / costs[0]:.3f} of the first"
                    for point, cost in zip(points, costs, strict=True)
                ],
            }
        )
    layout = {
        "margin": {"l": 58, "r": 14, "t": 40, "b": 52},
        "bargap": 0.4,
        "bargroupgap": 0.08,
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        "xaxis": {
            "title": {"text": "cardinality × channels of a group"},
            "tickvals": list(range(len(points))),
            "ticktext": [point.label for point in points],
            "range": [-0.5, len(points) - 0.5],
            "anchor": "y2",
            "showgrid": False,
        },
        "yaxis": {"title": {"text": label}, "domain": [0.42, 1], "visible": has_errors},
        "yaxis2": {
            "title": {"text": "cost, the first’s = 1"},
            "domain": [0, 0.3 if has_errors else 0.95],
            "rangemode": "tozero",
            "nticks": 4,
        },
    }
    return {"traces": [{"type": "scatter", "hoverinfo": "text", **trace} for trace in traces], "layout": layout}


# Accuracy at matched cost


def accuracy_view(output_root: Path, experiment: str) -> View:
    """Error over MACs of one image, a chart for each data set and recipe, a curve for each family.

    Raises:
        FileNotFoundError: there is no such folder. ValueError: it holds no finished run of the experiment.
    """
    found = [run for run in load_runs(output_root)[0] if run.record.get("experiment") == experiment and run.macs]
    groups = same_but_seed(found)
    if not groups:
        raise ValueError(
            f"no finished run of experiment={experiment} in {output_root}: run.py experiment={experiment} seed=0,1,2"
        )
    titles = [_accuracy_title(group[0]) for group in groups]
    figures = []
    for title in dict.fromkeys(titles):
        here = [group for group, its in zip(groups, titles, strict=True) if its == title]
        figures.append(Figure(title, _accuracy_told(here), [_over_cost(here)], height=480, width=720))
    return View(
        "Accuracy at matched cost",
        "Each family at several widths whose cost, the multiply-adds of one image, is the same within half a percent. The line "
        "that is lower buys more accuracy for its compute.",
        figures,
    )


def _accuracy_title(run: Run) -> str:
    """What the curves of a chart share: data, recipe, and what departs from it but the network's own arguments."""
    departures = run.part("departures").items()
    said = [
        f"{key.removeprefix('recipe.')}={value}" for key, value in sorted(departures) if not key.startswith("model.")
    ]
    return f"{run.data}, {', '.join([run.record['recipe'], *said])}"


def _accuracy_told(groups: Sequence[Sequence[Run]]) -> str:
    seeds = sorted({len(group) for group in groups})
    told = "–".join(str(count) for count in dict.fromkeys((seeds[0], seeds[-1])))
    images = f"n = {groups[0][0].n} test images" if groups[0][0].record.get("task") == "classification" else ""
    band = (
        "One run each: no mean and no band"
        if seeds == [1]
        else f"Mean of {told} seeds, in a band from lowest to highest"
    )
    return f"{'; '.join(filter(None, (band, images)))}."


def _over_cost(groups: Sequence[Sequence[Run]]) -> dict[str, Any]:
    traces: list[dict[str, Any]] = []
    costs: list[float] = []
    for family in dict.fromkeys(group[0].family for group in groups):
        its = {group[0].macs or 0: group for group in groups if group[0].family == family}
        costs = max(costs, sorted(its), key=len)
        labels = {macs: group[0].name for macs, group in its.items()}
        traces += _over({macs: its[macs] for macs in sorted(its)}, family, family, labels)
    layout = {
        "margin": {"l": 58, "r": 14, "t": 40, "b": 52},
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        "xaxis": {
            "title": {"text": "MACs of one image"},
            "type": "log",
            # Not plotly's own: of a single cost it would stretch half a percent over the whole width.
            "range": [math.log10(costs[0]) - 0.15, math.log10(costs[-1]) + 0.15],
            "tickvals": costs,
            "ticktext": [si(cost) for cost in costs],
        },
        "yaxis": {"title": {"text": groups[0][0].metric_label}, "rangemode": "tozero"},
    }
    return {"traces": [{"type": "scatter", "hoverinfo": "text", **trace} for trace in traces], "layout": layout}


# Feature reuse


def feature_reuse(weights: Mapping[str, Tensor]) -> list[list[list[float]]]:
    """How much weight each layer puts on the feature maps of each one before it: a matrix for each dense block of a DenseNet.

    Row s is a source: the input of the block, then its layers. Column l is a target: the layers, then the transition behind
    them or, after the last block, the classification layer. An entry is the mean absolute weight of the connections from s to
    l, as in Figure 5 of Huang et al. 2017; NaN where there are none, as s does not come before l. Of a bottleneck layer it is
    the 1x1 convolution that sees the maps of s.

    Args:
        weights: state of the network.

    Raises:
        ValueError: they are not those of a DenseNet.
    """
    convolutions: dict[tuple[int, ...], Tensor] = {}  # (stage, layer): its first; (stage,): the transition's
    for name, weight in weights.items():
        found = re.fullmatch(r"stages\.(\d+)\.(?:(\d+)\.composite\.)?\d+\.weight", name)
        if found and weight.dim() == 4:
            convolutions.setdefault(tuple(int(number) for number in found.groups() if number), weight)
    in_blocks = sorted(place for place in convolutions if len(place) == 2)
    if not in_blocks or "classifier.weight" not in weights:
        raise ValueError("these are not the weights of a DenseNet: they have no dense block")
    matrices = []
    for stage, block in groupby(in_blocks, key=lambda place: place[0]):
        last = convolutions.get((stage + 1,), weights["classifier.weight"])
        targets = [*(convolutions[place] for place in block), last]
        seen = [target.shape[1] for target in targets]
        maps = [seen[0], *(more - fewer for fewer, more in pairwise(seen))]  # of each source
        columns = []
        for number, target in enumerate(targets, start=1):
            of_map = target.abs().transpose(0, 1).flatten(1).mean(1)
            means = [float(part.mean()) for part in of_map.split(maps[:number])]
            columns.append(means + [math.nan] * (len(targets) - number))
        matrices.append([list(row) for row in zip(*columns, strict=True)])
    return matrices


def reuse_view(run: Path, checkpoint: str = "last") -> View:
    """The heat maps of a run's checkpoint.

    Raises:
        ValueError: a run of another family.
        FileNotFoundError: no such run, or no such checkpoint of it.
    """
    path = run / "checkpoints" / f"{checkpoint}.ckpt"
    if not path.is_file():
        raise FileNotFoundError(f"{run} holds no checkpoints/{checkpoint}.ckpt: RUN is the folder of a trained run")
    config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    if config["family"] != "densenet":
        raise ValueError(f"{run} is a run of {config['name']}, feature reuse is of model=densenet")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    matrices = feature_reuse({name.removeprefix("net."): weight for name, weight in state.items()})
    maps = [_heat_maps(matrices, by_layer) for by_layer in (False, True)]
    size = maps[0]["layout"]
    return View(
        "Feature reuse",
        "How much weight each layer of a trained DenseNet puts on what each layer before it in its dense block made: the mean "
        "absolute weight of the connections, as in Figure 5 of Huang et al. 2017. The first row is what came into the block, "
        "the outlined column the transition behind it or, after the last block, the classification layer.",
        [
            Figure(
                f"{config['name']} on {config['data']['name']}, seed {config['seed']}",
                f"{config['recipe']['name']}, {checkpoint} checkpoint.",
                maps,
                height=size["height"],
                width=size["width"],
            )
        ],
        "1 is the largest of",
        ("the block", "each target layer"),
    )


def _heat_maps(matrices: Sequence[Sequence[Sequence[float]]], by_layer: bool) -> dict[str, Any]:
    """The blocks side by side in square cells, in parts of a block's largest entry or of each column's."""
    margin = {"l": 58, "r": 70, "t": 30, "b": 48}
    cells, tallest, gaps = sum(map(len, matrices)), max(map(len, matrices)), GAP * (len(matrices) - 1)
    cell = max(9, min(CELL, (PAGE - margin["l"] - margin["r"] - gaps) // cells))
    width, height = cells * cell + gaps, tallest * cell
    layout: dict[str, Any] = {
        "margin": margin,
        "width": width + margin["l"] + margin["r"],
        "height": height + margin["t"] + margin["b"],
        "annotations": [],
        "shapes": [],
        "coloraxis": {
            "cmin": 0,
            "cmax": 1,
            "colorscale": "Viridis",
            "colorbar": {"thickness": 12, "outlinewidth": 0, "len": 1, "tickvals": [0, 0.5, 1], "ticklen": 0},
        },
    }
    traces = []
    start = 0
    for number, matrix in enumerate(matrices, start=1):
        size, end = len(matrix), "classification layer" if number == len(matrices) else "transition"
        tops = [max(value for value in column if not math.isnan(value)) for column in zip(*matrix, strict=True)]
        tops = tops if by_layer else [max(tops)] * size
        sources = ["the block’s input", *(f"layer {layer}" for layer in range(1, size))]
        targets = [*(f"layer {layer}" for layer in range(1, size)), end]
        x, y = f"x{number}", f"y{number}"
        traces.append(
            {
                "type": "heatmap",
                "xaxis": x,
                "yaxis": y,
                "coloraxis": "coloraxis",
                **{"xgap": 1, "ygap": 1},
                "z": [
                    [None if math.isnan(value) else value / (top or 1) for value, top in zip(row, tops, strict=True)]
                    for row in matrix
                ],
                "hoverinfo": "text",
                "hoverongaps": False,
                "text": [
                    [f"{source} → {target}<br>mean |w| {value:.3g}" for target, value in zip(targets, row, strict=True)]
                    for source, row in zip(sources, matrix, strict=True)
                ],
            }
        )
        every = math.ceil(28 / cell)
        plain = {"showgrid": False, "showline": False, "ticks": "", "tickangle": 0}
        shown = [*range(0, size - 1 - every // 2, every), size - 1]
        layout[f"xaxis{number}"] = {
            **plain,
            "domain": [start / width, (start + size * cell) / width],
            "anchor": y,
            "tickvals": shown,
            "ticktext": [*(str(place + 1) for place in shown[:-1]), f"{end[:5]}."],
            "title": {"text": "target layer"},
        }
        layout[f"yaxis{number}"] = {
            **plain,
            "domain": [1 - size / tallest, 1],
            "anchor": x,
            "autorange": "reversed",
            "tickvals": list(range(0, size, every)),
            "ticktext": ["in", *map(str, range(every, size, every))],
            "title": {"text": "source layer" if number == 1 else ""},
        }
        layout["annotations"].append(
            _note(f"<b>dense block {number}</b>", start / width, 1, xref="paper", xanchor="left")
        )
        layout["shapes"].append(
            {
                "type": "rect",
                **{"xref": x, "x0": size - 1.5, "x1": size - 0.5, "yref": y, "y0": -0.5, "y1": size - 0.5},
                "line": {"color": "--ink", "width": 1.5},
            }
        )
        start += size * cell + GAP
    return {"traces": traces, "layout": layout}


def _of_cells(view: Callable[[Sequence[Cell]], View], overrides: Sequence[str]) -> tuple[View, Path]:
    """The view of these configurations, and where it goes."""
    cells = []
    for cell in expand(overrides, multirun=True):
        if not isinstance(cell, Cell):
            raise ConfigurationError(f"{cell.label}: {cell.error}")
        cells.append(cell)
    name = view.__name__.removesuffix("_view")
    return view(cells), Path(cells[0].config["output_root"], "views", f"{name}.html")


def _with_experiment(overrides: Sequence[str]) -> list[str]:
    """The overrides with the experiment, unless they name one."""
    named = any(override.startswith("experiment=") for override in overrides)
    return [*overrides] if named else [f"experiment={EXPERIMENT}", *overrides]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
