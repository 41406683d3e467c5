"""Whether a process trains on a GPU that data may lie on."""

import torch
from torch import Tensor


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Return ``values``, which lie in the machine's memory, on ``device``; nothing waits for the copy."""
    return values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)
