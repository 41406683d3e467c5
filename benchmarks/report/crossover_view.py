"""Error over training budget with seed bands and crossings, as a page."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.analysis.crossover import SPENT, Crossing, Curve, budget_text, cross
from benchmarks.records.files import write_atomic
from benchmarks.report.figures import Trace, figure, log_axis, plain, points, seed_curve, ticks
from benchmarks.report.style import look_of
from benchmarks.report.view import Figure, View, render
from benchmarks.units import grouped

DRAWN = 40  # points of a curve from one budget to the next

CAPTION = (
    "Mean over seeds, in a band from lowest to highest. ×: crossings with their 95 % intervals, cut at the budgets."
)


def write_plot(curves: Sequence[Curve], path: Path) -> Path:
    """Write a chart for each data set to `path`, one HTML file that opens from disk with no network, and return `path`."""
    figures = []
    for members in grouped(curves, lambda curve: curve.group).values():
        figures.append(Figure(members[0].data, CAPTION, [_figure(members)], height=620, width=720))
    lead = "Every run has its recipe’s complete schedule: a point is a training that was planned for that budget."
    write_atomic(path, render(View("Error by training budget", lead, figures)))
    return path


def _figure(curves: Sequence[Curve]) -> dict[str, Any]:
    traces: list[Trace] = []
    for curve in curves:
        name = plain(curve.name)
        seeds = {budget: list(by_seed.values()) for budget, by_seed in curve.errors.items()}
        means = [fmean(values) for values in seeds.values()]
        traces += seed_curve(seeds, look_of(curve), name, between=_between, showlegend=False, hoverinfo="skip")
        hover = [
            f"<b>{name}</b><br>{mean:.2f}, {len(values)} seeds"
            for mean, values in zip(means, seeds.values(), strict=True)
        ]
        traces.append(points(list(seeds), means, look_of(curve), name=name, legendgroup=name, hovertext=hover))
    for pair in filter(None, itertools.starmap(cross, itertools.combinations(curves, 2))):
        if len(pair.points) == 1:
            traces.append(_crossing_mark(pair))
    first, budgets = curves[0], sorted({budget for curve in curves for budget in curve.errors})
    errors = [error for curve in curves for by_seed in curve.errors.values() for error in by_seed.values()]
    apart = min(errors) > 0 and max(errors) > 10 * min(errors)
    y = log_axis(errors) if apart else {"rangemode": "tozero"}
    x = ticks(budgets, [budget_text(budget, first.kind) for budget in budgets])
    return figure(
        traces,
        {"title": SPENT[first.kind], "type": "log", "fixedrange": False, **x},
        {"title": first.label, "fixedrange": False, **y},
        dragmode="zoom",
    )


def _between(budgets: Sequence[float], errors: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the curve with points between its budgets: linear in the logarithm of the budget, so bent where errors are too."""
    x, y = [budgets[0]], [errors[0]]
    for (left, right), (start, end) in zip(itertools.pairwise(budgets), itertools.pairwise(errors), strict=True):
        for share in (step / DRAWN for step in range(1, DRAWN + 1)):
            x.append(left * (right / left) ** share)
            y.append(start + share * (end - start))
    return x, y


def _crossing_mark(pair: Crossing) -> Trace:
    """Return a cross where two means meet, and a line along the part of the confidence set around it."""
    [point] = pair.points
    [index] = [i for i, (low, high) in enumerate(itertools.pairwise(pair.budgets)) if low <= point < high] or [-2]
    low, high = pair.budgets[index], pair.budgets[index + 1]
    ends = [pair.first.estimates[budget].mean for budget in (low, high)]
    height = ends[0] + (ends[1] - ends[0]) * math.log(point / low) / math.log(high / low)
    around = [interval for interval in pair.intervals or () if interval[0] <= point <= interval[1]] or [(point, point)]
    return {
        "x": [point],
        "y": [height],
        "mode": "markers",
        "showlegend": False,
        "marker": {"symbol": "x-thin", "size": 10, "line": {"width": 2, "color": "--ink"}},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [around[0][1] - point],
            "arrayminus": [point - around[0][0]],
            "color": "--ink",
        },
        "hovertext": [plain(pair.text())],
    }
