"""Error rates of several trainings tested on the same images: what another training and other test images would change.

The outcomes of n seeds on N images are crossed: both are samples, of the trainings that could be made and of the images that
could have been tested. Their variance has two components that are kept apart: more seeds shrink the first and never the second.

Rates are in [0, 1]. Every function takes arrays with any leading axes, so that a simulation calls what a table would.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from benchmarks.records.lazy import np, special

Array = Any  # of floats, or one of them

CONFIDENCE = 0.95  # two-sided
FEWEST = 3  # seeds of an interval; two, where their spread is pooled with other networks'
POWER = 0.8
NODES = 48  # values of a chi-square variable over which is averaged, tails included
FEW_NODES = 16  # the same without the tails
DRAWN = 64  # estimates of the spreads that may come out
PLASTIC = 1.2207440846057596  # the real root of x⁴ = x + 1
STEPS = 60  # of Newton's method at most; a dozen are usual
MOST_SEEDS = 1_000
KNOWN = 1e5  # degrees of freedom, as good as infinitely many


@dataclass(frozen=True)
class VarianceComponents:
    """The mean of n seeds on N images and the components of its variance.

    Attributes:
        mean: error rate.
        seeds: variance over trainings on these images: s² of the seeds' rates / n.
        images: variance over test sets of these trainings; 0 where outcomes are not known.
        residual: variance of what is particular to one seed on one image; the true `seeds` is no smaller.
        n: seeds.
        df: degrees of freedom of `seeds`: n - 1, more where it is pooled.
        shared: whether the spread over seeds is pooled with other networks'.
        count: N; 0 where outcomes are not known.
        by_image: mean outcome of each image, shape (…, N), where outcomes are known.
        common: the spread that is shared, as `pooled` measures it, which tells one pool from another; 0 where none is.
    """

    mean: Array
    seeds: Array
    images: Array
    residual: Array
    n: int
    df: Array
    shared: Array
    count: Array = 0
    by_image: Array | None = None
    common: Array = 0.0


@dataclass(frozen=True)
class Contrast:
    """A difference of two means on the same images: first minus second.

    Attributes:
        mean: of rates.
        images: variance over test sets; 0 where outcomes are not known.
        shared: whether the variances over seeds of both are multiples of one pooled variance.
    """

    first: VarianceComponents
    second: VarianceComponents
    mean: Array
    images: Array
    shared: Array


def components_of_outcomes(outcomes: Array) -> VarianceComponents:
    """The components by the analysis of variance of a balanced two-way layout (Searle, Casella and McCulloch 1992, §4.7).

    Args:
        outcomes: shape (…, n, N), 1 for an error; the mean of a row is that seed's error rate.

    Raises:
        ValueError: fewer than two seeds or images.
    """
    n, images = outcomes.shape[-2:]
    if n < 2 or images < 2:
        raise ValueError(f"two seeds and two images are needed, got {n} and {images}")
    by_seed = outcomes.mean(axis=-1, dtype=np.float64)
    by_image = outcomes.mean(axis=-2, dtype=np.float64)
    mean = by_seed.mean(axis=-1)
    squares = mean if outcomes.dtype == bool else np.square(outcomes, dtype=np.float64).mean(axis=(-2, -1))
    total = squares - mean**2
    between_seeds, between_images = _variance(by_seed), by_image.var(axis=-1)
    residual = np.maximum(total - between_seeds - between_images, 0) / ((n - 1) * (images - 1))
    # Of rates near zero the difference may vanish: a quarter of what independent outcomes would have is kept.
    within = np.maximum(between_images / (images - 1) - residual, total / (4 * n * images))
    shared = np.zeros_like(mean, dtype=bool)
    return VarianceComponents(mean, between_seeds / (n - 1), within, residual, n, n - 1.0, shared, images, by_image)


def _variance(values: Array) -> Array:
    """Return the mean square about the mean, along the last axis: 0 of equal values, whose mean may differ in its last bit."""
    return np.where(values.min(axis=-1) == values.max(axis=-1), 0.0, values.var(axis=-1, dtype=np.float64))


def components_of_rates(rates: Array) -> VarianceComponents:
    """The components that seeds' error rates alone tell, shape (…, n): nothing of other test images.

    Raises:
        ValueError: fewer than two seeds.
    """
    n = rates.shape[-1]
    if n < 2:
        raise ValueError(f"two seeds are needed, got {n}")
    mean = rates.mean(axis=-1)
    zero = np.zeros_like(mean)
    return VarianceComponents(mean, _variance(rates) / (n - 1), zero, zero, n, n - 1.0, zero.astype(bool))


def pooled(members: Sequence[VarianceComponents]) -> list[VarianceComponents]:
    """The components with the spread over seeds of all members, where Bartlett's test (1937) does not contradict it at 5 %.

    Pooled is the variance of a seed's rate as a share of that of one outcome, p·(1 - p): networks with more errors spread more.
    With few seeds that overlooks a network that spreads tenfold. So a member keeps its own spread where that is larger, and its
    own degrees of freedom, too, where an F test at 5 % says that it spreads more than the others. In the others' pooled spread
    it counts all the same, which makes that larger: docs/statistics.md has what this comes to.
    One that never or always errs has no spread, as p·(1 - p) is 0.
    """
    shape = (-1,) + (1,) * np.ndim(members[0].mean)
    scale = np.stack([one.mean * (1 - one.mean) for one in members])
    n = np.array([one.n for one in members]).reshape(shape)
    usable = scale > 0
    divisor = np.where(usable, scale, 1) / n
    ratio = np.stack([one.seeds for one in members]) / divisor
    # Equal seeds have no logarithm: a tenth of what single outcomes give them is kept.
    logarithm = np.log(
        np.maximum(np.maximum(ratio, 0.1 * np.stack([one.residual for one in members]) / divisor), 1e-30)
    )
    own_df = (n - 1) * usable
    total, count = own_df.sum(axis=0), usable.sum(axis=0)
    weight = np.maximum(total, 1)
    common = (ratio * own_df).sum(axis=0) / weight
    tested = np.exp(logarithm)
    mean = (tested * own_df).sum(axis=0) / weight
    statistic = total * np.log(np.maximum(mean, 1e-30)) - (logarithm * own_df).sum(axis=0)
    inverse = (usable / np.maximum(n - 1, 1)).sum(axis=0) - 1 / weight
    statistic = statistic / (1 + inverse / (3 * np.maximum(count - 1, 1)))
    agree = (count > 1) & (special.chdtrc(np.maximum(count - 1, 1), statistic) >= 1 - CONFIDENCE)
    result = []
    for one, own, square, alone in zip(members, scale / n, tested, own_df, strict=True):
        shared = agree & ~_spreads_more(square, alone, mean, total)
        seeds = np.where(shared, np.maximum(common * own, one.seeds), one.seeds)
        df = np.where(shared, total, one.df)
        result.append(replace(one, seeds=seeds, df=df, shared=shared, common=np.where(shared, common, 0.0)))
    return result


def _spreads_more(own: Array, df: Array, common: Array, total: Array) -> Array:
    """Whether a member's mean square contradicts that of the others at 5 %, given the pooled one, by an F test of one side."""
    others = np.maximum(total - df, 1)
    beside = np.maximum(total * common - df * own, 1e-300) / others
    return special.fdtrc(np.maximum(df, 1), others, own / beside) < 1 - CONFIDENCE


