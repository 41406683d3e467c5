"""What all views share: figures, the page around them, and its rendering."""

import importlib.resources
import importlib.util
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks.records.runs import Run
from benchmarks.report.style import family_style
from benchmarks.units import metric_text


def plotly_js() -> str:
    """The text of plotly.min.js, found without importing plotly (which takes longer than writing the page)."""
    spec = importlib.util.find_spec("plotly")
    if spec is None:
        raise FileNotFoundError("plotly is not installed: the page takes plotly.min.js from the package plotly")
    package = importlib.util.module_from_spec(spec)
    return importlib.resources.files(package).joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")


def script_json(value: Any) -> str:
    """JSON that no HTML parser can mistake for markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@dataclass(frozen=True)
class Figure:
    """A chart of a view.

    Attributes:
        caption: how to read it.
        choices: plotly's traces and layout for each choice of the view's switch; a colour may be a token of the page's style.
        height, width: in pixels, the width at least.
    """

    title: str
    caption: str
    choices: list[dict[str, Any]]
    height: int
    width: int


@dataclass(frozen=True)
class View:
    """A page of charts, with one switch for all of them where there is more than one way to draw them."""

    title: str
    lead: str
    figures: list[Figure]
    choice: str = ""
    options: tuple[str, ...] = ()


def render(view: View) -> str:
    """The page, self-contained."""
    templates = importlib.resources.files("benchmarks.report")
    page = templates.joinpath("page.html").read_text(encoding="utf-8")
    [style] = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    fragments = {
        "title": escape(view.title),
        "lead": escape(view.lead),
        "style": style,
        "choice": escape(view.choice),
        "choice_hidden": "" if view.options else "hidden",
        "options": "".join(
            f'<label><input type="radio" name="choice" value="{index}"{" checked" * (index == 0)}> {escape(option)}</label>'
            for index, option in enumerate(view.options)
        ),
        "figures": "".join(
            f'<figure><figcaption><div><h2 id="title-{index}">{escape(figure.title)}</h2>'
            f'<span id="caption-{index}">{escape(figure.caption)}</span></div></figcaption>'
            f'<div class="scroll"><div class="chart" id="chart-{index}" role="img" '
            f'aria-labelledby="title-{index} caption-{index}" '
            f'style="--height: {figure.height}px; --width: {figure.width}px"></div></div></figure>'
            for index, figure in enumerate(view.figures)
        ),
        "data": script_json([figure.choices for figure in view.figures]),
        "plotly": plotly_js(),
    }
    template = templates.joinpath("view.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fragments[match[1]], template)


def note(text: str, x: float, y: float, **changes: Any) -> dict[str, Any]:
    """A text above a height of the whole chart."""
    return {"text": text, "x": x, "y": y, "yref": "paper", "yanchor": "bottom", "showarrow": False} | changes


def over(
    finished: Mapping[Any, Sequence[Run]], family: str, name: str, labels: Mapping[Any, str]
) -> list[dict[str, Any]]:
    """The reported metric over x: a band from the lowest to the highest seed, every seed, and the mean.

    finished: runs by x, ascending. name: of the curve, empty where there is one alone. labels: of the points, by x.
    """
    if not finished:
        return []
    style = family_style(family)
    errors = {x: [run.value or 0.0 for run in runs] for x, runs in finished.items()}
    means = {x: statistics.fmean(values) for x, values in errors.items()}
    edge = {"x": list(errors), "line": {"width": 0}, "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    return [
        {**edge, "y": [min(values) for values in errors.values()]},
        {**edge, "y": [max(values) for values in errors.values()], "fill": "tonexty", "fillcolor": f"{style.colour}33"},
        {
            "name": "each seed",
            "showlegend": not name,
            "mode": "markers",
            "x": [x for x, values in errors.items() for _ in values],
            "y": [value for values in errors.values() for value in values],
            "marker": {"color": f"{style.colour}80", "size": 5},
            "hovertext": [f"seed {run.seed}: {run.value_text}" for runs in finished.values() for run in runs],
        },
        {
            "name": name or "mean over seeds",
            "mode": "lines+markers",
            "x": list(means),
            "y": list(means.values()),
            "line": {"color": style.colour, "width": 2, "dash": style.dash},
            "marker": {"color": style.colour, "size": 9, "symbol": style.symbol},
            "hovertext": [
                f"<b>{labels[x]}</b>, mean of {len(errors[x])}<br>{metric_text(mean, finished[x][0].metric_label)}, "
                f"n = {finished[x][0].n}"
                for x, mean in means.items()
            ],
        },
    ]
