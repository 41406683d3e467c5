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

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any, **keywords: Any) -> None:
        """Set the interval: training may be to stop with this batch."""
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if is_last else self.epochs

    # A run that is resumed before a validation asks for it first of all.
    on_train_start = on_train_epoch_start = on_train_batch_end