def limits(components: VarianceComponents) -> tuple[Array, ...]:
    """95 % limits of a mean error rate, within [0, 1]: another training and, where outcomes are known, other test images.

    The images' part is Wilson's (1927) with the number of independent outcomes that has this variance; the part of the seeds
    joins it on the logit scale, by the distances of both limits from the estimate (Zou and Donner 2008). NaN where seeds that
    agree to the digit are all that is known. Of two seeds whose spread is not pooled the limits hold too few true rates.
    """
    mean, count = np.asarray(components.mean, dtype=np.float64), np.asarray(components.count)
    inner = (mean > 0) & (mean < 1)
    rate = np.where(inner, mean, 0.5)
    scale = rate * (1 - rate)
    images = np.where(count > 0, np.where(components.images > 0, components.images, scale / np.maximum(count, 1)), 0.0)
    half = _half_width_of_mean(components.seeds, components.df, components.residual, images)
    of_seeds = np.maximum(half**2 - normal_quantile() ** 2 * images, 0) / scale**2
    centre = special.logit(rate)
    wilson = wilson_limits(rate, np.where(count > 0, scale / np.maximum(images, 1e-300), np.inf))
    low, high = (
        special.expit(centre + sign * np.sqrt((special.logit(end) - centre) ** 2 + of_seeds))
        for sign, end in zip((-1, 1), wilson, strict=True)
    )
    # Of no error, and of nothing but errors, the seeds say nothing.
    at_end = wilson_limits(mean, np.maximum(count, 1))
    unknown = (count == 0) & (~inner | (np.asarray(components.seeds) <= 0))
    return tuple(
        np.where(unknown, np.nan, np.where(inner, within, end)) for within, end in zip((low, high), at_end, strict=True)
    )


