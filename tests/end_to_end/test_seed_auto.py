"""seed=auto as a user meets it: few seeds first, more where networks are not told apart, and why it stopped."""

import re
from pathlib import Path

import pytest
from support.commands import run as run_py
from support.commands import run_here

from benchmarks.records.runs import load_runs
from run import main

TINY = (
    "recipe=common",
    "recipe.epochs=1",
    "recipe.batch_size=290",  # 4 batches of the digits
    "logger=none",
    "cluster.threads_per_process=1",
)


def test_a_single_network_has_nothing_to_be_told_apart_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=resnet", "seed=auto", f"output_root={tmp_path}"]) == 2
    assert "seed=auto adds seeds until networks are told apart: give at least two" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_composed_is_no_network_and_stops_no_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", "model=resnet,unet", "seed=auto", f"output_root={tmp_path}"]) == 2  # no U-Net on the digits
    assert "give at least two" in capsys.readouterr().err
    two = ("model=resnet,unet", "model.depth=8", "model.base_channels=2,4", "trainer.limit_train_batches=1")
    done = run_here("-m", *two, "seed=auto", *TINY, root=tmp_path / "outputs")
    assert done.returncode == 1 and "seed=auto: 3 seeds of 2 networks" in done.stdout
    assert "no two networks are compared" in done.stdout and "not every run has a result" not in done.stdout


def test_where_no_two_networks_are_compared_it_says_so(tmp_path: Path) -> None:
    two = ("model=resnet", "model.depth=8", "model.base_channels=2,4", "trainer.limit_train_batches=1")
    done = run_here("-m", *two, "seed=auto", *TINY, root=tmp_path / "outputs")
    assert done.returncode == 0, done.stderr
    assert "seed=auto: 3 seeds of 2 networks" in done.stdout and "seed=auto: 5" not in done.stdout
    [last] = [line for line in done.stdout.splitlines() if line.startswith("seed=auto stopped: ")]
    assert "no two networks are compared" in last and "whole epochs" in last


@pytest.mark.slow
def test_a_budget_is_that_of_all_looks_together(tmp_path: Path) -> None:
    root, limit = tmp_path / "outputs", 1.3e9
    two = ("model=resnet", "model.depth=8", "model.base_channels=2,4")
    done = run_here("-m", *two, "seed=auto", *TINY, f"launch.budget.train_flops={limit}", root=root)
    assert done.returncode == 0, done.stderr
    runs, _ = load_runs(root)
    spent = sum(run.train_flops or 0 for run in runs)
    assert limit / 2 < spent <= limit and "seed=auto: 5 seeds of 2 networks" in done.stdout
    [stopped] = [line for line in done.stdout.splitlines() if line.startswith("seed=auto stopped: ")]
    said = (
        f"no further run was started: train_flops of what remains (4 of 10 runs), with the {len(runs)} runs of before,"
    )
    assert said in stopped


@pytest.mark.slow
def test_seeds_are_added_until_a_pair_is_decided_left_or_the_most_are_run(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    done = run_py("-m", "model=resnet", "model.base_channels=2,4", "seed=auto", *TINY, root=root, timeout=1800)
    assert done.returncode == 0, done.stderr
    seeds = {len(list(folder.glob("seed*/record.json"))) for folder in root.glob("digits/*/*")}
    [number] = seeds  # the same of both
    assert number in (3, 5, 8, 12)
    looks = [int(text) for text in re.findall(r"seed=auto: ([0-9]+) seeds of 2 networks", done.stdout)]
    assert looks == [look for look in (3, 5, 8, 12) if look <= number]
    reason = {
        True: "seed=auto stopped: 12 seeds are the most",
        False: "with" if "decided" in done.stdout else "left after",
    }
    assert reason[f"open after {number}" in done.stdout] in done.stdout
    # The same command trains nothing more and says the same.
    again = run_py("-m", "model=resnet", "model.base_channels=2,4", "seed=auto", *TINY, root=root, timeout=600)
    last = [line for line in done.stdout.splitlines() if " against " in line][-1]
    assert last in again.stdout.splitlines()
    assert {len(list(folder.glob("seed*/record.json"))) for folder in root.glob("digits/*/*")} == seeds
