"""Trials that meet files of others, other data, signals and terminals that are gone: one cause each, and the rest goes on."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from support.commands import CLEAN, ROOT, run_here
from support.watcher import RecordingWatcher

from benchmarks.config import folders
from benchmarks.config.compose import expand, expand_all
from benchmarks.config.trial import Trial
from benchmarks.launch import new_record, trial_job
from benchmarks.launch.sweep import Sweep
from benchmarks.launch.trial_job import Outcome, Silence
from benchmarks.records.clean_environment import LONGEST_TMPDIR
from benchmarks.units import killed_by

TINY = (
    *("model=resnet", "data=digits", "logger=none", "recipe.epochs=2", "trainer.limit_train_batches=3"),
    "cluster.threads_per_process=1",
)
LIMIT_S = 600  # of one command, on a busy machine


def sweep(root: Path, *overrides: str) -> tuple[list[Trial], list[Outcome]]:
    given = {text.partition("=")[0] for text in overrides}
    asked = [text for text in TINY if text.partition("=")[0] not in given]
    trials = [
        trial
        for trial in expand([*asked, *overrides, f"output_root={root}"], multirun=True)
        if isinstance(trial, Trial)
    ]
    its = Sweep(trials, RecordingWatcher(), ())
    its.run()
    return trials, [its.outcomes[index] for index in range(len(trials))]


def folder(path: Path) -> None:
    path.mkdir()
    (path / "something").touch()


IN_THE_WAY = {
    "config.yaml, empty": ("refused", "config.yaml is damaged: it holds nothing"),
    "config.yaml, binary": ("refused", "config.yaml is damaged: not the YAML that a run writes"),
    "config.yaml, a list": ("refused", "config.yaml is damaged: it holds no mapping of keys"),
    "config.yaml, a folder": ("refused", "config.yaml: not a file"),
    "record.json, {}": ("ok", None),
    "record.json, of wrong types": ("ok", None),
    "record.json, a folder": ("refused", "record.json: Is a directory"),
    "log.txt, a folder": ("refused", "log.txt: Is a directory"),
    "history.jsonl, a folder": ("failed", "history.jsonl"),
    "history.jsonl, junk": ("failed", "history.jsonl is damaged: its last line is no row"),
    "layers.csv, a folder": ("failed", "layers.csv"),
    "the run, a file": ("refused", "File exists"),
    "checkpoints, a file": ("failed", "checkpoints"),
    "nothing": ("ok", None),
}


@pytest.mark.slow
def test_what_lies_in_the_way_of_one_trial_does_not_stop_the_others(tmp_path: Path) -> None:
    seeds = f"seed={','.join(map(str, range(len(IN_THE_WAY))))}"
    for trial, what in zip(expand([*TINY, seeds, f"output_root={tmp_path}"], multirun=True), IN_THE_WAY, strict=True):
        assert isinstance(trial, Trial)
        name, _, how = what.partition(", ")
        path = trial.directory / name
        trial.directory.mkdir(parents=True)
        if name == "the run":
            trial.directory.rmdir()
            trial.directory.write_text("")
        elif how == "a folder":
            folder(path)
        elif how:
            contents = {
                "empty": b"",
                "binary": os.urandom(50) + b"\0",
                "a list": b"- a\n",
                "junk": b"junk\n\n",
                "{}": b"{}",
            }
            path.write_bytes(contents.get(how, b'{"status": 5, "resumptions": 7, "code": [], "protocol": "x"}'))
    _, outcomes = sweep(tmp_path, seeds)
    for (what, (status, cause)), outcome in zip(IN_THE_WAY.items(), outcomes, strict=True):
        assert outcome.status == status, (what, outcome)
        assert (cause or "") in (outcome.error or "") and "\n" not in (outcome.error or ""), (what, outcome)


def test_a_file_in_the_place_of_the_output_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("")
    done = run_here(*TINY, root=tmp_path / "outputs")
    assert done.returncode == 1 and done.stderr == ""
    assert f"refused: cannot write to {tmp_path / 'outputs'}" in done.stdout and "Not a directory" in done.stdout


def test_a_run_belongs_to_its_data_and_a_checkpoint_to_its_code_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    monkeypatch.setattr(folders, "_added", [tmp_path / "mine"])
    (tmp_path / "mine" / "data" / "rooted.yaml").write_text(
        "defaults: [digits, _self_]\ntask: classification\nstem: cifar\nroot: A\n"
    )
    [trial], [outcome] = sweep(tmp_path, "data=rooted")
    assert outcome == Outcome("ok")
    _, [outcome] = sweep(tmp_path, "data=rooted", "data.root=B")
    assert (
        outcome.status == "refused"
        and "holds a run of data.root=A, and this asks for data.root=B; choose another data.name" in outcome.error
    )
    (tmp_path / "A").mkdir()
    assert sweep(tmp_path, "data=rooted", "data.root=./A")[1] == [Outcome("finished")]

    record, checkpoint = trial.directory / "record.json", trial.directory / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    for name, said, instead in (
        ("data", "was trained on other images", "choose another data.name or output_root"),
        ("code", "was trained by other training code", "choose another output_root"),
    ):
        torch.save(content | {"origin": content["origin"] | {name: "0" * 64}}, checkpoint)
        record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "interrupted"}))
        _, [outcome] = sweep(tmp_path, "data=rooted")
        assert outcome.status == "failed" and said in outcome.error and instead in outcome.error, outcome
    assert "origin" not in torch.load(checkpoint.with_name("best.ckpt"), weights_only=True)


@pytest.mark.parametrize("to_another_disk", [False, True])
def test_a_kill_while_a_run_is_moved_away_leaves_its_record_until_the_end(
    to_another_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, replace, copy = tmp_path / "digits" / "n" / "r" / "seed0", os.replace, shutil.copy2
    names = ["checkpoints", "config.yaml", "history.jsonl", "record.json", "z.txt"]
    moves = itertools.repeat(True)

    def killed_replace(source: Path, target: Path) -> None:
        if not next(moves, False):
            raise KeyboardInterrupt
        if to_another_disk:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    def killed_copy(source: Path, target: Path, **rest: bool) -> None:
        if not next(moves, False):
            target.write_text("a part")
            raise KeyboardInterrupt
        copy(source, target, **rest)

    monkeypatch.setattr(os, "replace", killed_replace)
    monkeypatch.setattr(shutil, "copy2", killed_copy)
    for killed_after in range(12 if to_another_disk else len(names) + 1):  # 6 and 5 copied
        directory.mkdir(parents=True, exist_ok=True)
        for name in names[1:]:
            (directory / name).write_text(name)
        (directory / "checkpoints").mkdir()
        (directory / "checkpoints" / "last.ckpt").write_text("weights")
        (directory / "slurm_job.json").write_text("of the job that moves them")
        moves, run_id = iter([True] * killed_after), f"id{killed_after}"
        try:
            new_record.supersede(directory, str(tmp_path), {"run_id": run_id})
            assert killed_after == (11 if to_another_disk else len(names))
        except KeyboardInterrupt:
            assert (directory / "record.json").exists(), killed_after
        moves = itertools.repeat(True)
        new_record.supersede(directory, str(tmp_path), {"run_id": run_id})
        assert [path.name for path in directory.iterdir()] == ["slurm_job.json"]
        place = tmp_path / "superseded" / directory.relative_to(tmp_path) / run_id
        assert sorted(path.name for path in place.iterdir()) == names
        assert all((place / name).read_text() == name for name in names[1:])
        assert (place / "checkpoints" / "last.ckpt").read_text() == "weights"


class Remover(RecordingWatcher):
    """Removes the folder of a sweep's first trial once it has begun to train."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def update(self, index: int, progress: dict) -> None:
        super().update(index, progress)
        if index == 0 and progress["phase"] == "train" and self.directory.exists():
            self.directory.rename(self.directory.with_name("removed"))  # at once: the trial writes into it


