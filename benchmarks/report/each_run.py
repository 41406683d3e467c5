"""What the page has of each run by itself: its row, its curve, its details, and what the charts know of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from benchmarks.analysis.seeds import shared_overrides, short_labels
from benchmarks.records.files import below
from benchmarks.records.runs import Run, overrides_text
from benchmarks.records.second_process import begin
from benchmarks.report.kept_curves import KeptCurves
from benchmarks.report.learning_curves import curves_of
from benchmarks.report.quantities import ERROR, MODEL, RECIPE, RUN_COLUMNS, STATUS, RunColumn, result_title
from benchmarks.report.rendering import render_macro, script_json
from benchmarks.report.run_details import pooled_details
from benchmarks.report.style import legend_key, look_of
from benchmarks.report.tables import Cell, Table
from benchmarks.units import grouped, one_line, score_label


@dataclass(frozen=True)
class EachRun:
    """Parts of the page, as text where it holds them as they are.

    Attributes:
        table: the section of the table of runs.
        drawn: JSON of `drawn_runs` and of the points of `curves_of`.
        together, problems: of `curves_of`.
        details: JSON of `pooled_details`.
    """

    table: Markup
    drawn: Markup
    together: list[list[tuple[int, ...]]]
    problems: list[str]
    details: Markup


def each_run(root: Path, runs: Sequence[Run], keep: bool) -> EachRun:
    """Return what the page has of each run; with ``keep`` the curves are kept for the next page."""
    kept = KeptCurves(root, runs)
    curves = curves_of(runs, kept.read)
    if keep:
        kept.write()
    table = render_macro("table_section", table_of_runs(runs).filled()) if runs else Markup()
    drawn = script_json({"runs": drawn_runs(root, runs), "curves": curves.points})
    return EachRun(table, drawn, curves.together, curves.problems, script_json(pooled_details(runs)))


def begin_each_run(root: Path, runs: Sequence[Run], keep: bool) -> Callable[[], EachRun]:
    """Begin `each_run` in another process, where that is worth it, and return what waits for its result."""
    return begin(partial(each_run, root, runs, keep), len(runs))


def table_of_runs(runs: Sequence[Run]) -> Table:
    """Return every run with every column; its first cell marks the run in the charts and opens its details.

    What all runs override stands once, above the rows.
    """
    shared = shared_overrides(runs)
    rows = []
    for index, run in enumerate(runs):
        own = overrides_text(run.part("overrides"), but=shared)
        more: dict[str, dict[str, Any]] = {
            MODEL.title: {"look": look_of(run), "run": index, "hint": run.label},
            RECIPE.title: {"text": ", ".join(filter(None, (run.record["recipe"], own)))},
            ERROR.title: {"hint": score_label(run.metric_label)},
            STATUS.title: {"status": run.state},
        }
        rows.append([_cell(column, run, **more.get(column.title, {})) for column in RUN_COLUMNS])
    in_all = f" In all runs: {one_line(overrides_text(shared))}." if shared else ""
    lead = f"A run’s name opens its details, its box marks it in the charts.{in_all}"
    heads = {result_title(runs) if column is ERROR else column.title: column.number for column in RUN_COLUMNS}
    numbers = [head for head, number in heads.items() if number]
    return Table("Runs", list(heads), rows, numbers, lead, of_runs=True, name="table")


def _cell(column: RunColumn, of: Run, text: str = "", **more: Any) -> Cell:
    """Return a run's cell of a column, with another text where one is given."""
    return Cell(text or column.text(of), column.value(of), **more)


def drawn_runs(root: Path, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return what the charts know of each run; `path`, its folder below `root`, names it in the page's address."""
    labels: dict[int, str] = {}
    for members in grouped(runs, lambda run: run.data).values():
        labels |= dict(zip(map(id, members), short_labels(members), strict=True))
    return [
        {
            "label": one_line(labels[id(run)]),
            "family": legend_key(run),
            "status": run.state,
            "error": run.value,
            "path": one_line(below(root, run.directory)),
        }
        for run in runs
    ]
