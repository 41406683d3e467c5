"""docs/statistics.md, how often intervals and verdicts are right: `python -m benchmarks measure statistics`."""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.analysis.error_rates import POWER
from benchmarks.analysis.sequential import LOOKS
from benchmarks.analysis.simulation import OWN, SHARED, LookShares, Setting, Shares, simulate, simulate_looks
from benchmarks.records.code_version import IS_CHECKOUT, ROOT
from benchmarks.records.lazy import special
from benchmarks.terminal import at_least

PAGE = (ROOT if IS_CHECKOUT else Path()) / "docs" / "statistics.md"
TABLES = 300
SEEDS = (2, 3, 5, 10)
IMAGES = (450, 2_000, 10_000, 50_000)
RATES = (0.005, 0.02, 0.06, 0.15, 0.3)
SPREADS = (0.03, 0.15)
MANY_IMAGES = 10_000  # above them a third as many tables
EQUAL = 4  # networks of a table in which none differs
MOST_SEEDS = 12
Grid = dict[tuple[int, int, float], list[Shares]]  # by images, seeds and spread, of each rate


CONTESTS = (
    Setting(10_000, (0.060, 0.052), 0.03),
    Setting(10_000, (0.060, 0.060, 0.052, 0.052), 0.03),
    Setting(10_000, (0.30, 0.27), 0.06),
    Setting(50_000, (0.240, 0.232), 0.015),
    Setting(450, (0.10, 0.04), 0.1),
)  # tables whose networks differ in truth: who shows it, with how many seeds
ADDED = (
    Setting(10_000, (0.060, 0.052), 0.03),
    Setting(10_000, (0.30, 0.27), 0.06),
    Setting(450, (0.10, 0.04), 0.1),
    Setting(10_000, (0.060, 0.060), 0.03),
    Setting(10_000, (0.060, 0.060), 0.15),
    Setting(450, (0.060, 0.060), 0.1),
)  # pairs to which seeds are added; of the last three neither is the better
UNEQUAL = (1, 2, 3, 5, 10)  # times as much the seeds of one network spread


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``measure statistics``."""
    parser.description = (
        "Simulate tables of networks whose true error rates are known, and count how often intervals hold them, how often a "
        "table claims a difference that is none, and how many seeds a true difference needs. Some minutes on one core."
    )
    parser.add_argument(
        "--tables",
        type=at_least(10),
        default=TABLES,
        help=f"simulated for each setting; by default {TABLES}, as the page has",
    )
    parser.add_argument("--write", action="store_true", help=f"write docs/{PAGE.name} in place of printing it")


def run(arguments: argparse.Namespace) -> None:
    """Simulate, and print or write the page."""
    page = document(arguments.tables)
    if arguments.write:
        PAGE.write_text(page, encoding="utf-8")
        print(f"written: {PAGE}")
    else:
        print(page)


def document(tables: int) -> str:
    """Return the page, with so many tables simulated for each setting."""
    grid = {
        (images, n, spread): [_simulated(Setting(images, (rate,) * EQUAL, spread, n), tables) for rate in RATES]
        for images, n, spread in itertools.product(IMAGES, SEEDS, SPREADS)
    }
    unequal = [
        _simulated(Setting(MANY_IMAGES, (0.06,) * EQUAL, SPREADS[0], n, wider), tables)
        for n, wider in itertools.product(SEEDS, UNEQUAL)
    ]
    contests = [(contest, _seeds_needed(contest, tables)) for contest in CONTESTS]
    added = [(contest, *_seeds_added(contest, tables)) for contest in ADDED]
    sections = [
        _head(tables),
        _coverage(tables, grid),
        _false_claims(tables, grid),
        _unequal(unequal),
        _power(contests),
        _added(tables, added),
    ]
    return "\n\n".join(sections) + "\n"


def rate_spread(rate: float, spread: float) -> float:
    """Return the standard deviation of a seed's error rate, whose mean is `rate`, in percentage points."""
    deviation = math.sqrt(SHARED**2 + OWN**2 + spread**2 + 1)
    density = math.exp(-(float(special.ndtri(rate)) ** 2) / 2) / math.sqrt(2 * math.pi)
    return 100 * density * spread / deviation


def seeds_needed(shares: Sequence[Shares], by_signs: bool) -> int | None:
    """Return the first number of seeds with power 0.8 of those simulated from two on; None if none has it."""
    powers = [one.shown_by_signs if by_signs else one.shown for one in shares]
    return next((n for n, power in enumerate(powers, 2) if power >= POWER), None)


