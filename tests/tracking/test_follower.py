"""Mirrors beside the training: a trial with all of them, one that fails, and a trial that is killed and resumed."""

import json
import sys
from pathlib import Path

import pytest
from support.benchmark_command import command
from support.commands import ROOT, rows, run_here
from support.mirrors import CLIENTS, check

from benchmarks.config.compose import expand
from benchmarks.records.files import last_lines

TINY = (
    *("model=densenet", "model.depth=10", "model.growth_rate=4", "recipe.epochs=4"),
    *("trainer.limit_train_batches=2", "trainer.accelerator=cpu"),
)


def seeds(root: Path) -> list[Path]:
    return sorted(root.glob("digits/*/*/seed*"))


def record_of(directory: Path) -> dict:
    return json.loads((directory / "record.json").read_text())


def test_a_mirror_that_fails_harms_no_run_and_is_completed_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "my outputs"
    [trial] = expand([*TINY, "logger=csv", f"output_root={root}"], False)
    (trial.directory / "summary.csv").mkdir(parents=True)
    done = run_here(*TINY, "logger=csv", root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    [directory] = seeds(root)
    record = record_of(directory)
    assert (record["status"], record["wandb"]) == ("ok", None) and not (root / "wandb").exists()
    [line] = [line for line in last_lines(directory / "log.txt", 50) if line.startswith("csv: ")]
    assert line.endswith(f"`python -m benchmarks export mirror '{directory}' --to csv` writes what is missing")

    (directory / "summary.csv").rmdir()
    assert command("export mirror")([str(directory), "--to", "csv"]) == 0
    assert "0 rows of history.jsonl written now" in capsys.readouterr().out  # these had come beside the training
    check("csv", root, directory, record, rows(directory))


@pytest.mark.parametrize("name", CLIENTS)
def test_without_its_package_nothing_starts(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
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
    overrides = (*TINY, *fault, *once, f"logger=[{','.join(('csv', *CLIENTS))}]")
    assert run_here(*overrides, root=root).returncode == 1
    [directory] = seeds(root)
    assert len(rows(directory)) == 2
    assert run_here(*overrides, root=root).returncode == 0
    assert len(rows(directory)) == 4 and len(record_of(directory)["resumptions"]) == 1
    for name in ("csv", *CLIENTS):
        held = check(name, root, directory, record_of(directory), rows(directory))
        assert name == "csv" or held.pictures == 1
