"""What a mirror holds of a run's folder: the same for every mirror, beside the training and after it."""

import csv
import io
import math
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.config.trial import flatten, identity
from benchmarks.records.files import HISTORY, LAYERS, RECORD, pictures, read_bytes, read_config, read_json
from benchmarks.records.record import COSTS
from benchmarks.records.runs import Run, output_root_of, read_history
from benchmarks.units import number, one_line

STEP = "trainer/global_step"
AXIS = "compute/train_flops"
STEPS, STEP_LOSS = "steps", "train/loss_step"
KILLED = "killed by SIGKILL, and its launcher with it"


class Row(dict[str, Any]):
    """A row of the history, and how many seconds the run had taken when it was written."""

    seconds = 0.0


@dataclass(frozen=True, eq=False)
class Content:
    """What a run's folder holds now, for a mirror of its own, whose ``settings`` are of the run's configuration or of the
    mirror's file."""

    directory: Path
    record: dict[str, Any]
    config: dict[str, Any]
    settings: Mapping[str, Any]

    @property
    def root(self) -> Path:
        """The output root, absolute."""
        return output_root_of(self.directory.resolve())

    @property
    def name(self) -> str:
        """What tells runs apart."""
        return run_name(self.record)

    @property
    def group(self) -> str:
        """What runs belong together: the experiment, else the data set."""
        return str(self.record.get("experiment") or self.record["data"])

    @property
    def facts(self) -> dict[str, Any]:
        """What the run computes, by dotted key, with data set, network and recipe first; the same after a resume."""
        named = {key: self.record[key] for key in ("data", "family", "name", "recipe", "seed")}
        settings = {key: value for key, value in identity(self.config).items() if value is not None}
        return named | settings | named

    @property
    def rows(self) -> "list[Row]":
        """The history, under the names that mirrors have for it, one row for each training step that it has."""
        rows: dict[int, Row] = {}
        for measured in read_history(self.directory / HISTORY):
            for row in mirrored([measured]):
                rows.setdefault(row[STEP], Row()).update(row)
                rows[row[STEP]].seconds = float(measured.get("wall_s") or 0)
        return list(rows.values())

    @property
    def summary(self) -> dict[str, Any]:
        """Outcome, costs, test metrics and best validation."""
        return summary(self.record, read_history(self.directory / HISTORY))

    @property
    def pictures(self) -> list[Path]:
        """The run's pictures, PNG."""
        return pictures(self.directory)

    def time_of(self, row: Mapping[str, Any]) -> float:
        """Return when a row was written, s since 1970: the run's start and the seconds that it had taken."""
        return datetime.fromisoformat(self.record["started"]).timestamp() + (row.seconds if isinstance(row, Row) else 0)


def content_of(directory: Path, settings: Mapping[str, Any]) -> Content:
    """Read a run's folder. Raises OSError or ValueError where its record or configuration cannot be read."""
    return Content(directory, record_of(directory), read_config(directory), settings)


def record_of(directory: Path) -> dict[str, Any]:
    """Read a run's record. Raises ValueError where it cannot be read."""
    record = read_json(directory / RECORD)
    if record is None:
        raise ValueError(f"{directory / RECORD} cannot be read")
    return record


def ended(run: Run) -> dict[str, Any]:
    """Return the record of a run that no process works on; one that was killed with its launcher is closed as such. Raises
    ValueError where it has no id, or its own process is still sending it."""
    record = run.record
    if not isinstance(record.get("run_id"), str):
        raise ValueError(f"{RECORD} has no run_id: another version made it")
    if run.state == "running":
        raise ValueError("still running; its own process sends it")
    return record | {"status": "killed", "error": KILLED} if run.state == "killed" else record


def reason(error: Exception) -> str:
    """Return an error of a client in one line."""
    return one_line(str(error)) or type(error).__name__


def run_name(record: Mapping[str, Any]) -> str:
    """Return what tells runs apart: `resnet20 · digits · common, epochs=5 · seed 0`."""
    run = Run(Path(), dict(record))
    return " · ".join((run.name, run.data, run.recipe, f"seed {run.seed}"))


