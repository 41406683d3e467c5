"""Where one network overtakes another as the training budget grows: table and plot."""

import itertools
import math
import sys
from collections.abc import Iterable, Sequence
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
from benchmarks.analysis.crossover import EXPERIMENT, SPENT, Crossing, Curve, budget_text, cross, curves
from benchmarks.analysis.statistics import compare, holm, mean_interval, sampling_error, without_interval
from benchmarks.records.files import write_atomic
from benchmarks.records.runs import load_runs
from benchmarks.report.style import family_style
from benchmarks.units import MISSING, count, one_line

NAME = EXPERIMENT  # in the place of a published table's
DRAWN = 40  # points of a curve from one budget to the next


def print_crossovers(all_curves: Sequence[Curve], console: Console | None = None) -> None:
    """Prints, for every data set, the errors by budget, where each pair of networks crosses, and what the seeds can show."""
    console = console or terminal.console()
    for group in dict.fromkeys(curve.group for curve in all_curves):
        here = [curve for curve in all_curves if curve.group == group]
        console.print(_table(here))
        console.print(Text(_legend(here), style="dim"))
        pairs = [pair for pair in itertools.starmap(cross, itertools.combinations(here, 2)) if pair is not None]
        if pairs:
            _print_pairs(console, pairs)
        console.print()


def write_plot(all_curves: Sequence[Curve], path: Path) -> Path:
    """Writes error over budget with seed bands and crossings: one HTML file that opens from disk with no network."""
    import plotly.io

    figures: list[str] = []
    for group in dict.fromkeys(curve.group for curve in all_curves):
        figure = _figure([curve for curve in all_curves if curve.group == group])
        settings = {"displaylogo": False, "responsive": True}
        figures.append(plotly.io.to_html(figure, settings, full_html=False, include_plotlyjs=not figures))
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(path.stem)}</title></head>'
    write_atomic(path, f"{head}<body>{''.join(figures)}</body></html>")
    return path


def report(folder: Path, experiment: str) -> list[str]:
    """Print the crossovers of an experiment's runs, write ``<folder>/<experiment>.html``, and return the unreadable records.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no finished run of the experiment with a budget.
    """
    runs, problems = load_runs(folder)
    for problem in problems:
        print(f"not read: {problem}", file=sys.stderr)
    all_curves = curves(run for run in runs if run.record.get("experiment") == experiment)
    if not all_curves:
        raise ValueError(
            f"no finished run with a budget of the experiment {experiment!r} in {folder}: "
            "python run.py experiment=iso_compute makes some"
        )
    print_crossovers(all_curves)
    print(f"plot      {write_plot(all_curves, folder / f'{Path(experiment).name}.html')}")
    return problems


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
    interval_text = (
        without_interval(len(values))
        if interval is None
        else f"[{max(0.0, interval[0]):.2f}, {interval[1]:.2f}], {len(values)} seeds"
    )
    return f"{fmean(values):.2f}\n{interval_text}"


def _legend(here: Sequence[Curve]) -> str:
    legend = "Mean over seeds, 95 % interval of the mean. Every run has its recipe's complete schedule."
    first = here[0]
    if "%" in first.label and first.images:
        best = min(fmean(seeds.values()) for curve in here for seeds in curve.errors.values()) / 100
        points = 100 * sampling_error(best, first.images)
        legend += (
            f" Of {count(first.images)} test images the best error has a sampling error of {points:.2f} points besides."
        )
    return legend


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
