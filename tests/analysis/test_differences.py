"""Paired differences of the networks on a data set, and the intervals beside their means."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from support.records import make_run

from benchmarks.analysis.differences import Difference, differences
from benchmarks.analysis.seeds import seed_groups
from benchmarks.records.runs import load_runs


def seeds(root: Path, name: str, errors: list[float], first: int = 0, **changes: Any) -> None:
    for seed, error in enumerate(errors, first):
        make_run(root, name=name, seed=seed, metrics={"test/top1_err": error}, **changes)


def found(root: Path) -> list[Difference]:
    return differences(load_runs(root)[0])


def test_networks_are_compared_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    seeds(tmp_path, "resnet20", [3.0, 3.2, 3.4])
    seeds(tmp_path, "resnet29", [2.0, 2.0, 9.9], first=1)
    [difference] = found(tmp_path)
    assert (difference.first, difference.second, difference.unit) == ("resnet20", "resnet29", "points")
    assert difference.comparison.differences == pytest.approx({1: 1.2, 2: 1.4})
    # Student's t of two differences: 12.706 s / sqrt 2, s = 0.1414.
    low, high = difference.comparison.interval or (0, 0)
    assert (low, high) == pytest.approx((1.3 - 12.7062 * 0.1, 1.3 + 12.7062 * 0.1), rel=1e-4)
    assert "Holm" not in difference.text


def test_the_p_values_of_a_data_set_are_corrected_together(tmp_path: Path) -> None:
    base = [3.0, 3.1, 3.3, 3.2, 3.0, 3.4, 3.1]
    for index, name in enumerate(("resnet20", "resnet29", "densenet40_k12")):
        seeds(tmp_path, name, [error + index for error in base])
    seeds(tmp_path, "resnet20", base, data="nuclei")
    three = found(tmp_path)
    assert [difference.compared for difference in three] == [3, 3, 3]
    # Seven pairs of one sign: p = 2 / 2^7; the least of three is multiplied by 3, and none falls below it.
    assert [difference.comparison.p for difference in three] == pytest.approx([2 / 128] * 3)
    assert [difference.p for difference in three] == pytest.approx([6 / 128] * 3)


def test_of_many_networks_those_of_equal_cost_are_compared(tmp_path: Path) -> None:
    for index, macs in enumerate((100, 104, 106, 400, 404, 1600, 6400)):
        seeds(tmp_path, f"resnet{index}", [3.0, 3.1 + index], complexity={"macs": macs})
    pairs = [(difference.first, difference.second) for difference in found(tmp_path)]
    assert pairs == [("resnet0", "resnet1"), ("resnet1", "resnet2"), ("resnet3", "resnet4")]


@pytest.mark.parametrize(
    "change", [{"dataset": {"sha256": "f" * 64}}, {"metrics": {"test/n": 449}}], ids=["other images", "fewer images"]
)
def test_networks_tested_on_other_images_are_not_compared(change: dict[str, Any], tmp_path: Path) -> None:
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
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert group.interval_text == f"[{2 - half:.2f}, {2 + half:.2f}]"
    assert group.sampling_text == f"± {100 * math.sqrt(0.02 * 0.98 / 450):.2f}"


def test_pixels_have_no_binomial_sampling_error(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path, task="segmentation", seed=seed)
    [group] = seed_groups(load_runs(tmp_path)[0])
    assert group.sampling_text == ""


def test_equal_runs_have_no_interval(tmp_path: Path) -> None:
    seeds(tmp_path, "resnet20", [2.0, 2.0])
    [group] = seed_groups(load_runs(tmp_path)[0])
    assert group.interval_text == "2 equal runs, no interval"
