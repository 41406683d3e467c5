"""From runs to means with intervals and to differences: every interval that is printed or drawn comes from here.

Runs that store the outcome of every test image tell how another training and how other test images would come out. Runs without
them tell of other trainings alone, and the text says so. The method is `analysis/error_rates.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any
from weakref import WeakKeyDictionary

from benchmarks.analysis.error_rates import (
    FEWEST,
    MOST_SEEDS,
    Contrast,
    VarianceComponents,
    components_of_outcomes,
    components_of_rates,
    contrast,
    detectable,
    half_width,
    limits,
    p_value,
    p_value_of,
    pooled,
    seeds_to_show,
    variances,
    variances_of_seeds,
)
from benchmarks.records.lazy import np
from benchmarks.records.runs import Run
from benchmarks.units import as_key, grouped, number, plural

SEEDS_ALONE = "seeds alone"
ALIKE = "trained alike (one learning rate, the same other overrides of training, one budget)"  # whose spread is pooled
FEWEST_MASKS = 10  # test images: the normal deviate in place of Student's holds 92 % of ten, 70 % of two
TOLERANCE = 1e-5  # of a rate: between the outcomes' score and the recorded one, which is in single precision
# By a group's first run, what its outcomes say: the table and the page ask for the same.
_known: WeakKeyDictionary[Run, dict[tuple[Any, ...], "Estimate"]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean over seeds with its 95 % interval.

    Attributes:
        mean: in the unit of the metric, as `interval`.
        interval: None where there is none; `missing` says why.
        components: of the rate in [0, 1]; None of one seed.
        test_set: checksum of the test set whose outcomes are known; empty where the interval tells of the seeds alone.
        left_out: files of outcomes that are not of these runs, or not of one test set, and why.
        scale: of the metric: 100 where it is in percent.
        networks: over how many networks the spread of the seeds is pooled; 1 where it is this one's own.
    """

    mean: float
    n: int
    interval: tuple[float, float] | None
    missing: str
    components: VarianceComponents | None
    test_set: str
    left_out: tuple[str, ...]
    scale: float
    networks: int = 1

    @property
    def interval_text(self) -> str:
        """`[0.71, 3.89]`, or why there is none."""
        if self.interval is None:
            return self.missing
        digits = 2 if self.scale == 100 else 3
        return f"[{self.interval[0]:.{digits}f}, {self.interval[1]:.{digits}f}]"

    @property
    def basis_text(self) -> str:
        """What an interval rests on beside the results of these seeds; empty where it is nothing else."""
        if self.interval is None or self.components is None:
            return ""
        alone = "" if self.test_set else SEEDS_ALONE
        pooled_over = f"spread pooled over {self.networks} networks" if self.networks > 1 else ""
        return ", ".join(filter(None, (alone, pooled_over)))


