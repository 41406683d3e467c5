"""Gradient checkpointing (Chen et al. 2016): a stage keeps its input alone and is computed again in the backward pass."""

from collections.abc import Callable
from contextlib import nullcontext
from fnmatch import fnmatch
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from benchmarks.complexity.cost import Complexity


def recompute_stages(net: nn.Module) -> None:
    """Make each stage of ``net`` keep its input alone in training. Outputs, gradients and running statistics stay the same.
    Raises ValueError where it has no stages, one that has no forward as a ModuleList, or recomputes already."""
    if any(getattr(module, "memory_efficient", False) for module in net.modules()):
        raise ValueError("trainer.gradient_checkpointing and model.memory_efficient compute the same again: choose one")
    stages_of_net = stages(net)
    if not stages_of_net:
        raise ValueError(
            f"trainer.gradient_checkpointing: a {type(net).__name__} has no stages to compute again: its class may name "
            'them, as recomputation_stages = ("stages.*",)'
        )
    for name, stage in stages_of_net.items():
        if type(stage).forward is nn.Module.forward:
            raise ValueError(
                f"trainer.gradient_checkpointing: recomputation_stages names {name}, a {type(stage).__name__}, which is never "
                f'called itself: "{name}.*" names what is in it'
            )
        stage.forward = _Recomputed(stage)


def stages(net: nn.Module) -> dict[str, nn.Module]:
    """Return the stages of a network by name: the modules that its class names by patterns in ``recomputation_stages``."""
    patterns = [pattern.split(".") for pattern in getattr(net, "recomputation_stages", ())]
    return {
        name: module
        for name, module in net.named_modules()
        if any(
            len(pattern) == len(parts := name.split(".")) and all(map(fnmatch, parts, pattern)) for pattern in patterns
        )
    }


def recomputed_macs(net: nn.Module, cost: Complexity) -> int:
    """Return the multiply-adds that one training image costs beside the network's, if its stages are computed again."""
    names = tuple(f"{name}." for name in stages(net))
    return sum(layer.macs for layer in cost.layers if f"{layer.name}.".startswith(names))


class _Recomputed:
    """The forward of a stage. An object, not a function: a deep copy of the stage gets its own."""

    def __init__(self, stage: nn.Module) -> None:
        self.stage = stage

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        forward: Callable[..., Any] = partial(type(self.stage).forward, self.stage, **options)
        if not self.stage.training or not torch.is_grad_enabled():
            return forward(*inputs)
        # Stopped early it would leave out a last layer, and FLOPs would depend on which layers keep their output.
        with set_checkpoint_early_stop(False):
            return checkpoint(
                forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _StatisticsLeft(self.stage))
            )


class _StatisticsLeft:
    """Batch-norm layers update copies of their running statistics, which the first pass has updated already.

    An object that is entered for every backward pass over one graph.
    """

    def __init__(self, stage: nn.Module) -> None:
        self.norms = [module for module in stage.modules() if isinstance(module, _BatchNorm)]

    def __enter__(self) -> None:
        self.buffers = [dict(norm.named_buffers()) for norm in self.norms]
        for norm, buffers in zip(self.norms, self.buffers, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())

    def __exit__(self, *raised: object) -> None:
        for norm, buffers in zip(self.norms, self.buffers, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
