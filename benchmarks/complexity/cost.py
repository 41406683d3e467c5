"""What counting a network gives: cost of each layer and totals, for one image. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.records.record import NetworkCost, PartCost, to_json
from benchmarks.units import csv_text


def uncounted_line(operators: Sequence[str]) -> str:
    """Return a line on operators that are in no count."""
    compute = "compute" if len(operators) > 1 else "computes"
    return f"MACs leave out what {', '.join(operators)} {compute}: neither counted nor known to be free"


@dataclass(frozen=True)
class Part:
    """A part of a network's work: all that is done once for an image, or what is done for each region of it.

    Attributes:
        name: empty for a network that is one part.
        test: how often it is done for one image in test, at most.
        train: in training, at most.
        counted_by: what a training step counts it by, as ``regions``; ``images`` for what is done once.
    """

    name: str = ""
    test: int = 1
    train: int = 1
    counted_by: str = "images"


@dataclass(frozen=True)
class LayerCost:
    """Cost of a convolution or linear layer for one image in test, over all regions of it where its part works on regions.

    A module that multiplies tensors itself, as attention does, has a row of kind ``matmul``. gradient_macs are those of the
    gradients that training computes: none to the input of the first layer, none to a frozen weight.
    """

    name: str
    kind: str
    macs: int
    params: int
    activations: int
    gradient_macs: int
    part: Part = Part()

    @property
    def training_macs_once(self) -> int:
        """MACs of forward and gradients, each time that its part is done."""
        return (self.macs + self.gradient_macs) // self.part.test

    @property
    def training_macs(self) -> int:
        """MACs of forward and gradients for one image."""
        return self.training_macs_once * self.part.train


@dataclass(frozen=True)
class Complexity:
    """Cost of a network for one image of input_size (C, H, W).

    uncounted: operators with arithmetic that is neither counted nor free by convention.
    """

    input_size: tuple[int, int, int]
    layers: tuple[LayerCost, ...]
    params: int
    macs: int
    activations: int
    uncounted: tuple[str, ...] = ()

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def train_macs_per_sample(self) -> int:
        return sum(layer.training_macs for layer in self.layers)

    @property
    def train_flops_per_sample(self) -> int:
        return 2 * self.train_macs_per_sample

    @property
    def warning(self) -> str | None:
        """A line that says which arithmetic the counts leave out, where they leave out any."""
        return uncounted_line(self.uncounted) if self.uncounted else None

    def train_macs_by(self, counted_by: str) -> int:
        """Return the MACs of training each time that the parts counted so are done; for ``images`` those of one image."""
        return sum(layer.training_macs_once for layer in self.layers if layer.part.counted_by == counted_by)

    def parts(self) -> list[PartCost]:
        """Return the cost of each part each time that it is done; nothing for a network that is one part."""
        named = dict.fromkeys(layer.part for layer in self.layers if layer.part.name)
        return [
            PartCost(
                part=part.name,
                macs=sum(layer.macs // part.test for layer in self.layers if layer.part == part),
                train_macs=sum(layer.training_macs_once for layer in self.layers if layer.part == part),
                test=part.test,
                train=part.train,
                counted_by=part.counted_by,
            )
            for part in named
        ]

    def totals(self) -> NetworkCost:
        """Return the totals for a record, without the layers."""
        return NetworkCost(
            input_size=list(self.input_size),
            params=self.params,
            macs=self.macs,
            flops=self.flops,
            activations=self.activations,
            train_macs_per_sample=self.train_macs_per_sample,
            train_flops_per_sample=self.train_flops_per_sample,
            parts=self.parts() or None,
            uncounted=list(self.uncounted) or None,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the totals as plain types."""
        return to_json(self.totals())

    def layers_csv(self) -> str:
        """A line for each layer that is counted, in the order of the network; ``train_macs`` of one training image."""
        heads = ("layer", "kind", "params", "activations", "macs", "train_macs")
        rows = ((one.name, one.kind, one.params, one.activations, one.macs, one.training_macs) for one in self.layers)
        return csv_text([heads, *rows])
