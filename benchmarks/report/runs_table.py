"""The table of runs in the terminal, or a published one beside them: `python -m benchmarks report [TABLE] [OUTPUT_ROOT]`."""

import argparse
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from benchmarks import terminal
from benchmarks.analysis import published
from benchmarks.analysis.published import PublishedTable
from benchmarks.analysis.reproduction import lines
from benchmarks.analysis.seeds import shared_overrides
from benchmarks.records.runs import Run, load_runs, overrides_text, uncollected
from benchmarks.report import iso_compute, sections
from benchmarks.report.each_run import begin_each_run
from benchmarks.report.forecasts import comparison, with_forecasts
from benchmarks.report.page import write_page
from benchmarks.report.published_table import print_list, print_published, write_files
from benchmarks.report.quantities import DATA, ERROR, MODEL, RECIPE, RUN_COLUMNS, STATUS, result_title
from benchmarks.report.style import look_of
from benchmarks.report.tables import Cell, Row, Table, print_table
from benchmarks.units import grouped, one_line, score_label


@uncollected()
def print_runs(runs: Sequence[Run], console: Console | None = None) -> None:
    """Print the runs as a table, then what a row has no room for: means over seeds, baselines, causes of failure.

    On a terminal the table takes the terminal's width; elsewhere it is plain text of a fixed width.
    """
    console = console or terminal.console()
    if not runs:
        console.print("No runs yet.")
        return
    said = shared_overrides(runs)
    print_table(_table(runs[: terminal.MOST], said), console, len(runs))
    console.print(Text(_legend(runs, said), style="dim"))
    below = [
        sections.uncounted(runs),
        sections.means(runs, said),
        sections.network_differences(runs, said),
        sections.baselines(runs),
        sections.alone(runs),
    ]
    for table in [*below, *sections.scaling(runs), *sections.scores(runs), sections.not_finished(runs)]:
        if table.rows:
            print_table(table, console)
    if (compared := comparison(runs)) is not None:
        console.print(Text(f"\n{compared}"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``report``."""
    parser.description = (
        "Print a table of the runs below OUTPUT_ROOT: parameters, MACs of one image, FLOPs spent on training, test error and "
        "the number of test images it was measured on, wall time and status; then means over seeds, baselines and the causes "
        "of failures. With a TABLE of the papers: its rows beside our runs, with intervals, differences, verdicts, what "
        "differs from the paper, and cost; also written as Markdown, LaTeX and CSV. With iso_compute: test error by training "
        "budget, where each pair of networks crosses with a 95 % interval, and what the seeds can show; also drawn in "
        "OUTPUT_ROOT/iso_compute.html."
    )
    parser.epilog = (
        "Read from each run's record.json, also while runs are in progress. Writes OUTPUT_ROOT/report.html anew. Records that "
        "cannot be read are named on stderr.\niso_compute needs runs with a budget: python run.py experiment=iso_compute "
        "seed=0,1,2"
    )
    parser.add_argument(
        "places",
        metavar="[TABLE] [OUTPUT_ROOT]",
        nargs="*",
        help="a published table (--list names them) or iso_compute, and the folder with the runs (default: outputs)",
    )
    parser.add_argument("--list", action="store_true", help="the published tables, and how much of each has been run")
    parser.add_argument("--row", action="append", default=[], help="of TABLE; may be given several times")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where a record cannot be read")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="the page or, of iso_compute, the plot, and no other file"
    )


@uncollected()
def run(arguments: argparse.Namespace) -> int:
    """Print the table of OUTPUT_ROOT, or a published one; return 0, or 1 with ``--strict`` where a record cannot be read.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the file that ``--out`` names cannot be written.
        ValueError: there is no such table or row.
    """
    name, table, root = _chosen(arguments)
    console = terminal.console()
    if arguments.list:
        print_list(root, console)
        return 0
    if table is not None and len(arguments.places) == 1 and not root.is_dir():  # nothing has been run yet
        print_published(table, lines(table, ()), console)
        return 0
    runs, problems = load_runs(root)
    for problem in problems:
        print(f"not read: {problem}", file=sys.stderr)
    each = None
    if name != iso_compute.EXPERIMENT:
        each = begin_each_run(root, runs, keep=arguments.out is None)
    try:
        if name == iso_compute.EXPERIMENT:
            iso_compute.report(runs, root, arguments.out)
        elif table is not None:
            compared = with_forecasts(lines(table, runs), table, root)
            print_published(table, compared, console)
            for number, path in enumerate(() if arguments.out else write_files(table, compared, root)):
                print(f"{'' if number else chr(10)}{path.suffix[1:]:<9} {path}")
        else:
            print_runs(runs)
        if name != iso_compute.EXPERIMENT:
            print(f"\npage      {write_page(root, (runs, problems), arguments.out, each)}")
    except OSError as error:  # another's folder may be for reading only; the table stands above
        if arguments.out:
            raise
        print(f"the page was not written: {error.strerror or error}; --out FILE writes it elsewhere", file=sys.stderr)
    return 1 if problems and arguments.strict else 0


def _chosen(arguments: argparse.Namespace) -> tuple[str, PublishedTable | None, Path]:
    """Return the name of the table that is asked for, if any, the rows of a published one, and the folder of the runs.

    Raises:
        ValueError: an unknown table or row.
    """
    names = [*published.tables(), iso_compute.EXPERIMENT]
    name, *places = (
        arguments.places if arguments.places[:1] and arguments.places[0] in names else ("", *arguments.places)
    )
    if places and not name and not Path(places[0]).is_dir():
        raise ValueError(f"no table and no folder {places[0]!r}; the tables are {', '.join(names)}")
    if len(places) > 1:
        raise ValueError(f"report takes a table and one folder after it, not {' '.join(places)!r}")
    table = published.tables().get(name)
    if arguments.row and table is None:
        raise ValueError("--row needs a table: report TABLE --row ROW")
    if table is not None and arguments.row:
        table = table.pick(arguments.row)
    return name, table, Path(places[0] if places else "outputs")


def _table(runs: Sequence[Run], said: Container[str]) -> Table:
    """Return the table of runs for a terminal: a data set is a row above its runs, a recipe a second line of the model."""
    shown = [column for column in RUN_COLUMNS if column not in (DATA, RECIPE)]
    several_data = len({run.data for run in runs}) > 1
    rows: list[Row] = []
    previous = ""
    for run, note in zip(runs, _recipe_notes(runs, said), strict=True):
        if several_data and run.data != previous:
            rows.append([Cell(run.data, style="bold"), *[""] * (len(shown) - 1)])
        previous = run.data
        model = Cell("\n".join(filter(None, (run.name, note))), look=look_of(run))
        texts = [column.text(run) for column in shown if column not in (MODEL, STATUS)]
        rows.append([model, *texts, Cell(run.state, status=run.state)])
    result = result_title(runs).replace(" ", "\n")
    heads = {result if column is ERROR else column.short or column.title: column.number for column in shown}
    return Table("", list(heads), rows, [head for head, number in heads.items() if number])


def _recipe_notes(runs: Sequence[Run], said: Container[str]) -> list[str]:
    """Return a note on each run's recipe: overrides but those of `said`, and its name where a family has more than one."""
    recipes = {(run.data, run.family, run.record["recipe"]) for run in runs}
    several = len(recipes) > len({(run.data, run.family) for run in runs})
    notes = []
    for run in runs:
        own = overrides_text(run.part("overrides"), but=said)
        notes.append(one_line(", ".join(filter(None, (run.record["recipe"] if several else "", own)))))
    return notes


def _legend(runs: Sequence[Run], said: Mapping[str, Any]) -> str:
    labels = grouped((run for run in runs if run.metric), lambda run: one_line(score_label(run.metric_label)))
    metrics = [
        f"{label} on {', '.join(dict.fromkeys(one_line(run.data) for run in same))}" if len(labels) > 1 else label
        for label, same in labels.items()
    ]
    in_all = f"In all runs: {one_line(overrides_text(said))}. " if said else ""
    reported = f"Reported: {'; '.join(metrics)}. " if metrics else ""
    return (
        f"{in_all}{reported}n: test images. MACs: multiply-adds of one image. "
        "train FLOPs: forward and backward passes of the training so far."
    )
