"""The history of a run: one row for each evaluation, with the training loss between them."""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.records.files import HISTORY, append_row, last_row
from benchmarks.records.record import COSTS
from benchmarks.training.batch_hooks import BatchCallback
from benchmarks.training.cost_meter import CostMeter

STEPS_EVERY = 50  # steps, from the start of training


class HistoryWriter(BatchCallback):
    """Appends a row to the run's ``history.jsonl`` after each evaluation: metrics, what training has cost so far,
    and ``lr``, the learning rate of the last step before it.

    Its ``steps`` are the training since the evaluation before, a point every ``STEPS_EVERY`` steps: the mean loss of these
    steps on the images of the first process, and the learning rate of the last of them. Losses stay on the device until then.

    A row that is there already, of an epoch that was killed and trained again, is not written twice.
    """

    def __init__(self, directory: Path, cost: CostMeter) -> None:
        self.directory = directory
        self.cost = cost
        self._lr = 0.0
        self._written: int | None = None  # step of the last row, once the file was read
        self._losses: list[torch.Tensor] = []  # of the steps since the last point
        self._points: list[dict[str, Any]] = []  # since the last row

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put losses from a checkpoint where the next ones will be."""
        self._losses = [loss.to(trainer.strategy.root_device) for loss in self._losses]

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Note the learning rate of the step: after it the rate is already that of the next one."""
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *arguments: Any) -> None:
        """Keep the loss of the step."""
        self._losses.append(outputs["loss"].detach())
        if len(self._losses) == STEPS_EVERY:
            losses = torch.stack(self._losses)
            spent = {"step": trainer.global_step, "train_flops": 2 * self.cost.train_macs}
            self._points.append({**spent, "loss": losses, "lr": self._lr})
            self._losses.clear()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row of this evaluation."""
        metrics = {
            name: float(value) for name, value in trainer.callback_metrics.items() if not name.startswith("test/")
        }
        points, self._points = self._means(), []
        if not trainer.is_global_zero:
            return
        cost = self.cost.totals(trainer)
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            **{name: getattr(cost, name) for name in COSTS},
            "lr": self._lr,
            **metrics,
        }
        if points:
            row["steps"] = {name: [point[name] for point in points] for name in points[0]}
        if self._written is None:
            last = last_row(self.directory / HISTORY)
            self._written = -1 if last is None else last["step"]
        if self._written < row["step"]:
            append_row(self.directory / HISTORY, row)
            self._written = row["step"]

    def state_dict(self) -> dict[str, Any]:
        # As one tensor, in the type that they have.
        losses: Any = torch.stack(self._losses).cpu() if self._losses else []
        return {"losses": losses, "points": self._means(), "lr": self._lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._losses = list(state_dict["losses"])
        self._points = state_dict["points"]
        self._lr = state_dict["lr"]

    def _means(self) -> list[dict[str, Any]]:
        """Return the points with their mean loss, which is read from the device here."""
        return [
            point | {"loss": math.fsum(losses.tolist()) / STEPS_EVERY}
            if isinstance(losses := point["loss"], torch.Tensor)
            else point
            for point in self._points
        ]
