"""docs/performance.md, the measured speeds, from committed records: ``python -m benchmarks measure page``."""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from benchmarks import terminal
from benchmarks.records.code_version import IS_CHECKOUT, ROOT
from benchmarks.records.files import now, read_json, write_json
from benchmarks.units import MISSING, hours, si

DOCS = (ROOT if IS_CHECKOUT else Path()) / "docs"
RECORDS = DOCS / "performance"
PAGE = DOCS / "performance.md"
KINDS = (
    *("step_cost", "evaluation", "peers", "peers_input", "input", "decoding", "decoding_trace", "start_up"),
    *("logging_cost", "tune", "throughput", "scaling", "switch_cost", "layouts", "memory", "operators", "processes"),
    *("growth", "growth_cores"),
)  # in this order; others after them
PACKAGES = ("torch", "pytorch-lightning", "torchmetrics")
MACHINE = ("device", "device_name", "cores", "threads", "cuda", "cudnn", "python", "packages")
HEAD = """# Performance

Made by `python -m benchmarks measure page --write` from `docs/performance/*.json`; a test fails when it is stale. Each table
says on which machine, with which versions and by which command it was measured, by the name that the command has
now. The machines had other work to do: look at the ratios, which are of interleaved work.
"""
WORD = 24  # characters of a longer one are folded
NO_GPU = "\nThere are no figures of GPUs: none was available when these were measured.\n"


def rate(value: float) -> str:
    """Return images a second as text: 2,750, 27.5, 0.275."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


# Formats of a column beside Python's own: of images a second, seconds, bytes, counts, and seconds again.
RATE, MS, MIB, SI, HOURS = "rate", "ms", "mib", "si", "hours"
FORMATS: dict[str, Callable[[Any], str]] = {
    RATE: rate,
    MS: lambda seconds: f"{1e3 * seconds:.4g}",
    MIB: lambda size: f"{size / 2**20:,.0f}",
    SI: si,
    HOURS: hours,
}
Columns = Mapping[str, tuple[str, str]]  # key in a row -> heading, format


def interval(key: str, heading: str, form: str) -> Columns:
    """Return the columns of a figure and its interval, as ``with_interval`` makes them."""
    return {key: (heading, form), f"{key}_low": ("from", form), f"{key}_high": ("to", form)}


def named(**forms: str) -> Columns:
    """Return columns whose keys are their headings, by their formats."""
    return {key: (key, form) for key, form in forms.items()}


def add_write_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--write``, which every command has that measures."""
    parser.add_argument(
        "--write", action="store_true", help="keep the figures in docs/performance/, for docs/performance.md"
    )


def this_machine(device: str | None = None) -> dict[str, Any]:
    """Return the environment of a measurement on ``device``, by default on a GPU where there is one."""
    import torch

    from benchmarks.training.environment import environment

    return environment(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))


def in_one_thread(device: str | None = None) -> dict[str, Any]:
    """Compute in one thread from here on, and let Lightning be quiet; return the environment, as ``this_machine``."""
    import torch

    from benchmarks.training.rank import quiet

    quiet()
    torch.set_num_threads(1)
    return this_machine(device)


def exit_code(problems: Sequence[str]) -> int:
    """Print problems on standard error, a line each; return 1 where there is one, else 0."""
    for line in problems:
        print(line, file=sys.stderr)
    return int(bool(problems))


@dataclass(frozen=True)
class MeasuredTable:
    """A table of docs/performance.md, which a command measures.

    Attributes:
        kind: names the file of its record, ``<kind>-<device>.json``; has no ``-``.
        columns: rows may have more keys.
        note: what a reader must know, one paragraph.
        same: keys by which rows belong together; empty where every record replaces the one before.
    """

    kind: str
    title: str
    columns: Columns
    note: str
    same: Sequence[str] = ()

    def report(
        self,
        arguments: argparse.Namespace,
        rows: Sequence[Mapping[str, Any]],
        environment: Mapping[str, Any],
        more: str = "",
    ) -> None:
        """Print rows in the terminal and, with ``--write``, write their record."""
        if not rows:
            return
        terminal.console().print(table(self.columns, rows))
        if arguments.write:
            self.write(environment, arguments.command_line, rows, more)

    def write(
        self,
        environment: Mapping[str, Any],
        command: str,
        rows: Sequence[Mapping[str, Any]],
        more: str = "",
        root: Path = RECORDS,
    ) -> Path:
        """Write the record of these rows and return its path.

        With ``same``, rows stay that were measured with the same hardware, versions and threads and differ in one of those
        keys from all the new ones; each row then has its command, and the record all of them. Another device than that of the
        first record has a record of its own.

        Args:
            environment: as ``this_machine`` returns it.
            more: what this measurement adds to the note.
        """
        path = root / f"{self.kind}-{environment['device']}.json"
        rows = list(rows)
        if self.same:
            if (read_json(path) or {}).get("environment", environment)["device_name"] != environment["device_name"]:
                name = re.sub(r"\W+", "_", environment["device_name"].lower()).strip("_")
                path = path.with_name(f"{self.kind}-{environment['device']}-{name}.json")
            before = read_json(path) or {}
            here, there = (
                {name: of.get(name) for name in MACHINE} for of in (environment, before.get("environment", {}))
            )
            new = [self.place(row) for row in rows]
            older = before.get("rows", []) if here == there else []
            rows = [{**row, "command": command} for row in rows]
            rows = [*(row for row in older if [row.get(key) for key in self.same] not in new), *rows]
            command = " && ".join(dict.fromkeys(row["command"] for row in rows))
        root.mkdir(parents=True, exist_ok=True)
        content = {"title": self.title, "command": command, "measured": now(), "environment": dict(environment)}
        write_json(path, content | {"columns": dict(self.columns), "rows": rows, "note": self.note + more})
        return path

    def committed(self, device: str, machine: str | None = None) -> list[dict[str, Any]]:
        """Return the committed rows of a kind of device, `cpu` or `cuda`, of all machines; empty where there are none.

        Where ``machine``, a ``device_name``, has a row, those of other machines with the same values of ``same`` are left out.
        """
        rows = [
            (record["environment"]["device_name"], row)
            for stem, record in read_records().items()
            if stem.partition("-")[0] == self.kind and record["environment"]["device"] == device
            for row in record["rows"]
        ]
        own = [self.place(row) for name, row in rows if name == machine]
        return [row for name, row in rows if name == machine or self.place(row) not in own]

    def place(self, row: Mapping[str, Any]) -> list[Any]:
        """Return the values of a row by which rows belong together."""
        return [row[key] for key in self.same]


