"""The seed of each training step."""

import hashlib
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.training.batch_hooks import BatchCallback


class StepSeed(BatchCallback):
    """Makes the network's randomness a function of seed, step and rank: a resumed run draws what an uninterrupted one draws."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Seed PyTorch's generators."""
        position = f"{self.seed} {trainer.global_step} {trainer.global_rank}".encode()
        mixed = int.from_bytes(hashlib.blake2b(position, digest_size=7).digest())
        torch.default_generator.manual_seed(mixed)
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.manual_seed(mixed)
