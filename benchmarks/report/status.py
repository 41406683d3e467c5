"""The sweeps of a folder as a grid: what is done, running, failed, missing or made by other code. Imports no torch."""

import argparse
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from benchmarks import terminal
from benchmarks.records.code_version import made_by_other_code
from benchmarks.records.files import GOES_ON, SWEEPS, read_json
from benchmarks.records.locks import LAUNCHER, held, holder
from benchmarks.records.progress import part_of, progress_parts, read_progress
from benchmarks.records.runs import Run, load_runs, output_root_of
from benchmarks.report.tables import Cell, Row, Table, print_table
from benchmarks.units import grouped, one_line, plural

# state: glyph, colour, meaning; a terminal without UTF-8 has other glyphs (`terminal.STAND_INS`)
STATES = {
    "done": ("✔", "green", "finished"),
    "stale": ("≈", "yellow", "finished, made by other code: launch.rerun=stale runs it again"),
    "running": ("▶", "cyan", "running"),
    "killed": ("†", "bold red", f"its processes died without a word; {GOES_ON}"),
    "failed": ("✖", "bold red", "failed"),
    "interrupted": ("■", "yellow", f"interrupted; {GOES_ON}"),
    "preempted": ("‖", "yellow", "pre-empted; goes on by itself"),
    "missing": ("·", "dim", "not started yet"),
}
QUIET = {"done", "stale", "missing"}  # nothing to say of a single one


@dataclass(frozen=True)
class TrialState:
    """Where a trial stands.

    Attributes:
        data: the data set's name.
        row: network, recipe and overrides.
        seed: the column.
        state: a key of ``STATES``.
        detail: progress and heartbeat, or the cause.
        root: the output root.
    """

    data: str
    row: str
    seed: int
    state: str
    detail: str
    root: str


def trial_states(
    output_root: Path, loaded: tuple[list[Run], list[str]] | None = None
) -> tuple[list[TrialState], list[str]]:
    """Return every trial that a sweep has listed or that left a record, and a line for each unreadable record or list.

    Args:
        output_root: the folder with the runs.
        loaded: what ``load_runs`` returned of the folder, where it has been read already.

    Raises:
        FileNotFoundError: no such folder.
    """
    runs, problems = loaded or load_runs(output_root)
    listed, unread = _listed(output_root)
    problems = [*problems, *unread]
    states = [_of_run(run) for run in runs]
    known = {run.directory for run in runs}
    missing = [name for name in listed if output_root / name not in known]
    states += [replace(_trial_state(Path(name), "missing"), root=_root(output_root / name)) for name in missing]
    return sorted(states, key=lambda trial: (trial.data, trial.row, trial.seed)), problems


