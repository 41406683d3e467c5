"""A run that was killed, stopped or damaged ends with the bits of one that nothing happened to."""

import errno
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from pytorch_lightning.strategies import DDPStrategy
from support.forked_trials import damage, outcome
from support.kill_trials import KINDS, Trials
from support.plans import Plan, die
from torch import nn

from benchmarks.records.files import CHECKPOINTS
from benchmarks.training import stopping
from benchmarks.training.checkpoints import (
    LAST,
    ORIGIN,
    PREVIOUS,
    RESUMABLE,
    AtomicCheckpointIO,
    Averaging,
    check_fits,
    newest_intact,
)
from benchmarks.training.failures import EVERY_WEIGHT, describe, is_known, is_of_a_peer, report_failure
from benchmarks.training.stopping import Interrupted, StopRequest
from benchmarks.training.train import resume

EMA = "trainer.ema_decay=0.9"
# Overrides and ranks of runs; each is compared with itself, uninterrupted.
RUNS: dict[str, tuple[list[str], int]] = {
    "plain": ([], 1),
    "workers": (["cluster.loader_workers=2"], 1),
    "averaged": ([EMA], 1),
    "two ranks": ([], 2),
    "in 64 bits": ([EMA, "trainer.precision=64-true"], 1),
    "statistics": (["recipe.batch_norm_images=64"], 1),
    "epochs": (["launch.checkpoint_every_steps=null"], 1),
    "one epoch": ([EMA, "recipe.epochs=1"], 1),
    "another network": (["model.growth_rate=6", "recipe.epochs=1"], 1),
}
SLOW_RUNS: dict[str, tuple[list[str], int]] = {
    "every step": (["launch.checkpoint_every_steps=1"], 1),
    "accumulated": (["trainer.accumulate_grad_batches=4"], 1),
    "all at once": ([EMA, "cluster.loader_workers=2"], 2),
}


def straight(folder: Path, runs: dict[str, tuple[list[str], int]]) -> dict[str, dict[str, Any]]:
    plan = Plan(folder, runs)
    for name in runs:
        plan.add(name, name, None)
    results = plan.run()
    for name, result in results.items():
        assert result["status"] == "ok", (name, (folder / name / "log.txt").read_text())
    return results


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("straight")
    return folder, straight(folder, RUNS)


def at(events: list[str], name: str, occurrence: int = 0) -> int:
    """The number of the event that has this name for the n-th time."""
    return [number for number, event in enumerate(events) if event == name][occurrence]


