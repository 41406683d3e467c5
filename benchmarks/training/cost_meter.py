"""What training costs: compute, time, memory and energy."""

import time
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from benchmarks.complexity.cost import Complexity
from benchmarks.complexity.counting import image_cost
from benchmarks.records.record import Compute
from benchmarks.training.batch_hooks import BatchCallback
from benchmarks.training.energy import EnergyMeter
from benchmarks.training.environment import peak_memory_bytes


class CostMeter(BatchCallback):
    """Counts the compute of the batches that were trained on, and the time, memory and energy of it; evaluation and saving are
    not counted.

    Args:
        train_macs_per_sample: exact multiply-adds of one training step per image.
        global_batch_size: images of a step over all processes.
    """

    def __init__(self, train_macs_per_sample: int, global_batch_size: int) -> None:
        self.train_macs_per_sample = train_macs_per_sample
        self.global_batch_size = global_batch_size
        self.samples_seen = 0
        self.train_s = 0.0
        self.energy = EnergyMeter()
        self._resumed_wall_s = self._resumed_train_s = 0.0
        self._resumed_samples = 0
        self._started = time.perf_counter()
        self._training_since: float | None = None
        self._peak_memory = 0  # bytes, up to the last evaluation

    @property
    def train_macs(self) -> int:
        """Multiply-adds spent on training so far."""
        return self.samples_seen * self.train_macs_per_sample

    @property
    def steps(self) -> int:
        """Training batches so far."""
        return self.samples_seen // self.global_batch_size

    @property
    def wall_s(self) -> float:
        """Seconds since the run began, those before an interruption included, those between left out."""
        return self._resumed_wall_s + time.perf_counter() - self._started

    @property
    def images_per_s(self) -> float | None:
        """Training images per second since this process began or went on with the run, evaluation left out; None before the
        first."""
        samples, trained = self.samples_seen - self._resumed_samples, self._trained() - self._resumed_train_s
        return samples / trained if samples and trained else None

    def totals(self, trainer: pl.Trainer, recomputed_macs: int = 0) -> Compute:
        """Return what the run has cost so far; ``recomputed_macs`` are those of one training image that recomputation adds."""
        recomputed = 2 * recomputed_macs * self.samples_seen
        return Compute(
            train_flops=2 * self.train_macs,
            train_macs=self.train_macs,
            samples_seen=self.samples_seen,
            steps=trainer.global_step,
            epochs=trainer.current_epoch,
            wall_s=round(self.wall_s, 3),
            train_s=round(self.train_s, 3),
            images_per_s=round(self.samples_seen / self.train_s, 1) if self.train_s else None,
            peak_memory_bytes=self._peak_memory or self._most_memory(trainer),
            energy_j=self.energy.joules,
            hardware_train_flops=2 * self.train_macs + recomputed if recomputed_macs else None,
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the training clock, within an epoch where a run is resumed there."""
        self.energy.attach(trainer)
        self.start_clock()

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Add the batch."""
        self.samples_seen += self.global_batch_size

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the training clock."""
        self._stop_clock()
        self._peak_memory = self._most_memory(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the training clock, and the count of memory: evaluation takes the batch that fits, which is not training's."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.strategy.root_device)
        self.start_clock()

    def state_dict(self) -> dict[str, Any]:
        return {
            "samples_seen": self.samples_seen,
            "wall_s": self.wall_s,
            "train_s": self._trained(),
            "energy_mj": self.energy.so_far(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.samples_seen = self._resumed_samples = state_dict["samples_seen"]
        self._resumed_wall_s = state_dict["wall_s"]
        self.train_s = self._resumed_train_s = state_dict["train_s"]
        self.energy.millijoules = state_dict["energy_mj"]

    def _most_memory(self, trainer: pl.Trainer) -> int:
        return max(self._peak_memory, peak_memory_bytes(trainer.strategy.root_device))

    def start_clock(self, *arguments: Any, **keywords: Any) -> None:
        """Count what follows as training, at its start and after evaluation and saving."""
        self._training_since = time.perf_counter()
        self.energy.start()

    def _stop_clock(self, *arguments: Any, **keywords: Any) -> None:
        self.train_s, self._training_since = self._trained(), None
        self.energy.stop()

    on_train_epoch_start = start_clock
    on_train_epoch_end = on_save_checkpoint = _stop_clock

    def _trained(self) -> float:
        running = 0.0 if self._training_since is None else time.perf_counter() - self._training_since
        return self.train_s + running


class RegionCostMeter(CostMeter):
    """Counts the compute of a detector's training steps as it was: by the size of their images and the regions computed.

    The module's ``processed`` says what the last step has computed on this process, by what its parts are counted by.

    Args:
        net: whose parts have been counted, before training options change it.
        complexity: what counting it gave.
        global_batch_size: images of a step over all processes.
    """

    def __init__(self, net: nn.Module, complexity: Complexity, global_batch_size: int) -> None:
        super().__init__(complexity.train_macs_per_sample, global_batch_size)
        self.processed = {part.counted_by: 0 for part in complexity.parts() if part.counted_by != "images"}
        self._image_macs = image_cost(net)
        self._macs_of_each = {name: complexity.train_macs_by(name) for name in self.processed}
        self._macs_of_images = 0

    @property
    def train_macs(self) -> int:
        """Multiply-adds spent on training so far."""
        return self._macs_of_images + sum(count * self._macs_of_each[name] for name, count in self.processed.items())

    def totals(self, trainer: pl.Trainer, recomputed_macs: int = 0) -> Compute:
        """Return what the run has cost so far, with the regions that were computed."""
        return replace(super().totals(trainer, recomputed_macs), processed=dict(self.processed))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add the batch, over all processes."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        images = batch[0]
        mine = [
            len(images) * self._image_macs(*images.shape[-2:]),
            *(pl_module.processed[name] for name in self.processed),
        ]
        counts = torch.tensor(mine, device=trainer.strategy.root_device)
        macs, *regions = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        self._macs_of_images += macs
        for name, count in zip(self.processed, regions, strict=True):
            self.processed[name] += count

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"macs_of_images": self._macs_of_images, "processed": dict(self.processed)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._macs_of_images = state_dict["macs_of_images"]
        self.processed = dict(state_dict["processed"])