@dataclass(frozen=True)
class Comparison:
    """Two networks: first minus second, in the unit of the metric.

    Attributes:
        interval: 95 %; None where one of them has none, then `missing` says why.
        p: not corrected for other comparisons of the table; 1 without an interval.
        paired: whether by test image; else seeds are all that an interval rests on.
    """

    mean: float
    n: tuple[int, int]
    interval: tuple[float, float] | None
    missing: str
    p: float
    paired: bool
    contrast: Contrast | None
    scale: float

    @property
    def of_scores(self) -> "Comparison":
        """The same for the metrics' distances from perfect: what errs less has the higher score."""
        interval = self.interval and (-self.interval[1], -self.interval[0])
        return replace(self, mean=-self.mean, interval=interval)

    @property
    def detectable(self) -> float | None:
        """The smallest difference that this many seeds show with power 0.8; None where there is no interval."""
        return None if self.contrast is None else self.scale * detectable(self.contrast)

    @property
    def seeds_missing(self) -> int | None:
        """How many more seeds of each would show a difference as large as the mean; None if 1,000 would not."""
        if self.contrast is None:
            return None
        needed = seeds_to_show(self.contrast, abs(self.mean) / self.scale)
        return None if needed is None else max(0, needed - min(self.n))

    def text(self, unit: str, p: float, of: int) -> str:
        """`-0.30 points [-1.44, +0.84], n = 3, p = 0.5; smallest detectable difference with 3 seeds: 1.50 points; 18 more
        seeds would show 0.30`.

        Args:
            p: corrected over `of` comparisons.
        """
        unit = f" {unit}" if unit else ""
        if self.interval is None:
            return f"{self.mean:+z.2f}{unit}, {self.missing}"
        low, high = self.interval
        seeds = str(self.n[0]) if self.n[0] == self.n[1] else f"{self.n[0]} and {self.n[1]}"
        text = f"{self.mean:+z.2f}{unit} [{low:+.2f}, {high:+.2f}], n = {seeds}, p = {self.p:.2g}"
        text += f" (Holm over {of} pairs: {p:.2g})" if of > 1 else ""
        text += "" if self.paired else f"; {SEEDS_ALONE}"
        if p <= 0.05:
            return text
        alone = " of this pair alone" if of > 1 else ""  # Holm's correction asks for more
        text += f"; smallest detectable difference{alone} with {seeds} seeds: {self.detectable:.2f}{unit}"
        missing, shown = self.seeds_missing, f"{abs(self.mean):.2f}"
        if not float(shown):
            return text
        if missing is None:
            return f"{text}; {MOST_SEEDS:,} seeds would not show {shown}"
        return f"{text}; {plural(missing, 'more seed')} would show {shown}" if missing else text


def estimates(groups: Iterable[Sequence[Run]], figure: str = "", percent: bool | None = None) -> list[Estimate]:
    """The mean of each group of runs that differ in the seed alone, with its interval.

    Spread over seeds is pooled over the groups on the same test images with the same budget and the same overrides of training,
    where a test does not contradict it; each family may have its own recipe.

    Args:
        figure: another metric than the reported one, as `top5_err`.
        percent: whether it is in percent; by default as the reported metric's label says.
    """
    groups = [tuple(group) for group in groups]
    unpooled = [_known_estimate(group, figure, percent) for group in groups]
    several = (index for index, one in enumerate(unpooled) if one.components is not None)
    result = list(unpooled)
    for members in grouped(several, lambda index: _comparable(groups[index][0])).values():
        together = pooled([part for index in members if (part := unpooled[index].components) is not None])
        ends = _limits(together)
        # One that never or always errs has no spread to pool.
        telling = sum(0 < components.mean < 1 for components in together)
        for index, components, (low, high) in zip(members, together, ends, strict=True):
            networks = telling if components.shared else 1
            result[index] = _with_limits(replace(unpooled[index], components=components, networks=networks), low, high)
    return result


def estimate_of_values(values: Sequence[float], percent: bool) -> Estimate:
    """Return the mean of values with its interval, as at a point of a curve. Raises ValueError without values."""
    one = _without_limits(values, percent)
    if one.components is None:
        return one
    [(low, high)] = _limits([one.components])
    return _with_limits(one, low, high)


def half_width_of_seeds(one: Estimate, seeds: int, runs: int | None) -> float | None:
    """Half of the 95 % interval of the difference from a mean over `runs` others that spread alike, over trainings alone.

    In the unit of the metric, as `seeds` seeds would have it; None where there is no interval.
    """
    values = _variances_of_seeds(one, seeds, runs)
    return None if values is None else one.scale * float(half_width(*values))


def p_value_of_seeds(one: Estimate, other: float, runs: int | None) -> float:
    """Two-sided p-value of no difference from `other`, a mean over `runs` others as in `half_width_of_seeds`; 1 where there is
    no interval."""
    values = _variances_of_seeds(one, one.n, runs)
    return 1.0 if values is None else float(p_value_of(np.asarray((one.mean - other) / one.scale), *values))


