"""Runs that differ in nothing but the seed: groups, means, labels, and baselines beside them."""

import hashlib
import json
import math
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from benchmarks.analysis.estimates import Estimate, estimates
from benchmarks.analysis.published import FIGURES
from benchmarks.records.runs import Run, overrides_text
from benchmarks.units import MISSING, as_key, grouped, is_score, number, reported_text


@dataclass(frozen=True, eq=False)
class SeedGroup:
    """Finished runs that differ in nothing but the seed."""

    runs: tuple[Run, ...]
    estimate: Estimate

    @property
    def mean(self) -> float:
        return self.estimate.mean

    @property
    def std(self) -> float:
        """Sample standard deviation (n - 1 in the denominator) of the reported metric; NaN of a single run."""
        values = [run.value for run in self.runs if run.value is not None]
        if len(values) < 2:
            return math.nan
        return math.dist(values, [fmean(values)] * len(values)) / math.sqrt(len(values) - 1)

    @property
    def text(self) -> str:
        """The mean as people know the metric: `1.85 ± 0.21 %`, and of 100 − Dice `Dice 93.48 ± 0.21 %`."""
        return reported_text(self.mean, self.runs[0].metric_label, self.std)

    @property
    def interval_text(self) -> str:
        """`[1.71, 1.99]`, around the mean of `text`, or that there is none."""
        if self.estimate.interval is None:
            return MISSING
        low, high = self.estimate.interval
        shown = (100 - high, 100 - low) if is_score(self.runs[0].metric_label) else (low, high)
        return replace(self.estimate, interval=shown).interval_text

    @property
    def seeds_text(self) -> str:
        return f"mean of {len(self.runs)} seeds"

    @property
    def sampling_text(self) -> str:
        """Standard error that the choice of test images adds to an interval of the seeds alone; empty elsewhere."""
        run = self.runs[0]
        # Of other tasks nothing is known: pixels of one image are not independent.
        in_percent = run.record.get("task") == "classification" and "%" in run.metric_label
        if self.estimate.test_set or not in_percent or not run.n:
            return ""
        rate = min(1.0, max(0.0, self.mean / 100))
        return f"± {100 * math.sqrt(rate * (1 - rate) / run.n):.2f}"


def seed_groups(runs: Iterable[Run]) -> list[SeedGroup]:
    """The groups of runs that may be averaged, in the order of `runs`; one seed alone is never a group.

    Runs belong together when configuration, protocol, number of test images, data checksum, precision and training code
    agree. Of two folders with the same seed the one started last counts.
    """
    groups = [members for members in same_but_seed(runs) if len(members) > 1]
    return [SeedGroup(members, estimate) for members, estimate in zip(groups, estimates(groups), strict=True)]


