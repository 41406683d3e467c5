"""docs/performance.md, the measured speeds, from committed records: ``python -m benchmarks measure page``."""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from benchmarks import terminal
from benchmarks.records.code_version import IS_CHECKOUT, ROOT
from benchmarks.records.files import now, read_json, write_json

DOCS = (ROOT if IS_CHECKOUT else Path()) / "docs"
RECORDS = DOCS / "performance"
PAGE = DOCS / "performance.md"
KINDS = (
    *("step_cost", "peers", "peers_input", "input", "decoding", "decoding_trace", "start_up", "logging_cost"),
    *("tune", "throughput", "scaling", "switch_cost", "memory"),
)  # in this order; others after them
PACKAGES = ("torch", "pytorch-lightning", "torchmetrics")
MACHINE = ("device", "device_name", "cores", "threads", "cuda", "cudnn", "python", "packages")
HEAD = """# Performance

Made by `python -m benchmarks measure page --write` from `docs/performance/*.json`; a test fails when it is stale. Each table
says on which machine, with which versions and by which command it was measured, by the name that the command has
now. The machines had other work to do: look at the ratios, which are of interleaved work.
"""
RATE = "rate"  # a column's format: whole numbers, but three digits
NO_GPU = "\nThere are no figures of GPUs: none was available when these were measured.\n"


def add_write_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--write``, which every command has that measures."""
    parser.add_argument(
        "--write", action="store_true", help="keep the figures in docs/performance/, for docs/performance.md"
    )


@dataclass(frozen=True)
class MeasuredTable:
    """A table of docs/performance.md, which a command measures.

    Attributes:
        kind: names the file of its record, ``<kind>-<device>.json``.
        columns: key in a row -> heading, format (or ``RATE``); rows may have more keys.
        note: what a reader must know, one paragraph.
        same: keys by which rows belong together; empty where every record replaces the one before.
    """

    kind: str
    title: str
    columns: Mapping[str, tuple[str, str]]
    note: str
    same: Sequence[str] = ()

    def print(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print rows in the terminal."""
        terminal.console().print(table(self.columns, rows))

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
        keys from all the new ones; each row then has its command, and the record all of them.

        Args:
            environment: of ``benchmarks.training.environment``.
            more: what this measurement adds to the note.
        """
        path = root / f"{self.kind}-{environment['device']}.json"
        rows = list(rows)
        if self.same:
            before = read_json(path) or {}
            here, there = (
                {name: of.get(name) for name in MACHINE} for of in (environment, before.get("environment", {}))
            )
            new = [[row[key] for key in self.same] for row in rows]
            older = before.get("rows", []) if here == there else []
            rows = [{**row, "command": command} for row in rows]
            rows = [*(row for row in older if [row.get(key) for key in self.same] not in new), *rows]
            command = " && ".join(dict.fromkeys(row["command"] for row in rows))
        root.mkdir(parents=True, exist_ok=True)
        content = {"title": self.title, "command": command, "measured": now(), "environment": dict(environment)}
        write_json(path, content | {"columns": dict(self.columns), "rows": rows, "note": self.note + more})
        return path


def read_records(root: Path = RECORDS) -> dict[str, dict[str, Any]]:
    """Return the records by the stems of their files, in the page's order.

    Raises:
        ValueError: a file that is no such record.
    """
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
    parts += [_section(record) for record in records.values()]
    return "".join(parts)


def table(columns: Mapping[str, tuple[str, str]], rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a record's table for the terminal; where that is narrow, words are folded and no number is."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    cells = [[_cell(row.get(key), form) for key, (_, form) in columns.items()] for row in rows]
    for index, (heading, form) in enumerate(columns.values()):
        if form == "s":
            shown.add_column(heading, overflow="fold")
        else:
            widest = max((len(row[index]) for row in cells), default=0)
            shown.add_column(heading, overflow="fold", justify="right", min_width=widest)
    for row in cells:
        shown.add_row(*row)
    return shown


def rate(value: float) -> str:
    """Return images a second as text: 2,750, 27.5, 0.275."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


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
    kind = path.stem.rpartition("-")[0]
    return KINDS.index(kind) if kind in KINDS else len(KINDS), path.stem


def _section(record: Mapping[str, Any]) -> str:
    columns, where = record["columns"], record["environment"]
    lines = [
        " | ".join(heading for heading, _ in columns.values()),
        " | ".join("---" for _ in columns),
        *(" | ".join(_cell(row.get(key), form) for key, (_, form) in columns.items()) for row in record["rows"]),
    ]
    table = "\n".join(f"| {line} |" for line in lines)
    versions = ", ".join(f"{name} {where['packages'][name]}" for name in PACKAGES if name in where["packages"])
    machine = (
        f"{where['device_name']}, {where['cores']} cores, {where['threads']} threads, "
        f"{where['memory_bytes'] / 2**30:.0f} GiB; Python {where['python']}, {versions}"
    ).replace(" 1 threads", " 1 thread")
    return (
        f"\n## {record['title']}\n\n{table}\n\n{of_today(record['note'])}\n\n"
        f"*`{of_today(record['command'])}`, {record['measured'][:10]}; {machine}.*\n"
    )


def _cell(value: Any, form: str) -> str:
    if value is None:
        return ""
    return rate(value) if form == RATE else format(value, form)
