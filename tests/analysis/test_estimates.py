"""Intervals of runs on disk: with outcomes of every test image, without, and with files that are not theirs."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats
from support.records import make_run

from benchmarks.analysis.differences import differences
from benchmarks.analysis.error_rates import (
    components_of_outcomes,
    components_of_rates,
    contrast,
    detectable,
    half_width,
    limits,
    p_value,
    pooled,
    seeds_to_show,
    variances,
)
from benchmarks.analysis.estimates import Estimate, compare, estimate_of_values, estimates, half_width_of_seeds
from benchmarks.analysis.seeds import same_but_seed, seed_groups
from benchmarks.records.outcomes import OUTCOMES, Outcomes, read_outcomes, write_outcomes
from benchmarks.records.runs import load_runs
from benchmarks.report.chart_data import charts_of
from benchmarks.report.leaderboard import leaderboard
from benchmarks.report.sections import means

IMAGES = 450
RNG = np.random.default_rng(0)


def classified(root: Path, name: str, errors: np.ndarray, test_set: str = "a", **changes: object) -> list[Path]:
    """Run folders of each row of errors (n, N), with their outcomes."""
    folders = []
    for seed, row in enumerate(errors):
        metrics = {"test/top1_err": 100 * float(row.mean()), "test/n": len(row)}
        folders.append(make_run(root, name=name, seed=seed, metrics=metrics, **changes))
        write_outcomes(folders[-1], Outcomes(test_set, {"top1_err": ~row}))
    return folders


def estimated(root: Path) -> list[Estimate]:
    return estimates(same_but_seed(load_runs(root)[0]))


def errors(n: int = 3, rate: float = 0.06, images: int = IMAGES) -> np.ndarray:
    return RNG.random((n, images)) < rate * RNG.choice([0.2, 1.8], images)


def test_two_seeds_with_outcomes_have_an_interval_where_their_spread_is_pooled(tmp_path: Path) -> None:
    rows = errors(2), errors(2, 0.08)
    classified(tmp_path, "resnet20", rows[0])
    [alone] = estimated(tmp_path)
    assert alone.interval_text == "2 runs, no interval without a pooled spread (1 more would do)"
    classified(tmp_path, "resnet29", rows[1])
    one, other = estimated(tmp_path)
    components = pooled([components_of_outcomes(of) for of in rows])
    for mine, expected in zip((one, other), components, strict=True):
        low, high = (100 * float(end) for end in limits(expected))
        assert expected.shared and mine.interval == pytest.approx((low, high))
        assert mine.interval_text == f"[{low:.2f}, {high:.2f}]"
        assert (mine.basis_text, mine.left_out, mine.test_set) == ("spread pooled over 2 networks", (), "a")
        # It is no narrower than the images alone make it: Wilson's of all outcomes as if they were other images.
        assert high - low > 2 * 196 * math.sqrt(mine.mean / 100 * (1 - mine.mean / 100) / (2 * IMAGES))


def test_networks_are_compared_by_test_image(tmp_path: Path) -> None:
    hard = RNG.random(IMAGES) < 0.2
    first, second = (hard & (RNG.random((3, IMAGES)) < chance) for chance in (0.7, 0.4))
    classified(tmp_path, "resnet20", first)
    classified(tmp_path, "resnet29", second)
    [difference] = differences(load_runs(tmp_path)[0])
    compared = contrast(*pooled([components_of_outcomes(first), components_of_outcomes(second)]))
    half = 100 * float(half_width(*variances(compared)))
    mean = 100 * (first.mean() - second.mean())
    assert difference.comparison.interval == pytest.approx((mean - half, mean + half))
    assert difference.p == pytest.approx(float(p_value(compared))) and difference.p < 0.05
    assert (
        difference.text == f"{mean:+.2f} points [{mean - half:+.2f}, {mean + half:+.2f}], n = 3, p = {difference.p:.2g}"
    )


def test_three_seeds_tell_a_difference_that_no_sign_flip_can(tmp_path: Path) -> None:
    # Every sign pattern of three pairs but two is nearer to zero: p = 0.25, whatever the images say.
    hard = RNG.random(IMAGES) < 0.2
    classified(tmp_path, "resnet20", hard & (RNG.random((3, IMAGES)) < 0.7))
    classified(tmp_path, "resnet29", hard & (RNG.random((3, IMAGES)) < 0.3))
    [difference] = differences(load_runs(tmp_path)[0])
    assert difference.p < 0.05 < 0.25


def test_a_difference_that_is_not_shown_says_what_would_show_it(tmp_path: Path) -> None:
    rows = errors(3, 0.06), errors(3, 0.08)
    for name, of in zip(("resnet20", "resnet29"), rows, strict=True):
        classified(tmp_path, name, of)
    [difference] = differences(load_runs(tmp_path)[0])
    assert difference.p > 0.05
    compared = contrast(*pooled([components_of_outcomes(of) for of in rows]))
    assert difference.comparison.detectable == pytest.approx(100 * detectable(compared))  # in points
    assert (
        f"; smallest detectable difference with 3 seeds: {difference.comparison.detectable:.2f} points; "
        in difference.text
    )
    missing, needed = (
        difference.comparison.seeds_missing,
        seeds_to_show(compared, abs(difference.comparison.mean) / 100),
    )
    assert missing == (None if needed is None else needed - 3)
    assert ("1,000 seeds would not show" if missing is None else f"{missing} more seeds would show") in difference.text


def test_what_seeds_would_show_is_said_of_a_pair_alone_where_several_are_corrected_together(tmp_path: Path) -> None:
    classified(tmp_path, "resnet20", errors(3, 0.06))
    classified(tmp_path, "resnet29", errors(3, 0.08))
    classified(tmp_path, "resnet38", errors(3, 0.08))
    shown = [one for one in differences(load_runs(tmp_path)[0]) if one.p > 0.05]
    assert shown
    for one in shown:
        compared, smallest = one.comparison.contrast, one.comparison.detectable
        assert compared is not None and smallest is not None
        assert f"; smallest detectable difference of this pair alone with 3 seeds: {smallest:.2f} points" in one.text
        # At Holm's level for the first of three a true difference of that size has less power than 0.8.
        values, weights = variances(compared)
        needed = float(half_width(values, weights, 1 - 0.05 / 3))
        assert special.ndtr((smallest / 100 - needed) / math.sqrt(float(values @ weights))) < 0.8


def test_seeds_that_tie_do_not_make_a_difference_from_others_certain(tmp_path: Path) -> None:
    rows = np.zeros((3, IMAGES), dtype=bool)
    for seed, row in enumerate(rows):
        row[9 * seed : 9 * seed + 9] = True  # 2 % each, on images of its own
    classified(tmp_path, "resnet20", rows)
    [one] = estimated(tmp_path)
    half = half_width_of_seeds(one, 3, 1)
    # What single outcomes alone give: squares about the mean less those of the images' means, on 2 · 449 degrees of freedom.
    within = (0.02 * 0.98 - (27 / IMAGES / 9 - 0.02**2)) * 3 * IMAGES / (2 * (IMAGES - 1)) / IMAGES
    assert half == pytest.approx(100 * 1.959964 * math.sqrt(within * (1 / 3 + 1)), rel=1e-4)


def test_nothing_would_show_a_difference_that_is_none(tmp_path: Path) -> None:
    for name, counts, start in (("resnet20", (3, 4, 8), 0), ("resnet29", (3, 5, 7), 200)):  # 15 errors each
        rows = np.zeros((3, IMAGES), dtype=bool)
        for row, wrong in zip(rows, counts, strict=True):
            row[start : start + wrong] = True
        classified(tmp_path, name, rows)
    [difference] = differences(load_runs(tmp_path)[0])
    assert 0 < abs(difference.comparison.mean) < 1e-15  # the last bit of a mean
    interval, smallest = r"\[-\d\.\d\d, \+\d\.\d\d\]", r"smallest detectable difference with 3 seeds: \d\.\d\d points"
    assert re.fullmatch(rf"\+0\.00 points {interval}, n = 3, p = 1; {smallest}", difference.text)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def longer(path: Path) -> None:
    write_outcomes(path.parent, Outcomes("a", {"top1_err": np.ones(IMAGES + 1, dtype=bool)}))


def of_another_test_set(path: Path) -> None:
    from benchmarks.records.outcomes import read_outcomes

    outcomes = read_outcomes(path.parent)
    assert outcomes is not None
    write_outcomes(path.parent, Outcomes("b", outcomes.hits))


def of_another_result(path: Path) -> None:
    write_outcomes(path.parent, Outcomes("a", {"top1_err": np.ones(IMAGES, dtype=bool)}))


def of_one_image_more(path: Path) -> None:
    outcomes = read_outcomes(path.parent)
    assert outcomes is not None
    hits = outcomes.hits["top1_err"]
    hits[np.flatnonzero(hits)[0]] = False
    write_outcomes(path.parent, outcomes)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (of_one_image_more, "for top1_err, the record 0."),
        (torn, "is no file of outcomes"),
        (longer, "has 451 images, the run was tested on 450"),
        (of_another_test_set, "is of another test set than the other seeds'"),
        (of_another_result, "gives 0.00000 for top1_err, the record 0."),
    ],
)
def test_outcomes_that_are_not_the_runs_are_named_and_left_out(spoil, reason: str, tmp_path: Path) -> None:
    path = classified(tmp_path, "resnet20", errors())[1] / OUTCOMES
    before = estimated(tmp_path)[0].interval
    spoil(path)
    [one] = estimated(tmp_path)
    [message] = one.left_out
    assert str(path) in message and reason in message
    assert one.interval is not None and one.interval != before
    assert (one.test_set, one.basis_text) == ("", "seeds alone")


def test_a_difference_of_error_rates_is_within_the_scale() -> None:
    low, high = (estimate_of_values(values, percent=True) for values in ([1.0, 3.0, 40.0], [60.0, 97.0, 99.0]))
    interval, reverse = compare(low, high).interval, compare(high, low).interval
    assert interval is not None and reverse is not None
    assert (interval[0], reverse[1]) == (-100, 100)


def test_equal_runs_of_each_are_not_called_equal_to_the_others() -> None:
    first, second = (estimate_of_values([value] * n, percent=True) for value, n in ((10.0, 3), (12.0, 4)))
    assert compare(first, second).text("points", 1, 1) == (
        "-2.00 points, 3 equal runs against 4 equal ones, no interval"
    )


def test_outcomes_are_read_once_for_all_that_ask(tmp_path: Path) -> None:
    for name in ("one", "other"):
        classified(tmp_path, name, errors())
    runs = load_runs(tmp_path)[0]
    first = [group.estimate.interval for group in seed_groups(runs)]
    for path in tmp_path.rglob(OUTCOMES):
        path.unlink()
    assert [group.estimate.interval for group in seed_groups(runs)] == first and None not in first
    assert [group.estimate.test_set for group in seed_groups(load_runs(tmp_path)[0])] == ["", ""]  # others read anew


def test_runs_without_outcomes_fall_back_to_their_seeds(tmp_path: Path) -> None:
    rows = errors()
    *with_outcomes, without = classified(tmp_path, "resnet20", rows)
    without.joinpath(OUTCOMES).unlink()
    [one] = estimated(tmp_path)
    left_out = (f"{without / OUTCOMES} is missing",)
    assert (one.test_set, one.left_out, one.basis_text) == ("", left_out, "seeds alone")
    for folder in with_outcomes:  # as of a recipe whose outcomes are not stored
        folder.joinpath(OUTCOMES).unlink()
    [one] = estimated(tmp_path)
    assert (one.test_set, one.left_out, one.basis_text) == ("", (), "seeds alone")
    classified(tmp_path, "resnet29", errors(2))[1].joinpath(OUTCOMES).unlink()
    assert "2 runs, no interval without stored outcomes (1 more would do)" in [
        one.missing for one in estimated(tmp_path)
    ]


def test_networks_of_other_test_images_are_compared_by_their_seeds(tmp_path: Path) -> None:
    classified(tmp_path, "resnet20", errors())
    classified(tmp_path, "resnet29", errors(), test_set="b")
    [difference] = differences(load_runs(tmp_path)[0])
    assert not difference.comparison.paired and "; seeds alone" in difference.text


def test_spread_is_pooled_over_networks_of_one_budget_and_said(tmp_path: Path) -> None:
    for wrong, name in ((22, "resnet20"), (31, "resnet29"), (40, "densenet40_k12")):
        for limit in (1e9, 1e10):
            classified(
                tmp_path, name, np.array([np.arange(IMAGES) < wrong + more for more in (-2, 0, 2)]),
                overrides={"trainer.max_train_flops": limit},
                protocol={"budget": {"kind": "train_flops", "limit": limit, "spent": limit + wrong}},
            )  # fmt: skip
    many = estimated(tmp_path)
    # Three networks of three seeds, budgets apart.
    assert [float(one.components.df) for one in many if one.components] == [6.0] * 6
    assert {one.basis_text for one in many} == {"spread pooled over 3 networks"}


@pytest.mark.parametrize(
    ("change", "networks"),
    [
        ({}, 2),
        ({"overrides": {"model.depth": 8}}, 2),
        ({"overrides": {"trainer.precision": "bf16-mixed"}}, 1),
        ({"overrides": {"recipe.optimizer.lr": 0.4}}, 1),
        ({"protocol": {"budget": {"kind": "train_flops", "limit": 1e10}}}, 1),
        ({"protocol": {"budget": {"kind": "train_seconds", "limit": 1e9}}}, 1),
        ({"protocol": {"budget": {"kind": "train_flops", "limit": 1e9}, "checkpoint": "best"}}, 1),
        ({"dataset": {"sha256": "f" * 64}}, 1),
    ],
)
def test_spread_is_pooled_where_budget_options_and_images_agree(change: dict, networks: int, tmp_path: Path) -> None:
    budget = {"protocol": {"budget": {"kind": "train_flops", "limit": 1e9}}}
    for wrong, name, own in ((22, "resnet20", {}), (31, "resnet29", change)):
        rows = np.array([np.arange(IMAGES) < wrong + more for more in (-2, 0, 2)])
        classified(tmp_path, name, rows, **(budget | own))
    assert [one.networks for one in estimated(tmp_path)] == [networks] * 2


def test_tables_of_two_learning_rates_say_that_networks_of_one_are_pooled(tmp_path: Path) -> None:
    for wrong, rate in ((22, 0.1), (31, 0.1), (25, 0.4), (34, 0.4), (40, 0.4)):
        rows = np.array([np.arange(IMAGES) < wrong + more for more in (-2, 0, 2)])
        classified(tmp_path, f"net{wrong}", rows, overrides={"recipe.optimizer.lr": rate})
    runs, _ = load_runs(tmp_path)
    said = means(runs, ())
    pooled_over = Counter(str(row[4]).rpartition("pooled over ")[2] for row in said.rows)
    assert pooled_over == {"2 networks": 2, "3 networks": 3}
    assert "networks trained alike (one learning rate, " in " ".join(said.notes)
    [on_page] = [note for note in leaderboard(charts_of(runs)).notes if "pooled" in note]
    assert "networks trained alike (one learning rate, " in on_page


def test_a_score_of_masks_varies_over_images_as_the_jackknife_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    size, hard = rng.integers(200, 2_000, 15), rng.uniform(0.05, 0.2, 15)
    jackknife = []
    for seed in range(3):
        missed, false = rng.binomial(size, hard + 0.01 * seed), rng.binomial(size, 0.05)
        pixels = np.stack([size - missed, false, missed], axis=1)[:, None, :]
        outcomes = Outcomes("masks", {}, pixels)
        folder = make_run(
            tmp_path, task="segmentation", seed=seed, metrics={"test/dice_err": outcomes.score("dice_err")}
        )
        write_outcomes(folder, outcomes)
        # By leaving out an image at a time (Quenouille 1956): the variance of a ratio of sums, of one seed.
        left = [Outcomes("", {}, np.delete(pixels, j, axis=0)).score("dice_err") for j in range(15)]
        jackknife.append(14 / 15 * float(np.sum((np.array(left) - np.mean(left)) ** 2)) / 1e4)
    [one] = estimated(tmp_path)
    assert one.test_set == "masks" and one.components is not None
    of_a_seed = float(one.components.images + one.components.residual * 3)
    assert of_a_seed == pytest.approx(np.mean(jackknife), rel=0.1)


@pytest.mark.parametrize("images", [1, 2, 9, 10])
def test_a_few_masks_tell_nothing_of_other_test_images(images: int, tmp_path: Path) -> None:
    # Of N images the spread has N - 1 degrees of freedom: 1.96 standard errors hold so much, where 95 % are promised.
    held = {count: 1 - 2 * stats.t.sf(1.96, count - 1) for count in (2, 10)}
    assert held == pytest.approx({2: 0.70, 10: 0.92}, abs=0.005)
    values = []
    for seed in range(3):
        size = RNG.integers(200, 2_000, images)
        missed = RNG.binomial(size, 0.1)
        outcomes = Outcomes("masks", {}, np.stack([size - missed, 0 * size, missed], axis=1)[:, None, :])
        values.append(outcomes.score("dice_err"))
        metrics = {"test/dice_err": values[-1], "test/n": images}
        write_outcomes(make_run(tmp_path, task="segmentation", seed=seed, metrics=metrics), outcomes)
    [one] = estimated(tmp_path)
    assert one.basis_text == ("" if images >= 10 else "seeds alone")
    of_seeds = [100 * float(end) for end in limits(components_of_rates(np.array(values) / 100))]
    assert (one.interval == pytest.approx(of_seeds)) == (images < 10)


def test_one_test_image_leaves_the_seeds(tmp_path: Path) -> None:
    classified(tmp_path, "resnet20", np.array([[True], [False], [False]]))
    [one] = estimated(tmp_path)
    assert one.basis_text == "seeds alone" and one.interval is not None


@pytest.mark.slow
def test_outcomes_of_ten_thousand_runs_are_read_in_seconds(tmp_path: Path) -> None:
    for index in range(100):
        classified(tmp_path, f"resnet{index}", errors(3, 0.06, 10_000))
    runs = load_runs(tmp_path)[0]
    start = time.process_time()
    assert all(group.estimate.test_set for group in seed_groups(runs))
    assert (time.process_time() - start) * 10_000 / 300 < 6