def same_but_seed(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    """Return the finished runs in groups that differ in the seed alone, by seed; single runs too."""
    finished = grouped((run for run in runs if run.value is not None), lambda run: run.all_but_seed)
    return [tuple(latest_by_seed(members).values()) for members in finished.values()]


def latest_by_seed(runs: Iterable[Run]) -> dict[int, Run]:
    """Return the runs by seed, ascending; of several of a seed the one that was started last."""
    in_order = sorted(runs, key=lambda run: (run.seed, str(run.record.get("started"))))
    return {run.seed: run for run in in_order}


def shared_overrides(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the overrides that all of several runs have; none of a single run, or of none."""
    first, *others = [run.part("overrides") for run in runs] or [{}]
    return {
        key: value for key, value in first.items() if others and all((key, value) in other.items() for other in others)
    }


def short_labels(runs: Sequence[Run], *, seeds: bool = True, said: Container[str] = ()) -> list[str]:
    """A label for each run, no longer than telling these runs apart needs.

    Overrides are always said but those of `said`, which are said elsewhere; the recipe where a model has more than one; the
    seed, unless `seeds` is False, where there is more than one.
    """
    recipes: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        recipes.setdefault((run.data, run.name), set()).add(run.record["recipe"])
    several_seeds = seeds and len({run.seed for run in runs}) > 1
    labels = []
    for run in runs:
        recipe = run.record["recipe"] if len(recipes[run.data, run.name]) > 1 else ""
        seed = f"seed {run.seed}" if several_seeds else ""
        own = overrides_text(run.part("overrides"), but=said)
        labels.append(" · ".join(filter(None, (run.name, recipe, own, seed))))
    return labels if seeds else _told_apart(labels, runs)


def _told_apart(labels: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Labels of groups, with the conditions in which groups of the same name on the same data differ."""
    named = grouped(zip(labels, runs, strict=True), lambda one: (one[0], one[1].data))
    groups = [[run for _, run in same] for same in named.values()]
    notes = {run: note for same in groups for run, note in zip(same, differing_conditions(same), strict=True)}
    return [
        f"{label} ({', '.join(notes[run])})" if notes[run] else label for label, run in zip(labels, runs, strict=True)
    ]


def differing_conditions(runs: Sequence[Run]) -> list[list[str]]:
    """Return for each run the `conditions` in which these runs differ, as `code 1a2b3c4`; empty texts for a single run.

    The configuration is named, too, where some runs differ in it alone, or in it and the seed.
    """
    conditions = [run.conditions for run in runs]
    others = [as_key([run.network, run.recipe, own]) for run, own in zip(runs, conditions, strict=True)]
    if len({*zip(others, (run.configuration for run in runs), strict=True)}) > len({*others}):
        conditions = [own | {"configuration": run.configuration} for run, own in zip(runs, conditions, strict=True)]
    differing = {key for own in conditions for key, value in own.items() if value != conditions[0][key]}
    return [[f"{key} {short_condition(own[key])}" for key in own if key in differing] for own in conditions]


def short_condition(value: Any) -> str:
    """Return a condition as it is where it is short, else the first digits of its hash."""
    if value in (None, ""):
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if len(text) <= 12:
        return text
    return text[:7] if re.fullmatch(r"[0-9a-f]{64}", text) else hashlib.sha256(text.encode()).hexdigest()[:7]


def baseline_names(key: str, metrics: Container[str] = ()) -> tuple[str, str]:
    """Method and metric of a baseline's key: `otsu_dice` is ("Otsu", "dice"), `otsu_mask_ap` of the metric mask_ap likewise.

    metrics: those that are known; of none of them the metric is the last word.
    """
    words = key.split("_")
    known = (place for place in range(1, len(words)) if "_".join(words[place:]) in metrics)
    place = next(known, len(words) - 1)
    method, metric = "_".join(words[:place]), "_".join(words[place:])
    return (method.replace("_", " ").capitalize(), metric) if method else (key, "")


@dataclass(frozen=True)
class Baseline:
    """A simple method's figure on a data set's test set, and the finished nets' figures of the same metric."""

    data: str
    method: str
    metric: str
    value: float
    nets: tuple[tuple[str, float], ...]

    @property
    def title(self) -> str:
        """The metric as the tables call it: Dice, mask AP50."""
        return FIGURES[self.metric].title if self.metric in FIGURES else self.metric.replace("_", " ").capitalize()


def baseline_comparisons(runs: Sequence[Run]) -> list[Baseline]:
    """Every baseline that the records hold, in the order of `runs`, beside the nets (label, figure)."""
    result = []
    for data, here in grouped(runs, lambda run: run.data).items():
        known = dict.fromkeys(item for run in here for item in run.baselines.items())
        labels = short_labels(here) if known else []
        for key, value in known:
            method, metric = baseline_names(key, {name for run in here for name in run.definitions})
            figures = [number(run.part("metrics").get(f"test/{metric}")) for run in here]
            nets = tuple(
                (label, figure)
                for run, label, figure in zip(here, labels, figures, strict=True)
                # A baseline is of one test set, as of a fold.
                if run.status == "ok"
                and not run.is_debug
                and figure is not None
                and run.baselines.get(key, value) == value
            )
            result.append(Baseline(data, method, metric, value, nets))
    return result
