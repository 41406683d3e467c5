"""Lives and deaths of runs, for the process that forks them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.forked_trials import ROOT


class Plan:
    """Trials to be run by one process: ``tests/support/forked_trials.py``."""

    def __init__(self, folder: Path, runs: dict[str, tuple[list[str], int]]) -> None:
        self.folder = folder
        self.runs = runs
        self.trials: list[dict[str, Any]] = []

    def add(self, name: str, run: str, *lives: dict[str, Any] | None) -> None:
        overrides, ranks = self.runs[run]
        directory = str(self.folder / name)
        self.trials.append({"directory": directory, "overrides": overrides, "ranks": ranks, "lives": lives, "run": run})

    def run(self, timeout: float = 300) -> dict[str, dict[str, Any]]:
        """Results by name, with what was asked for."""
        plan = self.folder / "plan.json"
        plan.write_text(json.dumps(self.trials))
        command = [sys.executable, str(ROOT / "tests" / "support" / "forked_trials.py"), str(plan)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=timeout, env=os.environ | {"OMP_NUM_THREADS": "1"})
        results = json.loads(plan.with_suffix(".done").read_text())
        return {
            Path(trial["directory"]).name: trial | result for trial, result in zip(self.trials, results, strict=True)
        }


def die(name: str, occurrence: int = 0, **how: Any) -> dict[str, Any]:
    return {"name": name, "occurrence": occurrence, **how}
