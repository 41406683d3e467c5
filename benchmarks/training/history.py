"""The callback that accounts for a run: compute spent, time, history, progress, and losses that stay finite."""

import hashlib
import math
import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import PassThroughProfiler

from benchmarks.records.files import HISTORY, PROGRESS, append_row, last_row, write_json
from benchmarks.training.budget import Budget
from benchmarks.training.energy import EnergyMeter
from benchmarks.training.environment import peak_memory_bytes

PROGRESS_EVERY_S = 0.5
NOTHING = nullcontext()
CHECK_LOSS_EVERY = 50  # steps; each check waits for the device


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite."""


class Tracker(pl.Callback):
    """Counts training compute over the batches that were really trained on, evaluation apart.

    One row per evaluation goes to ``history.jsonl``. A row that is there already (a killed epoch
    that was run again) is not written twice.

    Args:
        directory: the run's.
        train_macs_per_sample: exact multiply-adds of one training step per image.
        global_batch_size: images of a step over all processes.
        seed: model randomness is a function of (seed, step, rank).
        budget: with which training ends; None for the trainer's number of epochs.
    """

    def __init__(
        self,
        directory: Path,
        train_macs_per_sample: int,
        global_batch_size: int,
        seed: int,
        budget: Budget | None = None,
    ) -> None:
        self.directory = directory
        self.train_macs_per_sample = train_macs_per_sample
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.budget = budget
        self.samples_seen = 0
        self.train_s = 0.0
        self.energy = EnergyMeter()
        self._resumed_wall_s = 0.0
        self._started = time.perf_counter()
        self._training_since: float | None = None
        self._peak_memory = 0  # bytes, up to the last evaluation
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
            **self._cost(trainer),
        }

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leaves the profiler out where there is none: it would time nothing 37 times a step."""
        profiler: Any = trainer.profiler  # type: ignore[attr-defined]
        if isinstance(profiler, PassThroughProfiler):
            profiler.profile = _not_profiled  # type: ignore[method-assign, assignment]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the training clock: amid an epoch where a run goes on there."""
        self.energy.attach(trainer)
        self._start_clock()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the training clock."""
        self._start_clock()

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
        self._progress(trainer, "train")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops the training clock."""
        self._check_losses(trainer)
        self.train_s, self._training_since = self._trained(), None
        self.energy.stop()
        self._peak_memory = self._most_memory(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *arguments: Any, **keywords: Any) -> None:
        """Gives a sign of life."""
        self._progress(trainer, "train")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the row of this evaluation."""
        if (
            trainer.strategy.root_device.type == "cuda"
        ):  # evaluation takes the batch that fits: that is not training's memory
            torch.cuda.reset_peak_memory_stats(trainer.strategy.root_device)
        self._start_clock()
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
            **self._cost(trainer),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            **metrics,
        }
        last = last_row(self.directory / HISTORY)
        if last is None or last["step"] < row["step"]:
            append_row(self.directory / HISTORY, row)
        shown = {name: metrics[name] for name in ("train/loss", f"val/{pl_module.primary}") if name in metrics}
        self._progress(trainer, "train", shown)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says that the test has begun."""
        self._progress(trainer, "test", force=True)

    def on_test_batch_end(self, trainer: pl.Trainer, *arguments: Any, **keywords: Any) -> None:
        """Gives a sign of life."""
        self._progress(trainer, "test")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lets nothing be saved after a loss that is not finite."""
        self._check_losses(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {
            "samples_seen": self.samples_seen,
            "wall_s": self._wall(),
            "train_s": self._trained(),
            "energy_mj": self.energy.so_far(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the compute and time spent before."""
        self.samples_seen = state_dict["samples_seen"]
        self._resumed_wall_s = state_dict["wall_s"]
        self.train_s = state_dict["train_s"]
        self.energy.millijoules = state_dict["energy_mj"]

    def _cost(self, trainer: pl.Trainer) -> dict[str, Any]:
        """What training took of the devices: seconds, memory, and energy where they count it."""
        return {
            "train_s": round(self.train_s, 3),
            "images_per_s": round(self.samples_seen / self.train_s, 1) if self.train_s else None,
            "peak_memory_bytes": self._peak_memory or self._most_memory(trainer),
            "energy_j": self.energy.joules,
        }

    def _most_memory(self, trainer: pl.Trainer) -> int:
        return max(self._peak_memory, peak_memory_bytes(trainer.strategy.root_device))

    def _start_clock(self) -> None:
        self._training_since = time.perf_counter()
        self.energy.start()

    def _wall(self) -> float:
        return self._resumed_wall_s + time.perf_counter() - self._started

    def _trained(self) -> float:
        running = 0.0 if self._training_since is None else time.perf_counter() - self._training_since
        return self.train_s + running

    def _check_losses(self, trainer: pl.Trainer) -> None:
        if self._losses and not torch.stack(self._losses).isfinite().all():
            raise NonFiniteLossError(
                f"training loss is not finite in epoch {trainer.current_epoch + 1}, by step {trainer.global_step}: "
                "a lower learning rate is the usual remedy"
            )
        self._losses.clear()

    def _progress(
        self, trainer: pl.Trainer, phase: str, metrics: dict[str, float] | None = None, force: bool = False
    ) -> None:
        late = time.perf_counter() - self._last_progress >= PROGRESS_EVERY_S
        if not trainer.is_global_zero or not (late or force or metrics):
            return
        self._last_progress = time.perf_counter()
        steps = int(trainer.num_training_batches)
        trained, epochs = self.samples_seen // self.global_batch_size, trainer.max_epochs or 0
        done, total = trained, epochs * steps
        if self.budget is not None:
            done, total = self.budget.done, self.budget.total
            epochs = math.ceil(trained * total / max(done, 1) / steps)  # at the pace so far
        self._metrics = metrics or self._metrics
        content = {
            "phase": phase,
            "epoch": min(trainer.current_epoch + 1, epochs),
            "epochs": epochs,
            "done": done if phase == "train" else total,
            "total": total,
            "metrics": self._metrics,
        }
        _write_progress(self.directory, content)


