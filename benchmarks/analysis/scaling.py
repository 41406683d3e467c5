"""How the error of a family falls with training compute: a power law with a floor, its band, and families at equal error.

E(C) = a + b (C / C₀)^-α with a, b ≥ 0, as for the loss of language models (Hoffmann et al. 2022, §3.3), fitted by least squares
to the mean errors of a family's networks and budgets. The bands are of joint draws of those means, over other trainings and
other test images that all families share (`analysis/pareto.py`).
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.analysis.comparisons import kind
from benchmarks.analysis.estimates import estimates
from benchmarks.analysis.learning_rates import RATE, at_the_best_rates
from benchmarks.analysis.pareto import DRAWS, drawn_errors, matched
from benchmarks.analysis.seeds import same_but_seed
from benchmarks.records.lazy import np
from benchmarks.records.runs import Run, overrides_text
from benchmarks.units import grouped, is_score, reported_text, score, si

FEWEST = 4  # different costs: one more than there are parameters
APART = 1.05  # costs closer than this are one
BUDGETS = ("recipe.epochs", "trainer.max_train_")  # keys of what a training may spend
EXPONENTS = 200  # values of α that are tried
MOST_DRAWS = 20_000  # a limit of a ratio may be infinite: 1,000 draws of the same runs gave 39, 228 and ∞
NUMBERS = 2_000_000  # that are drawn, of many networks
QUANTILES = (0.025, 0.975)
FLAT = 1e-9  # of a curve's scale: below it lies only the rounding of sums


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """Fitted curves: that of the means first, then one for each draw.

    Attributes:
        floor, scale, exponent: a, b and α, shape (1 + draws,).
        unit: C₀.
    """

    floor: Any
    scale: Any
    exponent: Any
    unit: float

    def error_at(self, cost: float) -> Any:
        """Return the errors at a cost."""
        return self.floor + self.scale * (cost / self.unit) ** -self.exponent

    def cost_at(self, error: float) -> Any:
        """Return the costs at which the curves reach an error; infinite for those that never do."""
        above = error - self.floor
        with np.errstate(divide="ignore", invalid="ignore"):
            cost = self.unit * (self.scale / np.maximum(above, 0)) ** (1 / self.exponent)
        return np.where(above > 0, cost, np.inf)


@dataclass(frozen=True, eq=False)
class Family:
    """The networks and budgets of a family on a data set.

    Attributes:
        name: the kind of its networks, with its recipe where one network has several.
        first: a run of it.
        costs: training FLOPs, ascending; mean over seeds.
        errors: the means, then joint draws of them, shape (1 + draws, costs).
        intervals: the 95 % intervals of the means.
    """

    data: str
    name: str
    label: str
    first: Run
    costs: list[float]
    errors: Any
    intervals: list[tuple[float, float]]
    law: PowerLaw

    @property
    def group(self) -> tuple[Any, ...]:
        """Families of one group can be compared."""
        return *self.first.test_key, self.label

    @property
    def formula(self) -> str:
        """`1.20 + 5.31 (C / 12.0 G)^-0.42`, C in training FLOPs; of a score `100 − Dice = …`."""
        a, b, alpha = (float(values[0]) for values in (self.law.floor, self.law.scale, self.law.exponent))
        error = f"{self.label.removeprefix('test ').removesuffix(' (%)')} = " if is_score(self.label) else ""
        return f"{error}{a:.2f} + {b:.2f} (C / {si(self.law.unit)})^-{alpha:.2f}"

    def held_out(self) -> str:
        """Return what the smaller costs predict of the largest, and what was measured; empty of too few different costs."""
        different = matched(self.costs, APART)
        smaller = different.index(different[-1])  # their number
        if len(set(different[:smaller])) < FEWEST:
            return ""
        law = fit(self.costs[:smaller], self.errors[:, :smaller])
        # What was measured has an uncertainty of its own, drawn with the images that it shares with the others.
        gap = law.error_at(self.costs[-1]) - self.errors[:, -1]
        low, high = _interval(gap)
        predicted, measured = float(law.error_at(self.costs[-1])[0]), float(self.errors[0, -1])
        verdict = "agree" if low <= 0 <= high else "differ"
        name, predicted, _ = score(predicted, self.label)
        name = f"{name.removeprefix('test ')} " if is_score(self.label) else ""
        measured = score(measured, self.label)[1]
        return f"{name}{predicted:.2f} predicted, {measured:.2f} measured at {si(self.costs[-1])}FLOPs: {verdict}"


@dataclass(frozen=True)
class EqualError:
    """Two families at the lowest error that the largest runs of both reach.

    Attributes:
        ratio: of training FLOPs, first to second, with its 95 % interval.
    """

    first: Family
    second: Family
    error: float
    ratio: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """`at 6.20 %, resnext needs 0.61 × [0.52, 0.79] the training FLOPs of resnet`."""
        high = "∞)" if self.high == float("inf") else f"{_two_digits(self.high)}]"
        ratio = f"{_two_digits(self.ratio)} × [{_two_digits(self.low)}, {high}"
        result = reported_text(self.error, self.first.label)
        return f"at {result}, {self.first.name} needs {ratio} the training FLOPs of {self.second.name}"


def fit(costs: Sequence[float], errors: Any) -> PowerLaw:
    """Fit a curve to each row of errors, shape (rows, costs), by least squares over a grid of exponents."""
    cost = np.asarray(costs, dtype=np.float64)
    unit = float(np.exp(np.log(cost).mean()))
    y = np.asarray(errors, dtype=np.float64)
    mean = y.mean(axis=1)
    centred_y = y - mean[:, None]
    squared, centred_squared = (y**2).sum(axis=1), (centred_y**2).sum(axis=1)
    best = np.full(len(y), np.inf)
    floor, scale, exponent = np.zeros(len(y)), np.zeros(len(y)), np.zeros(len(y))
    for alpha in np.geomspace(0.02, 2.0, EXPONENTS):
        x = (cost / unit) ** -alpha
        centred = x - x.mean()
        product = centred_y @ centred
        b = np.maximum(product / (centred @ centred), 0)
        a = mean - b * x.mean()
        squares = centred_squared - b * product
        if (through_zero := a < 0).any():
            product = y @ x
            b = np.where(through_zero, product / (x @ x), b)
            a = np.where(through_zero, 0.0, a)
            squares = np.where(through_zero, squared - b * product, squares)
        better = squares < best
        best = np.where(better, squares, best)
        floor, scale = np.where(better, a, floor), np.where(better, b, scale)
        exponent = np.where(better, alpha, exponent)
    return PowerLaw(floor, scale, exponent, unit)


def families(runs: Iterable[Run]) -> list[Family]:
    """Return the families of each data set whose finished runs have intervals at enough different costs for a curve.

    Of a network that was trained at several learning rates the one with the lowest validation loss counts. Where one has
    several recipes at one budget, each recipe is a family.
    """
    groups = [group for group in same_but_seed(runs) if group[0].train_flops]
    result = []
    for here in grouped(groups, lambda group: (*group[0].test_key, group[0].metric_label)).values():
        known = [(group, one) for group, one in zip(here, estimates(here), strict=True) if one.interval is not None]
        if not known:
            continue
        kept = set(at_the_best_rates(group for group, _ in known))
        known = [(group, one) for group, one in known if group in kept]
        estimated = [one for _, one in known]
        draws = min(MOST_DRAWS, max(DRAWS, NUMBERS // len(estimated)))
        errors = np.vstack([[one.mean for one in estimated], drawn_errors(estimated, draws)])
        kinds = _kinds([group[0] for group, _ in known])
        for name, places in grouped(range(len(known)), kinds.__getitem__).items():
            cost_of = {place: fmean(run.train_flops or 0.0 for run in known[place][0]) for place in places}
            order = sorted(places, key=cost_of.__getitem__)
            costs = [cost_of[place] for place in order]
            if len(set(matched(costs, APART))) >= FEWEST:
                first = known[order[0]][0][0]
                law = fit(costs, errors[:, order])
                intervals = [interval for place in order if (interval := estimated[place].interval)]  # all have one
                of_family = first.data, name, first.metric_label, first
                result.append(Family(*of_family, costs, errors[:, order], intervals, law))
    return result


def _kinds(runs: Sequence[Run]) -> list[str]:
    """Return each run's kind of network and, where one network at one budget has several recipes, what of these differs."""
    differing: dict[str, set[str]] = {}
    for same in grouped(runs, lambda run: (kind(run), run.network, repr(_recipe(run)[0]))).values():
        recipes = [_recipe(run)[1] for run in same]
        keys = {key for one in recipes for key in one if any(one[key] != other.get(key) for other in recipes)}
        differing.setdefault(kind(same[0]), set()).update(keys)
    names = []
    for run in runs:
        own = {key: value for key, value in _recipe(run)[1].items() if key in differing[kind(run)]}
        names.append(" ".join(filter(None, (kind(run), own.pop("recipe", ""), overrides_text(own)))))
    return names


