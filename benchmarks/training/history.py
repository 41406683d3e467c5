"""The history of a run: one row for each evaluation."""

from pathlib import Path

import pytorch_lightning as pl

from benchmarks.records.files import HISTORY, append_row, last_row
from benchmarks.training.batch_hooks import BatchCallback
from benchmarks.training.cost_meter import CostMeter

COSTS = (
    *("samples_seen", "train_macs", "train_flops", "wall_s", "train_s"),
    *("images_per_s", "peak_memory_bytes", "energy_j"),
)


class HistoryWriter(BatchCallback):
    """Appends a row to ``history.jsonl`` after each evaluation: metrics, and what training has cost so far.

    A row that is there already, of an epoch that was killed and trained again, is not written twice.

    Args:
        directory: the run's.
        cost: what training costs.
    """

    def __init__(self, directory: Path, cost: CostMeter) -> None:
        self.directory = directory
        self.cost = cost

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row of this evaluation."""
        metrics = {
            name: float(value) for name, value in trainer.callback_metrics.items() if not name.startswith("test/")
        }
        if not trainer.is_global_zero:
            return
        cost = self.cost.totals(trainer)
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            **{name: getattr(cost, name) for name in COSTS},
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            **metrics,
        }
        last = last_row(self.directory / HISTORY)
        if last is None or last["step"] < row["step"]:
            append_row(self.directory / HISTORY, row)