def read_records(root: Path = RECORDS) -> dict[str, dict[str, Any]]:
    """Return the records by the stems of their files, in the page's order; raise ValueError for a file that is none."""
    records = {}
    for path in sorted(root.glob("*.json"), key=_place):
        record = read_json(path)
        if missing := {"title", "command", "measured", "environment", "columns", "rows", "note"} - set(record or ()):
            raise ValueError(f"{path} is no record of a measurement: it has no {', '.join(sorted(missing))}")
        records[path.stem] = record
    return records  # type: ignore[return-value]


def render(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page, Markdown."""
    parts = [HEAD]
    if not any(record["environment"]["device"] == "cuda" for record in records.values()):
        parts.append(NO_GPU)
    titles = Counter(record["title"] for record in records.values())
    parts += [_section(record, titles[record["title"]] > 1) for record in records.values()]
    return "".join(parts)


def table(
    columns: Columns, rows: Sequence[Mapping[str, Any]], title: str | None = None, best: Mapping[str, Any] | None = None
) -> Table:
    """Return rows for the terminal, where it is narrow with folded words, without columns that hold nothing.

    Rows that have the values of ``best`` are bold.
    """
    columns = {key: column for key, column in columns.items() if any(row.get(key) not in (None, "") for row in rows)}
    printed = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    cells = [_cells(columns, row, MISSING) for row in rows]
    words, lines = [], []  # the longest of each column
    for (heading, form), *texts in zip(columns.values(), *cells, strict=True):
        parts = [part for text in texts for part in (text.split() if form == "s" else [text])]
        words.append(min(max(map(len, parts), default=0), WORD))
        lines.append(max(map(len, [*heading.split(", "), *texts])))
        justify: Literal["left", "right"] = "left" if form == "s" else "right"
        printed.add_column(heading.replace(", ", "\n"), justify=justify, overflow="fold")
    # Where it is too wide rich makes the widest columns narrower, all to one width, and cuts off what is to stay wider.
    narrowest = sum(min(line, max(words)) + 2 for line in lines)
    if narrowest <= terminal.console().width:
        for column, word in zip(printed.columns, words, strict=True):
            column.min_width = word
    for row, texts in zip(rows, cells, strict=True):
        printed.add_row(*map(escape, texts), style="bold" if best and best.items() <= row.items() else None)
    return printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure page``."""
    parser.description = f"Check docs/{PAGE.name} against the records in docs/{RECORDS.name}/, or write it."
    parser.add_argument("--write", action="store_true", help="write the page")


def run(arguments: argparse.Namespace) -> int:
    """Check or write the page; return 0, or 1 where it is not what the records say."""
    content = render(read_records())
    if arguments.write:
        PAGE.write_text(content, encoding="utf-8")
        return 0
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != content:
        print(f"{PAGE} is stale: python -m benchmarks measure page --write", file=sys.stderr)
        return 1
    return 0


def of_today(text: str) -> str:
    """Return a text with the commands of a record by the names that they have now."""
    return re.sub(r"(?<=python -m benchmarks )\w+", lambda name: terminal.RENAMED.get(name.group(), name.group()), text)


def _place(path: Path) -> tuple[int, str]:
    kind = path.stem.partition("-")[0]
    return KINDS.index(kind) if kind in KINDS else len(KINDS), path.stem


def _section(record: Mapping[str, Any], name_machine: bool) -> str:
    """Return a record as a section; its heading names the machine where another has that title."""
    columns, environment = record["columns"], record["environment"]
    lines = [
        [heading for heading, _ in columns.values()],
        ["---"] * len(columns),
        *(_cells(columns, row) for row in record["rows"]),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    versions = ", ".join(
        f"{name} {environment['packages'][name]}" for name in PACKAGES if name in environment["packages"]
    )
    machine = (
        f"{environment['device_name']}, {environment['cores']} cores, {environment['threads']} threads, "
        f"{environment['memory_bytes'] / 2**30:.0f} GiB; Python {environment['python']}, {versions}"
    ).replace(" 1 threads", " 1 thread")
    where = f", on {environment['device_name']}" * name_machine
    return (
        f"\n## {record['title']}{where}\n\n{table}\n\n{of_today(record['note'])}\n\n"
        f"*`{of_today(record['command'])}`, {record['measured'][:10]}; {machine}.*\n"
    )


def _cells(columns: Columns, row: Mapping[str, Any], missing: str = "") -> list[str]:
    """Return a row's texts; a number that it lacks is ``missing``."""
    texts = []
    for key, (_, form) in columns.items():
        if (value := row.get(key)) is None:
            texts.append("" if form == "s" else missing)
        else:
            texts.append(FORMATS[form](value) if form in FORMATS else format(value, form))
    return texts
