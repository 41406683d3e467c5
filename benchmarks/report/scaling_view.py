"""Error over training compute with the fitted curve of each family, as a page."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.analysis.scaling import FEWEST, QUANTILES, Family, equal_errors, families
from benchmarks.config.about import Look
from benchmarks.records.lazy import np
from benchmarks.records.runs import debugging_left_out, load_runs
from benchmarks.report.figures import Trace, band, figure, line, plain, points, ticks
from benchmarks.report.style import another_look, look_of
from benchmarks.report.view import Figure, View, add_root, path_of, write
from benchmarks.units import grouped, metric_text, score, score_label, si

FARTHEST = 2.0  # times the largest run: a curve says nothing beyond
STEPS = 60  # points of a curve


def scaling_view(output_root: Path) -> View:
    """Return the test result over training FLOPs: a chart for each data set, a fitted curve in its band for each family.

    Raises:
        FileNotFoundError: there is no such folder. ValueError: no family in it has runs enough for a curve.
    """
    runs, _ = load_runs(output_root)
    members = families(runs)
    if not members:
        raise ValueError(
            f"no family in {output_root} has finished runs of several seeds at {FEWEST} different training costs"
            f"{debugging_left_out(runs)}: run.py -m model=… recipe.epochs=2,4,8,15 seed=0,1,2"
        )
    charts = grouped(members, lambda one: one.group)
    return View(
        "Error over training compute",
        "A power law with a floor, fitted to the means over seeds (marks, with their 95 % intervals), in its 95 % band: "
        f"another training, other test images. No curve goes beyond {FARTHEST:g} times its largest run.",
        [
            Figure(shown[0].data, "", [_over_compute(shown)], height=480, width=720, sentences=_sentences(shown))
            for shown in charts.values()
        ],
    )


def _sentences(shown: Sequence[Family]) -> list[str]:
    lines = [f"{pair.text[0].upper()}{pair.text[1:]}" for pair in equal_errors(shown)]
    lines += [f"Largest cost of {one.name}, from the others: {text}" for one in shown if (text := one.held_out())]
    return [f"{text}." for text in lines]


def _over_compute(shown: Sequence[Family]) -> dict[str, Any]:
    traces: list[Trace] = []
    looks: list[Look] = []
    label = shown[0].label
    for one in sorted(shown, key=lambda one: one.name != one.first.family):  # which has the family's look
        look, name = another_look(look_of(one.first), looks), plain(one.name)
        looks.append(look)
        costs = np.geomspace(one.costs[0], FARTHEST * one.costs[-1], STEPS)
        low, curve, high = _ends(np.array([one.law.error_at(cost) for cost in costs]), label)
        means = [score(float(mean), label)[1] for mean in one.errors[0]]
        ends = [sorted(score(end, label)[1] for end in interval) for interval in one.intervals]
        hover = [
            f"<b>{name}</b> at {si(cost)}FLOPs<br>"
            f"{metric_text(mean, label)} [{metric_text(below, label)}, {metric_text(above, label)}]"
            for cost, mean, (below, above) in zip(one.costs, means, ends, strict=True)
        ]
        below, above = zip(*ends, strict=True)
        bars = {"array": np.subtract(above, means).tolist(), "arrayminus": np.subtract(means, below).tolist()}
        bars |= {"type": "data", "symmetric": False, "color": look.colour, "thickness": 1.2, "width": 3}
        formula = [f"<b>{name}</b><br>{one.formula}, C in training FLOPs"] * STEPS
        traces += [
            band(costs.tolist(), low, high, look, legendgroup=name),
            line(costs.tolist(), curve, look, name=name, legendgroup=name, hovertext=formula),
            points(one.costs, means, look, showlegend=False, legendgroup=name, hovertext=hover, error_y=bars),
        ]
    first, last = min(one.costs[0] for one in shown), FARTHEST * max(one.costs[-1] for one in shown)
    marks = [
        digit * 10.0**power
        for power in range(math.floor(math.log10(first)), math.ceil(math.log10(last)))
        for digit in (1, 2, 5)
        if first / 1.3 <= digit * 10.0**power <= 1.3 * last
    ]
    x = {"title": "training FLOPs", "type": "log", **ticks(marks, [si(mark) for mark in marks])}
    x["range"] = [math.log10(first / 1.3), math.log10(1.3 * last)]
    return figure(traces, x, {"title": score_label(label)})


def _ends(errors: Any, label: str) -> tuple[list[float], list[float], list[float]]:
    """Return one end of the 95 % interval, the value of the means and the other end, as people know the metric.

    Args:
        errors: shape (places, 1 + draws), the means first.
    """
    low, high = np.quantile(errors[:, 1:], QUANTILES, axis=1)
    low, mean, high = ([score(float(value), label)[1] for value in values] for values in (low, errors[:, 0], high))
    return low, mean, high


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view scaling``."""
    parser.description = (
        "Test error, or score, over training FLOPs from finished runs: a fitted curve in its 95 % band for each family that "
        "has runs of several seeds at four different costs, and which family needs how much of another's compute."
    )
    add_root(parser, "scaling")


def run(arguments: argparse.Namespace) -> None:
    """Write the view of scaling."""
    write(scaling_view(arguments.output_root), arguments, path_of(arguments.output_root, "scaling"))
