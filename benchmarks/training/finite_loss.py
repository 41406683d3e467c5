"""The check that losses stay finite."""

import math
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.training.batch_hooks import BatchCallback

CHECK_EVERY = 50  # steps; each check waits for the device


class NonFiniteLossError(ArithmeticError):
    """A loss became NaN or infinite."""


class FiniteLoss(BatchCallback):
    """Ends a run whose loss is NaN or infinite, before such a state is evaluated or saved: its hooks raise NonFiniteLossError
    on the rank that has met the loss."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *arguments: Any) -> None:
        """Keep the loss; check those kept now and then."""
        self._losses.append(outputs["loss"].detach())
        if len(self._losses) >= CHECK_EVERY:
            self._check(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the validation loss, where the task has one."""
        loss = float(trainer.callback_metrics.get("val/loss", 0))
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"validation loss is {loss} after epoch {trainer.current_epoch + 1}")

    def _check(self, trainer: pl.Trainer, *arguments: Any, **keywords: Any) -> None:
        """Check the training losses, before each evaluation and each checkpoint too."""
        if self._losses and not torch.stack(self._losses).isfinite().all():
            raise NonFiniteLossError(
                f"training loss is not finite in epoch {trainer.current_epoch + 1}, by step {trainer.global_step}: "
                "a lower learning rate is the usual remedy"
            )
        self._losses.clear()

    on_validation_start = on_save_checkpoint = _check
