"""Keeps what runs were forecast to cost in ``<output_root>/forecasts.json``, by the hash of their configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.records.files import FORECASTS, read_json, write_json


def keep(output_root: str | Path, forecasts: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds forecasts to those that are there; a newer one of the same run takes its place."""
    path = Path(output_root, FORECASTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, (read_json(path) or {}) | dict(forecasts))
