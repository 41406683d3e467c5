"""The width with which a network has a given cost: ``python -m benchmarks match model=resnext data=cifar10 --macs 0.3e9``."""

import argparse
import inspect
import math
import operator
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class
from rich import box
from rich.table import Table
from torch import nn
from torch.overrides import TorchFunctionMode

from benchmarks import terminal
from benchmarks.complexity.certificates import check
from benchmarks.complexity.counting import LAYERS, build
from benchmarks.config.compose import expand
from benchmarks.config.trial import ConfigurationError, Trial

TOLERANCE = 0.005
LARGEST = 10**9  # parameters: what is found is built and measured
MOST = 10**15
ROUNDING = 0.02  # of a narrow DenseNet's cost: transitions round down what the blocks behind them take
MOST_COUNTED = 5  # on either side of a target that is not met
NEAR, MOST_STEPS = (
    3,
    64,
)  # the second number stays within a third and three times its default, and so many steps from it
WIDTHS = {"resnet": "base_channels", "resnext": "base_width", "densenet": "growth_rate", "unet": "base_channels"}
SHAPE_KEEPING = (nn.BatchNorm2d, nn.ReLU, nn.Dropout)
QUANTITIES = {"macs": "MACs", "params": "parameters"}


@dataclass(frozen=True)
class Match:
    """A network of a given cost.

    Attributes:
        arguments: what makes it: its width, and the second number if that had to move.
        were: what they were before.
        macs: multiply-adds of one image.
    """

    arguments: dict[str, int]
    were: dict[str, int]
    macs: int
    params: int


class Unreachable(ValueError):
    """A cost that no width reaches; the message is one line with the nearest that are reached."""


def main(argv: Sequence[str]) -> int:
    """Prints what matches, and the commands that run it. Returns the exit code: 2 if a target is out of reach."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks match",
        description="The width with which a network has a given cost, within 0.5 % and exactly counted: base_channels of a "
        "ResNet or U-Net, base_width of a ResNeXt, growth_rate of a DenseNet.",
        epilog="Where the width alone does not come so near, a second number moves as little as it must: base_channels of a "
        "ResNeXt, initial_channels of a DenseNet, base_width of a bottleneck ResNet, depth of one of basic blocks. Of a cost "
        "out of reach the nearest ones in reach are told.",
    )
    parser.add_argument(
        "overrides", nargs="+", metavar="KEY=VALUE", help="as for run.py; several values make several networks"
    )
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--macs", type=_targets, metavar="N[,N…]", help="multiply-adds of one image, as 0.3e9")
    wanted.add_argument("--params", type=_targets, metavar="N[,N…]", help="parameters, as 1.7e6")
    arguments = parser.parse_intermixed_args(argv)
    quantity = "macs" if arguments.macs else "params"
    rows, lines, problems = [], [], []
    try:
        for trial, job in _trials(arguments.overrides):
            network = Network(trial.config)
            for target in getattr(arguments, quantity):
                try:
                    found = network.solve(quantity, target)
                except Unreachable as error:
                    problems.append(f"{trial.config['name']} on {trial.config['data']['name']}: {error}")
                else:
                    line, row = _row(_overrides(job, trial.config["model"], found), quantity, target, found)
                    lines.append(line)
                    rows.append(row)
    except ValueError as error:
        problems.append(str(error))
    if rows:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("network", f"{QUANTITIES[quantity]} wanted", "MACs", "parameters", "miss", "changed"):
            table.add_column(name, justify="left" if name in {"network", "changed"} else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        terminal.console(markup=False).print(table)
        print("\n".join(f"python run.py {' '.join(line)}" for line in lines))
    for problem in problems:
        print(f"python -m benchmarks match: {problem}", file=sys.stderr)
    return 2 if problems else 0


def count(net: nn.Module, input_size: tuple[int, int, int]) -> dict[str, int]:
    """``macs`` and ``params`` of a network on the meta device, as ``complexity.measure`` has them, for an image (C, H, W).

    From shapes alone, for networks that are not worth building; this one is of no use afterwards.
    """
    macs = 0

    def add(layer: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal macs
        # Every weight is used once at every position: of the input, where the convolution is transposed.
        maps = inputs[0] if LAYERS[type(layer)] == "conv_transpose" else output
        macs += layer.weight.numel() * maps[0, 0].numel()

    for layer in net.modules():
        if type(layer) in LAYERS:
            layer.register_forward_hook(add)
        elif isinstance(layer, SHAPE_KEEPING):
            layer.forward = _same  # type: ignore[assignment]  # these take most of the time on the meta device
    with torch.no_grad():
        net.eval()(torch.empty(1, *input_size, device="meta"))
    return {"macs": macs, "params": sum(parameter.numel() for parameter in net.parameters())}


def _same(maps: torch.Tensor) -> torch.Tensor:
    return maps


class _Uninitialised(TorchFunctionMode):
    """Leaves weights as they are, which have no values on the meta device: drawing none takes long there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (torch.Tensor.normal_, torch.Tensor.uniform_) else func(*args, **(kwargs or {}))


