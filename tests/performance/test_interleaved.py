"""Work interleaved in time, by a clock that the work itself moves, and the interval of a median."""

import itertools

import pytest

from benchmarks.performance.interleaved import interleave, median_interval, with_interval


def test_each_turn_has_the_times_of_both_in_the_same_spell():
    now, spell = 0.0, itertools.chain([100, 1, 1, 8, 8, 1], itertools.repeat(1))  # a machine that is slow for a while
    slow, order = 1.0, ""

    def work(name: str, seconds: float) -> None:
        nonlocal now, order, slow
        slow = next(spell) if name == "a" else slow
        now, order = now + slow * seconds, order + name

    rounds = interleave([lambda: work("a", 3), lambda: work("b", 2)], lambda: now, warm_up=1, fewest=5, most=9)
    assert rounds == [(3, 2), (3, 2), (24, 16), (24, 16), (3, 2)]
    assert order == "ab" * 6


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 3), (3600.0, 7)])
def test_turns_go_on_for_the_time_given_between_the_fewest_and_the_most(seconds, count):
    ticks = itertools.count()
    rounds = interleave([int, int], lambda: float(next(ticks)), warm_up=2, fewest=3, most=7, seconds=seconds)
    assert rounds == [(1, 1)] * count


@pytest.mark.parametrize(("count", "place"), [(1, 0), (5, 0), (6, 0), (20, 5), (50, 17), (100, 39)])
def test_the_interval_of_a_median_is_that_of_the_published_tables(count, place):
    # Order statistics of at least 95 %, counted from 0: 1st and 6th of 6, 6th and 15th of 20, 18th and 33rd of 50, 40th and
    # 61st of 100.
    values = [float(value) for value in range(count)]
    assert median_interval(values[::-1]) == (place, (count - 1) / 2, count - 1 - place)
    expected = {"ratio": (count - 1) / 2, "ratio_low": place, "ratio_high": count - 1 - place}
    assert with_interval("ratio", values) == expected
