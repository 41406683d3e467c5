"""A published table beside our runs: `python -m benchmarks report TABLE`.

For every row and figure the paper's value, ours as mean with 95 % interval over seeds, the difference, a verdict, what differs
from the paper, and the cost. What differs is found by comparing the configuration that the experiment composes with the run's.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from benchmarks.forecasts import quantity
from benchmarks.published import FIGURES, Row, Table, tables
from benchmarks.record import CONFIG, RECORD, read_head, short_value, write_atomic
from benchmarks.results import MISSING, TABLES, Run, differing_conditions, duration, number, one_line, same_but_seed, si
from benchmarks.statistics import mean_interval, t_quantile, wilson_interval, without_interval

NOT_RUN, UNDER_POWERED, REPRODUCED, DIFFERS = "not run", "under-powered", "reproduced", "differs"
VERDICT_STYLES = {NOT_RUN: "dim", UNDER_POWERED: "yellow", REPRODUCED: "green", DIFFERS: "bold red"}
MOST_SEEDS = 100
SCORE_MARGIN = 0.1  # of a score's distance from perfect; there is no binomial error of a score of masks
HEADERS = (
    "row",
    "figure",
    "paper",
    "ours",
    "n",
    "difference",
    "verdict",
    "params",
    "MACs",
    "spent",
    "differs from the paper in",
)
# Follow from the choice of data.
OF_DATA = ("data.", "model.in_channels", "model.num_classes", "model.stem")
DERIVED = ("seed", "name", "recipe.name", "recipe.scheduler.T_max", "trainer.max_epochs")  # from other keys, or a label
ELSE = "nothing else"


@dataclass(frozen=True)
class Line:
    """One figure of one row, beside the runs that were made under one configuration and code; without runs none is given.

    Attributes:
        values: ours, one per seed.
        images: of the test set.
        differences: what the runs' configuration has, and the paper's in brackets.
    """

    row: Row
    figure: str
    runs: tuple[Run, ...]
    differences: tuple[str, ...]

    @property
    def paper(self) -> float | None:
        return self.row.figures.get(self.figure)

    @property
    def values(self) -> list[float]:
        found = (number(run.part("metrics").get(f"test/{self.figure}")) for run in self.runs)
        return [value for value in found if value is not None]

    @property
    def images(self) -> int | None:
        return self.runs[0].n if self.runs else None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, on the same data set."""
        if not self.values or self.paper is None or self.on_other_data:
            return None
        return fmean(self.values) - self.paper

    @property
    def on_other_data(self) -> bool:
        """Whether the runs are the row's network on another data set than the paper's."""
        return bool(self.runs) and self.runs[0].data != self.row.data

    @property
    def imported(self) -> bool:
        """Whether the weights came from elsewhere and were only tested here."""
        return any(run.part("protocol").get("checkpoint") == "imported" for run in self.runs)

    def verdict(self) -> tuple[str, str]:
        """The verdict, and in words what it rests on; see `judge`."""
        if not self.row.runnable or self.paper is None:
            return "", ""
        if self.on_other_data:
            return NOT_RUN, "on other data"
        if self.imported:
            return NOT_RUN, "imported weights"
        return judge(self.values, self.paper, self.row.runs, margin(self.figure, self.paper, self.images))


def margin(figure: str, paper: float, images: int | None) -> float:
    """Within what a difference from the paper's figure counts as none.

    Of an error rate: the 95 % half-width of the paper's own figure under resampling of the test images (Wilson 1927), which two
    test sets of that size would differ by. Of a score of masks: a tenth of its distance from perfect.
    """
    if FIGURES[figure].percent:
        low, high = wilson_interval(round(paper / 100 * (images or 1)), images or 1)
        return 100 * (high - low) / 2
    return SCORE_MARGIN * (1 - paper if FIGURES[figure].high else paper)


