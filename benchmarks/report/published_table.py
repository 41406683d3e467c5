"""A published table beside our runs: `python -m benchmarks report TABLE`.

For every row and figure the paper's value, ours as mean with 95 % interval over seeds, the difference, a verdict, what differs
from the paper, and the cost. What differs is found by comparing the configuration that the experiment composes with the run's.
"""

import itertools
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from benchmarks.analysis.estimates import ALIKE, SEEDS_ALONE
from benchmarks.analysis.published import FIGURES, PublishedTable, tables
from benchmarks.analysis.reproduction import (
    DIFFERS,
    NOT_RUN,
    REPRODUCED,
    UNDER_POWERED,
    Line,
    belongs,
    common_differences,
    is_imported,
    on_other_data,
)
from benchmarks.records.files import write_atomic, write_json
from benchmarks.records.runs import TABLES, load_runs
from benchmarks.report.tables import Cell, Table, print_table
from benchmarks.units import MISSING, csv_text, duration, grouped, one_line, quantity, si

VERDICT_STYLES = {NOT_RUN: "dim", UNDER_POWERED: "yellow", REPRODUCED: "green", DIFFERS: "bold red"}
WORDS = ("row", "figure", "verdict")
NARROW = ("row", "figure", "paper", "ours", "n", "difference", "verdict", "params", "MACs")
DIFFERENCES = "differs from the paper in"
HEADERS = (*NARROW, "spent", DIFFERENCES)
ELSE = "nothing else"


def texts(rows: Sequence[Line]) -> list[dict[str, str]]:
    """Return the lines as texts by HEADERS; a row's name, cost and differences stand at its first figure alone.

    What all rows differ in is left out; see `legend`.
    """
    common = common_differences(rows)
    pairs = itertools.pairwise([None, *rows])
    return [dict(zip(HEADERS, _texts(line, above, common), strict=True)) for above, line in pairs if line]


def _texts(line: Line, above: Line | None, common: Sequence[str]) -> list[str]:
    row, figure = line.row, line.figure
    again = above is not None and above.row == row
    first = above is None or (above.row, above.runs) != (row, line.runs)
    run = line.runs[0] if line.runs else None
    verdict, reason = line.verdict()
    runs = "" if row.runs == 1 or line.paper is None else f" ({row.statistic})"
    flops = math.fsum(one.train_flops or 0 for one in line.runs)
    wall = math.fsum(one.wall_s or 0 for one in line.runs)
    params, macs = _counts(line)
    own = [difference for difference in line.differences if difference not in common]
    return [
        "" if again else row.label,
        FIGURES[figure].title if figure else "",
        f"{row.printed.get(figure, MISSING)}{runs}" if figure else "",
        _ours(line),
        str(len(line.values) or ""),
        "" if line.difference is None else f"{line.difference:+.{_decimals(figure)}f}",
        f"{verdict} ({reason})" if reason else verdict,
        si(params) if params else "",
        si(macs) if macs else "",
        f"{quantity(flops, 'FLOPs')}, {duration(wall)}" if run and first else "",
        "; ".join(own) or (ELSE if common else "nothing") if run and first else "",
    ]


def _counts(line: Line) -> list[float | None]:
    """Return parameters and MACs of the runs, without runs as the paper prints them; None for what is not known."""
    if line.runs:
        return [line.runs[0].parameters, line.runs[0].macs]
    return [float(text) if text else None for text in (line.row.params, line.row.macs)]


def _decimals(figure: str) -> int:
    return 2 if FIGURES[figure].percent else 4


def _ours(line: Line) -> str:
    ours = line.estimate
    if ours is None:
        return ""
    digits = _decimals(line.figure)
    mean = f"{ours.mean:.{digits}f}"
    if ours.interval is None:
        return f"{mean} ({ours.missing})"
    alone = f", {SEEDS_ALONE}" if SEEDS_ALONE in ours.basis_text else ""
    return f"{mean} [{ours.interval[0]:.{digits}f}, {ours.interval[1]:.{digits}f}]{alone}"


