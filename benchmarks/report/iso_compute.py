"""Where one network overtakes another as the training budget grows, as tables."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from benchmarks import terminal
from benchmarks.analysis.crossover import EXPERIMENT, SPENT, Crossing, Curve, budget_text, cross, curves
from benchmarks.analysis.error_rates import holm
from benchmarks.analysis.estimates import Estimate, compare
from benchmarks.records.runs import Run, debugging_left_out
from benchmarks.report.crossover_view import write_plot
from benchmarks.report.style import look_of
from benchmarks.report.tables import Cell, Table, print_table
from benchmarks.units import MISSING, grouped, one_line


def print_crossovers(curves: Sequence[Curve], console: Console | None = None) -> None:
    """Print, for every data set, the errors by budget, where each pair of networks crosses, and what the seeds can show."""
    console = console or terminal.console()
    for members in grouped(curves, lambda curve: curve.group).values():
        print_table(_table(members), console)
        console.print(Text(_legend(members), style="dim"))
        pairs = [pair for pair in itertools.starmap(cross, itertools.combinations(members, 2)) if pair is not None]
        if pairs:
            _print_pairs(console, pairs)
        console.print()


def report(runs: Iterable[Run], folder: Path, out: Path | None = None) -> None:
    """Print the crossovers of the experiment's runs in a folder, and draw them in ``out``, or ``<folder>/iso_compute.html``.

    Raises:
        ValueError: there is no finished run of the experiment with a budget.
    """
    of_experiment = [run for run in runs if run.record.get("experiment") == EXPERIMENT]
    all_curves = curves(of_experiment)
    if not all_curves:
        raise ValueError(
            f"no finished run with a budget of the experiment {EXPERIMENT!r} in {folder}{debugging_left_out(of_experiment)}: "
            f"python run.py experiment={EXPERIMENT} makes some"
        )
    print_crossovers(all_curves)
    print(f"plot      {write_plot(all_curves, out or folder / f'{EXPERIMENT}.html')}")


def _table(curves: Sequence[Curve]) -> Table:
    first = curves[0]
    budgets = sorted({budget for curve in curves for budget in curve.errors})
    titles = [budget_text(budget, first.kind) for budget in budgets]
    rows = [
        [Cell(curve.name, look=look_of(curve)), *(_cell(curve.estimates.get(budget)) for budget in budgets)]
        for curve in curves
    ]
    title = f"{first.data}: {first.label} by {SPENT[first.kind]}"
    return Table(title, ("model", *titles), rows, titles)


def _cell(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell(MISSING)
    seeds = "" if estimate.interval is None else f", {estimate.n} seeds"
    basis = f"\n{estimate.basis_text}" if estimate.basis_text else ""
    return Cell(f"{estimate.mean:.2f}\n{estimate.interval_text}{seeds}{basis}")


def _legend(curves: Sequence[Curve]) -> str:
    text = "Mean over seeds, 95 % interval of the mean. Every run has its recipe's complete schedule."
    if any(one.interval and not one.test_set for curve in curves for one in curve.estimates.values()):
        text += " Seeds alone: runs without stored outcomes tell nothing of other test images."
    return text


def _print_pairs(console: Console, pairs: Sequence[Crossing]) -> None:
    compared = [compare(*(curve.estimates[pair.budgets[-1]] for curve in (pair.first, pair.second))) for pair in pairs]
    adjusted = holm([comparison.p for comparison in compared])
    console.print()
    console.print(Text("Crossovers, on the same test images", style="bold"))
    for pair, comparison, p in zip(pairs, compared, adjusted, strict=True):
        first, kind = pair.first, pair.first.kind
        chances = ", ".join(
            f"{_chance(chance)} at {budget_text(budget, kind)}"
            for budget, chance in zip(pair.budgets, pair.first_better, strict=True)
        )
        difference = comparison.text(first.unit, p, len(pairs))
        lines = (
            pair.text(),
            f"probability that {first.name} is the better one: {chances}",
            f"{first.name} at {budget_text(pair.budgets[-1], kind)}: {difference}",
        )
        heading = f"{first.name} against {pair.second.name}"
        console.print(Padding(Text(one_line(heading), style="bold"), (0, 0, 0, 2), expand=False))
        for line in lines:
            console.print(Padding(Text(one_line(line)), (0, 0, 0, 4), expand=False))


def _chance(probability: float | None) -> str:
    if probability is None:
        return MISSING
    return "<0.01" if probability < 0.01 else ">0.99" if probability > 0.99 else f"{probability:.2f}"
