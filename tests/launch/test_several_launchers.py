"""Several launchers on one sweep, on one disk, with readers beside them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import CLEAN, ROOT

from benchmarks.records.runs import load_runs

LAUNCHERS, TRIALS = 3, 50
LIMIT_S = 3000  # on a busy machine


def launcher(root: Path, log: Path) -> "subprocess.Popen[str]":
    overrides = (
        *("-m", "model=resnet", "model.depth=8", "model.base_channels=4", "data=digits", "logger=none"),
        *("recipe.epochs=1", "cluster.threads_per_process=1"),
        *(f"seed={','.join(map(str, range(TRIALS)))}", "trainer.limit_train_batches=1", "launch.workers=2"),
        *("recipe.optimizer._target_=support.faults.CountedSGD", f"+recipe.optimizer.starts={root}/starts-${{seed}}"),
    )
    with log.open("w") as out:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *overrides, f"output_root={root}"],
            stdout=out, stderr=subprocess.STDOUT, text=True,
            env=CLEAN | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), CLEAN.get("PYTHONPATH", "")])},
        )  # fmt: skip


@pytest.mark.slow
def test_each_trial_starts_once_whoever_takes_it(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    root.mkdir()
    logs = [tmp_path / f"launcher{number}.txt" for number in range(LAUNCHERS)]
    launchers = [launcher(root, log) for log in logs]
    command = [sys.executable, "-m", "benchmarks", "status", str(root)]
    deadline, readings = time.monotonic() + LIMIT_S, 0
    try:
        while any(process.poll() is None for process in launchers) and time.monotonic() < deadline:
            status = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=CLEAN)
            assert status.returncode == 0 and not status.stderr, status.stderr
            readings += 1
            time.sleep(3)
    finally:
        for process in launchers:  # none is left but past the deadline
            process.kill()
            process.wait()
    assert [process.returncode for process in launchers] == [0] * LAUNCHERS, [log.read_text() for log in logs]
    starts = {path.name: len(path.read_text().splitlines()) for path in root.glob("starts-*")}
    assert starts == {f"starts-{seed}": 1 for seed in range(TRIALS)}
    runs, problems = load_runs(root)
    assert [one.status for one in runs] == ["ok"] * TRIALS and not problems and readings