def _seeds_needed(contest: Setting, tables: int) -> list[Shares]:
    """Return the shares by number of seeds, from two on, until both rules have the power or there are twelve."""
    result: list[Shares] = []
    for n in range(2, MOST_SEEDS + 1):
        result.append(_simulated(replace(contest, n=n), tables))
        if min(result[-1].shown, result[-1].shown_by_signs) >= POWER:
            break
    return result


def _seeds_added(contest: Setting, tables: int) -> tuple[LookShares, int | None]:
    """Return what `seed=auto` comes to, and the fixed number of seeds with no less power; None where none differs."""
    looks = simulate_looks(contest, tables)
    if math.isnan(looks.shown):
        return looks, None
    fixed = (n for n in range(2, LOOKS[-1] + 1) if _simulated(replace(contest, n=n), tables).shown >= looks.shown)
    return looks, next(fixed, None)


def _simulated(setting: Setting, tables: int) -> Shares:
    rates = ", ".join(f"{100 * rate:g}" for rate in setting.rates)
    print(f"{setting.images:,} images, {setting.n} seeds, {rates} % …", file=sys.stderr, flush=True)
    return simulate(setting, tables if setting.images <= MANY_IMAGES else -(-tables // 3))


def _head(tables: int) -> str:
    spreads = " and ".join(f"{rate_spread(0.06, spread):.2f}" for spread in SPREADS)
    return f"""# How often the intervals and verdicts are right

Made by `python -m benchmarks measure statistics --write`: {tables:,} tables of networks were simulated for each setting,
a third as many above {MANY_IMAGES:,} images, and judged by the functions that judge real runs. An image has a difficulty
that all networks share and one of its own for each network, a seed has a skill, and an outcome is particular to one seed
on one image; all are normal on the probit scale, so that the true error rate, over other trainings and other test images,
is known. Seeds spread by {spreads} points (standard deviation) around an error rate of 6 %, and by the same on the probit
scale at other rates: the small and the large spread below."""


def _coverage(tables: int, grid: Grid) -> str:
    every = [100 * share for shares in grid.values() for one in shares for share in (one.alone, one.covered)]
    cells = [cell for cell in every if not math.isnan(cell)]
    near = sum(93 <= cell <= 97 for cell in cells)
    lead = f"""## Coverage of the 95 % interval of a mean

The share of intervals that hold the true rate, in percent: each network by itself / with the spread over seeds pooled
over the table's {EQUAL} networks. Two seeds have an interval with a pooled spread only. The lowest share is {min(cells):.1f},
the highest {max(cells):.1f}; {near} of {len(cells)} lie within 93–97. At 95 % a share has a standard error of
{_standard_error(EQUAL * tables):.1f} to {_standard_error(tables):.1f} points, as the networks of a table share its images,
and above {MANY_IMAGES:,} images of {_standard_error(EQUAL * -(-tables // 3)):.1f} to
{_standard_error(-(-tables // 3)):.1f}."""
    return f"{lead}\n\n{_by_rate(grid, _both)}"


def _both(one: Shares) -> str:
    alone = "–" if math.isnan(one.alone) else f"{100 * one.alone:.1f}"
    return f"{alone} / {100 * one.covered:.1f}"


def _false_claims(tables: int, grid: Grid) -> str:
    number = sum(one.tables for shares in grid.values() for one in shares)
    mean = 100 * sum(one.false * one.tables for shares in grid.values() for one in shares) / number
    lead = f"""## False claims over a table

The share of tables of {EQUAL} equal networks in which any of the {math.comb(EQUAL, 2)} pairs is said to differ, after
Holm's correction, in percent; at most 5 is promised. Over all {number:,} tables it is {mean:.1f}. At 5 %
a single share has a standard error of {_standard_error(tables):.1f} points, and above {MANY_IMAGES:,} images of
{_standard_error(-(-tables // 3)):.1f}."""
    return f"{lead}\n\n{_by_rate(grid, lambda one: f'{100 * one.false:.1f}')}"


def _unequal(unequal: Sequence[Shares]) -> str:
    spread = rate_spread(0.06, SPREADS[0])
    lead = f"""## One network that spreads more than the others

Of {EQUAL} equal networks, {MANY_IMAGES:,} images and an error rate of 6 %, the seeds of one spread more than the {spread:.2f}
points of the others. With few seeds that is seen only where they happen to lie far apart: then it is judged by its
own spread alone, and two seeds of it have no interval; in the spread that the others share it counts all the same. In percent:
the tables in which that network has an interval that does not hold its true rate, 5 where an interval has what it promises; the
coverage of all networks' intervals; the tables with a false claim."""
    heads = ["seeds", "spread, times the others'", "its interval misses", "coverage of all", "false claims"]
    rows = (
        [str(n), str(wider), *(f"{100 * share:.1f}" for share in (one.first_missed, one.covered, one.false))]
        for (n, wider), one in zip(itertools.product(SEEDS, UNEQUAL), unequal, strict=True)
    )
    return f"{lead}\n\n{_table(heads, rows)}"


def _standard_error(number: int) -> float:
    """Return that of a share of 5 or of 95 %, in percentage points."""
    return 100 * math.sqrt(0.05 * 0.95 / number)


def _by_rate(grid: Grid, text: Callable[[Shares], str]) -> str:
    """Return a table with a column for each error rate."""
    heads = ["images", "spread", "seeds", *(f"{100 * rate:g} %" for rate in RATES)]
    rows = (
        [f"{images:,}", "small" if spread == SPREADS[0] else "large", str(n), *map(text, shares)]
        for (images, n, spread), shares in grid.items()
    )
    return _table(heads, rows)


def _power(contests: Sequence[tuple[Setting, list[Shares]]]) -> str:
    lead = f"""## Seeds that a true difference needs

The number of seeds of each network with which a pair that differs is shown with power {POWER:g} after Holm's correction:
by the outcomes of the test images, and by the sign-flip test of seeds in pairs, the rule that they replaced. In brackets
the power of each rule with 3 seeds: the sign-flip test cannot have any below 6 seeds, as its smallest p-value is
2^(1-n)."""
    heads = ["images", "true error rates, %", "spread of a seed, points", "outcomes", "sign-flip", "fewer seeds"]
    return f"{lead}\n\n{_table(heads, (_contest_row(contest, shares) for contest, shares in contests))}"


def _contest_row(contest: Setting, shares: list[Shares]) -> list[str]:
    fewest, fewest_by_signs = (seeds_needed(shares, by_signs) for by_signs in (False, True))
    three = shares[min(1, len(shares) - 1)]
    if fewest is None:
        fewer = ""
    elif fewest_by_signs is None:
        fewer = f"more than {MOST_SEEDS - fewest}"
    else:
        fewer = f"{fewest_by_signs - fewest}"
    by_outcomes = f"{_number(fewest)} ({three.shown:.2f})"
    by_signs = f"{_number(fewest_by_signs)} ({three.shown_by_signs:.2f})"
    return [*_contest(contest), by_outcomes, by_signs, fewer]


def _contest(contest: Setting) -> list[str]:
    spread = rate_spread(sum(contest.rates) / len(contest.rates), contest.spread)
    return [f"{contest.images:,}", ", ".join(f"{100 * rate:g}" for rate in contest.rates), f"{spread:.2f}"]


def _added(tables: int, added: Sequence[tuple[Setting, LookShares, int | None]]) -> str:
    looks = ", ".join(map(str, LOOKS[:-1]))
    lead = f"""## Adding seeds until a pair is decided

What `seed=auto` comes to, which looks at {looks} and {LOOKS[-1]} seeds: the power, the share of false claims (at most
5 % over all looks; its standard error would be {_standard_error(tables):.1f} points), the mean number of seeds of each
network, and the fixed number of seeds, without looks, that has no less power."""
    heads = ["images", "true error rates, %", "spread of a seed, points", "power", "false claims, %", "seeds", "fixed"]
    return f"{lead}\n\n{_table(heads, (_added_row(*one) for one in added))}"


def _added_row(contest: Setting, looks: LookShares, fixed: int | None) -> list[str]:
    if math.isnan(looks.shown):  # equal networks
        return [*_contest(contest), "", f"{100 * looks.false:.1f}", f"{looks.seeds:.1f}", ""]
    return [*_contest(contest), f"{looks.shown:.2f}", "", f"{looks.seeds:.1f}", _number(fixed)]


def _number(seeds: int | None) -> str:
    return f"more than {MOST_SEEDS}" if seeds is None else str(seeds)


def _table(heads: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
