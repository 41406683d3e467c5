"""Adding seeds: what a look decides, what it passes over, and that looking often claims nothing false."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.records import make_run

from benchmarks.analysis import sequential
from benchmarks.analysis.differences import Difference
from benchmarks.analysis.estimates import Comparison
from benchmarks.analysis.sequential import judge, mixed_seeds
from benchmarks.records.outcomes import Outcomes, write_outcomes
from benchmarks.records.runs import Run, load_runs

IMAGES = 450


def classified(root: Path, name: str, errors: np.ndarray) -> None:
    """Run folders of each row of errors (n, N), with their outcomes."""
    for seed, row in enumerate(errors):
        metrics = {"test/top1_err": 100 * float(row.mean()), "test/n": len(row)}
        folder = make_run(root, name=name, seed=seed, metrics=metrics)
        write_outcomes(folder, Outcomes("a" * 64, {"top1_err": ~row}))


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Eight seeds of two networks that are equal, and three of one that is worse."""
    rng = np.random.default_rng(0)
    hard = rng.random(IMAGES) < 0.2
    equal = hard & (rng.random((8, IMAGES)) < 0.3)
    classified(tmp_path, "resnet20", equal)
    classified(tmp_path, "resnet29", equal)
    classified(tmp_path, "resnet44", (hard & (rng.random((3, IMAGES)) < 0.9)) | (rng.random((3, IMAGES)) < 0.05))
    return load_runs(tmp_path)[0]


def states(judged: dict) -> dict[tuple[str, str], str]:
    return {(one.difference.first, one.difference.second): one.state for one in judged.values()}


def test_pairs_are_decided_open_and_left(runs: list[Run]) -> None:
    first = judge(runs, 0, {})
    assert states(first) == {
        ("resnet20", "resnet29"): "open",  # at the first look none is left
        ("resnet20", "resnet44"): "differs",
        ("resnet29", "resnet44"): "differs",
    }
    assert {one.difference.comparison.n for one in first.values()} == {(3, 3)}  # of eight that are there
    second = judge(runs, 1, first)
    assert states(second) == states(first) | {("resnet20", "resnet29"): "left"}
    decided = next(one for pair, one in second.items() if one.state == "differs")
    assert decided.seeds == 3 and "differ, decided with 3 seeds" in decided.text
    folders = {folder.parent.name for pair, one in first.items() if one.state == "open" for folder in pair}
    assert folders == {"resnet20", "resnet29"}


def test_a_pair_that_was_left_has_no_later_seeds_though_others_have(runs: list[Run], tmp_path: Path) -> None:
    hard = np.random.default_rng(1).random((5, IMAGES)) < 0.1
    for name in ("resnet50", "resnet56"):
        classified(tmp_path, name, hard)
    judged = judge(load_runs(tmp_path)[0], 2, {})  # the look at eight seeds, which resnet20 and resnet29 have
    of = {(one.difference.first, one.difference.second): one for one in judged.values()}
    assert "left after 8 seeds" in of["resnet20", "resnet29"].text
    left = of["resnet50", "resnet56"]
    assert (left.state, left.difference.comparison.n) == ("left", (5, 5))
    assert left.seeds == 5 and "left after 5 seeds" in left.text


def test_seeds_of_two_states_of_the_code_are_no_two_networks(runs: list[Run], tmp_path: Path) -> None:
    assert mixed_seeds(runs) == ""
    make_run(tmp_path, name="resnet20", seed=8, code={"training_sha256": "b" * 64})
    reason = mixed_seeds(load_runs(tmp_path)[0])
    assert reason.startswith("runs of resnet20 differ in more than the seed, code ") and " and code bbbbbbb: " in reason


def test_seeds_of_two_states_of_a_recipe_are_no_two_networks(tmp_path: Path) -> None:
    for seed, digest in enumerate("aab"):
        make_run(tmp_path, name="resnet20", seed=seed, config_hash_without_seed=digest * 64)
    reason = mixed_seeds(load_runs(tmp_path)[0])
    assert "differ in more than the seed, configuration aaaaaaa and configuration bbbbbbb: " in reason


def test_a_claim_stays(runs: list[Run]) -> None:
    equal = {pair: one for pair, one in judge(runs, 0, {}).items() if one.state == "open"}
    claimed = {pair: replace(one, state="differs") for pair, one in equal.items()}
    after = judge(runs, 2, claimed)
    assert [after[pair] for pair in claimed] == list(claimed.values())


@pytest.mark.parametrize(
    ("corrected", "alone", "look", "state"),
    [
        (0.0124, 0.0124, 0, "differs"),
        (0.0126, 0.0126, 0, "open"),  # a quarter of 5 % at each look
        (0.03, 0.01, 3, "open"),  # over the table, not alone
        (1.0, 0.49, 1, "open"),
        (1.0, 0.51, 1, "left"),
        (1.0, 0.51, 0, "open"),
    ],
)
def test_each_look_has_a_quarter_of_the_five_percent(
    corrected: float, alone: float, look: int, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = Comparison(1.0, (3, 5), (-1.0, 3.0), "", alone, True, None, 100.0)
    one = Difference("digits", "a", "b", (Path("a"), Path("b")), "points", compared, corrected, 3)
    monkeypatch.setattr(sequential, "differences", lambda runs: [one])
    [judged] = judge([], look, {}).values()
    assert (judged.state, judged.seeds) == (state, 5)