def print_status(states: Sequence[TrialState], console: Console) -> None:
    """The counts, the grid of networks by seeds, and a line for each trial that is running or has no result."""
    counts = Counter(trial.state for trial in states)
    console.print(
        f"{plural(len(states), 'trial')}: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    )
    roots = {trial.root for trial in states}
    for (root, data), trials in grouped(states, lambda trial: (trial.root, trial.data)).items():
        title = f"{data} in {root}" if len(roots) > 1 else data
        print_table(_grid(title, trials, console.width), console)
    for state, (glyph, style, meaning) in STATES.items():
        if counts[state]:
            console.print(Text.assemble("  ", (glyph, style), f" {meaning}"))
    rows: list[Row] = [
        [Cell(STATES[trial.state][0], style=STATES[trial.state][1]), f"{trial.row} seed {trial.seed}", trial.detail]
        for trial in states
        if trial.state not in QUIET
    ]
    if rows:
        print_table(Table("", ("", "trial", "detail"), rows), console)


def _grid(data: str, trials: Sequence[TrialState], width: int) -> Table:
    """Return networks under recipes by seeds; where the seeds have no room, by states with their counts instead."""
    rows: dict[str, dict[int, str]] = {}
    for trial in trials:
        rows.setdefault(trial.row, {})[trial.seed] = trial.state
    seeds = sorted({trial.seed for trial in trials})
    if len(seeds) * 4 + max(map(len, rows)) <= width:
        titles = [f"s{seed}" for seed in seeds]
        marks = {state: Cell(glyph, style=style) for state, (glyph, style, _) in STATES.items()}
        cells = [[row, *(marks.get(by_seed.get(seed, ""), "") for seed in seeds)] for row, by_seed in rows.items()]
    else:
        titles = [state for state in STATES if any(trial.state == state for trial in trials)]
        counts = {row: Counter(by_seed.values()) for row, by_seed in rows.items()}
        cells = [
            [row, *(Cell(str(counts[row][state] or ""), style=STATES[state][1]) for state in titles)] for row in rows
        ]
    return Table(data, ("", *titles), cells, titles)


def _of_run(run: Run) -> TrialState:
    directory = Path(os.path.abspath(run.directory))
    if run.status == "ok":
        return _trial_state(directory, "stale" if made_by_other_code(run.record) else "done")
    anew = "; by other code than this, so it starts anew" if made_by_other_code(run.record) else ""
    if run.state == "running":
        launched = held(run.directory / LAUNCHER)
        return _trial_state(
            directory, "running", _progress(run.directory) if launched else "its launcher died; it saves and stops"
        )
    if run.state == "killed":
        return _trial_state(directory, "killed", f"started {run.record.get('started', '?')}{anew}")
    return _trial_state(directory, run.status, (run.error or "no cause was recorded") + anew)


def _trial_state(directory: Path, state: str, detail: str = "") -> TrialState:
    data, name, recipe, seed = (("?",) * 4 + directory.parts)[-4:]
    number = re.fullmatch(r"seed(\d+)", seed)  # a folder that was moved may have another name
    row = one_line(f"{name} · {recipe}" if number else f"{name} · {recipe}/{seed}")
    return TrialState(one_line(data), row, int(number.group(1)) if number else 0, state, detail, _root(directory))


def _root(directory: Path) -> str:
    """Return the output root of a trial."""
    return one_line(str(output_root_of(directory)))


def _progress(directory: Path) -> str:
    progress = read_progress(directory)
    who = holder(directory / LAUNCHER)
    place = f"process {who.get('pid', '?')} on {who.get('host', '?')}"
    if progress is None:
        return f"starting, {place}"
    part, age = part_of(progress), max(0, time.time() - progress["time"])
    done = [] if part is None else [f"{part:.0%}"]
    return ", ".join([*done, *progress_parts(progress).values(), f"sign of life {age:.0f} s ago", place])


def _listed(output_root: Path) -> tuple[list[str], list[str]]:
    """Directories of the trials of every sweep that was started under ``output_root``, and a line for each unreadable list."""
    directories: dict[str, None] = {}
    problems = []
    for path in sorted((output_root / SWEEPS).glob("*.json")):
        sweep = read_json(path) or {}
        trials = sweep.get("trials", sweep.get("cells"))
        names = (
            [trial.get("directory") if isinstance(trial, dict) else None for trial in trials or ()]
            if isinstance(trials, list)
            else [None]
        )
        if not all(isinstance(name, str) and "\0" not in name for name in names):
            problems.append(f"{one_line(str(path))}: not the list of a sweep's trials")
            continue
        directories |= dict.fromkeys(map(str, names))
    return list(directories), problems


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``status``."""
    parser.description = (
        "The grid of all trials below OUTPUT_ROOT: done, running with progress and last sign of life, failed with the cause, "
        "missing, or made by other code than this."
    )
    parser.add_argument("output_root", metavar="OUTPUT_ROOT", nargs="?", default="outputs", help="default: outputs")


def run(arguments: argparse.Namespace) -> None:
    """Print the grid. Raises FileNotFoundError where there is no such folder."""
    states, problems = trial_states(Path(arguments.output_root))
    print_status(states, terminal.console(markup=False))
    for problem in problems:
        print(f"not read: {problem}", file=sys.stderr)
