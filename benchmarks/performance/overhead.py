"""What starting and launching cost, as ratios to importing torch and Lightning once: ``python -m benchmarks overhead``."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks import terminal
from benchmarks.performance.document import add_write_option, table, write_record
from benchmarks.records.files import PROGRESS

RUN = Path(__file__).resolve().parents[2] / "run.py"
ONE_STEP = (
    "model=resnet",
    "data=digits",
    "recipe.epochs=1",
    "+trainer.limit_train_batches=1",
    "trainer.accelerator=cpu",
)
TRIALS = 20
FIRST = "first step"
FIRST_STEP = ("model=resnext", "data=digits", "recipe.epochs=1")
LIMITS = {"help": 1.0, FIRST: 1.5, "sweep": 6.0, "ranks": 2.5}  # --help: 2 s, on a machine that imports in as long
LOOK_S = 0.005
TITLE = "Starting and launching"
COLUMNS = {
    "what": ("what", "s"),
    "seconds": ("seconds, median", ".2f"),
    "ratio": ("ratio to the import, median", ".2f"),
    "low": ("from", ".2f"),
    "high": ("to", ".2f"),
    "limit": ("limit", ".1f"),
}
NOTE = (
    '`import` is `python -c "import torch, pytorch_lightning"`, `help` is `run.py --help`, `first step` lasts from the start '
    f"of `run.py {' '.join(FIRST_STEP[:2])}` to the end of its first training step, `sweep` is {TRIALS} one-step trials, "
    "`ranks` a one-step trial of two processes. All are run one after the other in every repeat; ratios are within a repeat, "
    "`from` and `to` the lowest and the highest."
)


def commands(root: Path, logger: str) -> dict[str, list[str]]:
    """The import, the help, a run, a sweep of ``TRIALS`` one-step trials, a trial of two ranks; results go below ``root``."""
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
    """Seconds of each command, one after the other in every repeat, so that all meet the same machine."""
    seconds: dict[str, list[float]] = {}
    for _ in track(range(repeats), "measuring", console=Console(stderr=True), transient=True):
        with tempfile.TemporaryDirectory() as root:
            for name, command in commands(Path(root), logger).items():
                until = Path(root, FIRST) if name == FIRST else None
                seconds.setdefault(name, []).append(_duration(command, until))
    return seconds


def summarise(seconds: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Rows of the table: medians, and ratios to the import of the same repeat."""
    rows = []
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds["import"], strict=True)]
        found = {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "limit": LIMITS.get(name)}
        rows.append({"what": name, "seconds": statistics.median(taken), **found})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 1 where a ratio is above its limit."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks overhead",
        description=f"Time run.py --help, a run's first training step, a sweep of {TRIALS} one-step trials and a trial of two "
        'ranks, as ratios to one `python -c "import torch, pytorch_lightning"` measured beside them.',
    )
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    parser.add_argument("--logger", default="none", choices=("none", "wandb"), help="default: none")
    add_write_option(parser)
    arguments = parser.parse_args(argv)
    rows = summarise(measure(arguments.repeats, arguments.logger))
    terminal.console().print(table(COLUMNS, rows))
    if arguments.write:
        import torch

        from benchmarks.training.environment import environment

        command = f"python -m benchmarks overhead --repeats {arguments.repeats} --logger {arguments.logger} --write"
        write_record("start_up", environment(torch.device("cpu")), command, TITLE, COLUMNS, rows, NOTE)
    return 1 if any(row["limit"] is not None and row["ratio"] > row["limit"] for row in rows) else 0


def _duration(command: Sequence[str], until: Path | None) -> float:
    """Seconds that a command takes; or, where ``until`` is the output root of a run, to the end of its first training step.

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