def wilson_limits(rate: Array, count: Array) -> tuple[Array, Array]:
    """95 % limits of an error rate of `count` independent outcomes, which need be no whole number (Wilson 1927)."""
    z2 = normal_quantile() ** 2 / count
    centre = (rate + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (rate * (1 - rate) + z2 / 4)) / (1 + z2)
    # At the ends the formula is exact on paper and off by a bit in binary.
    return np.where(rate <= 0, 0.0, centre - half), np.where(rate >= 1, 1.0, centre + half)


def contrast(first: VarianceComponents, second: VarianceComponents) -> Contrast:
    """The difference of two means; on the same test images where both have outcomes.

    Seeds are taken as independent: a number that two networks share is another initialisation in each.
    """
    images = np.zeros_like(np.asarray(first.mean, dtype=np.float64))
    if first.by_image is not None and second.by_image is not None:
        difference = first.by_image - second.by_image
        count = difference.shape[-1]
        between = _variance(difference) / (count - 1)
        images = np.maximum(between - first.residual - second.residual, 0)
        # Where neither images nor seeds vary, other images still may: half an outcome in each cell (Agresti and Min 2005).
        images = np.where(between + first.seeds + second.seeds > 0, images, 1 / (count + 2) ** 2)
    shared = first.shared & second.shared & (first.df == second.df) & (first.common == second.common)
    return Contrast(first, second, first.mean - second.mean, images, shared)


def variances(compared: Contrast, tails: bool = True) -> tuple[Array, Array]:
    """Values of the variance of a difference, shape (…, number), and how likely each is; see `half_width`.

    Args:
        tails: as a p-value that is to be corrected needs them; without them a half-width comes out up to 0.2 % smaller, in a
            ninth of the time.
    """
    one, other, shared = compared.first, compared.second, np.asarray(compared.shared)
    images = np.asarray(compared.images, dtype=np.float64)[..., None]
    # Multiples of one variance are one part, which stands for the first network's.
    seeds, residual = one.seeds + shared * other.seeds, one.residual + shared * other.residual
    first, of_first = variances_of_seeds(seeds, one.df, residual, tails)
    if np.all(shared):
        return first + images, of_first
    second, of_second = variances_of_seeds(~shared * other.seeds, other.df, ~shared * other.residual, tails)
    return _of_pairs(np.add, first, second) + images, _of_pairs(np.multiply, of_first, of_second)


