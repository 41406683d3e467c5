"""The page of runs: `<output_root>/report.html`, one file that opens from disk with no network.

`page.html` beside this module holds the layout, style and script; what is filled in here is data. Whatever comes from a
record is escaped: as text in the HTML, and as JSON without `<`, `>` and `&` in the script's data.
"""

from __future__ import annotations

import base64
import importlib.resources
import importlib.util
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.record import write_atomic
from benchmarks.results import (
    FAMILY_STYLES,
    MISSING,
    OTHER_FAMILY,
    Run,
    baseline_comparisons,
    baseline_names,
    count,
    duration,
    family_style,
    load_runs,
    number,
    one_line,
    seed_groups,
    short_labels,
    si,
)

T = TypeVar("T")

PICTURES_PER_RUN = 2

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
    runs, problems = load_runs(output_root)
    html = _render(runs, problems, datetime.now(UTC))
    path = Path(output_root, "report.html")
    write_atomic(path, html)
    return path


def _render(runs: list[Run], problems: list[str], written: datetime) -> str:
    problems = list(problems)
    data_sets = _in_order(run.data for run in runs)
    charts = [_chart(data, [run for run in runs if run.data == data], problems) for data in data_sets]
    charts = [chart for chart in charts if chart["curves"] or chart["points"]]
    families = _in_order(run.family for run in runs)
    styles = {**FAMILY_STYLES, "": OTHER_FAMILY}
    fragments = {
        "written": written.strftime("%Y-%m-%d %H:%M UTC"),
        "summary": _summary(runs),
        "selector": _selector([chart["data"] for chart in charts]),
        "legend": "".join(_legend_entry(family) for family in families),
        "charts_hidden": "" if charts else "hidden",
        "notice": "" if charts else f"<p>{_nothing_to_draw(runs)}</p>",
        "table": _table(runs),
        "failures": _failures(runs),
        "means": _means(runs),
        "baselines": _baselines(runs),
        "problems": _problems(problems),
        "pictures": _pictures(runs),
        "passports": _passports(runs),
        "data": _script_json({"charts": charts, "styles": {name: asdict(style) for name, style in styles.items()}}),
        "plotly": _plotly() if charts else "",
    }
    template = importlib.resources.files("benchmarks").joinpath("page.html").read_text(encoding="utf-8")
    # One pass: what is filled in is never searched for placeholders.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fragments[match[1]], template)


def _plotly() -> str:
    """The text of plotly.min.js, found without importing plotly (which takes longer than writing the page)."""
    spec = importlib.util.find_spec("plotly")
    if spec is None:
        raise FileNotFoundError("plotly is not installed: the page takes plotly.min.js from the package plotly")
    package = importlib.util.module_from_spec(spec)
    return importlib.resources.files(package).joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")


