"""The weights that a detector's backbone begins with: those of a classifier, as the papers fine-tune one of ImageNet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.config.trusted import targets
from benchmarks.training.weights import Weights


def load_backbone(config: Mapping[str, Any], net: Any) -> str | None:
    """Give a detector's backbone the weights that the recipe names; return what a record notes of them, None of another task.

    Raises:
        ValueError, OSError: no such file, weights of another network, or none where normalisation is to stay as it is.
    """
    if config["data"]["task"] != "detection":
        return None
    path = config["recipe"].get("backbone_weights")
    if path is None:
        if config["model"]["frozen_norm"] or config["model"]["freeze_at"]:
            raise ValueError(
                "a backbone that stays as it is in part begins with trained weights: recipe.backbone_weights=FILE, which "
                "`python -m benchmarks weights import` wrote, or a classifier's checkpoint; from scratch: "
                "model.frozen_norm=false model.freeze_at=0"
            )
        return "from scratch: the backbone begins with random weights"
    backbone = config["model"]["backbone"]
    weights = Weights.read(Path(path), trusted=[*targets(backbone)])
    weights.check_network({**backbone, "num_classes": weights.network.get("num_classes")})
    net.load_backbone(weights.state_dict)
    return f"the backbone begins with {weights.name}, {path}, SHA-256 {weights.sha256}"
