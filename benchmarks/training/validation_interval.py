"""How often a run is validated: every few epochs, and at its end."""

from typing import Any

import pytorch_lightning as pl

from benchmarks.training.batch_hooks import BatchCallback


class ValidationInterval(BatchCallback):
    """Validates after every ``epochs`` epochs, and always where training ends: by its epochs, or amid one by its budget.

    Comes after what ends training early and before the checkpoints, which ask whether a validation is due.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the interval: a run that is resumed before a validation asks for it first of all."""
        self._set(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the interval of this epoch."""
        self._set(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Set the interval where training is to stop with this batch."""
        self._set(trainer)

    def _set(self, trainer: pl.Trainer) -> None:
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if is_last else self.epochs
