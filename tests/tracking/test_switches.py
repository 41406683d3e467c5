"""W&B's own switches and its Sweeps: the real client and agent against a server on this machine that counts connections."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.wandb_server import WandbServer, environment

from benchmarks.config.compose import expand_all
from benchmarks.tracking.mirror import resolve_mode
from benchmarks.tracking.wandb_run import connect

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "model=densenet", "model.depth=10", "model.growth_rate=4", "recipe.epochs=2", "trainer.limit_train_batches=2",
    "trainer.accelerator=cpu", "cluster.threads_per_process=1",
)  # fmt: skip
LIMIT_S = 240


@pytest.fixture
def counted() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server


def call(server: WandbServer, folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder`` with a key for this server and no other variable of W&B's but these."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    return subprocess.run(
        command, cwd=folder, env=clean | environment(home, server) | variables, capture_output=True, text=True,
        timeout=LIMIT_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def train(server: WandbServer, folder: Path, *overrides: str, **variables: str) -> dict[str, Any]:
    """Run one trial; return its record."""
    arguments = [*TINY, *overrides, f"output_root={folder / 'outputs'}"]
    done = call(server, folder, sys.executable, str(ROOT / "run.py"), *arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = (folder / "outputs").glob("digits/*/*/seed*/record.json")
    return json.loads(path.read_text())


def switch(folder: Path, word: str) -> None:
    """Write what ``wandb offline`` and ``wandb disabled`` write into the folder where they are typed."""
    (folder / "wandb").mkdir()
    (folder / "wandb" / "settings").write_text(f"[default]\nmode = {word}\n")


def own_files(folder: Path) -> list[Path]:
    """W&B's own files, but for those of the switch."""
    return [path for path in folder.rglob("*") if "wandb" in path.parts[-2:] and path.name not in ("wandb", "settings")]