def judge(values: Sequence[float], paper: float, runs: int | None, margin: float) -> tuple[str, str]:
    """Whether runs agree with a published figure: the verdict, and a line of reasons.

    The difference of the means has a 95 % interval by Student's t, where the paper's runs are taken to spread as ours; `runs`
    is their number, None for the best of several, which is no estimate of a mean. `reproduced`: the whole interval is within
    `margin` (two one-sided tests, Schuirmann 1987). `differs`: the interval leaves out zero, and is not within it.
    `under-powered`: neither can be said.
    """
    if not values:
        return NOT_RUN, ""
    n = len(values)
    if mean_interval(values) is None:
        return UNDER_POWERED, without_interval(n)
    difference, spread = fmean(values) - paper, stdev(values)
    half = _half_width(spread, n, runs)
    said = f"{difference:+.3g} ± {half:.2g}, margin ± {margin:.2g}"
    if abs(difference) + half <= margin:
        return REPRODUCED, said
    if abs(difference) > half:
        return DIFFERS, said
    needed = next((k for k in range(n + 1, MOST_SEEDS) if _half_width(spread, k, runs) <= margin / 2), None)
    more = f"about {needed - n} more seeds would tell" if needed else "more seeds alone would not tell"
    return UNDER_POWERED, f"{said}; {more}"


def _half_width(spread: float, n: int, runs: int | None) -> float:
    return t_quantile(n - 1) * spread * math.sqrt(1 / n + (1 / runs if runs else 0))


def lines(table: Table, runs: Iterable[Run]) -> list[Line]:
    """The table's rows, each with every figure that it or a run has; runs of several configurations or codes are apart.

    A run belongs to a row if it was launched as that row, or has its network, data and recipe.
    Raises ConfigurationError where the experiment does not compose.
    """
    found = [run for run in runs if run.status == "ok"]
    references: dict[str, Any] = {}
    result = []
    for row in table.rows:
        groups = same_but_seed(run for run in found if row.runnable and _belongs(run, table.name, row))
        if groups and not references:
            references = _references(table.name)
        described = [
            ((*_differences(group[0], *references[row.row]), *conditions), group)
            for group, conditions in zip(groups, _conditions(groups), strict=True)
        ]
        for differences, group in sorted(described, key=lambda pair: len(pair[0])) or [((), ())]:
            for figure in _figures(table, row, group):
                result.append(Line(row, figure, group, differences))
    return result


def _conditions(groups: Sequence[Sequence[Run]]) -> list[list[str]]:
    return differing_conditions([group[0] for group in groups]) if groups else []


def _figures(table: Table, row: Row, group: Sequence[Run]) -> list[str]:
    measured = group[0].part("metrics") if group else {}
    figures = [name for name in table.figures if name in row.printed or f"test/{name}" in measured]
    return figures or [""]


def _belongs(run: Run, table: str, row: Row) -> bool:
    if (run.record.get("experiment"), run.record.get("row")) == (table, row.row):
        return True
    return (run.data, run.network, run.record["recipe"]) == (row.data, row.network, row.recipe)


