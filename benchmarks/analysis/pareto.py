"""The Pareto front of cost and error, and how sure seeds and test images make it. Imports no torch."""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from benchmarks.analysis.error_rates import FEWEST
from benchmarks.analysis.estimates import Estimate
from benchmarks.records.lazy import np

DRAWS = 1000
MATCHED = 1.01
MOST_EIGENVALUES = 1_000  # whose time grows with the cube of their number
NEGLIGIBLE = 1e-12  # a variance of a rate in [0, 1]
DECIMALS = 9  # of errors: means of counts that are equal on paper differ in the last bits


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices, by cost, of the points (cost, error) that no other point dominates; lower is better in both.

    A point dominates another if it is nowhere worse and somewhere better, so equal points are on the front together.
    """
    rounded = [(cost, round(error, DECIMALS)) for cost, error in points]
    front: list[int] = []
    for index in sorted(range(len(points)), key=rounded.__getitem__):
        if not front or rounded[index][1] < rounded[front[-1]][1] or rounded[index] == rounded[front[-1]]:
            front.append(index)
    return front


def matched(costs: Sequence[float], apart: float = MATCHED) -> list[float]:
    """Return the costs with those up to `apart` times a lower one set to it: widths of `complexity match` differ by 1 %."""
    result = list(costs)
    lowest = 0.0
    for index in sorted(range(len(costs)), key=costs.__getitem__):
        if costs[index] > lowest * apart:
            lowest = costs[index]
        result[index] = lowest
    return result


def drawn_errors(networks: Sequence[Estimate], draws: int = DRAWS) -> Any:
    """Joint draws of the networks' mean errors, shape (draws, networks), in the unit of the metric.

    Each is another set of trainings, tested on other images that networks with outcomes of the same test set share: what makes
    all of them err more changes no front. Of a network without an interval other images are drawn where its outcomes are known,
    other trainings are not.
    """
    rng = np.random.default_rng(0)
    errors = np.tile(np.array([one.mean for one in networks], dtype=np.float64), (draws, 1))
    pooled: dict[tuple[float, float], Any] = {}  # one draw of a variance that networks share
    for index, one in enumerate(networks):
        if one.components is None or one.interval is None:
            continue
        if one.test_set and not float(one.components.seeds) and 0 in (one.mean, one.scale - one.mean):
            # Neither images nor seeds vary, other images still may: for a pair of such networks as in `contrast`.
            errors[:, index] += (
                one.scale / (float(one.components.count) + 2) / math.sqrt(2) * rng.standard_normal(draws)
            )
            continue
        df = float(one.components.df)
        chi = rng.chisquare(df, draws)
        if one.components.shared:
            chi = pooled.setdefault((df, float(one.components.common)), chi)
        deviation = np.sqrt(np.maximum(float(one.components.seeds) * df / chi, float(one.components.residual)))
        errors[:, index] += one.scale * deviation * rng.standard_normal(draws)
    for test_set in dict.fromkeys(one.test_set for one in networks if one.test_set):
        members = [index for index, one in enumerate(networks) if one.test_set == test_set]
        errors[:, members] += _of_other_images([networks[index] for index in members], draws, rng)
    return errors.round(DECIMALS)


def _of_other_images(networks: Sequence[Estimate], draws: int, rng: Any) -> Any:
    """What other test images add to the errors of networks tested on the same ones, shape (draws, networks).

    The networks' covariance over images holds what is particular to one seed on one image, too, which is drawn with the seeds.
    As that part's variance is known, the most likely covariance of the rest has the eigenvalues that exceed it, less it
    (Jöreskog 1967).
    """
    known: list[Any] = [one.components for one in networks if one.components and one.components.by_image is not None]
    unit = np.sqrt([max(float(one.residual), NEGLIGIBLE) for one in known])
    by_image = np.stack([one.by_image for one in known])
    images = by_image.shape[1]
    rows = (by_image - by_image.mean(axis=1, keepdims=True)) / (images * unit[:, None])
    if min(rows.shape) > MOST_EIGENVALUES:  # sums of random groups of images vary as much (Wolter 2007, §2)
        groups = np.linspace(0, images, MOST_EIGENVALUES, endpoint=False, dtype=int)
        rows = np.add.reduceat(rows[:, rng.permutation(images)], groups, axis=1)
    few = len(rows) <= rows.shape[1]
    values, vectors = np.linalg.eigh(rows @ rows.T if few else rows.T @ rows)
    values, vectors = values[values > 1], vectors[:, values > 1]
    if not few:
        vectors = rows @ vectors / np.sqrt(values)
    loadings = vectors * np.sqrt(values - 1) * (unit * [one.scale for one in networks])[:, None]
    return rng.standard_normal((draws, len(values)), dtype=np.float32) @ loadings.T.astype(np.float32)


def front_probabilities(
    costs: Sequence[Sequence[float]], errors: Any, networks: Sequence[Estimate]
) -> list[float | None]:
    """Probability of each network to be on the front of mean cost and mean error.

    None for one of fewer than three seeds or without an interval, and where no other network costs as much or less in any
    draw: it is on the front whatever its error.

    Args:
        costs: of each network's seeds.
        errors: of `drawn_errors`.
    """
    known = [one.interval is not None and one.n >= FEWEST for one in networks]
    if not any(known):
        return [None] * len(networks)
    means = [fmean(values) for values in costs]
    spread = [_standard_error(values, mean) for values, mean in zip(costs, means, strict=True)]
    varied = np.flatnonzero(spread)  # counted costs are the same in every draw
    cost = np.array([means])
    if len(varied):
        drawn = np.take(spread, varied) * _drawn_t(tuple(len(costs[place]) - 1 for place in varied.tolist()))
        if len(varied) == len(costs):
            cost = cost + drawn
        else:
            cost = np.tile(cost, (DRAWS, 1))
            cost[:, varied] += drawn
    order = np.argsort(cost, axis=1)
    cost = np.take_along_axis(cost, order, axis=1)
    error = _taken(errors, order)
    lowest = np.minimum.accumulate(error, axis=1)
    starts = cost[:, 1:] > cost[:, :-1]
    if (order[:, 0] == order[0, 0]).all() and starts[:, :1].all():
        known[order[0, 0]] = False
    on_front = np.ones_like(error, dtype=bool)
    np.less(error[:, 1:], lowest[:, :-1], out=on_front[:, 1:])
    if not starts.all():
        # The first and the last place of each cost: on the front is what spread least there, and less than all before.
        places, starts = np.arange(len(costs)), np.insert(starts, 0, True, axis=1)
        first = np.maximum.accumulate(np.where(starts, places, 0), axis=1)
        ends = np.where(np.roll(starts, -1, axis=1), places, len(costs))
        last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
        before = np.insert(lowest[:, :-1], 0, np.inf, axis=1)
        on_front = (error < _taken(before, first)) & (error == _taken(lowest, last))
    counts = np.bincount(np.broadcast_to(order, error.shape)[on_front], minlength=len(costs)).tolist()
    return [count / DRAWS if one else None for count, one in zip(counts, known, strict=True)]


@lru_cache(maxsize=1)  # the axes of a chart mostly have the same networks
def _drawn_t(df: tuple[int, ...]) -> Any:
    """Return draws of Student's t, shape (draws, networks)."""
    return np.random.default_rng(1).standard_t(np.array(df), (DRAWS, len(df)))


def _standard_error(values: Sequence[float], mean: float) -> float:
    """Return the standard error of the mean; 0 of equal values and of one."""
    if min(values) == max(values):
        return 0.0
    return math.dist(values, [mean] * len(values)) / math.sqrt(len(values) * (len(values) - 1))


def _taken(values: Any, places: Any) -> Any:
    """Return the values of each draw at its places; one row of places, for all draws, takes half the time."""
    return values[:, places[0]] if len(places) == 1 else np.take_along_axis(values, places, axis=1)
