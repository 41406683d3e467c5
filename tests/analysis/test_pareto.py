"""The front against the definition of dominance, point by point, and its probabilities against those of differences."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.analysis import pareto
from benchmarks.analysis.error_rates import components_of_outcomes, contrast, half_width, probability_below, variances
from benchmarks.analysis.estimates import Estimate, estimate_of_values
from benchmarks.analysis.pareto import DRAWS, drawn_errors, front_probabilities, matched, pareto_front

Points = Sequence[tuple[float, float]]


def by_definition(points: Points) -> list[int]:
    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] <= b[0] and a[1] <= b[1] and a != b

    return [index for index, point in enumerate(points) if not any(dominates(other, point) for other in points)]


@pytest.mark.parametrize("values", [3, 10, 1000], ids="{} values".format)
def test_the_front_is_what_nothing_dominates(values: int) -> None:
    rng = random.Random(values)
    for _ in range(300):
        points = [(rng.randrange(values), rng.randrange(values)) for _ in range(rng.randrange(12))]
        front = pareto_front(points)
        assert sorted(front) == by_definition(points)
        assert [points[index][0] for index in front] == sorted(points[index][0] for index in front)


def test_equal_points_stand_together_and_one_is_enough() -> None:
    assert pareto_front([(1, 2), (1, 2), (1, 3), (2, 2)]) == [0, 1]
    assert pareto_front([(5, 5)]) == [0]
    assert pareto_front([]) == []


def test_costs_within_one_percent_are_matched() -> None:
    assert matched([2_617_504, 2_608_870, 2_640_000, 10.0]) == [2_608_870, 2_608_870, 2_640_000, 10.0]
    # Not in a chain: 1.016 is more than a percent above 1.
    assert matched([1.0, 1.008, 1.016]) == [1.0, 1.0, 1.016]
    errors = [25.0, 31.0]
    assert pareto_front(list(zip(matched([2_617_504, 2_608_870]), errors, strict=True))) == [0]


def probabilities(networks: Sequence[Points]) -> list[float | None]:
    """Of networks given as the (cost, error in %) of their seeds."""
    estimated = [estimate_of_values([error for _, error in seeds], percent=True) for seeds in networks]
    return front_probabilities([[cost for cost, _ in seeds] for seeds in networks], drawn_errors(estimated), estimated)


def of_outcomes(outcomes: Any) -> Estimate:
    """The error of a network with these outcomes of seeds on images, in percent."""
    components = components_of_outcomes(outcomes)
    return Estimate(100 * float(components.mean), len(outcomes), (0.0, 100.0), "", components, "test", (), 100.0)


def test_the_probability_of_two_networks_is_that_of_their_difference() -> None:
    cheap, dear = [(1.0, 5.0), (1.0, 6.1), (1.0, 5.6)], [(2.0, 5.1), (2.0, 4.8), (2.0, 5.9), (2.0, 5.2)]
    # The dear one is on the front where its error is the lower one.
    first, second = (
        estimate_of_values([error for _, error in seeds], percent=True).components for seeds in (dear, cheap)
    )
    assert first is not None and second is not None
    expected = float(probability_below(contrast(first, second)))
    assert 0.6 < expected < 0.9  # else the comparison says nothing
    # Six standard deviations of a share of so many draws.
    assert probabilities([cheap, dear]) == [None, pytest.approx(expected, abs=3 / DRAWS**0.5)]


@pytest.mark.parametrize("costs", [(1, 2, 3, 4, 5), (1, 1, 2, 3, 3), (2, 1, 2, 1, 2), (1, 1, 1, 1, 1)], ids=str)
def test_probabilities_are_the_shares_of_draws_in_which_nothing_dominates(costs: Sequence[int]) -> None:
    errors = np.random.default_rng(0).integers(0, 6, (DRAWS, len(costs))).astype(float)  # many are equal
    estimated = [estimate_of_values([5.0, 5.1, 5.2], percent=True)] * len(costs)
    on_front = [index for draw in errors.tolist() for index in by_definition(list(zip(costs, draw, strict=True)))]
    expected: list[float | None] = [on_front.count(index) / DRAWS for index in range(len(costs))]
    if costs.count(min(costs)) == 1:  # on the front whatever its error
        expected[costs.index(min(costs))] = None
    assert front_probabilities([[cost] * 3 for cost in costs], errors, estimated) == expected


def test_a_mean_cost_is_drawn_as_students_of_its_seeds() -> None:
    # The second errs more: it is on the front where its cost, of two standard errors more, is the lower one.
    steady, varied = [(1.0, 2.0), (1.0, 2.1), (1.0, 2.2)], [(1.1, 90.0), (1.2, 90.1), (1.3, 90.2)]
    standard_error = 0.1 / math.sqrt(3)
    expected = stats.t.cdf(-0.2 / standard_error, 2)
    assert 0.03 < expected < 0.05
    assert probabilities([steady, varied]) == [1.0, pytest.approx(expected, abs=0.015)]


def test_a_spread_that_networks_share_is_drawn_once() -> None:
    one = estimate_of_values([5.0, 5.5, 6.0], percent=True)
    assert one.components is not None
    together = replace(one, components=replace(one.components, shared=np.array(True)))
    for networks, expected in ((together, math.pi**2 / 4), (one, math.pi**2 / 4 + math.pi**2 / 12)):
        deviations = drawn_errors([networks] * 2) - one.mean
        # The variance of the logarithm of a ratio: of two normal deviates, and of the roots of two chi-squares of 2.
        assert np.log(np.abs(deviations[:, 0] / deviations[:, 1])).var() == pytest.approx(expected, rel=0.12)


def test_other_images_change_a_rate_near_one_as_little_as_one_near_zero() -> None:
    rows = np.random.default_rng(0).random((3, 1_000)) < 0.1
    spreads = [float(drawn_errors([of_outcomes(outcomes)]).std()) for outcomes in (rows, ~rows)]
    assert spreads[1] == pytest.approx(spreads[0], rel=0.05)


def test_two_seeds_alone_are_not_sure_of_anything() -> None:
    assert probabilities([[(1, 5.0), (1, 5.1)], [(2, 4.0), (2, 4.1)]]) == [None, None]


@pytest.mark.parametrize("own", [0, 12], ids="{} images that one finds hard".format)
def test_two_networks_vary_as_in_their_comparison(own: int) -> None:
    errors = [10, 12, 9], [11, 12, 10]  # no image twice by a network, nearly the same ones by both
    rows = np.zeros((2, 3, 450), dtype=bool)
    for row, counts in zip(rows, errors, strict=True):
        for place, count in enumerate(counts):
            row[place, 20 * place : 20 * place + count] = True
    rows[0, :, 400 : 400 + own] = True
    networks = [of_outcomes(row) for row in rows]
    compared = contrast(*(one.components for one in networks if one.components is not None))
    # What is particular to a seed on an image is as much as other images change, or all that they seem to.
    assert (0 < float(compared.images) < 2 * float(compared.first.residual)) if own else compared.images == 0
    drawn = drawn_errors(networks)
    middle = np.subtract(*np.quantile(drawn[:, 0] - drawn[:, 1], [0.84, 0.16])) / 2
    assert middle == pytest.approx(100 * float(half_width(*variances(compared), 0.68)), rel=0.1)


@pytest.mark.parametrize(("count", "images"), [(40, 300), (300, 40), (300, 400)])
def test_networks_vary_together_as_their_images_do(monkeypatch: pytest.MonkeyPatch, count: int, images: int) -> None:
    """Images that are hard for all alike, and chance: of fewer networks than images, of more, and of groups of images."""
    monkeypatch.setattr(pareto, "MOST_EIGENVALUES", 100)
    rng = np.random.default_rng(0)
    chance = np.where(np.arange(images) < images // 4, 0.6, 0.1)
    networks = [of_outcomes(rng.random((3, images)) < chance) for _ in range(count)]
    mean = drawn_errors(networks).mean(axis=1)
    # Chance and the spread over seeds vanish in the mean over so many.
    assert mean.std() == pytest.approx(100 * chance.std() / math.sqrt(images), rel=0.15)


def test_images_that_all_networks_find_hard_change_no_front() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(1_000) < 0.2
    estimated = [of_outcomes(hard & (rng.random((3, 1_000)) < chance)) for chance in (0.6, 0.5)]
    errors = drawn_errors(estimated)
    spreads = [np.subtract(*np.quantile(drawn, [0.84, 0.16])) / 2 for drawn in (errors[:, 0], errors[:, 1])]
    together = np.subtract(*np.quantile(errors[:, 1] - errors[:, 0], [0.84, 0.16])) / 2
    compared = contrast(*(one.components for one in estimated if one.components is not None))
    half = 100 * float(half_width(*variances(compared), 0.68))
    assert together == pytest.approx(half, rel=0.15)
    assert together < 0.8 * math.hypot(*spreads)  # as it would be of networks tested on images of their own


@pytest.mark.parametrize(("seeds", "given"), [(2, False), (3, True)])
def test_below_three_seeds_there_is_no_probability_also_where_outcomes_are_stored(seeds: int, given: bool) -> None:
    rng = np.random.default_rng(0)
    components = components_of_outcomes(rng.random((seeds, 1_000)) < 0.2)
    network = Estimate(100 * float(components.mean), seeds, (15.0, 25.0), "", components, "test", (), 100.0)
    found = front_probabilities([[1.0] * seeds] * 2, drawn_errors([network] * 2), [network] * 2)
    assert found == [pytest.approx(0.5, abs=0.1) if given else None] * 2


def test_networks_without_an_error_are_not_sure_to_be_equal() -> None:
    components = components_of_outcomes(np.zeros((3, 450), dtype=bool))
    network = Estimate(0.0, 3, (0.0, 0.8), "", components, "test", (), 100.0)
    errors = drawn_errors([network] * 2)
    [cheap, dear] = front_probabilities([[1.0] * 3, [2.0] * 3], errors, [network] * 2)
    # On other images either may err more: as likely one as the other.
    assert cheap is None and dear == pytest.approx(0.5, abs=3 * 0.5 / DRAWS**0.5)
    compared = contrast(components, components)
    assert np.std(errors[:, 0] - errors[:, 1]) == pytest.approx(100 * math.sqrt(float(compared.images)), rel=0.1)


def test_what_nothing_is_held_against_has_no_probability() -> None:
    """The cheapest network is on the front whatever its error, and so is the only one."""
    errors = [5.0, 5.2, 5.1]
    dearer, equal = ([(cost, error - 1) for error in errors] for cost in (2.0, 1.0))
    worst = [(1.0, 10 * error) for error in errors]
    assert probabilities([worst]) == [None]
    assert probabilities([dearer, worst])[1] is None and probabilities([dearer, worst])[0] is not None
    assert probabilities([worst, dearer, equal]) == [0.0, pytest.approx(0.5, abs=0.1), 1.0]
    # Costs of other seeds may come out lower: in some draws it is held against the other.
    found = probabilities([[(cost, error) for cost, error in zip((1.0, 1.3, 1.2), errors, strict=True)], dearer])
    assert found[0] is not None


def test_costs_that_differ_over_seeds_are_drawn_too() -> None:
    near = [(1.0, 5.0), (1.2, 5.1), (0.8, 4.9)], [(1.05, 5.5), (1.25, 5.6), (0.85, 5.4)]
    worse = probabilities(near)[1]
    assert worse is not None and 0.2 < worse < 0.6


def test_means_that_are_equal_on_paper_are_equal() -> None:
    means = [(0.1 + 0.2 + 0.3) / 3, 0.2]
    assert means[0] != means[1]
    assert pareto_front([(1, means[0]), (2, means[1])]) == pareto_front([(1, means[1]), (2, means[0])]) == [0]


def test_one_seed_has_no_probability() -> None:
    assert probabilities([[(1, 2)], [(2, 1)]]) == [None, None]
    assert front_probabilities([], drawn_errors([]), []) == []
