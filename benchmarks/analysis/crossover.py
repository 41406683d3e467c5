"""Where one network becomes better than another as the training budget grows: `python -m benchmarks report iso_compute`.

Read from runs that ended with a budget (`trainer.max_train_flops` and its like), each with a complete schedule. Between budgets
an error is taken as linear in the logarithm of the budget. Two networks are compared on the same test images
(`analysis/estimates.py`).
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.analysis.error_rates import VarianceComponents, contrast, half_width, probability_below, variances
from benchmarks.analysis.estimates import Estimate, comparable_components, estimates
from benchmarks.analysis.learning_rates import RATE
from benchmarks.analysis.seeds import differing_conditions, latest_by_seed
from benchmarks.records.lazy import np
from benchmarks.records.runs import Run, overrides_text
from benchmarks.units import as_key, duration, grouped, number, quantity

EXPERIMENT = "iso_compute"
SPENT = {"train_flops": "training FLOPs", "train_seconds": "seconds of training", "train_joules": "joules of training"}
STEPS = 50  # from one budget to the next, between which a limit is linear
DIGITS = 9  # of a mean difference: below it lies only the rounding of sums


@dataclass(frozen=True)
class Curve:
    """A network under one recipe on one data set, trained to the end of several budgets.

    Attributes:
        name: the network's, with its recipe and conditions where they are needed to tell two curves apart.
        kind: of the budget: `train_flops`, `train_seconds` or `train_joules`.
        label: of the reported metric, with its unit; lower is better.
        errors: by budget, ascending, then by seed.
        estimates: of the mean error, by budget.
        look: as a record has it.
        test: what must agree for its errors to be compared, as `Run.test_key`.
    """

    data: str
    name: str
    recipe: str
    family: str
    kind: str
    label: str
    errors: dict[float, dict[int, float]]
    estimates: dict[float, Estimate]
    look: Mapping[str, Any] = field(default_factory=dict)
    test: tuple[str, ...] = ()

    @property
    def group(self) -> tuple[Any, ...]:
        """Curves of one group can be compared."""
        return self.data, self.kind, self.label, self.test

    @property
    def unit(self) -> str:
        return "points" if "%" in self.label else ""


@dataclass(frozen=True)
class Crossing:
    """Two networks at the same budgets.

    Attributes:
        budgets: those at which both have runs, ascending.
        means: of first minus second, by budget.
        points: budgets at which the means cross.
        intervals: 95 % confidence set of the crossing, as disjoint intervals of budgets; None where it cannot be given.
        missing: why `intervals` is None.
        first_better: probability that the first network's error is the lower one, by budget; see `probability_below`.
    """

    first: Curve
    second: Curve
    budgets: list[float]
    means: list[float]
    points: list[float]
    intervals: list[tuple[float, float]] | None
    missing: str
    first_better: list[float | None]

    def text(self) -> str:
        """Return which network overtakes which, and at what budget."""
        if not any(self.means):
            return "no difference at any budget"
        if not self.points:
            leader = self.first if sum(self.means) < 0 else self.second
            text = f"no crossing within the budgets: {leader.name} {'better' if all(self.means) else 'nowhere worse'}"
            text += " throughout" if all(self.means) else ""
            if self.intervals is None:
                return f"{text} ({self.missing})"
            return f"{text}; a crossing {self._intervals()} is not excluded" if self.intervals else text
        places = " and ".join(budget_text(point, self.first.kind) for point in self.points)
        if len(self.points) > 1:
            return f"the means cross {len(self.points)} times, at {places}"
        small, large = self.first.name, self.second.name
        if next(mean for mean in self.means if mean) > 0:
            small, large = large, small
        interval = f"95 %: {self._intervals()}" if self.intervals else self.missing
        return f"{large} overtakes {small} at {places} ({interval})"

    def _intervals(self) -> str:
        return " or ".join(self._interval(*interval) for interval in self.intervals or ())

    def _interval(self, low: float, high: float) -> str:
        """Return an interval in words; one that reaches the first or the last budget may go on beyond it."""
        kind = self.first.kind
        from_first, to_last = low <= self.budgets[0], high >= self.budgets[-1]
        if from_first and to_last:
            return "anywhere"
        if from_first:
            return f"up to {budget_text(high, kind)}"
        if to_last:
            return f"from {budget_text(low, kind)} on"
        return f"{budget_text(low, kind)} to {budget_text(high, kind)}"


def curves(runs: Iterable[Run]) -> list[Curve]:
    """Return the finished runs with a budget as curves; of two runs of a network, recipe, budget and seed the later one counts.

    A network may have a learning rate of its own at each budget; several at one budget are curves of their own.
    """
    limited = [run for run in runs if run.value is not None and _budget(run)[1]]
    keys = {run: _all_but_rate(run) for run in limited}
    at_budgets = grouped(limited, lambda run: (keys[run], _budget(run)))
    several = {key for (key, _), same in at_budgets.items() if len(set(map(_recipe, same))) > 1}
    curves_of = grouped(limited, lambda run: (keys[run], keys[run] in several and _recipe(run)))
    by_curve = [
        {limit: latest_by_seed(same) for (_, limit), same in grouped(members, _budget).items()}
        for members in curves_of.values()
    ]
    estimated = iter(estimates([tuple(seeds.values()) for by_budget in by_curve for seeds in by_budget.values()]))
    result = [_curve(by_budget, {limit: next(estimated) for limit in by_budget}) for by_budget in by_curve]
    return _told_apart(result, [_first(by_budget) for by_budget in by_curve])


def _told_apart(found: Sequence[Curve], runs: Sequence[Run]) -> list[Curve]:
    """Return the curves, those of one name with their recipe and, of one recipe too, the conditions in which a run differs."""
    keys = [(curve.data, curve.kind, curve.label, curve.name) for curve in found]
    notes: dict[int, list[str]] = {}
    for places in grouped(range(len(found)), lambda place: (keys[place], found[place].recipe)).values():
        notes |= zip(places, differing_conditions([runs[place] for place in places]), strict=True)
    return [
        replace(curve, name=f"{curve.name} ({', '.join([curve.recipe, *notes[place]])})")
        if keys.count(key) > 1
        else curve
        for place, (key, curve) in enumerate(zip(keys, found, strict=True))
    ]


def cross(first: Curve, second: Curve) -> Crossing | None:
    """Compare two curves at the budgets that both have; return None where they share none."""
    budgets = sorted(first.estimates.keys() & second.estimates.keys())
    if not budgets:
        return None
    pairs = [(first.estimates[budget], second.estimates[budget]) for budget in budgets]
    components = [comparable_components(*pair) for pair in pairs]
    known = [pair for pair in components if not isinstance(pair, str)]
    missing = next((reason for reason in components if isinstance(reason, str)), "")
    x = [math.log(budget) for budget in budgets]
    means = [round(one.mean - other.mean, DIGITS) for one, other in pairs]
    exact = dict(zip(x, budgets, strict=True))
    intervals = (
        None
        if missing
        else [
            (exact.get(low, math.exp(low)), exact.get(high, math.exp(high))) for low, high in confidence_set(x, known)
        ]
    )
    return Crossing(
        first=first,
        second=second,
        budgets=budgets,
        means=means,
        points=[math.exp(point) for point in sign_changes(x, means)],
        intervals=intervals,
        missing=missing,
        first_better=[
            None if isinstance(pair, str) else float(probability_below(contrast(*pair))) for pair in components
        ],
    )


def sign_changes(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """Return the positions at which the polygon through (x, y) changes its sign; of a stretch of zeros, its middle."""
    points = []
    nonzero = [index for index, value in enumerate(y) if value]
    for left, right in itertools.pairwise(nonzero):
        if y[left] * y[right] > 0:
            continue
        if right == left + 1:
            points.append(x[left] + y[left] / (y[left] - y[right]) * (x[right] - x[left]))
        else:
            points.append((x[left + 1] + x[right - 1]) / 2)
    return points


def confidence_set(
    x: Sequence[float], pairs: Sequence[tuple[VarianceComponents, VarianceComponents]]
) -> list[tuple[float, float]]:
    """All positions at which the difference of two means is not told from zero: a 95 % set for the crossing.

    Fieller's argument (1954): at the true crossing the difference is zero, so the set holds it as often as the test is right.

    Args:
        x: positions, ascending.
        pairs: of both networks, a pair per position; linear in between.

    Returns:
        Disjoint intervals, ascending.
    """
    intervals: list[tuple[float, float]] = []
    if len(x) == 1:  # a stretch without length
        x, pairs = [*x, *x], [*pairs, *pairs]
    for (left, right), (here, there) in zip(itertools.pairwise(x), itertools.pairwise(pairs), strict=True):
        for low, high in _not_excluded(here, there):
            start, end = (1 - low) * left + low * right, (1 - high) * left + high * right  # exact at 0 and 1
            if intervals and start <= intervals[-1][1] + 1e-9 * (right - left):
                start = intervals.pop()[0]
            intervals.append((start, end))
    return intervals


def budget_text(budget: float, kind: str) -> str:
    """`120 GFLOPs`, `1 min 30 s`, `1.50 kJ`."""
    if kind == "train_seconds":
        return duration(budget)
    return quantity(budget, "FLOPs" if kind == "train_flops" else "J")


def _budget(run: Run) -> tuple[str, float]:
    """Return the kind of budget that a run has ended with, and the budget; 0 without one."""
    budget = run.part("protocol").get("budget") or {}
    kind = str(budget.get("kind"))
    return kind, (number(budget.get("limit")) or 0.0) if kind in SPENT else 0.0


def _all_but_rate(run: Run) -> tuple[str, ...]:
    return run.data, _budget(run)[0], run.name, _recipe(run, but=RATE), as_key(run.conditions)


def _curve(by_budget: dict[float, dict[int, Run]], estimated: dict[float, Estimate]) -> Curve:
    run = _first(by_budget)
    errors = {
        limit: {seed: one.value for seed, one in seeds.items() if one.value is not None}
        for limit, seeds in sorted(by_budget.items())
    }
    recipes = {_recipe(one) for seeds in by_budget.values() for one in seeds.values()}
    recipe = _recipe(run) if len(recipes) == 1 else f"{_recipe(run, but=RATE)}, each budget's learning rate"
    described = (run.data, run.name, recipe, run.family, _budget(run)[0], run.metric_label)
    return Curve(*described, errors, dict(sorted(estimated.items())), run.look, run.test_key)


def _first(by_budget: dict[float, dict[int, Run]]) -> Run:
    return next(iter(next(iter(by_budget.values())).values()))


def _recipe(run: Run, but: str = "") -> str:
    """Return the recipe with its overrides, without the budget and this key."""
    budgets_and_key = (*(f"trainer.max_{kind}" for kind in SPENT), but)
    overrides = overrides_text(run.part("overrides"), but=budgets_and_key)
    return ", ".join(filter(None, (run.record["recipe"], overrides)))


def _not_excluded(
    here: tuple[VarianceComponents, VarianceComponents], there: tuple[VarianceComponents, VarianceComponents]
) -> list[tuple[float, float]]:
    """Shares u in [0, 1] at which the difference, at (1-u)·here + u·there, is no further from zero than chance takes it."""
    ends = [pair[0].mean - pair[1].mean for pair in (here, there)]
    shares = np.linspace(0, 1, STEPS + 1)
    if ends[0] * ends[1] < 0:
        shares = np.sort(np.append(shares, ends[0] / (ends[0] - ends[1])))  # where the means cross
    compared = contrast(*(_between(one, other, shares) for one, other in zip(here, there, strict=True)))
    excess = np.abs(compared.mean) - half_width(*variances(compared, tails=False))
    intervals, start = [], 0.0 if excess[0] <= 0 else None
    for (left, right), (before, after) in zip(itertools.pairwise(shares), itertools.pairwise(excess), strict=True):
        if (before > 0) == (after > 0):
            continue
        edge = float(left + (right - left) * before / (before - after))
        if start is None:
            start = edge
        else:
            intervals.append((start, edge))
            start = None
    return intervals if start is None else [*intervals, (start, 1.0)]


def _between(here: VarianceComponents, there: VarianceComponents, shares: Any) -> VarianceComponents:
    """Return a network's components at these shares of the way; the chance of a seed may be the same at both ends.

    At 0 and 1 they are those of the end. In between, the degrees of freedom are the fewer of both.
    """
    ends = [shares == 0, shares == 1]
    outcomes = [
        np.outer(share, one.by_image)
        for share, one in ((1 - shares, here), (shares, there))
        if one.by_image is not None
    ]
    return replace(
        here,
        mean=(1 - shares) * here.mean + shares * there.mean,
        seeds=((1 - shares) * np.sqrt(here.seeds) + shares * np.sqrt(there.seeds)) ** 2,
        residual=(1 - shares) ** 2 * here.residual + shares**2 * there.residual,
        df=np.select(ends, [here.df, there.df], min(float(here.df), float(there.df))),
        shared=np.select(ends, [here.shared, there.shared], bool(here.shared) and bool(there.shared)),
        common=(1 - shares) * here.common + shares * there.common,
        by_image=sum(outcomes) if outcomes else None,
    )
