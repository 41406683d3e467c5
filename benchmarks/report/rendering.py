"""Self-contained pages from the Jinja2 templates beside this module, with everything that is filled in escaped."""

import html
import importlib.resources
import importlib.util
import json
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.config.about import Look
from benchmarks.report.tables import Cell, Table
from benchmarks.units import MISSING, count, duration, one_line, si

TEMPLATES = Path(__file__).with_name("templates")


def render_template(name: str, **values: Any) -> Iterator[str]:
    """Yield the pieces of a template's page, which as one text took 150 MB more of 10,000 runs."""
    yield from _environment().get_template(name).generate(values)


def render_macro(name: str, *values: Any) -> Markup:
    """Return what a macro of `macros.html` makes of values."""
    macros = _environment().get_template("macros.html").make_module()
    return getattr(macros, name)(*values)


def script_json(value: Any) -> Markup:
    """Return JSON that no HTML parser can mistake for markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def rows_html(table: Table, mark: Callable[[Look], Markup]) -> Markup:
    """Return the rows of a table, for which a template takes four times as long.

    Args:
        mark: returns the mark of a family.
    """
    mark = cache(mark)
    starts = ['<td class="number"' if column in table.numbers else "<td" for column in table.columns]
    keys = [f' data-key="{key}"' for key in table.keys] or [""] * len(table.rows)
    rows = (
        "".join(start + _cell_html(content, table.sortable, mark) for start, content in zip(starts, row, strict=True))
        for row in table.rows
    )
    return Markup("\n".join(f"<tr{key}>{cells}</tr>" for key, cells in zip(keys, rows, strict=True)))


def _cell_html(content: Cell | str, sortable: bool, mark: Callable[[Look], Markup]) -> str:
    """Return a cell from its attributes on."""
    cell = Cell(content) if isinstance(content, str) else content
    text = _escaped(cell.text)
    hint = _escaped(cell.hint)
    attributes = f' title="{hint}"' if hint else ""
    box = ""
    if sortable:
        value = "" if cell.value is None else _escaped(str(cell.value))
        attributes = f' data-value="{value}"{attributes}'
        box = "" if cell.run is None else f'<input type="checkbox" aria-label="mark {hint} in the charts">'
    if cell.status:
        shown = f'<span class="status {cell.status}">{text}</span>'
    elif cell.run is not None:
        shown = f'<a href="#run-{cell.run}">{text}</a>'
    else:
        shown = f"<strong>{text}</strong>" if cell.style == "bold" else text
    return f"{attributes}>{box}{mark(cell.look) if cell.look else ''}{shown}</td>"


@lru_cache(maxsize=10_000)  # most texts of a column are also in other rows
def _escaped(text: str) -> str:
    return html.escape(one_line(text))


def plotly_js() -> Markup:
    """Return the text of plotly.min.js, found without importing plotly, which takes longer than writing the page.

    Raises FileNotFoundError when plotly is not installed.
    """
    spec = importlib.util.find_spec("plotly")
    if spec is None:
        raise FileNotFoundError("plotly is not installed: the page takes plotly.min.js from the package plotly")
    package = importlib.util.module_from_spec(spec)
    return Markup(importlib.resources.files(package).joinpath("package_data/plotly.min.js").read_text(encoding="utf-8"))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_printed,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"json": script_json, "rows": rows_html, "si": si, "count": count, "duration": duration}
    environment.globals |= {"plotly": plotly_js}
    # a style sheet or script, which is no template
    environment.globals["source"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    return environment


def _printed(value: Any) -> Any:
    """Return what a template prints: text on one line, and a dash for what is missing."""
    if isinstance(value, Markup):
        return value
    return MISSING if value is None else one_line(str(value))
