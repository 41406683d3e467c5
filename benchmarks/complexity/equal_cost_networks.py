"""Networks of a given cost and the commands that run them: ``python -m benchmarks complexity match``."""

import argparse
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from benchmarks import terminal
from benchmarks.complexity.profile import network_and_cost
from benchmarks.complexity.reference_counts import check
from benchmarks.config.compose import expand, jobs
from benchmarks.config.trial import ConfigurationError, Trial

if TYPE_CHECKING:
    from benchmarks.complexity.match import Match

MOST = 10**15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``complexity match``."""
    parser.description = (
        "The width with which a network has a given cost, within 0.5 % and exactly counted: base_channels of a ResNet or "
        "U-Net, base_width of a ResNeXt, growth_rate of a DenseNet."
    )
    parser.epilog = (
        "Where the width alone does not come so near, a second number moves as little as it must, by 64 steps at most and up "
        "to three times its default: base_channels of a ResNeXt, initial_channels of a DenseNet, base_width of a bottleneck "
        "ResNet, depth of one of basic blocks, in steps of 6. For a cost out of reach the nearest ones in reach are printed, "
        "and the exit code is 2."
    )
    terminal.add_overrides(parser, "; several values make several networks", nargs="+")
    targets = parser.add_mutually_exclusive_group(required=True)
    targets.add_argument("--macs", type=_targets, metavar="N[,N…]", help="multiply-adds of one image, as 0.3e9")
    targets.add_argument("--params", type=_targets, metavar="N[,N…]", help="parameters, as 1.7e6")


def run(arguments: argparse.Namespace) -> None:
    """Print the networks that match, and the commands that run them.

    Raises:
        ValueError: there is no such network, or a target is out of reach; the others are printed.
    """
    from benchmarks.complexity.match import QUANTITIES, Network, Unreachable

    quantity = "macs" if arguments.macs else "params"
    found, problems = [], []
    try:
        for trial, job in _trials(arguments.overrides):
            network = Network(trial.config)
            for target in getattr(arguments, quantity):
                try:
                    match = network.solve(quantity, target)
                except Unreachable as error:
                    problems.append(f"{trial.config['name']} on {trial.config['data']['name']}: {error}")
                else:
                    found.append(_row(_overrides(job, trial.config["model"], match), quantity, target, match))
    except ValueError as error:
        problems.append(str(error))
    if found:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("network", f"{QUANTITIES[quantity]} wanted", "MACs", "parameters", "miss", "changed"):
            table.add_column(name, justify="left" if name in {"network", "changed"} else "right", overflow="fold")
        for _, row in found:
            table.add_row(*row)
        terminal.console(markup=False).print(table)
        given = ["--config-dir", arguments.config_dir] * (arguments.config_dir is not None)
        print("\n".join(shlex.join(["python", "run.py", *given, *overrides]) for overrides, _ in found))
    if problems:
        raise ValueError("; ".join(problems))


def _trials(overrides: Sequence[str]) -> Iterator[tuple[Trial, list[str]]]:
    """Yield the trials of these overrides, each with its own overrides."""
    trials = expand(overrides, multirun=True)
    if any(isinstance(trial, Trial) and trial.config["experiment"] for trial in trials):
        raise ConfigurationError("experiment=… has its networks: name one by model=… data=…")
    for trial, job in zip(trials, jobs(overrides), strict=True):
        if not isinstance(trial, Trial):
            raise ConfigurationError(f"{trial.label}: {trial.error}")
        yield trial, job


def _overrides(job: Sequence[str], model: Mapping[str, Any], match: "Match") -> list[str]:
    """Return the overrides of the trial with the arguments of the match in the place of its own."""
    keys = {f"model.{name}" for name in match.arguments}
    others = [override for override in job if override.split("=")[0].lstrip("+") not in keys]
    return others + [f"{'' if key in model else '+'}model.{key}={value}" for key, value in match.arguments.items()]


def _row(overrides: Sequence[str], quantity: str, target: int, match: "Match") -> tuple[list[str], list[str]]:
    """Return the overrides of the run and a row of the table, from the network as it is built for training and measured.

    A network whose name would be that of a published one, since the name does not show the changed argument, gets another.

    Raises:
        RuntimeError: the network does not measure as the match says.
    """
    [(trial, _)] = _trials(overrides)
    _, cost = network_and_cost(trial.config)
    if (cost.macs, cost.params) != (match.macs, match.params):
        raise RuntimeError(f"{' '.join(overrides)} measures {cost.macs} MACs and {cost.params} parameters, not {match}")
    name = trial.config["name"]
    changed = {key: value for key, value in match.arguments.items() if value != match.were[key]}
    try:
        check(name, trial.config["data"]["num_classes"], cost)
    except ValueError:
        name += "".join(f"_{key}{value}" for key, value in changed.items())
        overrides = [*overrides, f"name={name}"]
    miss = getattr(cost, quantity) / target - 1
    changes = ", ".join(f"{key} {match.were[key]} → {value}" for key, value in changed.items())
    counts = [f"{number:,}" for number in (target, cost.macs, cost.params)]
    return [*overrides], [name, *counts, f"{miss:+.2%}", changes or "nothing"]


def _targets(text: str) -> list[int]:
    """Return the whole numbers of a text, separated by commas, each as 300000000 or 0.3e9."""
    targets = []
    for part in text.split(","):
        try:
            number = float(part)
        except ValueError:
            number = math.nan
        if not 1 <= number <= MOST:
            raise argparse.ArgumentTypeError(f"{part!r} is no number from 1 to {MOST:g}, as 0.3e9")
        targets.append(round(number))
    return targets
