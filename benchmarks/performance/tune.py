"""The fastest settings on this machine: ``python -m benchmarks tune model=densenet data=cifar10``."""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import terminal
from benchmarks.config.trial import Trial
from benchmarks.performance import subprocesses
from benchmarks.performance.document import MIB, MS, RATE, Columns, MeasuredTable, add_write_option, table
from benchmarks.performance.results import Results
from benchmarks.performance.throughput import LAYOUTS, NETWORK, counts, label, peak_of, trainable
from benchmarks.records.code_version import training_sha256, user_code
from benchmarks.records.hardware import cores, on_gpu
from benchmarks.training import tuned_settings
from benchmarks.units import duration, quantity

FACTORS = (0.25, 0.5, 2, 4)  # of the recipe's batch; auto changes none but the evaluation's
LOADER_WORKERS = (0, 1, 2, 4, 8, 16)  # as far as a process's cores go
PASSES = {"forward": "flops", "train": "train_flops_per_sample"}  # name -> its FLOPs in ``counts``
GUESS_S = {False: 20, True: 120}  # a measurement, by whether it compiles
FIGURES: Columns = {
    f"{name}_{key}": (f"{heading}{text}", form)
    for name, heading in zip(PASSES, ("forward, ", "training, "), strict=True)
    for key, text, form in (
        ("images_per_s", "images/s", RATE),
        ("s", "ms", MS),
        ("of_peak", "of peak", ".0%"),
        ("memory_bytes", "MiB", MIB),
    )
} | {"start_s": ("start, s", ".1f")}
WORKERS: Columns = {
    "workers": ("loader workers", "d"),
    "train_images_per_s": ("training images/s", RATE),
    "problem": ("", "s"),
}
TABLE = MeasuredTable(
    "tune",
    "The fastest settings",
    {**NETWORK, "best": ("", "s"), **FIGURES},
    "Forward passes and training steps on random images, a process for each line, after warm-up, interleaved with the plain "
    "setting, that of the first line: times are the median ratio to it, times the median of what it took in all processes. "
    "Start is what the first forward pass and the first training step take more than later ones, as they compile. Best is what "
    "`trainer=auto` takes: the setting that is through the recipe's training first, its start included, or the first line "
    "where none is by 3 %; TF32 and bfloat16 change numbers and are taken only with `trainer.allow_reduced_precision=true`. Of "
    "peak: FLOPs of convolutions and linear layers a second, as a share of what the best of ten products of large matrices "
    "reaches in the same precision. Memory is the highest beside what the libraries take, that of compiling included.",
    same=("network", "image", "batch"),
)


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
    terminal.add_overrides(parser, ": model=… data=…")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the tables and write the file; return 0, or 130 where it was interrupted.

    Raises:
        ValueError: there is no such network, or it cannot be trained here.
        OSError: the file cannot be written.
    """
    trial = trainable(arguments.overrides)
    subprocesses.warn_if_busy()
    try:
        _tune(trial, terminal.console(), arguments)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0


def settings(has: Mapping[str, Any], checkpointing: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the combinations that a machine has, the plain one first, and why others are left out, a line each.

    Args:
        has: as ``main`` of ``benchmarks.training.options`` returns it.
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


def _tune(trial: Trial, console: Console, arguments: argparse.Namespace) -> None:
    """Measure, write and print."""
    config = trial.config
    base = tuned_settings.specification(config)
    threads, batch = base["threads"], base["batch"]
    has = subprocesses.ask("training.options", on_gpu(config), threads)
    if base["options"].get("cuda_graph"):
        has["compile"] = "not with trainer.cuda_graph"
    machine, key = has["hardware"], tuned_settings.key_of(base)
    unfinished = Results(
        tuned_settings.path_of(config["output_root"], machine).with_suffix(f".{key}.unfinished"),
        [machine, training_sha256(), user_code(config)],
    )
    combinations, left_out = settings(has, bool(base["options"].get("gradient_checkpointing")))
    batches = sorted({max(1, int(batch * factor)) for factor in FACTORS} - {batch})
    peak = unfinished.get("peak", lambda: subprocesses.ask("performance.peak", base, threads))
    epoch_images, problem = _images_of_an_epoch(config)
    if problem is not None:
        print(f"loader workers are not measured, and starting is not counted: {problem}", file=sys.stderr)
    cost = counts(config)
    entry = {
        "name": config["name"],
        "data": config["data"]["name"],
        "peaks": peak["peaks"],
        "epoch_images": epoch_images,
        "train_flops_per_sample": cost["train_flops_per_sample"] or None,
    }
    compiled = sum(setting["compile"] for setting in combinations)
    count = len(combinations) + len(batches) + (problem is None)
    guess = (count - compiled) * GUESS_S[False] + compiled * GUESS_S[True]
    columns = (TextColumn("tune"), BarColumn(bar_width=24), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        bar.console.print(
            f"tune: {count} measurements, a process each; about {duration(guess)} if the {compiled} compiled take "
            f"{duration(GUESS_S[True])} each. Interrupted, the same command goes on where it was."
        )
        task = bar.add_task("", total=guess)

        def measure(name: str, setting: Mapping[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
            bar.update(task, description=name)
            result = unfinished.get(name, work)
            bar.advance(task, GUESS_S[setting["compile"]])
            return result

        passes = {}
        for setting in sorted(combinations, key=lambda one: one["compile"]):  # the short ones first
            row = setting | {"batch": batch}
            passes[label(row)] = measure(label(row), setting, partial(_measure, base, row))
        figures = Figures(passes.values(), peak["peaks"], cost)
        ordered = [figures.of(setting | {"batch": batch}, passes[label(setting)]) for setting in combinations]
        entry["settings"] = ordered
        images = tuned_settings.images_of(config, entry)
        exact, reduced = (tuned_settings.choose(ordered, allowed, {}, images) for allowed in (False, True))
        others = [row for row in ordered if exact.items() <= row.items()]
        for other in batches:
            row = exact | {"batch": other}
            result = measure(f"{label(row)}, {other} images", exact, partial(_measure, base, row))
            others.append(figures.of(row, result))
        loading = []
        if problem is None:
            workers = [count for count in LOADER_WORKERS if count <= cores() // config["trainer"]["devices"]]
            data = config["datamodule"] | {"batch_size": batch}
            loaders = [{"datamodule": data | {"loader_workers": count}} for count in workers]
            result = measure("loader workers", exact, lambda: {"passes": _steps(_specification(base, exact), loaders)})
            loading = [figures.loading(batch, *one) for one in zip(workers, result["passes"], strict=True)]
    others.sort(key=lambda row: row["batch"])
    entry |= {"batches": others, "workers": loading}
    path = tuned_settings.keep(config["output_root"], machine, key, entry)
    unfinished.path.unlink(missing_ok=True)
    image = "×".join(map(str, base["image"]))
    best = {"best": exact, "best if allowed": reduced}
    for row in ordered:
        word = next((word for word, setting in best.items() if setting.items() <= row.items()), "")
        row |= {"network": trial.network, "image": image, "setting": label(row), "best": word}
    if arguments.write:
        TABLE.write(peak["environment"], arguments.command_line, ordered)
    _print(console, f"{config['name']}, {batch} images of {image}, {machine['device_name']}", entry, exact)
    for line in left_out:
        console.print(f"left out   {line}", markup=False, style="yellow")
    length = "" if images is None else f", over {images:,.0f} images with the start counted"
    console.print(f"best       {label(exact)}{length}", markup=False, style="bold")
    if reduced != exact:
        console.print(f"           {label(reduced)}, with trainer.allow_reduced_precision=true", markup=False)
    loader_workers = (
        tuned_settings.choose_least(loading, "workers", "train_images_per_s") if loading else f"not measured: {problem}"
    )
    evaluation_batch = tuned_settings.choose_least(others, "batch", "forward_images_per_s")
    console.print(f"evaluation batch {evaluation_batch}; loader workers {loader_workers}", markup=False)
    console.print(f"kept       {path}; trainer=auto uses it", markup=False)


def _print(console: Console, title: str, entry: Mapping[str, Any], best: Mapping[str, Any]) -> None:
    """Print the tables of settings, of batches and loader workers at the best of them, and what the shares are of."""
    by_setting: Columns = {"setting": ("setting", "s"), **FIGURES, "problem": ("", "s")}
    by_batch: Columns = {"batch": ("batch", "d"), **FIGURES, "problem": ("", "s")}
    console.print(table(by_setting, entry["settings"], title, best))
    console.print(table(by_batch, entry["batches"], f"other batches, {label(best)}"))
    if entry["workers"]:
        console.print(table(WORKERS, entry["workers"]))
    rates = ", ".join(f"{name} {quantity(most, 'FLOPs/s')}" for name, most in entry["peaks"].items())
    console.print(f"100 %      the best of a few products of matrices here: {rates}", markup=False, style="dim")


class Figures:
    """Seconds, images per second and share of the peak, with times as ratios to the plain setting's.

    Args:
        measured: results of ``_measure``, from which the plain setting's time is taken.
        peaks: as ``main`` of ``benchmarks.performance.peak`` returns them.
        cost: as ``counts``.
    """

    def __init__(
        self, measured: Iterable[Mapping[str, Any]], peaks: Mapping[str, float], cost: Mapping[str, int]
    ) -> None:
        self._peaks, self._cost = peaks, cost
        self._plain = {}
        for name, results in zip(PASSES, zip(*(one["passes"] for one in measured), strict=True), strict=True):
            times = [result["beside_s"] for result in results if "beside_s" in result]
            self._plain[name] = median(times) if times else None

    def of(self, row: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row with its figures, None where there are none, and the ``problem``."""
        figures: dict[str, Any] = {**row, "problem": None}
        starts = []
        for name, result in zip(PASSES, measured["passes"], strict=True):
            values: dict[str, Any] = dict.fromkeys(("s", "images_per_s", "of_peak", "memory_bytes"))
            if "error" in result:
                figures["problem"] = result["error"]
            else:
                seconds = self._seconds(name, result)
                starts.append(result["first_s"] - result["step_s"])
                images, peak = row["batch"] / seconds, peak_of(self._peaks, row["precision"], result["options"])
                share = peak and images * self._cost[PASSES[name]] / peak
                values = {"s": seconds, "images_per_s": images, "of_peak": share}
                values["memory_bytes"] = result["memory_bytes"]
            figures |= {f"{name}_{key}": value for key, value in values.items()}
        return figures | {"start_s": max(0.0, sum(starts)) if starts else None}

    def loading(self, batch: int, workers: int, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the rate of training steps on the batches of so many loader workers."""
        images = None if "error" in result else batch / self._seconds("train", result)
        return {"workers": workers, "train_images_per_s": images, "problem": result.get("error")}

    def _seconds(self, name: str, result: Mapping[str, Any]) -> float:
        plain = self._plain[name]
        return result["step_s"] if plain is None or "ratios" not in result else median(result["ratios"]) * plain


def _measure(base: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``passes`` as measured, forward and training, of a setting and batch."""
    specification = _specification(base, row) | {"batch": row["batch"]}
    passes = [{"forward": True}, {"forward": False}]
    try:
        return {"passes": subprocesses.steps(specification, passes)}
    except ValueError as error:  # the process was killed: the forward pass alone needs less
        return {"passes": [*_steps(specification, passes[:1]), {"error": str(error)}]}


def _steps(specification: Mapping[str, Any], passes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return several passes of one process; where that failed, its ``error`` for each."""
    try:
        return subprocesses.steps(specification, passes)
    except ValueError as error:
        return [{"error": str(error)}] * len(passes)


def _specification(base: Mapping[str, Any], setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specification of a process that measures a setting, interleaved with the plain one."""
    return {**with_setting(base, setting), "beside": with_setting(base, tuned_settings.PLAIN)}


def with_setting(base: Mapping[str, Any], setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification with another setting."""
    options = base["options"] | {name: setting[name] for name in ("tf32", "channels_last", "compile")}
    return {**base, "options": options, "precision": setting["precision"]}


def _images_of_an_epoch(config: Mapping[str, Any]) -> tuple[int | None, str | None]:
    """Return how many images an epoch trains on, in whole batches, or None and in one line why there are no batches."""
    from hydra.utils import instantiate

    from benchmarks.training.failures import describe, is_known

    try:
        datamodule = instantiate(config["datamodule"])
        datamodule.prepare_data()
        datamodule.setup("fit")
    except Exception as error:
        if not is_known(error):
            raise
        return None, describe(error)
    return len(datamodule.splits.train) // datamodule.batch_size * datamodule.batch_size, None
