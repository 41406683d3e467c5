"""W&B as a mirror: the real client, real trials, and every way in which they and the server end.

After each of them, and a ``sync`` where the server has missed something, its history equals ``history.jsonl`` row for row.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.benchmark_command import command
from support.wandb_server import ENTITY, HANG, KEY, StoredRun, WandbServer

from benchmarks.config.compose import expand
from benchmarks.launch.process_group import preload
from benchmarks.launch.trial_job import TrialJob, start_trial
from benchmarks.records.files import read_json
from benchmarks.records.runs import read_history
from benchmarks.tracking.content import KILLED, exit_code, mirrored
from benchmarks.tracking.mirror import Mirror

ROOT = Path(__file__).resolve().parents[2]
INIT_S, FINISH_S = 60, 90  # far beyond what tells that a server is gone
TINY = (
    "model=densenet", "model.depth=10", "model.growth_rate=4", "recipe.epochs=3", "trainer.limit_train_batches=2",
    "trainer.accelerator=cpu", "cluster.threads_per_process=1", "logger.project=p", "logger.mode=online",
)  # fmt: skip
LONG = ("recipe.epochs=200",)
SEVERAL_POINTS = ("recipe.epochs=12", "trainer.limit_train_batches=20")  # of the training loss, one every 50 steps
LIMIT_S = 300  # on a busy machine


def run_trial(root: Path, *overrides: str, act: Callable[[TrialJob], object] | None = None) -> Path:
    """Runs a trial with the real launcher, and ``act`` once its history has two rows; its directory."""
    preload(
        [
            "benchmarks.tracking.mirror",
            "datamodules.in_memory",
            "datamodules.sources.digits",
            "lightning_modules.classifier",
        ]
    )
    [trial] = expand([*TINY, *overrides, f"output_root={root}"], False)
    job = start_trial(trial)
    assert isinstance(job, TrialJob), job
    until = time.monotonic() + LIMIT_S
    while job.poll() is None:
        if act is not None and len(read_history(trial.directory / "history.jsonl")) >= 2:
            act(job)
            act = None
        if time.monotonic() > until:
            signal_ranks(job, signal.SIGKILL)
            pytest.fail(f"{LIMIT_S} s\n{(trial.directory / 'log.txt').read_text()}")
        time.sleep(0.01)
    return trial.directory


def signal_ranks(job: TrialJob, number: int) -> None:
    assert job._group is not None
    job._group.signal(number)


def once_there(server: WandbServer, act: Callable[[TrialJob], object]) -> Callable[[TrialJob], None]:
    """``act`` at a moment when the server has two rows and the run is not over: its ranks are stopped until then."""

    def wait_and_act(job: TrialJob) -> None:
        signal_ranks(job, signal.SIGSTOP)
        run_id, until = record_of(job.directory)["run_id"], time.monotonic() + LIMIT_S
        while ("p", run_id) not in server.runs or len(server.runs["p", run_id].history) < 2:
            assert time.monotonic() < until, (job.directory / "log.txt").read_text()
            time.sleep(0.01)
        act(job)
        signal_ranks(job, signal.SIGCONT)

    return wait_and_act


def mirror_of(server: WandbServer, directory: Path) -> StoredRun:
    return server.runs["p", record_of(directory)["run_id"]]


def record_of(directory: Path) -> dict[str, Any]:
    record = read_json(directory / "record.json")
    assert record is not None
    return record


def own(row: dict[str, Any]) -> dict[str, Any]:
    """Without what the client adds."""
    return {key: value for key, value in row.items() if not key.startswith("_")}


def check(server: WandbServer, directory: Path, status: str, code: int) -> StoredRun:
    """The server's run is the folder's: rows, state, exit code."""
    run, record = mirror_of(server, directory), record_of(directory)
    rows = read_history(directory / "history.jsonl")
    assert [own(row) for row in run.history] == mirrored(rows)
    assert rows or "not finite" in record["error"]
    steps = [row["trainer/global_step"] for row in run.history]
    assert steps == sorted(steps) and steps[-1:] == [row["step"] for row in rows][-1:]
    assert (run.summary["status"], run.exit_code, run.state) == (status, code, "failed" if code else "finished")
    if run.summary["status"] != "killed":
        assert record["status"] == status
    validated = {name for row in rows for name in row if name.startswith("val/")}
    named = {*validated, "lr", "train/loss", "train/loss_step"}
    assert {name: run.axes.get(name) for name in named} == dict.fromkeys(named, "compute/train_flops")
    return run


def synced(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a ``sync`` that must succeed says."""
    code = command("wandb sync")([str(root), "--workers", "1"])
    said = capsys.readouterr()
    assert code == 0, said
    return said.out


