"""The page of runs: `<output_root>/report.html`, one file that opens from disk with no network.

`page.html` beside this module holds the layout, style and script; what is filled in here is data. Whatever comes from a
record is escaped: as text in the HTML, and as JSON without `<`, `>` and `&` in the script's data.
"""

import base64
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.analysis import published
from benchmarks.analysis.seeds import baseline_comparisons, seed_groups, short_labels
from benchmarks.records.files import SWEEPS, read_json, write_atomic
from benchmarks.records.runs import TABLES, Run, load_runs
from benchmarks.report.chart_data import AXES, chart, drawn_family, points_per_curve
from benchmarks.report.run_details import passport
from benchmarks.report.status import STATES, TrialState, trial_states
from benchmarks.report.style import FAMILY_STYLES, OTHER_FAMILY, family_style
from benchmarks.report.view import plotly_js, script_json
from benchmarks.units import MISSING, count, duration, number, one_line, si

T = TypeVar("T")

PICTURES_PER_RUN = 2
PICTURE_BYTES = 6_000_000  # of all pictures of a page
SEEDS_NAMED = 12  # of those not started, in one line

COLUMNS = (
    "model",
    "data set",
    "recipe",
    "seed",
    "parameters",
    "MACs",
    "training FLOPs",
    "test error",
    "n",
    "wall time",
    "status",
)
STOPPED = ("failed", "interrupted", "preempted")
NUMERIC = {"seed", "parameters", "MACs", "training FLOPs", "test error", "n", "wall time"}

# 14 x 14 marks in the legend, in plotly's names and shapes.
_SYMBOLS = {
    "circle": '<circle cx="7" cy="7" r="4.5"/>',
    "square": '<rect x="3" y="3" width="8" height="8"/>',
    "diamond": '<path d="M7 1.5 12.5 7 7 12.5 1.5 7Z"/>',
    "triangle-up": '<path d="M7 2 12.5 11.5H1.5Z"/>',
    "cross": '<path d="M5.2 2h3.6v3.2H12v3.6H8.8V12H5.2V8.8H2V5.2h3.2Z"/>',
}
_DASHES = {"solid": "", "dash": "6 4", "dot": "1.5 3", "dashdot": "7 3 1.5 3", "longdash": "10 4"}


def write_page(output_root: str | Path) -> Path:
    """Write `<output_root>/report.html` from the run folders below `output_root` and return its path.

    The file is replaced atomically, so that a reader never sees half a page. Raises FileNotFoundError when there is no
    such folder or plotly is not installed.
    """
    root = Path(output_root)
    runs, problems = load_runs(root)
    # Only a sweep's list tells what is missing, and only below an output root do paths name cells.
    states = trial_states(root)[0] if (root / SWEEPS).is_dir() else []
    tables = [content for path in sorted((root / TABLES).glob("*.json")) if (content := read_json(path))]
    html = _render(runs, states, tables, problems, datetime.now(UTC))
    path = root / "report.html"
    write_atomic(path, html)
    return path


def _render(
    runs: list[Run],
    states: Sequence[TrialState],
    tables: Sequence[dict[str, Any]],
    problems: list[str],
    written: datetime,
) -> str:
    problems = list(problems)
    data_sets = _in_order(run.data for run in runs)
    each = points_per_curve(runs)
    charts = [
        chart(data, [(index, run) for index, run in enumerate(runs) if run.data == data], problems, each)
        for data in data_sets
    ]
    drawable = any(drawn["series"] or drawn["networks"] for drawn in charts)
    data = {
        "axes": [{key: value for key, value in vars(axis).items() if key != "value"} for axis in AXES],
        "charts": charts,
        "runs": _runs(runs, data_sets),
        "styles": {name: asdict(style) for name, style in {**FAMILY_STYLES, "": OTHER_FAMILY}.items()},
    }
    fragments = {
        "written": written.strftime("%Y-%m-%d %H:%M UTC"),
        "summary": _summary(runs, states),
        "controls_hidden": "" if runs else "hidden",
        "selector": _selector(data_sets),
        "legend": _legend(runs),
        "charts_hidden": "" if drawable else "hidden",
        "notice": "" if drawable else f"<p>{_nothing_to_draw(runs)}</p>",
        "table": _table(runs),
        "failures": _failures(runs, states),
        "means": _means(runs),
        "baselines": _baselines(runs),
        "scores": _scores(runs),
        "published": "".join(map(_published, tables)),
        "problems": _problems(problems),
        "pictures": _pictures(runs),
        "passports_hidden": "" if runs else "hidden",
        "passports": script_json(_pooled(runs)),
        "data": script_json(data),
        "plotly": plotly_js() if drawable else "",
    }
    template = importlib.resources.files("benchmarks.report").joinpath("page.html").read_text(encoding="utf-8")
    # One pass: what is filled in is never searched for placeholders.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fragments[match[1]], template)


