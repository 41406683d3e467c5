"""The page of runs: `<output_root>/report.html`, one file that opens from disk with no network.

`templates/` beside this module holds the layout, style and script; what is filled in here is data.
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.analysis.comparisons import network_labels
from benchmarks.analysis.seeds import shared_overrides, short_labels
from benchmarks.records.files import SWEEPS, read_json, write_atomic
from benchmarks.records.runs import TABLES, Run, load_runs, overrides_text, uncollected
from benchmarks.report import sections
from benchmarks.report.chart_data import Charts, charts_of
from benchmarks.report.figures import family_marks
from benchmarks.report.kept_curves import KeptCurves
from benchmarks.report.leaderboard import SHOWN_FIRST, leaderboard
from benchmarks.report.quantities import ERROR, MODEL, QUANTITIES, RECIPE, RUN_COLUMNS, STATUS, result_title
from benchmarks.report.rendering import render_template
from benchmarks.report.run_details import pooled_details
from benchmarks.report.status import TrialState, trial_states
from benchmarks.report.style import family_look, legend_key, look_of
from benchmarks.report.tables import Cell, Table
from benchmarks.units import grouped, one_line, score_label

SCRIPTS = (
    *("charts", "page", "scales", "labels", "cost", "training", "share", "marks", "leaderboard", "state", "controls"),
    *("table", "details", "downloads"),
)
# What `training/pictures.py` puts side by side, by task.
PANELS = {"segmentation": ("image", "truth", "prediction", "errors"), "detection": ("truth", "detected, with scores")}
PICTURES_PER_NETWORK = 2
PICTURE_BYTES = 6_000_000  # of all pictures of a page


def write_page(
    output_root: str | Path, loaded: tuple[list[Run], list[str]] | None = None, out: Path | None = None
) -> Path:
    """Write the page of the run folders below `output_root` and return its path.

    The file is replaced atomically, so that a reader never sees half a page.

    Args:
        loaded: what `load_runs` returned of the folder, where it has been read already.
        out: the page's file, and nothing else is written; None for `<output_root>/report.html`.

    Raises:
        FileNotFoundError: there is no such folder, or plotly is not installed.
    """
    root = Path(output_root)
    runs, problems = loaded or load_runs(root)
    # Only a sweep's list tells what is missing, and only below an output root do paths name trials.
    states, problems = trial_states(root, (runs, problems)) if (root / SWEEPS).is_dir() else ([], problems)
    published, unread = _published_tables(root)
    problems = [*problems, *unread]
    path = out or root / "report.html"
    curves = KeptCurves(root, runs)
    with uncollected():
        write_atomic(path, _render(root, runs, curves, states, published, problems))
    if out is None:
        curves.write()
    return path


def _published_tables(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what `report TABLE` has written for the page, and a line for each file that something else has written."""
    tables, problems = [], []
    for path in sorted((root / TABLES).glob("*.json")):
        table = read_json(path) or {}
        lines = table.get("lines")
        texts = [table.get(key) for key in ("title", "name", "written")]
        rows = [table.get("headers"), table.get("legend"), *(lines if isinstance(lines, list) else [None])]
        if all(isinstance(text, str) for text in texts) and all(isinstance(row, list) for row in rows):
            tables.append(table)
        else:
            problems.append(f"{one_line(str(path))}: not a table that `report TABLE` writes")
    return tables, problems


def _render(
    root: Path,
    runs: list[Run],
    curves: KeptCurves,
    states: Sequence[TrialState],
    published: Sequence[dict[str, Any]],
    problems: Sequence[str],
) -> str:
    drawn = charts_of(runs, curves.read)
    legend = _legend(runs)
    looks = {row["family"]: family_look(row["family"]) for chart in drawn.charts for row in chart["references"]}
    looks |= {legend_key(run): look_of(run) for run in sorted(runs, key=lambda run: str(run.record.get("started")))}
    looks = {key: looks[key] for key in dict.fromkeys([*legend, *looks])}
    drawable = bool(drawn.curves or drawn.networks)
    strips, left_out = pictures(drawn)
    tables = [table_of_runs(runs), sections.uncounted(runs), sections.not_finished(runs, states)]
    tables += [*sections.scaling(runs), *sections.scores(runs)]
    tables += map(published_table, published)
    by_data = grouped(runs, lambda run: run.data)
    tables += [replace(sections.baselines(members), data=data) for data, members in by_data.items()]
    return render_template(
        "page.html",
        title="Accuracy against compute",
        scripts=SCRIPTS,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        summary=sections.summary(runs, states),
        notice="" if drawable else _nothing_to_draw(runs),
        data_sets=drawn.data_sets,
        choices=[(index, chart["set"], chart["title"]) for index, chart in enumerate(drawn.charts)],
        leaderboard=leaderboard(drawn).filled(),
        looks=looks,
        legend=legend,
        charts={
            "axes": [{key: value for key, value in asdict(axis).items() if key != "value"} for axis in QUANTITIES],
            "charts": drawn.charts,
            "shown_first": SHOWN_FIRST,
            "curves": drawn.curves,
            "runs": _drawn_runs(root, runs),
            "looks": family_marks(looks),
        },
        runs=runs,
        tables=[table.filled() for table in tables if table.rows],
        problems=[*problems, *drawn.problems],
        pictures=strips,
        pictures_left_out=left_out,
        details=pooled_details(runs),
    )