@pytest.mark.slow
@pytest.mark.parametrize("variable", [{"WANDB_MODE": "disabled"}, {"WANDB_DISABLED": "true"}])
def test_disabled_asks_nothing_and_writes_nothing(
    counted: WandbServer, tmp_path: Path, variable: dict[str, str]
) -> None:
    record = train(counted, tmp_path, "logger.mode=online", **variable)
    assert (record["status"], record["wandb"]["mode"]) == ("ok", "disabled")
    assert counted.accepted == 0
    assert not (tmp_path / "outputs" / "wandb").exists() and own_files(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("word", ["disabled", "offline"])
def test_the_settings_file_is_obeyed(counted: WandbServer, tmp_path: Path, word: str) -> None:
    switch(tmp_path, word)
    record = train(counted, tmp_path)
    assert (record["status"], record["wandb"]["mode"]) == ("ok", word)
    assert counted.accepted == 0
    assert bool(list((tmp_path / "outputs").glob("wandb/offline-run-*/*.wandb"))) == (word == "offline")


@pytest.mark.parametrize(
    ("variables", "file", "mode"),
    [
        ({}, "", "online"),
        ({"WANDB_MODE": "disabled"}, "", "disabled"),
        ({"WANDB_MODE": "offline"}, "", "offline"),
        ({"WANDB_MODE": "dryrun"}, "", "offline"),
        ({"WANDB_MODE": "online"}, "offline", "online"),  # the variable is the nearer one, as with the client
        ({"WANDB_DISABLED": "true"}, "", "disabled"),
        ({"WANDB_DISABLED": "false"}, "", "online"),
        ({}, "offline", "offline"),
        ({}, "disabled", "disabled"),
        ({"WANDB_MODE": "no"}, "", "offline"),
    ],
)
def test_the_switches(
    counted: WandbServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    variables: dict[str, str],
    file: str,
    mode: str,
) -> None:
    if file:
        switch(tmp_path, file)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in (environment(tmp_path, counted) | variables).items():
        monkeypatch.setenv(name, value)
    assert [resolve_mode(asked, tmp_path) for asked in ("auto", "online")] == [mode, mode]
    if mode == "disabled":  # what is asked for by a command is not sent either
        with pytest.raises(ValueError, match="W&B is disabled"):
            connect(tmp_path)
    assert bool(counted.accepted) == (mode == "online")  # whether it answers is looked at
    assert ("mode" in capfd.readouterr().err) == (variables == {"WANDB_MODE": "no"})


def test_the_configuration_has_what_the_variables_say_where_it_is_not_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = {
        "project": "PROJECT",
        "entity": "ENTITY",
        "name": "NAME",
        "group": "RUN_GROUP",
        "tags": "TAGS",
        "notes": "NOTES",
    }
    for variable in named.values():
        monkeypatch.setenv(f"WANDB_{variable}", f"of {variable}")
    [trial] = expand_all([], multirun=False)
    assert {key: trial.config["logger"][key] for key in named} == {key: f"of {named[key]}" for key in named}
    [trial] = expand_all([f"logger.{key}=mine" for key in named], multirun=False)
    assert {trial.config["logger"][key] for key in named} == {"mine"}


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CI writes a secret that there is not."""
    unset = {"project": "compute-accuracy", "entity": None, "group": None, "name": None, "tags": None, "notes": None}
    of_wandb = [f"WANDB_{'RUN_' * (key == 'group')}{key.upper()}" for key in unset]
    for name in (*of_wandb, "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "")
    [trial] = expand_all(["logger=[wandb,mlflow]"], multirun=False)
    logger = trial.config["logger"]
    assert {key: logger[key] for key in unset} == unset
    assert (logger["mlflow"]["tracking_uri"], logger["mlflow"]["experiment"]) == (None, "compute-accuracy")


@pytest.mark.slow
def test_what_the_variables_say_is_honoured_but_for_the_configuration(counted: WandbServer, tmp_path: Path) -> None:
    variables = {
        "PROJECT": "theirs",
        "NAME": "a name",
        "RUN_GROUP": "a group",
        "TAGS": "one,two",
        "DIR": str(tmp_path / "w"),
    }
    (tmp_path / "w").mkdir()
    record = train(counted, tmp_path, **{f"WANDB_{name}": value for name, value in variables.items()})
    run = counted.runs["theirs", record["run_id"]]
    assert (run.display_name, run.group) == ("a name", "a group") and {"one", "two", "digits", "debug"} <= {*run.tags}
    assert list((tmp_path / "w" / "wandb").glob("run-*")) and not list((tmp_path / "outputs").glob("wandb/run-*"))


@pytest.mark.slow
def test_the_configuration_goes_before_the_variables(counted: WandbServer, tmp_path: Path) -> None:
    overrides = ("logger.project=mine", "logger.entity=null")
    record = train(counted, tmp_path, *overrides, WANDB_PROJECT="theirs", WANDB_ENTITY="nobody")  # there is no such
    assert ("mine", record["run_id"]) in counted.runs


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["${args_no_hyphens}", "${args}"])
def test_an_agent_of_wandb_sweeps(counted: WandbServer, tmp_path: Path, arguments: str) -> None:
    """The ready file, over two points; ``${args}`` is what the agent writes by default, ``--seed=1``."""
    sweep = yaml.safe_load((ROOT / "docs" / "sweep.yaml").read_text())
    assert sweep["command"][-1] == "${args_no_hyphens}" and sweep["metric"]["name"] == "val/top1_err"
    options = dict(text.split("=") for text in (*TINY, f"output_root={tmp_path / 'outputs'}"))
    sweep["program"] = str(ROOT / "run.py")
    sweep["parameters"] = {key: {"value": value} for key, value in options.items()} | {"seed": {"values": [0, 1]}}
    sweep["command"] = ["${env}", sys.executable, "${program}", arguments]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    client = str(Path(sys.executable).with_name("wandb"))
    created = call(counted, tmp_path, client, "sweep", "sweep.yaml")
    assert created.returncode == 0, created.stderr
    [stored] = counted.sweeps.values()
    done = call(counted, tmp_path, client, "agent", f"{stored.project}/{stored.name}")
    assert done.returncode == 0 and stored.state == "FINISHED", done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("outputs/digits/*/*/seed*/record.json"))]
    assert [(record["seed"], record["status"]) for record in records] == [(0, "ok"), (1, "ok")]
    assert [record["run_id"] for record in records] == [f"{stored.name}run1", f"{stored.name}run2"]
    for record in records:
        run = counted.runs[stored.project, record["run_id"]]
        assert run.sweep == stored.name and run.exit_code == 0 and len(run.history) == 2
        assert all("val/top1_err" in row for row in run.history)
    assert counted.unknown == []


def test_the_ready_sweep_composes() -> None:
    sweep = yaml.safe_load((ROOT / "docs" / "sweep.yaml").read_text())
    values = [f"{key}={','.join(map(str, option['values']))}" for key, option in sweep["parameters"].items()]
    assert len(expand_all(values)) == 27
