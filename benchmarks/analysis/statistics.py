"""What seeds can show, and what they cannot: intervals, paired differences, corrections for many comparisons, power.

Two errors are kept apart. The spread over seeds says how another training would do on the same test set; the sampling error of
the test set says how the same network would do on other images. Seeds shrink the first and never the second.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

# SciPy and numpy are imported where they are used: what reads records starts in under a second.

CONFIDENCE = 0.95  # two-sided
POWER = 0.8
EXACT_UP_TO = 20  # differences: 2^20 signs; beyond, a sample of them
SAMPLED_SIGNS = 99_999
MOST_SEEDS = 10_000
FEWEST = 6  # pairs with which `sign_flip_p` can fall below 5 %


def t_quantile(freedom: int) -> float:
    """Student's t that 95 % of the distribution lie within, on both sides, at `freedom` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean over seeds (Student 1908), in the unit of `values`.

    None of one run, and of runs that agree to the digit: they have no spread to judge by. Raises ValueError without values.
    """
    mean, n, spread = fmean(_some(values)), len(values), _spread(values)
    if spread == 0:
        return None
    half = t_quantile(n - 1) * spread / math.sqrt(n)
    return mean - half, mean + half


def without_interval(n: int) -> str:
    """Why `mean_interval` of `n` runs is None, in words."""
    return "1 run, no interval" if n == 1 else f"{n} equal runs, no interval"


def probability_below(values: Sequence[float]) -> float | None:
    """Probability that the true mean is below zero, given `values` and a flat prior: Student's t at -mean / standard error.

    None where `mean_interval` is None. Raises ValueError without values.
    """
    from scipy.special import stdtr

    mean, n, spread = fmean(_some(values)), len(values), _spread(values)
    if spread == 0:
        return None
    return float(stdtr(n - 1, -mean * math.sqrt(n) / spread))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of paired differences: the part of all sign patterns whose mean is at least as far from zero.

    Exact for up to 20 pairs (Fisher 1935, §21). More pairs draw 99,999 patterns at random and count the observed one among
    them, so that p is never zero (Phipson and Smyth 2010, eq. 2). Raises ValueError without differences.
    """
    import numpy as np

    values = np.abs(np.asarray(_some(differences), dtype=np.float64))
    # Sums that are equal on paper differ in the last bits.
    reached = abs(math.fsum(differences)) - 1e-9 * float(values.sum())
    if len(values) <= EXACT_UP_TO:
        sums = values[:1]  # the other sign of the first gives the same distances
        for value in values[1:]:
            sums = np.concatenate((sums + value, sums - value))
        return float(np.mean(np.abs(sums) >= reached))
    signs = np.random.default_rng(0).integers(0, 2, (SAMPLED_SIGNS, len(values)), dtype=np.int8)
    sums = (2.0 * signs - 1.0) @ values
    return (1 + int(np.sum(np.abs(sums) >= reached))) / (1 + SAMPLED_SIGNS)


def smallest_p(n: int) -> float:
    """The smallest p-value that `n` pairs can have in `sign_flip_p`."""
    return 2.0 ** (1 - n)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a table's comparisons, adjusted so that the chance of any false claim is bounded (Holm 1979); same order."""
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def wilson_interval(errors: int, images: int) -> tuple[float, float]:
    """95 % interval of an error rate in [0, 1] from `errors` of `images` (Wilson 1927): the sampling of the test set alone.

    For one network. Networks that were tested on the same images must not be pooled: their errors are not independent.
    Raises ValueError unless 0 ≤ errors ≤ images and images ≥ 1.
    """
    if images < 1 or not 0 <= errors <= images:
        raise ValueError(f"errors are between 0 and the number of images, got {errors} of {images}")
    z2 = _normal_quantile() ** 2
    rate = errors / images
    centre = (rate + z2 / (2 * images)) / (1 + z2 / images)
    half = math.sqrt(z2 * (rate * (1 - rate) / images + z2 / (4 * images**2))) / (1 + z2 / images)
    # At the ends the formula is exact on paper and off by a bit in binary.
    return (0.0 if errors == 0 else centre - half), (1.0 if errors == images else centre + half)


