"""``mirror`` after the fact, read back by each client's own reader."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from support.benchmark_command import command
from support.mirrors import CLIENTS, READERS, check
from support.records import make_run

from benchmarks.config.compose import expand
from benchmarks.records.locks import LAUNCHER, Lock
from benchmarks.records.runs import read_history
from benchmarks.tracking.content import KILLED, Content
from benchmarks.tracking.follower import writer_class


def finished(root: Path, seed: int = 0, **changes: object) -> Path:
    """A run folder with a configuration and a picture."""
    [trial] = expand(["logger=none", f"seed={seed}", f"output_root={root}"], False)
    directory = make_run(root, seed=seed, run_id=f"run-{seed}-abcdefgh", **changes)
    (directory / "config.yaml").write_text(yaml.safe_dump(trial.config))
    (directory / "pictures").mkdir()
    Image.new("RGB", (4, 3)).save(directory / "pictures" / "test-0.png")
    return directory


def record_of(directory: Path) -> dict:
    return json.loads((directory / "record.json").read_text())


def test_csv_has_each_row_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = finished(tmp_path, epochs=5)
    finished(tmp_path, 1, status="failed", epochs=2)
    for written in (7, 0):
        assert command("export mirror")([str(tmp_path), "--to", "csv"]) == 0
        assert f"2 of 2 runs in csv, complete; {written} rows of history.jsonl" in capsys.readouterr().out
        check("csv", tmp_path, directory, record_of(directory), read_history(directory / "history.jsonl"))
    with open(directory / "history.jsonl", "a") as file:  # resumed, with a metric that was not there
        file.write(
            json.dumps(
                {"epoch": 6, "step": 999, "train_flops": 1, "lr": 0, "val/loss": 1, "val/top1_err": 1, "val/x": 0.5}
            )
        )
    assert command("export mirror")([str(directory), "--to", "csv"]) == 0
    rows = read_history(directory / "history.jsonl")
    held = check("csv", tmp_path, directory, record_of(directory), rows)
    assert held.curves["val/x"] == [(999, 0.5)] and len(rows) == 6
    assert float(held.facts["test/top1_err"]) == record_of(directory)["metrics"]["test/top1_err"]


def test_a_run_that_was_killed_is_closed_and_one_that_runs_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = finished(tmp_path, status="running", error=None, epochs=2)
    lock = Lock.take(directory / LAUNCHER)
    assert command("export mirror")([str(tmp_path), "--to", "csv"]) == 1
    said = capsys.readouterr()
    assert f"{directory}: still running; its own process sends it" in said.err
    assert not (directory / "history.csv").exists()
    assert lock is not None
    lock.release()
    assert command("export mirror")([str(tmp_path), "--to", "csv"]) == 0
    facts = READERS["csv"](tmp_path, directory).facts
    assert (facts["status"], facts["error"], facts["exit_code"]) == ("killed", KILLED, "137")


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("mlflow", {"tracking_uri": None}, "mlflow ui --backend-store-uri 'sqlite:///{}/mlflow.db'"),
        ("mlflow", {"tracking_uri": "http://of-the-run:5000"}, "http://of-the-run:5000"),
        ("tensorboard", {}, "tensorboard --logdir '{}'"),
    ],
)
def test_one_is_told_to_look_where_a_run_was_written(
    name: str, settings: dict, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://of-this-shell:5000")
    root = tmp_path / "my runs"
    content = Content(root / "digits" / "resnet20" / "common" / "seed0", {}, {}, settings)
    assert writer_class(name).where(content) == said.format(root.resolve())


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CLIENTS:
        for imported in [
            module for module in sys.modules if module.startswith((f"{name}.", "benchmarks.tracking.to_"))
        ]:
            monkeypatch.delitem(sys.modules, imported)
        monkeypatch.setitem(sys.modules, name, None)
        assert command("export mirror")([str(tmp_path), "--to", name]) == 2
        assert f"--to {name} needs {name}: pip install -e '.[{name}]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_reads_each_row_once_after_a_resume_and_once_more(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "outputs"
    directory = finished(root, status="interrupted", error="Ctrl-C", epochs=12)
    whole = (directory / "history.jsonl").read_text()
    (directory / "history.jsonl").write_text("".join(whole.splitlines(keepends=True)[:5]))
    assert command("export mirror")([str(root), "--to", name]) == 0
    assert "5 rows of" in capsys.readouterr().out
    assert READERS[name](root, directory).ended == ("" if name == "tensorboard" else "interrupted")
    (directory / "history.jsonl").write_text(whole)
    interrupted = record_of(directory)
    done = record_of(make_run(tmp_path / "other", epochs=12)) | {"run_id": interrupted["run_id"]}
    (directory / "record.json").write_text(json.dumps(done))
    other = finished(root, 1, epochs=3)
    for written in (10, 0):
        assert command("export mirror")([str(root), "--to", name]) == 0
        assert f"2 of 2 runs in {name}, complete; {written} rows" in capsys.readouterr().out
    for run in (directory, other):
        held = check(name, root, run, record_of(run), read_history(run / "history.jsonl"))
        assert held.pictures >= 1
        assert held.error is None
        assert held.name.startswith("resnext29_8x4d · digits · resnext_digits · seed ") or name == "tensorboard"