def test_a_run_goes_online_with_all_that_belongs_to_it(server: WandbServer, tmp_path: Path) -> None:
    import wandb

    own_words = ("logger.tags=[one,two]", "logger.notes=by hand", f"logger.entity={ENTITY}")
    directory = run_trial(tmp_path, "logger.checkpoints=true", *own_words)
    run, record = check(server, directory, "ok", 0), record_of(directory)
    assert record["wandb"] == {"id": run.name, "mode": "online"}
    assert (run.group, run.job_type, run.notes) == ("digits", "train", "by hand")
    name, data, recipe, seed = run.display_name.split(" · ")
    assert (name, data, seed) == ("densenet_bc10_k4", "digits", "seed 0") and recipe.startswith(
        "densenet_digits, epochs=3"
    )
    rows = read_history(directory / "history.jsonl")
    best = min(rows, key=lambda row: row["val/top1_err"])
    assert (run.summary["best_val"], run.summary["best_val_step"]) == (best["val/top1_err"], best["step"])
    assert run.tags == ["one", "two", "digits", record["environment"]["device_name"], "debug", "1 process"]
    assert run.config["hash"]["value"] == record["config_hash"]
    assert run.config["recipe"]["value"]["batch_size"] == 32
    numbers = {key: run.summary[key] for key in ("test/top1_err", "model/macs", "compute/train_flops")}
    assert numbers == {
        "test/top1_err": record["metrics"]["test/top1_err"],
        "model/macs": record["complexity"]["macs"],
        "compute/train_flops": record["compute"]["train_flops"],
    }

    api = wandb.Api(timeout=20)
    there = api.run(f"{ENTITY}/p/{run.name}")
    layers = json.loads(server.storage[f"run/p/{run.name}/{run.summary['layers']['path']}"])
    assert layers["columns"] == ["layer", "kind", "params", "activations", "macs", "train_macs"]
    assert sum(row[4] for row in layers["data"]) == record["complexity"]["macs"]
    assert sum(row[5] for row in layers["data"]) == record["complexity"]["train_macs_per_sample"]
    confusion = json.loads(server.storage[f"run/p/{run.name}/{run.summary['confusion']['path']}"])
    assert [row[1:] for row in confusion["data"]] == record["confusion"]
    [model] = [artifact for artifact in there.logged_artifacts() if artifact.type == "model"]
    downloaded = Path(model.download(str(tmp_path / "downloaded")))
    assert sorted(path.name for path in downloaded.iterdir()) == ["best.ckpt", "last.ckpt"]
    for path in downloaded.iterdir():
        assert path.read_bytes() == (directory / "checkpoints" / path.name).read_bytes()


