"""Figures as plain plotly dictionaries (`traces` and `layout`), which the page, the views and the W&B report share.

A colour that begins with `--` names a token of the page's style sheet, so that light, dark and print each have their own.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from statistics import fmean
from typing import Any

from benchmarks.config.about import Look
from benchmarks.records.runs import Run
from benchmarks.units import count, metric_text, one_line, score, si

Trace = dict[str, Any]

MARGIN = {"l": 68, "r": 14, "t": 40, "b": 52}
LEGEND = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "traceorder": "normal"}


def plain(text: str) -> str:
    """Return `text` on one line, with what plotly would read as markup escaped."""
    return escape(one_line(text), quote=False)


def figure(traces: Iterable[Trace], x: Mapping[str, Any], y: Mapping[str, Any], **layout: Any) -> dict[str, Any]:
    """Return a figure with a legend above; `x` and `y` are plotly's axes, whose title may be text alone."""
    axes = {
        name: {**axis, "title": {"text": plain(axis.get("title", ""))}} for name, axis in (("xaxis", x), ("yaxis", y))
    }
    return {
        "traces": [{"type": "scatter", "hoverinfo": "text", **trace} for trace in traces],
        "layout": {"margin": MARGIN, "legend": LEGEND, **axes, **layout},
    }


def band(x: Sequence[float], low: Sequence[float], high: Sequence[float], look: Look, **changes: Any) -> Trace:
    """Return the filled band from `low` to `high` over `x`."""
    return {
        "mode": "lines",
        "x": [*x, *reversed(x)],
        "y": [*high, *reversed(low)],
        "fill": "toself",
        "fillcolor": f"{look.colour}33",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        **changes,
    }


def line(x: Sequence[float], y: Sequence[float], look: Look, **changes: Any) -> Trace:
    """Return a line in the colour and dash of the family."""
    style = {"color": look.colour, "width": 2, "dash": look.dash}
    return {"mode": "lines", "x": list(x), "y": list(y), "line": style, **changes}


def points(x: Sequence[float], y: Sequence[float], look: Look, **changes: Any) -> Trace:
    """Return markers in the colour and shape of the family; `marker` among the changes amends theirs."""
    marker = {"color": look.colour, "symbol": look.marker, "size": 9, **changes.pop("marker", {})}
    return {"mode": "markers", "x": list(x), "y": list(y), "marker": marker, **changes}


def bars(
    x: Sequence[Any], y: Sequence[float], marker: Mapping[str, Any], hover: Sequence[str], **changes: Any
) -> Trace:
    """Return bars with their values above them."""
    text = {"text": [si(value) for value in changes.pop("values", y)], "textposition": "outside", "textangle": 0}
    return {
        "type": "bar",
        "x": list(x),
        "y": list(y),
        "marker": marker,
        **text,
        "cliponaxis": False,
        "hovertext": hover,
        **changes,
    }


def colour_axis(ticks: Sequence[float]) -> dict[str, Any]:
    """Return the colours of heat maps, from the first tick to the last, and their bar."""
    bar = {"thickness": 12, "outlinewidth": 0, "len": 1, "tickvals": list(ticks), "ticklen": 0}
    return {"cmin": ticks[0], "cmax": ticks[-1], "colorscale": "Viridis", "colorbar": bar}


def front_line(front: Sequence[tuple[float, float]], more_is_better: bool = False, colour: str = "--soft") -> Trace:
    """Return the steps through a Pareto front of (cost, error): level as far as a point is the best that its cost buys."""
    front = sorted(front)
    corners = [
        (left[0], right[1]) if more_is_better else (right[0], left[1]) for left, right in itertools.pairwise(front)
    ]
    steps = [step for pair in itertools.zip_longest(front, corners) for step in pair if step]
    return {
        "name": "front",
        "mode": "lines",
        "x": [cost for cost, _ in steps],
        "y": [error for _, error in steps],
        "line": {"color": colour, "width": 1.2},
        "hoverinfo": "skip",
    }


def family_marks(looks: Mapping[str, Look]) -> dict[str, dict[str, Any]]:
    """Return, by family, the traces that the page's script fills with the runs it shows, and the style of each."""
    return {
        family: {
            "colour": look.colour,
            "symbol": look.marker,
            "band": band((), (), (), look),
            "line": line((), (), look, hoverinfo="text"),
            "points": points((), (), look, hoverinfo="text"),
            "papers": hollow((), (), look, hoverinfo="text"),
        }
        for family, look in looks.items()
    }


