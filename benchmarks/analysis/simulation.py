"""How often the intervals and verdicts of `analysis/error_rates.py` are right, by simulated tables of networks.

An image has a difficulty that all networks share and one for each network, a seed has a skill; all are normal on the probit
scale, so that the true error rate over other seeds and images is known exactly.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.analysis.error_rates import (
    FEWEST,
    VarianceComponents,
    components_of_outcomes,
    contrast,
    holm,
    limits,
    p_value,
    pooled,
)
from benchmarks.analysis.sequential import LOOKS, differs, left
from benchmarks.records.lazy import np, special

SHARED, OWN = 1.1, 0.5  # standard deviations of an image's difficulty; one outcome has 1
CELLS = 1_000_000  # outcomes at once
LEVEL = 0.05


@dataclass(frozen=True)
class Setting:
    """A table of networks that is simulated.

    Attributes:
        images: of the test set.
        rates: true error rate of each network.
        spread: standard deviation of each network's seeds on the probit scale.
        n: seeds of each network.
        wider: how many times as much the seeds of the first network spread.
    """

    images: int
    rates: tuple[float, ...]
    spread: float
    n: int = LOOKS[-1]
    wider: float = 1.0


@dataclass(frozen=True)
class Shares:
    """Shares of simulated tables, in [0, 1].

    Attributes:
        alone: of networks whose 95 % interval holds the true rate, each judged by itself; NaN where two seeds have none.
        covered: the same, with the spread over seeds pooled over the table; of two seeds where it can be pooled.
        first_missed: of tables in which the first network has such an interval and it does not hold the rate.
        false: of tables with a claim between equal networks, corrected by Holm.
        shown: of pairs that differ, those whose difference is claimed, corrected by Holm.
        shown_by_signs: the same by the sign-flip test of seeds in pairs, the rule that this method replaced.
        tables: simulated.
    """

    alone: float
    covered: float
    first_missed: float
    false: float
    shown: float
    shown_by_signs: float
    tables: int


def tables_of_outcomes(setting: Setting, tables: int, rng: Any) -> Iterator[list[Any]]:
    """Yield parts of the tables: of each network the errors, shape (some, n, images)."""
    at_once = max(1, CELLS // (setting.n * setting.images))
    for start in range(0, tables, at_once):
        some = min(at_once, tables - start)
        shared = rng.standard_normal((some, 1, setting.images), dtype=np.float32) * np.float32(SHARED)
        networks = []
        for index, rate in enumerate(setting.rates):
            spread = setting.spread * (1 if index else setting.wider)
            threshold = float(special.ndtri(rate)) * math.sqrt(SHARED**2 + OWN**2 + spread**2 + 1)
            own = shared + rng.standard_normal((some, 1, setting.images), dtype=np.float32) * np.float32(OWN)
            skill = rng.standard_normal((some, setting.n, 1), dtype=np.float32) * np.float32(spread)
            ease = rng.standard_normal((some, setting.n, setting.images), dtype=np.float32)
            ease += own
            ease += skill
            networks.append(ease < np.float32(threshold))
        yield networks


def simulate(setting: Setting, tables: int, seed: int = 0) -> Shares:
    """Simulate tables and judge each as a report would."""
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(len(setting.rates)), 2))
    differ = np.array([setting.rates[one] != setting.rates[other] for one, other in pairs], dtype=bool)
    alone, covered, first_missed, false, shown, shown_by_signs = [], [], [], [], [], []
    for networks in tables_of_outcomes(setting, tables, rng):
        components = [components_of_outcomes(errors) for errors in networks]
        together = pooled(components)
        alone.append(_covered(components, setting.rates))
        covered.append(_covered(together, setting.rates))
        first_missed.append(_known(together[0]) & ~_held(together[0], setting.rates[0]))
        claims = _corrected([p_value(contrast(together[one], together[other])) for one, other in pairs]) <= LEVEL
        by_signs = _corrected([sign_flip_p_value(networks[one], networks[other]) for one, other in pairs]) <= LEVEL
        false.append(claims[~differ].any(axis=0))
        shown.append(claims[differ].T)
        shown_by_signs.append(by_signs[differ].T)
    judged = {"alone": alone, "covered": covered, "first_missed": first_missed, "false": false}
    judged |= {"shown": shown, "shown_by_signs": shown_by_signs}
    joined = {name: np.concatenate(values) for name, values in judged.items()}
    shares = {name: float(values.mean()) if values.size else math.nan for name, values in joined.items()}
    return Shares(**shares, tables=tables)


def _covered(networks: Sequence[VarianceComponents], rates: Sequence[float]) -> Any:
    """Whether each interval that a network has holds its rate."""
    return np.concatenate([_held(one, rate)[_known(one)] for one, rate in zip(networks, rates, strict=True)])


def _held(network: VarianceComponents, rate: float) -> Any:
    low, high = limits(network)
    return (low <= rate) & (rate <= high)


def _known(network: VarianceComponents) -> Any:
    return network.shared | (network.n >= FEWEST)


def _corrected(p_values: Sequence[Any]) -> Any:
    """P-values of each comparison of each table, corrected over the table, shape (comparisons, tables)."""
    return np.array([holm(table) for table in np.stack(p_values, axis=1).tolist()]).T


@dataclass(frozen=True)
class LookShares:
    """What adding seeds by `seed=auto` comes to.

    Attributes:
        shown: share of pairs that differ whose difference is claimed.
        false: share of tables with a claim between equal networks.
        seeds: of each network, mean over the tables.
    """

    shown: float
    false: float
    seeds: float


def simulate_looks(setting: Setting, tables: int) -> LookShares:
    """Simulate tables to which seeds are added until no pair of them is open; `setting.n` is that of the last look."""
    rng = np.random.default_rng(0)
    pairs = list(itertools.combinations(range(len(setting.rates)), 2))
    differ = np.array([setting.rates[one] != setting.rates[other] for one, other in pairs], dtype=bool)
    shown, false, seeds = [], [], []
    for networks in tables_of_outcomes(setting, tables, rng):
        some = len(networks[0])
        claimed, going_on, spent = np.zeros((len(pairs), some), dtype=bool), np.ones(some, dtype=bool), np.zeros(some)
        for look, n in enumerate(LOOKS):
            components = pooled([components_of_outcomes(errors[:, :n]) for errors in networks])
            p = [p_value(contrast(components[one], components[other])) for one, other in pairs]
            claimed |= differs(_corrected(p)) & going_on
            spent[going_on] = n
            going_on &= (~claimed & ~left(np.array(p), look)).any(axis=0)
        shown.append(claimed[differ].ravel())
        false.append(claimed[~differ].any(axis=0))
        seeds.append(spent)
    shares = [np.concatenate(values) for values in (shown, false, seeds)]
    return LookShares(*(float(values.mean()) if values.size else math.nan for values in shares))


def sign_flip_p_value(first: Any, second: Any) -> Any:
    """P-value of the mean difference over all signs of the seeds' differences; errors of shape (…, n, images)."""
    differences = first.mean(axis=-1, dtype=np.float64) - second.mean(axis=-1, dtype=np.float64)
    signs = np.array(list(itertools.product((1, -1), repeat=differences.shape[-1])))
    flipped = np.abs(differences @ signs.T)
    return (flipped >= flipped[..., :1] * (1 - 1e-9)).mean(axis=-1)
