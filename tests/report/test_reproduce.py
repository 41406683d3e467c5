"""The contract of a table: exit code and file of the verdict, of runs that are there and of a sweep that is started."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.benchmark_command import command
from support.commands import CLEAN, ROOT, THREADS, records
from support.records import make_run

from benchmarks.analysis.estimates import estimate_of_values
from benchmarks.analysis.published import tables
from benchmarks.analysis.reproduction import Line
from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.records.runs import load_runs
from benchmarks.report.reproduce import _train, overall

reproduce = command("report reproduce")

TABLE = "resnext_table7"
ROW = next(row for row in tables()[TABLE].rows if row.network == "resnext29_8x64d" and row.data == "cifar10")
PAPER = ROW.figures["top1_err"]


def make_runs(root: Path, errors: tuple[float, ...], epochs: int | None = None) -> None:
    overrides = {} if epochs is None else {"recipe.epochs": epochs}
    more = [f"{key}={value}" for key, value in overrides.items()]
    for seed, error in enumerate(errors):
        folder = make_run(
            root, data=ROW.data, name=ROW.network, recipe=ROW.recipe, seed=seed, experiment=TABLE, row=ROW.row,
            metrics={"test/top1_err": error, "test/n": 10_000}, overrides=overrides,
        )  # fmt: skip
        [trial] = expand([f"experiment={TABLE}", f"row={ROW.row}", f"seed={seed}", *more], multirun=False)
        assert isinstance(trial, Trial)
        (folder / "config.yaml").write_text(yaml.safe_dump(trial.config), encoding="utf-8")


@pytest.mark.parametrize(
    ("errors", "verdict", "code"),
    [
        ((PAPER - 0.01, PAPER, PAPER + 0.01), "reproduced", 0),
        ((PAPER + 1.99, PAPER + 2, PAPER + 2.01), "differs", 1),
        ((), "open", 2),
    ],
    ids=["equal", "worse", "no run"],
)
def test_the_exit_code_is_the_verdict_and_the_file_says_why(
    tmp_path: Path, errors: tuple[float, ...], verdict: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    make_runs(tmp_path, errors)
    assert reproduce([TABLE, f"row={ROW.row}", f"output_root={tmp_path}", "--hours", "0"]) == code
    content = json.loads((tmp_path / "tables" / f"{TABLE}.verdict.json").read_text())
    assert (content["verdict"], content["exit_code"], content["training"]) == (verdict, code, "none asked for")
    [row] = [row for row in content["rows"] if row["figure"] == "top1_err"]
    assert (row["paper"], row["n"]) == (PAPER, len(errors))
    assert f"{TABLE}: {verdict}, exit code {code}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_table_that_is_the_papers_differs_by_chance_in_5_of_100(tmp_path: Path) -> None:
    """Of a single figure so many do, and of twelve nearly half have one."""
    make_run(tmp_path, data=ROW.data, name=ROW.network, recipe=ROW.recipe, metrics={"test/n": 10_000})
    [run], _ = load_runs(tmp_path)
    rng = np.random.default_rng(0)
    verdicts, alone = [], []
    for _ in range(200):
        judged = []
        for row in range(12):
            paper = replace(ROW, row=str(row), printed={"top1_err": str(rng.normal(6, 0.25))}, statistic="1")
            ours = estimate_of_values(rng.normal(6, 0.25, 3).tolist(), percent=True)
            judged.append(Line(paper, "top1_err", (run,), (), ours))
        verdicts.append(overall(judged))
        alone.append(any(line.verdict()[0] == "differs" for line in judged))
    assert sum(alone) > 60
    assert verdicts.count("differs") <= 200 * 0.05 + 2.6 * math.sqrt(200 * 0.05 * 0.95)
    far = replace(judged[0], estimate=estimate_of_values([8.0, 8.001, 8.002], percent=True))
    assert overall([far, *judged[1:]]) == "differs"


EQUAL, WORSE = (PAPER - 0.01, PAPER, PAPER + 0.01), (PAPER + 1.99, PAPER + 2, PAPER + 2.01)


@pytest.mark.parametrize(
    ("whole", "shorter", "code"),
    [
        (EQUAL, WORSE, 0),
        (WORSE, EQUAL, 1),
        (EQUAL[:1], EQUAL, 2),
        (EQUAL[:1], WORSE, 2),
        ((), WORSE, 1),
        ((), EQUAL, 0),
    ],
    ids=["equal", "worse", "one seed", "one seed, shorter worse", "shorter alone, worse", "shorter alone"],
)
def test_a_shorter_training_does_not_judge_a_row_that_was_run_as_published(
    tmp_path: Path, whole: tuple[float, ...], shorter: tuple[float, ...], code: int
) -> None:
    make_runs(tmp_path, whole)
    make_runs(tmp_path, shorter, epochs=30)
    assert reproduce([TABLE, f"row={ROW.row}", f"output_root={tmp_path}", "--hours", "0"]) == code


def test_a_table_that_prints_no_figure_is_open(tmp_path: Path) -> None:
    assert reproduce(["resnext_table1", f"output_root={tmp_path}", "--hours", "0"]) == 2
    content = json.loads((tmp_path / "tables" / "resnext_table1.verdict.json").read_text())
    assert [(row["params"], row["macs"]) for row in content["rows"]] == [(25.5e6, 4.1e9), (25.0e6, 4.2e9)]
    assert reproduce(["resnext_table8", f"output_root={tmp_path}", "--hours", "0"]) == 2
    content = json.loads((tmp_path / "tables" / "resnext_table8.verdict.json").read_text())
    assert {(row["params"], row["macs"]) for row in content["rows"]} == {(None, None)}  # the paper prints none


def test_a_table_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(["resnext_table77", f"output_root={tmp_path}"]) == 2
    assert "no table 'resnext_table77'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["preresnet_table4"], "no row of preresnet_table4 can be run here: report preresnet_table4 prints"),
        ([TABLE, "row=resnext29"], f"{TABLE} has no row 'resnext29'"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_training(
    tmp_path: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[object] = []
    monkeypatch.setattr("benchmarks.report.reproduce._train", lambda *given: trained.append(given))
    assert reproduce([*arguments, f"output_root={tmp_path}"]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert not trained and not list(tmp_path.iterdir())


def test_a_wrong_call_ends_as_an_open_table_but_leaves_the_verdict_file_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"output_root={tmp_path}"
    assert reproduce([TABLE, f"row={ROW.row}", root, "--hours", "0"]) == 2
    [file] = tmp_path.rglob("*.verdict.json")
    before = file.read_bytes()
    capsys.readouterr()
    assert reproduce([TABLE, "row=none", root]) == 2
    assert reproduce([f"{TABLE}7", root]) == 2
    with pytest.raises(SystemExit, match="^2$"):
        reproduce([TABLE, root, "--hours", "-1"])
    assert capsys.readouterr().err.count("report reproduce: ") == 3
    assert [file] == [*tmp_path.rglob("*.verdict.json")] and file.read_bytes() == before


def test_what_is_missing_is_trained_by_run_py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By that of this code, whatever lies in the working directory."""
    (tmp_path / "run.py").write_text("raise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "outputs"
    code = reproduce([TABLE, f"row={ROW.row}", "seed=0", f"output_root={root}", "no_such_key=1"])
    assert code == 2
    content = json.loads((root / "tables" / f"{TABLE}.verdict.json").read_text())
    assert content["verdict"] == "open" and content["training"] == "run.py ended with exit code 2"
    assert "no_such_key" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_what_interrupts_it_ends_the_sweep_that_it_started(number: signal.Signals, tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    small = ("resnet_table6", "row=resnet20", "data=digits", "seed=0", "logger=none", f"{THREADS}=1")
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "report", "reproduce", *small, f"output_root={root}"],
        cwd=ROOT, env=CLEAN, stdout=subprocess.DEVNULL, process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(root.rglob("history.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, number)  # as `timeout` and a terminal do
    assert process.wait(60) == 130
    [record] = records(root).values()
    assert (record["status"], record["error"]) == ("interrupted", "interrupted by SIGTERM")
    assert (root / "report.html").exists()  # the sweep has come to its end
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in lines if str(root).encode() in line]


def test_a_sweep_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.report.reproduce.END_S", 0.1)
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
    began = time.monotonic()
    assert _train([sys.executable, "-c", deaf], 1 / 3600) == "stopped after 0.000277778 h"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("written", ["output_root=~/runs", "output_root='{}/runs'", "++output_root={}/runs"])
def test_what_is_trained_is_what_is_judged(
    tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output root as run.py reads it: zsh leaves ~ as it is within an argument."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_runs(tmp_path / "runs", EQUAL)
    assert reproduce([TABLE, f"++row={ROW.row}", written.format(tmp_path), "--hours", "0"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
