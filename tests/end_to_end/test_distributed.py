"""Several processes on one machine: gloo, started by the suite itself."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.cluster_runs import until
from support.commands import CLEAN, ROOT, records, run, run_here, start
from support.kill_trials import ranks_of

DDP = ("trainer=ddp", "trainer.accelerator=cpu", "cluster.oversubscribe=true", "logger=none", "recipe.epochs=1")


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict]:
    """The same test by 1, 2 and 3 processes, on 21 and on 101 images."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, str(ROOT / "tests" / "support" / "evaluate_ranks.py"), str(folder), "21", "101"]
    subprocess.run(command, env=CLEAN, capture_output=True, text=True, check=True, timeout=120)
    return {ranks: json.loads((folder / f"{ranks}.json").read_text()) for ranks in (1, 2, 3)}


@pytest.mark.parametrize("count", ["21", "101"])
def test_evaluation_is_the_same_at_any_number_of_processes(evaluations: dict[int, dict], count: str) -> None:
    alone = evaluations[1][count]
    assert alone["test/n"] == int(count) == sum(map(sum, alone["confusion"])) == len(alone["outcomes"])
    for column, metric in enumerate(("test/top1_err", "test/top5_err")):
        hits = sum(row[column] for row in alone["outcomes"])
        assert alone[metric] == pytest.approx(100 * (1 - hits / int(count)), rel=1e-12)
    for ranks in (2, 3):
        several = evaluations[ranks][count]
        assert several["world_size"] == ranks
        assert several["confusion"] == alone["confusion"]
        assert several["outcomes"] == alone["outcomes"]
        for metric in ("test/n", "test/top1_err", "test/top5_err"):
            assert several[metric] == alone[metric]
        # Batches are cut elsewhere, and float32 convolutions round by batch.
        assert several["test/loss"] == pytest.approx(alone["test/loss"], rel=1e-6)


@pytest.mark.slow
def test_two_processes_train_one_trial_inside_a_sweep_and_alone(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    done = run("-m", "model=resnet,densenet", *DDP, "trainer.limit_train_batches=4", root=root)
    assert done.returncode == 0, done.stdout + done.stderr
    for record in records(root).values():
        assert record["status"] == "ok"
        parallel = record["parallel"]
        assert (parallel["world_size"], parallel["backend"], parallel["sync_batchnorm"]) == (2, "gloo", False)
        assert record["compute"]["samples_seen"] == 4 * 32  # the global batch is the recipe's
        assert record["metrics"]["test/n"] == 450
    again = run("model=resnet", *DDP, "trainer.limit_train_batches=4", root=tmp_path / "again")
    assert again.returncode == 0, again.stdout
    assert records(tmp_path / "again")["resnet20"]["weights_sha256"] == records(root)["resnet20"]["weights_sha256"]


@pytest.mark.slow
def test_the_global_batches_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    """Without batch-norm (U-Net) the loss of one and of two processes agrees to float32 rounding."""
    losses = []
    for devices in (1, 2):
        root = tmp_path / str(devices)
        arguments = ("model=unet", "data=nuclei", *DDP, f"trainer.devices={devices}", "trainer.limit_train_batches=3")
        done = run_here(*arguments, "model.base_channels=2", root=root)
        assert done.returncode == 0, done.stdout
        [history] = root.rglob("history.jsonl")
        losses.append(json.loads(history.read_text().splitlines()[0])["val/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_a_killed_rank_takes_its_trial_down_and_the_next_one_runs(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    process = start("-m", "model=resnet,densenet", *DDP, root=root)
    until(lambda: len(ranks_of(root)) == 2, "two processes train the first trial")
    os.kill(max(ranks_of(root)), signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    found = records(root)
    assert found["resnet20"]["status"] == "failed" and "SIGKILL" in found["resnet20"]["error"], out
    assert found["densenet_bc40_k12"]["status"] == "ok"
    assert not ranks_of(root)
