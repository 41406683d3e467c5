"""Statistics against closed forms, published figures, SciPy's own functions and simulation."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from benchmarks.analysis.statistics import (
    FEWEST,
    compare,
    detectable_difference,
    holm,
    mean_interval,
    probability_below,
    sampling_error,
    seeds_to_show,
    sign_flip_p,
    smallest_p,
    wilson_interval,
    without_interval,
)


def test_reading_starts_without_scipy() -> None:
    script = "import sys, benchmarks.analysis.statistics; print({'scipy', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_the_interval_is_students() -> None:
    # Closed forms of Student's t with 1 and 2 degrees of freedom.
    low, high = mean_interval([1.0, 3.0])  # type: ignore[misc]
    assert (low, high) == pytest.approx((2 - math.tan(0.475 * math.pi), 2 + math.tan(0.475 * math.pi)))
    t2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    low, high = mean_interval([1.0, 2.0, 3.0])  # type: ignore[misc]
    assert (low, high) == pytest.approx((2 - t2 / math.sqrt(3), 2 + t2 / math.sqrt(3)))
    values = [1.7, 2.0, 2.3, 1.1, 2.2]
    assert mean_interval(values) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))


def test_one_run_has_no_interval_and_none_is_refused() -> None:
    assert mean_interval([2.0]) is None and without_interval(1) == "1 run, no interval"
    assert mean_interval([2.0 - 1.9, 0.1, 0.1]) is None and without_interval(3) == "3 equal runs, no interval"
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_mean_interval_covers_the_truth(n: int) -> None:
    draws = np.random.default_rng(1).normal(2.0, 0.5, (4_000, n))
    held = [low <= 2.0 <= high for low, high in map(mean_interval, draws.tolist())]  # type: ignore[misc]
    assert 0.93 < np.mean(held) < 0.97


def test_the_probability_of_a_mean_below_zero() -> None:
    # Student's t with one degree of freedom is Cauchy's distribution.
    assert probability_below([-1.0, 3.0]) == pytest.approx(0.5 - math.atan(0.5) / math.pi)
    assert probability_below([-3.0, 1.0]) == pytest.approx(0.5 + math.atan(0.5) / math.pi)
    values = [0.3, -0.2, -0.9, 0.1]
    assert probability_below(values) == pytest.approx(1 - stats.ttest_1samp(values, 0, alternative="less").pvalue)
    assert probability_below([-1.0]) is None and probability_below([-1.0, -1.0]) is None
    # Calibrated: at a true mean of zero it is uniform.
    draws = np.random.default_rng(9).normal(0.0, 1.0, (4_000, 3))
    drawn = [probability_below(row) for row in draws.tolist()]
    assert np.quantile(drawn, [0.05, 0.25, 0.5, 0.95]) == pytest.approx([0.05, 0.25, 0.5, 0.95], abs=0.03)


def test_sign_flips_counted_by_hand() -> None:
    # |±1 ±2 ±3| ≥ 4 for 1+2+3, -1+2+3 and their mirrors: 4 of 8; ≥ 6 for 2 of 8.
    assert sign_flip_p([-1.0, 2.0, 3.0]) == 4 / 8
    assert sign_flip_p([1.0, 2.0, 3.0]) == sign_flip_p([-1.0, -2.0, -3.0]) == 2 / 8 == smallest_p(3)
    assert sign_flip_p([0.5]) == 1.0
    assert sign_flip_p([0.0, 0.0, 0.0, 0.0]) == 1.0
    # 0.1 + 0.2 and 0.3 differ in the last bit: |0.1 + 0.2 - 0.3| is as near to zero as |-0.1 - 0.2 + 0.3|.
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0
    assert smallest_p(FEWEST - 1) > 0.05 >= smallest_p(FEWEST)


def test_sign_flips_against_an_independent_count_and_scipy() -> None:
    draws = np.random.default_rng(2).normal(0.3, 1.0, (20, 9))
    for differences in draws:
        patterns = np.array(list(itertools.product((-1, 1), repeat=9))) @ differences
        counted = np.mean(np.abs(patterns) >= abs(differences.sum()) - 1e-12)
        assert sign_flip_p(differences.tolist()) == counted
    by_scipy = stats.permutation_test(
        (draws[0],), np.mean, permutation_type="samples", n_resamples=math.inf, alternative="two-sided"
    )
    assert sign_flip_p(draws[0].tolist()) == pytest.approx(by_scipy.pvalue)


def test_many_pairs_are_sampled_and_agree_with_the_exact_count() -> None:
    # Pairs without a difference change nothing but the number: 15 pairs are counted, 25 are sampled.
    differences = np.random.default_rng(3).normal(0.4, 1.0, 15).tolist()
    exact = sign_flip_p(differences)
    sampled = sign_flip_p([*differences, *[0.0] * 10])
    assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact / 99_999))
    assert sampled != exact
    assert sign_flip_p([1.0] * 60) == 1e-5  # 2^-59 is never drawn; the observed pattern counts itself


def test_sign_flips_are_level() -> None:
    draws = np.random.default_rng(4).standard_t(3, (4_000, 8))
    p = np.array([sign_flip_p(differences) for differences in draws.tolist()])
    # Exact: of 128 pairs of mirror patterns each is the observed one equally often.
    assert np.mean(p <= 6 / 128) == pytest.approx(6 / 128, abs=0.012)
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.03)


def test_holm_by_hand_and_against_its_definition() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]
    # Its definition: going up from the smallest, the k-th is rejected while p ≤ alpha / (m - k + 1).
    p_values = np.random.default_rng(5).uniform(0, 0.2, 12)
    adjusted = holm(p_values.tolist())
    for alpha in np.linspace(0.001, 0.999, 200):
        rejected = set()
        for rank, index in enumerate(np.argsort(p_values)):
            if p_values[index] > alpha / (12 - rank):
                break
            rejected.add(index)
        assert rejected == {index for index in range(12) if adjusted[index] <= alpha}


@pytest.mark.parametrize(("errors", "images"), [(0, 450), (9, 450), (225, 450), (450, 450), (1, 1), (178, 10_000)])
def test_wilson_against_scipy(errors: int, images: int) -> None:
    expected = stats.binomtest(errors, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(errors, images) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_covers_the_truth() -> None:
    counts = np.random.default_rng(6).binomial(450, 0.1, 20_000)
    intervals = {int(k): wilson_interval(int(k), 450) for k in np.unique(counts)}
    held = [intervals[k][0] <= 0.1 <= intervals[k][1] for k in counts.tolist()]
    assert 0.93 < np.mean(held) < 0.97


def test_sampling_error_by_hand_and_by_simulation() -> None:
    assert sampling_error(0.02, 450) == pytest.approx(math.sqrt(0.02 * 0.98 / 450)) == pytest.approx(0.0066, abs=5e-5)
    drawn = np.random.default_rng(7).binomial(450, 0.02, 100_000) / 450
    assert drawn.std() == pytest.approx(sampling_error(0.02, 450), rel=0.02)
    for rate, images in ((1.5, 10), (0.5, 0)):
        with pytest.raises(ValueError, match="at least one image"):
            sampling_error(rate, images)
    with pytest.raises(ValueError, match="got 5 of 4"):
        wilson_interval(5, 4)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_numbers_of_pairs_are_the_published_ones(effect: float, n: int) -> None:
    # Small, medium and large effects of Cohen 1988 in a paired t-test, two-sided 5 %, power 0.8: as G*Power prints them.
    assert seeds_to_show(effect, 1.0) == n
    assert seeds_to_show(-3 * effect, 3.0) == n


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_power_at_the_detectable_difference(n: int) -> None:
    difference = detectable_difference(0.5, n)
    assert difference is not None
    threshold = stats.t.ppf(0.975, n - 1)
    assert stats.nct.sf(threshold, n - 1, difference / 0.5 * math.sqrt(n)) == pytest.approx(0.8, abs=1e-4)
    draws = np.random.default_rng(8).normal(difference, 0.5, (20_000, n))
    shown = np.abs(draws.mean(1)) / (draws.std(1, ddof=1) / math.sqrt(n)) > threshold
    assert shown.mean() == pytest.approx(0.8, abs=0.015)


def test_what_no_number_of_seeds_shows() -> None:
    assert detectable_difference(0.5, 1) is None
    assert seeds_to_show(0.0, 0.5) is None
    assert seeds_to_show(1e-4, 1.0) is None
    assert seeds_to_show(0.5, 0.0) == 2


def test_a_comparison_pairs_by_seed() -> None:
    first, second = {0: 1.0, 1: 2.0, 2: 1.5, 7: 9.0}, {2: 2.2, 1: 1.8, 0: 1.4}
    compared = compare(first, second)
    assert compared.differences == pytest.approx({0: -0.4, 1: 0.2, 2: -0.7})
    by_scipy = stats.ttest_rel([1.0, 2.0, 1.5], [1.4, 1.8, 2.2]).confidence_interval(0.95)
    assert compared.interval == pytest.approx(by_scipy)
    assert compared.p == 4 / 8  # |-0.4 + 0.2 - 0.7| = 0.9 and 1.3 reach it, 0.1 and 0.5 do not
    missing = compared.seeds_missing
    assert missing is not None
    spread = float(np.std([-0.4, 0.2, -0.7], ddof=1))
    assert detectable_difference(spread, 3 + missing) <= 0.3 < detectable_difference(spread, 3 + missing - 1)  # type: ignore[operator]
    assert compared.text() == (
        "-0.30 points [-1.44, +0.84], n = 3, p = 0.5; 3 seeds show nothing under 1.50 points; 18 more would show 0.30"
    )
    with pytest.raises(ValueError, match=r"no seed in common: \[0\] and \[1\]"):
        compare({0: 1.0}, {1: 1.0})


def test_a_clear_difference_and_a_single_run_in_words() -> None:
    clear = compare({0: 1.0, 1: 2.0, 2: 1.5}, {0: 4.4, 1: 5.8, 2: 5.2})
    assert clear.text() == "-3.63 points [-4.15, -3.12], n = 3, p = 0.25 (3 seeds give no lower one)"
    alone = compare({0: 1.0}, {0: 1.5})
    assert (alone.interval, alone.detectable, alone.seeds_missing) == (None, None, None)
    assert alone.text() == "-0.50 points, 1 run, no interval"
    # Four pairs would do for the t-test, but can have no p-value below 1/8.
    near = compare({0: 1.0, 1: 2.0, 2: 1.5}, {0: 1.5, 1: 2.7, 2: 1.7})
    assert near.interval is not None and near.interval[0] < 0 < near.interval[1]
    assert seeds_to_show(near.mean, float(np.std(list(near.differences.values()), ddof=1))) in (4, 5)
    assert near.seeds_missing == 3
    same = compare({0: 1.0, 1: 2.0}, {0: 2.0, 1: 1.0})
    assert same.seeds_missing is None and "more would" not in same.text()
