"""The answer at first sight: every network that has finished, with its test result, interval and cost."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from benchmarks.analysis.comparisons import recipe_title
from benchmarks.analysis.error_rates import FEWEST
from benchmarks.analysis.estimates import ALIKE, FEWEST_MASKS, SEEDS_ALONE, Estimate
from benchmarks.analysis.seeds import SeedGroup
from benchmarks.records.runs import Run
from benchmarks.report.chart_data import Charts
from benchmarks.report.quantities import MACS, PARAMETERS, TRAIN_FLOPS, Quantity, result_title, shown_result
from benchmarks.report.style import look_of
from benchmarks.report.tables import Cell, Row, Table
from benchmarks.units import count, number, quantity, score, score_label

BEST = "best at its cost"
SHOWN_FIRST = 12  # rows, until the leaderboard is opened
LEAD = (
    "Mean over seeds, with sample standard deviation. The 95 % interval of the mean says how other trainings and test images "
    "would come out. ✓ marks the networks that are best at their cost: no other one errs less at the same cost (within 1 %) or "
    "a lower one. The percentage is the probability of being best, given from three seeds on and where another network costs "
    "as much or less."
)
ALONE = (
    f"Where the outcomes of the test images are not stored, or are of fewer than {FEWEST_MASKS} masks, an interval covers "
    "other trainings only."
)
SAMPLING = "Point at it for the standard error that the choice of test images adds."
POOLED = (
    f"The spread over seeds is pooled over networks {ALIKE} between which Bartlett’s test finds no difference. Point at an "
    "interval for their number."
)
TWO_SEEDS = (
    f"Below {FEWEST} seeds a network has an interval only where the outcomes of its test images are stored and its spread is "
    "pooled."
)


def leaderboard(charts: Charts) -> Table:
    """Return a row for each finished network, best result first within its data set; rows are keyed as the charts' networks."""
    # Of several charts of a data set the last is of all its recipes, as these rows are; the page's script marks anew.
    whole = {chart["set"]: chart for chart in sorted(charts.charts, key=lambda chart: chart["mixed"])}
    best = {
        point["id"]: point["probability"].get(MACS.key)
        for chart in whole.values()
        for point in chart["networks"]
        if MACS.key in point["front"]
    }
    networks = range(len(charts.networks))
    keys = sorted(networks, key=lambda index: (charts.networks[index][2], charts.networks[index][1].mean))
    rows = []
    for index in keys:
        group, estimate, number_of_set = charts.networks[index]
        probability = best.get(index)
        on_front = "✓" if index in best else ""
        on_front += f" {percent(probability)}" if probability is not None else ""
        rows.append(_row(group, estimate, charts.labels[index], charts.data_sets[number_of_set], on_front))
    result = result_title([group[0] for group, _, _ in charts.networks])
    numbers = (result, "95 % interval", "IoU", "seeds", "n", "parameters", "MACs", "training FLOPs")
    heads = ("network", "recipe", "data set", *numbers, BEST)
    basis = [estimate.basis_text for _, estimate, _ in charts.networks]
    has_sampling = any(SeedGroup(group, estimate).sampling_text for group, estimate, _ in charts.networks)
    alone = f"{ALONE} {SAMPLING}" if has_sampling else ALONE
    notes = [note for word, note in ((SEEDS_ALONE, alone), ("pooled", POOLED)) if any(word in text for text in basis)]
    notes += [TWO_SEEDS] * any(1 < estimate.n < FEWEST for _, estimate, _ in charts.networks)
    left_out = dict.fromkeys(text for _, estimate, _ in charts.networks for text in estimate.left_out)
    notes += [f"Left out: {text}." for text in left_out]
    return Table("Leaderboard", heads, rows, numbers, LEAD if rows else "", notes, keys=keys)


def percent(probability: float) -> str:
    """Return `57 %`, and nothing closer to certainty than `over 99 %` and `under 1 %`; the script of the page has the same."""
    if probability > 0.995:
        return "over 99 %"
    return "under 1 %" if probability < 0.005 else f"{math.floor(100 * probability + 0.5)} %"


def _row(group: tuple[Run, ...], estimate: Estimate, label: str, data: str, on_front: str) -> Row:
    run = group[0]
    of_seeds = SeedGroup(group, estimate)
    shown = of_seeds.text if len(group) > 1 else shown_result(run)
    lowest = estimate.interval and min(score(end, run.metric_label)[1] for end in estimate.interval)
    return [
        Cell(label, label, look=look_of(run)),
        Cell(recipe_title(run), recipe_title(run)),
        Cell(data, data),
        Cell(shown, score(estimate.mean, run.metric_label)[1], style="bold", hint=score_label(run.metric_label)),
        Cell(of_seeds.interval_text, lowest, hint=_basis(of_seeds)),
        _overlap(group),
        Cell(str(len(group)), len(group)),
        Cell(count(run.n), run.n),
        *(_cost(axis, group) for axis in (PARAMETERS, MACS, TRAIN_FLOPS)),
        Cell(on_front, on_front),
    ]


def _cost(axis: Quantity, group: Sequence[Run]) -> Cell:
    """Return the mean over seeds, as the charts place it: seeds that end with a budget or count regions differ."""
    values = [axis.value(run) for run in group]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(set(known)) == 1:
        return Cell(axis.text(group[0]), values[0])
    return Cell(quantity(fmean(known), axis.unit).rstrip(), fmean(known))


def _basis(group: SeedGroup) -> str:
    """Return what an interval rests on and leaves out, or why there is none."""
    known = group.seeds_text if group.estimate.interval else ""
    basis = group.estimate.missing or ", ".join(filter(None, (known, group.estimate.basis_text)))
    return f"{basis}; the choice of test images adds {group.sampling_text}" if group.sampling_text else basis


def _overlap(group: Sequence[Run]) -> Cell | str:
    """Return the mean intersection over union of masks; empty of other tasks."""
    values: list[Any] = [number(run.part("metrics").get("test/iou")) for run in group]
    return "" if None in values else Cell(f"{100 * fmean(values):.2f} %", fmean(values))