def _script_json(value: Any) -> str:
    """JSON that no HTML parser can mistake for markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# Charts


def _chart(data: str, runs: list[Run], problems: list[str]) -> dict[str, Any]:
    """What the two charts of one data set draw. A history that cannot be read is added to `problems`."""
    curves, points = [], []
    for run, label in zip(runs, short_labels(runs), strict=True):
        try:
            rows = run.curve()
        except (OSError, ValueError) as error:
            problems.append(one_line(str(error)))
            rows = []
        shown = {"label": one_line(label), "family": run.family if run.family in FAMILY_STYLES else ""}
        if rows:
            curve = {
                "x": [row["train_flops"] for row in rows],
                "y": [row[run.val_metric] for row in rows],
                "epoch": [number(row.get("epoch")) for row in rows],
                "flops_text": [si(row["train_flops"]) for row in rows],
            }
            curves.append({**shown, "status": run.status, **curve})
        if run.value is not None and run.macs:
            texts = {"macs_text": si(run.macs), "parameters_text": si(run.parameters)}
            points.append({**shown, "x": run.macs, "y": run.value, **texts})
    described = next((run for run in runs if run.metric), None)
    return {
        "data": one_line(data),
        "val_label": one_line(described.val_label) if described else "validation error",
        "test_label": one_line(described.metric_label) if described else "test error",
        "protocol": _protocol_line(runs),
        "curves": curves,
        "points": points,
        "baselines": [{"label": name, "y": value} for name, value in _baseline_errors(runs)],
    }


def _protocol_line(runs: list[Run]) -> str:
    checkpoints = _in_order(str(run.part("protocol").get("checkpoint") or "") for run in runs if run.value is not None)
    sizes = _in_order(count(run.n) for run in runs if run.n is not None)
    if not checkpoints:
        return ""
    return f"{' or '.join(filter(None, checkpoints))} checkpoint, n = {' or '.join(sizes)} test images"


def _baseline_errors(runs: list[Run]) -> list[tuple[str, float]]:
    """Baselines in the unit of the reported metric: a Dice of 0.884 beside `test/dice_err` is 11.6."""
    errors: dict[tuple[str, float], None] = {}
    for run in runs:
        for key, value in run.baselines.items():
            method, metric = baseline_names(key)
            if run.metric == f"test/{metric}_err":
                errors[one_line(method), 100 * (1 - value)] = None
            elif run.metric == f"test/{metric}":
                errors[one_line(method), value] = None
    return list(errors)


# Fragments of HTML


def _summary(runs: list[Run]) -> str:
    if not runs:
        return "No runs yet"
    words = {"ok": "finished", "running": "running", "failed": "failed", "interrupted": "interrupted"}
    parts = []
    for status, word in words.items():
        number_of = sum(run.status == status for run in runs)
        if number_of:
            link = f'<a href="#failures">{number_of} {word}</a>' if status in ("failed", "interrupted") else ""
            parts.append(link or f"{number_of} {word}")
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {', '.join(parts)}"


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


def _legend_entry(family: str) -> str:
    style = family_style(family)
    shown = family if family in FAMILY_STYLES else ""
    return (
        f'<li data-family="{shown}"><svg width="46" height="14" aria-hidden="true" style="--family:{style.colour}">'
        f'<line x1="0" y1="7" x2="46" y2="7" stroke-dasharray="{_DASHES[style.dash]}"/>'
        f'<g transform="translate(16 0)">{_SYMBOLS[style.symbol]}</g></svg>{_text(family)}</li>'
    )


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
        if run.status in ("failed", "interrupted"):
            status = f'<a href="#failure-{index}">{status}</a>'
        name = f'<span class="named">{_mark(run.family)}<a href="#run-{index}">{_text(run.name)}</a></span>'
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
        f'<td class="number"><strong>{_text(group.text)}</strong></td><td>{_text(group.runs[0].metric_label)}</td>'
        f'<td>{group.seeds_text}</td><td class="number">{count(group.runs[0].n)}</td></tr>'
        for group, label in zip(groups, labels, strict=True)
    )
    return (
        '<section aria-labelledby="means-title"><h2 id="means-title">Means over seeds</h2>'
        "<p>Mean ± sample standard deviation of runs that differ in their seed alone. A single seed has no mean.</p>"
        '<div class="scroll" role="region" aria-label="Means over seeds" tabindex="0"><table><thead><tr>'
        '<th scope="col">model</th><th scope="col">data set</th><th scope="col" class="number">mean ± deviation</th>'
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


def _failures(runs: list[Run]) -> str:
    rows = "".join(
        f'<li id="failure-{index}"><span class="status {run.status}">{run.status}</span> '
        f'<a href="#run-{index}">{_text(run.label)}</a> on {_text(run.data)}'
        f"<code>{_text(run.error or 'no cause was recorded')}</code></li>"
        for index, run in enumerate(runs)
        if run.status in ("failed", "interrupted")
    )
    if not rows:
        return ""
    return (
        '<section id="failures" aria-labelledby="failures-title"><h2 id="failures-title">Failed and interrupted</h2>'
        f'<ul class="failures">{rows}</ul></section>'
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
    figures = [_figure(index, run, path) for index, run in enumerate(runs) for path in run.pictures[:PICTURES_PER_RUN]]
    if not figures:
        return ""
    return (
        '<section class="pictures" aria-labelledby="pictures-title"><h2 id="pictures-title">Pictures</h2>'
        '<p class="soft">Test images: image, truth, prediction, errors. In the last panel missed foreground is blue, '
        "invented foreground orange, one class taken for another pink.</p>"
        f"{''.join(figures)}</section>"
    )


def _figure(index: int, run: Run, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    name = _text(f"{run.data} · {run.label} · {path.stem}")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="Image, truth, prediction and errors: {name}">'
        f'<figcaption><a href="#run-{index}">{name}</a></figcaption></figure>'
    )


def _passports(runs: list[Run]) -> str:
    if not runs:
        return ""
    return (
        '<section aria-labelledby="passports-title"><h2 id="passports-title">Passports</h2>'
        '<p class="soft">What each run was: configuration, data, complexity, protocol, environment.</p>'
        f"{''.join(_passport(index, run) for index, run in enumerate(runs))}</section>"
    )


def _passport(index: int, run: Run) -> str:
    record, part = run.record, run.part
    resumptions = record.get("resumptions")
    code, parallel, environment, dataset = part("code"), part("parallel"), part("environment"), part("dataset")
    complexity, compute, protocol = part("complexity"), part("compute"), part("protocol")
    sections = {
        "Run": {
            "folder": run.directory,
            "status": run.status,
            "cause": run.error,
            "experiment": record.get("experiment"),
            "recipe": record["recipe"],
            "departures from the recipe": run.departures or "none",
            "started": record.get("started"),
            "finished": record.get("finished"),
            "resumptions": len(resumptions) if isinstance(resumptions, list) else None,
            "config hash": record.get("config_hash"),
            "code version": code.get("version"),
            "commit": code.get("commit"),
            "uncommitted changes (sha256)": code.get("diff_sha256"),
            "weights (sha256)": record.get("weights_sha256"),
            "W&B run": " ".join(str(value) for value in part("wandb").values()),
        },
        "Protocol": {
            "reported metric": run.metric,
            "label": run.metric_label if run.metric else None,
            "value": run.value,
            "checkpoint": protocol.get("checkpoint"),
            "split": protocol.get("split"),
            "test images": run.n,
            **{f"definition of {key}": text for key, text in _mapping(protocol.get("definitions")).items()},
        },
        "Metrics": part("metrics"),
        "Data": {
            **{f"{split} images": n for split, n in (part("counts") or _mapping(dataset.get("counts"))).items()},
            "image shape": dataset.get("image_shape"),
            "classes": dataset.get("classes"),
            "checksum (sha256)": dataset.get("sha256"),
            "notes": dataset.get("notes"),
            **{f"baseline {key}": value for key, value in run.baselines.items()},
        },
        "Complexity (one image)": complexity,
        "Compute": compute,
        "Environment": {
            **{key: value for key, value in environment.items() if key != "packages"},
            **{f"package {key}": value for key, value in _mapping(environment.get("packages")).items()},
        },
        "Parallelism": parallel,
    }
    body = "".join(
        f"<section><h3>{title}</h3><dl>{rows}</dl></section>"
        for title, rows in ((title, _definitions(values)) for title, values in sections.items())
        if rows
    )
    return (
        f'<details id="run-{index}"><summary>{_mark(run.family)}{_text(run.data)} · {_text(run.name)} · '
        f'{_text(run.recipe)} · seed {run.seed} <span class="status {run.status}">{run.status}</span></summary>'
        f'<div class="passport">{body}</div></details>'
    )


def _definitions(values: dict[str, Any]) -> str:
    return "".join(
        f"<dt>{_text(key)}</dt><dd>{_text(_plain(value))}</dd>"
        for key, value in values.items()
        if value is not None and value != "" and value != []
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def _text(value: Any) -> str:
    """`value` as text of the page: on one line, with every character that HTML reads as markup escaped."""
    return escape(one_line(str(value))) or MISSING


def _in_order(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
