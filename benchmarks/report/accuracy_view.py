"""Accuracy over cost with the networks matched in cost, as a page."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.analysis.comparisons import comparisons, kind, network_labels, protocols, row_kind
from benchmarks.analysis.seeds import same_but_seed, short_labels
from benchmarks.config.about import Look
from benchmarks.config.folders import choices
from benchmarks.records.runs import Run, debugging_left_out, load_runs
from benchmarks.report.figures import Trace, figure, seeds_caption, seeds_over, ticks
from benchmarks.report.style import another_look, look_of
from benchmarks.report.view import Figure, View, add_root, path_of, write
from benchmarks.units import count, nearest, score_label, si

EXPERIMENT = "compute_accuracy"
ROOM = 0.05  # of the axis, from a tick to the next: their texts overlap on less


def accuracy_view(output_root: Path, experiment: str | None = None) -> View:
    """Return the test result over MACs of one image: a chart for each data set and recipe, as on the page, a curve for each
    family, of detectors for each family of their backbones.

    Rows of an experiment that are named by their cost are a curve for each beginning: `plain_2.6e6` is of `plain`. Its other
    rows are of no curve.

    Args:
        experiment: whose runs are shown; None shows those of compute_accuracy or, where there are none, all.

    Raises:
        FileNotFoundError: there is no such folder. ValueError: it holds no finished run, or none of the experiment.
    """
    every = [run for run in load_runs(output_root)[0] if run.macs]
    runs = [run for run in every if run.record.get("experiment") == (experiment or EXPERIMENT)]
    if experiment is None and not same_but_seed(runs):
        runs = every
    if not same_but_seed(runs):
        if experiment is not None and experiment not in (known := choices("experiment")):
            raise ValueError(f"no experiment {experiment!r}{nearest(experiment, known)}; there are {', '.join(known)}")
        of_experiment = f" of experiment={experiment}" if experiment else ""
        raise ValueError(
            f"no finished run{of_experiment} in {output_root}{debugging_left_out(runs)}: "
            f"run.py experiment={experiment or EXPERIMENT} seed=0,1,2"
        )
    named = {run.record.get("experiment") for run in runs if row_kind(run)}
    runs = [run for run in runs if row_kind(run) or run.record.get("experiment") not in named]
    figures = []
    for data, members in protocols(runs).items():
        for comparison in comparisons(members):
            if not comparison.mixed and (groups := same_but_seed(comparison.runs)):
                charts = [_over_cost(groups)]
                title = f"{data}, {comparison.title}"
                figures.append(Figure(title, _accuracy_caption(groups), charts, height=480, width=720))
    if any(run.record.get("experiment") != (experiment or EXPERIMENT) for run in runs):
        title, note = "Accuracy over cost", "Each network over the multiply-adds of one image."
    else:
        title = "Accuracy at matched cost"
        note = (
            "Each network at several widths, whose costs are matched: the multiply-adds of one image. The lower of two lines "
            "of errors, and the higher of two lines of scores, buys more accuracy for its compute."
        )
    return View(title, note, figures)


def _accuracy_caption(groups: Sequence[Sequence[Run]]) -> str:
    images = f"n = {count(groups[0][0].n)} test images" if groups[0][0].record.get("task") == "classification" else ""
    return f"{'; '.join(filter(None, (seeds_caption(map(len, groups)), images)))}."


def _over_cost(groups: Sequence[Sequence[Run]]) -> dict[str, Any]:
    traces: list[Trace] = []
    costs: list[float] = []
    looks: list[Look] = []
    for curve, by_cost in _curves(groups).items():
        costs = max(costs, sorted(by_cost), key=len)
        look = another_look(look_of(next(iter(by_cost.values()))[0]), looks)
        looks.append(look)
        labels = {macs: group[0].name for macs, group in by_cost.items()}
        traces += seeds_over({macs: by_cost[macs] for macs in sorted(by_cost)}, look, curve, labels)
    every = sorted({group[0].macs or 0 for group in groups})
    # Not plotly's own: of a single cost it would stretch half a percent over the whole width.
    start, end = math.log10(every[0]) - 0.15, math.log10(every[-1]) + 0.15
    shown: list[float] = []
    for cost in costs:
        if not shown or math.log10(cost / shown[-1]) >= ROOM * (end - start):
            shown.append(cost)
    x = {
        "title": "MACs of one image",
        "type": "log",
        "range": [start, end],
        **ticks(shown, [si(cost) for cost in shown]),
    }
    return figure(traces, x, {"title": score_label(groups[0][0].metric_label)})


def _curves(groups: Sequence[Sequence[Run]]) -> dict[str, dict[float, Sequence[Run]]]:
    """Return the runs by curve and cost; of several networks that cost the same each after the first is a curve of its own."""
    firsts = [group[0] for group in groups]
    short, whole = network_labels(firsts), short_labels(firsts, seeds=False)
    labels = [one if short.count(one) == 1 else other for one, other in zip(short, whole, strict=True)]
    curves: dict[str, dict[float, Sequence[Run]]] = {}
    # The curve that is named as its family has the family's look.
    for group, label in sorted(zip(groups, labels, strict=True), key=lambda one: kind(one[0][0]) != one[0][0].family):
        cost, curve = group[0].macs or 0, kind(group[0])
        curves.setdefault(label if cost in curves.get(curve, ()) else curve, {})[cost] = group
    return curves


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view accuracy``."""
    parser.description = (
        "Test error, or score, over multiply-adds of one image from finished runs: a curve for each family, in a band from the "
        "lowest to the highest seed."
    )
    add_root(parser, "accuracy")
    parser.add_argument("--experiment", help=f"default: {EXPERIMENT}, or all runs where none is of it")


def run(arguments: argparse.Namespace) -> None:
    """Write the view of accuracy."""
    view = accuracy_view(arguments.output_root, arguments.experiment)
    write(view, arguments, path_of(arguments.output_root, "accuracy"))
