"""A run that is under way: its record, and what is needed to close it, however it ends."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate

from benchmarks.records import files
from benchmarks.training.budget import Budget
from benchmarks.training.cost_meter import CostMeter
from benchmarks.training.environment import process_rank
from benchmarks.training.out_of_memory import OutOfMemory
from benchmarks.training.progress_writer import ProgressWriter
from benchmarks.training.stopping import StopRequest


@dataclass
class OpenRun:
    """A run from the start of its rank to its outcome.

    Attributes:
        directory: the run's.
        config: the resolved configuration.
        record: as the launcher has opened it; rank 0 writes it.
        stop: what asks the run to stop.
        cost, budget: of training; None in a run that only tests, and before they are there.
        recomputed_macs: multiply-adds of one training image that recomputation adds.
        mirror: what sends the record to a server; None for none.
    """

    directory: Path
    config: dict[str, Any]
    record: dict[str, Any]
    stop: StopRequest
    trainer: pl.Trainer | None = None
    memory: OutOfMemory | None = None
    cost: CostMeter | None = None
    budget: Budget | None = None
    recomputed_macs: int = 0
    mirror: Any = None
    progress: ProgressWriter = field(init=False)

    def __post_init__(self) -> None:
        self.progress = ProgressWriter(self.directory)

    def write(self) -> None:
        """Write the record, on rank 0."""
        if process_rank() == 0:
            files.write_json(self.directory / files.RECORD, self.record)

    def open_mirror(self) -> None:
        """Start the mirror that the configuration names, on rank 0."""
        if process_rank() == 0 and self.config["logger"]["mode"] != "none":
            self.mirror = instantiate(self.config["logger"], directory=self.directory)
            self.record["wandb"] = {"id": self.record["run_id"], "mode": self.mirror.mode}
            self.write()

    def close(self, status: str, error: str | None, exit_code: int) -> int:
        """Write the outcome to the record and the mirror; return the exit code."""
        if process_rank() != 0:
            return exit_code
        self.record |= {"status": status, "error": error, "finished": files.now()}
        if self.cost is not None and self.trainer is not None:
            self.record["compute"] = self._compute(self.cost, self.trainer)
            if self.budget is not None and "protocol" in self.record:
                self.record["protocol"]["budget"] = self.budget.as_dict()
        try:
            self.write()
        finally:
            signal.alarm(0)  # the mirror has its own bound
            if self.mirror is not None:
                self.record["wandb"]["mode"] = self.mirror.finish()
                self.write()
        return exit_code

    def _compute(self, cost: CostMeter, trainer: pl.Trainer) -> dict[str, Any]:
        compute = cost.totals(trainer)
        if self.recomputed_macs:
            recomputed = 2 * self.recomputed_macs * cost.samples_seen
            compute["hardware_train_flops"] = 2 * cost.train_macs + recomputed
        return compute
