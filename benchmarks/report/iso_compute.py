"""Where one network overtakes another as the training budget grows, as tables."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from benchmarks import terminal
from benchmarks.analysis.crossover import EXPERIMENT, SPENT, Crossing, Curve, budget_text, cross, curves
from benchmarks.analysis.statistics import compare, holm, mean_interval, sampling_error, without_interval
from benchmarks.records.runs import Run
from benchmarks.report.crossover_view import write_plot
from benchmarks.report.style import look_of
from benchmarks.report.tables import Cell, Table, print_table
from benchmarks.units import MISSING, count, one_line

NAME = EXPERIMENT  # in the place of a published table's


def print_crossovers(curves: Sequence[Curve], console: Console | None = None) -> None:
    """Print, for every data set, the errors by budget, where each pair of networks crosses, and what the seeds can show."""
    console = console or terminal.console()
    for group in dict.fromkeys(curve.group for curve in curves):
        members = [curve for curve in curves if curve.group == group]
        print_table(_table(members), console)
        console.print(Text(_legend(members), style="dim"))
        pairs = [pair for pair in itertools.starmap(cross, itertools.combinations(members, 2)) if pair is not None]
        if pairs:
            _print_pairs(console, pairs)
        console.print()


def report(runs: Iterable[Run], folder: Path) -> None:
    """Print the crossovers of the experiment's runs in a folder, and write ``<folder>/iso_compute.html``.

    Raises:
        ValueError: there is no finished run of the experiment with a budget.
    """
    all_curves = curves(run for run in runs if run.record.get("experiment") == EXPERIMENT)
    if not all_curves:
        raise ValueError(
            f"no finished run with a budget of the experiment {EXPERIMENT!r} in {folder}: "
            f"python run.py experiment={EXPERIMENT} makes some"
        )
    print_crossovers(all_curves)
    print(f"plot      {write_plot(all_curves, folder / f'{EXPERIMENT}.html')}")


def _table(curves: Sequence[Curve]) -> Table:
    first = curves[0]
    budgets = sorted({budget for curve in curves for budget in curve.errors})
    titles = [budget_text(budget, first.kind) for budget in budgets]
    rows = [
        [Cell(curve.name, look=look_of(curve)), *(_cell(curve.errors.get(budget, {}).values()) for budget in budgets)]
        for curve in curves
    ]
    title = f"{first.data}: {first.label} by {SPENT[first.kind]}"
    return Table(title, ("model", *titles), rows, titles)


def _cell(values: Iterable[float]) -> Cell:
    values = list(values)
    if not values:
        return Cell(MISSING)
    interval = mean_interval(values)
    interval_text = (
        without_interval(len(values))
        if interval is None
        else f"[{max(0.0, interval[0]):.2f}, {interval[1]:.2f}], {len(values)} seeds"
    )
    return Cell(f"{fmean(values):.2f}\n{interval_text}")


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
