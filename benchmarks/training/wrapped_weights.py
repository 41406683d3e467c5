"""The state dict in a checkpoint as training scripts save it."""

from collections.abc import Mapping
from typing import Any

# Where training scripts put the network's weights: PyTorch Lightning and timm; torchvision's references; both with averages.
KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
# What DistributedDataParallel, AveragedModel and torch.compile put before every name.
PREFIXES = ("module.", "_orig_mod.")
# Of torch.optim.swa_utils.AveragedModel, beside the weights.
COUNTERS = {"n_averaged"}


def unwrapped(content: Any, path: Any) -> tuple[dict[str, Any], str]:
    """Return the state dict in what ``torch.load`` returned of the file ``path``, and what was unwrapped, in words ("" for a
    plain one). Raises ValueError where it holds no state dict, naming what it holds."""
    said = []
    if not _is_state_dict(content):
        key = next((key for key in KEYS if isinstance(content, Mapping) and _is_state_dict(content.get(key))), None)
        if key is None:
            held = f" but {', '.join(map(str, content))}" if isinstance(content, Mapping) else ""
            raise ValueError(
                f"{path} holds no plain state dict{held}: names and tensors are needed, by themselves or as {', '.join(KEYS)}"
            )
        others = [str(other) for other in content if other != key]
        said.append(f"its {key}" + (f", not its {', '.join(others)}" if others else ""))
        content = content[key]
    weights = {str(name): tensor for name, tensor in content.items() if name not in COUNTERS}
    while prefix := next((one for one in PREFIXES if all(name.startswith(one) for name in weights)), None):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        said.append(f"names without {prefix}")
    return weights, "; ".join(said)


def _is_state_dict(content: Any) -> bool:
    from torch import Tensor

    return isinstance(content, Mapping) and bool(content) and all(isinstance(one, Tensor) for one in content.values())
