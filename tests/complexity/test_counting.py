"""What no network is made of."""

import pytest
import torch
from torch import nn

from benchmarks.complexity.counting import build, measure
from benchmarks.complexity.profile import network_and_cost
from benchmarks.performance.forecasting import _count
from lightning_modules.tiling import output_size


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nothing.Net", "No module named 'nothing'"),
        ("torch.nn.Nothing", "'Nothing' is importable from module 'torch.nn'"),
        ("os.system", "'os.system' is blocklisted"),  # by Hydra, which names no further cause
        ("torch.nn.Linear", "unexpected keyword argument 'depth'"),
    ],
)
def test_why_no_network_is_made_of_a_name_is_one_line(target: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        build({"_target_": target, "depth": 20}, (1, 8, 8))
    assert words in str(error.value) and "\n" not in str(error.value)


class Named(nn.Module):
    """Has for itself the names of what a network may say of itself by methods."""

    check_image_size = output_size = (8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts(x)


def test_attributes_that_are_no_methods_say_nothing_of_a_network() -> None:
    model = {"_target_": f"{__name__}.Named"}
    net, cost = build(model, (1, 8, 8))
    assert cost.macs == 36 * 9 * 4 + 16 * 9 * 4 * 2
    assert output_size(net, 16, 24) == (16, 24)
    assert _count(model, (1, 8, 8))["border"] == 0


class WeightNorm(nn.Sequential):
    """Keeps a weight that it computes of two parameters, anew in each forward pass."""

    def __init__(self) -> None:
        super().__init__(nn.utils.weight_norm(nn.Conv2d(1, 4, 3)))


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_network_that_keeps_a_computed_weight_is_counted() -> None:
    net, cost = build({"_target_": f"{__name__}.WeightNorm"}, (1, 8, 8))
    assert (cost.macs, cost.params, cost.uncounted) == (36 * 9 * 4, 4 * 9 + 4 + 4, ())
    assert cost.train_macs_per_sample == 2 * cost.macs
    assert measure(WeightNorm(), (1, 8, 8)) == measure(net, (1, 8, 8)) == cost


@pytest.mark.parametrize("layers", [[nn.LazyConv2d(2, 3)], [nn.Conv2d(1, 2, 3), nn.LazyBatchNorm2d()]])
def test_a_network_of_lazy_layers_is_one_line(layers: list[nn.Module]) -> None:
    said = rf"^Sequential must know the shapes of its weights when it is built: {len(layers) - 1}.weight is of a lazy layer$"
    with pytest.raises(ValueError, match=said):
        measure(nn.Sequential(*layers), (1, 8, 8))


class OfOneSize(nn.Linear):
    """Refuses an image as timm's networks do, by an assertion."""

    def __init__(self) -> None:
        super().__init__(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._assert(x.shape[2] == 8, f"Input height ({x.shape[2]}) doesn't match model (8).")
        return super().forward(x)


def test_an_image_that_a_network_asserts_against_is_one_line() -> None:
    config = {"name": "mine", "model": {"_target_": f"{__name__}.OfOneSize"}}
    net, cost = network_and_cost({**config, "data": {"in_channels": 1, "image_size": [8, 8]}})
    assert isinstance(net, OfOneSize) and cost.macs == 8 * 8 * 2
    with pytest.raises(ValueError, match=r"mine does not take an image of 1×6×8: Input height \(6\) doesn't match"):
        network_and_cost({**config, "data": {"in_channels": 1, "image_size": [6, 8]}})
