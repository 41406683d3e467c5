"""What all views share: figures, the page around them, and its rendering."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.rendering import render_template


@dataclass(frozen=True)
class Figure:
    """A chart of a view.

    Attributes:
        caption: how to read it.
        choices: a figure as `benchmarks.report.figures` makes them, for each choice of the view's control.
        height, width: in pixels, the width at least.
        sentences: below the caption, each on a line of its own.
    """

    title: str
    caption: str
    choices: list[dict[str, Any]]
    height: int
    width: int
    sentences: Sequence[str] = ()


@dataclass(frozen=True)
class View:
    """A page of charts, with one control for all of them where there is more than one way to draw them."""

    title: str
    lead: str
    figures: list[Figure]
    choice: str = ""
    options: tuple[str, ...] = ()


def render(view: View) -> str:
    """Return the page, self-contained."""
    return "".join(render_template("view.html", title=view.title, view=view, options=dict(enumerate(view.options))))


def note(text: str, x: float, y: float, **changes: Any) -> dict[str, Any]:
    """Return a text above a height of the whole chart."""
    return {"text": text, "x": x, "y": y, "yref": "paper", "yanchor": "bottom", "showarrow": False} | changes