def hollow(x: Sequence[float], y: Sequence[float], look: Look, **changes: Any) -> Trace:
    """Return hollow markers, which stand for published figures."""
    marker = {"symbol": f"{look.marker}-open", "size": 10, "line": {"width": 1.6}}
    return points(x, y, look, marker=marker, **changes)


def mean_of_seeds(counts: Iterable[int]) -> str:
    """Return ``Mean of 2–5 seeds`` of the fewest and the most seeds; empty where each network has one."""
    ordered = sorted(set(counts))
    fewest_and_most = dict.fromkeys((ordered[0], ordered[-1]))
    return "" if ordered == [1] else f"Mean of {'–'.join(map(str, fewest_and_most))} seeds"


def seeds_caption(counts: Iterable[int]) -> str:
    """Return in words, without a full stop, what a chart shows of networks with these numbers of seeds."""
    mean = mean_of_seeds(counts)
    return f"{mean}, in a band from lowest to highest" if mean else "One run each: no mean and no band"


def seed_curve(
    seeds: Mapping[float, Sequence[float]],
    look: Look,
    label: str,
    limits: Callable[[Sequence[float]], tuple[float, float]] = lambda values: (min(values), max(values)),
    between: Callable[[Sequence[float], Sequence[float]], tuple[list[float], list[float]]] | None = None,
    **changes: Any,
) -> list[Trace]:
    """Return a band and the line of the means of several seeds.

    Args:
        seeds: the values of the seeds by x, in the order of x.
        label: groups the traces in the legend and names the line.
        limits: of the band at an x, by the values there; by default the lowest and the highest.
        between: adds points to a curve where its axes bend it.
    """
    x = list(seeds)
    edges = [limits(values) for values in seeds.values()]
    curves = [[low for low, _ in edges], [high for _, high in edges], [fmean(values) for values in seeds.values()]]
    dense = [between(x, y) if between else (x, y) for y in curves]
    (x, low), (_, high), (_, mean) = dense
    return [band(x, low, high, look, legendgroup=label), line(x, mean, look, name=label, legendgroup=label, **changes)]


def seeds_over(finished: Mapping[Any, Sequence[Run]], look: Look, name: str, labels: Mapping[Any, str]) -> list[Trace]:
    """Return the reported metric over x as people know it: a band from lowest to highest seed, every seed, and the mean.

    Args:
        finished: runs by x, ascending.
        name: of the curve; empty where it is the only one.
        labels: of the points, by x.
    """
    if not finished:
        return []
    values_at = {x: [score(run.value or 0.0, run.metric_label)[1] for run in runs] for x, runs in finished.items()}
    hover = [
        f"<b>{plain(labels[x])}</b>, mean of {len(values)}<br>"
        f"{plain(metric_text(fmean(values), finished[x][0].metric_label))}, n = {count(finished[x][0].n)}"
        for x, values in values_at.items()
    ]
    filled, mean = seed_curve(values_at, look, plain(name or "mean over seeds"))
    every = points(
        [x for x, values in values_at.items() for _ in values],
        [value for values in values_at.values() for value in values],
        look,
        name="each seed",
        showlegend=not name,
        marker={"color": f"{look.colour}80", "size": 5, "symbol": "circle"},
        hovertext=[
            f"seed {run.seed}: {metric_text(value, run.metric_label)}"
            for x, runs in finished.items()
            for run, value in zip(runs, values_at[x], strict=True)
        ],
    )
    marked = points(mean["x"], mean["y"], look)["marker"]
    return [filled, every, {**mean, "mode": "lines+markers", "marker": marked, "hovertext": hover}]


def log_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic axis for values from zero on, with `0.02` at a tick where plotly's own would say `2`."""
    digits = {"dtick": "D2"} if max(values) > 5 * min(values) else {}  # ticks at 1, 2 and 5 times powers of ten
    return {"type": "log", "tickformat": "~g", **digits}


def ticks(values: Sequence[float], texts: Sequence[str]) -> dict[str, Any]:
    """Return the ticks of an axis."""
    return {"tickvals": list(values), "ticktext": list(texts)}
