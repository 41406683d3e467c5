"""What a counter sees of a network: the cost of its products of tensors, by the module that takes them."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import nn

GRADIENT = "the gradient of "  # before an operator whose gradients are not all counted
LAYERS: dict[type[nn.Module], str] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), "conv"),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), "conv_transpose"),
    nn.Linear: "linear",
}


class OperatorCost(NamedTuple):
    """Cost of the operators of one kind within a module: multiply-adds forward and of gradients, and output elements."""

    macs: int = 0
    gradient_macs: int = 0
    activations: int = 0


@dataclass
class Count:
    """What a counter has seen.

    Attributes:
        costs: by the name of the innermost module that was called, and by kind.
        uncounted: operators with arithmetic that are neither counted nor free; after GRADIENT those whose forward is counted.
    """

    kinds: dict[str, str]
    costs: dict[tuple[str, str], OperatorCost] = field(default_factory=dict)
    uncounted: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, net: nn.Module) -> "Count":
        """Return an empty count, which gives the operators of a layer the kind of the layer."""
        kinds = {}
        for name, module in net.named_modules():
            for layer, kind in LAYERS.items():
                if isinstance(module, layer):
                    kinds[name] = kind
        return cls(kinds)

    def add(self, module: str, kind: str, macs: int, activations: int, gradients: int = 0) -> None:
        """Add a product of two tensors. gradients: to how many of them training computes one, each of which costs as much."""
        if macs:
            key = module, self.kinds.get(module, kind)
            cost = OperatorCost(macs, gradients * macs, activations)
            self.costs[key] = OperatorCost(*map(sum, zip(self.costs.get(key, OperatorCost()), cost, strict=True)))

    def totals(self) -> OperatorCost:
        """Return the sum over all modules."""
        return OperatorCost(*map(sum, zip(*self.costs.values(), strict=True))) if self.costs else OperatorCost()
