"""Run folders read back: records, histories and the values that tables and pages show.

A run is a folder `<output_root>/<data>/<name>/<recipe>/seed<k>/` with `record.json` (replaced atomically)
and `history.jsonl` (one row per evaluation, appended). Nothing here imports torch.
"""

import gc
import json
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from benchmarks.records import files, measured_speed
from benchmarks.records.conditions import to_average, to_compare
from benchmarks.records.locks import LAUNCHER, RANKS, held
from benchmarks.records.read_record import Parts, read_record
from benchmarks.records.second_process import begin
from benchmarks.units import NO_RUNS, as_key, number, one_line, plural, short_value

TABLES = "tables"  # folder of an output root: published tables beside the runs

OUTPUT_ROOT = 3  # among the parents of a run's folder: DATA/NAME/RECIPE lie between


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder. `record` is the checked content of record.json; values it does not hold read as None."""

    directory: Path
    record: dict[str, Any]

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The rows of history.jsonl, read when first asked for. Raises ValueError as `read_history` does."""
        return read_history(self.directory / files.HISTORY)

    @property
    def status(self) -> str:
        return self.record["status"]

    @cached_property
    def state(self) -> str:
        """The status; ``killed`` where the record says running, and neither a launcher nor a process of the run is there."""
        if self.status != "running" or held(self.directory / LAUNCHER) or held(self.directory / RANKS):
            return self.status
        return "killed"

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
    def look(self) -> dict[str, Any]:
        """How the record says that figures draw the family; empty where it does not."""
        return self.part("look")

    @property
    def name(self) -> str:
        return self.record["name"]

    @property
    def seed(self) -> int:
        return self.record["seed"]

    @cached_property
    def overrides(self) -> str:
        """What departs from the recipe, as in `epochs=5, optimizer.lr=0.2`; empty for the recipe itself."""
        return overrides_text(self.part("overrides"))

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The overrides of the network, by name: `{"shortcut": "A"}`."""
        overrides = sorted(self.part("overrides").items())
        return {key.removeprefix("model."): value for key, value in overrides if key.startswith("model.")}

    @cached_property
    def network(self) -> str:
        """The name, with the arguments of the network that it does not show: `resnet34 model.shortcut=A`."""
        return " ".join([self.name, *(f"model.{key}={short_value(value)}" for key, value in self.arguments.items())])

    @cached_property
    def recipe(self) -> str:
        """The recipe with its overrides."""
        return ", ".join(filter(None, (self.record["recipe"], self.overrides)))

    @property
    def label(self) -> str:
        """Name, overrides from the recipe and seed: `resnext29_8x4d epochs=5 seed 0`."""
        return " ".join(filter(None, (self.name, self.overrides, f"seed {self.seed}")))

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
    def is_debug(self) -> bool:
        """Whether it was trained on a part of each epoch: its figures compare with no other's."""
        return self.part("overrides").get("trainer.limit_train_batches") is not None

    @property
    def is_reencoded(self) -> bool:
        """Whether its images are not the published pixels but were compressed again: published errors are not beside them."""
        return "lossy" in str(self.part("dataset").get("notes"))

    @cached_property
    def value(self) -> float | None:
        """The reported metric of a finished run; None for any other, whatever its record holds, and for one of debugging."""
        return None if self.is_debug else self.measured

    @property
    def measured(self) -> float | None:
        """The reported metric of a finished run, also of one of debugging, which nothing may be compared with."""
        return number(self.part("metrics").get(self.metric)) if self.status == "ok" and self.metric else None

    @cached_property
    def n(self) -> int | None:
        """How many test images the reported metric was computed on."""
        split = self.metric.split("/", 1)[0] if self.metric else "test"
        n = number(self.part("metrics").get(f"{split}/n")) if self.status == "ok" else None
        return None if n is None else int(n)

    @property
    def test(self) -> dict[str, Any]:
        """What must agree for results on a data set to be compared: metric, its definition, weights, test images and more."""
        return self._test[0]

    @property
    def test_key(self) -> tuple[str, str]:
        """The same between runs whose results may be compared: data set, key of `test`."""
        return self.data, self._test[1]

    @cached_property
    def _test(self) -> tuple[dict[str, Any], str]:
        others = self.metric, self.n, self.part("dataset").get("sha256")
        return to_compare(self.part("protocol"), self.part("overrides"), others)

    @property
    def parameters(self) -> float | None:
        return number(self.part("complexity").get("params"))

    @property
    def macs(self) -> float | None:
        """Multiply-adds of one image."""
        return number(self.part("complexity").get("macs"))

    @property
    def uncounted(self) -> list[str]:
        """Operators of the network whose arithmetic is in no count."""
        return [str(name) for name in self.part("complexity").get("uncounted") or ()]

    @property
    def train_flops(self) -> float | None:
        """FLOPs spent on training; of an unfinished run, those up to its last evaluation."""
        return self._spent("train_flops")

    @property
    def wall_s(self) -> float | None:
        """Wall time in seconds; of an unfinished run, that up to its last evaluation."""
        return self._spent("wall_s")

    @cached_property
    def baselines(self) -> dict[str, float]:
        """Figures of simple methods on the same test set, e.g. `{"otsu_dice": 0.884}`."""
        values = {str(key): number(value) for key, value in self.part("baselines").items()}
        return {key: value for key, value in values.items() if value is not None}

    @property
    def definitions(self) -> dict[str, Any]:
        """What each metric is, by name."""
        return self.part("protocol").get("definitions") or {}

    @property
    def conditions(self) -> dict[str, Any]:
        """What must agree, beside the configuration, for results to be averaged."""
        return self._conditions[0]

    @cached_property
    def all_but_seed(self) -> str:
        """What agrees between runs that differ in the seed alone."""
        of_recipe = self.record["recipe"], self.part("overrides"), self.configuration
        return as_key((self.data, self.name, *of_recipe, self._conditions[1]))

    @property
    def configuration(self) -> str | None:
        """A hash of the configuration without the seed; None where the record of an older version does not say it."""
        return self.record.get("config_hash_without_seed")

    @cached_property
    def _conditions(self) -> tuple[dict[str, Any], str]:
        others = self.n, self.part("dataset").get("sha256"), self.part("parallel").get("precision")
        return to_average(self.part("protocol"), self.part("code"), others)

    @property
    def pictures(self) -> list[Path]:
        """Pictures of test images, PNG, where the task has some."""
        return files.pictures(self.directory)

    def curve(self) -> list[dict[str, Any]]:
        """The history's rows that can be drawn: positive train_flops and a finite validation metric; none of debugging."""
        metric = self.val_metric
        return [
            row
            for row in ([] if self.is_debug else self.history)
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


def overrides_text(overrides: Mapping[str, Any], but: Container[str] = ()) -> str:
    """Return overrides by dotted key as in `epochs=5, optimizer.lr=0.2`, without those of `but`."""
    shown = ((key, value) for key, value in sorted(overrides.items()) if key not in but)
    return ", ".join(f"{key.removeprefix('recipe.')}={short_value(value)}" for key, value in shown)


def debugging_left_out(runs: Iterable[Run]) -> str:
    """Return how many finished runs are of debugging, to stand behind "no finished run"; empty where none is."""
    count = sum(run.is_debug and run.status == "ok" for run in runs)
    return f" ({plural(count, 'run')} with trainer.limit_train_batches left out)" if count else ""


def load_runs(output_root: str | Path) -> tuple[list[Run], list[str]]:
    """Every run under a folder, sorted by data set, model, recipe and seed, and a line for each record passed over.

    A record that is torn, not JSON or not one of ours never stops the reading. Raises FileNotFoundError when there is
    no such folder.
    """
    root = Path(output_root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: give the folder that holds the runs, normally outputs")
    with uncollected():
        runs, problems = _load(root)
    return sorted(runs, key=_order), sorted(problems)


def output_root_of(directory: str | Path) -> Path:
    """Return the output root, absolute, of the run in ``directory``; of one that was moved near the root of the disk, that."""
    return _path(os.path.abspath(directory).rsplit(os.sep, OUTPUT_ROOT + 1)[0] or os.sep)


_path = lru_cache(Path)  # thousands of runs have few output roots


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause garbage collection, which would look again and again through what thousands of records hold."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _load(root: Path) -> tuple[list[Run], list[str]]:
    directories, problems = _directories(root)
    half = len(directories) // 2
    others = begin(partial(_read_runs, directories[:half]), len(directories))
    runs, unread, known = _read_runs(directories[half:])
    more, more_unread, known_there = others()
    same = {id(value): known.setdefault(part, value) for part, value in known_there.items()}
    for run in more:
        run.record.update({key: same.get(id(value), value) for key, value in run.record.items()})
    return runs + more, [*problems, *unread, *more_unread]


def _directories(root: Path) -> tuple[list[str], list[str]]:
    """Return the folders with a record, and a line for each that should have one."""
    directories, problems = [], []
    for directory, folders, names in _walk(root):
        if directory == os.fspath(root):
            folders[:] = [folder for folder in folders if folder not in NO_RUNS]
        if files.RECORD in names:
            directories.append(directory)
        elif files.RECORD in folders:
            problems.append(f"{one_line(directory)}: {files.RECORD} is a folder")
        elif files.HISTORY in names or files.CHECKPOINTS in folders:
            problems.append(f"{one_line(directory)}: a run's folder without its record.json (copied in part?)")
        else:
            # Listing what thousands of runs hold takes three times as long as asking for their records.
            runs = [folder for folder in folders if _has_record(os.path.join(directory, folder))]
            directories += [os.path.join(directory, folder) for folder in runs]
            folders[:] = set(folders).difference(runs)
            continue
        folders.clear()  # a run's own subfolders hold no runs
    return directories, problems


def _has_record(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, files.RECORD)) and not os.path.islink(folder)


def _read_runs(directories: Sequence[str]) -> tuple[list[Run], list[str], Parts]:
    """Return the runs in folders, a line for each that cannot be read, and the parts of their records."""
    runs, problems = [], []
    parts: Parts = {}
    measured = cache(measured_speed.read)
    for directory in directories:
        path = os.path.join(directory, files.RECORD)
        try:
            record = read_record(path, parts)
            measured_speed.add_to(record, measured(output_root_of(directory)))
            runs.append(Run(Path(directory), record))
        except (OSError, ValueError) as error:
            problems.append(f"{one_line(path)}: {one_line(str(error))}")
    return runs, problems, parts


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk over folders as ``os.walk``, and into a data set's folder that is a link, as to another disk."""
    yield from os.walk(root)
    for entry in sorted(root.iterdir()):
        if entry.is_symlink() and entry.is_dir() and entry.name not in NO_RUNS:
            for directory, folders, names in os.walk(f"{entry}/"):
                depth = len(Path(directory).relative_to(entry).parts)
                if depth >= OUTPUT_ROOT:  # a run's folder, or beside any
                    folders[:] = [folder for folder in folders if folder == files.CHECKPOINTS]
                yield os.path.normpath(directory), folders, names


def read_history(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a history.jsonl; a file not yet written has none.

    A torn last line (the process was killed while it wrote) is left out. Raises ValueError when any other line is not
    a row, naming file and line.
    """
    try:
        lines = files.read_bytes(Path(path)).splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for index, line in enumerate(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif index < len(lines) - 1:
            raise ValueError(f"{path}, line {index + 1}: not a JSON object; only the last line may be torn")
    return rows


def _order(run: Run) -> tuple[Any, ...]:
    return run.data, _natural(run.name), run.recipe, run.seed, run.directory


@lru_cache
def _natural(name: str) -> list[int | str]:
    """Return the parts of a name, its numbers as such: resnet20 comes before resnet110."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]
