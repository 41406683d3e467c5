"""The table of runs in the terminal, or a published one beside them: `python -m benchmarks report [TABLE] [OUTPUT_ROOT]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks import terminal
from benchmarks.analysis import published
from benchmarks.analysis.differences import differences
from benchmarks.analysis.published import Table as Published
from benchmarks.analysis.reproduction import lines
from benchmarks.analysis.seeds import baseline_comparisons, seed_groups, short_labels
from benchmarks.records.runs import Run, load_runs
from benchmarks.report import iso_compute
from benchmarks.report.forecasts import comparison
from benchmarks.report.page import write_page
from benchmarks.report.page_tables import score_text
from benchmarks.report.published_table import print_list, write_files
from benchmarks.report.published_table import print_table as print_published
from benchmarks.report.style import family_style
from benchmarks.units import count, duration, number, one_line, si

# Below this width a data set is a heading and a recipe a second line of its row; from it on they are columns.
WIDE = 120

NUMBERS = ("seed", "params", "MACs", "train\nFLOPs", "test\nerror", "n", "wall\ntime")
PAGE_UP_TO = 2_000  # runs without being asked: beyond, the page takes longer than the table
STATUS_STYLES = {"ok": "green", "running": "cyan", "failed": "bold red", "interrupted": "yellow", "preempted": "yellow"}


def print_table(runs: Sequence[Run], console: Console | None = None) -> None:
    """Print the runs as a table, then what a row has no room for: means over seeds, baselines, causes of failure.

    On a terminal the table takes the terminal's width; elsewhere it is plain text of a fixed width.
    """
    console = console or terminal.console()
    if not runs:
        console.print("No runs yet.")
        return
    if len(runs) > terminal.STYLED:
        console.print(_plain_table(runs), soft_wrap=True, markup=False)
    else:
        table = _table(runs, console.width)
        if console.measure(table, options=console.options.update(width=1000)).maximum > console.width:
            table.padding = 0
        console.print(table)
    console.print(Text(_legend(runs), style="dim"))
    sections = (
        ("Means over seeds, ± standard deviation [95 % interval of the mean]", _means(runs)),
        ("Differences between networks on the same seeds", _differences(runs)),
        ("Baselines", _baselines(runs)),
        ("Networks alone, as python -m benchmarks throughput measured them", _alone(runs)),
    )
    for title, rows in sections:
        if rows:
            _print_section(console, title, rows)
    for data in dict.fromkeys(run.data for run in runs):
        scored = [run for run in runs if run.data == data and published.scores_of(run)]
        if scored:
            _print_scores(console, scored)
    if (compared := comparison(runs)) is not None:
        console.print()
        console.print(Text(compared))
    failures = [run for run in runs if run.status in ("failed", "interrupted", "preempted")]
    if failures:
        rows = [
            [
                Text(one_line(text))
                for text in (run.data, label, f"{run.status}: {run.error or 'no cause was recorded'}")
            ]
            for run, label in zip(failures, short_labels(failures), strict=True)
        ]
        _print_section(console, "Not finished", rows)


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
        "Read from each run's record.json, also while runs are in progress. Writes OUTPUT_ROOT/report.html anew for up to "
        f"{PAGE_UP_TO:,} runs. Records that cannot be read are named on stderr. iso_compute needs runs with a budget: python "
        "run.py experiment=iso_compute seed=0,1,2"
    )
    parser.add_argument(
        "places",
        metavar="[TABLE] [OUTPUT_ROOT]",
        nargs="*",
        help="a published table (--list names them) or iso_compute, and the folder with the runs (default: outputs)",
    )
    parser.add_argument("--list", action="store_true", help="the published tables, and how much of each has been run")
    parser.add_argument("--row", action="append", default=[], help="of TABLE; may be given several times")
    parser.add_argument("--experiment", help="for iso_compute: whose runs (default: iso_compute)")
    parser.add_argument("--page", action="store_true", help=f"write the page of more than {PAGE_UP_TO:,} runs too")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where a record cannot be read")


def run(arguments: argparse.Namespace) -> int:
    """Print the table of OUTPUT_ROOT, or a published one; return 0, or 1 with ``--strict`` where a record cannot be read.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no such table or row.
    """
    if arguments.places[:1] == [iso_compute.NAME]:
        folder = _one_folder(arguments.places[1:])
        problems = iso_compute.report(folder, arguments.experiment or iso_compute.NAME)
        return 1 if problems and arguments.strict else 0
    if arguments.experiment:
        raise ValueError(f"--experiment needs {iso_compute.NAME}: report {iso_compute.NAME} --experiment NAME")
    named, root = _chosen(arguments)
    table = named and named.pick(arguments.row) if arguments.row else named
    if arguments.list:
        print_list(root, terminal.console())
        return 0
    if table is not None and not arguments.places[1:] and not root.is_dir():  # nothing has been run yet
        print_published(table, lines(table, ()), terminal.console())
        return 0
    runs, problems = load_runs(root)
    if table is None:
        print_table(runs)
    else:
        _print_published(table, runs, root)
    for problem in problems:
        print(f"not read: {problem}", file=sys.stderr)
    if arguments.page or len(runs) <= PAGE_UP_TO:
        print(f"\npage      {write_page(root, (runs, problems))}")
    else:
        print(f"\npage      not written for {len(runs):,} runs; --page writes it")
    return 1 if problems and arguments.strict else 0


def _one_folder(places: Sequence[str]) -> Path:
    if len(places) > 1:
        raise ValueError(f"one folder of runs, got {' '.join(places)}")
    return Path(places[0] if places else "outputs")


def _chosen(arguments: argparse.Namespace) -> tuple[Published | None, Path]:
    """Return the published table, if one is named, and the folder of the runs.

    Raises:
        ValueError: an unknown table.
    """
    places = list(arguments.places)
    table = published.tables().get(places[0]) if places else None
    if table is not None:
        places.pop(0)
    if len(places) > 1 or (places and table is None and not Path(places[0]).is_dir()):
        known = ", ".join([*published.tables(), iso_compute.NAME])
        raise ValueError(f"no table and no folder {places[0]!r}; the tables are {known}")
    if arguments.row and table is None:
        raise ValueError("--row needs a table: report TABLE --row ROW")
    if table is not None and not table.rows:
        raise ValueError(f"{table.name} needs {table.needs}, which is not here")
    return table, Path(places[0] if places else "outputs")


def _print_published(table: Published, runs: Sequence[Run], root: Path) -> None:
    compared = lines(table, runs)
    print_published(table, compared, terminal.console())
    print()
    for path in write_files(table, compared, root):
        print(f"{path.suffix[1:]:<9} {path}")


def _plain_table(runs: Sequence[Run]) -> str:
    """Return every run on a line; a data set and a recipe are columns."""
    header = ["data", "model", "recipe", *(header.replace("\n", " ") for header in NUMBERS), "status"]
    rows = [[one_line(run.data), one_line(run.name), one_line(run.recipe), *_numbers(run), run.status] for run in runs]
    return terminal.aligned([header, *rows], range(3, 3 + len(NUMBERS)))


def _numbers(run: Run) -> list[str]:
    """Return the texts of NUMBERS."""
    costs = [si(run.parameters), si(run.macs), si(run.train_flops)]
    return [str(run.seed), *costs, run.value_text, count(run.n), duration(run.wall_s)]


def _table(runs: Sequence[Run], width: int) -> Table:
    wide = width >= WIDE
    several_data = len({run.data for run in runs}) > 1
    notes = _recipe_notes(runs)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    if several_data and wide:
        table.add_column("data", overflow="fold")
    table.add_column("", no_wrap=True)
    table.add_column("model", overflow="fold", min_width=14)
    if any(notes) and wide:
        table.add_column("recipe", overflow="fold", min_width=14)
    for header in NUMBERS:
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)

    previous = runs[0].data
    for index, (run, note) in enumerate(zip(runs, notes, strict=True)):
        if run.data != previous:
            table.add_section()
        if several_data and not wide and (index == 0 or run.data != previous):
            table.add_row("", Text(one_line(run.data), style="bold"))
        previous = run.data
        style = family_style(run.family)
        model = Text(one_line(run.name))
        if note and not wide:
            model.append(f"\n{note}", style="dim")
        cells: list[Text | str] = [Text(one_line(run.data))] if several_data and wide else []
        cells += [Text(style.glyph, style=style.colour), model]
        if any(notes) and wide:
            cells.append(Text(note))
        table.add_row(*cells, *_numbers(run), Text(run.status, style=STATUS_STYLES[run.status]))
    return table


def _recipe_notes(runs: Sequence[Run]) -> list[str]:
    """Return a note on each run's recipe: its overrides, and its name where a family has more than one."""
    recipes: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        recipes.setdefault((run.data, run.family), set()).add(run.record["recipe"])
    several = any(len(names) > 1 for names in recipes.values())
    return [one_line(run.recipe if several else run.overrides) for run in runs]


