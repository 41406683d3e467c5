"""Error rates of several trainings tested on the same images: what another training and other test images would change.

The outcomes of n seeds on N images are crossed: both are samples, of the trainings that could be made and of the images that
could have been tested. Their variance has two parts that are kept apart: more seeds shrink the first and never the second.

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
NODES = 200  # quantiles of a chi-square distribution over which is averaged
DRAWN = 40  # of them, where a half-width is needed for each
STEPS = 60  # of Newton's method at most; a dozen are usual
MOST_SEEDS = 1_000
KNOWN = 1e5  # degrees of freedom, as good as infinitely many


@dataclass(frozen=True)
class Parts:
    """The mean of n seeds on N images and the parts of its variance.

    Attributes:
        mean: error rate.
        seeds: variance over trainings on these images: s² of the seeds' rates / n.
        images: variance over test sets of these trainings; 0 where outcomes are not known.
        residual: variance of what is particular to one seed on one image; the true `seeds` is no smaller.
        n: seeds.
        freedom: degrees of freedom of `seeds`: n - 1, more where it is pooled.
        shared: whether the spread over seeds is pooled with other networks'.
        count: N; 0 where outcomes are not known.
        by_image: mean outcome of each image, shape (…, N), where outcomes are known.
    """

    mean: Array
    seeds: Array
    images: Array
    residual: Array
    n: int
    freedom: Array
    shared: Array
    count: Array = 0
    by_image: Array | None = None


@dataclass(frozen=True)
class Contrast:
    """A difference of two means on the same images: first minus second.

    Attributes:
        mean: of rates.
        images: variance over test sets; 0 where outcomes are not known.
        shared: whether the variances over seeds of both are multiples of one pooled variance.
    """

    first: Parts
    second: Parts
    mean: Array
    images: Array
    shared: Array


def parts_of_outcomes(outcomes: Array) -> Parts:
    """The parts by the analysis of variance of a balanced two-way layout (Searle, Casella and McCulloch 1992, §4.7).

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
    between_seeds, between_images = by_seed.var(axis=-1), by_image.var(axis=-1)
    residual = np.maximum(total - between_seeds - between_images, 0) / ((n - 1) * (images - 1))
    # Of rates near zero the difference may vanish: a quarter of what independent outcomes would have is kept.
    within = np.maximum(between_images / (images - 1) - residual, total / (4 * n * images))
    shared = np.zeros_like(mean, dtype=bool)
    return Parts(mean, between_seeds / (n - 1), within, residual, n, n - 1.0, shared, images, by_image)


def parts_of_rates(rates: Array) -> Parts:
    """The parts that seeds' error rates alone tell, shape (…, n): nothing of other test images.

    Raises:
        ValueError: fewer than two seeds.
    """
    n = rates.shape[-1]
    if n < 2:
        raise ValueError(f"two seeds are needed, got {n}")
    mean = rates.mean(axis=-1)
    zero = np.zeros_like(mean)
    return Parts(mean, rates.var(axis=-1, ddof=1) / n, zero, zero, n, n - 1.0, zero.astype(bool))


