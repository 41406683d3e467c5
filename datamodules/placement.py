"""Where a process makes its batches: its rank among the processes, and its device."""

from contextlib import AbstractContextManager

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from datamodules import preparation

CPU = torch.device("cpu")


class PlacedDataModule(LightningDataModule):
    """A data module that knows its trainer's place, or ``device`` where it is used without a trainer."""

    device: torch.device = CPU

    @staticmethod
    def preparation_told_to(tell: preparation.Tell) -> AbstractContextManager[None]:
        """Within it, tell hears what setup fetches, copies or lists: what, how much is done, of how much (0: not known)."""
        return preparation.told_to(tell)

    def rank_and_world_size(self) -> tuple[int, int]:
        """Of this process."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def root_device(self) -> torch.device:
        """The network's."""
        return self.device if self.trainer is None else self.trainer.strategy.root_device


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """``values``, which lie in the machine's memory, on ``device``; nothing waits for the copy."""
    return values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)
