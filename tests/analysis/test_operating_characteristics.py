"""Simulated tables: their true rates, the sign-flip test by hand, and what the intervals and verdicts of real runs promise."""

import math

import numpy as np
import pytest

from benchmarks.analysis import operating_characteristics
from benchmarks.analysis.operating_characteristics import PAGE, RATES, document, rate_spread, seeds_needed
from benchmarks.analysis.sequential import LOOKS
from benchmarks.analysis.simulation import (
    Setting,
    Shares,
    sign_flip_p_value,
    simulate,
    simulate_looks,
    tables_of_outcomes,
)


@pytest.mark.parametrize("spread", [0.15, 0.03])
def test_networks_have_the_rates_and_spreads_that_are_said(spread: float) -> None:
    setting = Setting(5_000, (0.06, 0.3), spread, n=200)
    [networks] = tables_of_outcomes(setting, 1, np.random.default_rng(0))
    for errors, rate in zip(networks, setting.rates, strict=True):
        by_seed = errors[0].mean(axis=-1)
        assert by_seed.mean() == pytest.approx(rate, rel=0.05)
        # Beside the skill of a seed, what is particular to it on one image: at most the variance of independent outcomes.
        skill = (rate_spread(rate, spread) / 100) ** 2
        assert skill * 0.7 < by_seed.var(ddof=1) < 1.3 * (skill + rate * (1 - rate) / setting.images)


def test_the_sign_flip_test_counts_signs() -> None:
    # Differences of 2, 1 and -1 errors of four images: |±2 ± 1 ± 1| is at least 2 for 6 of 8 signs.
    first = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    second = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]], dtype=bool)
    assert sign_flip_p_value(first, second) == 6 / 8
    worse = np.ones((3, 4), dtype=bool)
    assert sign_flip_p_value(worse, ~worse) == 1 / 4  # the smallest that three seeds can have


@pytest.mark.parametrize(
    ("n", "rate", "spread", "images"),
    [(2, 0.15, 0.15, 450), (3, 0.02, 0.03, 450), (3, 0.06, 0.15, 2_000), (5, 0.3, 0.03, 450)],
)
def test_intervals_hold_the_truth_and_tables_claim_nothing_false(
    n: int, rate: float, spread: float, images: int
) -> None:
    shares = simulate(Setting(images, (rate,) * 4, spread, n), 200)
    # 800 intervals have a standard error of 0.8 points at 95 %, and those of one table share its images.
    assert (math.isnan(shares.alone) if n == 2 else 0.92 < shares.alone < 0.98) and 0.92 < shares.covered < 0.985
    assert shares.false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert math.isnan(shares.shown)


def test_outcomes_show_with_three_seeds_what_sign_flips_cannot() -> None:
    shares = simulate(Setting(450, (0.10, 0.04), 0.05, n=3), 200)
    assert shares.shown > 0.8
    assert shares.shown_by_signs == 0
    assert math.isnan(shares.false) or shares.false == 0


def test_looking_often_claims_nothing_false_and_needs_fewer_seeds() -> None:
    equal = simulate_looks(Setting(450, (0.06, 0.06, 0.06), 0.1), 200)
    assert equal.false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert math.isnan(equal.shown) and equal.seeds < LOOKS[-1]
    apart = simulate_looks(Setting(450, (0.10, 0.04), 0.05), 200)
    assert apart.shown > 0.95 and apart.seeds < 4


def test_the_first_number_of_seeds_with_the_power_counts() -> None:
    shares = [
        Shares(0.95, 0.95, 0.05, 0.0, shown, by_signs, 10) for shown, by_signs in ((0.5, 0), (0.8, 0), (0.9, 0.79))
    ]
    assert seeds_needed(shares, by_signs=False) == 3
    assert seeds_needed(shares, by_signs=True) is None


def test_the_committed_page_is_what_a_new_simulation_gives() -> None:
    rows = [
        line.strip("| ").split(" | ")
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| 450")
    ]
    [committed, *_] = [row[3:] for row in rows if row[1:3] == ["large", "3"]]
    for cell, rate in zip(committed[1:4], RATES[1:4], strict=True):
        shares = simulate(Setting(450, (rate,) * 4, 0.15, n=3), 150, seed=1)
        alone, together = (float(text) / 100 for text in cell.split(" / "))
        assert alone == pytest.approx(shares.alone, abs=0.03)
        assert together == pytest.approx(shares.covered, abs=0.03)


def test_the_page_is_made_of_tables_of_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating_characteristics, "IMAGES", (100,))
    monkeypatch.setattr(operating_characteristics, "SEEDS", (2, 3))
    monkeypatch.setattr(operating_characteristics, "CONTESTS", (Setting(200, (0.4, 0.1), 0.05),))
    monkeypatch.setattr(
        operating_characteristics, "ADDED", (Setting(300, (0.4, 0.1), 0.05), Setting(300, (0.3, 0.3), 0.05))
    )
    page = document(10)
    lines = [line for line in page.splitlines() if line.startswith("| 100")]
    assert len(lines) == 2 * 2 * 2  # coverage and false claims, two numbers of seeds, two spreads
    [contest] = [line for line in page.splitlines() if line.startswith("| 200 | 40, 10 |")]
    assert contest.rstrip(" |").split(" | ")[-1].isdigit()
    [differing, equal] = [line for line in page.splitlines() if line.startswith("| 300 |")]
    assert [bool(cell.strip()) for cell in differing.split("|")[4:8]] == [True, False, True, True]
    assert [bool(cell.strip()) for cell in equal.split("|")[4:8]] == [False, True, True, False]