def pooled(members: Sequence[Parts]) -> list[Parts]:
    """The parts with the spread over seeds of all members, where Bartlett's test (1937) does not contradict it at 5 %.

    Pooled is the variance of a seed's rate as a share of that of one outcome, p·(1 - p): networks with more errors spread more.
    A member keeps its own spread where that is larger: with few seeds the test overlooks a network that spreads tenfold.
    One that never or always errs has none, as p·(1 - p) is 0.
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
    freedom = (n - 1) * usable
    total, count = freedom.sum(axis=0), usable.sum(axis=0)
    weight = np.maximum(total, 1)
    common = (ratio * freedom).sum(axis=0) / weight
    tested = (np.exp(logarithm) * freedom).sum(axis=0) / weight
    statistic = total * np.log(np.maximum(tested, 1e-30)) - (logarithm * freedom).sum(axis=0)
    inverse = (usable / np.maximum(n - 1, 1)).sum(axis=0) - 1 / weight
    statistic = statistic / (1 + inverse / (3 * np.maximum(count - 1, 1)))
    agree = (count > 1) & (special.chdtrc(np.maximum(count - 1, 1), statistic) >= 1 - CONFIDENCE)
    return [
        replace(
            one,
            seeds=np.where(agree, np.maximum(common * own, one.seeds), one.seeds),
            freedom=np.where(agree, total, one.freedom),
            shared=agree,
        )
        for one, own in zip(members, scale / n, strict=True)
    ]


def limits(parts: Parts) -> tuple[Array, ...]:
    """95 % limits of a mean error rate, within [0, 1]: another training and, where outcomes are known, other test images.

    The images' part is Wilson's (1927) with the number of independent outcomes that has this variance; the part of the seeds
    joins it on the logit scale, by the distances of both limits from the estimate (Zou and Donner 2008). NaN where seeds that
    agree to the digit are all that is known. Of two seeds whose spread is not pooled the limits hold too few true rates.
    """
    mean, count = np.asarray(parts.mean, dtype=np.float64), np.asarray(parts.count)
    inner = (mean > 0) & (mean < 1)
    rate = np.where(inner, mean, 0.5)
    scale = rate * (1 - rate)
    images = np.where(count > 0, np.where(parts.images > 0, parts.images, scale / np.maximum(count, 1)), 0.0)
    half = _half_width_of_mean(parts.seeds, parts.freedom, parts.residual, images)
    of_seeds = np.maximum(half**2 - normal_quantile() ** 2 * images, 0) / scale**2
    centre = special.logit(rate)
    wilson = wilson_limits(rate, np.where(count > 0, scale / np.maximum(images, 1e-300), np.inf))
    low, high = (
        special.expit(centre + sign * np.sqrt((special.logit(end) - centre) ** 2 + of_seeds))
        for sign, end in zip((-1, 1), wilson, strict=True)
    )
    # Of no error, and of nothing but errors, the seeds say nothing.
    at_end = wilson_limits(mean, np.maximum(count, 1))
    unknown = (count == 0) & (~inner | (np.asarray(parts.seeds) <= 0))
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


def contrast(first: Parts, second: Parts) -> Contrast:
    """The difference of two means; on the same test images where both have outcomes.

    Seeds are taken as independent: a number that two networks share is another initialisation in each.
    """
    images = np.zeros_like(np.asarray(first.mean, dtype=np.float64))
    if first.by_image is not None and second.by_image is not None:
        difference = first.by_image - second.by_image
        count = difference.shape[-1]
        between = difference.var(axis=-1, ddof=1) / count
        images = np.maximum(between - first.residual - second.residual, 0)
        # Where neither images nor seeds vary, other images still may: half an outcome in each cell (Agresti and Min 2005).
        images = np.where(between + first.seeds + second.seeds > 0, images, 1 / (count + 2) ** 2)
    shared = first.shared & second.shared & (first.freedom == second.freedom)
    return Contrast(first, second, first.mean - second.mean, images, shared)


def variances(compared: Contrast) -> Array:
    """Equally likely values of the variance of a difference, shape (…, 200); see `half_width`."""
    one, other = compared.first, compared.second
    images = np.asarray(compared.images, dtype=np.float64)[..., None]
    shared = variances_of_seeds(one.seeds + other.seeds, one.freedom, one.residual + other.residual)
    if np.all(compared.shared):
        return shared + images
    # Two independent chi-squares on a lattice that is the same from both sides, as 49² = 1 modulo 200.
    shuffled = (49 * np.arange(NODES) + 100) % NODES
    apart = variances_of_seeds(one.seeds, one.freedom, one.residual)
    apart = apart + variances_of_seeds(other.seeds, other.freedom, other.residual)[..., shuffled]
    return np.where(np.asarray(compared.shared)[..., None], shared, apart) + images


def half_width(values: Array, confidence: float = CONFIDENCE) -> Array:
    """Half of a generalised interval (Weerahandi 1993): h at which the mean of 2Φ(h/√v) - 1 over the variances is 95 %.

    Args:
        values: equally likely variances, shape (…, number). Of one part, s²/n · f/χ²(f), it is Student's interval.
    """
    root = np.sqrt(np.maximum(values, 1e-300))
    half = float(special.ndtri((1 + confidence) / 2)) * root.min(axis=-1)
    # The probability is concave in h, so that steps from below never go too far.
    for _ in range(STEPS):
        scaled = half[..., None] / root
        short = confidence - (2 * special.ndtr(scaled) - 1).mean(axis=-1)
        step = short / (np.exp(-(scaled**2) / 2) / root).mean(axis=-1) * np.sqrt(np.pi / 2)
        half = half + step
        if np.all(step <= 1e-9 * half):
            break
    return half


def p_value(compared: Contrast) -> Array:
    """Two-sided p-value of no difference, at which the generalised interval ends at zero; 1 where nothing is known to vary."""
    values = variances(compared)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * special.ndtr(-np.abs(compared.mean)[..., None] / np.sqrt(values)).mean(axis=-1)
    return np.where(values[..., 0] > 0, p, 1.0)


def probability_below(compared: Contrast) -> Array:
    """Probability that the true difference is below zero, given these runs and a flat prior."""
    values = np.maximum(variances(compared), 1e-300)
    return special.ndtr(-np.asarray(compared.mean)[..., None] / np.sqrt(values)).mean(axis=-1)


def detectable(compared: Contrast, seeds: int | None = None) -> float:
    """The smallest true difference that is shown with power 0.8 at two-sided 5 %, with `seeds` of each or as many as there are.

    Spread over seeds and images are taken as estimated. The chance of a significant result in the wrong direction is left out.
    """
    one, other = (_with_seeds(parts, seeds) if seeds else parts for parts in (compared.first, compared.second))
    variance = float(one.seeds) + float(other.seeds)
    freedom = float(one.freedom) if compared.shared else float(one.freedom + other.freedom)
    estimates = variance / _inverse_chi_squares(freedom).reshape(DRAWN, -1).mean(axis=1)
    halves = half_width(variances_of_seeds(estimates, freedom, one.residual + other.residual) + compared.images)
    deviation = float(np.sqrt(variance + compared.images))
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


def _with_seeds(parts: Parts, seeds: int) -> Parts:
    freedom = parts.freedom * (seeds - 1) / (parts.n - 1)
    per_seed, residual = parts.seeds * parts.n, parts.residual * parts.n
    return replace(parts, seeds=per_seed / seeds, residual=residual / seeds, freedom=freedom, n=seeds)


def variances_of_seeds(seeds: Array, freedom: Array, residual: Array = 0.0) -> Array:
    """Equally likely variances of a mean over trainings: none is smaller than what single outcomes alone give."""
    seeds, freedom = np.broadcast_arrays(np.asarray(seeds, dtype=np.float64), np.asarray(freedom, dtype=np.float64))
    factors = np.empty((*seeds.shape, NODES))
    for value in np.unique(freedom):
        factors[freedom == value] = _inverse_chi_squares(float(value))
    return np.maximum(seeds[..., None] * factors, np.asarray(residual, dtype=np.float64)[..., None])


def _half_width_of_mean(seeds: Array, freedom: Array, residual: Array, images: Array) -> Array:
    """Half of Student's 95 % interval where the seeds' variance is an estimate and the images' is known.

    The degrees of freedom are Satterthwaite's (1946) with the seeds' share in place of its square: his own are too many where
    the spread of few seeds is small by chance. Where seeds spread less than single outcomes make them, that is known too. Far
    in the tails, which corrected p-values need, this is too narrow: differences have the generalised interval.
    """
    variance = np.maximum(seeds, residual) + images
    estimated = np.where(seeds > residual, seeds, 0.0)
    together = np.minimum(freedom * variance / np.maximum(estimated, 1e-300), KNOWN)
    return special.stdtrit(together, (1 + CONFIDENCE) / 2) * np.sqrt(variance)


@cache
def _inverse_chi_squares(freedom: float) -> Array:
    """Quantiles of f / χ²(f), descending."""
    return freedom / special.chdtri(freedom, 1 - (np.arange(NODES) + 0.5) / NODES)