def _recipe(run: Run) -> tuple[list[Any], dict[str, Any]]:
    """Return the budget, and the recipe with all overrides but those of network, budget and learning rate."""
    overrides = sorted(run.part("overrides").items())
    budget = [one for one in overrides if one[0].startswith(BUDGETS)]
    others = {key: value for key, value in overrides if not key.startswith((*BUDGETS, "model.")) and key != RATE}
    return budget, {"recipe": run.record["recipe"]} | others


def equal_errors(members: Sequence[Family]) -> list[EqualError]:
    """Return every pair of families on the same test images, at the lowest error that the largest runs of both reach.

    A family whose error does not fall with compute is left out.
    """
    result = []
    for first, second in itertools.combinations([one for one in members if one.law.scale[0] > FLAT], 2):
        if first.group == second.group:
            error = max(float(one.law.error_at(one.costs[-1])[0]) for one in (first, second))
            with np.errstate(divide="ignore", invalid="ignore"):  # of drawn curves that do not fall
                ratio = first.law.cost_at(error) / second.law.cost_at(error)
            low, high = _interval(ratio[ratio == ratio])  # infinite costs of both have none
            result.append(EqualError(first, second, error, float(ratio[0]), low, high))
    return result


def _two_digits(ratio: float) -> str:
    """Return two significant digits, no fewer than the whole numbers."""
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:,.0f}"


def _interval(values: Any) -> tuple[float, float]:
    low, high = np.quantile(values, QUANTILES, method="nearest")
    return float(low), float(high)