class Preparing:
    """Says what takes a run's time before its first step: a data set that is fetched, copied or listed, compilation.

    Args:
        directory: the run's.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._last_progress = -math.inf

    def tell(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` is done; 0: not known."""
        if time.perf_counter() - self._last_progress < PROGRESS_EVERY_S:
            return
        self._last_progress = time.perf_counter()
        counts = {"epoch": 0, "epochs": 0, "done": done, "total": total, "metrics": {}}
        _write_progress(self.directory, {"phase": "prepare", "what": what, **counts})


class TestProgress(pl.Callback):
    """Says how far a run has come that only tests.

    Args:
        directory: the run's.
    """

    __test__ = False  # pytest's word for a test

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._last_progress = -math.inf

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says that the test has begun."""
        self._progress(trainer, 0)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts the batches of all test loaders."""
        self._progress(trainer, sum(trainer.num_test_batches[:dataloader_idx]) + batch_idx + 1)

    def _progress(self, trainer: pl.Trainer, done: float) -> None:
        if not trainer.is_global_zero or time.perf_counter() - self._last_progress < PROGRESS_EVERY_S:
            return
        self._last_progress = time.perf_counter()
        total = sum(trainer.num_test_batches)
        content = {"phase": "test", "epoch": 0, "epochs": 0, "done": done, "total": total, "metrics": {}}
        _write_progress(self.directory, content)


def _not_profiled(action_name: str) -> AbstractContextManager[None]:
    return NOTHING


def _write_progress(directory: Path, content: dict[str, Any]) -> None:
    write_json(directory / PROGRESS, content | {"time": time.time(), "pid": os.getpid()}, durable=False)