def _runs(runs: Sequence[Run], data_sets: Sequence[str]) -> list[dict[str, Any]]:
    """What the charts know of each run; `chart` is the index of its data set."""
    labels: dict[int, str] = {}
    for data in data_sets:
        here = [run for run in runs if run.data == data]
        labels |= dict(zip(map(id, here), short_labels(here), strict=True))
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


def _pooled(runs: Iterable[Run]) -> dict[str, Any]:
    """Passports as lists of indices into the sections, each of which is there once."""
    sections: dict[str, int] = {}
    passports = []
    for run in runs:
        title = f"{run.data} · {run.name} · {run.recipe} · seed {run.seed}"
        parts = [sections.setdefault(json.dumps(section), len(sections)) for section in passport(run)]
        passports.append([one_line(title), parts])
    return {"sections": [json.loads(section) for section in sections], "passports": passports}


# Fragments of HTML


def _summary(runs: list[Run], states: Sequence[TrialState]) -> str:
    counts = Counter(run.status for run in runs)
    killed = sum(cell.state == "killed" for cell in states)
    counts.update(running=-killed, killed=killed, missing=sum(cell.state == "missing" for cell in states))
    words = {
        **{"ok": "finished", "running": "running", "killed": "killed"},
        **{status: status for status in STOPPED},
        "missing": "not started",
    }
    parts = [
        f"{counts[status]:,} {word}"
        if status in ("ok", "running")
        else f'<a href="#failures">{counts[status]:,} {word}</a>'
        for status, word in words.items()
        if counts[status] > 0
    ]
    told = f"{len(runs):,} run{'s' if len(runs) > 1 else ''}" if runs else "No runs yet"
    return f"{told}: {', '.join(parts)}" if parts else told


def _nothing_to_draw(runs: list[Run]) -> str:
    if not runs:
        return "There are no runs in this folder yet. A run is shown from its start on."
    if any(run.status == "running" for run in runs):
        return "Nothing to draw yet: no run has been evaluated. A curve begins with a run’s first evaluation."
    return "Nothing to draw: no run got as far as its first evaluation."


def _selector(names: Sequence[str]) -> str:
    if len(names) < 2:
        return f"<p class='dataset'>Data set <strong>{_text(names[0])}</strong></p>" if names else ""
    options = "".join(f'<option value="{index}">{_text(name)}</option>' for index, name in enumerate(names))
    return f'<label class="dataset">Data set <select id="dataset">{options}</select></label>'


def _legend(runs: Sequence[Run]) -> str:
    """A switch per family; families without a style of their own share one."""
    names: dict[str, list[str]] = {}
    for family in _in_order(run.family for run in runs):
        names.setdefault(drawn_family(family), []).append(family)
    entries = []
    for shown, families in names.items():
        style = family_style(shown)
        entries.append(
            f'<li><button type="button" aria-pressed="true" data-family="{shown}">'
            f'<svg width="46" height="14" aria-hidden="true" style="--family:{style.colour}">'
            f'<line x1="0" y1="7" x2="46" y2="7" stroke-dasharray="{_DASHES[style.dash]}"/>'
            f'<g transform="translate(16 0)">{_SYMBOLS[style.symbol]}</g></svg>{_text(", ".join(families))}</button></li>'
        )
    return "".join(entries)


def _mark(family: str) -> str:
    style = family_style(family)
    return (
        f'<svg class="mark" width="14" height="14" aria-hidden="true" style="--family:{style.colour}">'
        f"{_SYMBOLS[style.symbol]}</svg>"
    )


def _table(runs: list[Run]) -> str:
    if not runs:
        return ""
    heads = "".join(
        f'<th scope="col" aria-sort="none"{_numeric(name)}><button type="button">{name}</button></th>'
        for name in COLUMNS
    )
    body = []
    for index, run in enumerate(runs):
        status = f'<span class="status {run.status}">{run.status}</span>'
        if run.status in STOPPED:
            status = f'<a href="#failure-{index}">{status}</a>'
        name = (
            f'<span class="named"><input type="checkbox" aria-label="mark {_text(run.label)} in the charts">'
            f'{_mark(run.family)}<a href="#run-{index}">{_text(run.name)}</a></span>'
        )
        cells: list[tuple[str, Any]] = [
            (name, one_line(run.name)),
            (_text(run.data), one_line(run.data)),
            (_text(run.recipe), one_line(run.recipe)),
            (str(run.seed), run.seed),
            (si(run.parameters), run.parameters),
            (si(run.macs), run.macs),
            (si(run.train_flops), run.train_flops),
            (f'<span title="{_text(run.metric_label)}">{_text(run.value_text)}</span>', run.value),
            (count(run.n), run.n),
            (duration(run.wall_s), run.wall_s),
            (status, run.status),
        ]
        row = "".join(
            f'<td data-value="{"" if value is None else escape(str(value))}"{_numeric(column)}>{html}</td>'
            for column, (html, value) in zip(COLUMNS, cells, strict=True)
        )
        body.append(f"<tr>{row}</tr>")
    return (
        '<section id="table" aria-labelledby="table-title"><h2 id="table-title">Runs</h2>'
        "<p class='soft controls-only'>A run’s name opens its passport, its box marks it in the charts.</p>"
        '<div class="scroll" role="region" aria-label="Table of runs" tabindex="0"><table id="runs">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div></section>"
    )


