"""What the page's charts draw: networks with their place on the Pareto front, learning curves thinned to what can be seen."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from statistics import fmean
from typing import Any

from benchmarks.analysis import published
from benchmarks.analysis.estimates import Estimate, estimates
from benchmarks.analysis.pareto import drawn_errors, front_probabilities, pareto_front
from benchmarks.analysis.seeds import baseline_names, same_but_seed, short_labels
from benchmarks.records.runs import Run
from benchmarks.report.figures import front_line
from benchmarks.report.quantities import QUANTITIES, Quantity
from benchmarks.report.style import legend_key
from benchmarks.units import count, number, one_line

POINTS = 40_000  # of all curves of a page
FEWEST, MOST = 40, 400  # of one curve


def chart(data: str, indexed: Sequence[tuple[int, Run]], problems: list[str], curve_points: int) -> dict[str, Any]:
    """Return what the charts of one data set draw; runs go by their index on the page.

    `curve_points` is about the most that a learning curve keeps. A history that cannot be read is added to `problems`.
    """
    index_of = {id(run): index for index, run in indexed}
    runs = [run for _, run in indexed]
    described = next((run for run in runs if run.metric), None)
    networks = same_but_seed(runs)
    labels = dict(zip(map(id, runs), short_labels(runs, seeds=False), strict=True))

    def named(members: Sequence[Run]) -> dict[str, Any]:
        return {
            "label": one_line(labels[id(members[0])]),
            "family": legend_key(members[0]),
            "runs": [index_of[id(run)] for run in members],
        }

    points = [{**named(members), **_point(members)} for members in networks]
    estimated = estimates(networks)
    errors = drawn_errors(estimated)
    for axis in QUANTITIES:
        _place_on_front(axis, networks, points, estimated, errors)
    fronts = {
        axis.key: [(point["x"][axis.key], point["error"]) for point in points if axis.key in point["front"]]
        for axis in QUANTITIES
    }
    series = []
    for members, rows in _curves(runs, networks, problems):
        series.append({**named(members), **_thinned(members, rows, curve_points)})
    return {
        "data": one_line(data),
        "val_label": one_line(described.val_label) if described else "validation error",
        "test_label": one_line(described.metric_label) if described else "test error",
        "protocol": _protocol_line(runs),
        "series": series,
        "networks": points,
        "fronts": {
            axis.key: front_line(fronts[axis.key], axis.more_is_better)
            for axis in QUANTITIES
            if len(fronts[axis.key]) > 1
        },
        "baselines": [{"label": name, "y": value} for name, value in _baseline_errors(runs)],
        "references": [row for row in reference_points(data) if described and row["metric"] == described.metric],
    }


def points_per_curve(runs: Sequence[Run]) -> int:
    """Return how many points each curve keeps, so that the page of any number of runs stays small."""
    return max(FEWEST, min(MOST, POINTS // max(1, len(runs))))


@cache
def reference_points(data: str) -> list[dict[str, Any]]:
    """Return published errors on a data set at the exact counts of their networks."""
    return [
        {
            "family": network.family,
            "metric": "test/top1_err",
            "source": row.source,
            "label": network.name,
            "error": row.figures["top1_err"],
            "x": {"params": network.params, "macs": network.macs},
        }
        for row, network in published.reference_points(data)
    ]


def _point(members: Sequence[Run]) -> dict[str, Any]:
    """Return mean error and costs over the seeds, and the range of the errors; costs that a seed is missing are left out."""
    errors = [run.value for run in members if run.value is not None]
    costs = {axis.key: [axis.value(run) for run in members] for axis in QUANTITIES}
    return {
        "error": fmean(errors),
        "low": min(errors),
        "high": max(errors),
        # nothing else can stand on a logarithmic axis
        "x": {key: fmean(filter(None, values)) for key, values in costs.items() if all((x or 0) > 0 for x in values)},
        "front": [],
        "probability": {},
    }


def _place_on_front(
    axis: Quantity,
    networks: Sequence[Sequence[Run]],
    points: Sequence[dict[str, Any]],
    estimated: Sequence[Estimate],
    errors: Any,
) -> None:
    """Enter the axis into `front` of the points on it, and into `probability` of all whose error has an interval."""
    sign = -1 if axis.more_is_better else 1
    placed = [index for index, point in enumerate(points) if axis.key in point["x"]]
    for place in pareto_front([(sign * points[index]["x"][axis.key], points[index]["error"]) for index in placed]):
        points[placed[place]]["front"].append(axis.key)
    costs = [[sign * (axis.value(run) or 0) for run in networks[index]] for index in placed]
    probabilities = front_probabilities(costs, errors[:, placed], [estimated[index] for index in placed])
    for index, probability in zip(placed, probabilities, strict=True):
        if probability is not None:
            points[index]["probability"][axis.key] = probability


Rows = list[dict[str, Any]]


def _curves(
    runs: Sequence[Run], networks: Iterable[tuple[Run, ...]], problems: list[str]
) -> Iterable[tuple[tuple[Run, ...], list[Rows]]]:
    """Yield runs that are drawn as one curve, with their rows: seeds of a network that were evaluated at the same compute.

    Any other run is a curve of its own. In the order of `runs`.
    """
    rows: dict[int, Rows] = {}
    for run in runs:
        try:
            rows[id(run)] = run.curve()
        except (OSError, ValueError) as error:
            problems.append(one_line(str(error)))
            rows[id(run)] = []
    first_of: dict[int, tuple[Run, ...]] = {}
    together: set[int] = set()
    for members in networks:
        grids = {tuple(row["train_flops"] for row in rows[id(run)]) for run in members}
        if len(grids) == 1:
            first_of[id(members[0])] = members
            together |= {id(run) for run in members}
    for run in runs:
        members = first_of.get(id(run), () if id(run) in together else (run,))
        if members and rows[id(members[0])]:
            yield members, [rows[id(member)] for member in members]


def _thinned(members: Sequence[Run], rows: Sequence[Rows], limit: int) -> dict[str, Any]:
    metric = members[0].val_metric  # the seeds of a network share it
    errors = [[row[metric] for row in own] for own in rows]
    flops = [row["train_flops"] for row in rows[0]]
    picks = _visible(
        flops, [min(at) for at in zip(*errors, strict=True)], [max(at) for at in zip(*errors, strict=True)], limit
    )
    spent = [[number(own[pick].get("wall_s")) for pick in picks] for own in rows]
    shown = [[float(f"{own[pick]:.6g}") for pick in picks] for own in errors]
    x = {"train_flops": [flops[pick] for pick in picks]}
    curves = {
        "epoch": [number(rows[0][pick].get("epoch")) for pick in picks],
        "each": [{"x": x | {"wall_s": seconds}, "y": y} for seconds, y in zip(spent, shown, strict=True)],
    }
    if len(members) > 1:
        at = list(zip(*shown, strict=True))  # the errors of all seeds, by point
        seconds = [fmean(second or 0 for second in every) for every in zip(*spent, strict=True)]
        means = {"y": [float(f"{fmean(values):.6g}") for values in at], "low": [*map(min, at)], "high": [*map(max, at)]}
        curves["mean"] = {"x": x | {"wall_s": seconds}, **means}
    return curves


def _visible(x: Sequence[float], low: Sequence[float], high: Sequence[float], limit: int) -> list[int]:
    """Return the indices of at most about `limit` points whose band looks as that of all, x being drawn on a logarithmic axis.

    Of every stretch of the axis the lowest and the highest are picks, and the first and the last of all.
    """
    if len(x) <= limit:
        return list(range(len(x)))
    stretches = limit // 2
    scale = stretches / (math.log(x[-1] / x[0]) or 1)
    picks = {0, len(x) - 1}
    start = 0
    for index in range(1, len(x) + 1):
        if index == len(x) or int(math.log(x[index] / x[0]) * scale) != int(math.log(x[start] / x[0]) * scale):
            picks |= {min(range(start, index), key=low.__getitem__), max(range(start, index), key=high.__getitem__)}
            start = index
    return sorted(picks)


def _protocol_line(runs: Sequence[Run]) -> str:
    finished = [run for run in runs if run.value is not None]
    checkpoints = dict.fromkeys(str(run.part("protocol").get("checkpoint") or "") for run in finished)
    sizes = dict.fromkeys(count(run.n) for run in runs if run.n is not None)
    if not checkpoints:
        return ""
    return one_line(f"{' or '.join(filter(None, checkpoints))} checkpoint, n = {' or '.join(sizes)} test images")


def _baseline_errors(runs: Sequence[Run]) -> list[tuple[str, float]]:
    """Return baselines in the unit of the reported metric: a Dice of 0.884 beside `test/dice_err` is 11.6."""
    errors: dict[tuple[str, float], None] = {}
    for run in runs:
        for key, value in run.baselines.items():
            method, metric = baseline_names(key)
            if run.metric == f"test/{metric}_err":
                errors[one_line(method), 100 * (1 - value)] = None
            elif run.metric == f"test/{metric}":
                errors[one_line(method), value] = None
    return list(errors)
