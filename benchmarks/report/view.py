"""What all views share: figures, the page around them, and the arguments and the end of their commands."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.records.files import write_atomic
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


def add_out(parser: argparse.ArgumentParser, name: str) -> None:
    """Describe ``--out`` of the view ``name``."""
    parser.add_argument("--out", metavar="FILE", type=Path, help=f"default: {path_of('OUTPUT_ROOT', name)}")


def add_root(parser: argparse.ArgumentParser, name: str) -> None:
    """Describe the arguments of the view ``name`` of finished runs."""
    parser.add_argument("output_root", metavar="OUTPUT_ROOT", type=Path, nargs="?", default=Path("outputs"))
    add_out(parser, name)


def path_of(output_root: str | Path, name: str) -> Path:
    """Return where the view ``name`` lies below an output root."""
    return Path(output_root, "views", f"{name}.html")


def write(view: View, arguments: argparse.Namespace, default: Path) -> None:
    """Write a view to ``--out`` or its default path, and print where it is."""
    path = arguments.out or default
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, render(view))
    print(path)
