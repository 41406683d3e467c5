"""The table of a forecast, and the lines below it."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.config.trial import Trial
from benchmarks.performance.forecasting import FORKED_S, FRESH_S, Forecast, Method
from benchmarks.units import MISSING, device_hours, hours, quantity, si

FOLD_ABOVE = 30  # rows
NAMED = 10  # trials that cannot run


def print_forecasts(console: Console, forecasts: Sequence[Forecast], method: Method) -> None:
    rows = [one for one in forecasts if isinstance(one.trial, Trial) and one.problem is None]
    price = next(
        (one.trial.config["launch"]["price_per_device_hour"] for one in rows if isinstance(one.trial, Trial)), None
    )
    groups: dict[Any, list[Forecast]] = {}
    for index, one in enumerate(rows):
        groups.setdefault(_group(one) if len(rows) > FOLD_ABOVE else index, []).append(one)
    left = [one for one in rows if one.remains]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_footer=bool(left))
    totals = _sums(left, price)
    table.add_column("network", "remains", overflow="fold")
    table.add_column("data", overflow="fold")
    table.add_column("recipe", overflow="fold")
    table.add_column("seeds" if len(rows) > FOLD_ABOVE else "seed", f"{len(left)} runs", justify="right")
    table.add_column("params", justify="right")
    for header, total in zip(("train\nFLOPs", "device-\nhours", "memory", "money"), totals, strict=True):
        if header != "money" or price is not None:
            table.add_column(header, "" if header == "memory" else total, justify="right", no_wrap=True)
    table.add_column("status")
    for its in groups.values():
        table.add_row(*_row(its, price))
    if rows:
        console.print(table)
    _notes(console, forecasts, left, method)


def _group(one: Forecast) -> tuple[Any, ...]:
    trial: Any = one.trial
    return trial.config["name"], trial.config["data"]["name"], trial.directory.parent


def _row(its: Sequence[Forecast], price: float | None) -> list[str]:
    """Return a line of the table: one trial, or those that differ in the seed alone."""
    trial: Any = its[0].trial
    recipe = trial.directory.parent.name
    done = sum(one.finished for one in its)
    seed = str(len(its)) if len(its) > 1 else str(trial.config["seed"])
    flops, time, memory, money = _sums(its, price)
    status = "" if not done else "[green]done[/]" if done == len(its) else f"[green]{done} done[/]"
    sums = [flops, time, memory, *([] if price is None else [money])]
    return [trial.config["name"], trial.config["data"]["name"], recipe, seed, si(its[0].params), *sums, status]


def _sums(its: Sequence[Forecast], price: float | None) -> tuple[str, str, str, str]:
    """Return FLOPs, device-hours, memory (the most of any) and money, as text; time is left out unless all have it."""
    flops = si(sum(one.train_flops or 0 for one in its))
    memory = max((one.memory_bytes or 0 for one in its), default=0)
    times = [one.device_s for one in its if one.device_s is not None]
    most = quantity(memory, "B") if memory else MISSING
    if len(times) < len(its) or not its:
        return flops, MISSING, most, MISSING
    return flops, hours(sum(times)), most, f"{sum(times) / 3600 * (price or 0):,.2f}"


def _notes(console: Console, forecasts: Sequence[Forecast], left: Sequence[Forecast], method: Method) -> None:
    """Print below the table what remains, where figures come from, and what cannot run."""

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    finished = sum(one.finished for one in forecasts)
    flops = quantity(sum(one.train_flops or 0 for one in left), "FLOPs")
    times = [one.device_s for one in left if one.device_s is not None]
    time = f", {device_hours(sum(times))}" if times and len(times) == len(left) else ""
    done = f"; {finished} done" if finished else ""
    say(f"{len(left)} of {len(forecasts)} runs remain: {flops} of training{time}{done}.", "bold")
    say("train FLOPs: exact. device-hours: wall time x devices x machines. What is done shows what it took.", "dim")
    hardware = dict.fromkeys(one.hardware for one in left if one.hardware)
    if method.flops_per_s is not None:
        say("Device time: training and evaluation at the stated throughput of one device; no start-up.", "dim")
    elif times:
        say(
            f"Device time and memory: training steps measured on {', '.join(map(str, hardware))}; evaluation by its FLOPs at "
            f"that rate; {FORKED_S:g} s of start-up a run, {FRESH_S:g} s on a GPU. Memory: of one process, beside what the "
            "libraries take.",
            "dim",
        )
    reasons: dict[str, list[str]] = {}
    for one in left:
        if one.unmeasured:
            reasons.setdefault(one.unmeasured, []).append(one.trial.label)
    for reason, labels in reasons.items():
        say(f"No device time for {labels[0]}{_others(labels)}: {reason}", "yellow")
    impossible: dict[str, list[str]] = {}
    for one in forecasts:
        if one.problem:
            impossible.setdefault(one.problem, []).append(one.trial.label)
    for problem, labels in list(impossible.items())[:NAMED]:
        say(f"Cannot run: {labels[0]}{_others(labels)}: {problem}", "bold red")
    if len(impossible) > NAMED:
        say(f"… and {len(impossible) - NAMED} more reasons.", "bold red")


def _others(labels: Sequence[str]) -> str:
    return f" and {len(labels) - 1} more" if len(labels) > 1 else ""
