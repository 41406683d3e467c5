"""Whether networks are the papers': ``python -m benchmarks complexity certify [TABLE …]``.

A published network has reference counts: its exact numbers of parameters and multiply-adds. A row of a table is certified
when the network that its experiment builds has those numbers, and they agree with the figures that the paper prints, within
their rounding.
"""

import argparse
import json
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from benchmarks import terminal
from benchmarks.analysis.published import PublishedRow, PublishedTable, tables
from benchmarks.analysis.reproduction import configurations_of
from benchmarks.complexity.cost import Complexity
from benchmarks.complexity.reference_counts import reference_counts_of
from benchmarks.config.trial import ConfigurationError
from benchmarks.report.tables import Cell, Table, print_table
from benchmarks.units import nearest

CERTIFIED, KNOWN, FAILS = "certified", "known discrepancy", "FAILS"
STYLES = {CERTIFIED: "green", KNOWN: "yellow", FAILS: "bold red"}


def judge(row: PublishedRow, complexity: Complexity, num_classes: int) -> tuple[str, str]:
    """Return the verdict on a row whose experiment builds a network of this cost, and its reasons."""
    known = reference_counts_of(row.network, complexity.input_size, num_classes)
    wrong, excused = [], []
    for unit, ours, printed, published in (
        ("parameters", complexity.params, row.params, known and known.params),
        ("MACs", complexity.macs, row.macs, known and known.macs),
    ):
        if published is not None and ours != published:
            wrong.append(f"{ours:,} {unit}, exactly {published:,}")
        elif printed and not rounds_to(ours, printed):
            reason = next((part for part in row.note.split("; ") if part.startswith(f"{unit}: ")), None)
            # Without an exact count the excuse would do for any network.
            if reason and published is not None:
                excused.append(reason)
            else:
                wrong.append(f"{ours:,} {unit}, printed {printed}")
    if known is None and not (row.params or row.macs):
        wrong.append("neither an exact count nor a printed figure to compare with")
    if wrong:
        return FAILS, "; ".join(wrong)
    return (KNOWN, "; ".join(excused)) if excused else (CERTIFIED, "")


def rounds_to(count: int, printed: str) -> bool:
    """Whether a count agrees with a figure as printed (``25.5e6``), to half a unit of its last digit."""
    figure = Decimal(printed)
    half_a_unit = Decimal((0, (5,), int(figure.as_tuple().exponent) - 1))
    return abs(figure - count) <= half_a_unit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``complexity certify``."""
    parser.description = (
        "Builds every network of the papers' tables as its experiment does, counts its parameters and multiply-adds, and "
        "compares them with the printed figures and with exact counts (benchmarks/tables/). Exit code 1 if a row fails."
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="default: every table with networks of this suite")


def run(arguments: argparse.Namespace) -> int:
    """Print a verdict for each row; return 0, or 1 if a row fails. Raises ValueError where there is no such table."""
    runnable = {name: table for name, table in tables().items() if any(row.runnable for row in table.rows)}
    for name in arguments.tables:
        if name not in runnable:
            hint = f"{nearest(name, runnable)}; there are {', '.join(runnable)}"
            raise ValueError(f"no table {name!r} with networks of this suite{hint}")
    console = terminal.console()
    verdicts = certify([runnable[name] for name in dict.fromkeys(arguments.tables or runnable)], console)
    counts = {style: sum(style == verdict for verdict, _ in verdicts) for style in STYLES}
    console.print(
        f"{len(verdicts)} rows: {counts[CERTIFIED]} certified, {counts[KNOWN]} with a known discrepancy, {counts[FAILS]} that "
        "fail. Certified: equal to the exact counts of benchmarks/tables/certificates.csv, and within the rounding of what the "
        "paper prints, where it prints any. MACs: multiply-adds of convolutions and linear layers for one image."
    )
    return 1 if counts[FAILS] else 0


def certify(chosen: Sequence[PublishedTable], console: Console) -> list[tuple[str, str]]:
    """Print a verdict for each row of these tables as soon as it is known, and return the verdicts."""
    measure = cache(_measured)  # rows of several tables have the same network
    verdicts: list[tuple[str, str]] = []
    shown = (TextColumn("certify"), BarColumn(bar_width=28), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*shown, console=console, transient=True, disable=not terminal.can_redraw(console)) as bar:
        task = bar.add_task("", total=sum(row.runnable for table in chosen for row in table.rows))
        for table in chosen:
            rows: list[Sequence[Cell | str]] = []
            configs, absent = _configs(table)
            for row in (row for row in table.rows if row.runnable):
                bar.update(task, description=f"{table.name} {row.row}")
                params = macs = ""
                verdict, reason = FAILS, absent
                if row.row in configs:
                    model, data = configs[row.row]["model"], configs[row.row]["data"]
                    cost = measure(json.dumps(model, sort_keys=True), (data["in_channels"], *data["image_size"]))
                    verdict, reason = judge(row, cost, data["num_classes"])
                    params, macs = f"{cost.params:,}", f"{cost.macs:,}"
                text = f"{verdict}: {reason}" if reason else verdict
                counts = (params, row.params, macs, row.macs)
                rows.append([row.row, row.network, *counts, Cell(text, style=STYLES[verdict])])
                verdicts.append((verdict, reason))
                bar.advance(task)
            numbers = ("parameters", "printed", "MACs", "printed MACs")
            heads = ("row", "network", *numbers, "verdict")
            print_table(Table(f"{table.name}: {table.title}", heads, rows, numbers), console)
    return verdicts


def _configs(table: PublishedTable) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the configuration that the table's experiment composes for each row, and in words why it is not there."""
    try:
        return configurations_of(table.name), f"experiment={table.name} does not compose this row"
    except ConfigurationError as error:
        return {}, str(error)


def _measured(model: str, size: tuple[int, ...]) -> Complexity:
    from benchmarks.complexity.counting import build

    return build(json.loads(model), size, initialised=False)[1]
