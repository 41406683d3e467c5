"""What all commands share: the terminal they print on, aligned tables, arguments, and the names they had before."""

import argparse
import codecs
import io
import math
import os
import signal
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from rich.cells import cell_len
from rich.console import Console

from benchmarks.units import signal_name

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")
PLAIN_WIDTH = 120
NARROWEST = 8  # of a column of text, if it is not shorter
STYLED = 500  # rows of a table; rich takes about a millisecond for each
MOST = 1_000  # rows of a table; more push what stands below it out of reach
# Names of commands in scripts and in the committed records of measurements, and their names of today.
RENAMED = {
    "certify": "complexity certify",
    "crossover": "report iso_compute",
    "decoding": "measure decoding",
    "logging_cost": "measure launching tracking",
    "match": "complexity match",
    "memory": "measure options --kept",
    "overhead": "measure launching start",
    "peers": "measure peers",
    "performance": "measure page",
    "profile": "complexity",
    "show": "wandb show",
    "step_cost": "measure steps",
    "switch_cost": "measure options",
    "sync": "wandb sync",
    "views": "view",
    "workspace": "wandb workspace",
}

# What a terminal without UTF-8 shows; of other letters the base, of other signs a question mark.
STAND_INS = str.maketrans(
    dict.fromkeys("·−–—─━", "-")
    | dict.fromkeys("●■▲▼◆★⬟✚", "*")
    | dict.fromkeys("✓✔", "+")
    | {"✖": "x", "▶": ">", "†": "!", "‖": "|"}
    | {"│": "|", "’": "'", "×": "x", "→": "->", "±": "+/-", "§": "section ", "≤": "<=", "≥": ">=", "≈": "~"}
    | {"µ": "u", "α": "alpha", "θ": "theta", "σ": "sigma", "∞": "inf"}
)
READABLE = "readable"  # the name of the error handler


def _readable(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that the stream's encoding lacks, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = (sign.translate(STAND_INS) for sign in error.object[error.start : error.end])
    bases = (unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?" for sign in signs)
    return "".join(bases), error.end


codecs.register_error(READABLE, _readable)


class Outliving:
    """A standard stream whose reader may go away (``| head -1``) or whose disk may be full: what nobody takes is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``; return its length."""
        try:
            self._stream.write(text)
        except OSError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def outlive_readers() -> None:
    """Let nothing that cannot be printed end this process: no reader, a full disk, an encoding without a character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=READABLE)
        if not isinstance(stream, Outliving):  # None where it was closed
            setattr(sys, name, Outliving(stream or open(os.devnull, "w", encoding="utf-8")))  # noqa: SIM115


def interrupt_on(*signals: int) -> None:
    """Have these signals interrupt this process as Ctrl-C does, each but one that it was started to ignore, as under nohup."""
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(signal_name(number))


def without_comment(words: Sequence[str]) -> list[str]:
    """Return the words of a command line up to a comment: zsh hands it on where it is typed (INTERACTIVE_COMMENTS is off)."""
    return [*takewhile(lambda word: word != "#", words)]


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads a whole number from ``least`` on, for an option of argparse."""

    def read(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"a whole number from {least}, got {text!r}")
        return int(text)

    return read


def number(least: float, words: str) -> Callable[[str], float]:
    """Return what reads a finite number above or equal to ``least``, described by ``words``, for an option of argparse."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{words}, got {text!r}")
        return value

    return read


def add_overrides(parser: argparse.ArgumentParser, more: str, nargs: str = "*") -> None:
    """Add the overrides of a command over configurations; ``more`` ends their help."""
    parser.add_argument("overrides", nargs=nargs, metavar="KEY=VALUE", help=f"as for run.py{more}")


def console(markup: bool = True) -> Console:
    """Return a console as wide as the terminal; elsewhere (a pipe, a file) of a fixed width unless COLUMNS says another."""
    console = Console(highlight=False, markup=markup)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(highlight=False, markup=markup, width=PLAIN_WIDTH)


def print_whole(table: "Table", console: Console) -> None:
    """Print a table of rich's as wide as the console, or wider if its columns that do not wrap need it: no number is cut."""
    if console.measure(table, options=console.options.update(width=1000)).maximum > console.width:
        table.padding = 0
        needed = len(table.columns) - 1 + 2 * table.show_edge
        for column in table.columns:
            texts = (str(text) for text in (column.header, *column.cells, column.footer))
            longest = max(cell_len(line) for text in texts for line in text.split("\n"))
            needed += longest if column.no_wrap else min(longest, NARROWEST)
        if needed > console.width:
            table.width = needed  # rich would cut; the terminal wraps
    console.print(table, crop=False)


def can_redraw(console: Console) -> bool:
    """Return whether bars can be redrawn: on a terminal that moves its cursor. FORCE_COLOR alone makes no file one."""
    return console.is_interactive and console.file.isatty()


def with_bar(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Yield ``items`` under a bar on standard error, where it can be redrawn; it is gone in the end."""
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, what, total, console=console, transient=True, disable=not can_redraw(console))


def aligned(rows: Sequence[Sequence[str]], right: Collection[int]) -> str:
    """Return rows of texts as lines, columns padded to the widest; ``right`` holds the indices of right-aligned columns."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)]
        cells = [gap + text if i in right else text + gap for i, (text, gap) in enumerate(zip(row, gaps, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
