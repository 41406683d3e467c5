"""The front against the definition of dominance, point by point, and its probabilities against enumeration."""

import itertools
import random
from collections.abc import Sequence
from statistics import fmean

import pytest

from benchmarks.analysis.pareto import DRAWS, front_probabilities, pareto_front

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


def test_probabilities_are_the_share_of_all_equally_likely_draws() -> None:
    networks = [
        [(1, 5.0), (1, 7.0)],
        [(2, 4.0), (2, 6.5), (2, 8.0)],
        [(3, 5.2), (3.5, 3.0)],
        [(4, 4.5)],
    ]
    draws = [list(itertools.product(seeds, repeat=len(seeds))) for seeds in networks]
    hits, total = [0] * len(networks), 0
    for drawn in itertools.product(*draws):
        points = [(fmean(cost for cost, _ in one), fmean(error for _, error in one)) for one in drawn]
        total += 1
        for index in by_definition(points):
            hits[index] += 1
    found = front_probabilities(networks)
    assert found[3] is None
    for probability, hit in zip(found[:3], hits, strict=False):
        # six standard deviations of a share of so many draws
        assert probability == pytest.approx(hit / total, abs=3 / DRAWS**0.5)
    assert 0.2 < hits[1] / total < 0.8  # else the comparison says nothing
    assert found == front_probabilities(networks)


def test_equal_networks_share_the_front_in_every_draw() -> None:
    assert front_probabilities([[(1, 2), (1, 2)], [(1, 2), (1, 2)], [(2, 2), (2, 2)]]) == [1.0, 1.0, 0.0]


def test_means_that_are_equal_on_paper_are_equal() -> None:
    means = [(0.1 + 0.2 + 0.3) / 3, 0.2]
    assert means[0] != means[1]
    assert pareto_front([(1, means[0]), (2, means[1])]) == pareto_front([(1, means[1]), (2, means[0])]) == [0]
    steady = [[(1, means[0])] * 2, [(2, means[1])] * 2]
    assert front_probabilities(steady) == [1.0, 0.0]
    assert front_probabilities([[(1, means[1])] * 2, [(2, means[0])] * 2]) == [1.0, 0.0]


def test_one_seed_has_no_probability() -> None:
    assert front_probabilities([[(1, 2)], [(2, 1)]]) == [None, None]
    assert front_probabilities([]) == []
