"""Paired differences of the networks on a data set, and the intervals beside their means."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from support.records import make_run

from benchmarks.analysis.differences import Difference, differences
from benchmarks.analysis.seeds import seed_groups
from benchmarks.records.runs import load_runs


def seeds(root: Path, name: str, errors: list[float], first: int = 0, **changes: Any) -> None:
    for seed, error in enumerate(errors, first):
        make_run(root, name=name, seed=seed, metrics={"test/top1_err": error}, **changes)


def found(root: Path) -> list[Difference]:
    return differences(load_runs(root)[0])


def test_networks_are_compared_whatever_their_seeds(tmp_path: Path) -> None:
    seeds(tmp_path, "resnet20", [3.0, 3.2, 3.4])
    seeds(tmp_path, "resnet29", [2.0, 2.1, 2.3, 2.2], first=7)
    [difference] = found(tmp_path)
    assert (difference.first, difference.second, difference.unit) == ("resnet20", "resnet29", "points")
    assert difference.comparison.mean == pytest.approx(1.05)
    # One spread of a seed's error as a share of p (1 - p), of both networks together: 5 degrees of freedom. No network keeps
    # less than its own.
    shares = [variance / (rate * (1 - rate)) for variance, rate in ((0.04e-4, 0.032), (0.05e-4 / 3, 0.0215))]
    common = (2 * shares[0] + 3 * shares[1]) / 5
    variance = max(common, shares[0]) * 0.032 * 0.968 / 3 + max(common, shares[1]) * 0.0215 * 0.9785 / 4
    half = 100 * stats.t.ppf(0.975, 5) * math.sqrt(variance)
    assert difference.comparison.interval == pytest.approx((1.05 - half, 1.05 + half), rel=0.002)
    assert "Holm" not in difference.text and "seeds alone" in difference.text


def test_a_score_is_compared_as_its_means_are_shown(tmp_path: Path) -> None:
    for name, errors in (("unet_a", (5.0, 5.1, 5.2)), ("unet_b", (7.0, 7.1, 7.2))):
        for seed, error in enumerate(errors):
            make_run(tmp_path, name=name, seed=seed, task="segmentation", metrics={"test/dice_err": error})
    better, worse = seed_groups(load_runs(tmp_path)[0])
    assert [group.text for group in (better, worse)] == ["Dice 94.90 ± 0.10 %", "Dice 92.90 ± 0.10 %"]
    [difference] = found(tmp_path)
    low, high = difference.comparison.interval or (0, 0)
    assert difference.comparison.mean == pytest.approx(94.9 - 92.9) and low + high == pytest.approx(2 * (94.9 - 92.9))
    assert difference.text.startswith(f"+2.00 points of Dice [{low:+.2f}, {high:+.2f}], n = 3, p = ")


def test_the_p_values_of_a_data_set_are_corrected_together(tmp_path: Path) -> None:
    base = [3.0, 3.1, 3.3, 3.2, 3.0, 3.4, 3.1]
    for index, name in enumerate(("resnet20", "resnet29", "densenet40_k12")):
        seeds(tmp_path, name, [error + 0.1 * index for error in base])
    seeds(tmp_path, "resnet20", base, data="nuclei")
    three = found(tmp_path)
    assert [difference.compared for difference in three] == [3, 3, 3]
    # Holm: the least of three is multiplied by 3, the next by 2, and none falls below another.
    ordered = sorted((difference.comparison.p, difference.p) for difference in three)
    assert [p for _, p in ordered] == pytest.approx(
        [3 * ordered[0][0], max(3 * ordered[0][0], 2 * ordered[1][0]), max(2 * ordered[1][0], ordered[2][0])]
    )
    assert f"(Holm over 3 pairs: {three[0].p:.2g})" in three[0].text


def test_of_many_networks_those_of_equal_cost_are_compared(tmp_path: Path) -> None:
    for index, macs in enumerate((100, 104, 106, 400, 404, 1600, 6400)):
        seeds(tmp_path, f"resnet{index}", [3.0, 3.1 + index], complexity={"macs": macs})
    pairs = [(difference.first, difference.second) for difference in found(tmp_path)]
    assert pairs == [("resnet0", "resnet1"), ("resnet1", "resnet2"), ("resnet3", "resnet4")]


def test_networks_of_several_folds_are_compared_within_each(tmp_path: Path) -> None:
    """Of three networks in each of three folds all pairs of a fold, though there are nine in all."""
    for fold in "012":
        for index, macs in enumerate((100, 200, 300)):
            more: dict[str, Any] = {"dataset": {"sha256": fold * 64}, "overrides": {"data.fold": int(fold)}}
            seeds(tmp_path / fold, f"resnet{index}", [3.0, 3.1, 3.3 + index], complexity={"macs": macs}, **more)
    within = [(difference.first, difference.second, difference.compared) for difference in found(tmp_path)]
    assert len(within) == 9 and set(within) == {
        (f"resnet{one} · data.fold={fold}", f"resnet{other} · data.fold={fold}", 9)
        for one, other in ((0, 1), (0, 2), (1, 2))
        for fold in range(3)
    }


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": {"sha256": "f" * 64}},
        {"metrics": {"test/n": 449}},
        {"protocol": {"definitions": {"top1_err": "mean of ten crops"}}},
        {"protocol": {"checkpoint": "best"}},
    ],
    ids=["other images", "fewer images", "definition", "checkpoint"],
)
def test_networks_tested_otherwise_are_not_compared(change: dict[str, Any], tmp_path: Path) -> None:
    seeds(tmp_path, "resnet20", [3.0, 3.2])
    for seed in (0, 1):
        make_run(tmp_path, name="resnet29", seed=seed, **change)
    assert found(tmp_path) == []


def test_a_single_seed_is_compared_with_nothing(tmp_path: Path) -> None:
    seeds(tmp_path, "resnet20", [3.0])
    seeds(tmp_path, "resnet29", [2.0])
    assert found(tmp_path) == []


def test_a_mean_has_its_interval_and_the_sampling_error_of_its_images(tmp_path: Path) -> None:
    seeds(tmp_path, "resnet20", [1.9, 2.0, 2.1])
    [group] = seed_groups(load_runs(tmp_path)[0])
    half = 4.302653 * 0.1 / math.sqrt(3) / (2 * 0.98)  # on the logit scale
    ends = [100 / (1 + math.exp(math.log(0.98 / 0.02) + sign * half)) for sign in (1, -1)]
    assert group.estimate.interval_text == f"[{ends[0]:.2f}, {ends[1]:.2f}]"
    assert group.estimate.basis_text == "seeds alone"
    assert group.sampling_text == f"± {100 * math.sqrt(0.02 * 0.98 / 450):.2f}"


def test_an_interval_stays_above_zero_where_students_does_not(tmp_path: Path) -> None:
    seeds(tmp_path, "resnet20", [0.2, 0.9, 2.4])
    [group] = seed_groups(load_runs(tmp_path)[0])
    assert group.mean - 4.3027 * group.std / math.sqrt(3) < 0
    low, high = group.estimate.interval or (0, 0)
    assert 0 < low < group.mean < high < 100


def test_pixels_have_no_binomial_sampling_error(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path, task="segmentation", seed=seed)
    [group] = seed_groups(load_runs(tmp_path)[0])
    assert group.sampling_text == ""


@pytest.mark.parametrize(
    ("errors", "missing"),
    [
        ([2.0, 2.0, 2.0], "3 equal runs, no interval"),
        ([2.0, 2.2], "2 runs, no interval without stored outcomes (1 more would do)"),
    ],
)
def test_no_number_is_given_that_the_seeds_do_not_carry(errors: list[float], missing: str, tmp_path: Path) -> None:
    seeds(tmp_path, "resnet20", errors)
    [group] = seed_groups(load_runs(tmp_path)[0])
    assert group.estimate.interval is None and group.estimate.interval_text == missing