def _numeric(name: str) -> str:
    return ' class="number"' if name in NUMERIC else ""


def _means(runs: list[Run]) -> str:
    groups = seed_groups(runs)
    if not groups:
        return ""
    labels = short_labels([group.runs[0] for group in groups], seeds=False)
    rows = "".join(
        f"<tr><td>{_mark(group.runs[0].family)}{_text(label)}</td><td>{_text(group.runs[0].data)}</td>"
        f'<td class="number"><strong>{_text(group.text)}</strong></td><td class="number">{_text(group.interval_text)}</td>'
        f'<td class="number">{escape(group.sampling_text)}</td><td>{_text(group.runs[0].metric_label)}</td>'
        f'<td>{group.seeds_text}</td><td class="number">{count(group.runs[0].n)}</td></tr>'
        for group, label in zip(groups, labels, strict=True)
    )
    return (
        '<section aria-labelledby="means-title"><h2 id="means-title">Means over seeds</h2>'
        "<p>Mean ± sample standard deviation of runs that differ in their seed alone, with the 95 % interval of the mean. A "
        "single seed has no mean. Sampling: the standard error that the choice of test images adds, which no seed shrinks.</p>"
        '<div class="scroll" role="region" aria-label="Means over seeds" tabindex="0"><table><thead><tr>'
        '<th scope="col">model</th><th scope="col">data set</th><th scope="col" class="number">mean ± deviation</th>'
        '<th scope="col" class="number">95 % interval</th><th scope="col" class="number">sampling</th>'
        '<th scope="col">metric</th><th scope="col">seeds</th><th scope="col" class="number">n</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _baselines(runs: list[Run]) -> str:
    rows = []
    for beside in baseline_comparisons(runs):
        figures = ", ".join(f"{_text(label)} {figure:.3f}" for label, figure in beside.nets)
        rows.append(
            f"<li><strong>{_text(beside.data)}</strong>: {_text(beside.method)} has a {_text(beside.metric)} of "
            f"{beside.value:.3f} without learning.{f' Beside it: {figures}.' if figures else ''}</li>"
        )
    if not rows:
        return ""
    return (
        '<section aria-labelledby="baselines-title"><h2 id="baselines-title">Baselines</h2>'
        f"<ul>{''.join(rows)}</ul></section>"
    )


def _scores(runs: list[Run]) -> str:
    """Of every data set of masks: the finished runs' scores, the published ones below them."""
    parts = []
    finished = [run for run in runs if run.status == "ok" and run.record.get("task") == "segmentation"]
    index_of = {id(run): index for index, run in enumerate(runs)}
    for data in _in_order(run.data for run in finished):
        here = [run for run in finished if run.data == data]
        rows = []
        for run, label in zip(here, short_labels(here), strict=True):
            overlap = {name: number(run.part("metrics").get(f"test/{name}")) for name in ("dice", "iou")}
            name = f'{_mark(run.family)}<a href="#run-{index_of[id(run)]}">{_text(label)}</a>'
            rows.append((name, {**overlap, **published.scores_of(run)}))
        names = _in_order(name for _, figures in rows for name in figures)
        for row in published.scores(data):
            name = f"{_text(row.label)} <span class='soft'>{_text(row.source)}</span>"
            rows.append((name, {**row.figures}))
        parts.append(_score_table(data, names, rows))
        notes = _in_order(str(run.part("dataset").get("notes") or "") for run in here)
        parts += [f"<p class='soft'>Ours: {_text(note)}.</p>" for note in notes if note]
    if not parts:
        return ""
    return f'<section id="scores" aria-labelledby="scores-title"><h2 id="scores-title">Scores</h2>{"".join(parts)}</section>'


def _score_table(data: str, names: Sequence[str], rows: Sequence[tuple[str, dict[str, float | None]]]) -> str:
    heads = "".join(f'<th scope="col" class="number">{_text(name.replace("_", " "))}</th>' for name in names)
    body = "".join(
        f"<tr><td>{label}</td>"
        + "".join(f'<td class="number">{_score(figures.get(name))}</td>' for name in names)
        + "</tr>"
        for label, figures in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="Scores on {_text(data)}" tabindex="0"><table><thead><tr>'
        f'<th scope="col">{_text(data)}</th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _score(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.4f}" if value >= 0.01 else f"{value:.6f}"


def _published(table: dict[str, Any]) -> str:
    """A published table beside our runs, as `report TABLE` wrote it."""
    heads = "".join(f'<th scope="col">{_text(header)}</th>' for header in table["headers"])
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in line)}</tr>" for line in table["lines"])
    legend = "".join(f"<p class='soft'>{_text(said)}</p>" for said in table["legend"])
    name, title = _text(table["name"]), _text(table["title"])
    return (
        f'<section class="published" id="table-{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>'
        f"<p>The paper’s table beside our runs, as of {_text(table['written'])}: "
        f"<code>python -m benchmarks report {name}</code></p>"
        f'<div class="scroll" role="region" aria-label="{title}" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{legend}</section>"
    )


