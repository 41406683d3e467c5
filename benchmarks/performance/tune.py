"""The fastest settings on this machine: ``python -m benchmarks tune model=densenet data=cifar10``."""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import terminal
from benchmarks.config.compose import expand_all
from benchmarks.config.trial import ConfigurationError, Trial
from benchmarks.launch.checks import refusal
from benchmarks.performance import subprocesses
from benchmarks.performance.document import add_write_option
from benchmarks.performance.settings_table import OF, TABLE, settings_table, table_row, workers_table
from benchmarks.performance.throughput import LAYOUTS, counts, label, network, peak_of
from benchmarks.records.code_version import training_sha256, user_code
from benchmarks.records.files import read_json, write_json
from benchmarks.records.hardware import cores, on_gpu
from benchmarks.training import tuned_settings
from benchmarks.units import duration, quantity

FACTORS = (0.25, 0.5, 2, 4)  # of the recipe's batch; auto changes none but the evaluation's
MOST_WORKERS = 16
PASSES = ({"forward": True}, {"forward": False})
GUESS_S = {False: 20.0, True: 120.0}  # a measurement, by whether it compiles, until one was made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``tune``."""
    parser.description = (
        "Measure a network's forward and training step in every combination that this machine has of float32, TF32 and "
        "bfloat16, NCHW and channels_last, eager and compiled; at the best of them other batch sizes and numbers of loader "
        "workers. trainer=auto then trains with the best."
    )
    parser.epilog = (
        "Each setting is a process of its own, so that its peak memory is its own. The result is kept in "
        "OUTPUT_ROOT/tuning/MACHINE.json, by hardware and versions. Nothing else should run on the machine meanwhile. "
        "Interrupted, the same command goes on where it was."
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py: model=… data=…")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the tables and write the file; return 0, or 130 where it was interrupted.

    Raises:
        ValueError: there is no such network, or it cannot be trained here.
        OSError: the file cannot be written.
    """
    [trial] = expand_all(arguments.overrides, multirun=False)
    if problem := refusal(trial):
        raise ConfigurationError(problem)
    subprocesses.warn_if_busy()
    try:
        _tune(trial, terminal.console(), arguments.command_line if arguments.write else None)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0


def settings(has: Mapping[str, Any], checkpointing: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the combinations that a machine has, the plain one first, and why others are left out, a line each.

    Args:
        has: as ``benchmarks.training.options`` prints it.
        checkpointing: whether stages are computed again, which goes with no compilation.
    """
    left_out = []
    numerics: list[dict[str, Any]] = [{"precision": "32-true", "tf32": None}]
    if has["tf32"]:
        numerics += [{"precision": "32-true", "tf32": False}, {"precision": "32-true", "tf32": True}]
    else:
        left_out.append("TF32: this device has none")
    if has["bf16"]:
        numerics.append({"precision": "bf16-mixed", "tf32": None})
    else:
        left_out.append("bf16: this device has no bfloat16 arithmetic")
    compiled = [False, True]
    if checkpointing:
        left_out.append("compile: not with trainer.gradient_checkpointing")
        compiled.pop()
    elif has["compile"] is not None:
        left_out.append(f"compile: {has['compile']}")
        compiled.pop()
    combinations = [
        numeric | {"channels_last": layout, "compile": execution}
        for numeric, layout, execution in itertools.product(numerics, LAYOUTS, compiled)
    ]
    return combinations, left_out


def _tune(trial: Trial, console: Console, command: str | None) -> None:
    """Measure, write and print; ``command`` is how it was called, None where docs/performance.md is not to have it."""
    config = trial.config
    base = tuned_settings.specification(config)
    threads, batch = base["threads"], base["batch"]
    has = subprocesses.ask("training.options", int(on_gpu(config)), threads)
    machine, key = has["hardware"], tuned_settings.key_of(base)
    unfinished = Unfinished(
        tuned_settings.path_of(config["output_root"], machine).with_suffix(f".{key}.unfinished"),
        machine | user_code(config),
    )
    combinations, left_out = settings(has, bool(base["switches"].get("gradient_checkpointing")))
    batches = sorted({max(1, int(batch * factor)) for factor in FACTORS} - {batch})
    cost = counts(config)
    peak = unfinished.get(
        "peak", lambda: subprocesses.ask("performance.peak", {"gpu": base["gpu"], "threads": threads}, threads)
    )
    problem = _data_problem(config)
    if problem is not None:
        print(f"loader workers are not measured: {problem}", file=sys.stderr)
    columns = (TextColumn("tune"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        more = len(batches) + (problem is None)
        timetable = Timetable(bar, unfinished, [bool(one["compile"]) for one in combinations] + [False] * more)
        taken = {}
        for setting in sorted(combinations, key=lambda one: one["compile"]):  # the short ones first
            row = setting | {"batch": batch}
            taken[label(row)] = timetable.take(label(row), setting["compile"], partial(_measure, base, row))
        figures = Figures(taken.values(), peak["peaks"], cost)
        ordered = [figures.of(setting | {"batch": batch}, taken[label(setting)]) for setting in combinations]
        exact, reduced = (tuned_settings.choose(ordered, allowed, {}) for allowed in (False, True))
        timetable.left[len(combinations) :] = [exact["compile"]] * more
        others = [row for row in ordered if all(row[name] == exact[name] for name in tuned_settings.SETTING)]
        for other in batches:
            row = exact | {"batch": other}
            name = f"{label(row)}, {other} images"
            others.append(figures.of(row, timetable.take(name, exact["compile"], partial(_measure, base, row))))
        loading = []
        if problem is None:
            workers = _workers(config)
            one = timetable.take(
                "loader workers", exact["compile"], partial(_measure_loading, config, base, exact, workers)
            )
            loading = [figures.loading(batch, number, its) for number, its in zip(workers, one["passes"], strict=True)]
    others.sort(key=lambda row: row["batch"])
    entry = {"name": config["name"], "data": config["data"]["name"], "peaks": peak["peaks"]}
    entry |= {"settings": ordered, "batches": others, "workers": loading}
    path = tuned_settings.keep(config["output_root"], machine, key, entry)
    unfinished.path.unlink(missing_ok=True)
    image = "×".join(map(str, base["image"]))
    if command is not None:
        shared = {"network": network(trial), "image": image, "batch": batch}
        written = [shared | table_row(row, exact, reduced) for row in ordered]
        TABLE.write(peak["environment"], command, written)
    title = f"{config['name']}, {batch} images of {image}, {machine['device_name']}"
    console.print(settings_table(title, ordered, exact, "setting", label))
    console.print(settings_table(f"other batches, {label(exact)}", others, {}, "batch", lambda row: str(row["batch"])))
    if loading:
        console.print(workers_table(loading))
    for line in left_out:
        console.print(f"left out   {line}", markup=False, style="yellow")
    rates = ", ".join(f"{name} {quantity(most, 'FLOPs/s')}" for name, most in peak["peaks"].items())
    console.print(f"100 %      the best of a few products of matrices here: {rates}", markup=False, style="dim")
    console.print(f"best       {label(exact)}", markup=False, style="bold")
    if reduced != exact:
        console.print(f"           {label(reduced)}, with trainer.allow_reduced_precision=true", markup=False)
    loader_workers = tuned_settings.choose_workers(loading) if loading else f"not measured: {problem}"
    console.print(
        f"evaluation batch {tuned_settings.choose_evaluation_batch(others)}; loader workers {loader_workers}",
        markup=False,
    )
    console.print(f"kept       {path}; trainer=auto uses it", markup=False)


class Unfinished:
    """What an interrupted ``tune`` has measured, in a file of its own until it is complete.

    Args:
        path: the file; one of other hardware, versions or code is not used.
    """

    def __init__(self, path: Path, machine: Mapping[str, Any]) -> None:
        self.path = path
        self._of = {"hardware": dict(machine), "code": training_sha256()}
        content = read_json(path) or {}
        self._results = content["found"] if {name: content.get(name) for name in self._of} == self._of else {}

    def __contains__(self, name: str) -> bool:
        return name in self._results

    def get(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what was measured before, or measure it now and keep it."""
        if name not in self._results:
            self._results[name] = measure()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, self._of | {"found": self._results})
        return self._results[name]


class Timetable:
    """The measurements in their order, with a display of the time that is left.

    Args:
        bar: shows it.
        unfinished: holds those that need not be made again.
        left: of each measurement to come, in their order, whether it compiles.
    """

    def __init__(self, bar: Progress, unfinished: Unfinished, left: list[bool]) -> None:
        self.left = left
        self._bar, self._unfinished = bar, unfinished
        self._task = bar.add_task("", total=len(left))
        self._done = 0
        self._took: dict[bool, list[float]] = {False: [], True: []}
        compiled = sum(left)
        bar.console.print(
            f"tune: {len(left)} measurements, a process each; about {duration(self._remaining())} if the {compiled} compiled "
            f"take {duration(GUESS_S[True])} each. Interrupted, the same command goes on where it was."
        )

    def take(self, name: str, compiles: bool, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the next measurement."""
        self._bar.update(self._task, description=f"about {duration(self._remaining())} left: {name}")
        known, began = name in self._unfinished, time.monotonic()
        result = self._unfinished.get(name, measure)
        if not known:
            self._took[compiles].append(time.monotonic() - began)
        self._done += 1
        self._bar.advance(self._task)
        return result

    def _remaining(self) -> float:
        each = {compiles: fmean(took or [GUESS_S[compiles]]) for compiles, took in self._took.items()}
        return sum(each[compiles] for compiles in self.left[self._done :])


def _workers(config: Mapping[str, Any]) -> list[int]:
    """Return 0, 1, 2, 4, … as far as a process's cores go."""
    share = cores() // config["trainer"]["devices"]
    return [0, *itertools.takewhile(lambda n: n <= min(share, MOST_WORKERS), (2**power for power in range(16)))]


class Figures:
    """Seconds, images per second and share of the peak, with times as ratios to the plain setting's.

    Args:
        measured: results of ``_measure``, from which the plain setting's time is taken.
        peaks: as ``benchmarks.performance.peak`` prints them.
        cost: as ``counts``.
    """

    def __init__(
        self, measured: Iterable[Mapping[str, Any]], peaks: Mapping[str, float], cost: Mapping[str, int]
    ) -> None:
        self._peaks, self._cost = peaks, cost
        self._plain = {}
        for of, passes in zip(OF, zip(*(one["passes"] for one in measured), strict=True), strict=True):
            times = [one["beside_s"] for one in passes if "beside_s" in one]
            self._plain[of] = median(times) if times else None

    def of(self, row: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row with its figures, None where there are none, and the ``problem``."""
        figures: dict[str, Any] = {**row, "problem": None}
        for of, flops, one in zip(OF, ("flops", "train_flops_per_sample"), measured["passes"], strict=True):
            its: dict[str, Any] = dict.fromkeys(("s", "images_per_s", "of_peak", "memory_bytes"))
            if "error" in one:
                figures["problem"] = one["error"]
            else:
                seconds = self._seconds(of, one)
                images, peak = row["batch"] / seconds, peak_of(self._peaks, row["precision"], one["switches"])
                its = {"s": seconds, "images_per_s": images, "of_peak": peak and images * self._cost[flops] / peak}
                its["memory_bytes"] = one["memory_bytes"]
            figures |= {f"{of}_{key}": value for key, value in its.items()}
        return figures

    def loading(self, batch: int, workers: int, one: Mapping[str, Any]) -> dict[str, Any]:
        """Return the rate of training steps on the batches of so many loader workers."""
        images = None if "error" in one else batch / self._seconds("train", one)
        return {"workers": workers, "train_images_per_s": images, "problem": one.get("error")}

    def _seconds(self, of: str, one: Mapping[str, Any]) -> float:
        plain = self._plain[of]
        return one["step_s"] if plain is None or "ratio" not in one else one["ratio"] * plain


def _measure(base: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``passes`` as measured, forward and training, of a setting and batch."""
    specification = _specification(base, row) | {"batch": row["batch"]}
    try:
        taken = subprocesses.steps(specification, PASSES)
    except ValueError as error:  # the process was killed: of the forward pass alone, training needs more
        taken = [*_forward_alone(specification), {"error": str(error)}]
    return {"passes": taken}


def _forward_alone(specification: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        return subprocesses.steps(specification, PASSES[:1])
    except ValueError as error:
        return [{"error": str(error)}]


def _specification(base: Mapping[str, Any], setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specification of a process that measures a setting, interleaved with the plain one."""
    plain = {**_set(base, tuned_settings.PLAIN), "batch": base["batch"]}
    return {**base, **_set(base, setting), "beside": plain}


def _set(base: Mapping[str, Any], setting: Mapping[str, Any]) -> dict[str, Any]:
    switches = base["switches"] | {name: setting[name] for name in ("tf32", "channels_last", "compile")}
    return {"switches": switches, "precision": setting["precision"]}


def _data_problem(config: Mapping[str, Any]) -> str | None:
    """Return why there are no batches of the data set, in one line; None if there are."""
    from hydra.utils import instantiate

    from benchmarks.training.failures import describe, is_known

    try:
        datamodule = instantiate(config["datamodule"])
        datamodule.prepare_data()
        datamodule.setup("fit")
    except Exception as error:
        if not is_known(error):
            raise
        return describe(error)
    return None


def _measure_loading(
    config: Mapping[str, Any], base: Mapping[str, Any], setting: Mapping[str, Any], workers: Sequence[int]
) -> dict[str, Any]:
    """Return ``passes``: training steps on the data set's own batches, with each number of loader workers."""
    loaders = [config["datamodule"] | {"batch_size": base["batch"], "loader_workers": number} for number in workers]
    try:
        taken = subprocesses.steps(_specification(base, setting), [{"datamodule": loader} for loader in loaders])
    except ValueError as error:
        taken = [{"error": str(error)}] * len(workers)
    return {"passes": taken}
