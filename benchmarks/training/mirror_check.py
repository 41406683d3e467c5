"""The check that the mirror's server has not refused the run."""

from typing import Any

import pytorch_lightning as pl

from benchmarks.training.batch_hooks import BatchCallback


class MirrorCheck(BatchCallback):
    """Ends a run that its mirror's server refuses, where the word comes only once training has begun.

    Args:
        mirror: of the run.

    Raises:
        ValueError: from its hook.
    """

    def __init__(self, mirror: Any) -> None:
        self._mirror = mirror

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Look at what the server said, without waiting."""
        self._mirror.check()
