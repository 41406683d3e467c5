"""What a detector's backbone begins with, and what a record says of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate

from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.launch.checks import refusal
from benchmarks.training.backbone_weights import load_backbone
from benchmarks.training.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")


def composed(*overrides: str) -> dict[str, Any]:
    [trial] = expand(["model=mask_rcnn", "data=nuclei_instances", *overrides], multirun=False)
    assert isinstance(trial, Trial)
    return trial.config


def classifier_file(path: Path, **arguments: Any) -> Weights:
    network = {**composed()["model"]["backbone"], "num_classes": 5, **arguments}
    net = instantiate(network)
    source = {"layout": "run", "file": "last.ckpt", "sha256": "0" * 64}
    Weights("resnet18", network, source, net.state_dict()).write(path)
    return Weights.read(path)


def test_a_frozen_backbone_without_weights_is_refused_and_one_that_learns_is_from_scratch() -> None:
    config = composed()
    assert (
        load_backbone(config, instantiate(config["model"])) == "from scratch: the backbone begins with random weights"
    )
    for override in ("model.frozen_norm=true", "model.freeze_at=1"):
        with pytest.raises(
            ValueError, match="recipe.backbone_weights=FILE.*from scratch: model.frozen_norm=false"
        ) as error:
            load_backbone(composed(override), None)
        assert "\n" not in str(error.value)
    [other] = expand(["model=resnet"], multirun=False)
    assert isinstance(other, Trial) and load_backbone(other.config, None) is None
    [other] = expand(["model=resnet", "recipe.backbone_weights=resnet18.pt"], multirun=False)
    assert isinstance(other, Trial)
    assert refusal(other) == (
        "recipe.backbone_weights is of a detector's backbone, and data=digits is for classification"
    )


def test_a_classifiers_weights_are_taken_and_named(tmp_path: Path) -> None:
    weights = classifier_file(tmp_path / "resnet18.pt")
    config = composed(f"+recipe.backbone_weights={tmp_path / 'resnet18.pt'}", "model.frozen_norm=true")
    net = instantiate(config["model"])
    note = load_backbone(config, net)
    assert note is not None and f"resnet18, {tmp_path / 'resnet18.pt'}, SHA-256 {weights.sha256}" in note
    own = net.backbone.state_dict()
    assert len(own) > 60 and all(torch.equal(tensor, weights.state_dict[name]) for name, tensor in own.items())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    classifier_file(tmp_path / "wide.pt", base_channels=8)
    config = composed(f"+recipe.backbone_weights={tmp_path / 'wide.pt'}")
    with pytest.raises(ValueError, match="another network, resnet18: base_channels is 8 there, 16 here"):
        load_backbone(config, instantiate(config["model"]))


def test_what_the_backbones_own_configuration_names_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    backbone = composed()["model"]["backbone"] | {"norm": {"_target_": "torchmetrics.MeanMetric"}}
    Weights("own", backbone | {"num_classes": 5}, {}, {}).write(path)
    config = {"data": {"task": "detection"}, "recipe": {"backbone_weights": str(path)}}
    with pytest.raises(ValueError, match="no network can be built of"):  # it was read, and a ResNet has no norm
        load_backbone(config | {"model": {"backbone": backbone}}, None)
