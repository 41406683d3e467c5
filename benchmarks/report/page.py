"""The page of runs: `<output_root>/report.html`, one file that opens from disk with no network.

`templates/` beside this module holds the layout, style and script; what is filled in here is data.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.analysis.comparisons import recipe_title
from benchmarks.records.files import SWEEPS, read_json, write_atomic
from benchmarks.records.runs import TABLES, Run, load_runs, uncollected
from benchmarks.report import sections
from benchmarks.report.chart_data import Charts, charts_of
from benchmarks.report.each_run import EachRun, begin_each_run
from benchmarks.report.figures import family_marks
from benchmarks.report.leaderboard import SHOWN_FIRST, leaderboard
from benchmarks.report.quantities import QUANTITIES
from benchmarks.report.rendering import render_template
from benchmarks.report.status import TrialState, trial_states
from benchmarks.report.style import family_look, legend_key, look_of
from benchmarks.report.tables import Table
from benchmarks.units import grouped, one_line

SCRIPTS = (
    *("charts", "page", "scales", "labels", "cost", "training", "share", "marks", "leaderboard", "state", "controls"),
    *("table", "details", "downloads"),
)
# What `training/pictures.py` puts side by side, by task.
PANELS = {"segmentation": ("image", "truth", "prediction", "errors"), "detection": ("truth", "detected, with scores")}
PICTURES_PER_NETWORK = 2
PICTURE_BYTES = 6_000_000  # of all pictures of a page


def write_page(
    output_root: str | Path,
    loaded: tuple[list[Run], list[str]] | None = None,
    out: Path | None = None,
    each: Callable[[], EachRun] | None = None,
) -> Path:
    """Write the page of the run folders below `output_root` and return its path.

    The file is replaced atomically, so that a reader never sees half a page.

    Args:
        loaded: what `load_runs` returned of the folder, where it has been read already.
        out: the page's file, and nothing else is written; None for `<output_root>/report.html`.
        each: what `begin_each_run` returned, where it was begun before.

    Raises:
        FileNotFoundError: there is no such folder, or plotly is not installed.
    """
    root = Path(output_root)
    runs, problems = loaded or load_runs(root)
    each = each or begin_each_run(root, runs, keep=out is None)
    # Only a sweep's list tells what is missing, and only below an output root do paths name trials.
    states, problems = trial_states(root, (runs, problems)) if (root / SWEEPS).is_dir() else ([], problems)
    published, unread = _published_tables(root)
    problems = [*problems, *unread]
    path = out or root / "report.html"
    with uncollected():
        write_atomic(path, _render(runs, each, states, published, problems))
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
    runs: list[Run],
    each: Callable[[], EachRun],
    states: Sequence[TrialState],
    published: Sequence[dict[str, Any]],
    problems: Sequence[str],
) -> Iterator[str]:
    drawn = charts_of(runs)
    legend = _legend(runs)
    looks = {row["family"]: family_look(row["family"]) for chart in drawn.charts for row in chart["references"]}
    looks |= {legend_key(run): look_of(run) for run in sorted(runs, key=lambda run: str(run.record.get("started")))}
    looks = {key: looks[key] for key in dict.fromkeys([*legend, *looks])}
    strips, left_out = pictures(drawn)
    tables = [sections.uncounted(runs), sections.not_finished(runs, states)]
    tables += [*sections.scaling(runs), *sections.scores(runs)]
    tables += map(published_table, published)
    by_data = grouped(runs, lambda run: run.data)
    tables += [
        replace(sections.baselines(members), data=data, name=f"baselines on {data}")
        for data, members in by_data.items()
    ]
    best = leaderboard(drawn).filled()
    own = each()  # which another process may still be making
    drawn.complete(own.together)
    drawable = any(own.together) or bool(drawn.networks)
    return render_template(
        "page.html",
        title="Accuracy against compute",
        scripts=SCRIPTS,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        summary=sections.summary(runs, states),
        notice="" if drawable else _nothing_to_draw(runs),
        data_sets=drawn.data_sets,
        choices=[(index, chart["set"], chart["title"]) for index, chart in enumerate(drawn.charts)],
        leaderboard=best,
        looks=looks,
        legend=legend,
        charts={
            "axes": [{key: value for key, value in asdict(axis).items() if key != "value"} for axis in QUANTITIES],
            "charts": drawn.charts,
            "shown_first": SHOWN_FIRST,
            "looks": family_marks(looks),
        },
        drawn=own.drawn,
        runs_table=own.table,
        tables=[table.filled() for table in tables if table.rows],
        problems=[*problems, *own.problems],
        pictures=strips,
        pictures_left_out=left_out,
        details=own.details,
    )


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
    index_of = {point["id"]: point["runs"][0] for chart in drawn.charts for point in chart["networks"]}
    strips, room, left_out = [], PICTURE_BYTES, 0
    for key, (group, label) in enumerate(zip(groups, drawn.labels, strict=True)):
        run = group[0]
        panels = PANELS.get(str(run.record.get("task")), ())
        for path in run.pictures[:PICTURES_PER_NETWORK]:
            room -= path.stat().st_size
            if room < 0:
                left_out += 1
                continue
            name = f"{run.data} · {label} · {recipe_title(run)} · {path.stem}"
            picture = {"run": index_of[key], "data": run.data, "name": name}
            strips.append(picture | {"panels": panels, "png": base64.b64encode(path.read_bytes()).decode()})
    return strips, left_out


def _legend(runs: Sequence[Run]) -> dict[str, str]:
    """Return the names of families by how they are drawn: those without a style of their own share one."""
    drawn_alike = grouped(runs, legend_key)
    return {key: ", ".join(dict.fromkeys(one_line(run.family) for run in same)) for key, same in drawn_alike.items()}


def _nothing_to_draw(runs: Sequence[Run]) -> str:
    if not runs:
        return "There are no runs in this folder yet. A run is shown from its start on."
    if any(run.state == "running" for run in runs):
        return "Nothing to draw yet: no run has been evaluated. A curve begins with a run’s first evaluation."
    return "Nothing to draw: no run got as far as its first evaluation."
