"""What launching costs, as ratios to importing torch and Lightning once: ``python -m benchmarks overhead``."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

RUN = Path(__file__).resolve().parents[1] / "run.py"
ONE_STEP = (
    "model=resnet",
    "data=digits",
    "recipe.epochs=1",
    "+trainer.limit_train_batches=1",
    "trainer.accelerator=cpu",
)
CELLS = 20
LIMITS = {"sweep": 6.0, "ranks": 2.5}


def commands(root: Path, logger: str) -> dict[str, list[str]]:
    """The import, a sweep of ``CELLS`` one-step cells, and a cell of two ranks; results go below ``root``."""
    run = [sys.executable, str(RUN), *ONE_STEP, f"logger={logger}", "cluster.oversubscribe=true"]
    return {
        "import": [sys.executable, "-c", "import torch, pytorch_lightning"],
        "sweep": [*run, "-m", f"seed=range({CELLS})", f"output_root={root / 'sweep'}"],
        "ranks": [*run, "trainer.devices=2", f"output_root={root / 'ranks'}"],
    }


def measure(repeats: int, logger: str) -> dict[str, list[float]]:
    """Seconds of each command, one after the other in every repeat, so that all meet the same machine."""
    seconds: dict[str, list[float]] = {}
    for _ in track(range(repeats), "measuring", console=Console(stderr=True), transient=True):
        with tempfile.TemporaryDirectory() as root:
            for name, command in commands(Path(root), logger).items():
                started = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                seconds.setdefault(name, []).append(time.perf_counter() - started)
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 1 where a ratio is above its limit."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks overhead",
        description=f"Time a sweep of {CELLS} one-step cells and a cell of two ranks, as ratios to one "
        '`python -c "import torch, pytorch_lightning"` measured beside them.',
    )
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    parser.add_argument("--logger", default="none", choices=("none", "wandb"), help="default: none")
    arguments = parser.parse_args(argv)
    seconds = measure(arguments.repeats, arguments.logger)
    table = Table("what", "seconds, median", "ratio to the import, median", "limit")
    worst = 0.0
    for name, taken in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(taken, seconds["import"], strict=True))
        worst = max(worst, ratio / LIMITS.get(name, ratio))
        table.add_row(name, f"{statistics.median(taken):.2f}", f"{ratio:.2f}", str(LIMITS.get(name, "")))
    Console().print(table)
    return 1 if worst > 1 else 0
