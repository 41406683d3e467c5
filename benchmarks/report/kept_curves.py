"""Curves of a page, kept beside the runs so that the next page reads the histories that have changed alone."""

import json
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from benchmarks.records.files import HISTORY, below, write_atomic
from benchmarks.records.runs import Run
from benchmarks.report.learning_curves import Columns, columns_of

FEWEST_RUNS = 30  # of an output root, below which reading takes no longer
KEPT = Path("cache", "curves.jsonl")  # of an output root; may be deleted at any time


class KeptCurves:
    """Reads the curves of runs, those whose history is as it was from a file.

    The file has a line for each history: a checksum, then path, metric, time of change and size, then the columns. A line
    that is damaged, or of a history that has changed, is not used; one of a run that is gone is not written again.

    Args:
        root: the folder that holds the runs.
        runs: all that the page shows.
    """

    def __init__(self, root: Path, runs: Iterable[Run]) -> None:
        self.root = root
        self.path = root / KEPT
        self._lines: dict[str, bytes] = {}
        self._used: list[bytes] = []
        self._is_worth_it = sum(1 for _ in runs) >= FEWEST_RUNS
        with suppress(OSError):
            for line in self.path.read_bytes().splitlines() if self._is_worth_it else ():
                checksum, _, content = line.partition(b" ")
                if checksum == _checksum(content):
                    self._lines[content.partition(b"\t")[0].decode()] = line

    def read(self, run: Run) -> Columns:
        """Return the columns of a run, as `columns_of`. Raises OSError or ValueError where they cannot be read."""
        if run.is_debug or not self._is_worth_it:
            return columns_of(run)
        path = os.path.join(run.directory, HISTORY)
        try:
            state = os.stat(path)
        except FileNotFoundError:
            return columns_of(run)
        key = json.dumps([below(self.root, path), run.val_metric, state.st_mtime_ns, state.st_size])
        line = self._lines.get(key)
        if line is None:
            columns = columns_of(run)
            content = f"{key}\t{json.dumps(columns)}".encode()
            line = _checksum(content) + b" " + content
        else:
            columns = json.loads(line.partition(b"\t")[2])
        self._used.append(line)
        return columns

    def write(self) -> None:
        """Keep what was read, where anything of it is new; a folder that cannot be written keeps nothing."""
        if set(self._used) != set(self._lines.values()):
            with suppress(OSError):
                self.path.parent.mkdir(exist_ok=True)
                write_atomic(self.path, b"\n".join(self._used).decode(), durable=False)


def _checksum(content: bytes) -> bytes:
    return f"{zlib.crc32(content):08x}".encode()
