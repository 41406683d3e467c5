"""Training that ends with its budget, in FLOPs, seconds or joules, with a complete schedule at every budget."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from benchmarks.records.record import SpentBudget
from benchmarks.training.batch_hooks import BatchCallback
from benchmarks.training.energy import energy_counter
from benchmarks.training.stopping import StopRequest

# The trainer's keys, and the whole units in which a budget is counted: steps or FLOPs, microseconds, millijoules.
KEYS = {"max_train_flops": "train_flops", "max_train_seconds": "train_seconds", "max_train_joules": "train_joules"}
PER_UNIT = {"train_seconds": 10**6, "train_joules": 10**3}
SHARES = 10_000


class Budget(BatchCallback):
    """Ends training within one step of a budget, wherever in an epoch that is; evaluation and saving are not counted.

    The recipe's schedule is stretched over the budget: a step at the share p of it, 0 ≤ p < 1, has the learning rate of the
    recipe's epoch ⌊p·E⌋. A budget of exactly E epochs is the recipe itself; with any other the schedule still comes to its end.
    A schedule by steps gets a step for each of the budget's, or SHARES of them where their number is not known before.

    FLOPs are counted in whole steps, so a run is a function of its configuration and resumes exactly; where steps differ in
    cost, as a detector's, they are read after each step. Seconds and joules are read then too, when the device has finished the
    step; all processes go by rank 0's clock, or by the energy of all devices.

    Args:
        kind: ``train_flops``, ``train_seconds`` or ``train_joules``.
        limit: in that unit.
        step_flops: FLOPs of one training step over all processes; of steps that differ, those of a usual one.
        epochs: E, the length of the recipe's own schedule.
        stop: whose group of the processes counts seconds and joules together.
        read_flops: what reads the FLOPs of training so far, over all processes, where steps differ in cost; else None.

    Raises:
        ValueError: a limit of FLOPs below the cost of one step, or steps that cost none.
    """

    def __init__(
        self,
        kind: str,
        limit: float,
        step_flops: int,
        epochs: int,
        stop: StopRequest,
        read_flops: Callable[[], int] | None = None,
    ) -> None:
        self.kind = kind
        self.limit = limit
        self.step_flops = step_flops
        self.epochs = epochs
        self.stop = stop
        self.read_flops = read_flops if kind == "train_flops" else None
        if kind == "train_flops" and not step_flops:
            raise ValueError(
                "trainer.max_train_flops: a training step costs 0 FLOPs: no product of the network is counted"
            )
        self.total = int(limit // step_flops) if kind == "train_flops" else math.ceil(limit * PER_UNIT[kind])
        if self.total < 1:
            raise ValueError(
                f"trainer.max_train_flops={limit:g} does not cover one training step, which costs {step_flops:.3g} FLOPs"
            )
        if self.read_flops is not None:
            self.total, self.step_flops = math.ceil(limit), 1
        self.done = 0
        self._rates: list[float] = []
        self._meter: Callable[[], int] | None = None
        self._read = 0

    @property
    def over(self) -> bool:
        """Whether the budget is spent."""
        return self.done >= self.total

    def spent(self) -> SpentBudget:
        """Return kind, limit and what is spent so far, in the same unit."""
        spent = self.done * self.step_flops if self.kind == "train_flops" else self.done / PER_UNIT[self.kind]
        return SpentBudget(kind=self.kind, limit=self.limit, spent=spent)

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Takes the schedule over from Lightning. Raises ValueError for joules, on a device without an energy counter."""
        if stage != "fit":
            return
        count = self.epochs
        if pl_module.by_step:
            count = self.total if self.kind == "train_flops" and self.read_flops is None else SHARES
        self._rates = pl_module.learning_rates(count)
        pl_module.schedules = False
        if self.kind == "train_joules":
            self._meter = energy_counter(trainer.strategy.root_device)
        elif self.kind == "train_seconds":
            self._meter = (lambda: time.perf_counter_ns() // 1000) if trainer.is_global_zero else (lambda: 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the meter; ends at once if the budget was spent before."""
        self.start_clock()
        trainer.should_stop = trainer.should_stop or self.over

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Sets the learning rate of this step."""
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self._rates[self.done * len(self._rates) // self.total]

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Adds the step; the last one ends training, which evaluates and saves even amid an epoch."""
        if self.read_flops is not None:
            self.done = self.read_flops()
        else:
            self.done += 1 if self._meter is None else self._since(self._meter, trainer.strategy.root_device)
        trainer.should_stop = trainer.should_stop or self.over

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.done = state_dict["done"]

    def start_clock(self, *arguments: Any, **keywords: Any) -> None:
        """Count from here: what was since the last step is not training."""
        if self._meter is not None:
            self._read = self._meter()

    on_train_epoch_start = on_validation_end = start_clock  # evaluation is not counted

    def _since(self, meter: Callable[[], int], device: torch.device) -> int:
        """Units spent by all processes since the last reading, the same number on each."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the host runs ahead of it
        before, self._read = self._read, meter()
        spent = torch.tensor(self._read - before)
        if self.stop.group is not None:
            dist.all_reduce(spent, group=self.stop.group)
        return int(spent)


def take_budget(
    arguments: dict[str, Any],
    step_flops: int,
    epochs: int,
    stop: StopRequest,
    read_flops: Callable[[], int] | None = None,
) -> Budget | None:
    """Return the budget that the trainer's ``arguments`` set, or None for epochs. Raises ValueError for more than one, or one
    that does not cover a step.

    Takes its keys out of them, as Lightning's trainer has none of that name, and with a budget the limit of epochs too.
    """
    limits = {key: arguments.pop(key, None) for key in KEYS}
    limits_set = {key: limit for key, limit in limits.items() if limit is not None}
    if not limits_set:
        return None
    if len(limits_set) > 1:
        settings = ", ".join(f"trainer.{key}={limit}" for key, limit in limits_set.items())
        raise ValueError(f"a run has one budget, got {settings}: set the others to null")
    [(key, limit)] = limits_set.items()
    arguments["max_epochs"] = -1
    return Budget(KEYS[key], limit, step_flops, epochs, stop, read_flops)
