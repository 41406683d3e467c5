"""Sweeps of real processes: trials that fail, hang, are killed, restarted, locked or stale."""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.watcher import RecordingWatcher

from benchmarks.config.compose import expand
from benchmarks.launch.checks import is_stale, refusal
from benchmarks.launch.new_record import new_record
from benchmarks.launch.sweep import Sweep, write_sweep
from benchmarks.launch.trial_job import Outcome
from benchmarks.records import files
from benchmarks.records.locks import LAUNCHER, Lock, held
from benchmarks.records.record import to_json
from benchmarks.report.status import trial_states

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "data=digits",
    "logger=none",
    "recipe.epochs=2",
    "trainer.limit_train_batches=3",
    "cluster.threads_per_process=1",
)
FAULTY = ("recipe.optimizer._target_=support.faults.FaultySGD", "+recipe.optimizer.at=2")
TWO_RANKS = ("trainer.devices=2", "cluster.oversubscribe=true")


def sweep(root: Path, *overrides: str) -> tuple[Sweep, RecordingWatcher]:
    trials = expand([*TINY, *overrides, f"output_root={root}"], multirun=True)
    watcher = RecordingWatcher()
    return Sweep(trials, watcher, ()), watcher


def run(root: Path, *overrides: str) -> list[Outcome]:
    its, _ = sweep(root, *overrides)
    its.run()
    return [its.outcomes[index] for index in sorted(its.outcomes)]


def records(root: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(root.glob("digits/**/record.json"))]


