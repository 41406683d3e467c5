"""What Lightning calls several times in every step, and what of it the suite leaves out."""

from contextlib import nullcontext
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.profilers import PassThroughProfiler

BATCH_HOOKS = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_validation_batch_start", "on_validation_batch_end"),
    *("on_test_batch_start", "on_test_batch_end"),
)


class BatchCallback(pl.Callback):
    """A callback of which Lightning calls at each batch only the hooks that it defines.

    Lightning calls every hook of every callback, the empty ones of the base class too, unless it is not callable.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in BATCH_HOOKS:
            if getattr(cls, name) is getattr(pl.Callback, name):
                setattr(cls, name, None)


def leave_out_profiler(trainer: pl.Trainer) -> None:
    """Replace the method of a profiler that measures nothing: Lightning enters it some 37 times in a step."""
    profiler: Any = trainer.profiler  # type: ignore[attr-defined]
    if isinstance(profiler, PassThroughProfiler):
        nothing = nullcontext()
        profiler.profile = lambda action_name: nothing  # type: ignore[method-assign, assignment, return-value]
