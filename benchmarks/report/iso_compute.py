"""Where one network overtakes another as the training budget grows, as tables."""

import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks import terminal
from benchmarks.analysis.crossover import EXPERIMENT, SPENT, Crossing, Curve, budget_text, cross, curves
from benchmarks.analysis.statistics import compare, holm, mean_interval, sampling_error, without_interval
from benchmarks.records.runs import load_runs
from benchmarks.report.crossover_view import write_plot
from benchmarks.report.style import family_style
from benchmarks.units import MISSING, count, one_line

NAME = EXPERIMENT  # in the place of a published table's


def print_crossovers(curves: Sequence[Curve], console: Console | None = None) -> None:
    """Print, for every data set, the errors by budget, where each pair of networks crosses, and what the seeds can show."""
    console = console or terminal.console()
    for group in dict.fromkeys(curve.group for curve in curves):
        members = [curve for curve in curves if curve.group == group]
        console.print(_table(members))
        console.print(Text(_legend(members), style="dim"))
        pairs = [pair for pair in itertools.starmap(cross, itertools.combinations(members, 2)) if pair is not None]
        if pairs:
            _print_pairs(console, pairs)
        console.print()


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


def _table(curves: Sequence[Curve]) -> Table:
    first = curves[0]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.title, table.title_justify = f"{one_line(first.data)}: {one_line(first.label)} by {SPENT[first.kind]}", "left"
    table.add_column("", no_wrap=True)
    table.add_column("model", overflow="fold")
    budgets = sorted({budget for curve in curves for budget in curve.errors})
    for budget in budgets:
        table.add_column(budget_text(budget, first.kind), justify="right")
    for curve in curves:
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


def _legend(curves: Sequence[Curve]) -> str:
    text = "Mean over seeds, 95 % interval of the mean. Every run has its recipe's complete schedule."
    first = curves[0]
    if "%" in first.label and first.images:
        best = min(fmean(seeds.values()) for curve in curves for seeds in curve.errors.values()) / 100
        points = 100 * sampling_error(best, first.images)
        text += f" Of {count(first.images)} test images the best error has a sampling error of {points:.2f} points beside that."
    return text


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
