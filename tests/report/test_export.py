"""The tables of all runs: read back by other libraries, they hold what the records hold."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from support.benchmark_command import command
from support.records import make_run

main = command("export")


def without_nulls(value: Any) -> Any:
    """`value` less what is null or an empty mapping, which a table cannot tell from what is not there."""
    if not isinstance(value, dict):
        return value
    pruned = {key: without_nulls(item) for key, item in value.items()}
    return {key: item for key, item in pruned.items() if item is not None and item != {}}


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Rows with their nesting, by the rules of the documentation alone: dots nest, columns marked `json` hold JSON."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    table = parquet.read_table(path)
    in_json = {field.name for field in table.schema if b"json" in (field.metadata or {})}
    rows = []
    for flat in table.to_pylist():
        row: dict[str, Any] = {}
        for name, value in flat.items():
            if value is None:
                continue
            part = row
            *above, last = name.split(".")
            for key in above:
                part = part.setdefault(key, {})
            part[last] = json.loads(value) if name in in_json else value
        rows.append(row)
    return rows


def expected(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Records and histories by directory, from the files themselves."""
    records, histories = {}, {}
    for path in root.rglob("record.json"):
        directory = path.parent.relative_to(root).as_posix()
        record = json.loads(path.read_text(encoding="utf-8"))
        records[directory] = without_nulls(record) | {"directory": directory}
        rows = [json.loads(line) for line in (path.parent / "history.jsonl").read_text().splitlines()]
        run_id = {"run_id": record["run_id"]} if record.get("run_id") else {}
        named = {"directory": directory, "name": record["name"], "seed": record["seed"]}
        histories[directory] = [without_nulls(row) | named | run_id for row in rows]
    return records, histories


def same_types(one: Any, other: Any) -> bool:
    """Whether equal values are of equal types too, 2 is not 2.0 here."""
    if isinstance(one, dict):
        return all(same_types(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(same_types, one, other))
    return type(one) is type(other)


def test_a_thousand_runs_come_back_from_parquet_as_they_were(tmp_path: Path) -> None:
    rng = random.Random(0)
    for seed in range(1000):
        status = rng.choices(("ok", "failed", "running", "preempted"), (20, 2, 1, 1))[0]
        metrics = {"test/top1_err": rng.uniform(0, 100) if status == "ok" else None}
        overrides = {"recipe.optimizer.lr": rng.random(), "model.widths": [1, 2]} if seed % 3 == 0 else {}
        make_run(
            tmp_path,
            name=rng.choice(("resnet20", "densenet40_k12", "réseau ß 网")),
            seed=seed,
            epochs=rng.randrange(4),
            status=status,
            metrics=metrics,
            overrides=overrides,
            run_id=f"{seed:x}",
            resumptions=[{"at": "2026-11-22T21:00:00+00:00", "step": seed}] if seed % 7 == 0 else [],
            error='one "two"\n=3, four 🦉' if status == "failed" else None,
            environment={"cuda": None if seed % 2 else "13.0", "tied": seed % 5 == 0},
        )
    assert main([str(tmp_path), "--out", str(tmp_path / "tables")]) == 0
    records, histories = expected(tmp_path)
    runs = read_parquet(tmp_path / "tables" / "runs.parquet")
    assert len(runs) == len(records) == 1000
    for row in runs:
        assert row == records[row["directory"]]
        assert same_types(row, records[row["directory"]])
    rows = read_parquet(tmp_path / "tables" / "history.parquet")
    assert len(rows) == sum(map(len, histories.values()))
    found: dict[str, list[dict[str, Any]]] = {directory: [] for directory in histories}
    for row in rows:
        found[row["directory"]].append(row)
    assert found == histories
    assert same_types(found, histories)


def test_numbers_that_a_column_cannot_hold_exactly_are_kept_exactly(tmp_path: Path) -> None:
    odd = {
        "compute": [{"train_flops": 10**19 + 1}, {"train_flops": 7}],
        "metrics": [{"test/loss": 2**53 + 1}, {"test/loss": 0.1}],
        "protocol": [{"budget": {"limit": 10**9}}, {"budget": {"limit": 1.5}}],
        "baselines": [{"a.b": 1}, {"a": {"b": 2}}],
        "wandb": [{"id": "x"}, {"id": 3}],
        "code": [{"state": {"clean": True}}, {"state": "clean"}],
        "parallel": [{"factor": math.pi}, {"factor": 5e-324}],
    }
    for seed in (0, 1):
        make_run(tmp_path, seed=seed, epochs=1, **{key: values[seed] for key, values in odd.items()})
    assert main([str(tmp_path)]) == 0
    records, _ = expected(tmp_path)
    for row in read_parquet(tmp_path / "runs.parquet"):
        assert row == records[row["directory"]]


def test_csv_has_a_row_per_run_and_per_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, status="failed", error='one, "two"\nthree', history=[], compute=None)
    make_run(tmp_path, seed=1, metrics={"test/top1_err": 0.1 + 0.2})
    (tmp_path / "runs.csv").write_text("an older export")
    assert main([str(tmp_path), "--format", "csv"]) == 0
    with (tmp_path / "runs.csv").open(encoding="utf-8", newline="") as file:
        failed, ended = csv.DictReader(file)
    assert failed["error"] == 'one, "two"\nthree' and failed["compute.train_flops"] == ""
    assert float(ended["metrics.test/top1_err"]) == 0.1 + 0.2
    assert ended["parallel.sync_batchnorm"] == "false"
    assert json.loads(ended["dataset.classes"]) == [str(digit) for digit in range(10)]
    with (tmp_path / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 13)]
    assert {row["directory"] for row in rows} == {ended["directory"]}
    out, err = capsys.readouterr()
    assert f"runs     {tmp_path / 'runs.csv'}  2 rows" in out and "12 rows" in out and err == ""
    assert not list(tmp_path.glob(".*tmp"))


