"""Whether a published table is reproduced, as a program can read it: `python -m benchmarks report reproduce TABLE`."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks import terminal
from benchmarks.analysis import published
from benchmarks.analysis.error_rates import holm
from benchmarks.analysis.reproduction import DIFFERS, NOT_RUN, REPRODUCED, Line, lines
from benchmarks.records.code_version import ROOT
from benchmarks.records.files import now, write_json
from benchmarks.records.runs import TABLES, load_runs
from benchmarks.report.published_table import numbers, print_published, write_files
from benchmarks.units import grouped, nearest

OPEN = "open"
EXIT_CODES = {REPRODUCED: 0, DIFFERS: 1, OPEN: 2}
SEEDS = "seed=0,1,2"
END_S = 120  # that a stopped sweep has for its last checkpoints


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``report reproduce``."""
    parser.description = (
        "Train what is missing of a published table, and judge it. Exit code 0: every figure is reproduced; 1: one differs by "
        "more than chance over all figures (Holm, p < 0.05); 2: open, as a row has not been run, or too few seeds tell. "
        "OUTPUT_ROOT/tables/TABLE.verdict.json says so for programs. A wrong call ends with 2, too, and leaves "
        "that file as it was."
    )
    parser.epilog = (
        f"Without a seed, {SEEDS}. launch.budget.device_hours=… refuses a sweep whose forecast is above it; --hours stops one "
        "that is running, and the same command goes on with it."
    )
    parser.add_argument("table", metavar="TABLE", help="a published table (report --list names them)")
    terminal.add_overrides(parser, ": seed=…, row=…, output_root=…")
    parser.add_argument(
        "--hours",
        type=terminal.number(0, "a number of hours from 0"),
        help="train for no longer; 0 judges the runs that are there",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, print the table, write the verdict; return its exit code.

    Raises:
        ValueError: there is no such table or row, or no row of it can be run.
    """
    table = published.tables().get(arguments.table)
    if table is None:
        raise ValueError(
            f"no table {arguments.table!r}{nearest(arguments.table, published.tables())}: report --list names them"
        )
    if not any(row.runnable for row in table.rows):
        raise ValueError(f"no row of {table.name} can be run here: report {table.name} prints the paper's figures")
    from benchmarks.config.compose import values_given  # Hydra takes longer to import than --help may take

    chosen = values_given(arguments.overrides)
    if "row" in chosen:
        table = table.pick(chosen["row"])
    seeds = [] if "seed" in chosen else [SEEDS]
    command = [sys.executable, str(ROOT / "run.py"), f"experiment={table.name}", *seeds, *arguments.overrides]
    trained = _train(command, arguments.hours)
    root = Path(chosen.get("output_root", ["outputs"])[-1])
    judged = lines(table, load_runs(root)[0]) if root.is_dir() else lines(table, ())
    print_published(table, judged, terminal.console())
    (root / TABLES).mkdir(parents=True, exist_ok=True)
    write_files(table, judged, root)
    result = overall(judged)
    path = root / TABLES / f"{table.name}.verdict.json"
    verdict = {
        "schema": 1,
        "table": table.name,
        "paper": table.paper,
        "verdict": result,
        "exit_code": EXIT_CODES[result],
        "judged": now(),
        "command": arguments.command_line,
        "training": trained,
        "rows": [numbers(line) for line in judged],
    }
    write_json(path, verdict)
    print(f"\n{table.name}: {result}, exit code {EXIT_CODES[result]}   {path}")
    return EXIT_CODES[result]


def overall(judged: Sequence[Line]) -> str:
    """Return `differs` where any published figure does, corrected over all of them (Holm 1979), `reproduced` where all are,
    else `open`.

    A row that was run in several ways is judged by those that differ from the paper in the fewest things.
    """
    figures = [line for line in judged if line.row.runnable and line.paper is not None]
    nearest_runs: list[Sequence[Line]] = []
    for same in grouped(figures, lambda line: (line.row.row, line.figure)).values():
        run = [line for line in same if line.verdict()[0] != NOT_RUN]
        fewest = min((len(line.differences) for line in run), default=0)
        nearest_runs.append([line for line in run if len(line.differences) == fewest])
    if any(p <= 0.05 for p in holm([line.p_value for same in nearest_runs for line in same])):
        return DIFFERS
    verdicts = [{line.verdict()[0] for line in same} for same in nearest_runs]
    reproduced = all(REPRODUCED in of_figure and DIFFERS not in of_figure for of_figure in verdicts)
    return REPRODUCED if verdicts and reproduced else OPEN


def _train(command: Sequence[str], hours: float | None) -> str:
    """Run a sweep for so long at most; return in words how it ended. It is stopped where this process is interrupted."""
    if hours == 0:
        return "none asked for"
    terminal.interrupt_on(signal.SIGTERM, signal.SIGHUP)
    # In a group of its own it hears Ctrl-C from here alone: a second signal would have it stop without saving.
    process = subprocess.Popen(command, process_group=0)
    try:
        code = process.wait(None if hours is None else 3600 * hours)
    except subprocess.TimeoutExpired:
        return f"stopped after {hours:g} h"
    finally:
        process.terminate()  # which one that has ended does not notice
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        process.kill()
    return "all runs finished" if code == 0 else f"run.py ended with exit code {code}"
