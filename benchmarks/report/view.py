"""What all views share: figures, the page around them, and its rendering."""

import importlib.resources
import importlib.util
import json
import re
from dataclasses import dataclass
from html import escape
from typing import Any


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
