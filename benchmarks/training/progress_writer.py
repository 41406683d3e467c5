"""How far a run is, written for those who watch it."""

import math
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.records.files import PROGRESS, write_json
from benchmarks.records.progress import progress_line
from benchmarks.training.batch_hooks import BatchCallback
from benchmarks.training.budget import Budget
from benchmarks.training.cost_meter import CostMeter

PROGRESS_EVERY_S = 0.5


class ProgressWriter(BatchCallback):
    """Writes the run's ``progress.json``: at once where something new begins, then at most every ``PROGRESS_EVERY_S``.

    Before training it says what is prepared: a data set that is fetched, copied or listed, compilation. In training it counts
    steps, or the units of the budget. A test after training counts as the end of it; a run that only tests counts its batches.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # By these the progress of training is counted: by a budget where it has one.
        self.cost: CostMeter | None = None
        self.budget: Budget | None = None
        self._began = (0.0, math.inf)  # the run's time, and what was done, when this process began to train
        self._last = -math.inf
        self._phase = ""
        self._batches_tested = 0
        self._metrics: dict[str, float] = {}
        self._label = ""
        self._evaluation = ""  # the line of the last one

    def prepare(self, what: str, done: int, total: int) -> None:
        """Write that ``done`` of ``total`` is prepared of ``what``; 0 where a number is not known."""
        if self._is_due(what):
            self._write("prepare", _counts(done, total), what=what)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note what was done before: on another machine, or beside other work, that had another pace."""
        assert self.cost is not None
        self._began = self.cost.wall_s, self._training(trainer)["done"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the metrics of this evaluation, to the log too."""
        metrics = trainer.callback_metrics
        names = ("train/loss", f"val/{pl_module.primary}")
        self._metrics = {name: float(metrics[name]) for name in names if name in metrics} or self._metrics
        self._phase, self._label = "", pl_module.label
        if trainer.is_global_zero:
            self._evaluation = progress_line(self._content("train", self._training(trainer)))
            print(self._evaluation, flush=True)
        self._trained(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write that the test has begun."""
        self._batches_tested = 0
        self._tested(trainer)

    def on_test_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Count the batches of all test loaders."""
        self._batches_tested += 1
        self._tested(trainer)

    def _trained(self, trainer: pl.Trainer, *arguments: Any, **keywords: Any) -> None:
        """Write how far training is; in an evaluation this shows that the run is alive."""
        if trainer.is_global_zero and self._is_due("train"):
            self._write("train", self._training(trainer))

    on_train_batch_end = on_validation_batch_end = _trained

    def _tested(self, trainer: pl.Trainer) -> None:
        if not (trainer.is_global_zero and self._is_due("test")):
            return
        if self.cost is None:
            self._write("test", _counts(self._batches_tested, sum(trainer.num_test_batches)))
            return
        trained = self._training(trainer)
        self._write("test", trained | {"done": trained["total"]})

    def _training(self, trainer: pl.Trainer) -> dict[str, float]:
        """Epoch, epochs, and the steps or units of the budget that are done and that there are."""
        assert self.cost is not None
        trained, epochs = self.cost.steps, trainer.max_epochs or 0
        steps = int(trainer.num_training_batches)
        done, total = trained, epochs * steps
        if self.budget is not None:
            done, total = self.budget.done, self.budget.total
            epochs = math.ceil(trained * total / max(done, 1) / steps)  # at the pace so far
        return _counts(done, total, min(trainer.current_epoch + 1, epochs), epochs)

    def _is_due(self, phase: str) -> bool:
        now = time.perf_counter()
        if phase == self._phase and now - self._last < PROGRESS_EVERY_S:
            return False
        self._phase, self._last = phase, now
        return True

    def _write(self, phase: str, counts: dict[str, float], **more: str) -> None:
        content = self._content(phase, counts) | more | {"evaluation": self._evaluation}
        write_json(self.directory / PROGRESS, content, durable=False)

    def _content(self, phase: str, counts: dict[str, float]) -> dict[str, Any]:
        metrics = {"metrics": self._metrics, "label": self._label}
        pace: dict[str, float | None] = {}
        if self.cost is not None:
            (since, before), done, wall_s = self._began, counts["done"], self.cost.wall_s
            left_s = (counts["total"] - done) * (wall_s - since) / (done - before) if done > before else None
            pace = {"elapsed_s": wall_s, "left_s": left_s, "images_per_s": self.cost.images_per_s}
        return {"phase": phase, **counts, **pace, **metrics, "time": time.time(), "pid": os.getpid()}


def _counts(done: float, total: float, epoch: int = 0, epochs: int = 0) -> dict[str, float]:
    return {"epoch": epoch, "epochs": epochs, "done": done, "total": total}