def half_width(values: Array, weights: Array, confidence: float = CONFIDENCE) -> Array:
    """Half of a generalised interval (Weerahandi 1993): h at which the mean of 2Φ(h/√v) - 1 over the variances is 95 %.

    Args:
        values: variances, shape (…, number). Of one part, s²/n · f/χ²(f), it is Student's interval.
        weights: how likely each is, of the same shape.
    """
    root = np.sqrt(np.maximum(values, 1e-300))
    half = float(special.ndtri((1 + confidence) / 2)) * root.min(axis=-1)
    # The probability is concave in h, so that steps from below never go too far.
    for _ in range(STEPS):
        scaled = half[..., None] / root
        short = confidence - ((2 * special.ndtr(scaled) - 1) * weights).sum(axis=-1)
        step = short / (np.exp(-(scaled**2) / 2) / root * weights).sum(axis=-1) * np.sqrt(np.pi / 2)
        half = half + step
        if np.all(step <= 1e-9 * half):
            break
    return half


def p_value(compared: Contrast) -> Array:
    """Two-sided p-value of no difference, at which the generalised interval ends at zero; 1 where nothing is known to vary."""
    return p_value_of(compared.mean, *variances(compared))


def p_value_of(mean: Array, values: Array, weights: Array) -> Array:
    """The same of a difference with these variances, as `half_width` takes them."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * (special.ndtr(-np.abs(mean)[..., None] / np.sqrt(values)) * weights).sum(axis=-1)
    return np.where(values[..., 0] > 0, p, 1.0)


def probability_below(compared: Contrast) -> Array:
    """Probability that the true difference is below zero, given these runs and a flat prior."""
    values, weights = variances(compared)
    deviations = np.sqrt(np.maximum(values, 1e-300))
    return (special.ndtr(-np.asarray(compared.mean)[..., None] / deviations) * weights).sum(axis=-1)


def detectable(compared: Contrast, seeds: int | None = None) -> float:
    """The smallest true difference that is shown with power 0.8 at two-sided 5 %, with `seeds` of each or as many as there are.

    Spread over seeds and images are taken as estimated. The chance of a significant result in the wrong direction is left out,
    and that of other networks' spreads to be pooled or not.
    """
    if seeds:
        first, second = (_with_seeds(components, seeds) for components in (compared.first, compared.second))
        compared = replace(compared, first=first, second=second)
    halves = half_width(*variances(_planned(compared), tails=False))
    deviation = float(np.sqrt(compared.first.seeds + compared.second.seeds + compared.images))
    low, high = 0.0, float(halves.max()) + 3 * deviation
    for _ in range(50):
        middle = (low + high) / 2
        shown = special.ndtr((middle - halves) / deviation).mean() if deviation else 1.0
        low, high = (low, middle) if shown >= POWER else (middle, high)
    return high


def seeds_to_show(compared: Contrast, difference: float) -> int | None:
    """Return how many seeds of each network show `difference` with power 0.8; None above 1,000 or if it takes other images."""
    if difference <= detectable(compared, MOST_SEEDS):
        return None
    numbers = range(2, MOST_SEEDS + 1)
    return numbers[bisect_left(numbers, True, key=lambda seeds: detectable(compared, seeds) <= difference)]


def _with_seeds(components: VarianceComponents, seeds: int) -> VarianceComponents:
    df = components.df * (seeds - 1) / (components.n - 1)
    per_seed, residual = components.seeds * components.n, components.residual * components.n
    return replace(components, seeds=per_seed / seeds, residual=residual / seeds, df=df, n=seeds)


def _planned(compared: Contrast) -> Contrast:
    """The difference with equally likely estimates of its spreads over seeds, as `pooled` would make them, shape (64,)."""
    networks = compared.first, compared.second
    if not compared.shared:
        first, second = (
            replace(one, seeds=one.seeds * _mean_squares(axis, float(one.df))) for axis, one in enumerate(networks)
        )
        return replace(compared, first=first, second=second, shared=np.zeros(DRAWN, dtype=bool))
    total, degrees = float(compared.first.df), [one.n - 1 for one in networks]
    own = [_mean_squares(axis, df) for axis, df in enumerate(degrees)]
    squares = sum(df * values for df, values in zip(degrees, own, strict=True))
    if total > sum(degrees):
        squares = squares + (total - sum(degrees)) * _mean_squares(2, total - sum(degrees))
    common = squares / max(total, sum(degrees))
    planned = []
    for one, alone, values in zip(networks, degrees, own, strict=True):
        shared = ~_spreads_more(values, alone, common, total)
        seeds = one.seeds * np.maximum(common, values)
        planned.append(replace(one, seeds=seeds, df=np.where(shared, total, alone), shared=shared))
    first, second = planned
    return replace(compared, first=first, second=second, shared=first.shared & second.shared)


@cache
def _mean_squares(axis: int, df: float) -> Array:
    """Equally likely values of χ²(f) / f, evenly spread with those of the two other axes (Roberts 2018, sequence R3)."""
    places = (0.5 + np.arange(1, DRAWN + 1) / PLASTIC ** (axis + 1)) % 1
    return special.chdtri(df, places) / df


@cache
def normal_quantile() -> float:
    """The normal deviate that 95 % lie within."""
    return float(special.ndtri((1 + CONFIDENCE) / 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a table's comparisons, adjusted so that the chance of any false claim is bounded (Holm 1979); same order."""
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def variances_of_seeds(seeds: Array, df: Array, residual: Array = 0.0, tails: bool = True) -> tuple[Array, Array]:
    """Variances of a mean over trainings, shape (…, number), and how likely each is: no less than what single outcomes give."""
    seeds, df = np.broadcast_arrays(np.asarray(seeds, dtype=np.float64), np.asarray(df, dtype=np.float64))
    factors, weights = np.empty((2, *seeds.shape, NODES if tails else FEW_NODES))
    for value in np.unique(df):
        factors[df == value], weights[df == value] = _inverse_chi_squares(float(value), tails)
    return np.maximum(seeds[..., None] * factors, np.asarray(residual, dtype=np.float64)[..., None]), weights


