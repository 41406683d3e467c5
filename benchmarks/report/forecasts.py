"""Forecasts of training cost beside what the runs have cost."""

from collections.abc import Sequence
from datetime import datetime

from benchmarks.records.files import FORECASTS, read_json
from benchmarks.records.runs import Run
from benchmarks.units import device_hours, number, plural, quantity


def comparison(runs: Sequence[Run]) -> str | None:
    """Forecast and actual cost of the finished runs that have a forecast, in one line; None if none has."""
    roots = {run.directory.parents[3] for run in runs if len(run.directory.parents) > 3}
    forecasts = {digest: forecast for root in roots for digest, forecast in (read_json(root / FORECASTS) or {}).items()}
    pairs = [(forecasts.get(str(run.record.get("config_hash"))), run) for run in runs if run.status == "ok"]
    forecast_runs = [
        (forecast, run)
        for forecast, run in pairs
        if isinstance(forecast, dict) and number(forecast.get("train_flops")) is not None
    ]
    if not forecast_runs:
        return None
    predicted = [quantity(sum(forecast["train_flops"] for forecast, _ in forecast_runs), "FLOPs")]
    spent = [quantity(sum(run.train_flops or 0 for _, run in forecast_runs), "FLOPs")]
    if all(number(forecast.get("device_s")) for forecast, _ in forecast_runs):
        predicted.append(device_hours(sum(forecast["device_s"] for forecast, _ in forecast_runs)))
        spent.append(device_hours(sum(_device_s(run) for _, run in forecast_runs)))
    runs_text = plural(len(forecast_runs), "run")
    return f"forecast {', '.join(predicted)}; actual {', '.join(spent)} ({runs_text} with a forecast)"


def _device_s(run: Run) -> float:
    """Seconds for which the run held its devices: from start to end, or of a resumed run those that it worked."""
    devices = number(run.part("parallel").get("world_size")) or 1
    if run.record.get("resumptions") or run.record.get("restarts") or not run.record.get("finished"):
        return devices * (run.wall_s or 0.0)
    try:
        ended, began = (datetime.fromisoformat(run.record[key]) for key in ("finished", "started"))
        return devices * (ended - began).total_seconds()
    except (KeyError, TypeError, ValueError):
        return devices * (run.wall_s or 0.0)