SAVED = "after Checkpoints.on_train_batch_end"
DAMAGES = {
    "flipped": ({LAST: "flipped"}, PREVIOUS, "last.ckpt is damaged (wrong checksum"),
    "missing": ({LAST: "missing"}, PREVIOUS, "last.ckpt is missing"),
    "both": ({LAST: "short", PREVIOUS: "zero"}, None, "started anew"),
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A file system that fills up with the second or third checkpoint; None where mounting one is not allowed."""
    disk = tmp_path_factory.mktemp("disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=172k", "tmpfs", str(disk)], check=False).returncode:
        yield None
        return
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="module")
def killed(references, disk: Path | None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Runs of every kind, killed at a sample of their events and at chosen ones."""
    folder = tmp_path_factory.mktemp("killed")
    plan = Plan(folder, RUNS)
    events = {name: result["events"] for name, result in references[1].items()}
    plain, two = events["plain"], events["two ranks"]

    for number in range(7, len(plain), 401):  # a slow test kills at every eleventh
        plan.add(f"plain {number}", "plain", {"event": number}, None)
    # Between the writing of a row and the checkpoint of its epoch; between the renamings of one; after the last epoch.
    plan.add("row", "plain", die("after benchmarks.training.history.append_row", 1), None)
    # Of a file and its folder: the record, steps 2 to 6, best, epoch; the row of its file alone; then step 8.
    write = at(plain, "before os.fsync", 13)
    assert plain[write : write + 10 : 2] == [
        f"before os.{name}" for name in ("fsync", "replace", "fsync", *["replace"] * 2)
    ]
    plan.add("renaming", "plain", {"event": write + 7}, None)
    plan.add("three lives", "plain", {"event": 60}, {"event": 40}, {"event": 30}, None)
    plan.add("workers", "workers", die(SAVED, 8), None)
    plan.add("averaged", "averaged", die(SAVED, 9), None)
    plan.add("averaged test", "averaged", die("before ProgressWriter.on_test_start"), None)
    plan.add("in 64 bits", "in 64 bits", die(SAVED, 9), None)
    plan.add("statistics", "statistics", die(SAVED, 17), None)  # before the last evaluation, with dropout in training
    plan.add("epochs", "epochs", die(SAVED, 15), None)
    plan.add("rank 1", "two ranks", die(SAVED, 8, rank=1), None)
    plan.add("rank 0", "two ranks", {"event": len(two) // 2, "rank": 0}, None)
    for name, (damages, _, _) in DAMAGES.items():
        files = {f"checkpoints/{file}": kind for file, kind in damages.items()}
        plan.add(f"damaged {name}", "plain", die(SAVED, 8), {"damage": files}, None)
    stop = {"signal": signal.SIGTERM}
    usr1 = {"signal": signal.SIGUSR1, "rank": 1}
    plan.add("stop amid an epoch", "plain", die("before StepSeed.on_train_batch_start", 8, **stop), None)
    plan.add("stop at its end", "epochs", die("before CostMeter.on_train_batch_end", 11, **stop), None)
    plan.add("stop in evaluation", "epochs", die("before HistoryWriter.on_validation_end", 1, **stop), None)
    plan.add("stop before training", "plain", die("before CostMeter.on_train_start", 0, **stop), None)
    plan.add("stop before the test", "plain", die("before ProgressWriter.on_test_start", 0, **stop), None)
    plan.add("stop one rank", "two ranks", die("before StepSeed.on_train_batch_start", 9, **usr1), None)
    other = str(references[0] / "another network" / "checkpoints" / LAST)
    plan.add("misfit", "plain", die(SAVED, 8), {"damage": {f"checkpoints/{LAST}": other}}, None)
    plan.add("stopped", "plain", die(SAVED, 2, **stop))
    if disk is not None:
        plan.add("full disk", "plain", None, {"command": ["mount", "-o", "remount,size=2m", str(disk)]}, None)
        plan.trials[-1]["directory"] = str(disk / "full disk")
    return plan.run()


def assert_equal(result: dict[str, Any], reference: Path) -> None:
    directory = Path(result["directory"])
    assert result["status"] == "ok", (result["error"], (directory / "log.txt").read_text()[-3000:])
    assert outcome(directory) == outcome(reference), directory.name


def test_a_killed_run_ends_like_one_that_was_not(killed, references) -> None:
    alike = {name: result for name, result in killed.items() if name not in {"misfit", "stopped"}}
    assert len(alike) > 20
    for name, result in alike.items():
        assert_equal(result, references[0] / result["run"])
        if not name.startswith(("stop", "full disk")):
            assert -signal.SIGKILL in result["codes"][0]


def test_a_run_goes_on_from_its_last_steps(killed) -> None:
    results = killed
    # Killed after step 9 of 18, with checkpoints every 2 steps; after step 16, with those of epochs alone.
    steps = {name: [entry["step"] for entry in result["resumptions"]] for name, result in results.items()}
    assert steps["rank 1"] == steps["workers"] == [8]
    assert steps["averaged"] == [10]
    assert steps["epochs"] == [12]
    assert steps["averaged test"] == [18]
    assert results["workers"]["resumptions"][0]["checkpoint"] == LAST
    assert results["renaming"]["resumptions"][0]["checkpoint"] == PREVIOUS
    assert len(steps["three lives"]) == 3 and steps["three lives"] == sorted(steps["three lives"])


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(killed, name: str) -> None:
    _, used, said = DAMAGES[name]
    result = killed[f"damaged {name}"]
    [resumption] = result["resumptions"]
    assert resumption["checkpoint"] == used
    assert resumption["step"] == (6 if used else 0)
    assert said in resumption["reason"]
    assert resumption["reason"] in (Path(result["directory"]) / "log.txt").read_text()


def test_a_signal_saves_and_stops(killed) -> None:
    results = killed
    # A signal during step 9 is met after it; at the end of an epoch before its evaluation; in an evaluation after it.
    for name, step in {
        "stop amid an epoch": 9,
        "stop at its end": 12,
        "stop in evaluation": 12,
        "stop one rank": 10,
    }.items():
        assert results[name]["codes"][0] == [143] * RUNS[results[name]["run"]][1], name
        assert [entry["step"] for entry in results[name]["resumptions"]] == [step], name
    for name in ("stop before training", "stop before the test"):
        assert results[name]["codes"][0] == [143]
    assert results["stop before training"]["resumptions"] == []


def test_the_record_says_that_a_run_was_interrupted(killed) -> None:
    stopped = killed["stopped"]
    assert (stopped["status"], stopped["error"]) == ("interrupted", "interrupted by SIGTERM")


def test_another_networks_checkpoint_is_refused_and_left_alone(killed, references) -> None:
    result = killed["misfit"]
    directory = Path(result["directory"])
    assert result["codes"][1] == [1] and result["status"] == "failed"
    assert "\n" not in result["error"]
    assert "last.ckpt is of another network: net." in result["error"] and " there, " in result["error"]
    put = references[0] / "another network" / "checkpoints" / LAST
    assert (directory / "checkpoints" / LAST).read_bytes() == put.read_bytes()
    assert newest_intact(directory / "checkpoints")[0] == directory / "checkpoints" / LAST
    failure = json.loads((directory / "failure.json").read_text())
    assert failure["known"] and not failure["peer"]


def test_the_evaluated_weights_are_the_averaged_ones_and_are_stored(references) -> None:
    folder = references[0]
    averaged, plain = (outcome(folder / name) for name in ("averaged", "plain"))
    assert averaged["weights_sha256"] != plain["weights_sha256"]
    assert averaged["rows"][0]["train/loss"] == plain["rows"][0]["train/loss"]  # training is the same
    assert averaged["rows"][0]["val/loss"] != plain["rows"][0]["val/loss"]
    last = torch.load(folder / "averaged" / "checkpoints" / LAST, weights_only=True)
    raw = torch.load(folder / "plain" / "checkpoints" / LAST, weights_only=True)["state_dict"]
    assert last["current_model_state"].keys() == raw.keys()
    assert all(torch.equal(tensor, raw[name]) for name, tensor in last["current_model_state"].items())
    only = outcome(folder / "one epoch")["checkpoints"]
    assert only["best"]["state_dict"] == only["last"]["state_dict"] != only["last"]["current_model_state"]


def test_the_average_is_exponential(references) -> None:
    """Of weights 1, 2 and 4 with decay 0.9: 0.9 (0.9 · 1 + 0.1 · 2) + 0.1 · 4."""
    module = pl.LightningModule()
    module.weight = torch.nn.Parameter(torch.zeros(()))
    averaging = Averaging(decay=0.9)
    trainer: Any = SimpleNamespace(global_step=0)
    averaging.setup(trainer, module, "fit")
    for weight in (1.0, 2.0, 4.0):
        trainer.global_step += 1
        module.weight.data.fill_(weight)
        averaging.on_train_batch_end(trainer, module, None, None, trainer.global_step - 1)
    averaging.on_fit_end(trainer, module)
    assert module.weight.item() == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 4)


def test_a_weight_without_gradient_is_said_without_lightnings_advice() -> None:
    error = RuntimeError("Expected to have finished reduction in the prior iteration before starting a new one.")
    DDPStrategy().on_exception(error)
    assert "ddp_find_unused_parameters_true" in str(error)
    assert describe(error) == EVERY_WEIGHT and is_known(error)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_network_with_computed_weights_is_averaged() -> None:
    module = pl.LightningModule()
    module.net = torch.nn.utils.weight_norm(torch.nn.Linear(1, 1, bias=False))  # of torch before parametrizations
    averaging = Averaging(decay=0.5)
    trainer: Any = SimpleNamespace(global_step=1)
    averaging.setup(trainer, module, "fit")
    for norm in (1.0, 3.0):
        module.net.weight_g.data.fill_(norm)
        module.net.weight_v.data.fill_(1)
        averaging.on_train_batch_end(trainer, module, None, None, trainer.global_step - 1)
        trainer.global_step += 1
    averaging.on_fit_end(trainer, module)
    assert module.net(torch.ones(1, 1)).item() == pytest.approx(0.5 * 1 + 0.5 * 3)


def test_names_of_weights_do_not_tell_how_they_were_trained(references, tmp_path: Path) -> None:
    folder = references[0]
    names = {
        run: set(torch.load(folder / run / "checkpoints" / LAST, weights_only=True)["state_dict"])
        for run in ("plain", "two ranks", "averaged")
    }
    assert names["plain"] == names["two ranks"] == names["averaged"]
    assert not any("_orig_mod" in name or name.startswith("module.") for name in names["plain"])

    class Compiled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.compile(torch.nn.Linear(2, 3))

    module = Compiled()
    assert set(module.state_dict()) == {"net._orig_mod.weight", "net._orig_mod.bias"}
    io = AtomicCheckpointIO(module)
    io.save_checkpoint({"state_dict": module.state_dict()}, tmp_path / LAST)
    stored = torch.load(tmp_path / LAST, weights_only=True)["state_dict"]
    assert set(stored) == {"net.weight", "net.bias"}
    check_fits(tmp_path / LAST, stored, module)
    Compiled().load_state_dict(io.load_checkpoint(tmp_path / LAST)["state_dict"])


def test_a_flipped_bit_is_found_or_does_not_matter(tmp_path: Path) -> None:
    """At random places, and in the directory at the end, which Torch and Python read each in its own way."""
    checkpoint = dict.fromkeys(RESUMABLE, 1) | {"state_dict": {"weight": torch.arange(500.0)}}
    AtomicCheckpointIO(torch.nn.Linear(1, 1)).save_checkpoint(checkpoint, tmp_path / LAST)
    content = (tmp_path / LAST).read_bytes()
    chance = random.Random(0)
    found = 0
    places = [*(chance.randrange(len(content)) for _ in range(200)), *range(len(content) - 120, len(content))]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        (tmp_path / LAST).write_bytes(flipped)
        path, loaded, wrong = newest_intact(tmp_path)
        assert (path is None) == bool(wrong)
        found += path is None
        if path is not None:
            assert torch.equal(loaded.pop("state_dict")["weight"], checkpoint["state_dict"]["weight"])
            assert loaded == dict.fromkeys(RESUMABLE - {"state_dict"}, 1)
    assert found > 100


@pytest.mark.parametrize("kind", ["short", "empty", "zero", "flipped"])
def test_a_damaged_checkpoint_is_found(kind: str, tmp_path: Path) -> None:
    saver = AtomicCheckpointIO(torch.nn.Linear(1, 1))
    for step in (1, 2):
        checkpoint = dict.fromkeys(RESUMABLE, 1) | {"state_dict": {"weight": torch.ones(1000)}, "global_step": step}
        saver.save_checkpoint(checkpoint, tmp_path / LAST)
    assert newest_intact(tmp_path)[0] == tmp_path / LAST
    damage(tmp_path / LAST, kind)
    path, checkpoint, [said] = newest_intact(tmp_path)
    assert path == tmp_path / PREVIOUS and checkpoint["global_step"] == 1
    assert said.startswith("last.ckpt is damaged (")
    damage(tmp_path / PREVIOUS, kind)
    assert newest_intact(tmp_path)[0] is None and len(newest_intact(tmp_path)[2]) == 2


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ({"precision": "bf16-mixed"}, "32-true now, as parallel.precision says, bf16-mixed before"),
        ({"precision": "32-true"}, None),
        ({}, None),
    ],
)
def test_a_run_that_goes_on_in_another_precision_says_so(
    before: dict[str, str], reason: str | None, tmp_path: Path
) -> None:
    """As trainer.precision=auto does on a machine without bfloat16."""
    module, origin = nn.Linear(1, 1), {"code": "a", "data": "b", "threads": "1"}
    content = dict.fromkeys(RESUMABLE) | {"state_dict": module.state_dict(), "global_step": 7, ORIGIN: origin | before}
    (tmp_path / CHECKPOINTS).mkdir()
    torch.save(content, tmp_path / CHECKPOINTS / LAST)
    record = SimpleNamespace(resumptions=[])
    run: Any = SimpleNamespace(directory=tmp_path, config={"trainer": {"accelerator": "cpu"}}, record=record)
    assert resume(run, cast("pl.LightningModule", module), origin | {"precision": "32-true"}) is not None
    [resumption] = record.resumptions
    assert (resumption.step, resumption.reason) == (7, reason)


