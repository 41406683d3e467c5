"""Trials in a real Slurm of two nodes, which the tests start on this machine; and what is said where there is none."""

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster_runs import LONG, assert_same_result, directory, record, trains, until
from support.commands import ROOT, run, start
from support.watcher import RecordingWatcher

from benchmarks.config.compose import expand
from benchmarks.config.trial import Trial
from benchmarks.launch import slurm, slurm_queue
from benchmarks.launch.sweep import Sweep
from benchmarks.launch.trial_job import Outcome
from run import main

SCRIPTS = ROOT / "tests" / "support" / "clusters"
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd")
ON_SLURM = ("cluster=slurm", "cluster.cpus_per_rank=1", "cluster.time_min=10")
TINY = ("model=resnet", "logger=none", "recipe.epochs=2", "trainer.limit_train_batches=3")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Slurm with nodes n1 and n2."""
    lacking = [name for name in DAEMONS if shutil.which(name, path="/usr/sbin:/usr/bin") is None]
    if os.geteuid() != 0 or lacking:
        pytest.skip(f"Slurm's daemons need root and are started from {', '.join(DAEMONS)}; missing: {lacking}")
    state = tmp_path_factory.mktemp("slurm")
    for folder in (state, *state.parents):
        if not folder.stat().st_mode & 0o001:  # the database has a user of its own
            folder.chmod(0o755)
    try:
        subprocess.run([SCRIPTS / "slurm_up.sh", state], check=True, timeout=120)
        yield
    finally:
        subprocess.run([SCRIPTS / "slurm_down.sh", state], check=False, timeout=60)


def job(root: Path) -> str:
    return json.loads((directory(root) / "slurm_job.json").read_text())["id"]


class Touches:
    """Unpickled, creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_no_word_of_a_configuration_or_a_path_is_a_line_of_the_jobs_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a; touch executed $(touch executed)"
    place.mkdir()
    monkeypatch.setattr(slurm, "ROOT", place)
    [trial] = expand(["cluster=slurm", f"output_root={tmp_path}"], False)
    assert isinstance(trial, Trial)
    script = "\n".join([*slurm._parameters(trial)["setup"], 'printf %s "$PYTHONPATH:$PYTHONSAFEPATH"'])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, env={})
    assert done.stdout.split(":") == [str(place), "1"] and not (tmp_path / "executed").exists()
    trial.config["cluster"]["partition"] = "main\n#SBATCH --wrap=true"
    with pytest.raises(ValueError, match="cluster.partition is one line of printable text"):
        slurm._parameters(trial)


def test_a_result_in_a_folder_of_others_runs_nothing(tmp_path: Path) -> None:
    [trial] = expand([*TINY, f"output_root={tmp_path}"], False)
    assert isinstance(trial, Trial)
    result = tmp_path / "slurm" / "7" / "7_0_result.pkl"
    result.parent.mkdir(parents=True)
    job = slurm.SlurmJob(trial, slurm_queue.Ticket("7", "x"), slurm_queue.Queue(), own=False)
    result.write_bytes(pickle.dumps(("success", Touches(tmp_path / "ran"))))
    assert job.poll() == Outcome("failed", f"{result} is no result of a job")
    assert not (tmp_path / "ran").exists()
    result.write_bytes(pickle.dumps(("success", Outcome("interrupted", "by SIGTERM"))))
    job = slurm.SlurmJob(trial, slurm_queue.Ticket("7", "x"), slurm_queue.Queue(), own=False)
    assert job.poll() == Outcome("interrupted", "by SIGTERM")


