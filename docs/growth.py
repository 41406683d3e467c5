"""Makes docs/performance/growth.png and growth_cores.png from the records beside them: python docs/growth.py

Needs Chromium, as docs/pictures.py.
"""

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pictures import photograph

from benchmarks.config.about import Look
from benchmarks.performance.document import read_records
from benchmarks.report.figures import figure, line, points, ticks
from benchmarks.report.view import Figure, View, render

PICTURES = Path(__file__).parent / "performance"
# Colours of Okabe and Ito (2008), which readers with any sight tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("circle", "square", "diamond", "triangle-up", "star", "cross", "pentagon")
LOOKS = [Look(colour, marker, "solid") for colour, marker in zip(COLOURS, MARKERS, strict=True)]
LINEAR = "#5b6067"
LEVELS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)  # of the logarithmic axis upwards


def main() -> None:
    """Draw each record that is there."""
    records = read_records(PICTURES)
    if "growth-cpu" in records:
        rows = records["growth-cpu"]["rows"]
        charts = [
            over_runs(rows, "processor_s", "processor time, s"),
            over_runs(rows, "memory_mib", "peak memory, MiB"),
        ]
        draw("growth", ("Processor time", "Peak memory"), charts)
    if "growth_cores-cpu" in records:
        draw("growth_cores", ("Training",), [over_cores(records["growth_cores-cpu"]["rows"])])


def draw(name: str, titles: Sequence[str], charts: Sequence[dict[str, Any]]) -> None:
    """Write a picture of charts below one another."""
    figures = [Figure(title, "", [chart], 380, 700) for title, chart in zip(titles, charts, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        view = Path(folder, "view.html")
        view.write_text(render(View("", "", figures)), encoding="utf-8")
        photograph(view, PICTURES / f"{name}.png")


def over_runs(rows: Sequence[Mapping[str, Any]], key: str, title: str) -> dict[str, Any]:
    """Return a chart of a column over the number of runs, both logarithmic; of seconds with the slope of linear growth."""
    sizes = sorted({row["runs"] for row in rows})
    traces = curves(rows, "what", "runs", key)
    if key == "processor_s":
        most = max(row[key] for row in rows)
        guide = {"mode": "lines", "x": [sizes[-1] / 100, sizes[-1]], "y": [most / 50, 2 * most], "name": "linear"}
        traces.append({**guide, "line": {"color": LINEAR, "width": 1, "dash": "dot"}})
    x = {"title": "runs", "type": "log", **ticks(sizes, [f"{size:,}" for size in sizes])}
    return figure(traces, x, {"title": title, "type": "log", **ticks(LEVELS, [f"{level:,g}" for level in LEVELS])})


def over_cores(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a chart of images per second over processes and threads, in the order of the cores that they take."""
    places = sorted({(row["processes"] * row["threads"], row["processes"], row["threads"]) for row in rows})
    rows = [
        {**row, "at": places.index((row["processes"] * row["threads"], row["processes"], row["threads"]))}
        for row in rows
    ]
    names = [f"{processes} × {threads}" for _, processes, threads in places]
    x = {"title": "processes × threads each", **ticks(range(len(names)), names)}
    return figure(curves(rows, "network", "at", "images_per_s"), x, {"title": "images/s", "rangemode": "tozero"})


def curves(rows: Sequence[Mapping[str, Any]], name: str, x: str, y: str) -> list[dict[str, Any]]:
    """Return a line with its points for each value of a column."""
    traces = []
    for look, label in zip(itertools.cycle(LOOKS), dict.fromkeys(row[name] for row in rows)):
        own = sorted((row[x], row[y]) for row in rows if row[name] == label)
        drawn = line(*zip(*own, strict=True), look, name=label)
        traces.append({**drawn, "mode": "lines+markers", "marker": points((), (), look)["marker"]})
    return traces


if __name__ == "__main__":
    main()