def _references(table: str) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What the experiment composes for each row, and the facts of the paper that it states."""
    from benchmarks.configuration import Cell, expand, paper_facts

    facts = paper_facts(table)
    cells = expand([f"experiment={table}"], multirun=True)
    return {cell.config["row"]: (cell.config, facts) for cell in cells if isinstance(cell, Cell)}


def _differences(run: Run, reference: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[str, ...]:
    """`epochs 30 (300)`: what the run's configuration has, and in brackets the paper's."""
    import yaml

    from benchmarks.configuration import differing_keys, flatten

    try:
        text = (run.directory / CONFIG).read_text(encoding="utf-8")
        config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        differing = differing_keys(config, reference)
    except (OSError, ValueError, AttributeError, yaml.YAMLError):  # copied in part, or torn
        return (f"what its {CONFIG}, which cannot be read, would tell",)
    found = {key: values for key, values in differing.items() if key not in DERIVED}
    result = []
    if run.data != reference["data"]["name"]:
        result.append(f"data {run.data} ({reference['data']['name']})")
        found = {key: values for key, values in found.items() if not key.startswith(OF_DATA)}
    flat = flatten(config)
    for key, theirs in facts.items():
        found.pop(key, None)
        fact, _, of_data = key.partition(".")
        if fact == "train_images":  # of one data set, or by data set
            if of_data not in ("", reference["data"]["name"]):
                continue
            key, ours = fact, run.part("counts").get("train")
        else:
            ours = flat.get(key)
        if ours != theirs:
            result.append(f"{_words(key)} {_shown(ours)} ({_shown(theirs)})")
    grouped: dict[str, dict[str, tuple[Any, Any]]] = {}
    for key, values in found.items():
        home, _, rest = key.partition(".")
        name, _, leaf = rest.partition(".")
        grouped.setdefault(f"{home}.{name}" if rest else home, {})[leaf] = values
    for name, leaves in grouped.items():
        ours, theirs = (_side({leaf: values[side] for leaf, values in leaves.items()}) for side in (0, 1))
        result.append(f"{_words(name)} {ours} ({theirs})")
    return tuple(result)


def _side(leaves: Mapping[str, Any]) -> str:
    """The values of one key, or of the leaves below it: `CosineAnnealingLR T_max=30`."""
    if set(leaves) == {""}:
        return _shown(leaves[""])
    said = [
        _shown(value) if leaf == "_target_" else f"{leaf}={_shown(value)}"
        for leaf, value in sorted(leaves.items())
        if value is not None
    ]
    return " ".join(said) or "none"


def _words(key: str) -> str:
    words = key.removeprefix("recipe.").removeprefix("trainer.").removeprefix("model.")
    return words.replace("_", " ").replace(".", " ")


def _shown(value: Any) -> str:
    """`none` for nothing, a class by its last word."""
    text = "none" if value is None else short_value(value)
    return text.rpartition(".")[2] if isinstance(value, str) and value.startswith("torch.") else text


# What is printed


def common_differences(found: Sequence[Line]) -> tuple[str, ...]:
    """What every line with runs differs from the paper in."""
    all_of_them = [line.differences for line in found if line.runs]
    first = all_of_them[0] if len(all_of_them) > 1 else ()
    return tuple(said for said in first if all(said in other for other in all_of_them))


def texts(found: Sequence[Line]) -> list[dict[str, str]]:
    """The lines as texts by HEADERS; a row's name, cost and differences stand at its first figure alone.

    What all rows differ in is left out; see `legend`.
    """
    common = common_differences(found)
    result = []
    previous: Line | None = None
    for line in found:
        first = previous is None or (previous.row, previous.runs) != (line.row, line.runs)
        again = previous is not None and previous.row == line.row
        result.append(dict(zip(HEADERS, _texts(line, first, again, common), strict=True)))
        previous = line
    return result


def _texts(line: Line, first: bool, again: bool, common: Sequence[str]) -> list[str]:
    row, figure = line.row, line.figure
    run = line.runs[0] if line.runs else None
    verdict, reason = line.verdict()
    runs = "" if row.runs == 1 or line.paper is None else f" ({row.statistic})"
    flops = math.fsum(one.train_flops or 0 for one in line.runs)
    wall = math.fsum(one.wall_s or 0 for one in line.runs)
    params = run.parameters if run else float(row.params or "nan")
    macs = run.macs if run else float(row.macs or "nan")
    own = [said for said in line.differences if said not in common]
    return [
        "" if again else row.label,
        FIGURES[figure].title if figure else "",
        f"{row.printed.get(figure, MISSING)}{runs}" if figure else "",
        _ours(line.values, figure),
        str(len(line.values) or ""),
        "" if line.difference is None else f"{line.difference:+.{_decimals(figure)}f}",
        f"{verdict} ({reason})" if reason else verdict,
        "" if math.isnan(params or math.nan) else si(params),
        "" if math.isnan(macs or math.nan) else si(macs),
        f"{quantity(flops, 'FLOPs')}, {duration(wall)}" if run and first else "",
        "; ".join(own) or (ELSE if common else "nothing") if run and first else "",
    ]


def _decimals(figure: str) -> int:
    return 2 if FIGURES[figure].percent else 4


def _ours(values: Sequence[float], figure: str) -> str:
    if not values:
        return ""
    digits, interval = _decimals(figure), mean_interval(values)
    told = f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else f"({without_interval(len(values))})"
    return f"{fmean(values):.{digits}f} {told}"


def legend(table: Table, found: Sequence[Line]) -> list[str]:
    """What all rows differ from the paper in, what the columns mean, and what a reader must know of the paper's figures."""
    common = common_differences(found)
    said = [f"every row that was run differs from the paper in: {'; '.join(common)}"] if common else []
    said += [
        "ours: mean [95 % interval of the mean over n seeds]. difference: ours minus the paper's, ± the half-width of its 95 % "
        "interval if the paper's runs spread as ours do. margin: what other test images would change (masks: a tenth of the "
        "distance from perfect). reproduced: the whole interval within the margin; differs: zero outside the interval; "
        "under-powered: neither."
    ]
    notes: dict[str, list[str]] = {}
    for row in table.rows:
        notes.setdefault(row.note, []).append(row.label)
    runnable = [row.label for row in table.rows if row.runnable]
    for note, labels in notes.items():
        if note:
            said.append(note if labels == runnable else f"{', '.join(labels)}: {note}")
    unread = [row.label for row in table.rows if row.status == "memory-only"]
    if unread:
        said.append(f"not read in any source, from memory: {', '.join(unread)}")
    said.append(f"paper: {table.paper}; sources: {', '.join(dict.fromkeys(row.source for row in table.rows))}")
    return said


