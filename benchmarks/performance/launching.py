"""What starting, launching and tracking cost: ``python -m benchmarks measure launching``.

Starting and launching are ratios to importing torch and Lightning once.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.performance.cases import chosen
from benchmarks.performance.document import MeasuredTable, add_write_option, interval, this_machine
from benchmarks.records.code_version import ROOT
from benchmarks.records.files import PROGRESS
from benchmarks.terminal import at_least, with_bar

RUN = ROOT / "run.py"
ONE_STEP = (
    *("model=resnet", "data=digits", "recipe.epochs=1"),
    *("trainer.limit_train_batches=1", "trainer.accelerator=cpu"),
)
PARTS = ("start", "tracking")
TRIALS = 20
FIRST = "first step"
FIRST_STEP = ("model=resnext", "data=digits", "recipe.epochs=1")
LIMITS = {"help": 1.0, FIRST: 1.5, "sweep": 6.0, "ranks": 2.5}  # --help: 2 s, on a machine that imports in as long
LOOK_S = 0.005
TABLE = MeasuredTable(
    "start_up",
    "Starting and launching",
    {
        "what": ("what", "s"),
        "seconds": ("seconds, median", ".2f"),
        **interval("ratio", "ratio to the import, median", ".2f"),
        "limit": ("limit", ".1f"),
    },
    '`import` is `python -c "import torch, pytorch_lightning"`, `help` is `run.py --help`, `first step` lasts from the start '
    f"of `run.py {' '.join(FIRST_STEP[:2])}` to the end of its first training step, `sweep` is {TRIALS} one-step trials, "
    "`ranks` a one-step trial of two processes. All are run one after the other in every repeat; ratios are within a repeat, "
    "`from` and `to` the lowest and the highest.",
)


def commands(root: Path, logger: str) -> dict[str, list[str]]:
    """Return the commands by name; their results go below ``root``."""
    start = [sys.executable, str(RUN)]
    run = [*start, *ONE_STEP, f"logger={logger}", "cluster.oversubscribe=true"]
    return {
        "import": [sys.executable, "-c", "import torch, pytorch_lightning"],
        "help": [*start, "--help"],
        FIRST: [*start, *FIRST_STEP, f"logger={logger}", f"output_root={root / FIRST}"],
        "sweep": [*run, "-m", f"seed=range({TRIALS})", f"output_root={root / 'sweep'}"],
        "ranks": [*run, "trainer.devices=2", f"output_root={root / 'ranks'}"],
    }


def measure(repeats: int, logger: str) -> dict[str, list[float]]:
    """Return seconds of each command, one after the other in every repeat, so that all meet the same machine."""
    seconds: dict[str, list[float]] = {}
    for _ in with_bar(range(repeats), "measuring"):
        with tempfile.TemporaryDirectory() as root:
            for name, command in commands(Path(root), logger).items():
                until = Path(root, FIRST) if name == FIRST else None
                seconds.setdefault(name, []).append(_duration(command, until))
    return seconds


def summarise(seconds: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return rows of the table: medians, and ratios to the import of the same repeat."""
    rows = []
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds["import"], strict=True)]
        row = {"what": name, "seconds": statistics.median(times), "limit": LIMITS.get(name)}
        rows.append(row | {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)})
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure launching``."""
    parser.description = (
        f"start: time run.py --help, a run's first training step, a sweep of {TRIALS} one-step trials and a trial of two "
        'ranks, as ratios to one `python -c "import torch, pytorch_lightning"` measured beside them. tracking: train ResNeXt '
        "on the digits and state which share of a step's time the tracker takes. Exit code 1 where one is above its limit."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: both")
    parser.add_argument("--repeats", type=at_least(1), default=3, help="of start; default: 3")
    parser.add_argument("--logger", default="none", choices=("none", "wandb"), help="of start; default: none")
    parser.add_argument("--epochs", type=at_least(1), default=5, help="of tracking; default: 5")
    parser.add_argument("--mode", default="offline", choices=("offline", "online"), help="of W&B; default: offline")
    add_write_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; return 0, or 1 where a figure is above its limit; raise ValueError where there is no such part."""
    parts = chosen(arguments.parts, PARTS, "part")
    too_long = False
    if "start" in parts:
        rows = summarise(measure(arguments.repeats, arguments.logger))
        too_long |= any(row["limit"] is not None and row["ratio"] > row["limit"] for row in rows)
        TABLE.report(arguments, rows, this_machine("cpu"))
    if "tracking" in parts:
        from benchmarks.performance import tracking_time

        row = tracking_time.row(arguments.epochs, arguments.mode)
        too_long |= row["share"] > tracking_time.LIMIT
        tracking_time.TABLE.report(arguments, [row], this_machine("cpu"))
    return int(too_long)


def _duration(command: Sequence[str], until: Path | None) -> float:
    """Return seconds that a command takes; where ``until`` is a run's output root, to the end of its first training step.

    Raises:
        RuntimeError: it fails, or the run ends without a sign of a step.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    step = None
    while until is not None and step is None and process.poll() is None:
        if any(until.glob(f"*/*/*/*/{PROGRESS}")):  # of data in memory: written first at the end of the first step
            step = time.perf_counter() - started
        time.sleep(LOOK_S)
    code = process.wait()
    if code or (until is not None and step is None):
        raise RuntimeError(f"{' '.join(command)} failed with exit code {code}")
    return time.perf_counter() - started if step is None else step