def _legend(runs: Sequence[Run]) -> str:
    labels: dict[str, list[str]] = {}
    for run in runs:
        if run.metric:
            names = labels.setdefault(one_line(run.metric_label), [])
            if run.data not in names:
                names.append(run.data)
    metrics = [
        f"{label} on {', '.join(map(one_line, names))}" if len(labels) > 1 else label for label, names in labels.items()
    ]
    reported = f"Reported: {'; '.join(metrics)}. " if metrics else ""
    return (
        f"{reported}n: test images. MACs: multiply-adds of one image. "
        "train FLOPs: forward and backward passes of the training so far."
    )


def _means(runs: Sequence[Run]) -> list[list[Text]]:
    groups = seed_groups(runs)
    labels = short_labels([group.runs[0] for group in groups], seeds=False)
    return [
        [
            Text(one_line(group.runs[0].data)),
            Text(one_line(label)),
            Text(group.text, style="bold"),
            Text(group.interval_text),
            Text(
                f"{group.seeds_text}, n = {count(group.runs[0].n)}"
                + (f"; sampling of the test images {group.sampling_text}" if group.sampling_text else "")
            ),
        ]
        for group, label in zip(groups, labels, strict=True)
    ]


def _differences(runs: Sequence[Run]) -> list[list[Text]]:
    if len(runs) > terminal.STYLED:  # so many pairs would hide the rest
        return []
    return [
        [
            Text(one_line(difference.data)),
            Text(one_line(f"{difference.first} against {difference.second}")),
            Text(difference.text),
        ]
        for difference in differences(runs)
    ]


