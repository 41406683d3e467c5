"""Batch-norm statistics of a network that has made few steps, computed anew before it is evaluated."""

from collections.abc import Iterable
from math import ceil
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

WINDOWS = 10  # of 1 / momentum steps: then the first value has a weight of 3e-5 at torch's momentum of 0.1


class BatchStatistics(pl.Callback):
    """Replaces running statistics before each evaluation, while a run has made fewer steps than running averages need.

    The statistics are those of training images as an evaluation sees them, the same ones on every process; the mean over
    batches (Izmailov et al. 2018, §3.2), as torch's ``update_bn`` computes it, which would also drop units out. They depend on
    the weights alone, so a resumed run has the same.

    Args:
        images: of the training split, evenly spaced; all where there are no more.
        batch_size: of these images, at least, where there are as many.
        ema_decay: of the average of weights, which averages running statistics too; None where there is none.
    """

    def __init__(self, images: int, batch_size: int, ema_decay: float | None = None) -> None:
        self.images = images
        self.batch_size = batch_size
        self.ema_decay = ema_decay

    def are_used(self, trainer: pl.Trainer, net: nn.Module) -> bool:
        """Tell whether an evaluation at this step of training has such statistics."""
        return trainer.global_step < steps_needed(net, self.ema_decay)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Compute the statistics of the network that is about to be evaluated: the averaged one, where weights are averaged."""
        if not self.are_used(trainer, pl_module.net):
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batches = data.training_images(self.images, self.batch_size)
        precision = trainer.precision_plugin
        with precision.forward_context(), torch.random.fork_rng():
            compute_statistics(pl_module.net, map(precision.convert_input, batches))


@torch.no_grad()
def compute_statistics(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of a network in evaluation mode by their means over batches of images; all but its batch
    norm stays in that mode."""
    momenta = {layer: layer.momentum for layer in trained_norms(net)}
    for layer in momenta:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
        layer.train()
    for images in batches:
        net(images)
    for layer, momentum in momenta.items():
        layer.momentum = momentum
        layer.eval()


def trained_norms(net: nn.Module) -> list[_BatchNorm]:
    """Return the batch norm of a network in evaluation mode whose statistics training changes: one's own may keep some."""
    net.train()
    layers = [layer for layer in net.modules() if isinstance(layer, _BatchNorm) and layer.training]
    net.eval()
    return layers


def steps_needed(net: nn.Module, ema_decay: float | None = None) -> int:
    """Return the steps after which running averages of a network in evaluation mode, or an average of these, no longer show
    their first values; 0 without batch norm that training changes."""
    rates = [layer.momentum for layer in trained_norms(net) if layer.momentum]
    if rates and ema_decay is not None:
        rates.append(1 - ema_decay)
    return ceil(WINDOWS / min(rates)) if rates else 0
