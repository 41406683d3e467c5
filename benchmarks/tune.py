"""The fastest settings on this machine: ``python -m benchmarks tune model=densenet data=cifar10``."""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from benchmarks import measuring, terminal, tuning
from benchmarks.configuration import Cell, ConfigurationError, expand
from benchmarks.forecasts import quantity
from benchmarks.launch import cores, on_gpu, refusal
from benchmarks.results import MISSING
from benchmarks.throughput import count

FACTORS = (0.25, 0.5, 2, 4)  # of the recipe's batch; auto changes none but the evaluation's
MOST_WORKERS = 16
LAYOUTS = {False: "NCHW", True: "channels_last"}
EXECUTION = {False: "eager", True: "compile"}


def main(argv: Sequence[str]) -> int:
    """Measures, prints the tables, writes the file. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks tune",
        description="Measure a network's forward and training step in every combination that this machine has of float32, TF32 "
        "and bfloat16, NCHW and channels_last, eager and compiled; at the best of them other batch sizes and numbers of loader "
        "workers. trainer=auto then trains with the best.",
        epilog="Each measurement is a process of its own, so that its peak memory is its own. The result is kept in "
        "OUTPUT_ROOT/tuning/MACHINE.json, by hardware and versions. Nothing else should run on the machine meanwhile.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py: model=… data=…")
    arguments = parser.parse_args(argv)
    try:
        [cell] = expand(arguments.overrides, multirun=False)
        if not isinstance(cell, Cell):
            raise ConfigurationError(cell.error)
        if problem := refusal(cell):
            raise ConfigurationError(problem)
        _tune(cell, terminal.console())
    except OSError as error:
        print(f"python -m benchmarks tune: cannot write to {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"python -m benchmarks tune: {error}", file=sys.stderr)
        return 2
    return 0


def settings(has: Mapping[str, Any], checkpointing: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The combinations that a machine has, the plain one first, and why others are left out, a line each.

    Args:
        has: as ``benchmarks.switches`` prints it.
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
    found = [
        numeric | {"channels_last": layout, "compile": execution}
        for numeric, layout, execution in itertools.product(numerics, LAYOUTS, compiled)
    ]
    return found, left_out


def label(setting: Mapping[str, Any]) -> str:
    """``float32 NCHW eager``."""
    width = "bf16" if setting["precision"] == "bf16-mixed" else setting["precision"]
    if setting["precision"] == "32-true":
        width = {None: "float32", True: "TF32", False: "float32, no TF32"}[setting["tf32"]]
    return f"{width} {LAYOUTS[bool(setting['channels_last'])]} {EXECUTION[bool(setting['compile'])]}"


def _tune(cell: Cell, console: Console) -> None:
    config = cell.config
    base = measuring.specification(config)
    threads = base["threads"]
    columns = (TextColumn("tune"), BarColumn(bar_width=28), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("this machine", total=None)
        has = measuring.ask("switches", int(on_gpu(config)), threads)
        machine = has["hardware"]
        found, left_out = settings(has, bool(base["switches"].get("gradient_checkpointing")))
        batches = sorted({max(1, int(base["batch"] * factor)) for factor in FACTORS} - {base["batch"]})
        workers = _workers(config)
        bar.update(task, total=2 + 2 * (len(found) + len(batches)) + len(workers), completed=1)
        peaks = measuring.ask("peak", has | {"gpu": base["gpu"], "threads": threads}, threads)
        cost = count(config)

        def measured(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            for row in rows:
                bar.update(task, description=f"{label(row)}, {row['batch']} images")
                yield row | _measure(base, row, peaks, cost, lambda: bar.advance(task))

        bar.advance(task)
        rows = list(measured(setting | {"batch": base["batch"]} for setting in found))
        exact, reduced = (tuning.choose(rows, allowed, {}) for allowed in (False, True))
        its = [row for row in rows if all(row[name] == exact[name] for name in tuning.SETTING)]
        others = [*its, *measured(exact | {"batch": batch} for batch in batches)]
        loading = []
        for number in workers:
            bar.update(task, description=f"{number} loader workers")
            loading.append({"workers": number} | _measure_loading(config, base, exact, number))
            bar.advance(task)
    others.sort(key=lambda row: row["batch"])
    entry = {"name": config["name"], "data": config["data"]["name"], "peaks": peaks}
    entry |= {"settings": rows, "batches": others, "workers": loading}
    path = tuning.keep(config["output_root"], machine, tuning.key_of(base), entry)
    title = f"{config['name']}, {base['batch']} images of {'×'.join(map(str, base['image']))}, {machine['device_name']}"
    console.print(_table(title, rows, exact, "setting", label))
    console.print(_table(f"other batches, {label(exact)}", others, {}, "batch", lambda row: str(row["batch"])))
    if loading:
        console.print(_loading_table(loading))
    for line in left_out:
        console.print(f"left out   {line}", markup=False, style="yellow")
    rates = ", ".join(f"{name} {quantity(rate, 'FLOPs/s')}" for name, rate in peaks.items())
    console.print(f"100 %      the best of a few products of matrices here: {rates}", markup=False, style="dim")
    console.print(f"best       {label(exact)}", markup=False, style="bold")
    if reduced != exact:
        console.print(f"           {label(reduced)}, with trainer.allow_reduced_precision=true", markup=False)
    console.print(
        f"workers    {tuning.choose_workers(loading)}; evaluation batch {tuning.choose_evaluation_batch(others)}"
    )
    console.print(f"kept       {path}; trainer=auto uses it", markup=False)


def _workers(config: Mapping[str, Any]) -> list[int]:
    """0, 1, 2, 4, … as far as a process's cores go."""
    share = cores() // config["trainer"]["devices"]
    return [0, *itertools.takewhile(lambda n: n <= min(share, MOST_WORKERS), (2**power for power in range(16)))]