def legend(table: PublishedTable, rows: Sequence[Line]) -> list[str]:
    """Return what all rows differ from the paper in, what the columns mean, and what to know of the paper's figures."""
    common = common_differences(rows)
    notes = [f"every row that was run differs from the paper in: {'; '.join(common)}"] if common else []
    notes += [
        "ours: mean [95 % interval of the mean over n seeds]. difference: ours minus the paper's, ± the half-width of its 95 % "
        "interval over trainings if the paper's runs spread as ours do. margin: what other test images would change (masks: a "
        "tenth of the distance from perfect). reproduced: the whole interval within the margin; differs: zero outside the "
        "interval; under-powered: neither."
    ]
    estimated = [line.estimate for line in rows if line.estimate]
    if any(SEEDS_ALONE in one.basis_text for one in estimated):
        notes.append(
            f"{SEEDS_ALONE}: an interval without stored outcomes tells of other trainings, not of other test images"
        )
    if any(one.components is not None and one.components.shared for one in estimated):
        notes.append(
            f"the spread over seeds is pooled over rows {ALIKE} where Bartlett's test does not tell it apart (5 %)"
        )
    notes += dict.fromkeys(f"left out: {text}" for one in estimated for text in one.left_out)
    runnable = [row for row in table.rows if row.runnable]
    for note, noted in grouped(table.rows, lambda row: row.note).items():
        if note:
            notes.append(note if noted == runnable else f"{', '.join(row.label for row in noted)}: {note}")
    unread = [row.label for row in table.rows if row.status == "memory-only"]
    if unread:
        notes.append(f"not read in any source, from memory: {', '.join(unread)}")
    missing = {line.row.label: line.forecast for line in rows if line.row.runnable and not line.runs}
    notes += [f"{label}: a run would cost {forecast}" for label, forecast in missing.items() if forecast]
    if not all(missing.values()):
        notes.append(f"what rows that were not run would cost: python -m benchmarks plan experiment={table.name}")
    notes.append(f"paper: {table.paper}; sources: {', '.join(dict.fromkeys(row.source for row in table.rows))}")
    return notes


def print_published(table: PublishedTable, rows: Sequence[Line], console: Console) -> None:
    """Print the table in the terminal; costs and differences of the rows that were run below it."""
    shown = texts(rows)
    cells = [
        [
            Cell(text[header], style=VERDICT_STYLES.get(line.verdict()[0], "") if header == "verdict" else "")
            for header in NARROW
        ]
        for line, text in zip(rows, shown, strict=True)
    ]
    numbers = [header for header in NARROW if header not in WORDS]
    print_table(Table(f"{table.name}: {table.title}", NARROW, cells, numbers), console)
    for cost in _costs(shown):
        console.print(Text(cost))
    for note in legend(table, rows):
        console.print(Text(note, style="dim"))


def _costs(shown: Sequence[dict[str, str]]) -> list[str]:
    """Return, of each row that was run, what it has spent and in what else it differs from the paper."""
    costs, label = [], ""
    for text in shown:
        label = text["row"] or label
        if text["spent"]:
            own = f"; differs in: {text[DIFFERENCES]}" if text[DIFFERENCES] != ELSE else ""
            costs.append(f"{label}: spent {text['spent']}{own}")
    return costs


def markdown(table: PublishedTable, rows: Sequence[Line]) -> str:
    """Return the table in Markdown, every column."""
    escaped = ([one_line(text).replace("|", "\\|") for text in line.values()] for line in texts(rows))
    body = "\n".join(f"| {' | '.join(row)} |" for row in [list(HEADERS), ["---"] * len(HEADERS), *escaped])
    return f"## {table.title}\n\n{body}\n\n" + "\n".join(f"- {note}" for note in legend(table, rows)) + "\n"