def mirrored(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a history as a mirror has it: before each evaluation, a row for each point of the training that led to it. Raises
    ValueError where the points are damaged.

    Compute is under ``compute/``; what is absent or not finite is left out.
    """
    names = {"step": STEP, "loss": STEP_LOSS} | {name: f"compute/{name}" for name in COSTS}
    flat: list[dict[str, Any]] = []
    for row in rows:
        points = row.get(STEPS, {})
        if not (isinstance(points, dict) and all(isinstance(values, list) for values in points.values())):
            raise ValueError(f"the {STEPS} of {HISTORY} are damaged: no lists of numbers by name")
        flat += [dict(zip(points, values, strict=True)) for values in zip(*points.values(), strict=True)]
        flat.append({name: value for name, value in row.items() if name != STEPS})
    return [{names.get(name, name): value for name, value in row.items() if _is_there(value)} for row in flat]


def metrics(record: Mapping[str, Any]) -> list[str]:
    """Return the exact names of what rows of any run hold beside their axis."""
    definitions = (record.get("protocol") or {}).get("definitions") or {}
    names = ["epoch", "lr", "train/loss", STEP_LOSS, "val/loss", "val/n", *map("val/{}".format, definitions)]
    names += [f"compute/{name}" for name in COSTS if f"compute/{name}" != AXIS]
    return list(dict.fromkeys(names))


def summary(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return flat keys, for tables and panels: outcome, cost of the network, cost of the run, test metrics, best validation.
    The ``rows`` are of the history, under the record's names or the mirror's."""
    named = {
        "status": record["status"],
        "error": record["error"],
        "exit_code": exit_code(record),
        **{f"model/{name}": value for name, value in (record.get("complexity") or {}).items() if name != "input_size"},
        **{f"compute/{name}": value for name, value in (record.get("compute") or {}).items()},
        **(record.get("metrics") or {}),
        **_best(record, rows),
    }
    return {name: value for name, value in flatten(named, dot="/").items() if _is_there(value)}


def tables(directory: Path, record: Mapping[str, Any]) -> dict[str, list[list[Any]]]:
    """Return the layers of the network and the confusion of the classes, as far as the run has come; the first line is the
    head."""
    content: dict[str, list[list[Any]]] = {}
    try:
        lines = list(csv.reader(io.StringIO(read_bytes(directory / LAYERS).decode(errors="replace"), newline="")))
    except OSError:
        lines = []
    if lines:
        cells = [[int(cell) if cell.isdecimal() else cell for cell in line] for line in lines[1:]]
        content["layers"] = [list(lines[0]), *cells]
    matrix = record.get("confusion")
    if matrix is not None:
        classes = [str(name) for name in record["dataset"]["classes"]]
        counts = [[name, *row] for name, row in zip(classes, matrix, strict=True)]
        content["confusion"] = [["true \\ predicted", *classes], *counts]
    return content


def exit_code(record: Mapping[str, Any]) -> int:
    """Return the exit code of the process that ended as the record says."""
    if record["status"] == "ok":
        return 0
    killed = re.match(r"killed by (SIG[A-Z0-9]+)", record["error"] or "")
    if killed and killed[1] in signal.Signals.__members__:
        return 128 + signal.Signals[killed[1]]
    return 128 + signal.SIGTERM if record["status"] in {"interrupted", "preempted"} else 1


def _best(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the best validation result of the reported metric and its step; errors are better lower, scores higher."""
    metric = Run(Path(), dict(record)).val_metric
    measured = [(value, row) for row in rows if (value := number(row.get(metric))) is not None]
    if not measured:
        return {}
    best, row = (min if metric.endswith("_err") else max)(measured, key=lambda pair: pair[0])
    return {"best_val": best, "best_val_step": row.get("step", row.get(STEP))}


def _is_there(value: Any) -> bool:
    return value is not None and value != {} and not (isinstance(value, float) and not math.isfinite(value))