@pytest.mark.slow
def test_offline_and_synced_equals_online_and_once_more_changes_nothing(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    online = run_trial(tmp_path / "online")
    offline = run_trial(tmp_path / "offline", "logger.mode=offline")
    assert record_of(offline)["run_id"] not in {name for _, name in server.runs}
    [file] = (tmp_path / "offline" / "wandb").glob("offline-run-*/*.wandb")
    file.write_bytes(file.read_bytes()[:1000])  # half-written, as after kill -9: nothing depends on it
    assert "; 1 sent now" in synced(tmp_path / "offline", capsys)
    first, second = check(server, online, "ok", 0), check(server, offline, "ok", 0)
    assert file.with_name(f"{file.name}.synced").exists()  # so that `wandb sync` does not send it again
    for same in ("display_name", "group", "job_type", "tags", "axes", "state", "exit_code"):
        assert getattr(first, same) == getattr(second, same), same
    for run in (first, second):
        run.config["logger"]["value"]["mode"] = run.config["_wandb"] = None
    differing = {key for key in first.config if first.config[key] != second.config[key]}
    assert differing == {"output_root"}
    assert first.summary.keys() == second.summary.keys()
    assert sorted(
        artifact.name.replace(first.name, "") for artifact in server.artifacts if artifact.run == first.name
    ) == (
        sorted(artifact.name.replace(second.name, "") for artifact in server.artifacts if artifact.run == second.name)
    )
    written = server.written
    assert "; 0 sent now" in synced(tmp_path / "offline", capsys)
    assert "; 0 sent now" in synced(tmp_path / "online", capsys)
    assert server.written == written


@pytest.mark.parametrize(
    "overrides",
    [
        (
            "recipe.optimizer._target_=support.faults.FaultySGD",
            "+recipe.optimizer.fault=raise",
            "+recipe.optimizer.at=5",
        ),
        pytest.param(("recipe.optimizer.lr=1e30", "recipe.epochs=100"), marks=pytest.mark.slow),
    ],
    ids=["exception", "nan"],
)
def test_a_failure_is_a_failure_there(
    server: WandbServer, tmp_path: Path, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    directory = run_trial(tmp_path, *overrides)
    assert check(server, directory, "failed", 1).summary["error"] == record_of(directory)["error"]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=lambda number: number.name
)
def test_a_signal_is_an_interruption_there(server: WandbServer, tmp_path: Path, number: signal.Signals) -> None:
    directory = run_trial(tmp_path, *LONG, act=lambda job: signal_ranks(job, number))
    check(server, directory, "interrupted", 143)


@pytest.mark.slow
def test_kill_9_is_marked_by_sync_and_a_resumed_run_has_every_row_once(
    server: WandbServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill = once_there(server, lambda job: signal_ranks(job, signal.SIGKILL))
    directory = run_trial(tmp_path, *SEVERAL_POINTS, act=kill)
    assert mirror_of(server, directory).state == "running"
    assert "; 1 sent now" in synced(tmp_path, capsys)
    run = check(server, directory, "failed", 137)
    assert len(run.history) < 12 + 4
    # A row that the client had not sent when it was killed.
    lost = run.streams["wandb-history.jsonl"].pop()
    run.summary["_step"] = len(run.history) - 1
    before = record_of(directory)["run_id"]
    assert run_trial(tmp_path, *SEVERAL_POINTS) == directory
    assert record_of(directory)["run_id"] == before
    run = check(server, directory, "ok", 0)
    points = [row["trainer/global_step"] for row in run.history if "train/loss_step" in row]
    assert points == [50, 100, 150, 200] and len(run.history) == 12 + len(points)
    assert own(run.history[json.loads(lost)["_step"]]) == own(json.loads(lost))
    assert len([name for _, name in server.runs if name == before]) == 1


@pytest.mark.slow
def test_a_run_from_scratch_is_another_run(server: WandbServer, tmp_path: Path) -> None:
    first = record_of(run_trial(tmp_path / "first"))
    second = record_of(run_trial(tmp_path / "second"))
    assert first["config_hash"] == second["config_hash"]
    assert first["run_id"] != second["run_id"]
    assert {("p", first["run_id"]), ("p", second["run_id"])} <= server.runs.keys()


@pytest.mark.parametrize("start", [pytest.param("refuses", marks=pytest.mark.slow), "is silent"])
def test_no_server_at_the_start_costs_a_bounded_wait_and_no_row(
    server: WandbServer, tmp_path: Path, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if start == "refuses":
        server.stop()
    server.fault = lambda kind, name: HANG if kind == "graphql" else None
    directory = run_trial(tmp_path, f"logger.init_timeout={INIT_S}")
    assert record_of(directory)["status"] == "ok"
    assert record_of(directory)["wandb"]["mode"] == "offline"
    assert "going on offline" in (directory / "log.txt").read_text()
    assert record_of(directory)["compute"]["wall_s"] < INIT_S
    server.fault = lambda kind, name: None
    server.start()
    assert "; 1 sent now" in synced(tmp_path, capsys)
    check(server, directory, "ok", 0)


@pytest.mark.parametrize("entity", [ENTITY, "nobody"])
def test_the_first_step_waits_for_no_server(server: WandbServer, tmp_path: Path, entity: str) -> None:
    """The server says that it is there, and opens or refuses the run only once two epochs are trained."""
    trained = threading.Event()
    server.fault = lambda kind, name: None if name != "UpsertBucket" or trained.wait(LIMIT_S) else 500
    settings = (f"logger.init_timeout={LIMIT_S}", f"logger.finish_timeout={FINISH_S}", f"logger.entity={entity}")
    epochs = "recipe.epochs=12" if entity == ENTITY else "recipe.epochs=1000"
    directory = run_trial(tmp_path, *settings, epochs, act=lambda job: trained.set())
    record = record_of(directory)
    if entity == ENTITY:
        assert record["wandb"]["mode"] == "online"
        check(server, directory, "ok", 0)
    else:  # known at a later step
        assert (record["status"], record["wandb"]["mode"]) == ("failed", "offline")
        assert record["error"].startswith("W&B refuses: ") and "entity nobody not found" in record["error"]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["dies", "hangs", "answers 500"])
def test_a_server_lost_on_the_way_costs_a_bounded_wait_and_no_row(
    server: WandbServer, tmp_path: Path, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose(job: TrialJob) -> None:
        if end == "dies":
            server.stop()
        server.fault = lambda kind, name: HANG if end == "hangs" else 500

    timeout = f"logger.finish_timeout={FINISH_S}"
    directory = run_trial(tmp_path, timeout, "recipe.epochs=12", act=once_there(server, lose))
    ended = time.time() - directory.joinpath("history.jsonl").stat().st_mtime
    record = record_of(directory)
    assert record["status"] == "ok"
    command = f"`python -m benchmarks wandb sync {directory.parents[3]}` sends the run later"
    assert (directory / "log.txt").read_text().count(command) == 1
    assert ended < FINISH_S / 2  # some 9 s at most on an idle machine; the client would try until FINISH_S
    server.fault = lambda kind, name: None
    server.start()
    assert len(mirror_of(server, directory).history) < 12
    assert "; 1 sent now" in synced(tmp_path, capsys)
    check(server, directory, "ok", 0)


@pytest.mark.parametrize(("status", "error", "code"), [
    ("ok", None, 0), ("failed", "LookupError: no", 1), ("interrupted", "by SIGINT", 143), ("preempted", "x", 143),
    ("failed", "killed by SIGKILL (out of memory?)", 137), ("killed", KILLED, 137), ("failed", "killed by SIGSEGV", 139),
])  # fmt: skip
def test_exit_codes(status: str, error: str | None, code: int) -> None:
    assert exit_code({"status": status, "error": error}) == code


def test_what_is_absent_is_left_out_and_never_zero() -> None:
    row = {"step": 3, "train_flops": 7, "energy_j": None, "val/x": float("nan"), "lr": 0.0}
    assert mirrored([row]) == [{"trainer/global_step": 3, "compute/train_flops": 7, "lr": 0.0}]


def test_the_points_of_training_come_before_the_evaluation_that_they_led_to() -> None:
    def point(step: int, loss: float | None) -> dict[str, Any]:
        known = {"train/loss_step": loss} if loss is not None else {}
        return {"trainer/global_step": step, "compute/train_flops": 10 * step, **known, "lr": 0.1}

    steps = {"step": [50, 100], "train_flops": [500, 1000], "loss": [2.0, None], "lr": [0.1, 0.1]}
    rows = [{"step": 40, "val/x": 9.0}, {"step": 110, "val/x": 8.0, "steps": steps}]
    first, last = ({"trainer/global_step": step, "val/x": value} for step, value in ((40, 9.0), (110, 8.0)))
    assert mirrored(rows) == [first, point(50, 2.0), point(100, None), last]
    for damaged in ([1], {"step": 1}, {"step": [1], "loss": []}, "x", None):
        with pytest.raises(ValueError):
            mirrored([{"step": 110, "steps": damaged}])


# Whether a run goes online: a key, and a server that answers. Each in a process of its own, as the client keeps state.


def resolved(home: Path, mode: str = "auto", /, **variables: str) -> tuple[str, str]:
    """The mode, and what was said about it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    root = str(home / "my runs")
    code = f"from benchmarks.tracking import mirror; print(mirror.resolve_mode({mode!r}, mirror.Path({root!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
        env=clean | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "WANDB_ERROR_REPORTING": "false"} | variables,
    )  # fmt: skip
    return done.stdout.strip(), done.stderr


def test_no_key_is_offline(tmp_path: Path, server: WandbServer) -> None:
    assert resolved(tmp_path, WANDB_BASE_URL=server.url) == ("offline", "")


def test_a_key_and_a_server_is_online(tmp_path: Path, server: WandbServer) -> None:
    assert resolved(tmp_path, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)[0] == "online"


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_server_that_takes_connections_and_does_not_answer_is_given_up(tmp_path: Path, mode: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        resulting, said = resolved(tmp_path, mode, WANDB_BASE_URL=url, WANDB_API_KEY=KEY)
    assert resulting == "offline"
    assert (
        "127.0.0.1 does not answer (timed out)" in said
        and f"`python -m benchmarks wandb sync '{tmp_path}/my runs'`" in said
    )


def test_a_key_and_no_server_is_offline_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as soon_gone:
        port = soon_gone.getsockname()[1]
    mode, said = resolved(tmp_path, WANDB_BASE_URL=f"http://127.0.0.1:{port}", WANDB_API_KEY=KEY)
    assert mode == "offline"
    assert "127.0.0.1 does not answer" in said and f"`python -m benchmarks wandb sync '{tmp_path}/my runs'`" in said


def test_the_environment_has_the_last_word(tmp_path: Path, server: WandbServer) -> None:
    mode, _ = resolved(tmp_path, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY, WANDB_MODE="offline")
    assert mode == "offline"


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="auto, online or offline, got 'cloud'; logger=none turns it off"):
        Mirror(tmp_path, "cloud", init_timeout=1, finish_timeout=1)


@pytest.mark.parametrize(
    ("key", "entity", "said"),
    [
        ("short", ENTITY, "40"),
        pytest.param("1" * 40, ENTITY, "401", marks=pytest.mark.slow),
        pytest.param(KEY, "nobody", "entity nobody not found", marks=pytest.mark.slow),
    ],
    ids=["short key", "wrong key", "unknown entity"],
)
def test_online_refused_fails_in_one_line_and_auto_goes_on(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, entity: str, said: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    record = record_of(run_trial(tmp_path / "online", f"logger.entity={entity}", *LONG))
    assert record["status"] == "failed"
    assert record["error"].startswith("W&B refuses: ") and said in record["error"]
    directory = run_trial(tmp_path / "auto", f"logger.entity={entity}", "logger.mode=auto")
    assert (record_of(directory)["status"], record_of(directory)["wandb"]["mode"]) == ("ok", "offline")
    assert said in (directory / "log.txt").read_text()