def _measure(
    base: Mapping[str, Any],
    row: Mapping[str, Any],
    peaks: Mapping[str, float],
    cost: Mapping[str, int],
    advance: Callable[[], None],
) -> dict[str, Any]:
    """What a setting makes of both passes: seconds, images per second, share of the peak, memory; or the problem."""
    switches = base["switches"] | {name: row[name] for name in ("tf32", "channels_last", "compile")}
    specification = {**base, "switches": switches, "precision": row["precision"], "batch": row["batch"]}
    peak = peaks["tf32" if row["tf32"] else row["precision"]]
    found: dict[str, Any] = {"problem": None}
    for name, flops in (("forward", cost["flops"]), ("train", cost["train_flops_per_sample"])):
        its: dict[str, Any] = dict.fromkeys(("s", "images_per_s", "of_peak", "memory_bytes"))
        try:
            one = measuring.ask("step_time", specification | {"forward": name == "forward"}, base["threads"])
            rate = row["batch"] / one["step_s"]
            its = {"s": one["step_s"], "images_per_s": rate, "of_peak": rate * flops / peak}
            its["memory_bytes"] = one["memory_bytes"]
        except ValueError as error:
            found["problem"] = str(error)
        found |= {f"{name}_{key}": value for key, value in its.items()}
        advance()
    return found


def _measure_loading(
    config: Mapping[str, Any], base: Mapping[str, Any], setting: Mapping[str, Any], workers: int
) -> dict[str, Any]:
    """Training steps on the data set's own batches."""
    loader = config["datamodule"] | {"batch_size": base["batch"], "loader_workers": workers}
    switches = base["switches"] | {name: setting[name] for name in ("tf32", "channels_last", "compile")}
    specification = {**base, "switches": switches, "precision": setting["precision"], "datamodule": loader}
    try:
        one = measuring.ask("step_time", specification, base["threads"])
    except ValueError as error:
        return {"train_images_per_s": None, "problem": str(error)}
    return {"train_images_per_s": base["batch"] / one["step_s"], "problem": None}


def _table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    best: Mapping[str, Any],
    first: str,
    name: Callable[[Mapping[str, Any]], str],
) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, no_wrap=True)
    for of in ("forward", "training"):
        for header in (f"{of}\nimages/s", "\nms", "\nof peak", "\nmemory"):
            table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        values = [text for of in ("forward", "train") for text in _values(row, of)]
        is_best = bool(best) and all(row[key] == value for key, value in best.items())
        said = f"{name(row)}  ({row['problem']})" if row["problem"] else name(row)
        table.add_row(said, *values, style="bold" if is_best else None)
    return table


def _values(row: Mapping[str, Any], of: str) -> list[str]:
    if row[f"{of}_s"] is None:
        return [MISSING] * 4
    return [
        f"{row[f'{of}_images_per_s']:,.0f}",
        f"{1e3 * row[f'{of}_s']:.4g}",
        f"{100 * row[f'{of}_of_peak']:.0f} %",
        quantity(row[f"{of}_memory_bytes"], "B"),
    ]


def _loading_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("loader workers", justify="right")
    table.add_column("training images/s", justify="right")
    table.add_column("")
    for row in rows:
        rate = row["train_images_per_s"]
        table.add_row(str(row["workers"]), MISSING if rate is None else f"{rate:,.0f}", row["problem"] or "")
    return table
