"""Variance components and intervals of error rates against a layout counted by hand, SciPy, closed forms and simulation."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from benchmarks.analysis.error_rates import (
    VarianceComponents,
    components_of_outcomes,
    components_of_rates,
    contrast,
    detectable,
    half_width,
    holm,
    limits,
    p_value,
    pooled,
    probability_below,
    seeds_to_show,
    variances,
    wilson_limits,
)


def outcomes(rng: np.random.Generator, n: int, images: int, rate: float, spread: float, tables: int = 1) -> np.ndarray:
    """Errors of n seeds (tables, n, images): an image has a difficulty, a seed a skill, both normal on the probit scale."""
    difficulty = rng.standard_normal((tables, 1, images)) * 1.1
    skill = rng.standard_normal((tables, n, 1)) * spread
    threshold = stats.norm.ppf(rate) * math.sqrt(1.1**2 + spread**2 + 1)
    return difficulty + skill + rng.standard_normal((tables, n, images)) < threshold


def test_parts_of_a_layout_counted_by_hand() -> None:
    # Two seeds, four images. Means of rows 1/2 and 1/4, of columns 1, 1/2, 0, 0, of all 3/8.
    components = components_of_outcomes(np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool))
    assert components.mean == 3 / 8
    assert components.seeds == pytest.approx(((1 / 8) ** 2 * 2) / 1 / 2)
    # Squares about the mean 15/8, rows 4·2/64, columns 2·(25 + 1 + 9 + 9)/64; what is left has 1·3 degrees of freedom.
    left = 15 / 8 - 8 / 64 - 2 * 44 / 64
    assert components.residual == pytest.approx(left / 3 / 8)
    assert components.images == pytest.approx(44 / 64 / 3 / 4 - left / 3 / 8)
    with pytest.raises(ValueError, match="two seeds and two images are needed, got 1 and 4"):
        components_of_outcomes(np.zeros((1, 4), dtype=bool))


def test_of_few_errors_the_images_keep_a_quarter_of_what_independent_outcomes_have() -> None:
    errors = np.zeros((3, 450), dtype=bool)
    errors[[0, 1, 2], [0, 1, 2]] = True  # each seed errs on an image of its own
    components = components_of_outcomes(errors)
    assert components.images == pytest.approx(1 / 450 * (1 - 1 / 450) / (3 * 450) / 4)


def test_networks_share_a_spread_only_if_it_is_pooled_over_the_same_seeds() -> None:
    one, other = pooled([components_of_rates(np.array([rate, rate + 0.01, rate + 0.02])) for rate in (0.05, 0.08)])
    assert one.shared and other.shared and contrast(one, other).shared
    assert not contrast(one, replace(other, df=other.df + 2)).shared
    apart = pooled([components_of_rates(np.array([rate, rate + 0.05, rate + 0.1])) for rate in (0.2, 0.3)])[0]
    assert apart.shared and apart.df == one.df and not contrast(one, apart).shared, "another pool of as many seeds"


def test_parts_are_unbiased() -> None:
    # Variances that are known: outcomes are image + seed + rest, of variances 0.5, 0.01 and 1.
    rng = np.random.default_rng(1)
    n, images, tables = 3, 40, 20_000
    values = rng.normal(0, math.sqrt(0.5), (tables, 1, images)) + rng.normal(0, 0.1, (tables, n, 1))
    components = components_of_outcomes(values + rng.normal(0, 1, (tables, n, images)))
    assert components.seeds.mean() == pytest.approx(0.01 / n + 1 / (n * images), rel=0.02)
    assert components.images.mean() == pytest.approx(0.5 / images, rel=0.02)
    assert components.residual.mean() == pytest.approx(1 / (n * images), rel=0.01)
    assert components.mean.var() == pytest.approx((components.seeds + components.images).mean(), rel=0.03)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_of_seeds_alone_it_is_students_test(n: int) -> None:
    rates = np.random.default_rng(2).uniform(0.05, 0.07, n)
    by_scipy = stats.ttest_1samp(rates, 0.05)
    components = components_of_rates(rates)
    known = VarianceComponents(np.array(0.05), np.array(0.0), np.array(0.0), np.array(0.0), n, n - 1.0, np.array(False))
    compared = replace(contrast(components, known), shared=np.array(True))
    assert float(p_value(compared)) == pytest.approx(by_scipy.pvalue, rel=0.01, abs=1e-4)
    low, high = limits(components)
    rate, half = rates.mean(), np.diff(by_scipy.confidence_interval(0.95))[0] / 2
    # The interval on the logit scale has the slope of the logit: h / (p (1 - p)).
    assert np.diff([math.log(end / (1 - end)) for end in (low, high)])[0] / 2 == pytest.approx(
        half / (rate * (1 - rate)), rel=0.001
    )
    assert 0 < low < rate < high < 1


def test_without_a_spread_over_seeds_it_is_wilsons() -> None:
    row = np.random.default_rng(3).random(5_000) < 0.04
    low, high = limits(components_of_outcomes(np.stack([row, row, row])))
    expected = stats.binomtest(int(row.sum()), 5_000).proportion_ci(0.95, method="wilson")
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), rel=0.001)


@pytest.mark.parametrize("rate", [0, 1])
def test_no_error_and_no_hit_have_wilsons_limits(rate: int) -> None:
    low, high = limits(components_of_outcomes(np.full((3, 450), rate, dtype=bool)))
    expected = stats.binomtest(450 * rate, 450).proportion_ci(0.95, method="wilson")
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_limits_stay_within_0_and_1() -> None:
    rng = np.random.default_rng(4)
    for n, images, rate, spread in itertools.product((2, 3), (20, 450), (0.003, 0.5, 0.99), (0, 0.5)):
        for components in (
            components_of_outcomes(drawn := outcomes(rng, n, images, rate, spread, 200)),
            components_of_rates(drawn.mean(axis=-1)),
        ):
            low, high = limits(components)
            known = ~np.isnan(low)
            assert known.any()
            assert (low[known] >= 0).all() and (high[known] <= 1).all()
            assert (low[known] <= components.mean[known]).all() and (components.mean[known] <= high[known]).all()
    assert np.isnan(limits(components_of_rates(np.array([0.02, 0.02])))).all()


@pytest.mark.parametrize(
    ("n", "images", "rate", "spread"),
    [(3, 2_000, 0.1, 0.2), (3, 2_000, 0.06, 0.1), (5, 450, 0.3, 0.0), (10, 450, 0.05, 0.2)],
)
def test_limits_hold_the_rate_of_other_trainings_on_other_images(
    n: int, images: int, rate: float, spread: float
) -> None:
    low, high = limits(components_of_outcomes(outcomes(np.random.default_rng(5), n, images, rate, spread, 500)))
    # 500 tables of a coverage of 95 % have a standard error of 1 point.
    assert 0.92 < np.mean((low <= rate) & (rate <= high)) <= 0.98


@pytest.mark.parametrize(("seeds", "pooled_over"), [(3, 1), (5, 1), (10, 1), (2, 4), (3, 4)])
@pytest.mark.parametrize("residual", [0.05, 1.0, 6.0])
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 30.0])
def test_limits_hold_the_rate_whatever_the_share_of_the_seeds(
    seeds: int, pooled_over: int, residual: float, spread: float
) -> None:
    # Around a rate of a half, in units of the images' variance: of single outcomes, below which the seeds' cannot be, and of
    # seeds beyond it. Deviations are so small that no scale bends them.
    rng = np.random.default_rng(seeds)
    df, true, unit, draws = (seeds - 1) * pooled_over, residual + spread, 1e-8, 20_000
    estimated = true * rng.chisquare(df, draws) / df
    mean = 0.5 + math.sqrt(unit * (1 + true)) * rng.standard_normal(draws)
    every = [np.full(draws, value) for value in (unit, unit * residual, float(df), 1e9)]
    images, of_outcomes, dfs, count = every
    shared = np.full(draws, pooled_over > 1)
    low, high = limits(VarianceComponents(mean, unit * estimated, images, of_outcomes, seeds, dfs, shared, count))
    # 20,000 draws of 95 % have a standard error of 0.15 points.
    assert 0.93 < np.mean((low <= 0.5) & (high >= 0.5)) < 0.975


def test_wilson_limits_against_scipy() -> None:
    for errors, images in ((0, 450), (9, 450), (225, 450), (450, 450), (1, 1)):
        expected = stats.binomtest(errors, images).proportion_ci(0.95, method="wilson")
        assert wilson_limits(errors / images, images) == pytest.approx((expected.low, expected.high), abs=1e-12)


def with_spreads(deviations: list[float], n: int) -> list[VarianceComponents]:
    return [components_of_rates(0.5 + deviation * stats.norm.ppf((np.arange(n) + 0.5) / n)) for deviation in deviations]


@pytest.mark.parametrize(
    ("largest", "n"), [(0.020, 6), (0.030, 3), (0.030, 6), (0.032, 6), (0.036, 6), (0.042, 6), (0.2, 6)]
)
def test_spreads_are_pooled_where_bartletts_test_allows_it(largest: float, n: int) -> None:
    members = with_spreads([0.010, 0.012, 0.020, largest], n)
    samples = [
        0.5 + deviation * stats.norm.ppf((np.arange(n) + 0.5) / n) for deviation in (0.010, 0.012, 0.020, largest)
    ]
    agree = stats.bartlett(*samples).pvalue >= 0.05
    together = pooled(members)
    mean = np.mean([float(one.seeds) for one in members])
    for own, one in zip(members, together, strict=True):
        others = np.mean([float(other.seeds) for other in members if other is not own])
        shared = agree and stats.f.sf(float(own.seeds) / others, n - 1, 3 * (n - 1)) >= 0.05
        assert (bool(one.shared), one.df) == (shared, 4 * (n - 1) if shared else n - 1)
        assert float(one.seeds) == pytest.approx(max(mean, float(own.seeds)) if shared else float(own.seeds))
    assert agree == (largest < 0.036)  # the two sides are both tried
    assert bool(together[-1].shared) == (largest == 0.020 or n == 3)  # and these, where they agree


def test_a_network_that_spreads_more_still_counts_in_the_spread_of_the_others() -> None:
    members = with_spreads([0.010, 0.010, 0.024], 6)
    *others, wide = pooled(members)
    assert (bool(wide.shared), wide.df, wide.seeds) == (False, 5, members[2].seeds)
    for one in others:
        assert (bool(one.shared), one.df) == (True, 15)
        assert float(one.seeds) == pytest.approx(float(members[0].seeds) * (1 + 1 + 2.4**2) / 3)


@pytest.mark.parametrize(("spread", "n", "by_bartlett"), [(3, 3, 0.871), (10, 3, 0.909), (3, 5, 0.910)])
def test_a_network_that_spreads_more_than_others_is_not_given_their_certainty(
    spread: int, n: int, by_bartlett: float
) -> None:
    rng = np.random.default_rng(12)
    tables, rate = 4_000, 0.06
    members = [
        components_of_rates(rate + 0.001 * width * rng.standard_normal((tables, n))) for width in (spread, 1, 1, 1)
    ]
    together = pooled(members)
    low, high = limits(together[0])
    # More than without the F test, by two standard errors.
    assert ((low <= rate) & (rate <= high)).mean() > by_bartlett + 0.01
    p = [p_value(contrast(*pair)).tolist() for pair in itertools.combinations(together, 2)]
    claims = np.array([min(holm(table)) <= 0.05 for table in zip(*p, strict=True)])
    assert claims.mean() < 0.05


@pytest.mark.parametrize("rate", [0, 1])
def test_a_network_that_never_or_always_errs_has_no_spread_to_pool(rate: int) -> None:
    rng = np.random.default_rng(11)
    several = [components_of_outcomes(outcomes(rng, 3, 450, 0.04, 0.1)[0]) for _ in range(3)]
    *others, sure = pooled([*several, components_of_outcomes(np.full((3, 450), rate, dtype=bool))])
    assert [bool(one.shared) for one in others] == [True] * 3
    assert sure.seeds == 0
    for one in others:
        # What varies is the other network alone: about Student's interval of its own mean.
        half = stats.t.ppf(0.975, 6) * np.sqrt(one.seeds + one.images)
        assert half_width(*variances(contrast(one, sure))) == pytest.approx(float(half), rel=0.1)


@pytest.mark.parametrize(("difference", "n"), [(0.010, 3), (0.030, 3), (0.002, 6)])
def test_the_p_value_of_a_shared_spread_is_students_far_in_the_tails(difference: float, n: int) -> None:
    rates = 0.06 + 0.001 * np.arange(n)
    one, other = pooled(
        [components_of_rates(rates), components_of_rates(rates + difference + 1e-4 * np.cos(np.arange(n)))]
    )
    assert bool(one.shared) and bool(other.shared)
    p = float(p_value(contrast(one, other)))
    t = float(other.mean - one.mean) / math.sqrt(float(one.seeds + other.seeds))
    assert p == pytest.approx(float(2 * stats.t.sf(t, 2 * (n - 1))), rel=1e-4)


@pytest.mark.parametrize("t", [2.0, 5.0, 25.0, 40.0])
@pytest.mark.parametrize("ratio", [1.0, 0.1])
def test_the_p_value_of_unequal_spreads_is_exact_far_in_the_tails(t: float, ratio: float) -> None:
    rates = 0.001 * np.array([-1.0, 0.0, 1.0])
    one, other = components_of_rates(0.1 + rates), components_of_rates(0.2 + ratio * rates)
    compared = replace(contrast(one, other), mean=t * np.sqrt(one.seeds + other.seeds))
    # Both χ²(2) are shares u and 1 - u, u uniform, of one χ²(4), and given u the p-value is Student's (Barnard 1984).
    seeds = float(one.seeds), float(other.seeds)

    def given(u: float) -> float:
        return 2 * float(
            stats.t.sf(float(compared.mean) * math.sqrt(4 / (2 * seeds[0] / u + 2 * seeds[1] / (1 - u))), 4)
        )

    expected, _ = integrate.quad(given, 0, 1, epsrel=1e-6)
    assert float(p_value(compared)) == pytest.approx(expected, rel=1e-3)


def test_the_p_value_of_two_unequal_spreads_is_the_generalised_one() -> None:
    # Behrens and Fisher's problem, against a draw of both chi-squares.
    first, second = (
        components_of_rates(np.array([0.10, 0.11, 0.12])),
        components_of_rates(np.array([0.05, 0.09, 0.10, 0.13])),
    )
    compared = contrast(first, second)
    chi = np.random.default_rng(6).chisquare([[2], [3]], (2, 400_000))
    drawn = first.seeds * 2 / chi[0] + second.seeds * 3 / chi[1]
    assert float(p_value(compared)) == pytest.approx(
        (2 * stats.norm.sf(abs(compared.mean) / np.sqrt(drawn))).mean(), abs=0.01
    )
    assert float(probability_below(compared)) == pytest.approx(float(p_value(compared)) / 2)  # the first is the larger


def test_images_that_both_find_hard_do_not_count_against_a_difference() -> None:
    rng = np.random.default_rng(7)
    hard = rng.random(2_000) < 0.2
    first = hard & (rng.random((3, 2_000)) < 0.5)
    second = hard & (rng.random((3, 2_000)) < 0.6)
    one, other = components_of_outcomes(first), components_of_outcomes(second)
    compared = contrast(one, other)
    assert compared.images < (one.images + other.images) / 20
    assert p_value(compared) < 0.05


def test_nothing_is_claimed_of_rates_that_do_not_vary() -> None:
    compared = contrast(components_of_rates(np.array([0.1, 0.1])), components_of_rates(np.array([0.2, 0.2])))
    assert p_value(compared) == 1.0


def test_networks_without_an_error_may_differ_on_other_images() -> None:
    none = components_of_outcomes(np.zeros((3, 450), dtype=bool))
    compared = contrast(none, none)
    # Agresti and Min (2005): half an outcome is added to each cell of the 2×2 table of both networks' outcomes.
    both, one, other, neither = 450.5, 0.5, 0.5, 0.5
    total = both + one + other + neither
    half = 1.959964 * math.sqrt((one + other) - (one - other) ** 2 / total) / total
    assert half_width(*variances(compared)) == pytest.approx(half)
    assert (float(compared.mean), float(p_value(compared))) == (0, pytest.approx(1))
    # As the rule of three has it, an error on 3 / 450 of other images is well possible: it is near what could be shown.
    assert 0.5 * 3 / 450 < detectable(compared) < 1.5 * 3 / 450


@pytest.mark.parametrize(("n", "effect"), [(3, 3.26), (5, 1.68), (20, 0.66)])
def test_the_detectable_difference_is_cohens(n: int, effect: float) -> None:
    # Of a paired t-test with this effect and n pairs the power is 0.8 (noncentral t).
    threshold = stats.t.ppf(0.975, n - 1)
    assert stats.nct.sf(threshold, n - 1, effect * math.sqrt(n)) == pytest.approx(0.8, abs=0.01)
    components = components_of_rates(0.5 + 0.01 * np.array([(-1) ** k for k in range(n)]))
    spread = float(np.sqrt(components.seeds * n))
    zero = np.array(0.0)
    still = VarianceComponents(np.array(0.4), zero, zero, zero, n, components.df, np.array(False))
    compared = contrast(components, still)
    assert detectable(compared) / spread == pytest.approx(effect, rel=0.02)
    assert seeds_to_show(compared, 1.01 * detectable(compared, 7)) == 7
    # Planned from these seeds for another number of them: as Cohen has it for that number.
    for planned, known in ((3, 3.26), (5, 1.68), (20, 0.66)):
        assert detectable(compared, planned) / spread == pytest.approx(known, rel=0.02)


@pytest.mark.parametrize(("n", "spreads", "others"), [
    ((3, 3), (1, 1), None), ((3, 3), (0.1, 1), None), ((5, 5), (0.1, 1), None), ((3, 12), (1, 0.1), None),
    ((3, 3), (1, 1), 0), ((3, 3), (1, 1), 2), ((5, 5), (1, 1), 2),
])  # fmt: skip
def test_the_detectable_difference_has_the_power_that_it_states(
    n: tuple[int, int], spreads: tuple[float, float], others: int | None
) -> None:
    """By the verdicts of simulated pairs, in a table with so many others to pool with; None: nothing is pooled."""
    rng = np.random.default_rng(13)
    unit, tables = 0.001, 2_000

    def drawn(number: int, spread: float, mean: float) -> VarianceComponents:
        return components_of_rates(mean + unit * spread * rng.standard_normal((tables, number)))

    true = [
        replace(
            components_of_rates(0.3 + rng.random(number)),
            mean=np.array(0.3),
            seeds=np.array((unit * spread) ** 2 / number),
        )
        for number, spread in zip(n, spreads, strict=True)
    ]
    if others is not None:
        total = float(sum(n) - 2 + others * (n[0] - 1))
        true = [replace(one, df=total, shared=np.array(True)) for one in true]
    difference = detectable(contrast(*true))
    networks = [drawn(n[0], spreads[0], 0.3), drawn(n[1], spreads[1], 0.3 - difference)]
    if others is not None:
        networks = pooled([*networks, *(drawn(n[0], 1, 0.3) for _ in range(others))])
    assert float((p_value(contrast(*networks[:2])) <= 0.05).mean()) == pytest.approx(0.8, abs=0.04)


def test_equal_runs_are_equal_whatever_the_last_bit_of_their_mean() -> None:
    for rate in (0.1, 0.3, 0.7):
        one = components_of_rates(np.array([rate] * 3))
        assert one.seeds == 0 and np.isnan(limits(one)).all()
    for errors in (9, 45):
        row = np.arange(450) < errors
        one = components_of_outcomes(np.stack([row] * 3))
        assert one.seeds == 0
        half = float(half_width(*variances(contrast(one, one))))
        assert half == pytest.approx(1.959964 / 452)  # Agresti and Min (2005), as above


def test_no_number_of_seeds_shows_what_other_images_may_undo() -> None:
    rng = np.random.default_rng(8)
    one, other = (components_of_outcomes(outcomes(rng, 3, 450, 0.05, 0.05)[0]) for _ in range(2))
    compared = contrast(one, other)
    assert seeds_to_show(compared, 1.5 * math.sqrt(float(compared.images))) is None
    assert (needed := seeds_to_show(compared, 3.2 * math.sqrt(float(compared.images)))) is not None
    assert detectable(compared, needed) <= 3.2 * math.sqrt(float(compared.images)) < detectable(compared, needed - 1)


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