def sampling_error(rate: float, images: int) -> float:
    """Binomial standard error of an error rate in [0, 1] on `images`; of a mean over seeds, which share the images, its bound.

    Raises ValueError for a rate outside [0, 1] or without images.
    """
    if images < 1 or not 0 <= rate <= 1:
        raise ValueError(f"an error rate in [0, 1] and at least one image are needed, got {rate} and {images}")
    return math.sqrt(rate * (1 - rate) / images)


def detectable_difference(spread: float, n: int) -> float | None:
    """The smallest true difference that `n` paired seeds show with power 0.8 at two-sided 5 % (paired t-test; Cohen 1988, §2).

    Args:
        spread: standard deviation of the paired differences; of two unpaired sets of n runs √(s₁² + s₂²) is close.
        n: pairs; None comes back for fewer than two.
    """
    from scipy.special import nctdtrinc

    if n < 2:
        return None
    # The chance of a significant result in the wrong direction is left out: under 1e-6 at this power.
    return float(nctdtrinc(n - 1, 1 - POWER, t_quantile(n - 1))) * spread / math.sqrt(n)


def seeds_to_show(difference: float, spread: float) -> int | None:
    """How many paired seeds show `difference` with power 0.8 at two-sided 5 %; None above 10,000, as for no difference."""
    low, high = 1, 2
    while not _shows(difference, spread, high):
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _shows(difference, spread, middle) else (middle, high)
    return high


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same seeds: first minus second.

    Attributes:
        differences: by seed, in the order of the seeds.
        interval: of the mean difference, 95 %; None as of `mean_interval`.
        p: of `sign_flip_p`, not corrected for other comparisons of the table.
        detectable: the smallest difference that this many seeds show; None where there is no interval.
    """

    differences: dict[int, float]
    mean: float
    interval: tuple[float, float] | None
    p: float
    detectable: float | None

    @property
    def n(self) -> int:
        return len(self.differences)

    @property
    def seeds_missing(self) -> int | None:
        """How many more seeds would show a difference as large as the mean, by the t-test and, at best, in `p`; 0 if these do.

        None if no number is in sight.
        """
        if self.interval is None:
            return None
        needed = seeds_to_show(self.mean, stdev(self.differences.values()))
        return None if needed is None else max(0, max(needed, FEWEST) - self.n)

    def text(self, unit: str = "points") -> str:
        """`-0.30 points [-1.44, +0.84], n = 3, p = 0.5; 3 seeds show nothing under 1.50 points; 18 more would show 0.30`."""
        unit = f" {unit}" if unit else ""
        if self.interval is None or self.detectable is None:
            return f"{self.mean:+.2f}{unit}, {without_interval(self.n)}"
        low, high = self.interval
        lowest = f" ({self.n} seeds give no lower one)" if self.p <= smallest_p(self.n) else ""
        text = f"{self.mean:+.2f}{unit} [{low:+.2f}, {high:+.2f}], n = {self.n}, p = {self.p:.2g}{lowest}"
        if not low <= 0 <= high:
            return text
        text += f"; {self.n} seeds show nothing under {self.detectable:.2f}{unit}"
        missing = self.seeds_missing
        return f"{text}; {missing} more would show {abs(self.mean):.2f}" if missing else text


def compare(first: Mapping[int, float], second: Mapping[int, float]) -> Comparison:
    """Compare two networks, each given as its results by seed, on the seeds that both have.

    Raises ValueError when they share no seed.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise ValueError(f"no seed in common: {sorted(first)} and {sorted(second)}")
    differences = {seed: first[seed] - second[seed] for seed in seeds}
    values = list(differences.values())
    interval = mean_interval(values)
    detectable = None if interval is None else detectable_difference(stdev(values), len(values))
    return Comparison(differences, fmean(values), interval, sign_flip_p(values), detectable)


def _shows(difference: float, spread: float, n: int) -> bool:
    detectable = detectable_difference(spread, n)
    return difference != 0 and detectable is not None and abs(difference) >= detectable


def _spread(values: Sequence[float]) -> float:
    spread = stdev(values) if len(values) > 1 else 0.0
    # Values that are equal on paper differ in the last bits.
    return 0.0 if spread <= 1e-9 * max(map(abs, values)) else spread


def _normal_quantile() -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + CONFIDENCE) / 2))


def _some(values: Sequence[float]) -> Sequence[float]:
    if not values:
        raise ValueError("at least one value is needed")
    return values
