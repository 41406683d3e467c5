"""Run folders read back: records, histories and the values that tables and pages show.

A run is a folder `<output_root>/<data>/<name>/<recipe>/seed<k>/` with `record.json` (its passport, replaced atomically)
and `history.jsonl` (one row per evaluation, appended). Nothing here imports torch.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import published
from benchmarks.record import SCHEMA, short_value

STATUSES = ("ok", "running", "failed", "interrupted", "preempted")
MISSING = "–"
TABLES = "tables"  # folder of an output root: published tables beside the runs
NO_RUNS = (
    "wandb",
    "cache",
    "sweeps",
    "superseded",
    "views",
    TABLES,
)  # folders of an output root that hold no runs to show

_REQUIRED: dict[str, type] = {"status": str, "data": str, "family": str, "name": str, "recipe": str, "seed": int}
_MAPPINGS = (
    *("departures", "code", "environment", "parallel", "dataset", "counts"),
    *("complexity", "compute", "protocol", "metrics", "baselines", "wandb", "throughput"),
)


@dataclass(frozen=True)
class FamilyStyle:
    """How a family of networks is drawn: colour, plotly marker symbol, plotly line dash, terminal glyph."""

    colour: str
    symbol: str
    dash: str
    glyph: str


# Okabe & Ito, "Color Universal Design", 2008: told apart with every common colour vision deficiency; marker and dash
# say the same again, so that colour is never the only cue.
FAMILY_STYLES = {
    "resnet": FamilyStyle("#0072B2", "circle", "solid", "●"),
    "resnext": FamilyStyle("#D55E00", "square", "dash", "■"),
    "densenet": FamilyStyle("#009E73", "diamond", "dot", "◆"),
    "unet": FamilyStyle("#CC79A7", "triangle-up", "dashdot", "▲"),
}
OTHER_FAMILY = FamilyStyle("#808080", "cross", "longdash", "✚")


def family_style(family: str) -> FamilyStyle:
    """The one style of a family; a family without its own gets the neutral one."""
    return FAMILY_STYLES.get(family, OTHER_FAMILY)


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder. `record` is the checked content of record.json; values it does not hold read as None."""

    directory: Path
    record: dict[str, Any]

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The rows of history.jsonl, read when first asked for. Raises ValueError as `read_history` does."""
        return read_history(self.directory / "history.jsonl")

    @property
    def status(self) -> str:
        return self.record["status"]

    @property
    def error(self) -> str | None:
        """The cause of a failure in one printable line."""
        return one_line(str(self.record["error"])) if self.record.get("error") else None

    @property
    def data(self) -> str:
        return self.record["data"]

    @property
    def family(self) -> str:
        return self.record["family"]

    @property
    def name(self) -> str:
        return self.record["name"]

    @property
    def seed(self) -> int:
        return self.record["seed"]

    @cached_property
    def departures(self) -> str:
        """What departs from the recipe, as in `epochs=5, optimizer.lr=0.2`; empty for the recipe itself."""
        departures = self.part("departures")
        return ", ".join(
            f"{key.removeprefix('recipe.')}={short_value(value)}" for key, value in sorted(departures.items())
        )

    @property
    def network(self) -> str:
        """The name, with the arguments of the network that it does not show: `resnet34 model.shortcut=A`."""
        departures = sorted(self.part("departures").items())
        shown = [f"{key}={short_value(value)}" for key, value in departures if key.startswith("model.")]
        return " ".join([self.name, *shown])

    @cached_property
    def recipe(self) -> str:
        """The recipe with its departures."""
        return ", ".join(filter(None, (self.record["recipe"], self.departures)))

    @property
    def label(self) -> str:
        """Name, departures from the recipe and seed: `resnext29_8x4d epochs=5 seed 0`."""
        return " ".join(filter(None, (self.name, self.departures, f"seed {self.seed}")))

    @cached_property
    def metric(self) -> str | None:
        """The metric that the protocol reports, e.g. `test/top1_err`."""
        metric = self.part("protocol").get("metric")
        return metric if isinstance(metric, str) and "/" in metric else None

    @property
    def val_metric(self) -> str:
        """The same metric on the validation set: the key of the history's rows; empty without a metric."""
        return f"val/{self.metric.split('/', 1)[1]}" if self.metric else ""

    @property
    def metric_label(self) -> str:
        return str(self.part("protocol").get("metric_label") or self.metric or "test error")

    @property
    def val_label(self) -> str:
        """The metric's label, said of the validation set."""
        label = self.metric_label
        return re.sub(r"\btest\b", "validation", label) if re.search(r"\btest\b", label) else f"validation {label}"

    @property
    def value(self) -> float | None:
        """The reported metric of a finished run; None for any other, whatever its record holds."""
        return number(self.part("metrics").get(self.metric)) if self.status == "ok" and self.metric else None

    @property
    def value_text(self) -> str:
        return metric_text(self.value, self.metric_label)

    @cached_property
    def n(self) -> int | None:
        """How many test images the reported metric was computed on."""
        split = self.metric.split("/", 1)[0] if self.metric else "test"
        n = number(self.part("metrics").get(f"{split}/n")) if self.status == "ok" else None
        return None if n is None else int(n)

    @property
    def parameters(self) -> float | None:
        return number(self.part("complexity").get("params"))

    @property
    def macs(self) -> float | None:
        """Multiply-adds of one image."""
        return number(self.part("complexity").get("macs"))

    @property
    def train_flops(self) -> float | None:
        """FLOPs spent on training; of an unfinished run, those up to its last evaluation."""
        return self._spent("train_flops")

    @property
    def wall_s(self) -> float | None:
        """Wall time in seconds; of an unfinished run, that up to its last evaluation."""
        return self._spent("wall_s")

    @property
    def baselines(self) -> dict[str, float]:
        """Figures of simple methods on the same test set, e.g. `{"otsu_dice": 0.884}`."""
        values = {str(key): number(value) for key, value in self.part("baselines").items()}
        return {key: value for key, value in values.items() if value is not None}

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """What must agree, beside the configuration, for results to be averaged."""
        protocol = {key: value for key, value in self.part("protocol").items() if key != "budget"}
        return {
            "protocol": protocol,
            "test images": self.n,
            "data": self.part("dataset").get("sha256"),
            "precision": self.part("parallel").get("precision"),
            "code": self.part("code").get("training_sha256"),
        }

    @property
    def scores(self) -> dict[str, float]:
        """Test scores that a published table has for this data set, by name; of a finished run."""
        names = dict.fromkeys(name for row in published.scores(self.data) for name in row.figures)
        values = {
            name: number(self.part("metrics").get(f"test/{name}")) for name in (*names, "threshold_v_rand", "seg")
        }
        return {name: value for name, value in values.items() if value is not None and self.status == "ok"}

    @property
    def pictures(self) -> list[Path]:
        """Pictures of test images, PNG, where the task has some."""
        return sorted((self.directory / "pictures").glob("*.png"))

    def curve(self) -> list[dict[str, Any]]:
        """The history's rows that can be drawn: positive train_flops and a finite validation metric."""
        metric = self.val_metric
        return [
            row
            for row in self.history
            if (number(row.get("train_flops")) or 0) > 0 and number(row.get(metric)) is not None
        ]

    def part(self, key: str) -> dict[str, Any]:
        """A mapping of the record, empty when the run has not come so far."""
        return self.record.get(key) or {}

    def _spent(self, key: str) -> float | None:
        spent = number(self.part("compute").get(key))
        if self.status != "ok" and not spent:
            try:
                spent = number(self.history[-1].get(key)) if self.history else None
            except (OSError, ValueError):
                return None
        return spent


