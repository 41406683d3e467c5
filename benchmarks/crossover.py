"""Where one network becomes better than another as the training budget grows: `python -m benchmarks crossover [FOLDER]`.

Read from runs that ended with a budget (`trainer.max_train_flops` and its like), each with a complete schedule. Between budgets
an error is taken as linear in the logarithm of the budget. Two networks are compared on the seeds that both have, by the paired
differences of their errors.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks import terminal
from benchmarks.record import write_atomic
from benchmarks.results import MISSING, Run, count, duration, family_style, load_runs, number, one_line, si
from benchmarks.statistics import (
    compare,
    holm,
    mean_interval,
    probability_below,
    sampling_error,
    t_quantile,
    without_interval,
)

EXPERIMENT = "iso_compute"
SPENT = {"train_flops": "training FLOPs", "train_seconds": "seconds of training", "train_joules": "joules of training"}
DRAWN = 40  # points of a curve from one budget to the next
DIGITS = 9  # of a mean difference: below it lies only the rounding of sums


@dataclass(frozen=True)
class Curve:
    """A network under one recipe on one data set, trained to the end of several budgets.

    Attributes:
        name: the network's, with its recipe where that is needed to tell two curves apart.
        kind: of the budget: `train_flops`, `train_seconds` or `train_joules`.
        label: of the reported metric, with its unit; lower is better.
        images: of the test set.
        errors: by budget, ascending, then by seed.
    """

    data: str
    name: str
    recipe: str
    family: str
    kind: str
    label: str
    images: int | None
    errors: dict[float, dict[int, float]]

    @property
    def group(self) -> tuple[str, str, str]:
        """Curves of one group can be compared."""
        return self.data, self.kind, self.label

    @property
    def unit(self) -> str:
        return "points" if "%" in self.label else ""


@dataclass(frozen=True)
class Crossing:
    """Two networks on the same seeds and budgets.

    Attributes:
        budgets: those at which both have these seeds, ascending.
        means: of first minus second over the seeds, by budget.
        points: budgets at which the means cross.
        intervals: 95 % confidence set of the crossing, as disjoint intervals of budgets; None of one seed.
        first_better: probability that the first network's error is the lower one, by budget; see `probability_below`.
    """

    first: Curve
    second: Curve
    seeds: list[int]
    budgets: list[float]
    means: list[float]
    points: list[float]
    intervals: list[tuple[float, float]] | None
    first_better: list[float | None]

    def text(self) -> str:
        """Which network overtakes which, and at what budget."""
        if not any(self.means):
            return "no difference at any budget"
        if not self.points:
            leader = self.first if sum(self.means) < 0 else self.second
            said = f"no crossing within the budgets: {leader.name} better throughout"
            if self.intervals is None:
                return f"{said} ({without_interval(1)})"
            return f"{said}; a crossing {self._intervals()} is not excluded" if self.intervals else said
        places = " and ".join(budget_text(point, self.first.kind) for point in self.points)
        if len(self.points) > 1:
            return f"the means cross {len(self.points)} times, at {places}"
        small, large = self.first.name, self.second.name
        if next(mean for mean in self.means if mean) > 0:
            small, large = large, small
        interval = f"95 %: {self._intervals()}" if self.intervals else without_interval(len(self.seeds))
        return f"{large} overtakes {small} at {places} ({interval})"

    def _intervals(self) -> str:
        return " or ".join(self._interval(*interval) for interval in self.intervals or ())

    def _interval(self, low: float, high: float) -> str:
        """An interval that reaches the first or the last budget may go on beyond it."""
        kind = self.first.kind
        from_first, to_last = low <= self.budgets[0], high >= self.budgets[-1]
        if from_first and to_last:
            return "anywhere"
        if from_first:
            return f"up to {budget_text(high, kind)}"
        if to_last:
            return f"from {budget_text(low, kind)} on"
        return f"{budget_text(low, kind)} to {budget_text(high, kind)}"


def curves(runs: Iterable[Run]) -> list[Curve]:
    """The finished runs with a budget, as curves; of two runs of one network, recipe, budget and seed the later one counts."""
    found: dict[tuple[Any, ...], dict[float, dict[int, Run]]] = {}
    for run in runs:
        budget = run.part("protocol").get("budget") or {}
        limit = number(budget.get("limit"))
        if run.value is None or limit is None or budget.get("kind") not in SPENT:
            continue
        key = (run.data, budget["kind"], run.name, _recipe(run), json.dumps(run.conditions, sort_keys=True))
        seeds = found.setdefault(key, {}).setdefault(limit, {})
        if run.seed not in seeds or str(run.record.get("started")) > str(seeds[run.seed].record.get("started")):
            seeds[run.seed] = run
    result = [_curve(kind, by_budget) for (_, kind, *_), by_budget in found.items()]
    names = [(curve.group, curve.name) for curve in result]
    return [
        replace(curve, name=f"{curve.name} ({curve.recipe})") if names.count((curve.group, curve.name)) > 1 else curve
        for curve in result
    ]


def cross(first: Curve, second: Curve) -> Crossing | None:
    """Compares two curves on the largest set of seeds that some of their budgets share; None where they share nothing."""
    shared: dict[float, set[int]] = {
        budget: first.errors[budget].keys() & second.errors[budget].keys()
        for budget in sorted(first.errors.keys() & second.errors.keys())
    }
    if not any(shared.values()):
        return None
    most: set[int] = max(shared.values(), key=len)
    seeds = sorted(most)
    budgets = [budget for budget, those in shared.items() if those.issuperset(seeds)]
    differences = [[first.errors[budget][seed] - second.errors[budget][seed] for seed in seeds] for budget in budgets]
    x = [math.log(budget) for budget in budgets]
    means = [round(fmean(row), DIGITS) for row in differences]
    intervals, exact = confidence_set(x, differences), dict(zip(x, budgets, strict=True))
    return Crossing(
        first=first,
        second=second,
        seeds=seeds,
        budgets=budgets,
        means=means,
        points=[math.exp(point) for point in sign_changes(x, means)],
        intervals=None if intervals is None else [(_exp(low, exact), _exp(high, exact)) for low, high in intervals],
        first_better=[probability_below(row) for row in differences],
    )


def sign_changes(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """Where the polygon through (x, y) changes its sign; of a stretch of zeros, its middle."""
    points = []
    nonzero = [index for index, value in enumerate(y) if value]
    for left, right in itertools.pairwise(nonzero):
        if y[left] * y[right] > 0:
            continue
        if right == left + 1:
            points.append(x[left] + y[left] / (y[left] - y[right]) * (x[right] - x[left]))
        else:
            points.append((x[left + 1] + x[right - 1]) / 2)
    return points


def confidence_set(x: Sequence[float], differences: Sequence[Sequence[float]]) -> list[tuple[float, float]] | None:
    """All positions at which a paired t-test does not exclude that the mean difference is zero: a 95 % set for the crossing.

    Fieller's argument (1954): at the true crossing the seeds' differences have mean zero, so the set holds it as often as the
    t-test is right: 95 % of the time at any number of seeds (simulated: 94 to 96 % for 2 to 20). A percentile bootstrap over
    seeds holds it in 75 % for 3 seeds and in 92 % for 20.

    Args:
        x: positions, ascending.
        differences: a row per position, a column per seed; linear in between.

    Returns:
        Disjoint intervals, ascending. None of one seed.
    """
    n = len(differences[0])
    if n < 2:
        return None
    factor = t_quantile(n - 1) ** 2 / n
    kept: list[tuple[float, float]] = []
    for (left, right), (here, there) in zip(itertools.pairwise(x), itertools.pairwise(differences), strict=True):
        for low, high in _not_excluded(here, there, factor):
            start, end = (1 - low) * left + low * right, (1 - high) * left + high * right  # exact at 0 and 1
            if kept and start <= kept[-1][1] + 1e-9 * (right - left):
                start = kept.pop()[0]
            kept.append((start, end))
    return kept


def budget_text(budget: float, kind: str) -> str:
    """`120 GFLOPs`, `1 min 30 s`, `1.50 kJ`."""
    if kind == "train_seconds":
        return duration(budget)
    unit = "FLOPs" if kind == "train_flops" else "J"
    text = si(budget)
    return f"{text}{unit}" if " " in text else f"{text} {unit}"


def print_crossovers(found: Sequence[Curve], console: Console | None = None) -> None:
    """Prints, for every data set, the errors by budget, where each pair of networks crosses, and what the seeds can show."""
    console = console or terminal.console()
    for group in dict.fromkeys(curve.group for curve in found):
        here = [curve for curve in found if curve.group == group]
        console.print(_table(here))
        console.print(Text(_legend(here), style="dim"))
        pairs = [pair for pair in itertools.starmap(cross, itertools.combinations(here, 2)) if pair is not None]
        if pairs:
            _print_pairs(console, pairs)
        console.print()


def write_plot(found: Sequence[Curve], path: Path) -> Path:
    """Writes error over budget with seed bands and crossings: one HTML file that opens from disk with no network."""
    import plotly.io

    figures: list[str] = []
    for group in dict.fromkeys(curve.group for curve in found):
        figure = _figure([curve for curve in found if curve.group == group])
        settings = {"displaylogo": False, "responsive": True}
        figures.append(plotly.io.to_html(figure, settings, full_html=False, include_plotlyjs=not figures))
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(path.stem)}</title></head>'
    write_atomic(path, f"{head}<body>{''.join(figures)}</body></html>")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the crossovers of an experiment's runs. Returns 0, or 1 with one line on stderr where there are no such runs."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks crossover",
        description="Print test error by training budget, where each pair of networks crosses with a 95 % interval, and "
        "what the seeds can show; write the same as FOLDER/EXPERIMENT.html.",
        epilog="Needs runs with a budget: python run.py experiment=iso_compute seed=0,1,2",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", default="outputs", help="folder with the runs (default: outputs)"
    )
    parser.add_argument("--experiment", default=EXPERIMENT, help=f"whose runs (default: {EXPERIMENT})")
    arguments = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe without UTF-8 must not stop the table
    try:
        runs, problems = load_runs(arguments.folder)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = curves(run for run in runs if run.record.get("experiment") == arguments.experiment)
    for problem in problems:
        print(f"not read: {problem}", file=sys.stderr)
    if not found:
        said = f"no finished run with a budget of the experiment {arguments.experiment!r} in {arguments.folder}"
        print(f"error: {one_line(said)}: python run.py experiment=iso_compute makes some", file=sys.stderr)
        return 1
    print_crossovers(found)
    path = Path(arguments.folder, f"{Path(arguments.experiment).name}.html")
    print(f"plot      {write_plot(found, path)}")
    return 0


def _curve(kind: str, by_budget: dict[float, dict[int, Run]]) -> Curve:
    run = next(iter(next(iter(by_budget.values())).values()))
    errors = {
        limit: {seed: one.value for seed, one in sorted(seeds.items()) if one.value is not None}
        for limit, seeds in sorted(by_budget.items())
    }
    return Curve(run.data, run.name, _recipe(run), run.family, kind, run.metric_label, run.n, errors)


def _recipe(run: Run) -> str:
    """The recipe with its departures, but for the budget."""
    departures = sorted(run.part("departures").items())
    said = [f"{key.removeprefix('recipe.')}={value}" for key, value in departures if "max_train_" not in key]
    return ", ".join([run.record["recipe"], *said])


def _exp(position: float, exact: dict[float, float]) -> float:
    """The budget at a position; where the runs have one, that to the last bit."""
    return exact.get(position, math.exp(position))


def _not_excluded(here: Sequence[float], there: Sequence[float], factor: float) -> list[tuple[float, float]]:
    """Shares u in [0, 1] at which mean² ≤ factor · variance of (1-u)·here + u·there: a quadratic inequality in u."""
    n, mean, step = len(here), fmean(here), fmean(there) - fmean(here)
    slopes = [b - a for a, b in zip(here, there, strict=True)]
    variance = sum((a - mean) ** 2 for a in here) / (n - 1)
    covariance = sum((a - mean) * (b - step) for a, b in zip(here, slopes, strict=True)) / (n - 1)
    slope_variance = sum((b - step) ** 2 for b in slopes) / (n - 1)
    a, b, c = step**2 - factor * slope_variance, 2 * (mean * step - factor * covariance), mean**2 - factor * variance
    roots = [root for root in _roots(a, b, c) if 0 < root < 1]
    cuts = [0.0, *roots, 1.0]
    return [(low, high) for low, high in itertools.pairwise(cuts) if _value(a, b, c, (low + high) / 2) <= 0]


def _roots(a: float, b: float, c: float) -> list[float]:
    """Real roots of a·u² + b·u + c, ascending, without cancellation."""
    discriminant = b * b - 4 * a * c
    if discriminant < 0 or (a == 0 and b == 0):
        return []
    q = -(b + math.copysign(math.sqrt(discriminant), b)) / 2
    return sorted({*([q / a] if a else []), *([c / q] if q else [])})


def _value(a: float, b: float, c: float, u: float) -> float:
    return (a * u + b) * u + c


def _table(here: Sequence[Curve]) -> Table:
    first = here[0]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.title, table.title_justify = f"{one_line(first.data)}: {one_line(first.label)} by {SPENT[first.kind]}", "left"
    table.add_column("", no_wrap=True)
    table.add_column("model", overflow="fold")
    budgets = sorted({budget for curve in here for budget in curve.errors})
    for budget in budgets:
        table.add_column(budget_text(budget, first.kind), justify="right")
    for curve in here:
        style = family_style(curve.family)
        cells = [_cell(curve.errors.get(budget, {}).values()) for budget in budgets]
        table.add_row(Text(style.glyph, style=style.colour), Text(one_line(curve.name)), *cells)
    return table


def _cell(values: Iterable[float]) -> str:
    values = list(values)
    if not values:
        return MISSING
    interval = mean_interval(values)
    said = (
        without_interval(len(values))
        if interval is None
        else f"[{max(0.0, interval[0]):.2f}, {interval[1]:.2f}], {len(values)} seeds"
    )
    return f"{fmean(values):.2f}\n{said}"


def _legend(here: Sequence[Curve]) -> str:
    said = "Mean over seeds, 95 % interval of the mean. Every run has its recipe's complete schedule."
    first = here[0]
    if "%" in first.label and first.images:
        best = min(fmean(seeds.values()) for curve in here for seeds in curve.errors.values()) / 100
        points = 100 * sampling_error(best, first.images)
        said += f" Of {count(first.images)} test images the best error has a sampling error of {points:.2f} points beside that."
    return said


def _print_pairs(console: Console, pairs: Sequence[Crossing]) -> None:
    compared = [
        compare(
            *(
                {seed: curve.errors[pair.budgets[-1]][seed] for seed in pair.seeds}
                for curve in (pair.first, pair.second)
            )
        )
        for pair in pairs
    ]
    adjusted = holm([comparison.p for comparison in compared])
    console.print()
    console.print(Text("Crossovers, on paired seeds", style="bold"))
    for pair, comparison, p in zip(pairs, compared, adjusted, strict=True):
        first, kind = pair.first, pair.first.kind
        chances = ", ".join(
            f"{_chance(chance)} at {budget_text(budget, kind)}"
            for budget, chance in zip(pair.budgets, pair.first_better, strict=True)
        )
        corrected = f" (Holm over {len(pairs)} pairs: {p:.2g})" if len(pairs) > 1 and comparison.n > 1 else ""
        lines = (
            pair.text(),
            f"probability that {first.name} is the better one: {chances}",
            f"{first.name} at {budget_text(pair.budgets[-1], kind)}: {comparison.text(first.unit)}{corrected}",
        )
        heading = f"{first.name} against {pair.second.name}, seeds {', '.join(map(str, pair.seeds))}"
        console.print(Padding(Text(one_line(heading), style="bold"), (0, 0, 0, 2), expand=False))
        for line in lines:
            console.print(Padding(Text(one_line(line)), (0, 0, 0, 4), expand=False))


def _chance(probability: float | None) -> str:
    if probability is None:
        return MISSING
    return "<0.01" if probability < 0.01 else ">0.99" if probability > 0.99 else f"{probability:.2f}"


def _figure(here: Sequence[Curve]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    for curve in here:
        style, name = family_style(curve.family), one_line(curve.name)
        budgets, seeds = list(curve.errors), [list(by_seed.values()) for by_seed in curve.errors.values()]
        means = [fmean(values) for values in seeds]
        x, high = _between(budgets, [max(values) for values in seeds])
        _, low = _between(budgets, [min(values) for values in seeds])
        figure.add_scatter(
            x=x + x[::-1], y=high + low[::-1], fill="toself", mode="none", fillcolor=style.colour, opacity=0.18,
            hoverinfo="skip", showlegend=False, legendgroup=name,
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=_between(budgets, means)[1], mode="lines", line={"color": style.colour, "dash": style.dash},
            hoverinfo="skip", showlegend=False, legendgroup=name,
        )  # fmt: skip
        figure.add_scatter(
            x=budgets, y=means, name=name, legendgroup=name, mode="markers",
            marker={"symbol": style.symbol, "size": 9, "color": style.colour},
            customdata=[len(values) for values in seeds], hovertemplate="%{y:.2f}, %{customdata} seeds",
        )  # fmt: skip
    for pair in filter(None, itertools.starmap(cross, itertools.combinations(here, 2))):
        if len(pair.points) == 1:
            figure.add_scatter(**_crossing_mark(pair))
    first, ticks = here[0], sorted({budget for curve in here for budget in curve.errors})
    words = [budget_text(budget, first.kind) for budget in ticks]
    subtitle = {"text": "mean over seeds; bands: all seeds; ×: crossings with their 95 % intervals, cut at the budgets"}
    figure.update_xaxes(title=SPENT[first.kind], type="log", tickvals=ticks, ticktext=words)
    errors = [error for curve in here for by_seed in curve.errors.values() for error in by_seed.values()]
    if min(errors) > 0 and max(errors) > 10 * min(errors):
        decades = range(math.floor(math.log10(min(errors))), math.ceil(math.log10(max(errors))) + 1)
        marks = [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
        figure.update_yaxes(type="log", tickvals=marks, ticktext=[f"{mark:g}" for mark in marks])
    figure.update_yaxes(title=one_line(first.label), rangemode="tozero")
    figure.update_layout(
        template="plotly_white", title={"text": one_line(first.data), "subtitle": subtitle}, height=680
    )
    return figure


def _between(budgets: Sequence[float], errors: Sequence[float]) -> tuple[list[float], list[float]]:
    """The curve with points between its budgets: linear in the logarithm of the budget, so bent on a logarithmic error axis."""
    x, y = [budgets[0]], [errors[0]]
    for (left, right), (start, end) in zip(itertools.pairwise(budgets), itertools.pairwise(errors), strict=True):
        for share in (step / DRAWN for step in range(1, DRAWN + 1)):
            x.append(left * (right / left) ** share)
            y.append(start + share * (end - start))
    return x, y


def _crossing_mark(pair: Crossing) -> dict[str, Any]:
    """A cross where two means meet, and a line along the confidence set's part around it."""
    [point] = pair.points
    [index] = [i for i, (low, high) in enumerate(itertools.pairwise(pair.budgets)) if low <= point < high] or [-2]
    low, high = pair.budgets[index], pair.budgets[index + 1]
    ends = [fmean(pair.first.errors[budget][seed] for seed in pair.seeds) for budget in (low, high)]
    height = ends[0] + (ends[1] - ends[0]) * math.log(point / low) / math.log(high / low)
    around = [interval for interval in pair.intervals or () if interval[0] <= point <= interval[1]] or [(point, point)]
    return {
        "x": [point], "y": [height], "mode": "markers", "showlegend": False,
        "marker": {"symbol": "x-thin", "size": 10, "line": {"width": 2, "color": "#333"}},
        "error_x": {"array": [around[0][1] - point], "arrayminus": [point - around[0][0]], "color": "#333"},
        "hovertext": one_line(pair.text()), "hoverinfo": "text",
    }  # fmt: skip