def test_every_value_of_the_configuration_is_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = "name: a\nmodel: {depth: 20, widths: [1, 2]}\nseed: 0\nrecipe: {epochs: 3}\nmodule: {net: {depth: 20}}\n"
    (make_run(tmp_path) / "config.yaml").write_text(config)
    (make_run(tmp_path, seed=1) / "config.yaml").write_text("{")
    assert main([str(tmp_path), "--format", "csv"]) == 0
    with (tmp_path / "runs.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    expected = {name: value for name, value in first.items() if name.startswith("config.")}
    values = {"model.depth": "20", "model.widths": "[1, 2]", "name": "a", "recipe.epochs": "3", "seed": "0"}
    assert expected == {f"config.{key}": value for key, value in values.items()}
    assert second["config.model.depth"] == ""
    assert "seed1/config.yaml is damaged" in capsys.readouterr().err


def test_rows_of_the_history_have_the_name_and_seed_and_the_points_of_training_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = {"samples_seen": 1, "train_flops": 1, "wall_s": 1.0}
    steps = {"step": [50, 100], "train_flops": [5, 10], "loss": [2.5, 1.5], "lr": [0.1, 0.1]}
    rows = [{**costs, "epoch": 1, "step": 40}, {**costs, "epoch": 2, "step": 110, "steps": steps}]
    make_run(tmp_path, name="resnet20", seed=7, history=rows)
    assert main([str(tmp_path), "--format", "csv"]) == 0
    assert "runs.csv  1 row, " in capsys.readouterr().out
    with (tmp_path / "history.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert [(row["name"], row["seed"], row["step"]) for row in (first, second)] == [
        ("resnet20", "7", "40"),
        ("resnet20", "7", "110"),
    ]
    assert first["steps"] == "" and json.loads(second["steps"]) == steps


def test_what_cannot_be_read_is_named_and_the_rest_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path)
    make_run(tmp_path, seed=1, schema=2)
    broken = make_run(tmp_path, seed=2) / "history.jsonl"
    broken.write_text("{\n" + broken.read_text())
    assert main([str(tmp_path), "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert "2 rows" in out and "12 rows" in out
    assert "a record of schema 2" in err and f"{broken}, line 1: not a JSON object" in err


def test_a_runs_own_files_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    (run / "history.csv").write_text("of logger=csv")
    assert main([str(run), "--format", "csv"]) == 2
    assert f"{run} is a run's own folder: --out DIR writes the tables elsewhere\n" in capsys.readouterr().err
    assert (run / "history.csv").read_text() == "of logger=csv" and not (run / "runs.csv").exists()
    assert main([str(run), "--format", "csv", "--out", str(tmp_path / "tables")]) == 0
    assert (tmp_path / "tables" / "history.csv").exists()


def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, expected in (
        ([str(tmp_path / "none"), "--format", "csv"], "no folder"),
        ([str(tmp_path), "--format", "csv"], "nothing to export"),
    ):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert expected in err and err.count("\n") == 1
    assert os.listdir(tmp_path) == []
    make_run(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "pip install -e '.[parquet]', or --format csv" in err and err.count("\n") == 1
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--format", "xlsx"])


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+cmd|'/C calc'!A0", "-x", "=\x1b[2J"])
def test_no_cell_is_a_formula_or_obeyed_by_a_terminal(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, name=text, status="failed", error=text)
    assert main([str(tmp_path), "--format", "csv"]) == 0
    [row] = csv.DictReader((tmp_path / "runs.csv").read_text(encoding="utf-8").splitlines())
    for cell in (row["name"], row["error"]):
        assert cell.startswith(f"'{text[0]}") and cell.isprintable()
