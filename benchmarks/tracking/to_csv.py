"""CSV files in the run's folder: ``history.csv``, a row for each evaluation, and ``summary.csv``. Needs no package."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.records.files import read_bytes, write_atomic
from benchmarks.tracking.content import Content
from benchmarks.units import csv_text

HISTORY, SUMMARY = "history.csv", "summary.csv"


class Writer:
    """Writes the history anew with every row: a row may have a column that those before it have not."""

    def __init__(self, content: Content) -> None:
        self._directory = content.directory
        try:
            lines = sum(1 for _ in csv.reader(io.StringIO(read_bytes(self._directory / HISTORY).decode(), newline="")))
        except OSError:
            lines = 0
        self._rows: list[Mapping[str, Any]] = [*content.rows[: max(0, lines - 1)]]

    @property
    def rows(self) -> int:
        """How many rows the file has."""
        return len(self._rows)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to the history."""
        self._rows += rows
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        lines = ([row.get(name) for name in columns] for row in self._rows)
        write_atomic(self._directory / HISTORY, csv_text([columns, *lines]), durable=False)

    def close(self, content: Content) -> None:
        """Write what the run computes, and how it has ended."""
        lines = (content.facts | content.summary).items()
        write_atomic(self._directory / SUMMARY, csv_text([("name", "value"), *lines]), durable=False)

    @staticmethod
    def where(content: Content) -> str:
        """Return where the files lie."""
        return f"{HISTORY} and {SUMMARY} in the folder of each run below {content.root}"