def _variances_of_seeds(one: Estimate, seeds: int, runs: int | None) -> tuple[Any, Any] | None:
    if one.interval is None or one.components is None:
        return None
    per_seed = one.n * (1 / seeds + (1 / runs if runs else 0))
    df = one.components.df * (seeds - 1) / (one.n - 1)
    return variances_of_seeds(one.components.seeds * per_seed, df, one.components.residual * per_seed)


def compare(first: Estimate, second: Estimate) -> Comparison:
    """The difference of two means, paired by test image where both have outcomes on the same images."""
    mean, n, scale = first.mean - second.mean, (first.n, second.n), first.scale
    components = comparable_components(first, second)
    if isinstance(components, str):
        return Comparison(mean, n, None, components, 1.0, False, None, scale)
    compared, paired = contrast(*components), components[0].by_image is not None
    half = scale * float(half_width(*variances(compared)))
    # Between rates of 0 and of 1 lies the whole scale.
    interval = max(mean - half, -scale), min(mean + half, scale)
    return Comparison(mean, n, interval, "", float(p_value(compared)), paired, compared, scale)


def comparable_components(first: Estimate, second: Estimate) -> tuple[VarianceComponents, VarianceComponents] | str:
    """Those of two means, with outcomes where these are of the same images; or in words why no interval can be given."""
    paired = bool(first.test_set) and first.test_set == second.test_set
    components = []
    for one in (first, second):
        if (missing := _without(one, paired)) or one.components is None:
            return missing
        components.append(replace(one.components, by_image=one.components.by_image if paired else None))
    if not paired and not sum(part.seeds for part in components) > 0:
        return f"{first.n} equal runs against {second.n} equal ones, no interval"
    return components[0], components[1]


def percent_of(run: Run) -> bool:
    """Whether the reported metric of a run is in percent."""
    return "%" in run.metric_label


def _without(one: Estimate, outcomes: bool) -> str:
    """Return why a number of seeds makes no interval, with outcomes of the test images or without; empty where it makes one."""
    if one.components is None:
        return one.missing
    if one.n >= FEWEST or (outcomes and one.components.shared):
        return ""
    lacking = "a pooled spread" if outcomes else "stored outcomes"
    return f"{one.n} runs, no interval without {lacking} ({FEWEST - one.n} more would do)"


def _without_limits(values: Sequence[float], percent: bool) -> Estimate:
    alone = _mean(values, percent)
    if alone.missing:
        return alone
    return replace(alone, components=components_of_rates(np.array(values, dtype=np.float64) / alone.scale))


def _mean(values: Sequence[float], percent: bool) -> Estimate:
    """Return the mean without an interval, and why there can be none; empty where there can be one."""
    scale = 100.0 if percent else 1.0
    missing = "1 run, no interval" if len(values) < 2 else ""
    if not missing and (min(values) < 0 or max(values) > scale):
        missing = f"not between 0 and {scale:g}, no interval"
    return Estimate(fmean(values), len(values), None, missing, None, "", (), scale)


def _with_limits(one: Estimate, low: float, high: float) -> Estimate:
    missing = _without(one, bool(one.test_set)) or (f"{one.n} equal runs, no interval" if np.isnan(low) else "")
    return replace(one, interval=None if missing else (one.scale * low, one.scale * high), missing=missing)


def _limits(members: Sequence[VarianceComponents]) -> list[tuple[float, float]]:
    fields = ("mean", "seeds", "images", "residual", "df", "shared", "count")
    stacked: dict[str, Any] = {
        name: np.array([getattr(one, name) for one in members], dtype=np.float64) for name in fields
    }
    together = replace(members[0], by_image=None, **stacked)
    return list(zip(*(ends.tolist() for ends in limits(together)), strict=True))


def _known_estimate(group: Sequence[Run], figure: str, percent: bool | None) -> Estimate:
    """Return the estimate of these runs, whose outcomes are read when it is first asked for."""
    first, *others = group
    known = _known.setdefault(first, {})
    key = *others, figure, percent
    if key not in known:
        known[key] = _estimate(group, figure, percent)
    return known[key]