def _baselines(runs: Sequence[Run]) -> list[list[Text]]:
    rows = []
    for beside in baseline_comparisons(runs):
        figures = [(f"{beside.method} (baseline)", beside.value), *beside.nets]
        for data, (label, figure) in zip([beside.data, *[""] * len(beside.nets)], figures, strict=True):
            rows.append([Text(one_line(data)), Text(one_line(label)), Text(f"{one_line(beside.metric)} {figure:.3f}")])
    return rows


def _alone(runs: Sequence[Run]) -> list[list[Text]]:
    """Return a row for each measurement, whatever number of runs it holds for."""
    measured = [run for run in runs if run.part("throughput")]
    rows: dict[tuple[str, ...], None] = {}
    for run, label in zip(measured, short_labels(measured, seeds=False), strict=True):
        figures = [
            (number(run.part("throughput").get(name)), scale, unit, form)
            for name, scale, unit, form in (
                ("latency_s", 1e3, "ms for one image", ".4g"),
                ("forward_images_per_s", 1, "images/s forward", ",.0f"),
                ("train_images_per_s", 1, "images/s in training", ",.0f"),
                ("train_memory_bytes", 2**-20, "MiB of training", ",.0f"),
            )
        ]
        texts = tuple(f"{scale * value:{form}} {unit}" for value, scale, unit, form in figures if value is not None)
        if len(texts) == len(figures):
            rows[one_line(run.data), one_line(label), ", ".join(texts)] = None
    return [[Text(cell) for cell in row] for row in rows]


def _print_scores(console: Console, runs: Sequence[Run]) -> None:
    """Print the scores beside the reported metric, of runs on one data set; U-Net's published figures below them."""
    data = runs[0].data
    names = list(dict.fromkeys(name for run in runs for name in published.scores_of(run)))
    rows = [(label, published.scores_of(run)) for label, run in zip(short_labels(runs), runs, strict=True)]
    rows += [(f"{row.label}, published", row.figures) for row in published.scores(data)]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for label, figures in rows:
        table.add_row(one_line(label), *(score_text(figures.get(name)) for name in names))
    console.print()
    console.print(Text(f"Scores on {data}", style="bold"))
    console.print(Padding(table, (0, 0, 0, 2)))
    notes = dict.fromkeys(str(run.part("dataset").get("notes") or "") for run in runs)
    for note in filter(None, notes):
        console.print(Padding(Text(f"Ours: {one_line(note)}.", style="dim"), (0, 0, 0, 2)))


def _print_section(console: Console, title: str, rows: list[list[Text]]) -> None:
    if len(rows) > terminal.STYLED:
        console.print(f"\n{title}", style="bold")
        console.print(terminal.aligned([[cell.plain for cell in row] for row in rows]), soft_wrap=True, markup=False)
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in rows[0][:-1]:
        grid.add_column(overflow="fold", max_width=max(20, console.width // 3))
    grid.add_column(overflow="fold", ratio=1)
    for row in rows:
        grid.add_row(*row)
    console.print()
    console.print(Text(title, style="bold"))
    console.print(Padding(grid, (0, 0, 0, 2)))