def _failures(runs: list[Run], states: Sequence[TrialState]) -> str:
    """Runs that stopped, with their causes; runs whose processes are gone; cells of a sweep that never began."""
    rows = [
        f'<li id="failure-{index}"><span class="status {run.status}">{run.status}</span> '
        f'<a href="#run-{index}">{_text(run.label)}</a> on {_text(run.data)}'
        f"<code>{_text(run.error or 'no cause was recorded')}</code></li>"
        for index, run in enumerate(runs)
        if run.status in STOPPED
    ]
    rows += [
        f'<li><span class="status failed">killed</span> {_text(cell.row)} · seed {cell.seed} on {_text(cell.data)}'
        f"<code>{_text(STATES['killed'][2])}</code></li>"
        for cell in states
        if cell.state == "killed"
    ]
    holes: dict[tuple[str, str], list[int]] = {}
    for cell in states:
        if cell.state == "missing":
            holes.setdefault((cell.data, cell.row), []).append(cell.seed)
    for (data, row), seeds in holes.items():
        named = ", ".join(map(str, seeds[:SEEDS_NAMED]))
        more = f" and {len(seeds) - SEEDS_NAMED:,} more" if len(seeds) > SEEDS_NAMED else ""
        rows.append(
            f'<li><span class="status missing">not started</span> {_text(row)} on {_text(data)}, '
            f"seed{'s' if len(seeds) > 1 else ''} {named}{more}</li>"
        )
    if not rows:
        return ""
    return (
        '<section id="failures" aria-labelledby="failures-title"><h2 id="failures-title">Not finished</h2>'
        f'<ul class="failures">{"".join(rows)}</ul></section>'
    )


def _problems(problems: list[str]) -> str:
    if not problems:
        return ""
    rows = "".join(f"<li><code>{_text(problem)}</code></li>" for problem in problems)
    return (
        '<section aria-labelledby="problems-title"><h2 id="problems-title">Could not be read</h2>'
        f'<ul class="failures">{rows}</ul></section>'
    )


def _pictures(runs: list[Run]) -> str:
    """The first pictures of every run, as far as the page has room."""
    figures, room, left_out = [], PICTURE_BYTES, 0
    for index, run in enumerate(runs):
        for path in run.pictures[:PICTURES_PER_RUN]:
            room -= path.stat().st_size
            if room >= 0:
                figures.append(_figure(index, run, path))
            else:
                left_out += 1
    if not figures:
        return ""
    more = f" {left_out:,} more are in the runs’ folders." if left_out else ""
    return (
        '<section class="pictures" aria-labelledby="pictures-title"><h2 id="pictures-title">Pictures</h2>'
        '<p class="soft">Test images. Of masks: image, truth, prediction, errors; in the last panel missed foreground is blue, '
        "invented foreground orange, one class taken for another pink. Of classes: the prediction below each image, orange "
        f"with the truth where it is another.{more}</p>"
        f"{''.join(figures)}</section>"
    )


def _figure(index: int, run: Run, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    name = _text(f"{run.data} · {run.label} · {path.stem}")
    return (
        f'<figure><img loading="lazy" src="data:image/png;base64,{data}" alt="Test images with predictions: {name}">'
        f'<figcaption><a href="#run-{index}">{name}</a></figcaption></figure>'
    )


def _text(value: Any) -> str:
    """`value` as text of the page: on one line, with every character that HTML reads as markup escaped."""
    return escape(one_line(str(value))) or MISSING


def _in_order(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
