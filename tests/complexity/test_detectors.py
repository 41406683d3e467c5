"""The compute of detectors: published counts, and the arithmetic of a training step seen from its layers."""

from typing import Any

import pytest
import torch
from support.reference_networks import DETECTORS, REFERENCE_COUNTS, reference_network
from torch import Tensor, nn

from benchmarks.complexity.counting import image_cost, measure
from lightning_modules.nets import FasterRCNN, MaskRCNN, ResNet

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {
    "sides": (16, 32, 64, 128), "regions_per_image": 24, "anchors_per_image": 32, "pre_nms": (60, 60), "post_nms": (40, 30),
    "frozen_norm": False,
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "fpn": {"pyramid": 16, "stages": 3, "head_channels": 32, "freeze_at": 0},
    "c4": {"pyramid": None, "freeze_at": 0},
    "frozen": {"pyramid": 16, "stages": 3, "head_channels": 32, "freeze_at": 2},
}


def small(form: str) -> MaskRCNN:
    torch.manual_seed(0)
    backbone = ResNet(18, block="basic", base_channels=8, in_channels=1, num_classes=2)
    return MaskRCNN(backbone, 7, mask_channels=8, mask_convs=2, **SMALL, **FORMS[form])


def test_torchvision_publishes_the_macs_of_this_composition():
    """fasterrcnn_resnet50_fpn's metadata: 134.38 GFLOPs (multiply-adds) at 800x800, 1000 regions; to the digit with torch's
    counter on torchvision's own model (0.29.1). Per region of 80 classes 14,304,256, and of a mask 529,858,560."""
    with torch.device("meta"):
        net = FasterRCNN(ResNet(50), 90, release="torchvision", freeze_at=0)
    images = image_cost(net)(800, 800)
    first = 64 * 3 * 7 * 7 * 400 * 400  # the first layer has no gradient to its input
    assert (images + first) % 3 == 0
    region = 256 * 49 * 1024 + 1024 * 1024 + 1024 * (91 + 4 * 91)
    assert (images + first) // 3 + 1000 * region == 134_379_721_216


@pytest.mark.parametrize("form", FORMS)
def test_parts_add_up_to_the_whole(form):
    net = small(form)
    cost = measure(net, (1, 96, 128))
    parts = {part.part: part for part in cost.parts()}
    assert set(parts) == {"dense", "box_head", "mask_head"} | ({"res5"} if form == "c4" else set())
    assert cost.macs == sum(part.test * part.macs for part in parts.values())
    assert cost.train_macs_per_sample == sum(part.train * part.train_macs for part in parts.values())
    assert (parts["box_head"].test, parts["box_head"].train, parts["mask_head"].train) == (30, 24, 6)
    assert cost.params == sum(parameter.numel() for parameter in net.parameters())
    assert cost.train_macs_by("images") == image_cost(net)(96, 128) == parts["dense"].train_macs
    assert "rpn.conv" in {layer.name for layer in cost.layers}  # applied to every level, one layer


@pytest.mark.parametrize("form", FORMS)
def test_a_training_step_computes_what_is_counted(form):
    """Hooks on every layer of a real step, forward and backward, see the MACs that its images and regions are counted with."""
    net = small(form)
    spent = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal spent
        weight: Any = layer.weight
        if isinstance(layer, nn.ConvTranspose2d):
            macs = inputs[0].numel() * weight[0].numel()
        else:
            macs = output.numel() * weight[0].numel()
        spent += macs * (1 + inputs[0].requires_grad + weight.requires_grad)

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.register_forward_hook(count)
    targets = [
        {
            "boxes": torch.tensor([[8.0, 8, 40, 48], [50, 30, 90, 90]])[:count],
            "labels": torch.tensor([1, 6])[:count],
            "masks": torch.ones(count, 96, 128, dtype=torch.uint8),
            "scale": torch.ones(2),
            "size": torch.tensor([96, 128]),
        }
        for count in (2, 0)
    ]
    generators = [torch.Generator().manual_seed(image) for image in range(2)]
    _, processed = net.losses(torch.randn(2, 1, 96, 128), targets, generators)
    cost = measure(small(form), (1, 96, 128))
    assert processed["positives"] > 0
    assert spent == 2 * cost.train_macs_by("images") + sum(
        count * cost.train_macs_by(name) for name, count in processed.items()
    )
    assert spent <= 2 * cost.train_macs_per_sample


@pytest.mark.parametrize("name", [name for name, row in REFERENCE_COUNTS.items() if row["family"] in DETECTORS])
def test_reference_parameters(name):
    with torch.device("meta"):
        net, _ = reference_network(name)
    assert sum(parameter.numel() for parameter in net.parameters()) == int(REFERENCE_COUNTS[name]["params"])
