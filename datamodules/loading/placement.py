"""Where a process makes its batches: its rank among the processes, and its device."""

import torch
from pytorch_lightning import LightningDataModule

from datamodules.readers.preparation import told_to

CPU = torch.device("cpu")


class PlacedDataModule(LightningDataModule):
    """A data module that knows its trainer's place, or ``device`` where it is used without a trainer."""

    device: torch.device = CPU

    preparation_told_to = staticmethod(told_to)  # here, for who has a data module and does not import this package

    def rank_and_world_size(self) -> tuple[int, int]:
        """Of this process."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def root_device(self) -> torch.device:
        """The network's."""
        return self.device if self.trainer is None else self.trainer.strategy.root_device