def test_a_folder_that_is_removed_while_its_trial_trains_fails_it_alone(tmp_path: Path) -> None:
    long, short = (expand_all([*TINY, f"recipe.epochs={epochs}", f"output_root={tmp_path}"])[0] for epochs in (3000, 2))
    its = Sweep([long, short], Remover(long.directory), ())
    its.run()
    assert its.outcomes == {0: Outcome("failed", "its folder was removed while it ran"), 1: Outcome("ok")}


def test_signals_without_a_name() -> None:
    assert killed_by(35) == "killed by signal 35"
    assert killed_by(signal.SIGTERM) == "killed by SIGTERM"


@pytest.mark.parametrize("limit", ["size=64k", "nr_inodes=9"])
def test_a_disk_without_space_or_inodes_is_full(limit: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", limit, "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("a small disk needs root")
    try:
        assert not trial_job.is_full(disk)
        with pytest.raises(OSError, match="No space left"):
            for number in range(100):
                (disk / str(number)).write_bytes(bytes(4096))
        assert trial_job.is_full(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_time_in_which_a_launcher_sleeps_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(trial_job.time, "monotonic", lambda: now)
    silence = Silence()
    assert silence.seconds(7.0) == 0
    for _ in range(40):
        now += 0.5
        silent = silence.seconds(7.0)
    assert silent == 20
    now += 3600  # the lid was closed
    assert silence.seconds(7.0) == 20 + trial_job.LONGEST_POLL_S
    assert silence.seconds(8.0) == 0  # a sign, from whatever clock


def test_a_clock_that_is_set_ends_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = itertools.count(step=86_400)
    monkeypatch.setattr(trial_job.time, "time", lambda: float(next(days)))
    _, outcomes = sweep(tmp_path, "launch.time_limit_s=600")
    assert outcomes == [Outcome("ok")]


def start(root: Path, *arguments: str, stdout: int, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *TINY, *arguments, f"output_root={root}"],
        stdout=stdout, stderr=subprocess.PIPE, text=True, env=CLEAN | environment,
        preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_IGN) if environment else None,
    )  # fmt: skip


