"""Which earlier layers a dense block's layers read: mean absolute weights, from a finished run."""

import argparse
import io
import math
import re
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from benchmarks.records.files import checkpoint_of, read_bytes, read_config
from benchmarks.records.lazy import torch
from benchmarks.report.figures import colour_axis
from benchmarks.report.view import Figure, View, note, write

REUSE = "feature_reuse.html"
NEEDED = {"family": str, "name": str, "seed": int, "data.name": str, "recipe.name": str}
CELL, GAP, PAGE = 44, 62, 1176  # pixels of the heat maps: the largest cell, the gap between two, the width of the page


def feature_reuse(weights: Mapping[str, Any]) -> list[list[list[float]]]:
    """Return how much weight each layer puts on the feature maps of each one before it: a matrix for each dense block.

    Row s is a source: the input of the block, then its layers. Column l is a target: the layers, then the transition behind
    them or, after the last block, the classification layer. An entry is the mean absolute weight of the connections from s to
    l, as in Figure 5 of Huang et al. 2017; NaN where there are none, as s does not come before l. Of a bottleneck layer it is
    the 1x1 convolution that sees the maps of s.

    Args:
        weights: state of the network.

    Raises:
        ValueError: they are not those of a DenseNet.
    """
    convolutions: dict[tuple[int, ...], Any] = {}  # the first of (stage, layer), the one of the transition (stage,)
    for name, weight in weights.items():
        match = re.fullmatch(r"stages\.(\d+)\.(?:(\d+)\.composite\.)?\d+\.weight", name)
        if match and weight.dim() == 4:
            convolutions.setdefault(tuple(int(number) for number in match.groups() if number), weight)
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
    """Return the heat maps of a run's checkpoint.

    Raises:
        ValueError: a run of another family.
        FileNotFoundError: no such run, or no such checkpoint of it.
    """
    path = checkpoint_of(run, checkpoint)
    config = read_config(run, NEEDED)
    if config["family"] != "densenet":
        raise ValueError(f"{run} is a run of {config['name']}, feature reuse is of model=densenet")
    try:
        state = torch.load(io.BytesIO(read_bytes(path)), map_location="cpu", weights_only=True)["state_dict"]
        matrices = feature_reuse({name.removeprefix("net."): weight for name, weight in state.items()})
    except OSError:
        raise
    except Exception as error:  # of damage: whatever the readers trip over
        raise ValueError(f"{path} is damaged or no checkpoint of a DenseNet: {str(error).split('. ')[0]}") from error
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
    """Return the blocks side by side in square cells, in parts of a block's largest entry or of each column's."""
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
        "coloraxis": colour_axis([0, 0.5, 1]),
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
            note(f"<b>dense block {number}</b>", start / width, 1, xref="paper", xanchor="left")
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view reuse``."""
    parser.description = (
        "How much weight each layer of a trained DenseNet puts on the feature maps of each layer before it: a heat map per "
        "dense block, as in Figure 5 of Huang et al. 2017."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run, as in outputs/digits/densenet…/seed0")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last", help="which weights (default: last)")
    parser.add_argument("--out", metavar="FILE", type=Path, help=f"default: RUN/{REUSE}")


def run(arguments: argparse.Namespace) -> None:
    """Write the view of feature reuse."""
    write(reuse_view(arguments.run, arguments.checkpoint), arguments, arguments.run / REUSE)