def _estimate(group: Sequence[Run], figure: str, percent: bool | None) -> Estimate:
    name = figure or (group[0].metric or "/").split("/", 1)[1]
    scale = 100.0 if (percent_of(group[0]) if percent is None else percent) else 1.0
    figures = [number(run.part("metrics").get(f"test/{figure}")) if figure else run.value for run in group]
    members = {run: value for run, value in zip(group, figures, strict=True) if value is not None}
    alone = _mean(list(members.values()), scale == 100)
    if alone.missing:
        return alone
    rates = [value / scale for value in members.values()]
    rows, test_set, left_out = _outcomes(list(members), name, rates)
    components = (
        components_of_rates(np.array(rates, dtype=np.float64)) if rows is None else components_of_outcomes(rows)
    )
    return replace(alone, components=components, test_set=test_set, left_out=left_out)


def _outcomes(group: Sequence[Run], name: str, rates: Sequence[float]) -> tuple[Any, str, tuple[str, ...]]:
    """Errors by seed and image (n, N), the test set's checksum, and files that are left out; None where runs have none."""
    from benchmarks.records.outcomes import OUTCOMES, read_outcomes

    rows, left_out, missing, test_set = [], [], [], ""
    for run, rate in zip(group, rates, strict=True):
        try:
            outcomes = read_outcomes(run.directory)
        except ValueError as error:
            left_out.append(str(error))
            continue
        if outcomes is None:
            missing.append(f"{run.directory / OUTCOMES} is missing")
            continue
        errors = _errors(outcomes, name)
        test_set = test_set or outcomes.test_sha256
        if errors is None or len(errors) < (2 if errors.dtype == bool else FEWEST_MASKS):
            return None, "", ()
        wrong = ""
        if outcomes.test_sha256 != test_set:
            wrong = "is of another test set than the other seeds'"
        elif run.n is not None and len(outcomes) != run.n:
            wrong = f"has {len(outcomes):,} images, the run was tested on {run.n:,}"
        elif abs((mean := _mean_of(errors)) - rate) > TOLERANCE:
            wrong = f"gives {mean:.5f} for {name}, the record {rate:.5f}"
        if wrong:
            left_out.append(f"{run.directory / OUTCOMES} {wrong}")
        else:
            rows.append(errors)
    if len(rows) < len(group):
        return None, "", tuple(left_out + missing if rows or left_out else ())  # or they were made without any
    return np.stack(rows), test_set, ()


def _mean_of(errors: Any) -> float:
    """Return the mean of errors; counting takes a ninth of the time for 450 images."""
    return np.count_nonzero(errors) / len(errors) if errors.dtype == bool else float(errors.mean())


def _errors(outcomes: Any, name: str) -> Any:
    """Return for each test image its error, or its part in a score of all pixels; None if the outcomes do not tell."""
    if name in outcomes.hits:
        return ~outcomes.hits[name]
    if outcomes.pixels is None or name != "dice_err":
        return None
    true, false, missed = np.moveaxis(outcomes.pixels.astype(np.float64), 2, 0)
    overlap, size = 2 * true, 2 * true + false + missed
    there = size.sum(axis=0) > 0
    overlap, size = overlap[:, there], size[:, there]
    # A ratio of sums, linearised: its mean over images is the ratio, its spread that of the ratio (Cochran 1977, §2.11).
    ratio = overlap.sum(axis=0) / size.sum(axis=0)
    return 1 - (ratio + (overlap - ratio * size) / size.mean(axis=0)).mean(axis=1)


def _comparable(run: Run) -> str:
    """What agrees between networks whose spread over seeds may be pooled: the test, and what `ALIKE` says."""
    overrides = {key: value for key, value in run.part("overrides").items() if not key.startswith("model.")}
    budget = run.part("protocol").get("budget") or {}
    return as_key([run.test_key, budget.get("kind"), budget.get("limit"), overrides])