def test_weights_that_do_not_fit_are_named() -> None:
    net = torch.nn.Linear(2, 3)
    for weights, said in (
        ({"weight": torch.zeros(3, 2)}, "it has no bias"),
        ({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, r"weight is \(3, 4\) there, \(3, 2\) here"),
        ({**net.state_dict(), "gate": torch.zeros(1)}, "this one has no gate"),
    ):
        with pytest.raises(ValueError, match=f"of another network: {said}"):
            check_fits(Path(LAST), weights, net)
    check_fits(Path(LAST), net.state_dict(), net)


def test_a_full_disk_leaves_the_checkpoint_before(killed) -> None:
    if "full disk" not in killed:
        pytest.skip("mounting a small file system needs root")
    result = killed["full disk"]
    assert result["codes"][0] == [1]
    assert "No space left on device" in (Path(result["directory"]) / "log.txt").read_text()
    [resumption] = result["resumptions"]
    assert resumption["checkpoint"] == LAST and resumption["step"] > 0 and "reason" not in resumption


@pytest.mark.parametrize(
    ("error", "known", "peer"),
    [
        (ValueError("batch_size must be 1"), True, False),
        (InstantiationException("in module"), False, False),
        (OSError(errno.ENOSPC, "No space left on device"), True, False),
        (OSError(errno.EIO, "Input/output error"), False, False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"), False, True),
        (RuntimeError("Timed out waiting 20000ms for recv operation to complete"), False, True),
        (torch.distributed.DistBackendError("unhandled system error"), False, True),
        (torch.distributed.DistNetworkError("failed to recv, got 0 bytes"), False, True),
    ],
)
def test_a_failure_says_whether_to_try_again_and_whether_it_is_a_peers(
    error: Exception, known: bool, peer: bool
) -> None:
    assert (is_known(error), is_of_a_peer(error)) == (known, peer)
    wrapped = InstantiationException("in module")
    wrapped.__cause__ = error
    assert is_known(wrapped) == known


def test_a_cause_replaces_a_broken_connection_and_nothing_replaces_it(tmp_path: Path) -> None:
    broken, cause = RuntimeError("Connection closed by peer"), LookupError("the cause")
    for error, kept in (
        (broken, "closed by peer"),
        (cause, "the cause"),
        (broken, "the cause"),
        (ValueError(), "cause"),
    ):
        report_failure(tmp_path, str(error), error)
        assert kept in json.loads((tmp_path / "failure.json").read_text())["error"]


def in_child(work: Any) -> int:
    """The exit code of a forked process that does ``work``, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            work()
            code = 0
        except Interrupted:
            code = 143
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_signals_outside_of_training_stop_at_once_and_only_once() -> None:
    def work() -> None:
        stop = StopRequest(1)
        stop.listen()
        os.kill(os.getpid(), signal.SIGUSR2)  # the supervisor's
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except Interrupted:
            os.kill(os.getpid(), signal.SIGTERM)  # while the record is written
            raise

    assert in_child(work) == 143


def test_a_step_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "GRACE_S", 1)

    def work() -> None:
        stop = StopRequest(1)
        stop.listen()
        stop._deferred = True
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        while True:
            time.sleep(1)

    assert in_child(work) == -signal.SIGALRM


@pytest.fixture(scope="module")
def all_references(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("all_straight")
    return folder, straight(folder, RUNS | SLOW_RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("run", [*RUNS, *SLOW_RUNS])
def test_a_kill_at_any_event(run: str, all_references, tmp_path: Path) -> None:
    """Every eleventh event for the plain run, every 37th for the others, each rank in turn.

    A step has a fixed number of events; primes meet each of them.
    """
    folder, references = all_references
    runs = RUNS | SLOW_RUNS
    plan = Plan(tmp_path, runs)
    ranks = runs[run][1]
    for number in range(0, len(references[run]["events"]), 11 if run == "plain" else 37):
        plan.add(f"{run} {number}", run, {"event": number, "rank": number % ranks}, None)
    for result in plan.run(timeout=3000).values():
        assert_equal(result, folder / run)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "two ranks", "U-Net", "sweep", "all at once"])
def test_kills_of_real_processes(kind: str, tmp_path: Path) -> None:
    """run.py and the processes that train, at random moments; tests/support/kill_trials.py does more, and each kind alone."""
    chance = random.Random(kind)
    trials = Trials(tmp_path, KINDS[kind])
    trial = trials.run("trial", chance.sample(["rank", "parent"], k=2), chance)
    assert not trial.differing, trial
    assert trial.kills