def trial_processes() -> list[int]:
    """Living processes that the server of this test session has forked."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # Linux cuts the names of processes at 15 bytes, Ray's amid a letter.
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    mine = {pid for pid, parent in parents.items() if parent == os.getpid()}
    return [pid for pid, parent in parents.items() if parent in mine]


def test_a_rank_that_raises_takes_only_its_trial_down(tmp_path: Path) -> None:
    fault = ("+recipe.optimizer.fault=raise,none",)
    bad, good = run(tmp_path, "model=resnet", *FAULTY, *fault, *TWO_RANKS)
    assert bad == Outcome("failed", "LookupError: rank 0 fails on purpose")
    assert good == Outcome("ok")
    assert sorted(record["status"] for record in records(tmp_path)) == ["failed", "ok"]


@pytest.mark.slow
def test_a_killed_rank_is_named_and_a_restart_ends_in_the_same_weights(tmp_path: Path) -> None:
    kill = ("+recipe.optimizer.fault=kill", "+recipe.optimizer.rank=1", "+recipe.optimizer.at=4")
    faulty = ("recipe.optimizer._target_=support.faults.FaultySGD", *kill, *TWO_RANKS, "model=resnet")
    assert run(tmp_path / "a", *faulty) == [Outcome("failed", "rank 1 was killed by SIGKILL (out of memory?)")]
    once = f"+recipe.optimizer.once={tmp_path / 'once'}"
    assert run(tmp_path / "b", *faulty, once, "launch.retries=1") == [Outcome("ok")]
    [restarted] = records(tmp_path / "b")
    assert [entry["after"] for entry in restarted["restarts"]] == ["rank 1 was killed by SIGKILL (out of memory?)"]
    assert len(restarted["resumptions"]) == 1
    assert run(tmp_path / "c", *faulty, once, "launch.retries=1") == [Outcome("ok")]  # the file is there: no fault
    [undisturbed] = records(tmp_path / "c")
    assert undisturbed["restarts"] == []
    assert restarted["weights_sha256"] == undisturbed["weights_sha256"]
    assert undisturbed["notes"] and restarted["notes"] == undisturbed["notes"]


def test_a_run_that_goes_on_with_other_threads_says_so(tmp_path: Path) -> None:
    """They change the order of sums."""
    once = ("+recipe.optimizer.fault=kill", f"+recipe.optimizer.once={tmp_path / 'once'}", "+recipe.optimizer.at=4")
    faulty = ("model=resnet", "recipe.optimizer._target_=support.faults.FaultySGD", *once)
    [killed] = run(tmp_path, *faulty)
    assert killed.status == "failed"
    assert run(tmp_path, *faulty, "cluster.threads_per_process=2") == [Outcome("ok")]
    [resumption] = records(tmp_path)[0]["resumptions"]
    assert resumption["reason"] == "2 threads now, 1 before: other bits than without the interruption"


def test_a_trial_that_cannot_be_started_again_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(directory: Path, error: str) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(directory / files.RECORD))

    monkeypatch.setattr(files, "reopen", full)
    bad, good = run(tmp_path, "model=resnet", *FAULTY, "+recipe.optimizer.fault=kill,none", "launch.retries=1")
    assert bad.status == "failed" and good == Outcome("ok")
    assert "killed by SIGKILL (out of memory?); it could not be started again: " in (bad.error or "")
    assert [record["status"] for record in records(tmp_path)] == ["failed", "ok"]
    assert not any(held(path) for path in tmp_path.rglob(LAUNCHER))


@pytest.mark.slow
def test_a_server_that_was_killed_is_named_and_another_goes_on(tmp_path: Path) -> None:
    bad, good = run(tmp_path, "model=resnet", *FAULTY, "+recipe.optimizer.fault=orphan,none")
    assert bad.status == "failed" and "exit code 255 (was the server of processes killed?): " in (bad.error or "")
    assert good == Outcome("ok")


def test_a_programs_own_error_is_not_tried_again(tmp_path: Path) -> None:
    [outcome] = run(tmp_path, "model=resnet", "recipe.optimizer.lr=1e30", "recipe.epochs=3", "launch.retries=3")
    assert outcome.status == "failed" and ("not finite" in outcome.error or "loss is" in outcome.error)
    assert records(tmp_path)[0]["restarts"] == []


@pytest.mark.slow
def test_a_rank_that_hangs_is_ended_by_either_limit(tmp_path: Path) -> None:
    """Side by side, since they wait; the sweep goes on."""
    hang = "+recipe.optimizer.fault=hang"
    trials = [
        trial
        for own in ((hang, "launch.stall_s=15"), (hang, "launch.time_limit_s=25", "seed=1"), ())
        for trial in expand(
            [*TINY, "model=resnet", *FAULTY, *TWO_RANKS, "launch.workers=2", *own, f"output_root={tmp_path}"], False
        )
    ]
    its = Sweep(trials, RecordingWatcher(), ())
    its.run()
    silent, late, good = (its.outcomes[index] for index in range(3))
    assert silent.status == "failed" and "no sign of life for 15 s" in silent.error
    assert late.status == "interrupted" and "time limit of 25 s" in late.error
    assert good == Outcome("ok")
    assert trial_processes() == []


@pytest.mark.slow
def test_several_at_a_time_and_devices_as_a_swept_value(tmp_path: Path) -> None:
    its, watcher = sweep(
        tmp_path, "model=resnet", "seed=0,1", "trainer.devices=1,2", "launch.workers=2", "cluster.oversubscribe=true"
    )
    its.run()
    assert [its.outcomes[index] for index in range(4)] == [Outcome("ok")] * 4
    assert watcher.most == 2
    assert sorted(record["parallel"]["world_size"] for record in records(tmp_path)) == [1, 1, 2, 2]
    one, two = (
        run(tmp_path, "model=resnet", "seed=0", f"trainer.devices={n}", "cluster.oversubscribe=true")[0] for n in (1, 2)
    )
    assert one == two == Outcome("finished")


def test_fail_fast_starts_nothing_more(tmp_path: Path) -> None:
    its, _ = sweep(
        tmp_path, "model=resnet", *FAULTY, "+recipe.optimizer.fault=raise,none", "seed=0,1", "launch.fail_fast=true"
    )
    its.run()
    assert [outcome.status for outcome in its.outcomes.values()] == ["failed"]
    assert len(records(tmp_path)) == 1


@pytest.mark.slow
def test_two_launchers_run_no_trial_twice(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "-m",
        *TINY,
        "model=resnet",
        "seed=0,1,2",
        f"output_root={tmp_path}",
    ]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    both = [
        subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in "ab"
    ]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(records(tmp_path)) == 3 and all(not record["resumptions"] for record in records(tmp_path))
    results = [re.findall(r"seed (\d)   .*?(finished before)?\s*$", output, re.MULTILINE) for output in outputs]
    assert all(sorted(seed for seed, _ in of_one) == ["0", "1", "2"] for of_one in results), outputs
    assert sorted(seed for of_one in results for seed, before in of_one if not before) == ["0", "1", "2"], outputs


def test_a_trial_of_a_dead_launcher_is_taken_over(tmp_path: Path) -> None:
    [trial] = expand([*TINY, "model=resnet", f"output_root={tmp_path}"], multirun=False)
    trial.directory.mkdir(parents=True)
    lock = Lock.take(trial.directory / LAUNCHER)
    assert lock is not None and held(trial.directory / LAUNCHER)
    assert Lock.take(trial.directory / LAUNCHER) is None
    its, watcher = sweep(tmp_path, "model=resnet")
    threading.Timer(3, lock.release).start()
    its.run()
    assert its.outcomes == {0: Outcome("ok")}
    assert watcher.waited == [f"process {os.getpid()} on {os.uname().nodename} is running it"]


def test_stale_runs_are_run_again_on_request_and_kept(tmp_path: Path) -> None:
    assert run(tmp_path, "model=resnet", "seed=0,1") == [Outcome("ok")] * 2
    old, other = records(tmp_path)
    path = next(tmp_path.glob("digits/**/seed0")) / files.RECORD
    files.write_json(path, old | {"code": old["code"] | {"training_sha256": "0" * 64}})
    assert is_stale(json.loads(path.read_text())) and not is_stale(other)
    assert run(tmp_path, "model=resnet", "seed=0,1") == [Outcome("finished")] * 2
    assert run(tmp_path, "model=resnet", "seed=0,1", "launch.rerun=stale") == [Outcome("ok"), Outcome("finished")]
    new, same = records(tmp_path)
    assert new["run_id"] != old["run_id"] and same == other
    assert new["weights_sha256"] == old["weights_sha256"]
    kept = tmp_path / "superseded" / path.parent.relative_to(tmp_path) / old["run_id"]
    assert json.loads((kept / files.RECORD).read_text())["run_id"] == old["run_id"]
    assert (kept / "checkpoints" / "last.ckpt").exists()


def test_an_unfinished_run_of_other_code_starts_anew(tmp_path: Path) -> None:
    [_] = run(tmp_path, "model=resnet")
    [finished] = records(tmp_path)
    path = next(tmp_path.glob("digits/**/seed0")) / files.RECORD
    code = {"commit": "16df2306d065", "training_sha256": "0" * 64}
    halted = finished | {"status": "interrupted", "error": "interrupted", "code": code}
    files.write_json(path, halted)
    [state], _ = trial_states(tmp_path)
    assert state.state == "interrupted" and state.detail.endswith("by other code than this, so it starts anew")
    its, watcher = sweep(tmp_path, "model=resnet")
    its.run()
    [said] = watcher.said
    assert its.outcomes == {0: Outcome("ok")}
    assert "other training code (commit 16df2306) has begun it: it starts anew" in said
    [again] = records(tmp_path)
    assert again["resumptions"] == [] and again["run_id"] != finished["run_id"]
    assert len((path.parent / files.HISTORY).read_text().splitlines()) == 2


def test_what_cannot_start_is_refused_with_the_numbers(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    [outcome] = run(tmp_path, "model=resnet", f"trainer.devices={cores}", "launch.workers=2", "recipe.batch_size=64")
    assert outcome.status == "refused"
    assert (
        f"trainer.devices={cores} for each of launch.workers=2, but this machine has {cores} CPU cores" in outcome.error
    )
    [trial] = expand([*TINY, "model=resnet", "trainer.devices=3", f"output_root={tmp_path}"], multirun=False)
    assert "recipe.batch_size=32 cannot be divided among 3 processes" in (refusal(trial) or "")
    assert not list(tmp_path.glob("digits/**/record.json"))


def test_a_finished_run_needs_nothing_of_the_machine_where_it_is_asked_for_again(tmp_path: Path) -> None:
    more = len(os.sched_getaffinity(0)) + 1
    hosts = ("cluster=hosts", "trainer.num_nodes=2", "cluster.rendezvous=10.0.0.1:29400", "cluster.node=0")
    for cluster in ((f"launch.workers={more}",), (*hosts, f"trainer.devices={more}", f"recipe.batch_size={2 * more}")):
        asked = "model=resnet", "trainer.accelerator=cpu", *cluster
        assert [outcome.status for outcome in run(tmp_path, *asked)] == ["refused"]
        [trial] = expand([*TINY, *asked, f"output_root={tmp_path}"], multirun=False)
        trial.directory.mkdir(parents=True)
        record = new_record(trial.config, trial.overrides, None)
        files.write_json(trial.directory / files.RECORD, to_json(record) | {"status": "ok"})
        assert run(tmp_path, *asked) == [Outcome("finished")]


def test_the_list_of_a_sweep_is_kept_once(tmp_path: Path) -> None:
    trials = expand([*TINY, "model=resnet,densenet", "seed=0,1", f"output_root={tmp_path}"], multirun=True)
    for _ in "ab":
        write_sweep(trials, ["-m", "model=resnet,densenet"])
    [path] = (tmp_path / "sweeps").glob("*.json")
    rows = json.loads(path.read_text())["trials"]
    assert [tmp_path / row["directory"] for row in rows] == [trial.directory for trial in trials]


def test_the_trials_environment_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that itself runs under Slurm or torchrun starts trials that know nothing of it."""
    for key, value in {
        "RANK": "7",
        "WORLD_SIZE": "9",
        "MASTER_PORT": "1",
        "SLURM_NTASKS": "5",
        "SLURM_JOB_ID": "3",
    }.items():
        monkeypatch.setenv(key, value)
    assert run(tmp_path, "model=resnet") == [Outcome("ok")]
    assert records(tmp_path)[0]["parallel"]["world_size"] == 1
