"""The compute of training a detector: images by their size, and the regions that its heads computed."""

from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from benchmarks.complexity.cost import Complexity
from benchmarks.complexity.counting import image_cost
from benchmarks.records.record import Compute
from benchmarks.training.cost_meter import CostMeter


class RegionCostMeter(CostMeter):
    """Counts the compute of a detector's training steps as it was: by the size of their images and the regions computed.

    The module's ``processed`` says what the last step has computed on this process, by what its parts are counted by.

    Args:
        net: whose parts have been counted, before training options change it.
        complexity: what counting it gave.
        global_batch_size: images of a step over all processes.
    """

    def __init__(self, net: nn.Module, complexity: Complexity, global_batch_size: int) -> None:
        super().__init__(complexity.train_macs_per_sample, global_batch_size)
        self.processed = {part.counted_by: 0 for part in complexity.parts() if part.counted_by != "images"}
        self._image_macs = image_cost(net)
        self._macs_of_each = {name: complexity.train_macs_by(name) for name in self.processed}
        self._macs_of_images = 0

    @property
    def train_macs(self) -> int:
        """Multiply-adds spent on training so far."""
        return self._macs_of_images + sum(count * self._macs_of_each[name] for name, count in self.processed.items())

    def totals(self, trainer: pl.Trainer, recomputed_macs: int = 0) -> Compute:
        """Return what the run has cost so far, with the regions that were computed."""
        return replace(super().totals(trainer, recomputed_macs), processed=dict(self.processed))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add the batch, over all processes."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        images = batch[0]
        mine = [
            len(images) * self._image_macs(*images.shape[-2:]),
            *(pl_module.processed[name] for name in self.processed),
        ]
        counts = torch.tensor(mine, device=trainer.strategy.root_device)
        macs, *regions = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        self._macs_of_images += macs
        for name, count in zip(self.processed, regions, strict=True):
            self.processed[name] += count

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"macs_of_images": self._macs_of_images, "processed": dict(self.processed)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._macs_of_images = state_dict["macs_of_images"]
        self.processed = dict(state_dict["processed"])
