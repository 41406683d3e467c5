"""The page of runs: `<output_root>/report.html`, one file that opens from disk with no network.

`templates/` beside this module holds the layout, style and script; what is filled in here is data.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.analysis.seeds import baseline_comparisons, short_labels
from benchmarks.records.files import SWEEPS, read_json, write_atomic
from benchmarks.records.runs import TABLES, Run, load_runs
from benchmarks.report import page_tables
from benchmarks.report.chart_data import AXES, chart, points_per_curve
from benchmarks.report.figures import family_marks
from benchmarks.report.rendering import render_template
from benchmarks.report.run_details import pooled_details
from benchmarks.report.status import TrialState, trial_states
from benchmarks.report.style import drawn_family
from benchmarks.units import one_line

# The columns of the table of runs, in the order of `templates/tables.html`, and whether they hold numbers.
COLUMNS = (
    *(("model", False), ("data set", False), ("recipe", False), ("seed", True), ("parameters", True), ("MACs", True)),
    *(("training FLOPs", True), ("test error", True), ("n", True), ("wall time", True), ("status", False)),
)


def write_page(output_root: str | Path, loaded: tuple[list[Run], list[str]] | None = None) -> Path:
    """Write `<output_root>/report.html` from the run folders below `output_root` and return its path.

    The file is replaced atomically, so that a reader never sees half a page.

    Args:
        loaded: what `load_runs` returned of the folder, where it has been read already.

    Raises:
        FileNotFoundError: there is no such folder, or plotly is not installed.
    """
    root = Path(output_root)
    runs, problems = loaded or load_runs(root)
    # Only a sweep's list tells what is missing, and only below an output root do paths name trials.
    states = trial_states(root, (runs, problems))[0] if (root / SWEEPS).is_dir() else []
    tables = [content for path in sorted((root / TABLES).glob("*.json")) if (content := read_json(path))]
    path = root / "report.html"
    write_atomic(path, _render(runs, states, tables, problems, datetime.now(UTC)))
    return path


def _render(
    runs: list[Run],
    states: Sequence[TrialState],
    tables: Sequence[dict[str, Any]],
    problems: Sequence[str],
    written: datetime,
) -> str:
    problems = list(problems)
    data_sets = list(dict.fromkeys(run.data for run in runs))
    limit = points_per_curve(runs)
    charts = [
        chart(data, [(index, run) for index, run in enumerate(runs) if run.data == data], problems, limit)
        for data in data_sets
    ]
    legend = _legend(runs)
    published = [row["family"] for drawn in charts for row in drawn["references"]]
    drawable = any(drawn["series"] or drawn["networks"] for drawn in charts)
    pictures, left_out = page_tables.pictures(runs)
    total, counts = page_tables.summary(runs, states)
    return render_template(
        "page.html",
        title="Accuracy against compute",
        written=written.strftime("%Y-%m-%d %H:%M UTC"),
        total=total,
        counts=counts,
        notice="" if drawable else _nothing_to_draw(runs),
        data_sets=data_sets,
        legend={family: ", ".join(map(one_line, names)) for family, names in legend.items()},
        charts={
            "axes": [{key: value for key, value in vars(axis).items() if key != "value"} for axis in AXES],
            "charts": charts,
            "runs": _drawn_runs(runs, data_sets),
            "looks": family_marks(dict.fromkeys([*legend, *published])),
        },
        columns=COLUMNS,
        runs=runs,
        stopped=page_tables.STOPPED,
        failures=page_tables.failures(runs, states),
        means=page_tables.means(runs),
        scores=page_tables.scores(runs),
        tables=[{**table, "headers": [(header, False) for header in table["headers"]]} for table in tables],
        baselines=baseline_comparisons(runs),
        problems=problems,
        pictures=pictures,
        pictures_left_out=left_out,
        details=pooled_details(runs),
    )


def _drawn_runs(runs: Sequence[Run], data_sets: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the charts know of each run; `chart` is the index of its data set."""
    labels: dict[int, str] = {}
    for data in data_sets:
        members = [run for run in runs if run.data == data]
        labels |= dict(zip(map(id, members), short_labels(members), strict=True))
    return [
        {
            "label": one_line(labels[id(run)]),
            "family": drawn_family(run.family),
            "status": run.status,
            "chart": data_sets.index(run.data),
            "error": run.value,
        }
        for run in runs
    ]


def _legend(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return the families by how they are drawn: those without a style of their own share one."""
    names: dict[str, list[str]] = {}
    for family in dict.fromkeys(run.family for run in runs):
        names.setdefault(drawn_family(family), []).append(family)
    return names


def _nothing_to_draw(runs: Sequence[Run]) -> str:
    if not runs:
        return "There are no runs in this folder yet. A run is shown from its start on."
    if any(run.status == "running" for run in runs):
        return "Nothing to draw yet: no run has been evaluated. A curve begins with a run’s first evaluation."
    return "Nothing to draw: no run got as far as its first evaluation."
