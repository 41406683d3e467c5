"""The tables of ``tune``: settings, batches, loader workers, and the rows of docs/performance.md."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.performance.document import RATE, MeasuredTable, rate
from benchmarks.performance.throughput import label
from benchmarks.training import tuned_settings
from benchmarks.units import MISSING, quantity

OF = ("forward", "train")
TABLE = MeasuredTable(
    "tune",
    "The fastest settings",
    {
        "network": ("network", "s"),
        "image": ("image", "s"),
        "batch": ("batch", "d"),
        "setting": ("setting", "s"),
        "best": ("", "s"),
        **{
            f"{of}_{key}": (f"{heading}{text}", form)
            for of, heading in zip(OF, ("forward, ", "training, "), strict=True)
            for key, text, form in (
                ("images_per_s", "images/s", RATE),
                ("ms", "ms", ".4g"),
                ("of_peak", "of peak", ".0%"),
                ("memory_mib", "MiB", ",.0f"),
            )
        },
    },
    "Forward passes and training steps on random images, a process for each line, after warm-up, interleaved with the plain "
    "setting, that of the first line: times are the median ratio to it, times the median of what it took in all processes. "
    "Best is what `trainer=auto` takes: the setting that trains the most images a second, or the first line where none has 3 % "
    "more than that; TF32 and bfloat16 change numbers and are taken only with `trainer.allow_reduced_precision=true`. Of "
    "peak: FLOPs of convolutions and linear layers a second, as a share of what the best of ten products of large matrices "
    "reaches in the same precision. Memory is the highest beside what the libraries take, that of compiling included.",
    same=("network", "image", "batch"),
)


def table_row(row: Mapping[str, Any], exact: Mapping[str, Any], reduced: Mapping[str, Any]) -> dict[str, Any]:
    """Return a setting's row of docs/performance.md."""
    is_best = {
        name: all(row[key] == best[key] for key in tuned_settings.SETTING)
        for name, best in (("exact", exact), ("any", reduced))
    }
    values = {
        "setting": label(row),
        "best": "best" if is_best["exact"] else "best if allowed" if is_best["any"] else "",
    }
    for of in OF:
        seconds, memory = row[f"{of}_s"], row[f"{of}_memory_bytes"]
        values |= {f"{of}_{name}": row[f"{of}_{name}"] for name in ("images_per_s", "of_peak")}
        values |= {f"{of}_ms": seconds and 1e3 * seconds, f"{of}_memory_mib": memory and memory / 2**20}
    return values


def settings_table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    best: Mapping[str, Any],
    first: str,
    name: Callable[[Mapping[str, Any]], str],
) -> Table:
    """Return the table of settings or batches; the row with all values of ``best`` is bold, ``name`` is its first cell."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, no_wrap=True)
    for of in ("forward", "training"):
        for header in (f"{of}\nimages/s", "\nms", "\nof peak", "\nmemory"):
            table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        values = [text for of in OF for text in _values(row, of)]
        is_best = bool(best) and all(row[key] == value for key, value in best.items())
        text = f"{name(row)}  ({row['problem']})" if row["problem"] else name(row)
        table.add_row(text, *values, style="bold" if is_best else None)
    return table


def _values(row: Mapping[str, Any], of: str) -> list[str]:
    if row[f"{of}_s"] is None:
        return [MISSING] * 4
    return [
        rate(row[f"{of}_images_per_s"]),
        f"{1e3 * row[f'{of}_s']:.4g}",
        f"{100 * row[f'{of}_of_peak']:.0f} %",
        quantity(row[f"{of}_memory_bytes"], "B"),
    ]


def workers_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of rates by the number of loader workers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("loader workers", justify="right")
    table.add_column("training images/s", justify="right")
    table.add_column("")
    for row in rows:
        images = row["train_images_per_s"]
        table.add_row(str(row["workers"]), MISSING if images is None else rate(images), row["problem"] or "")
    return table
