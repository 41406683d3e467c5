"""Numbers, durations and values as people read them, and items by what they share. Imports nothing of the suite."""

import csv
import difflib
import errno
import io
import json
import math
import signal
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from typing import Any, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
MISSING = "–"
# Folders of an output root that hold no runs to show.
NO_RUNS = ("wandb", "cache", "sweeps", "superseded", "views", "tables", "slurm", "tuning", "mlartifacts")
FULL_DISK = "no space left on the disk, or no inodes; what was written before is intact"


def full_disk(error: BaseException) -> bool:
    """Whether an error is that of a disk, or a user's share of it, without space or inodes."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def quantity(value: float, unit: str) -> str:
    """``1.20 PFLOPs``, ``512 FLOPs``."""
    text = si(value)
    return f"{text}{unit}" if text[-1].isalpha() else f"{text} {unit}"


def device_hours(seconds: float) -> str:
    """``0.83 device-hours``, from seconds of all devices."""
    return f"{hours(seconds)} device-hours"


def hours(seconds: float) -> str:
    """Three significant digits, no fewer than the whole hours: ``0.0125``, ``12.5``, ``1,250``."""
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def short_value(value: Any) -> str:
    """A value as it stands in names: text as it is, numbers in their shortest form (``8e+10``), the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return str(value) if type(value) is int else json.dumps(value)


def killed_by(number: int) -> str:
    """``killed by SIGKILL (out of memory?)`` and the like."""
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    return f"killed by {signal_name(number)}{hint}"


def signal_name(number: int) -> str:
    """``SIGTERM``; ``signal 35`` of one that has no name, as real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def number(value: Any) -> float | None:
    """`value` when it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


@lru_cache(maxsize=10_000)  # runs of a network have counts in common
def si(value: float | None) -> str:
    """Three significant digits with an SI prefix: 34,426,698 is `34.4 M`, 1.2e12 is `1.20 T`, 512 is `512`."""
    if value is None:
        return MISSING
    for exponent, prefix in enumerate(("", "k", "M", "G", "T", "P", "E", "Z")):
        scaled = value / 1000**exponent
        if abs(scaled) < 999.5 or prefix == "Z":
            break
    if not prefix and value == int(value):
        return str(int(value))
    decimals = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:.{decimals}f} {prefix}".rstrip()


def duration(seconds: float | None) -> str:
    """Wall time in its two largest units: `4.2 s`, `45 s`, `1 min 12 s`, `2 h 03 min`, `3 d 04 h`."""
    if seconds is None:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def metric_text(value: float | None, label: str) -> str:
    """A metric with two decimals and its unit (`1.78 %`), or three without one (`0.884`)."""
    if value is None:
        return MISSING
    return f"{value:.2f} %" if "%" in label else f"{value:.3f}"


def score(value: float, label: str) -> tuple[str, float, str]:
    """Return name, value and unit of a metric as people know it: of ``test 100 − Dice (%)`` the Dice score."""
    name, unit = label.removesuffix(" (%)"), "%" if label.endswith("(%)") else ""
    return (name.replace("100 − ", ""), 100 - value, unit) if is_score(label) else (name, value, unit)


def is_score(label: str) -> bool:
    """Whether people know a metric as its distance from 100, as ``score`` returns it."""
    return "100 − " in label


def score_label(label: str) -> str:
    """Return the label of what people know: of ``test 100 − Dice (%)`` it is ``test Dice (%)``."""
    name, _, unit = score(0, label)
    return f"{name} ({unit})" if unit else name


def result_text(value: float | None, label: str) -> str:
    """Return `test error 3.78 %`, `test Dice 93.48 %`; the name alone where there is no value."""
    name, shown, _ = score(value or 0.0, label)
    return f"{name} {metric_text(None if value is None else shown, label)}"


def reported_text(value: float, label: str, spread: float | None = None) -> str:
    """Return a test's metric as people know it, `1.78 %` or `1.85 ± 0.21 %`, and of 100 − Dice `Dice 93.48 %`."""
    name, shown, _ = score(value, label)
    text = metric_text(shown, label)
    if spread is not None:
        text = f"{shown:.2f} ± {spread:.2f} %" if "%" in label else f"{shown:.3f} ± {spread:.3f}"
    return f"{name.removeprefix('test ')} {text}" if is_score(label) else text


def count(n: int | None) -> str:
    """10000 is `10,000`."""
    return MISSING if n is None else f"{n:,}"


def plural(n: int, noun: str, nouns: str = "") -> str:
    """Return ``1 run``, ``1,200 runs``, ``2 batches``."""
    return f"{n:,} {noun if n == 1 else nouns or noun + 's'}"


def csv_cell(value: Any) -> Any:
    """``value`` as a cell of CSV: a text that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    if text[:1] not in ("=", "+", "-", "@"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as a CSV file, by ``csv_cell``."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(map(csv_cell, row) for row in rows)
    return text.getvalue()


def one_line(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would obey."""
    if " " not in text and text.isprintable():
        return text
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """`text` with � for each character, but the end of a line, that cannot be shown."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'model'?)` for the known word that is nearest to `word`; empty if none is near."""
    words = list(known)
    swapped = [other for other in words if sorted(other) == sorted(word)]  # modle is model rather than mode
    close = (
        swapped or difflib.get_close_matches(word, words, n=1) or difflib.get_close_matches(word.lower(), words, n=1)
    )
    return f" (did you mean {close[0]!r}?)" if close else ""


def as_key(value: Any) -> str:
    """Return a text that is the same for equal values: JSON with its keys in order, and the text of what JSON has not."""
    return _KEYS.encode(value)


_KEYS = json.JSONEncoder(sort_keys=True, default=str)  # json.dumps makes one each time


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return the items by their key, keys and items in the order in which they come."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
