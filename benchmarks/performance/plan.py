"""What a sweep will cost, before it runs: ``python -m benchmarks plan model=resnet,densenet seed=range(5)``."""

import argparse
import math
from collections.abc import Sequence

from rich.console import Console

from benchmarks import terminal
from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Impossible, Trial
from benchmarks.performance.cost_table import print_forecasts
from benchmarks.performance.forecasting import Method, forecast

LIMITS = ("train_flops", "device_hours", "money")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``plan``."""
    parser.description = (
        "What a sweep will cost before it runs: training FLOPs (exact), device-hours, memory and money, of each trial and in "
        "all. Nothing is launched. Exit code 1 if some trial cannot run."
    )
    parser.epilog = (
        "Device time and memory come from a few training steps on this machine, once for each network, image size, batch and "
        "number of devices; they are kept in OUTPUT_ROOT/cache. The making of batches is not measured. "
        "launch.price_per_device_hour=… adds money. The forecast is kept in OUTPUT_ROOT/forecasts.json, and the table of runs "
        "compares it with what was spent."
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py -m; several values make a sweep"
    )
    parser.add_argument("-m", "--multirun", action="store_true", help=argparse.SUPPRESS)  # of a pasted run.py command
    parser.add_argument(
        "--flops-per-s", type=_positive, metavar="RATE", help="throughput of one device, as 4e13: nothing is measured"
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
        ConfigurationError: the overrides do not compose, or the output root cannot be written to.
    """
    trials = expand(arguments.overrides, multirun=True)
    method = Method(arguments.flops_per_s, measure=arguments.measure)
    console = terminal.console()
    forecasts = forecast(trials, method, console)
    print_forecasts(console, forecasts, method)
    return 1 if any(one.problem for one in forecasts) else 0


def check_budget(trials: Sequence[Trial | Impossible]) -> None:
    """Let a sweep pass whose remaining forecast is within ``launch.budget``; at once where no limit is set.

    Raises:
        ConfigurationError: it is above a limit, or a limit that is no positive number, or of money without a price.
    """
    launch = next(trial.config["launch"] for trial in trials if isinstance(trial, Trial))
    limits = {name: launch["budget"][name] for name in LIMITS if launch["budget"][name] is not None}
    price = launch["price_per_device_hour"]
    if not limits:
        return
    for name, limit in limits.items():
        if not isinstance(limit, int | float) or isinstance(limit, bool) or limit <= 0:
            raise ConfigurationError(f"launch.budget.{name} is a positive number or null, got {limit!r}")
    if "money" in limits and price is None:
        raise ConfigurationError("launch.budget.money needs launch.price_per_device_hour")
    method = Method(measure=limits.keys() != {"train_flops"})
    left = [one for one in forecast(trials, method, Console(stderr=True)) if one.remains]
    spent = {"train_flops": float(sum(one.train_flops or 0 for one in left))}
    spent["device_hours"] = sum(one.device_s or 0 for one in left) / 3600
    spent["money"] = spent["device_hours"] * (price or 0)
    for name, limit in limits.items():
        unknown = [one for one in left if name != "train_flops" and one.device_s is None]
        if unknown:
            raise ConfigurationError(
                f"launch.budget.{name} cannot be checked: {unknown[0].trial.label}: {unknown[0].unmeasured}"
            )
        if spent[name] > limit:
            raise ConfigurationError(
                f"nothing was started: {name} of what remains ({len(left)} of {len(trials)} runs) is forecast as "
                f"{spent[name]:.4g}, above launch.budget.{name}={limit:g}"
            )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a positive number, as 4e13, got {text}")
    return value