def status(path: Path) -> dict[str, str]:
    return json.loads(path.read_text()) if path.exists() else {}


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_stop_a_sweep(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    process = start(root, "-m", "seed=0,1", stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    process.stdout.close()
    assert process.wait(LIMIT_S) == 0, process.stderr and process.stderr.read()
    assert [status(path)["status"] for path in root.glob("digits/*/*/*/record.json")] == ["ok", "ok"]
    with open("/dev/full", "w") as full:
        process = start(root, "-m", "seed=0,1", stdout=full.fileno())
        assert process.wait(LIMIT_S) == 0, process.stderr and process.stderr.read()


@pytest.mark.slow
def test_nohup_a_long_tmpdir_and_a_schedulers_warning(tmp_path: Path) -> None:
    root, scratch = tmp_path / "outputs", tmp_path / ("x" * LONGEST_TMPDIR)
    scratch.mkdir()
    [trial] = expand([*TINY, "recipe.epochs=3000", f"output_root={root}"], multirun=False)
    assert isinstance(trial, Trial)
    process = start(root, "recipe.epochs=3000", stdout=subprocess.PIPE, TMPDIR=str(scratch))
    wait_for(trial.directory / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGHUP)  # as nohup has it: ignored
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, out + err
    record = status(trial.directory / "record.json")
    assert (record["status"], record["error"]) == ("interrupted", "interrupted by SIGUSR1")


@pytest.mark.slow
def test_a_torchvision_of_another_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchmetrics imports it where it is installed, and its operators are registered with the torch that it was built for."""
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")\n')
    metadata = tmp_path / "site" / "torchvision-0.20.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.20.0\n")
    monkeypatch.setitem(CLEAN, "PYTHONPATH", str(tmp_path / "site"))
    process = start(tmp_path / "outputs", "-m", "seed=0,1", stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    for seed in (0, 1):
        [line] = [line for line in out.splitlines() if f"seed {seed}" in line and "failed" in line]
        assert "operator torchvision::nms does not exist: the torchvision here does not fit torch" in line
        assert line.endswith("pip uninstall torchvision")


@pytest.mark.slow
def test_a_module_of_ones_own_that_cannot_be_imported_fails_its_trial_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_name.py").write_text("SGD = undefined\n")
    (tmp_path / "no_syntax.py").write_text("def SGD(:\n")
    monkeypatch.setitem(CLEAN, "PYTHONPATH", str(tmp_path))
    targets = "recipe.optimizer._target_=torch.optim.SGD,no_name.SGD,no_syntax.SGD"
    process = start(tmp_path / "outputs", "-m", targets, stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    ended = sorted((record["status"], record["error"] or "") for record in map(status, tmp_path.rglob("record.json")))
    assert [outcome for outcome, _ in ended] == ["failed", "failed", "ok"], out
    assert ended[0][1] == "Error loading 'no_name.SGD': NameError(\"name 'undefined' is not defined\")"
    assert ended[1][1].startswith("Error loading 'no_syntax.SGD': SyntaxError('invalid syntax'")
