"""What tracking costs a training step: ``python -m benchmarks measure launching tracking``."""

import resource
import tempfile
import time
from collections import defaultdict
from typing import Any, ClassVar

from pytorch_lightning.profilers import Profiler

from benchmarks.config.compose import expand_all
from benchmarks.launch.new_record import new_record
from benchmarks.performance.document import MeasuredTable
from benchmarks.records.files import RECORD, read_json, write_config, write_json
from benchmarks.records.record import to_json
from benchmarks.training import rank

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
STEP = "run_training_batch"  # as the trainer names it for its profiler
TRACKING = tuple(
    f"[Callback]{callback}.{hook}"
    for callback in ("FiniteLoss", "CostMeter", "HistoryWriter", "ProgressWriter")
    for hook in (
        *("on_train_batch_start", "on_train_batch_end", "on_validation_batch_end"),
        *("on_validation_start", "on_validation_end"),
    )
)


class Clocks(Profiler):
    """Seconds of processor time and of the clock in each action of a trainer, in all."""

    processor: ClassVar[defaultdict[str, float]] = defaultdict(float)
    wall: ClassVar[defaultdict[str, float]] = defaultdict(float)

    def start(self, action_name: str) -> None:
        """Begin an action."""
        self.wall[action_name] -= time.perf_counter()
        self.processor[action_name] -= time.thread_time()

    def stop(self, action_name: str) -> None:
        """End an action."""
        self.processor[action_name] += time.thread_time()
        self.wall[action_name] += time.perf_counter()


def row(epochs: int, mode: str) -> dict[str, Any]:
    """Train ResNeXt on the digits in this process, with one thread, by the code of every trial; ``mode`` is W&B's.

    Return the row of the table: ``step_ms`` and ``tracking_ms`` are processor time of the training thread, which does not
    depend on what else the machine does; ``waiting_ms`` is what the tracker's writing waits for the disk and the machine.
    Raises RuntimeError where the run fails.
    """
    place = ("trainer.accelerator=cpu", "cluster.threads_per_process=1", f"logger.mode={mode}")
    with tempfile.TemporaryDirectory() as root:
        words = ["model=resnext", "data=digits", f"recipe.epochs={epochs}", *place, f"output_root={root}"]
        [trial] = expand_all(words, multirun=False)
        trial.config["trainer"]["profiler"] = {"_target_": f"{__name__}.Clocks"}
        trial.directory.mkdir(parents=True)
        write_config(trial.directory, trial.config)
        write_json(trial.directory / RECORD, to_json(new_record(trial.config, trial.overrides, None)))
        code = rank.main(trial.directory)
        record = read_json(trial.directory / RECORD)
    if code or record is None:
        raise RuntimeError(f"the run failed: {record and record['error']}")
    tracking, wall = (sum(clock[action] for action in TRACKING) for clock in (Clocks.processor, Clocks.wall))
    seconds = {"step": Clocks.processor[STEP], "tracking": tracking, "waiting": wall - tracking}
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "network": "resnext20_8x4d",
        "share": tracking / Clocks.processor[STEP],
        **{f"{name}_ms": 1e3 * spent / record["compute"]["steps"] for name, spent in seconds.items()},
        "mirror_s": children.ru_utime + children.ru_stime,
    }