def load_runs(output_root: str | Path) -> tuple[list[Run], list[str]]:
    """Every run under a folder, sorted by data set, model, recipe and seed, and a line for each record passed over.

    A record that is torn, not JSON or not one of ours never stops the reading. Raises FileNotFoundError when there is
    no such folder.
    """
    root = Path(output_root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: give the folder that holds the runs, normally outputs")
    collecting = gc.isenabled()
    gc.disable()  # it would look again and again through what thousands of records hold, and nothing of it is garbage
    try:
        runs, problems = _load(root)
    finally:
        if collecting:
            gc.enable()
    return sorted(runs, key=_order), sorted(problems)


def _load(root: Path) -> tuple[list[Run], list[str]]:
    runs, problems = [], []
    for directory, folders, files in os.walk(root):
        if directory == os.fspath(root):
            folders[:] = [folder for folder in folders if folder not in NO_RUNS]
        if "record.json" not in files:
            if "history.jsonl" in files or "checkpoints" in folders:
                problems.append(f"{one_line(directory)}: a run's folder without its record.json (copied in part?)")
                folders.clear()
            continue
        folders.clear()  # a run's own subfolders hold no runs
        path = Path(directory, "record.json")
        try:
            runs.append(Run(path.parent, _read_record(path)))
        except (OSError, ValueError) as error:
            problems.append(f"{one_line(str(path))}: {one_line(str(error))}")
    return runs, problems


def read_history(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a history.jsonl; a file not yet written has none.

    A torn last line (the process was killed while it wrote) is left out. Raises ValueError when any other line is not
    a row, naming file and line.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for index, line in enumerate(lines):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif index < len(lines) - 1:
            raise ValueError(f"{path}, line {index + 1}: not a JSON object; only the last line may be torn")
    return rows


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """At least two finished runs that differ in nothing but the seed.

    `std` is the sample standard deviation (n - 1 in the denominator) of the reported metric.
    """

    runs: tuple[Run, ...]
    mean: float
    std: float

    @property
    def text(self) -> str:
        """`1.85 ± 0.21 %`"""
        return mean_text(self.mean, self.std, self.runs[0].metric_label)

    @property
    def seeds_text(self) -> str:
        return f"mean of {len(self.runs)} seeds"

    @property
    def interval_text(self) -> str:
        """95 % interval of the mean over seeds: `[0.71, 3.89]`, or why there is none."""
        from benchmarks.statistics import mean_interval, without_interval

        interval = mean_interval([run.value for run in self.runs if run.value is not None])
        if interval is None:
            return without_interval(len(self.runs))
        low, high = (f"{value:.2f}" if "%" in self.runs[0].metric_label else f"{value:.3f}" for value in interval)
        return f"[{low}, {high}]"

    @property
    def sampling_text(self) -> str:
        """Standard error that the choice of test images adds, which no number of seeds shrinks; empty but of error rates."""
        from benchmarks.statistics import sampling_error

        run = self.runs[0]
        if run.metric is None or not run.metric.endswith("_err") or "%" not in run.metric_label or not run.n:
            return ""
        if run.record.get("task") != "classification":  # pixels of one image are not independent
            return ""
        return f"± {100 * sampling_error(self.mean / 100, run.n):.2f}"


def seed_groups(runs: Iterable[Run]) -> list[SeedGroup]:
    """The groups of runs that may be averaged, in the order of `runs`; one seed alone is never a group.

    Runs belong together when configuration, protocol, number of test images, data checksum, precision and training code
    agree. Of two folders with the same seed the one started last counts.
    """
    result = []
    for members in same_but_seed(runs):
        if len(members) > 1:
            values = [run.value for run in members if run.value is not None]
            result.append(SeedGroup(members, statistics.fmean(values), statistics.stdev(values)))
    return result


def same_but_seed(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    """The finished runs by what `seed_groups` averages, by seed, single ones too."""
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:
        if run.value is None:
            continue
        seeds = groups.setdefault(_all_but_seed(run), {})
        other = seeds.get(run.seed)
        if other is None or str(run.record.get("started")) > str(other.record.get("started")):
            seeds[run.seed] = run
    return [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in groups.values()]


def short_labels(runs: Sequence[Run], *, seeds: bool = True) -> list[str]:
    """A label for each run, no longer than telling these runs apart needs.

    Departures are always said; the recipe where a model has more than one; the seed, unless `seeds` is False, where
    there is more than one.
    """
    recipes: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        recipes.setdefault((run.data, run.name), set()).add(run.record["recipe"])
    several_seeds = seeds and len({run.seed for run in runs}) > 1
    labels = []
    for run in runs:
        recipe = run.record["recipe"] if len(recipes[run.data, run.name]) > 1 else ""
        seed = f"seed {run.seed}" if several_seeds else ""
        labels.append(" · ".join(filter(None, (run.name, recipe, run.departures, seed))))
    return labels if seeds else _told_apart(labels, runs)


def _told_apart(labels: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Labels of groups, with the conditions in which groups of the same name on the same data differ."""
    named: dict[tuple[str, str], list[Run]] = {}
    for label, run in zip(labels, runs, strict=True):
        named.setdefault((label, run.data), []).append(run)
    notes = {
        id(run): note for same in named.values() for run, note in zip(same, differing_conditions(same), strict=True)
    }
    return [
        f"{label} ({', '.join(notes[id(run)])})" if notes[id(run)] else label
        for label, run in zip(labels, runs, strict=True)
    ]


def differing_conditions(runs: Sequence[Run]) -> list[list[str]]:
    """Of each run, the `conditions` in which these runs differ, as `code 1a2b3c4`; empty of a single one."""
    conditions = [run.conditions for run in runs]
    differing = [key for key in conditions[0] if any(other[key] != conditions[0][key] for other in conditions)]
    return [[f"{key} {_short_condition(own[key])}" for key in differing] for own in conditions]


def _short_condition(value: Any) -> str:
    """Itself where it is short, else the first digits of its hash."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if len(text) <= 12:
        return text
    return text[:7] if re.fullmatch(r"[0-9a-f]{64}", text) else hashlib.sha256(text.encode()).hexdigest()[:7]


def baseline_names(key: str) -> tuple[str, str]:
    """Method and metric of a baseline's key: `otsu_dice` is ("Otsu", "dice")."""
    method, _, metric = key.rpartition("_")
    return (method.replace("_", " ").capitalize(), metric) if method else (key, "")


@dataclass(frozen=True)
class Baseline:
    """A simple method's figure on a data set's test set, and the finished nets' figures of the same metric."""

    data: str
    method: str
    metric: str
    value: float
    nets: tuple[tuple[str, float], ...]


def baseline_comparisons(runs: Sequence[Run]) -> list[Baseline]:
    """Every baseline that the records hold, in the order of `runs`, beside the nets (label, figure)."""
    result = []
    for data in dict.fromkeys(run.data for run in runs):
        here = [run for run in runs if run.data == data]
        labels = short_labels(here)
        for key, value in dict.fromkeys(item for run in here for item in run.baselines.items()):
            method, metric = baseline_names(key)
            figures = [number(run.part("metrics").get(f"test/{metric}")) for run in here]
            nets = tuple(
                (label, figure)
                for run, label, figure in zip(here, labels, figures, strict=True)
                if run.status == "ok" and figure is not None
            )
            result.append(Baseline(data, method, metric.capitalize(), value, nets))
    return result


def number(value: Any) -> float | None:
    """`value` when it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def si(value: float | None) -> str:
    """Three significant digits with an SI prefix: 34,426,698 is `34.4 M`, 1.2e12 is `1.20 T`, 512 is `512`."""
    if value is None:
        return MISSING
    for exponent, prefix in enumerate(("", "k", "M", "G", "T", "P", "E", "Z")):
        scaled = value / 1000**exponent
        if abs(scaled) < 999.5 or prefix == "Z":
            break
    if not prefix and value == int(value):
        return str(int(value))
    decimals = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:.{decimals}f} {prefix}".rstrip()


def duration(seconds: float | None) -> str:
    """Wall time in its two largest units: `4.2 s`, `45 s`, `1 min 12 s`, `2 h 03 min`, `3 d 04 h`."""
    if seconds is None:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def metric_text(value: float | None, label: str) -> str:
    """A metric with two decimals and its unit (`1.78 %`), or three without one (`0.884`)."""
    if value is None:
        return MISSING
    return f"{value:.2f} %" if "%" in label else f"{value:.3f}"


def mean_text(mean: float, std: float, label: str) -> str:
    """`1.85 ± 0.21 %`, in the digits of `metric_text`."""
    return f"{mean:.2f} ± {std:.2f} %" if "%" in label else f"{mean:.3f} ± {std:.3f}"


def count(n: int | None) -> str:
    """10000 is `10,000`."""
    return MISSING if n is None else f"{n:,}"


def one_line(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would obey."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(char if char.isprintable() else "�" for char in line)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except ValueError:
        raise ValueError("not valid JSON (torn?); run it again or remove the folder") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        if isinstance(found, int):
            raise ValueError(f"a record of schema {found}, made by another version; this one reads schema {SCHEMA}")
        raise ValueError(f"not a run's record of schema {SCHEMA} (schema is {found!r})")
    for key, kind in _REQUIRED.items():
        if not isinstance(record.get(key), kind) or isinstance(record[key], bool):
            raise ValueError(f"{key} must be a {kind.__name__}, got {record.get(key)!r}")
    if record["status"] not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {record['status']!r}")
    for key in _MAPPINGS:
        if not isinstance(record.get(key), dict | None):
            raise ValueError(f"{key} must be an object, got {type(record[key]).__name__}")
    return record


def _order(run: Run) -> tuple[Any, ...]:
    natural = [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", run.name)]
    return run.data, natural, run.recipe, run.seed, run.directory


def _all_but_seed(run: Run) -> str:
    same = (run.data, run.name, run.record["recipe"], run.part("departures"), run.conditions)
    return json.dumps(same, sort_keys=True, default=str)
