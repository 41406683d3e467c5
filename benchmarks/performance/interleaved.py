"""Pieces of work interleaved in time, and what their times show."""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import comb


def interleave(
    work: Sequence[Callable[[], object]],
    clock: Callable[[], float],
    *,
    warm_up: int,
    fewest: int,
    most: int,
    seconds: float = 0.0,
) -> list[tuple[float, ...]]:
    """Return the times of all pieces in each round: where a machine is slow for a while, all are.

    Args:
        work: each returns when its device has done the work.
        clock: ``time.perf_counter``, or on a CPU ``time.thread_time``, which other work on the machine does not stretch.
        warm_up: rounds that are left out.
        fewest, most: rounds that count; between them as many as go into ``seconds`` of wall clock, warm-up included.
    """
    rounds: list[tuple[float, ...]] = []
    began = time.perf_counter()
    while len(rounds) < warm_up + fewest or (time.perf_counter() - began < seconds and len(rounds) < warm_up + most):
        moments = [clock()]
        for piece in work:
            piece()
            moments.append(clock())
        rounds.append(tuple(end - begin for begin, end in pairwise(moments)))
    return rounds[warm_up:]


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median between the two order statistics that enclose the true one with a probability of at least 95 %.

    From the binomial distribution; the smallest and the greatest value where there are too few for that.
    """
    ordered, count = sorted(values), len(values)
    below, left_out = 0, comb(count, 0) / 2**count
    while left_out + comb(count, below + 1) / 2**count <= 0.025:
        below += 1
        left_out += comb(count, below) / 2**count
    return ordered[below], statistics.median(ordered), ordered[-1 - below]


def with_interval(key: str, values: Sequence[float]) -> dict[str, float]:
    """Return the median of values and its interval as a row has them: ``key``, ``key_low``, ``key_high``."""
    low, median, high = median_interval(values)
    return {key: median, f"{key}_low": low, f"{key}_high": high}
