"""The callback that accounts for a run: compute spent, time, history, progress, and losses that stay finite."""

import hashlib
import math
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.record import HISTORY, PROGRESS, append_row, last_row, write_json

PROGRESS_EVERY_S = 0.5
CHECK_LOSS_EVERY = 50  # steps; each check waits for the device
COMPUTE = ("samples_seen", "train_macs", "train_flops", "wall_s")


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite."""


class Interrupted(BaseException):
    """The process was asked to stop (SIGTERM)."""


class Tracker(pl.Callback):
    """Counts training compute over the batches that were really trained on, evaluation apart.

    One row per evaluation goes to ``history.jsonl`` and, the same, to the logger. A row that is there already (a killed epoch
    that was run again) is not written twice.

    Args:
        directory: the run's.
        train_macs_per_sample: exact multiply-adds of one training step per image.
        global_batch_size: images of a step over all processes.
        seed: model randomness is a function of (seed, step, rank).
    """

    def __init__(self, directory: Path, train_macs_per_sample: int, global_batch_size: int, seed: int) -> None:
        self.directory = directory
        self.train_macs_per_sample = train_macs_per_sample
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.samples_seen = 0
        self.train_s = 0.0
        self._resumed_wall_s = 0.0
        self._started = time.perf_counter()
        self._epoch_started = 0.0
        self._evaluating_since = 0.0
        self._last_progress = -math.inf
        self._losses: list[torch.Tensor] = []
        self._metrics: dict[str, float] = {}

    @property
    def train_macs(self) -> int:
        """Multiply-adds spent on training so far."""
        return self.samples_seen * self.train_macs_per_sample

    def totals(self, trainer: pl.Trainer) -> dict[str, Any]:
        """What the run has cost so far, for its record."""
        return {
            "train_flops": 2 * self.train_macs,
            "train_macs": self.train_macs,
            "samples_seen": self.samples_seen,
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "wall_s": round(self._wall(), 3),
            "train_s": round(self.train_s, 3),
            "images_per_s": round(self.samples_seen / self.train_s, 1) if self.train_s else None,
        }

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Turns SIGTERM into an exception, after Lightning has set its own handler."""
        signal.signal(signal.SIGTERM, _interrupt)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the training clock."""
        self._epoch_started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seeds the model's randomness, so that a resumed run draws what an uninterrupted one would."""
        position = f"{self.seed} {trainer.global_step} {trainer.global_rank}".encode()
        mixed = int.from_bytes(hashlib.blake2b(position, digest_size=7).digest())
        torch.default_generator.manual_seed(mixed)
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.manual_seed(mixed)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the batch; looks at the losses now and then."""
        self.samples_seen += self.global_batch_size
        self._losses.append(outputs["loss"].detach())
        if len(self._losses) >= CHECK_LOSS_EVERY:
            self._check_losses(trainer)
        self._progress(trainer, "train", batch_idx + 1)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops the training clock."""
        self._check_losses(trainer)
        self._evaluating_since = time.perf_counter()
        self.train_s += self._evaluating_since - self._epoch_started

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the row of this evaluation."""
        self._epoch_started = time.perf_counter()
        metrics = {
            name: float(value) for name, value in trainer.callback_metrics.items() if not name.startswith("test/")
        }
        if not math.isfinite(metrics["val/loss"]):
            raise NonFiniteLossError(
                f"validation loss is {metrics['val/loss']} after epoch {trainer.current_epoch + 1}"
            )
        if not trainer.is_global_zero:
            return
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "samples_seen": self.samples_seen,
            "train_macs": self.train_macs,
            "train_flops": 2 * self.train_macs,
            "wall_s": round(self._wall(), 3),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            **metrics,
        }
        last = last_row(self.directory / HISTORY)
        if last is None or last["step"] < row["step"]:
            append_row(self.directory / HISTORY, row)
            if trainer.logger is not None:
                trainer.logger.log_metrics(logged(row), step=trainer.global_step)
        shown = {name: metrics[name] for name in ("train/loss", f"val/{pl_module.primary}") if name in metrics}
        self._progress(trainer, "train", int(trainer.num_training_batches), shown)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says that the test has begun."""
        self._progress(trainer, "test", 0, force=True)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {"samples_seen": self.samples_seen, "wall_s": self._wall(), "train_s": self.train_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the compute and time spent before."""
        self.samples_seen = state_dict["samples_seen"]
        self._resumed_wall_s = state_dict["wall_s"]
        self.train_s = state_dict["train_s"]

    def _wall(self) -> float:
        return self._resumed_wall_s + time.perf_counter() - self._started

    def _check_losses(self, trainer: pl.Trainer) -> None:
        if self._losses and not torch.stack(self._losses).isfinite().all():
            raise NonFiniteLossError(
                f"training loss is not finite in epoch {trainer.current_epoch + 1}, by step {trainer.global_step}: "
                "a lower learning rate is the usual remedy"
            )
        self._losses.clear()

    def _progress(
        self, trainer: pl.Trainer, phase: str, batch: int, metrics: dict[str, float] | None = None, force: bool = False
    ) -> None:
        late = time.perf_counter() - self._last_progress >= PROGRESS_EVERY_S
        if not trainer.is_global_zero or not (late or force or metrics):
            return
        self._last_progress = time.perf_counter()
        steps = int(trainer.num_training_batches)
        done = trainer.current_epoch * steps + batch if phase == "train" else (trainer.max_epochs or 0) * steps
        self._metrics = metrics or self._metrics
        content = {
            "phase": phase,
            "epoch": min(trainer.current_epoch + 1, trainer.max_epochs or 0),
            "epochs": trainer.max_epochs,
            "done": done,
            "total": (trainer.max_epochs or 0) * steps,
            "metrics": self._metrics,
            "time": time.time(),
        }
        write_json(self.directory / PROGRESS, content, durable=False)


def logged(row: dict[str, Any]) -> dict[str, Any]:
    """A history row under the names it has in the logger: compute under ``compute/``; the step is the logger's own."""
    return {f"compute/{name}" if name in COMPUTE else name: value for name, value in row.items() if name != "step"}


def logged_names(metrics: Iterable[str]) -> list[str]:
    """What ``logged`` rows hold beside their axis, ``compute/train_flops``."""
    compute = [f"compute/{name}" for name in COMPUTE if name != "train_flops"]
    return ["epoch", "lr", "train/loss", "val/n", *metrics, *compute]


def _interrupt(signum: int, frame: Any) -> None:
    raise Interrupted(signal.Signals(signum).name)