class Network:
    """The network of a trial's configuration, by its width and by the steps that a second number is away from its default.

    Raises:
        ValueError: a family whose width is not known here, or an image that the network does not take.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        family, data = config["family"], config["data"]
        if family not in WIDTHS:
            raise ConfigurationError(f"the width of {family} is not known here, that of {', '.join(WIDTHS)} is")
        self.model = dict(config["model"])
        self.size = (data["in_channels"], *data["image_size"])
        self.first = WIDTHS[family]
        self.second, self.stride, self.least = _second(family, self.model)
        self._build({}).check_image_size(*data["image_size"])
        self.default = self._default(self.second) if self.second else lambda width: 0
        self.counts: dict[tuple[int, int], dict[str, int]] = {}
        # A DenseNet's transitions halve multiples of eight without a rest.
        unit = 8 if family == "densenet" else 2
        widths, step = (unit, 2 * unit, 3 * unit), 1 if self.second == "depth" else unit
        sample = [(width, 0) for width in widths]
        if self.second:
            sample += [*((width, step) for width in widths), (unit, 2 * step)]
        terms = [_terms(*place)[: len(sample)] for place in sample]
        self.polynomials = {
            quantity: np.linalg.solve(terms, [self.count(*place)[quantity] for place in sample])
            for quantity in QUANTITIES
        }

    def solve(self, quantity: str, target: int) -> Match:
        """The width that makes ``target`` of ``quantity`` (``macs``, ``params``); the second number moves as little as can be.

        Raises:
            Unreachable: no width comes within 0.5 %.
        """
        near: list[tuple[int, int]] = []
        for step in sorted(range(-MOST_STEPS, MOST_STEPS + 1), key=abs) if self.second else [0]:
            for place in self.around(quantity, target, step):
                near.append(place)
                if abs(self.estimate(quantity, *place) - target) <= (TOLERANCE + ROUNDING) * target:
                    found = self.count(*place)
                    if abs(found[quantity] - target) <= TOLERANCE * target:
                        return self._match(place, found)
        raise Unreachable(self._nearest(quantity, target, near))

    def around(self, quantity: str, target: int, step: int) -> list[tuple[int, int]]:
        """Of the networks with this step the widest below the target and the narrowest from it on, the nearer one first."""
        narrowest = bisect_left(range(LARGEST), self.least, key=lambda width: self.value(width, step)) if step else 1
        widths = range(max(narrowest, 1), LARGEST)
        widths = widths[: bisect_right(widths, LARGEST, key=lambda width: self.estimate("params", width, step))]
        index = bisect_left(widths, target, key=lambda width: self.estimate(quantity, width, step))
        places = [(width, step) for width in widths[max(index - 1, 0) : index + 1] if self.is_near(width, step)]
        return sorted(places, key=lambda place: abs(self.estimate(quantity, *place) - target))

    def estimate(self, quantity: str, width: int, step: int) -> int:
        """The cost, exact but for what a DenseNet's transitions round down.

        A layer's is the product of two numbers of channels, each linear in the width and in the second number; a depth repeats
        what is so in the width alone.
        """
        polynomial = self.polynomials[quantity]
        return round(float(polynomial @ _terms(width, step)[: len(polynomial)]))

    def count(self, width: int, step: int) -> dict[str, int]:
        """The exact cost: ``macs`` and ``params``."""
        place = width, step
        if place not in self.counts:
            self.counts[place] = count(self._build(self.arguments(*place)), self.size)
        return self.counts[place]

    def arguments(self, width: int, step: int) -> dict[str, int]:
        """What the network is built with."""
        moved = {self.second: self.value(width, step)} if self.second and step else {}
        return {self.first: width} | moved

    def value(self, width: int, step: int) -> int:
        """The second number."""
        return self.default(width) + step * self.stride

    def is_near(self, width: int, step: int) -> bool:
        """Whether the second number is not too far from its default."""
        return step == 0 or self.default(width) / NEAR <= self.value(width, step) <= NEAR * self.default(width)

    def _default(self, name: str) -> Callable[[int], int]:
        """The second number where nothing moves it, by width: as configured, or the channels of the stem, linear in it."""
        if (given := self._given(name)) is not None:
            return lambda width: given
        eight, sixteen = (self._build({self.first: width}).stem[0].out_channels for width in (8, 16))
        return lambda width: eight + (sixteen - eight) * (width - 8) // 8

    def _match(self, place: tuple[int, int], found: Mapping[str, int]) -> Match:
        arguments = self.arguments(*place)
        were = {self.first: self._given(self.first)}
        if self.second in arguments:
            were[self.second] = self.default(place[0])
        return Match(arguments, were, **found)

    def _nearest(self, quantity: str, target: int, places: Sequence[tuple[int, int]]) -> str:
        """The costs in reach on both sides of one that is not, in words."""
        costs: dict[int, tuple[int, int]] = {}
        for side in (operator.lt, operator.ge):
            there = [place for place in places if side(self.estimate(quantity, *place), target)]
            there.sort(key=lambda place: abs(self.estimate(quantity, *place) - target))
            costs |= {self.count(*place)[quantity]: place for place in there[:MOST_COUNTED]}
        told = []
        for word, cost in (
            ("below", max((cost for cost in costs if cost < target), default=None)),
            ("above", min((cost for cost in costs if cost > target), default=None)),
        ):
            if cost is not None:
                arguments = " ".join(f"{name}={value}" for name, value in self.arguments(*costs[cost]).items())
                told.append(f"{cost:,} {word} ({arguments})")
        return (
            f"no {self.first} makes {target:,} {QUANTITIES[quantity]} within {TOLERANCE:.1%}; "
            f"the nearest in reach: {', '.join(told)}"
        )

    def _build(self, arguments: Mapping[str, int]) -> Any:
        given = {key: value for key, value in self.model.items() if key != "_target_"}
        with torch.device("meta"), _Uninitialised():
            return get_class(self.model["_target_"])(**{**given, **arguments})

    def _given(self, name: str) -> Any:
        """An argument as configured, or its default."""
        return self.model.get(name, inspect.signature(get_class(self.model["_target_"])).parameters[name].default)


def _terms(width: int, step: int) -> tuple[int, ...]:
    return 1, width, width**2, step, step * width, step * width**2, step**2


def _second(family: str, model: Mapping[str, Any]) -> tuple[str, int, int]:
    """The second number of a family, its stride and its least value; no name where there is none."""
    if family == "resnext":
        return "base_channels", 1, 1
    if family == "densenet":
        return "initial_channels", 1, 1
    if family == "resnet" and model.get("block") != "basic":
        return "base_width", 1, 1
    if family == "resnet" and model["stem"] == "cifar":
        return "depth", 6, 8
    return "", 0, 0


def _trials(overrides: Sequence[str]) -> Iterator[tuple[Trial, list[str]]]:
    """The trials that these ask for, each with its own overrides."""
    trials = expand(overrides, multirun=True)
    if any(isinstance(trial, Trial) and trial.config["experiment"] for trial in trials):
        raise ConfigurationError("experiment=… has its networks: name one by model=… data=…")
    [jobs] = BasicSweeper.split_arguments(
        OverridesParser.create().parse_overrides(list(overrides)), max_batch_size=None
    )
    for trial, job in zip(trials, jobs, strict=True):
        if not isinstance(trial, Trial):
            raise ConfigurationError(f"{trial.label}: {trial.error}")
        yield trial, job


def _overrides(job: Sequence[str], model: Mapping[str, Any], found: Match) -> list[str]:
    """Those of the trial, with what was found."""
    keys = {f"model.{name}" for name in found.arguments}
    kept = [override for override in job if override.split("=")[0].lstrip("+") not in keys]
    return kept + [f"{'' if key in model else '+'}model.{key}={value}" for key, value in found.arguments.items()]


def _row(overrides: Sequence[str], quantity: str, target: int, found: Match) -> tuple[list[str], list[str]]:
    """The overrides that a run takes, and a line of the table, from the network as it is built for training and measured.

    A network that would bear a published one's name, as where the name does not show what has moved, gets another.

    Raises:
        RuntimeError: it does not measure what was found.
    """
    [(trial, _)] = _trials(overrides)
    data = trial.config["data"]
    _, cost = build(trial.config["model"], (data["in_channels"], *data["image_size"]))
    if (cost.macs, cost.params) != (found.macs, found.params):
        raise RuntimeError(f"{' '.join(overrides)} measures {cost.macs} MACs and {cost.params} parameters, not {found}")
    name = trial.config["name"]
    try:
        check(name, data["num_classes"], cost)
    except ValueError:
        name += "".join(f"_{key}{value}" for key, value in found.arguments.items())
        overrides = [*overrides, f"name={name}"]
    miss = getattr(cost, quantity) / target - 1
    changed = [
        f"{key} {found.were[key]} → {value}" for key, value in found.arguments.items() if value != found.were[key]
    ]
    return [*overrides], [
        name,
        f"{target:,}",
        f"{cost.macs:,}",
        f"{cost.params:,}",
        f"{miss:+.2%}",
        ", ".join(changed) or "nothing",
    ]


def _targets(text: str) -> list[int]:
    """Whole numbers, separated by commas, each as 300000000 or 0.3e9."""
    found = []
    for part in text.split(","):
        try:
            number = float(part)
        except ValueError:
            number = math.nan
        if not 1 <= number <= MOST:
            raise argparse.ArgumentTypeError(f"{part!r} is no number from 1 to {MOST:g}, as 0.3e9")
        found.append(round(number))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
