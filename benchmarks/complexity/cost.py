"""What counting a network gives: cost of each layer and totals, for one image. Imports no torch."""

from dataclasses import dataclass
from typing import Any

from benchmarks.records.record import NetworkCost, to_json


@dataclass(frozen=True)
class LayerCost:
    """Cost of one convolution or linear layer for one image.

    input_gradient and weight_gradient say which gradients training computes: none for the input of the first layer,
    none for a frozen weight.
    """

    name: str
    kind: str
    macs: int
    params: int
    activations: int
    input_gradient: bool
    weight_gradient: bool

    @property
    def training_macs(self) -> int:
        """MACs of forward, input gradient and weight gradient."""
        return self.macs * (1 + self.input_gradient + self.weight_gradient)


@dataclass(frozen=True)
class Complexity:
    """Cost of a network for one image of input_size (C, H, W)."""

    input_size: tuple[int, int, int]
    layers: tuple[LayerCost, ...]
    params: int
    macs: int
    activations: int

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def train_macs_per_sample(self) -> int:
        return sum(layer.training_macs for layer in self.layers)

    @property
    def train_flops_per_sample(self) -> int:
        return 2 * self.train_macs_per_sample

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
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the totals as plain types."""
        return to_json(self.totals())

    def layers_csv(self) -> str:
        """A line for each convolution and linear layer, in the order of the network; ``train_macs`` of one training image."""
        lines = ["layer,kind,params,activations,macs,train_macs"]
        for layer in self.layers:
            fields = (layer.name, layer.kind, layer.params, layer.activations, layer.macs, layer.training_macs)
            lines.append(",".join(map(str, fields)))
        return "\n".join(lines) + "\n"