def print_table(table: Table, found: Sequence[Line], console: Console) -> None:
    """The table in the terminal; costs and differences of the rows that were run below it."""
    shown = texts(found)
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=f"{table.name}: {table.title}")
    grid.title_justify, grid.title_style = "left", "bold"
    narrow = [header for header in HEADERS[:9] if any(line[header] for line in shown)]
    for header in narrow:
        words = header in ("row", "verdict")
        grid.add_column(
            header, justify="left" if words or header == "figure" else "right", overflow="fold", no_wrap=not words
        )
    for line, text in zip(found, shown, strict=True):
        style = VERDICT_STYLES.get(line.verdict()[0], "")
        grid.add_row(*(Text(text[header], style=style if header == "verdict" else "") for header in narrow))
    console.print(grid)
    label = ""
    for text in shown:
        label = text["row"] or label
        if text["spent"]:
            own = f"; differs in: {text[HEADERS[-1]]}" if text[HEADERS[-1]] != ELSE else ""
            console.print(Text(f"{label}: spent {text['spent']}{own}"))
    for said in legend(table, found):
        console.print(Text(said, style="dim"))


def markdown(table: Table, found: Sequence[Line]) -> str:
    """The table in Markdown, every column."""
    escaped = ([one_line(text).replace("|", "\\|") for text in line.values()] for line in texts(found))
    rows = [list(HEADERS), ["---"] * len(HEADERS), *escaped]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {table.title}\n\n{body}\n\n" + "\n".join(f"- {said}" for said in legend(table, found)) + "\n"


def latex(table: Table, found: Sequence[Line]) -> str:
    """The table for a paper: booktabs, without the columns of cost and differences, which follow as notes."""
    kept = HEADERS[:9]
    shown = texts(found)
    out = [f"% {table.title}", f"\\begin{{tabular}}{{l l {'r ' * 4}l r r}}", "\\toprule"]
    out.append(" & ".join(kept) + " \\\\")
    out.append("\\midrule")
    out += [" & ".join(_tex(line[header]) for header in kept) + " \\\\" for line in shown]
    out += ["\\bottomrule", "\\end{tabular}"]
    label = ""
    for line in shown:
        label = line["row"] or label
        if line["spent"]:
            out.append(f"% {label}: spent {line['spent']}; differs in: {line[HEADERS[-1]]}")
    return "\n".join([*out, *(f"% {said}" for said in legend(table, found))]) + "\n"


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