def latex(table: PublishedTable, rows: Sequence[Line]) -> str:
    """Return the table for a paper: booktabs, without the columns of cost and differences, which follow as notes."""
    shown = texts(rows)
    lines = [" & ".join(_tex(text[header]) for header in NARROW) for text in shown]
    body = "".join(f"{line} \\\\\n" for line in lines)
    notes = "".join(f"% {note}\n" for note in [*_costs(shown), *legend(table, rows)])
    return (
        f"% {table.title}\n\\begin{{tabular}}{{l l {'r ' * 4}l r r}}\n\\toprule\n{' & '.join(NARROW)} \\\\\n\\midrule\n"
        f"{body}\\bottomrule\n\\end{{tabular}}\n{notes}"
    )


def _tex(text: str) -> str:
    special = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "–": "--",
        "±": "$\\pm$",
        "×": "$\\times$",
    }
    return "".join(special.get(char, f"\\{char}" if char in "&%$#_{}" else char) for char in one_line(text))


def as_csv(rows: Sequence[Line]) -> str:
    """Return the table as CSV: one line per figure, numbers as they are."""
    lines = [numbers(line) for line in rows]
    return csv_text([lines[0], *(line.values() for line in lines)])


def numbers(line: Line) -> dict[str, Any]:
    """Return a line by the columns of the CSV; None where there is nothing."""
    row, ours = line.row, line.estimate
    low, high = (ours and ours.interval) or (None, None)
    verdict, reason = line.verdict()
    params, macs = _counts(line)
    return {
        **{"row": row.row, "label": row.label, "data": row.data, "network": row.network, "recipe": row.recipe},
        **{"figure": line.figure, "paper": line.paper, "statistic": row.statistic},
        **{"mean": ours.mean if ours else None, "low": low, "high": high, "basis": ours and ours.basis_text},
        "n": len(line.values),
        **{"difference": line.difference, "verdict": verdict, "reason": reason},
        **{"params": params, "macs": macs},
        "train_flops": math.fsum(one.train_flops or 0 for one in line.runs) if line.runs else None,
        "wall_s": math.fsum(one.wall_s or 0 for one in line.runs) if line.runs else None,
        **{"differs": "; ".join(line.differences), "source": row.source, "status": row.status, "note": row.note},
    }


def write_files(table: PublishedTable, rows: Sequence[Line], output_root: Path) -> list[Path]:
    """Write `<output_root>/tables/<table>.{md,tex,csv,json}`, the last for the page; return the first three paths."""
    folder = output_root / TABLES
    folder.mkdir(exist_ok=True)
    page = {
        "title": table.title,
        "name": table.name,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "headers": HEADERS,
        "lines": [list(line.values()) for line in texts(rows)],
        "legend": legend(table, rows),
    }
    write_json(folder / f"{table.name}.json", page)
    texts_of = {"md": markdown(table, rows), "tex": latex(table, rows), "csv": as_csv(rows)}
    paths = {folder / f"{table.name}.{suffix}": text for suffix, text in texts_of.items()}
    for path, text in paths.items():
        write_atomic(path, text)
    return list(paths)


def print_list(output_root: Path, console: Console) -> None:
    """Print every published table with how many of its rows have been run."""
    runs = load_runs(output_root)[0] if output_root.is_dir() else []
    finished = [run for run in runs if run.value is not None and not is_imported(run)]
    listed = []
    for table in tables().values():
        rows = [row for row in table.rows if row.runnable]
        seeds = [
            len({run.seed for run in finished if belongs(run, table.name, row) and not on_other_data(run, row)})
            for row in rows
        ]
        numbers_of = sorted({count for count in seeds if count})
        state = f"{sum(map(bool, seeds))} of {len(rows)}" if rows else "reference lines"
        counts = "–".join(map(str, dict.fromkeys(numbers_of[:1] + numbers_of[-1:])))
        listed.append([table.name, table.title, state, counts])
    numbers = ("rows run", "seeds")
    note = "python run.py experiment=TABLE seed=0,1,2 runs what is missing; python -m benchmarks report TABLE prints it"
    print_table(Table("", ("table", "title", *numbers), listed, numbers, notes=[note]), console)
