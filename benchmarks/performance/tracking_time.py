"""What tracking costs a training step: ``python -m benchmarks measure launching tracking``."""

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.config.compose import expand_all
from benchmarks.launch.new_record import new_record
from benchmarks.performance.document import MeasuredTable
from benchmarks.records.files import CONFIG, RECORD, read_json, write_atomic, write_json
from benchmarks.records.record import to_json
from benchmarks.training import rank
from benchmarks.training.cost_meter import CostMeter
from benchmarks.training.finite_loss import FiniteLoss
from benchmarks.training.history import HistoryWriter
from benchmarks.training.progress_writer import ProgressWriter
from benchmarks.training.step_seed import StepSeed

LIMIT = 0.005  # of a step's time
TABLE = MeasuredTable(
    "logging_cost",
    "Tracking",
    {
        "network": ("network", "s"),
        "step_ms": ("step, ms", ".2f"),
        "tracking_ms": ("tracking, ms", ".4f"),
        "share": ("share", ".3%"),
        "waiting_ms": ("waiting, ms", ".4f"),
        "mirror_s": ("mirror, s", ".1f"),
    },
    "Compute accounting, progress, history and W&B's row, of a step of ResNeXt-20 8x4d on the digits in one thread, by clocks "
    f"in the tracker: processor time of the training thread, at most {LIMIT:.1%} of a step; its waiting for the disk and other "
    "processes; and the processor time of the mirror's own processes in the whole run.",
)
# A step is taken to last from the seeding of it, which is the protocol's and not tracking's, to the first of these hooks.
STEP = (StepSeed, "on_train_batch_start"), (FiniteLoss, "on_train_batch_end")
TRACKING = (
    *((FiniteLoss, name) for name in ("on_train_batch_end", "on_validation_start", "on_validation_end")),
    *((CostMeter, name) for name in ("on_train_batch_end", "on_validation_start", "on_validation_end")),
    (HistoryWriter, "on_validation_end"),
    *((ProgressWriter, name) for name in ("on_train_batch_end", "on_validation_batch_end", "on_validation_end")),
)


def measure(root: Path, epochs: int, mode: str) -> dict[str, float]:
    """Train ResNeXt on the digits in this process, with one thread, by the code of every trial, with clocks in the tracker.

    Return seconds by name. ``step`` and ``tracking``, of a step, are processor time of the training thread, which does not
    depend on what else the machine does; ``waiting``, of a step, is what the tracker's writing waits for the disk and the
    machine; ``mirror`` is the processor time of the mirror's processes in all.
    """
    place = (f"output_root={root}", "trainer.accelerator=cpu", "cluster.threads_per_process=1", f"logger.mode={mode}")
    [run] = expand_all(["model=resnext", "data=digits", f"recipe.epochs={epochs}", *place], multirun=False)
    run.directory.mkdir(parents=True)
    write_atomic(run.directory / CONFIG, yaml.safe_dump(run.config, sort_keys=False))
    write_json(run.directory / RECORD, to_json(new_record(run.config, run.overrides, None)))
    spent = dict.fromkeys(("step", "tracking", "waiting"), 0.0)
    hooks: list[tuple[type, str]] = [*STEP, *TRACKING]
    originals = {place: getattr(*place) for place in hooks}
    begun = 0.0

    def clocked(place: tuple[type, str], hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> None:
            nonlocal begun
            wall, processor = time.perf_counter(), time.thread_time()
            if place == STEP[1]:
                spent["step"] += processor - begun
            hook(*arguments, **keywords)
            if place in TRACKING:
                used = time.thread_time() - processor
                spent["tracking"] += used
                spent["waiting"] += time.perf_counter() - wall - used
            if place == STEP[0]:
                begun = time.thread_time()

        return call

    for owned, hook in originals.items():
        setattr(owned[0], owned[1], clocked(owned, hook))
    try:
        code = rank.main(run.directory)
    finally:
        for owned, hook in originals.items():
            setattr(owned[0], owned[1], hook)
    record = read_json(run.directory / RECORD)
    if code or record is None:
        raise RuntimeError(f"the run failed: {record and record['error']}")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    mirror = children.ru_utime + children.ru_stime
    return {name: seconds / record["compute"]["steps"] for name, seconds in spent.items()} | {"mirror": mirror}


def row(epochs: int, mode: str) -> dict[str, Any]:
    """Measure and return the row of the table; ``mode`` is W&B's."""
    with tempfile.TemporaryDirectory() as root:
        seconds = measure(Path(root), epochs, mode)
    return {
        "network": "resnext20_8x4d",
        "share": seconds["tracking"] / seconds["step"],
        "step_ms": 1e3 * seconds["step"],
        "tracking_ms": 1e3 * seconds["tracking"],
        "waiting_ms": 1e3 * seconds["waiting"],
        "mirror_s": seconds["mirror"],
    }
