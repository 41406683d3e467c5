"""The mirrors beside W&B's: each is kept by a process of its own beside rank 0, which follows the run's folder.

A mirror ``NAME`` is a file ``conf/logger/NAME.yaml`` with its settings, and a file ``to_NAME.py`` with its ``Writer``. No
trouble of one can hold, end or alter a run; at its end a run waits ``logger.NAME.finish_timeout`` seconds for it. What it has
missed, ``python -m benchmarks export mirror`` writes.
"""

import importlib
import os
import select
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.records.files import read_config
from benchmarks.tracking.content import Content, content_of, reason
from benchmarks.tracking.process import FINISH, LOOK_S, finish, ignore_signals, start


class Writer(Protocol):
    """What writes one run to its mirror. Built with the run's content; errors are of any class. ``rows`` is how many rows of
    the history the mirror holds already, from the first."""

    rows: int

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows that follow, in order, at once."""

    def close(self, content: Content) -> None:
        """Write all but the history; once more changes nothing."""

    @staticmethod
    def where(content: Content) -> str:
        """Return how the runs of an output root are looked at, in a line, by the settings of one of them."""
        ...


class Follower:
    """A mirror's process, as rank 0 knows it.

    Args:
        directory: the run's, with its record and configuration.
        name: the mirror's.
        finish_timeout: seconds to wait at the end for what is left to be written.
        settings: the rest of the mirror's node, which the process reads for itself.
    """

    def __init__(self, directory: Path, name: str, finish_timeout: float, **settings: Any) -> None:
        self._name, self._directory, self._limit_s = name, directory, finish_timeout
        self._process: subprocess.Popen[bytes] = start("follower", directory, name, stdin=subprocess.PIPE)

    def finish(self) -> None:
        """Let the mirror be closed as the written record says, within ``finish_timeout``."""
        finish(self._process, self._limit_s, f"{self._name}: not all was written", remedy(self._name, self._directory))


def writer_class(name: str) -> Any:
    """Return the ``Writer`` of a mirror. Raises ImportError where its package is not installed."""
    return importlib.import_module(f"benchmarks.tracking.to_{name}").Writer


def remedy(name: str, directory: Path) -> str:
    """Say how a mirror is completed later."""
    return f"`python -m benchmarks export mirror {shlex.quote(str(directory))} --to {name}` writes what is missing"


def main(directory: Path, name: str) -> int:
    """Run the process: write rows as they come, and the rest at the end; return 0 if all was taken."""
    ignore_signals()
    os.dup2(2, 1)  # what a client prints belongs in the log
    try:
        settings = read_config(directory)["logger"][name]
        content = content_of(directory, settings)
        writer: Writer = writer_class(name)(content)
        ending = False
        while not ending:
            ending = bool(select.select([0], [], [], LOOK_S)[0])
            if missing := content.rows[writer.rows :]:
                writer.write(missing)
        if os.read(0, len(FINISH)) != FINISH:
            os._exit(1)  # rank 0 was killed: how the run ended is not known here
        writer.close(content_of(directory, settings))
    except Exception as error:  # of the client, its server or the disk: of many classes
        print(f"{name}: {reason(error)}; {remedy(name, directory)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
