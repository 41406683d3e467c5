"""The width with which a network has a given cost."""

import inspect
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch import nn

from benchmarks.complexity.by_dispatch import count_by_dispatch
from benchmarks.complexity.counting import Uninitialised, check_image_size
from benchmarks.complexity.operator_cost import LAYERS
from benchmarks.config.about import Second, read_matching
from benchmarks.config.hydra_errors import unwrapped
from benchmarks.config.trial import ConfigurationError
from benchmarks.units import one_line

TOLERANCE = 0.005
LARGEST = 10**9  # parameters
NEAR = 3  # the second number is up to so many times its default
MOST_STEPS = 64  # and so many steps from it
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


def count(net: nn.Module, input_size: tuple[int, int, int]) -> dict[str, int]:
    """``macs`` and ``params`` of a network on the meta device, as ``complexity.measure`` has them, for an image (C, H, W)."""
    with torch.no_grad():
        cost = count_by_dispatch(net.eval(), torch.empty(1, *input_size, device="meta")).totals()
    return {"macs": cost.macs, "params": sum(parameter.numel() for parameter in net.parameters())}


def count_layers(net: nn.Module, input_size: tuple[int, int, int]) -> dict[str, int]:
    """Count as ``count`` does, several times faster, where layers alone multiply tensors.

    From shapes alone, for networks that are not worth building; this one is of no use afterwards.
    """
    macs = 0

    def add(layer: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal macs
        # Every weight is used once at every position: of the input, where the convolution is transposed.
        kind = LAYERS[type(layer)]
        maps = inputs[0] if kind == "conv_transpose" else output
        macs += layer.weight.numel() * (maps.numel() // maps.shape[-1 if kind == "linear" else 1])

    for layer in net.modules():
        if type(layer) in LAYERS:
            layer.register_forward_hook(add)
        elif isinstance(layer, SHAPE_KEEPING):
            layer.forward = lambda maps: maps  # type: ignore[assignment]  # these take most of the time on the meta device
    with torch.no_grad():
        net.eval()(torch.empty(1, *input_size, device="meta"))
    return {"macs": macs, "params": sum(parameter.numel() for parameter in net.parameters())}


def _built(model: Mapping[str, Any]) -> Any:
    """Return the network of a configuration node, as a run builds it; raise what its own code raises."""
    try:
        return instantiate(model)
    except InstantiationException as error:
        raise unwrapped(error) from None


class Network:
    """The network of a trial's configuration, by its width and by the steps that a second number is away from its default.

    Raises:
        ValueError: a family that does not say what its width is, or an image that the network does not take.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        family, data = config["family"], config["data"]
        matching = read_matching(config["about"])
        if matching is None:
            raise ConfigurationError(
                f"model={family} does not say which argument is its width: write about: {{match: {{width: …}}}} in its YAML"
            )
        self.model = config["model"]
        parameters = inspect.signature(get_object(self.model["_target_"])).parameters
        self.given = {name: parameter.default for name, parameter in parameters.items()} | self.model
        for name in (matching.width, *(second.argument for second in matching.second)):
            if name not in self.given:
                raise ConfigurationError(
                    f"about.match of model={family}: {name} is neither an argument of the network nor set in its YAML"
                )
        self.size = (data["in_channels"], *data["image_size"])
        self.first, width = matching.width, self.given[matching.width]
        if type(width) is not int:
            raise ConfigurationError(
                f"{self.first}={width!r} of model={family}: only whole numbers are tried as a width"
            )
        second = next((one for one in matching.second if one.where.items() <= self.given.items()), Second(""))
        self.second, self.stride, self.least = second.argument, second.step, second.least
        try:
            net = self._build({})
            check_image_size(net, *data["image_size"])
            exact = count(net, self.size)
        except ValueError:
            raise
        except Exception as error:
            with torch.no_grad():  # an error of the network's own comes again
                _built(self.model).eval()(torch.zeros(1, *self.size))
            raise ConfigurationError(
                f"the widths of {config['name']} cannot be tried without values, on PyTorch's meta device: make every tensor "
                f"on the image's device, and let nothing depend on a value ({one_line(str(error))})"
            ) from error
        self._count = count_layers if count_layers(net, self.size) == exact else count
        self.default = self._default(self.second) if self.second else lambda width: 0
        self.count = cache(self._cost)
        # Groups and heads divide a width: those between are no networks.
        self.unit = next((more for more in range(1, MOST_STEPS + 1) if self._exists(width + more, 0)), 1)

    def solve(self, quantity: str, target: int) -> Match:
        """The width that makes ``target`` of ``quantity`` (``macs``, ``params``); the second number moves as little as can be.

        Raises:
            Unreachable: no width comes within 0.5 %.
        """
        tried: dict[int, tuple[int, int]] = {}
        width = self.given[self.first]
        for step in sorted(range(-MOST_STEPS, MOST_STEPS + 1), key=abs) if self.second else [0]:
            places = self.around(quantity, target, step, width)
            for place in places:
                cost = self.count(*place)
                if abs(cost[quantity] - target) <= TOLERANCE * target:
                    return self._match(place, cost)
                tried[cost[quantity]] = place
            width = places[0][0] if places else width
        raise Unreachable(self._nearest(quantity, target, tried))

    def around(self, quantity: str, target: int, step: int, width: int) -> list[tuple[int, int]]:
        """Return the widest network below the target and the narrowest from it on, with this step; the nearer one first.

        A wider network costs more, so they are found by doubling steps from ``width`` on and by halving what lies between. A
        width that is no network stands for the next that is one.
        """
        widths = range(self.given[self.first] % self.unit or self.unit, 2 * MOST_STEPS, self.unit)
        narrowest = next((one for one in widths if self.is_near(one, step) and self._exists(one, step)), None)
        if narrowest is None:
            return []

        def legal(width: int) -> int | None:
            return next((one for one in range(width, 2 * width + 1, self.unit) if self._exists(one, step)), None)

        def reaches(width: int) -> bool:
            cost = None if (one := legal(width)) is None else self.count(one, step)
            return cost is None or cost[quantity] >= target or cost["params"] > LARGEST

        low = high = max(narrowest, width)
        stride = self.unit
        while low > narrowest and reaches(low):
            low, stride = max(narrowest, low - stride), 2 * stride
        while not reaches(high):
            high, stride = high + stride, 2 * stride
        first = low + self.unit * bisect_left(range(low, high, self.unit), True, key=reaches)
        places = [(width, step) for width in (first - self.unit, legal(first)) if width and width >= narrowest]
        places = [place for place in places if self.count(*place)["params"] <= LARGEST]
        return sorted(places, key=lambda place: abs(self.count(*place)[quantity] - target))

    def _cost(self, width: int, step: int) -> dict[str, int]:
        """The exact cost: ``macs`` and ``params``."""
        return self._count(self._build(self.arguments(width, step)), self.size)

    def _exists(self, width: int, step: int) -> bool:
        """Whether the network has such a width."""
        try:
            self.count(width, step)
        except Exception:  # of the network's own: it says no in any way
            return False
        return True

    def arguments(self, width: int, step: int) -> dict[str, int]:
        """What the network is built with."""
        moved = {self.second: self.value(width, step)} if self.second and step else {}
        return {self.first: width} | moved

    def value(self, width: int, step: int) -> int:
        """The second number."""
        return self.default(width) + step * self.stride

    def is_near(self, width: int, step: int) -> bool:
        """Whether the second number is not too far from its default."""
        return step == 0 or self.least <= self.value(width, step) <= NEAR * self.default(width)

    def _default(self, name: str) -> Callable[[int], int]:
        """The second number where nothing moves it, by width: as configured, or the channels of the stem, linear in it."""
        if (given := self.given[name]) is not None:
            return lambda width: given
        eight, sixteen = (self._build({self.first: width}).stem[0].out_channels for width in (8, 16))
        return lambda width: eight + (sixteen - eight) * (width - 8) // 8

    def _match(self, place: tuple[int, int], cost: Mapping[str, int]) -> Match:
        arguments = self.arguments(*place)
        were = {self.first: self.given[self.first]}
        if self.second in arguments:
            were[self.second] = self.default(place[0])
        return Match(arguments, were, **cost)

    def _nearest(self, quantity: str, target: int, tried: Mapping[int, tuple[int, int]]) -> str:
        """Return in words the costs next to one that cannot be reached, below and above it."""
        below, above = (cost for cost in tried if cost < target), (cost for cost in tried if cost > target)
        nearest = []
        for word, cost in (("below", max(below, default=None)), ("above", min(above, default=None))):
            if cost is not None:
                arguments = " ".join(f"{name}={value}" for name, value in self.arguments(*tried[cost]).items())
                nearest.append(f"{cost:,} {word} ({arguments})")
        return (
            f"no {self.first} makes {target:,} {QUANTITIES[quantity]} within {TOLERANCE:.1%}; "
            f"the nearest in reach: {', '.join(nearest)}"
        )

    def _build(self, arguments: Mapping[str, int]) -> Any:
        with torch.device("meta"), Uninitialised():
            return _built({**self.model, **arguments})
