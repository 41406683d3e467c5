"""Forecasts of training cost beside what the runs have cost."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard

from benchmarks.analysis.published import PublishedTable
from benchmarks.analysis.reproduction import Line, configurations_of
from benchmarks.config.trial import config_hash
from benchmarks.records.files import FORECASTS, read_json
from benchmarks.records.runs import Run, output_root_of
from benchmarks.units import device_hours, number, plural, quantity


def comparison(runs: Sequence[Run]) -> str | None:
    """Forecast and actual cost of the finished runs that have a forecast, in one line; None if none has."""
    roots = {output_root_of(run.directory) for run in runs}
    forecasts = {digest: forecast for root in roots for digest, forecast in (read_json(root / FORECASTS) or {}).items()}
    pairs = [(forecasts.get(str(run.record.get("config_hash"))), run) for run in runs if run.status == "ok"]
    forecast_runs = [(forecast, run) for forecast, run in pairs if _is_forecast(forecast)]
    if not forecast_runs:
        return None
    predicted = [quantity(sum(forecast["train_flops"] for forecast, _ in forecast_runs), "FLOPs")]
    spent = [quantity(sum(run.train_flops or 0 for _, run in forecast_runs), "FLOPs")]
    if all(number(forecast.get("device_s")) for forecast, _ in forecast_runs):
        predicted.append(device_hours(sum(forecast["device_s"] for forecast, _ in forecast_runs)))
        spent.append(device_hours(sum(_device_s(run) for _, run in forecast_runs)))
    runs_text = plural(len(forecast_runs), "run")
    return f"forecast {', '.join(predicted)}; actual {', '.join(spent)} ({runs_text} with a forecast)"


def with_forecasts(rows: Sequence[Line], table: PublishedTable, output_root: Path) -> list[Line]:
    """Return the lines of a table, those of rows that were not run with what one run of them was forecast to cost."""
    forecasts = read_json(output_root / FORECASTS) or {}
    if not forecasts or all(line.runs or not line.row.runnable for line in rows):
        return list(rows)
    costs = {row: forecasts.get(config_hash(config)) for row, config in configurations_of(table.name).items()}
    return [line if line.runs else replace(line, forecast=_cost(costs.get(line.row.row))) for line in rows]


def _is_forecast(content: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(content, dict) and number(content.get("train_flops")) is not None


def _cost(forecast: Any) -> str:
    if not _is_forecast(forecast):
        return ""
    seconds = number(forecast.get("device_s"))
    hours = f", {device_hours(seconds)} on {forecast.get('hardware')}" if seconds else ""
    return f"{quantity(forecast['train_flops'], 'FLOPs')} of training{hours}"


def _device_s(run: Run) -> float:
    """Seconds for which the run held its devices: from start to end, or of a resumed run those that it worked."""
    devices = number(run.part("parallel").get("world_size")) or 1
    seconds = run.wall_s or 0.0
    if not (run.record.get("resumptions") or run.record.get("restarts")):
        with suppress(KeyError, TypeError, ValueError):
            ended, began = (datetime.fromisoformat(run.record[key]) for key in ("finished", "started"))
            seconds = (ended - began).total_seconds()
    return devices * seconds