def _of_pairs(operator: Any, first: Array, second: Array) -> Array:
    """Return the operator's results for all pairs of values along the last axes, in one axis."""
    pairs = operator(first[..., :, None], second[..., None, :])
    return pairs.reshape(*pairs.shape[:-2], -1)


def _half_width_of_mean(seeds: Array, df: Array, residual: Array, images: Array) -> Array:
    """Half of Student's 95 % interval where the seeds' variance is an estimate and the images' is known.

    The degrees of freedom are Satterthwaite's (1946) with the seeds' share in place of its square: his own are too many where
    the spread of few seeds is small by chance. Where seeds spread less than single outcomes make them, that is known too. Far
    in the tails, which corrected p-values need, this is too narrow: differences have the generalised interval.
    """
    variance = np.maximum(seeds, residual) + images
    estimated = np.where(seeds > residual, seeds, 0.0)
    together = np.minimum(df * variance / np.maximum(estimated, 1e-300), KNOWN)
    return special.stdtrit(together, (1 + CONFIDENCE) / 2) * np.sqrt(variance)


@cache
def _inverse_chi_squares(df: float, tails: bool) -> tuple[Array, Array]:
    """Values of f / χ²(f), descending, and how likely each is.

    They are evenly spaced in the logarithm of χ², where the density vanishes at both ends and the trapezoidal rule converges
    exponentially (Trefethen and Weideman 2014).
    """
    outside, number = (1e-13, NODES) if tails else (1e-4, FEW_NODES)
    lowest, highest = np.log(np.maximum(special.chdtri(df, [1 - outside, outside]), 1e-300))
    logarithm = np.linspace(lowest, highest, number)
    density = df / 2 * logarithm - np.exp(logarithm) / 2
    weights = np.exp(density - density.max())
    return df / np.exp(logarithm), weights / weights.sum()
