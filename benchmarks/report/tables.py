"""Tables as data, written once for the terminal and the page."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from benchmarks import terminal
from benchmarks.config.about import Look
from benchmarks.units import one_line

STYLES = {
    **{"ok": "green", "running": "cyan", "failed": "bold red", "killed": "bold red", "missing": "dim"},
    **{"interrupted": "yellow", "preempted": "yellow"},
}


class Cell(NamedTuple):
    """A text, and how it is shown.

    Attributes:
        value: what the page sorts by.
        look: of the family whose mark stands before the text.
        run: the index of the run whose details the page opens.
        status: a status of a run, which has a colour of its own.
        style: rich's, in the terminal.
        hint: what the page says when it is pointed at.
    """

    text: str
    value: Any = None
    look: Look | None = None
    run: int | None = None
    status: str = ""
    style: str = ""
    hint: str = ""


Row = Sequence[Cell | str]


@dataclass(frozen=True)
class Table:
    """A table with a title.

    Attributes:
        columns: their heads.
        numbers: heads of columns of numbers, which are aligned to the right and never cut.
        lead: stands before the rows, on the page alone.
        notes: stand after the rows.
        of_runs: whether it is the table of all runs, which the page sorts, filters and links with the charts.
        data: the data set that it is of; the page shows it when that is chosen.
        keys: of the rows, in a table that the page links with the charts' networks; such a one is sorted and filtered too.
        name: on the page, if not the title.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    numbers: Collection[str] = ()
    lead: str = ""
    notes: Sequence[str] = ()
    of_runs: bool = False
    name: str = ""
    keys: Sequence[int] = ()
    data: str = ""

    @property
    def key(self) -> str:
        """The id of the table on the page: its name, or the title, without spaces."""
        return (self.name or self.title).lower().replace(" ", "-")

    @property
    def sortable(self) -> bool:
        """Whether the page sorts it by its cells' values."""
        return self.of_runs or bool(self.keys)

    def filled(self) -> "Table":
        """Return the table without the columns that are empty in every row."""
        places = [place for place in range(len(self.columns)) if any(_text(row[place]) for row in self.rows)]
        rows = [[row[place] for place in places] for row in self.rows]
        return replace(self, columns=[self.columns[place] for place in places], rows=rows)


def _text(cell: Cell | str) -> str:
    return cell if isinstance(cell, str) else cell.text


def print_table(table: Table, console: Console, of: int = 0) -> None:
    """Print a table as wide as the console at most; of more rows than rich can style in a moment, plain lines.

    After ``terminal.MOST`` rows it says how many more there are.

    Args:
        of: the number of rows, where the table has the first ones alone and the page has all.
    """
    left_out = max(of, len(table.rows)) - terminal.MOST
    table = replace(table, rows=table.rows[: terminal.MOST]).filled()
    if table.title:
        console.print(Text(f"\n{one_line(table.title)}", style="bold"))
    if len(table.rows) > terminal.STYLED:
        console.out(_plain(table), highlight=False)
    else:
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for column in table.columns:
            number = column in table.numbers
            grid.add_column(Text(column), justify="right" if number else "left", no_wrap=number, overflow="fold")
        for row in table.rows:
            grid.add_row(*map(_styled, row))
        terminal.print_whole(grid, console)
    more = [f"… and {left_out:,} more{', which report.html has' if of else ''}"] if left_out > 0 else []
    for note in [*more, *table.notes]:
        console.print(Padding(Text(one_line(note), style="dim"), (0, 0, 0, 2)))


def _styled(cell: Cell | str) -> Text:
    if isinstance(cell, str):
        return Text(one_line(cell))
    first, *rest = cell.text.split("\n")
    text = Text(one_line(first), style=cell.style or STYLES.get(cell.status, ""))
    for line in rest:
        text.append(f"\n{one_line(line)}", style="dim")
    if cell.look:
        return Text.assemble((cell.look.glyph, cell.look.colour), " ", text)
    return text


def _plain(table: Table) -> str:
    heads = [column.replace("\n", " ") for column in table.columns]
    rows = [[one_line(_text(cell)) for cell in row] for row in table.rows]
    return terminal.aligned([heads, *rows], [i for i, column in enumerate(table.columns) if column in table.numbers])