def as_csv(found: Sequence[Line]) -> str:
    """One line per figure, numbers as they are."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ("row", "label", "data", "network", "recipe", "figure", "paper", "statistic", "mean", "low", "high", "n")
        + (
            "difference",
            "verdict",
            "reason",
            "params",
            "macs",
            "train_flops",
            "wall_s",
            "differs",
            "source",
            "status",
            "note",
        )
    )
    for line in found:
        row, values = line.row, line.values
        low, high = (mean_interval(values) if values else None) or ("", "")
        spent = [[number(get) or 0 for get in (run.train_flops, run.wall_s)] for run in line.runs]
        costs = [math.fsum(column) for column in zip(*spent, strict=True)] if spent else ["", ""]
        run = line.runs[0] if line.runs else None
        writer.writerow(
            [row.row, row.label, row.data, row.network, row.recipe, line.figure, line.paper, row.statistic]
            + [fmean(values) if values else "", low, high, len(values), line.difference, *line.verdict()]
            + [run.parameters if run else row.params, run.macs if run else row.macs, *costs]
            + ["; ".join(line.differences), row.source, row.status, row.note]
        )
    return out.getvalue()


def write_files(table: Table, found: Sequence[Line], output_root: Path) -> list[Path]:
    """Writes `<output_root>/tables/<table>.{md,tex,csv,json}`, the last for the page; returns the first three paths."""
    folder = output_root / TABLES
    folder.mkdir(exist_ok=True)
    stem = folder / table.name
    page = {
        "title": table.title,
        "name": table.name,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "headers": HEADERS,
        "lines": [list(line.values()) for line in texts(found)],
        "legend": legend(table, found),
    }
    contents = {
        "md": markdown(table, found),
        "tex": latex(table, found),
        "csv": as_csv(found),
        "json": json.dumps(page, ensure_ascii=False, indent=1) + "\n",
    }
    for suffix, content in contents.items():
        write_atomic(stem.with_suffix(f".{suffix}"), content)
    return [stem.with_suffix(f".{suffix}") for suffix in ("md", "tex", "csv")]


def print_list(output_root: Path, console: Console) -> None:
    """Every published table with how many of its rows have been run, by the folders of finished runs."""
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column("table", no_wrap=True)
    grid.add_column("title", overflow="fold")
    grid.add_column("rows run", justify="right", no_wrap=True)
    grid.add_column("seeds", justify="right", no_wrap=True)
    runnable = {table.name: [row for row in table.rows if row.runnable] for table in tables().values()}
    networks = {(row.data, row.network.split(" ")[0]) for rows in runnable.values() for row in rows}
    done = _finished(output_root, networks)
    for table in tables().values():
        rows = runnable[table.name]
        seeds = [done[row.data, row.network, row.recipe] for row in rows]
        run = [count for count in seeds if count]
        if table.needs:
            state = f"needs {table.needs}"
        else:
            state = f"{len(run)} of {len(rows)}" if rows else "reference lines"
        counts = f"{min(run)}–{max(run)}" if run and min(run) < max(run) else str(run[0]) if run else ""
        grid.add_row(table.name, Text(table.title), state, counts)
    console.print(grid)
    console.print(
        Text(
            "python run.py experiment=TABLE seed=0,1,2 runs what is missing; python -m benchmarks report TABLE prints it",
            style="dim",
        )
    )


def _finished(root: Path, networks: Collection[tuple[str, str]]) -> Counter[tuple[str, str, str]]:
    """Numbers of finished runs by data, network and recipe; only the folders of these (data, name) are read."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for data, name in networks:
        for entry in glob.iglob(f"{glob.escape(str(root / data / name))}/*/*/{RECORD}"):
            head = read_head(Path(entry))
            if head is not None and head.get("status") == "ok":
                counts[data, Run(Path(entry).parent, head).network, head["recipe"]] += 1
    return counts
