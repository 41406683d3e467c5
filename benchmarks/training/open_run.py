"""A run that is under way: its record, and what is needed to close it, however it ends."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate

from benchmarks.records import files
from benchmarks.records.record import Mirror, Record, to_json
from benchmarks.training.batch_statistics import BatchStatistics
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
        batch_statistics: what computes batch-norm statistics of a short run anew; None where the recipe has running averages.
        recomputed_macs: multiply-adds of one training image that recomputation adds.
        mirror: what sends the record to W&B; None for none.
        followers: the mirrors beside it.
    """

    directory: Path
    config: dict[str, Any]
    record: Record
    stop: StopRequest
    trainer: pl.Trainer | None = None
    memory: OutOfMemory | None = None
    cost: CostMeter | None = None
    budget: Budget | None = None
    batch_statistics: BatchStatistics | None = None
    recomputed_macs: int = 0
    mirror: Any = None
    followers: list[Any] = field(default_factory=list)
    progress: ProgressWriter = field(init=False)

    def __post_init__(self) -> None:
        self.progress = ProgressWriter(self.directory)

    def write(self) -> None:
        """Write the record, on rank 0."""
        if process_rank() == 0:
            files.write_json(self.directory / files.RECORD, to_json(self.record))

    def start_mirror(self) -> None:
        """Start the mirrors that the configuration names, on rank 0: W&B's, which looks for its server while the run is set up,
        is the group's own node, the others' lie in it."""
        if process_rank() != 0:
            return
        logger = self.config["logger"]
        for name, node in logger.items():
            if isinstance(node, dict):
                self.followers.append(instantiate(node, directory=self.directory, name=name))
        if logger["mode"] != "none":
            self.mirror = instantiate(logger, directory=self.directory, _recursive_=False)

    def open_mirror(self) -> None:
        """Have W&B's mirror follow the run, whose record is described. Raises ValueError where its server refuses."""
        if self.mirror is not None:
            try:
                self.mirror.open()
            finally:
                self.record.wandb = Mirror(id=self.record.run_id, mode=self.mirror.mode)
                self.write()

    def close(self, status: str, error: str | None, exit_code: int) -> int:
        """Write the outcome to the record and the mirror; return the exit code."""
        if process_rank() != 0:
            return exit_code
        record = self.record
        record.status, record.error, record.finished = status, error, files.now()
        if self.cost is not None and self.trainer is not None:
            record.compute = self.cost.totals(self.trainer, self.recomputed_macs)
            if self.budget is not None and record.protocol is not None:
                record.protocol.budget = self.budget.spent()
        try:
            self.write()
        finally:
            signal.alarm(0)  # the mirror has its own bound
            for follower in self.followers:
                follower.finish()
            mode = None if self.mirror is None else self.mirror.finish()
            if mode is not None and record.wandb is not None:
                record.wandb = Mirror(id=record.run_id, mode=mode)
                self.write()
        return exit_code
