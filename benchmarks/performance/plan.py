"""What a sweep will cost, before it runs: ``python -m benchmarks plan model=resnet,densenet seed=range(5)``."""

import argparse
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from rich.console import Console

from benchmarks import terminal
from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Impossible, Trial
from benchmarks.launch.checks import check_distinct
from benchmarks.performance.document import HOURS, MIB, SI, Columns, named, table
from benchmarks.performance.forecasting import FORKED_S, FRESH_S, Forecast, forecast
from benchmarks.units import MISSING, device_hours, grouped, plural, quantity

LIMITS = ("train_flops", "device_hours", "money")
FOLD_ABOVE = 30  # rows
NAMED = 10  # trials that cannot run
COLUMNS: Columns = {
    **named(network="s", data="s", recipe="s", seed="s", params=SI),
    "train_flops": ("train\nFLOPs", SI),
    "device_s": ("device-\nhours", HOURS),
    "memory_bytes": ("memory,\nMiB", MIB),
    "money": ("money", ",.2f"),
    "status": ("status", "s"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``plan``."""
    parser.description = (
        "What a sweep will cost before it runs: training FLOPs (exact), device-hours, memory and money, of each trial and in "
        "all. Nothing is launched. Exit code 1 if some trial cannot run; a row of a paper's table whose data is not here is "
        "forecast all the same, for the paper's number of training images."
    )
    parser.epilog = (
        "Device time and memory come from a few training steps on this machine, once for each network, image size, batch and "
        "number of devices; they are kept in OUTPUT_ROOT/cache. The making of batches is not measured. "
        "launch.price_per_device_hour=… adds money. The forecast is kept in OUTPUT_ROOT/forecasts.json, and the table of runs "
        "compares it with what was spent."
    )
    terminal.add_overrides(parser, " -m; several values make a sweep")
    parser.add_argument("-m", "--multirun", action="store_true", help=argparse.SUPPRESS)  # of a pasted run.py command
    parser.add_argument(
        "--flops-per-s",
        type=terminal.number(1, "a positive number, as 4e13"),
        metavar="RATE",
        help="throughput of one device, as 4e13: nothing is measured",
    )
    parser.add_argument(
        "--measure",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure steps that have not been measured here before (default); --no-measure leaves their time out",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the forecast and keep it; return 0, or 1 if some trial cannot run.

    Raises:
        ConfigurationError: the overrides do not compose or cannot be run together, or the output root cannot be written to.
    """
    trials = expand(arguments.overrides, multirun=True)
    check_distinct(trials)
    forecasts = forecast(trials, arguments.flops_per_s, arguments.measure)
    _print(terminal.console(), forecasts, arguments.flops_per_s is not None)
    return 1 if any(one.problem for one in forecasts) else 0


def check_budget(trials: Sequence[Trial | Impossible], ran: Sequence[Trial] = ()) -> None:
    """Let a sweep pass whose remaining forecast is within ``launch.budget``; at once where no limit is set.

    Args:
        ran: finished runs that the same call has started before, whose cost counts too.

    Raises:
        ConfigurationError: it is above a limit, or a limit of money has no price.
    """
    launch = next(trial.config["launch"] for trial in trials if isinstance(trial, Trial))
    limits = {name: launch["budget"][name] for name in LIMITS if launch["budget"][name] is not None}
    price = launch["price_per_device_hour"]
    if not limits:
        return
    if "money" in limits and price is None:
        raise ConfigurationError("launch.budget.money needs launch.price_per_device_hour")
    by_time = any(isinstance(one, Trial) and one.config["trainer"].get("max_train_seconds") for one in trials)
    forecasts = forecast(trials, measure=by_time or limits.keys() != {"train_flops"})
    left = [one for one in forecasts if one.remains]
    counted = [*left, *forecast(ran)]
    sums = _sums(counted, price)
    sums["device_hours"] = sums["device_s"] and sums["device_s"] / 3600
    for name, limit in limits.items():
        if left and sums[name] is None:
            needed = "train_flops" if name == "train_flops" else "device_s"
            unknown = next(one for one in counted if getattr(one, needed) is None)
            raise ConfigurationError(
                f"launch.budget.{name} cannot be checked: {unknown.trial.label}: {unknown.unmeasured}"
            )
        if left and sums[name] > limit:
            started, before = "nothing", ""
            if ran:
                started, before = "no further run", f", with the {plural(len(ran), 'run')} of before,"
            raise ConfigurationError(
                f"{started} was started: {name} of what remains ({len(left)} of {len(trials)} runs){before} is forecast as "
                f"{sums[name]:.4g}, above launch.budget.{name}={limit:g}"
            )


def _print(console: Console, forecasts: Sequence[Forecast], stated: bool) -> None:
    """Print the table, many trials folded over their seeds, what remains, where figures come from, and what cannot run."""
    possible = [one for one in forecasts if one.problem is None or one.train_flops is not None]
    left = [one for one in possible if not one.finished]
    price = None
    folded: dict[Any, list[Forecast]] = {}
    counted = len(possible) > FOLD_ABOVE
    for index, one in enumerate(possible):
        trial: Any = one.trial
        price = trial.config["launch"]["price_per_device_hour"]
        place = trial.config["name"], trial.config["data"]["name"], trial.directory.parent
        folded.setdefault(place if counted else index, []).append(one)
    rows = [_row(group, price, counted) for group in folded.values()]
    total = _sums(left, price)
    if left:
        rows.append({"network": "remains", "seed": plural(len(left), "run"), **total})
    columns = {key: column for key, column in COLUMNS.items() if key != "money" or price is not None}
    if counted:
        columns["seed"] = ("seeds", "s")
    if rows:
        console.print(table(columns, rows, best={"network": "remains"}))

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    finished = sum(one.finished for one in forecasts)
    hours = "" if total["device_s"] is None else f", {device_hours(total['device_s'])}"
    done = f"; {finished} done" if finished else ""
    flops = f"{MISSING} FLOPs" if total["train_flops"] is None else quantity(total["train_flops"], "FLOPs")
    if possible:
        remain = f"{len(left)} of {plural(len(forecasts), 'run')} {'remains' if len(left) == 1 else 'remain'}"
        say(f"{remain}: {flops} of training{hours}{done}.", "bold")
    else:
        say(f"none of {plural(len(forecasts), 'run')} can run.", "bold red")
    say(
        "train FLOPs: exact; of a detector at most. device-hours: wall time x devices x machines. What is done shows its own.",
        "dim",
    )
    if stated:
        say("Device time: training and evaluation at the stated throughput of one device; no start-up.", "dim")
    elif any(one.device_s is not None for one in left):
        hardware = ", ".join(dict.fromkeys(one.hardware for one in left if one.hardware))
        say(
            f"Device time and memory: training steps measured on {hardware}; evaluation by its FLOPs at that rate; "
            f"{FORKED_S:g} s of start-up a run, {FRESH_S:g} s on a GPU, and what the first step takes more, as it compiles. "
            "Memory: of one process, beside what the libraries take.",
            "dim",
        )
    if any(one.problem for one in left):
        say("What lacks its data: for the paper's number of training images, without evaluation.", "dim")
    for reason, labels in _by_reason(left, "unmeasured").items():
        say(f"No device time for {labels}: {reason}", "yellow")
    impossible = list(_by_reason(forecasts, "problem").items())
    for problem, labels in impossible[:NAMED]:
        say(f"Cannot run: {labels}: {problem}", "bold red")
    if len(impossible) > NAMED:
        say(f"… and {len(impossible) - NAMED} more reasons.", "bold red")


def _row(group: Sequence[Forecast], price: float | None, counted: bool) -> dict[str, Any]:
    """Return a line of the table: one trial, or those that differ in the seed alone, whose number it has if `counted`."""
    trial: Any = group[0].trial
    done = sum(one.finished for one in group)
    status = "done" if done == len(group) else f"{done} done" if done else ""
    return {
        "network": trial.config["name"],
        "data": trial.config["data"]["name"],
        "recipe": trial.directory.parent.name,
        "seed": str(len(group) if counted else trial.config["seed"]),
        "params": group[0].params,
        "status": "no data" if group[0].problem else status,
        **_sums(group, price),
    }


def _sums(group: Sequence[Forecast], price: float | None) -> dict[str, Any]:
    """Return FLOPs, seconds of devices and money in all, None unless all have them; and bytes, the most of any."""
    flops = [one.train_flops for one in group if one.train_flops is not None]
    times = [one.device_s for one in group if one.device_s is not None]
    device_s = sum(times) if times and len(times) == len(group) else None
    return {
        "train_flops": sum(flops) if len(flops) == len(group) else None,
        "device_s": device_s,
        "memory_bytes": max((one.memory_bytes or 0 for one in group), default=0) or None,
        "money": None if device_s is None else device_s / 3600 * (price or 0),
    }


def _by_reason(forecasts: Sequence[Forecast], attribute: str) -> dict[str, str]:
    """Return the trials that have a reason there, as ``label and 3 more``, by the reason."""
    return {
        reason: first.trial.label + (f" and {len(others)} more" if others else "")
        for reason, (first, *others) in grouped(forecasts, attrgetter(attribute)).items()
        if reason
    }
