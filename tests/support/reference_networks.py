"""The networks of `benchmarks/tables/certificates.csv`, built from their arguments, and what holds of their costs."""

import csv
import json
from pathlib import Path
from typing import Any

from benchmarks.complexity.cost import Complexity
from lightning_modules.nets import DenseNet, FasterRCNN, MaskRCNN, ResNet, UNet

FAMILIES = {"resnet": ResNet, "resnext": ResNet, "densenet": DenseNet, "unet": UNet}
DETECTORS = {"faster_rcnn": FasterRCNN, "mask_rcnn": MaskRCNN}
with (Path(__file__).parents[2] / "benchmarks/tables/certificates.csv").open(newline="") as file:
    REFERENCE_COUNTS = {row["name"]: row for row in csv.DictReader(file)}


def reference_network(name: str) -> tuple[Any, tuple[int, int, int]]:
    """The network of a row, and the size of its image (C, H, W)."""
    row = REFERENCE_COUNTS[name]
    arguments, size = json.loads(row["arguments"]), tuple(json.loads(row["input_size"]))
    if row["family"] in DETECTORS:
        return DETECTORS[row["family"]](ResNet(**arguments.pop("backbone")), **arguments), size
    return FAMILIES[row["family"]](**arguments), size


def check_cost(name: str, cost: Complexity) -> None:
    """The counts of a row; in a network without parts the layers add up, and all but the first have both gradients."""
    row = REFERENCE_COUNTS[name]
    assert (cost.params, cost.macs) == (int(row["params"]), int(row["macs"])), name
    assert cost.macs == sum(layer.macs for layer in cost.layers)
    assert cost.activations == sum(layer.activations for layer in cost.layers)
    if row["family"] in FAMILIES:
        first = cost.layers[0]  # reads the image
        assert [layer for layer in cost.layers if layer.gradient_macs < 2 * layer.macs] == [first], name
        assert cost.train_macs_per_sample == 3 * cost.macs - first.macs
