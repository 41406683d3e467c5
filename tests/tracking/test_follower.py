"""Mirrors beside the training: a trial with all of them, one that fails, and a trial that is killed and resumed."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.commands import ROOT, rows, run_here
from support.mirrors import CLIENTS, check

from benchmarks.records.files import last_lines

TINY = (
    *("model=densenet", "model.depth=10", "model.growth_rate=4", "recipe.epochs=4"),
    *("trainer.limit_train_batches=2", "trainer.accelerator=cpu"),
)


def seeds(root: Path) -> list[Path]:
    return sorted(root.glob("digits/*/*/seed*"))


def record_of(directory: Path) -> dict:
    return json.loads((directory / "record.json").read_text())


def test_a_mirror_that_fails_harms_no_run(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    done = run_here(*TINY, "logger=csv", root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    [first] = seeds(root)
    check("csv", root, first, record_of(first), rows(first))
    assert record_of(first)["wandb"] is None and not (root / "wandb").exists()

    second = first.with_name("seed1")
    (second / "history.csv").mkdir(parents=True)
    done = run_here(*TINY, "logger=csv", "seed=1", root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert record_of(second)["status"] == "ok" and len(rows(second)) == 4
    [line] = [line for line in last_lines(second / "log.txt", 50) if line.startswith("csv: ")]
    assert line.endswith(f"`python -m benchmarks mirror {second} --to csv` writes what is missing")


@pytest.mark.parametrize("name", CLIENTS)
def test_without_its_package_nothing_starts(tmp_path: Path, name: str) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    done = run_here(*TINY, f"logger=[wandb,{name}]", root=tmp_path / "outputs")
    assert done.returncode == 2 and done.stderr == f"run.py: logger={name} needs {name}: pip install -e '.[{name}]'\n"
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_all_at_once_over_a_kill_and_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "outputs"
    fault = ("recipe.optimizer._target_=support.faults.FaultySGD", "+recipe.optimizer.fault=kill")
    once = ("+recipe.optimizer.at=5", f"+recipe.optimizer.once={tmp_path / 'once'}")
    command = (*TINY, *fault, *once, f"logger=[{','.join(('csv', *CLIENTS))}]")
    assert run_here(*command, root=root).returncode == 1
    [directory] = seeds(root)
    assert len(rows(directory)) == 2
    assert run_here(*command, root=root).returncode == 0
    assert len(rows(directory)) == 4 and len(record_of(directory)["resumptions"]) == 1
    for name in ("csv", *CLIENTS):
        held = check(name, root, directory, record_of(directory), rows(directory))
        assert name == "csv" or held.pictures == 1