@contextlib.contextmanager
def launcher(*arguments: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(*arguments, root=root)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.slurm
def test_one_of_four_trials_fails_and_the_others_finish(cluster: None, tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    done = run("-m", *TINY, "recipe.optimizer.lr=0.01,0.02,1e30,0.03", *ON_SLURM, root=root)
    assert done.returncode == 1, done.stderr
    found = {path: json.loads(path.read_text()) for path in root.glob("digits/*/*/seed0/record.json")}
    assert sorted(its["status"] for its in found.values()) == ["failed", "ok", "ok", "ok"]
    assert all("not finite" in line for line in done.stdout.splitlines() if " failed: " in line)
    assert " failed: " in done.stdout
    jobs = ",".join(json.loads(path.with_name("slurm_job.json").read_text())["id"] for path in found)
    nodes = subprocess.run(["sacct", "-n", "-X", "-P", "-o", "NodeList", "-j", jobs], capture_output=True, text=True)
    assert sorted(nodes.stdout.split()) == ["n1", "n1", "n2", "n2"]


@pytest.mark.slurm
def test_two_nodes_after_a_time_limit_and_a_killed_launcher(cluster: None, undisturbed: Path, tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    command = (*LONG, *ON_SLURM, "trainer.num_nodes=2")
    with launcher(*command, root=root) as process:
        until(trains(root), "the first epoch")
        process.send_signal(signal.SIGKILL)
    number = job(root)
    with launcher(*command, root=root) as process:
        subprocess.run(["scancel", "--signal=USR2", number], check=True)  # what Slurm sends before the time limit
        until(lambda: record(root)["status"] == "preempted", "saved")
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, out + err
    assert job(root) == number
    names = subprocess.run(["sacct", "-n", "-X", "-o", "JobName%40"], capture_output=True, text=True).stdout.split()
    assert names.count(json.loads((directory(root) / "slurm_job.json").read_text())["name"]) == 1
    assert record(root)["parallel"]["num_nodes"] == 2
    assert len(record(root)["resumptions"]) == 1
    assert_same_result(root, undisturbed)


@pytest.mark.slurm
def test_the_job_of_a_run_that_starts_anew_is_found_again(cluster: None, tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    assert run(*TINY, *ON_SLURM, root=root).returncode == 0
    made, first = record(root), job(root)
    other_code = made | {"code": made["code"] | {"training_sha256": "0" * 64}}
    (directory(root) / "record.json").write_text(json.dumps(other_code))
    assert run(*TINY, *ON_SLURM, "launch.rerun=stale", root=root).returncode == 0
    assert record(root)["run_id"] != made["run_id"] and job(root) != first


@pytest.mark.slurm
def test_a_pre_empted_job_goes_on(cluster: None, undisturbed: Path, tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    workers = ("trainer.devices=2", "cluster.loader_workers=1", "cluster.partition=low")
    with launcher(*LONG, *ON_SLURM, *workers, root=root) as process:
        until(trains(root), "the first epoch")
        wants = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
        subprocess.run(wants, check=True, capture_output=True)
        until(lambda: record(root)["status"] == "preempted", "saved")
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, out + err
    assert len(record(root)["resumptions"]) == 1
    assert_same_result(root, undisturbed)


@pytest.mark.slurm
def test_jobs_that_are_ended_from_outside_are_recorded(cluster: None, tmp_path: Path) -> None:
    """By the user's scancel, by Ctrl-C, and by the death of what runs on the node."""
    roots = [tmp_path / name / "outputs" for name in ("scancel", "ctrl_c", "killed")]
    for root in roots:
        root.parent.mkdir()
    with contextlib.ExitStack() as stack:
        launchers = [stack.enter_context(launcher(*LONG, *ON_SLURM, root=root)) for root in roots]
        for root in roots:
            until(trains(root), "the first epoch")
        subprocess.run(["scancel", job(roots[0])], check=True)
        launchers[1].send_signal(signal.SIGINT)
        task = ["pgrep", "-f", f"^[^ ]*python[^ ]* -u -m submitit.core._submit {roots[2]}"]
        subprocess.run(["kill", "-9", *subprocess.check_output(task, text=True).split()], check=True)
        ended = [(process.communicate(timeout=60)[0], process.returncode) for process in launchers]
    said = (
        f"Slurm job {job(roots[0])} was cancelled; the same command goes on from its last checkpoint",
        "interrupted by Ctrl-C",
        f"Slurm job {job(roots[2])} left no result: FAILED, exit code ",
    )
    assert [code for _, code in ended] == [1, 128 + signal.SIGINT, 1]
    assert [record(root)["status"] for root in roots] == ["interrupted", "interrupted", "failed"]
    for root, line, (out, _) in zip(roots, said, ended, strict=True):
        assert line in record(root)["error"] and line in out
        assert root != roots[2] or "srun: error: " in record(root)["error"]
        assert (directory(root) / "checkpoints" / "last.ckpt").exists()
        queued = subprocess.run(["squeue", "-h", "-j", job(root), "-o", "%T"], capture_output=True, text=True)
        assert queued.stdout.strip() in {"", "CANCELLED", "COMPLETING", "FAILED"}


@pytest.mark.slurm
def test_a_job_in_the_queue_is_said_to_be_there(cluster: None, tmp_path: Path) -> None:
    wants = ["sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 20"]
    before = subprocess.run(wants, check=True, capture_output=True, text=True).stdout.strip()
    until(lambda: subprocess.check_output(["squeue", "-h", "-j", before, "-o", "%T"], text=True) == "RUNNING\n", "room")
    root = tmp_path / "outputs"
    watcher = RecordingWatcher()
    its = Sweep(expand([*TINY, *ON_SLURM, f"output_root={root}"], multirun=False), watcher, ())
    its.run()
    assert its.outcomes[0] == Outcome("ok")
    assert watcher.seen[0]["phase"] == "prepare"
    whats = [seen["what"] for seen in watcher.seen if "what" in seen]
    assert "queue" in whats[0]
    # What a run prepares may be seen, or be over when it is looked at.
    assert set(whats) - {"loading digits", "counting MACs"} == {f"in Slurm's queue, job {job(root)}"}


@pytest.mark.slurm
def test_a_job_of_another_shape_and_an_unknown_partition_are_refused(cluster: None, tmp_path: Path) -> None:
    shape = "cluster.additional_parameters={ntasks_per_node: 2}"
    done = run(*TINY, *ON_SLURM, "trainer.num_nodes=2", shape, root=tmp_path / "outputs")
    assert done.returncode == 1
    assert "trainer.num_nodes=2 needs 2 tasks on 2 nodes, this job has 4 on 2" in done.stdout
    done = run(*TINY, *ON_SLURM, "cluster.partition=nowhere", root=tmp_path / "outputs")
    assert done.returncode == 1
    assert "the job was not submitted: " in done.stdout and "partition" in done.stdout


def test_without_slurm_or_submitit_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["cluster=slurm", f"output_root={tmp_path / 'outputs'}"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(command) == 2
    assert capsys.readouterr().err == "run.py: Slurm does not answer: there is no sbatch on this machine\n"
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(command) == 2
    assert capsys.readouterr().err == "run.py: cluster=slurm needs submitit: pip install -e '.[slurm]'\n"
    assert not (tmp_path / "outputs").exists()


def test_a_slurm_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(slurm_queue, "PATIENCE_S", 0.5)
    monkeypatch.setattr(slurm_queue, "ANSWER_S", 0.2)
    before = time.monotonic()
    with pytest.raises(TimeoutError, match="tried sbatch --version and sinfo for 0.5 s"):
        slurm.SlurmExecutor({})
    assert time.monotonic() - before < 10


def test_what_a_trial_asks_of_slurm() -> None:
    asked = (
        "cluster=slurm",
        "trainer.devices=4",
        "trainer.num_nodes=2",
        "trainer.accelerator=gpu",
        "cluster.mem_gb=32",
    )
    [trial] = expand([*asked, "cluster.cpus_per_rank=3", "cluster.account=lab"], multirun=False)
    assert isinstance(trial, Trial)
    parameters = slurm._parameters(trial)
    assert {key: parameters[key] for key in ("nodes", "ntasks_per_node", "cpus_per_task", "gpus_per_node", "mem")} == {
        "nodes": 2, "ntasks_per_node": 1, "cpus_per_task": 12, "gpus_per_node": 4, "mem": "32G"
    }  # fmt: skip
    assert parameters["account"] == "lab" and "qos" not in parameters
    assert trial.config["cluster"]["threads_per_process"] == 3
    [trial] = expand(["cluster=slurm"], multirun=False)
    assert isinstance(trial, Trial) and "gpus_per_node" not in slurm._parameters(trial)