def table_of_runs(runs: Sequence[Run]) -> Table:
    """Return every run with every column; its first cell marks the run in the charts and opens its details.

    What all runs override stands once, above the rows.
    """
    shared = shared_overrides(runs)
    rows = []
    for index, run in enumerate(runs):
        row = {column: Cell(column.text(run), column.value(run)) for column in RUN_COLUMNS}
        own = overrides_text({key: value for key, value in run.part("overrides").items() if key not in shared})
        row[RECIPE] = replace(row[RECIPE], text=", ".join(filter(None, (run.record["recipe"], own))))
        row[MODEL] = replace(row[MODEL], look=look_of(run), run=index, hint=run.label)
        row[STATUS] = replace(row[STATUS], status=run.status)
        row[ERROR] = replace(row[ERROR], hint=score_label(run.metric_label))
        rows.append(list(row.values()))
    in_all = f" In all runs: {one_line(overrides_text(shared))}." if shared else ""
    lead = f"A run’s name opens its details, its box marks it in the charts.{in_all}"
    heads = {result_title(runs) if column is ERROR else column.title: column.number for column in RUN_COLUMNS}
    numbers = [head for head, number in heads.items() if number]
    return Table("Runs", list(heads), rows, numbers, lead, of_runs=True, name="table")


def published_table(content: dict[str, Any]) -> Table:
    """Return a published table beside our runs, from the file that `report TABLE` wrote."""
    lead = (
        f"The paper’s table beside our runs, as of {content['written']}: python -m benchmarks report {content['name']}"
    )
    title, heads, rows, notes = (content[key] for key in ("title", "headers", "lines", "legend"))
    return Table(title, heads, rows, lead=lead, notes=notes, name=f"table-{content['name']}")


def pictures(drawn: Charts) -> tuple[list[dict[str, Any]], int]:
    """Return the first pictures of every finished network's first seed, and how many have no room.

    Of each the index of its run, its data set and name, the titles of what it shows side by side, and the file in base64.
    """
    groups = [group for group, _, _ in drawn.networks]
    labels = network_labels([group[0] for group in groups], recipes=True)
    index_of = {point["id"]: point["runs"][0] for chart in drawn.charts for point in chart["networks"]}
    strips, room, left_out = [], PICTURE_BYTES, 0
    for key, (group, label) in enumerate(zip(groups, labels, strict=True)):
        run = group[0]
        panels = PANELS.get(str(run.record.get("task")), ())
        for path in run.pictures[:PICTURES_PER_NETWORK]:
            room -= path.stat().st_size
            if room < 0:
                left_out += 1
                continue
            picture = {"run": index_of[key], "data": run.data, "name": f"{run.data} · {label} · {path.stem}"}
            strips.append(picture | {"panels": panels, "png": base64.b64encode(path.read_bytes()).decode()})
    return strips, left_out


def _drawn_runs(root: Path, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return what the charts know of each run; `path`, its folder below `root`, names it in the page's address."""
    labels: dict[int, str] = {}
    for members in grouped(runs, lambda run: run.data).values():
        labels |= dict(zip(map(id, members), short_labels(members), strict=True))
    return [
        {
            "label": one_line(labels[id(run)]),
            "family": legend_key(run),
            "status": run.status,
            "error": run.value,
            "path": one_line(os.path.relpath(run.directory, root)),
        }
        for run in runs
    ]


def _legend(runs: Sequence[Run]) -> dict[str, str]:
    """Return the names of families by how they are drawn: those without a style of their own share one."""
    drawn_alike = grouped(runs, legend_key)
    return {key: ", ".join(dict.fromkeys(one_line(run.family) for run in same)) for key, same in drawn_alike.items()}


def _nothing_to_draw(runs: Sequence[Run]) -> str:
    if not runs:
        return "There are no runs in this folder yet. A run is shown from its start on."
    if any(run.status == "running" for run in runs):
        return "Nothing to draw yet: no run has been evaluated. A curve begins with a run’s first evaluation."
    return "Nothing to draw: no run got as far as its first evaluation."
