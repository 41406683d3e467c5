"""What is taken from timm, PyTorch Image Models (Wightman 2019): networks, and an optimiser. The optional extra ``timm``."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

INSTALL = "pip install -e '.[timm]'"


def timm_network(net: str, in_channels: int, num_classes: int, **arguments: Any) -> nn.Module:
    """Return a network of timm without trained weights.

    Args:
        net: its name, of ``timm.list_models()``.
        arguments: further ones that the network takes, as ``drop_rate`` or ``img_size``.

    Raises:
        ImportError: timm is not installed, or does not start here.
        ValueError: timm has no such network, or its trained weights are asked for.
    """
    if "pretrained" in arguments:
        raise ValueError("networks of timm are trained from the start here: leave out model.pretrained")
    timm = _timm()
    if not re.fullmatch(r"[\w.]+", net, re.ASCII) or not timm.is_model(net):
        near = difflib.get_close_matches(net, timm.list_models(), n=3)
        similar = f", perhaps {', '.join(near)}" if near else ""
        raise ValueError(f"timm {timm.__version__} has no network {net!r}{similar}: timm.list_models() names all")
    return timm.create_model(net, pretrained=False, in_chans=in_channels, num_classes=num_classes, **arguments)


def lamb(parameters: Iterable[Any], **arguments: Any) -> Optimizer:
    """Return timm's LAMB (You et al., ICLR 2020), which torch does not have.

    Raises:
        ImportError: as ``timm_network``.
    """
    return _timm().optim.Lamb(parameters, **arguments)


def _timm() -> Any:
    try:
        import timm
        import timm.optim
    except ModuleNotFoundError as error:
        needed = "" if error.name == "timm" else f", or {error.name} that it needs,"
        raise ImportError(f"timm{needed} is not installed: {INSTALL}") from error
    except (ImportError, RuntimeError, OSError) as error:  # torchvision's, whose operators are of another torch
        raise ImportError(
            f"timm does not start, as its torchvision is not of this torch ({str(error).splitlines()[0]}): install both "
            "from one index, in the same build"
        ) from error
    return timm
