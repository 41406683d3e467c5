"""The callbacks of a run, in the order in which Lightning calls them."""

from typing import Any

import pytorch_lightning as pl

from benchmarks.complexity.cost import Complexity
from benchmarks.records.files import CHECKPOINTS
from benchmarks.training.batch_hooks import BatchCallback
from benchmarks.training.batch_statistics import BatchStatistics
from benchmarks.training.budget import KEYS, take_budget
from benchmarks.training.checkpoints import Averaging, Checkpoints
from benchmarks.training.cost_meter import CostMeter, RegionCostMeter
from benchmarks.training.finite_loss import FiniteLoss
from benchmarks.training.history import HistoryWriter
from benchmarks.training.open_run import OpenRun
from benchmarks.training.options import TrainingOptions
from benchmarks.training.out_of_memory import OutOfMemory
from benchmarks.training.step_seed import StepSeed
from benchmarks.training.validation_interval import ValidationInterval


class MirrorCheck(BatchCallback):
    """Ends a run, with a ValueError, that its mirror's server refuses, where the word comes only once training has begun."""

    def __init__(self, mirror: Any) -> None:
        self._mirror = mirror

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Look at what the server said, without waiting."""
        self._mirror.check()


def training_callbacks(
    run: OpenRun,
    options: TrainingOptions,
    arguments: dict[str, Any],
    module: Any,
    complexity: Complexity,
    origin: dict[str, str],
) -> list[pl.Callback]:
    """Return the callbacks of a run that trains, in the order in which Lightning calls them at each event. Raises ValueError
    for what ``take_budget`` refuses, and for batch-norm statistics of a detector or beside tiles.

    A loss is checked before anything is written of it, a budget reads what has been counted, and checkpoints come last: what
    they save includes the batch.
    """
    config, recipe = run.config, run.config["recipe"]
    step_flops = complexity.train_flops_per_sample * recipe["batch_size"]
    run.memory = OutOfMemory(run.record, options.on_out_of_memory == "accumulate")
    cost: CostMeter
    if complexity.parts():
        cost = RegionCostMeter(module.net, complexity, recipe["batch_size"])
    else:
        cost = CostMeter(complexity.train_macs_per_sample, recipe["batch_size"])
    read_flops = (lambda: 2 * cost.train_macs) if complexity.parts() else None
    run.cost, run.budget = cost, take_budget(arguments, step_flops, recipe["epochs"], run.stop, read_flops)
    run.progress.cost, run.progress.budget = run.cost, run.budget
    if images := recipe.get("batch_norm_images"):
        if complexity.parts():
            raise ValueError(
                f"recipe.batch_norm_images={images} is for classification and segmentation: leave it out of a detector's recipe"
            )
        if cuts := [name for name in ("elastic", "crop_size") if recipe["augment"].get(name)]:
            raise ValueError(
                f"recipe.batch_norm_images={images} takes training images whole, and recipe.augment.{cuts[0]} cuts tiles out "
                "of them: recipe.batch_norm_images=null"
            )
        run.batch_statistics = BatchStatistics(images, recipe["batch_size"], options.ema_decay)
    return [
        run.memory,
        *([] if run.mirror is None else [MirrorCheck(run.mirror)]),
        *([] if options.ema_decay is None else [Averaging(decay=options.ema_decay)]),
        *([] if run.batch_statistics is None else [run.batch_statistics]),
        StepSeed(config["seed"]),
        FiniteLoss(),
        cost,
        *([] if run.budget is None else [run.budget]),
        ValidationInterval(recipe.get("validate_every", 1)),
        HistoryWriter(run.directory, cost),
        run.progress,
        Checkpoints(
            run.directory / CHECKPOINTS,
            f"val/{module.primary}",
            run.stop,
            config["launch"]["checkpoint_every_steps"],
            origin,
        ),
    ]


def testing_callbacks(run: OpenRun, options: TrainingOptions, arguments: dict[str, Any]) -> list[pl.Callback]:
    """Return the callbacks of a run that only tests: what training its weights has cost is not known."""
    for key in KEYS:
        arguments.pop(key, None)  # none of Lightning's trainer
    run.memory = OutOfMemory(run.record, options.on_out_of_memory == "accumulate")
    return [run.memory, run.progress]
