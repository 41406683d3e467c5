"""Self-contained pages from the Jinja2 templates beside this module, with everything that is filled in escaped."""

import importlib.resources
import importlib.util
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.units import MISSING, count, duration, one_line, si

TEMPLATES = Path(__file__).with_name("templates")


def render_template(name: str, **values: Any) -> str:
    """Return the page of a template."""
    return _environment().get_template(name).render(values)


def render_macro(name: str, *values: Any) -> Markup:
    """Return what a macro of `macros.html` makes of values."""
    macros = _environment().get_template("macros.html").make_module()
    return getattr(macros, name)(*values)


def script_json(value: Any) -> Markup:
    """Return JSON that no HTML parser can mistake for markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


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
    environment.filters |= {"json": script_json, "si": si, "count": count, "duration": duration}
    environment.globals |= {"plotly": plotly_js}
    # a style sheet or script, which is no template
    environment.globals["source"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    return environment


def _printed(value: Any) -> Any:
    """Return what a template prints: text on one line, and a dash for what is missing."""
    if isinstance(value, Markup):
        return value
    return MISSING if value is None else one_line(str(value))
