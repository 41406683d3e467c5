"""What Lightning calls at every batch: only what the suite's callbacks define."""

import pytest
import pytorch_lightning as pl
from pytorch_lightning.profilers import SimpleProfiler

from benchmarks.training.batch_hooks import BATCH_HOOKS, BatchCallback, leave_out_profiler
from benchmarks.training.budget import Budget
from benchmarks.training.checkpoints import Checkpoints
from benchmarks.training.cost_meter import CostMeter
from benchmarks.training.finite_loss import FiniteLoss
from benchmarks.training.history import HistoryWriter
from benchmarks.training.out_of_memory import OutOfMemory
from benchmarks.training.progress_writer import ProgressWriter
from benchmarks.training.step_seed import StepSeed

END = "on_train_batch_end"
DEFINED: dict[type[pl.Callback], set[str]] = {
    OutOfMemory: set(),
    Budget: {"on_train_batch_start", END},
    StepSeed: {"on_train_batch_start"},
    FiniteLoss: {END},
    CostMeter: {END},
    HistoryWriter: {"on_train_batch_start", END},
    ProgressWriter: {END, "on_validation_batch_end", "on_test_batch_end"},
    Checkpoints: {END},
}


@pytest.mark.parametrize("callback", DEFINED)
def test_callbacks_have_no_other_hooks_of_batches(callback: type[pl.Callback]) -> None:
    assert issubclass(callback, BatchCallback)
    assert {name for name in BATCH_HOOKS if callable(getattr(callback, name))} == DEFINED[callback]


def test_the_list_of_batch_hooks_is_that_of_lightning() -> None:
    of_batches = {name for name in dir(pl.Callback) if "batch" in name or name.startswith(("on_before", "on_after"))}
    assert of_batches == {*BATCH_HOOKS, "on_predict_batch_start", "on_predict_batch_end"}


def test_a_profiler_is_left_out_only_where_it_measures_nothing() -> None:
    quiet, measuring = (
        pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, profiler=profiler)
        for profiler in (None, SimpleProfiler())
    )
    for trainer in (quiet, measuring):
        leave_out_profiler(trainer)
    assert quiet.profiler.profile("a step") is quiet.profiler.profile("another")  # type: ignore[attr-defined]
    with measuring.profiler.profile("a step"):  # type: ignore[attr-defined]
        pass
    assert measuring.profiler.recorded_durations["a step"]  # type: ignore[attr-defined]
