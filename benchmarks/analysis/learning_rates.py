"""Which learning rate a network has in a controlled comparison: the one with the lowest validation loss."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from benchmarks.analysis.seeds import latest_by_seed
from benchmarks.records.files import read_config
from benchmarks.records.runs import Run
from benchmarks.units import as_key, grouped, number

RATE = "recipe.optimizer.lr"


@dataclass(frozen=True)
class RateTrials:
    """A network on a data set, trained at several learning rates.

    Attributes:
        runs: by rate, ascending; at each as many seeds as at any other.
        unfinished: rates that lack a seed, because a run has diverged or not ended, or at which every run has diverged.
    """

    runs: dict[float, list[Run]]
    unfinished: list[float]

    @property
    def first(self) -> Run:
        return next(iter(self.runs.values()))[0]

    @property
    def losses(self) -> dict[float, float]:
        """The validation loss at the end of training, mean over the seeds, by rate."""
        return {rate: fmean(_final_loss(run) or 0.0 for run in runs) for rate, runs in self.runs.items()}

    @property
    def best(self) -> float:
        """The rate with the lowest loss."""
        losses = self.losses
        return min(losses, key=lambda rate: losses[rate])

    @property
    def is_at_an_end(self) -> bool:
        """Whether a rate beyond those tried could be better."""
        tried = (*self.runs, *self.unfinished)
        return self.best in (min(tried), max(tried))

    @property
    def train_flops(self) -> float:
        """What these runs have cost."""
        return sum(run.train_flops or 0.0 for runs in self.runs.values() for run in runs)


def rate_trials(runs: Iterable[Run]) -> list[RateTrials]:
    """Return what was tried at two rates or more and differs in nothing else but the seed, in the order of ``runs``.

    A seed that few of the rates have is left out: the results at a rate that was found are no trial of it.
    """
    ended = [run for run in runs if _is_finished(run) or _has_diverged(run)]
    trials = []
    for members in grouped(ended, _all_but_rate_and_seed).values():
        finished = filter(_is_finished, members)
        seeds_at = {rate: latest_by_seed(same) for rate, same in grouped(finished, _rate).items()}
        rates_of = Counter(seed for by_seed in seeds_at.values() for seed in by_seed)
        tried = {seed for seed, rates in rates_of.items() if 2 * rates > max(rates_of.values())}
        by_rate = {
            rate: own
            for rate, by_seed in seeds_at.items()
            if (own := [run for seed, run in by_seed.items() if seed in tried])
        }
        if len(by_rate) > 1:
            seeds = max(map(len, by_rate.values()))
            whole = {rate: by_rate[rate] for rate in sorted(by_rate) if len(by_rate[rate]) == seeds}
            diverged = {_rate(run) for run in members if run.seed in tried and not _is_finished(run)}
            trials.append(RateTrials(whole, sorted((by_rate.keys() | diverged) - whole.keys())))
    return trials


def at_the_best_rates(networks: Iterable[tuple[Run, ...]]) -> list[tuple[Run, ...]]:
    """Return the networks, each with its seeds; of those that differ in nothing but the rate the one with the lowest loss.

    Where no validation loss is known, all of them stay.
    """
    kept = []
    for same in grouped(networks, lambda group: _all_but_rate(group[0])).values():
        losses = [_mean_loss(group) for group in same] if len(same) > 1 else []
        known = [loss for loss in losses if loss is not None]
        kept += [same[losses.index(min(known))]] if known else same
    return kept


def _mean_loss(group: Iterable[Run]) -> float | None:
    """Return the validation loss at the end of training, mean over the seeds; None where one has none that can be read."""
    try:
        losses = [_final_loss(run) for run in group]
    except (OSError, ValueError):
        return None
    known = [loss for loss in losses if loss is not None]
    return fmean(known) if len(known) == len(losses) else None


def _all_but_rate(run: Run) -> str:
    others = {key: value for key, value in run.part("overrides").items() if key != RATE}
    same = (run.data, run.name, run.record["recipe"], others, run.conditions)
    return as_key(same)


def _all_but_rate_and_seed(run: Run) -> str:
    others = {key: value for key, value in run.part("overrides").items() if key != RATE}
    # Not the test and its protocol, which a run that diverged has not got to.
    conditions = [run.conditions[key] for key in ("data", "precision", "code", "own code")]
    return as_key([run.data, run.network, run.record["recipe"], others, conditions])


def _rate(run: Run) -> float:
    """Return a run's learning rate. The record names what departs from the recipe alone; the configuration has all values."""
    return float(read_config(run.directory)["recipe"]["optimizer"]["lr"])


def without_a_loss(runs: Iterable[Run]) -> int:
    """Return how many finished runs have no validation loss at the end of training, as those of detectors."""
    return sum(run.value is not None and _final_loss(run) is None for run in runs)


def _is_finished(run: Run) -> bool:
    return run.value is not None and _final_loss(run) is not None


def _has_diverged(run: Run) -> bool:
    """Whether its loss became NaN or infinite: `training/finite_loss.py` says it so."""
    return run.status == "failed" and re.match("(training|validation) loss is ", run.error or "") is not None


def _final_loss(run: Run) -> float | None:
    return number(run.history[-1].get("val/loss")) if run.history else None
