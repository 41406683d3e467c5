"""torchvision's names of the tensors of our classifiers."""

import re

# torchvision's names of modules: by their place in our blocks, layers and transitions, and of those outside the stages.
RESIDUAL = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
COMPOSITE = {"0": "norm1", "2": "conv1", "4": "norm2", "6": "conv2"}
TRANSITION = {"0": "norm", "2": "conv"}
OUTSIDE_STAGES = {
    "ResNet": {"stem.0": "conv1", "stem.1": "bn1", "classifier": "fc"},
    "DenseNet": {
        "stem.0": "features.conv0",
        "stem.1": "features.norm0",
        "pool.0": "features.norm5",
        "classifier": "classifier",
    },
}


def torchvision_name(key: str, network: str) -> str:
    """torchvision's name of ``key`` in a state dict of our class ``network``. Raises ValueError where it has no place for
    it."""
    try:
        match [network, *key.split(".")]:
            case ["ResNet", "stages", stage, block, "residual", place, tensor]:
                return f"layer{int(stage) + 1}.{block}.{RESIDUAL[place]}.{tensor}"
            case ["ResNet", "stages", stage, block, "shortcut", place, tensor]:
                return f"layer{int(stage) + 1}.{block}.downsample.{place}.{tensor}"
            case ["DenseNet", "stages", stage, layer, "composite", place, tensor]:
                return (
                    f"features.denseblock{int(stage) // 2 + 1}.denselayer{int(layer) + 1}.{COMPOSITE[place]}.{tensor}"
                )
            case ["DenseNet", "stages", stage, place, tensor]:
                return f"features.transition{int(stage) // 2 + 1}.{TRANSITION[place]}.{tensor}"
            case _:
                module, _, tensor = key.rpartition(".")
                return f"{OUTSIDE_STAGES[network][module]}.{tensor}"
    except KeyError:
        raise ValueError(f"torchvision's layout of a {network} has no place for {key}") from None


def modern_name(key: str) -> str:
    """A name in torchvision's state dict as today's releases have it: its published DenseNets say `norm.1` for `norm1`."""
    return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.(?=[12]\.)", r"\1", key)
