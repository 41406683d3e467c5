"""The Pareto front of cost and error, and how sure the seeds make it. Imports no torch."""

from collections.abc import Sequence

# numpy is imported where it is used: what reads records starts in under a second.

DRAWS = 1000
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


def front_probabilities(networks: Sequence[Sequence[tuple[float, float]]]) -> list[float | None]:
    """Probability of each network to be on the front of mean cost and mean error, by the bootstrap over its seeds.

    A network is given as the (cost, error) of each of its seeds; in each of 1,000 draws its seeds are drawn with replacement
    (Efron 1979). With few seeds the bootstrap is too sure of itself: of k seeds it sees (k - 1) / k of the variance. A single
    seed says nothing of its own spread: its network is None, and stands still in the draws for the others.
    """
    if all(len(seeds) < 2 for seeds in networks):
        return [None] * len(networks)
    import numpy as np

    rng = np.random.default_rng(0)
    drawn = np.empty((2, DRAWS, len(networks)))
    for index, seeds in enumerate(networks):
        values = np.asarray(seeds, dtype=np.float64)
        picks = rng.integers(0, len(values), (DRAWS, len(values)))
        drawn[:, :, index] = values[picks].mean(axis=1).T
    drawn[1] = drawn[1].round(DECIMALS)
    order = np.lexsort((drawn[1], drawn[0]), axis=1)
    cost, error = np.take_along_axis(drawn, order[None], axis=2)
    lowest = np.minimum.accumulate(error, axis=1)
    better = np.ones_like(error, dtype=bool)
    better[:, 1:] = error[:, 1:] < lowest[:, :-1]
    last = np.maximum.accumulate(np.where(better, np.arange(error.shape[1]), 0), axis=1)
    on_front = (cost == np.take_along_axis(cost, last, axis=1)) & (error == np.take_along_axis(error, last, axis=1))
    counts = np.zeros(len(networks))
    np.add.at(counts, order[on_front], 1)
    return [float(n) / DRAWS if len(seeds) > 1 else None for n, seeds in zip(counts, networks, strict=True)]
