"""What the page's charts draw: networks and their Pareto front, by comparison and by machine, and the runs of each curve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import fmean
from typing import Any

from benchmarks.analysis import published
from benchmarks.analysis.comparisons import (
    ComparableRuns,
    comparisons,
    machine,
    network_labels,
    protocols,
    recipe_title,
)
from benchmarks.analysis.estimates import Estimate, estimates
from benchmarks.analysis.pareto import drawn_errors, front_probabilities, matched, pareto_front
from benchmarks.analysis.seeds import baseline_names, same_but_seed
from benchmarks.records.runs import Run
from benchmarks.records.second_process import begin
from benchmarks.report.figures import front_line
from benchmarks.report.quantities import QUANTITIES, Quantity
from benchmarks.report.style import legend_key
from benchmarks.units import count, grouped, is_score, one_line, score_label

Costs = dict[str, list[float | None]]  # of a network's seeds, by axis


@dataclass
class Charts:
    """What the page draws, and the finished networks of its leaderboard.

    Attributes:
        data_sets: titles of data sets and their protocols.
        charts: one for each comparison; `set` is the index of its data set.
        networks: each finished network with its estimate and its data set's index; charts name it by its index.
        labels: what these networks are called, also in the charts.
        complete: enters into the charts what depends on a machine, and of `Curves.together` the series of each.
    """

    data_sets: list[str]
    charts: list[dict[str, Any]]
    networks: list[tuple[tuple[Run, ...], Estimate, int]]
    labels: list[str]
    complete: Callable[[Sequence[Sequence[tuple[int, ...]]]], None]


def charts_of(runs: Sequence[Run]) -> Charts:
    """Return what the charts of all runs draw; a run goes by its index in `runs`.

    They have to be completed, with what another process may still be reading.
    """
    index_of = {id(run): index for index, run in enumerate(runs)}
    titled = protocols(runs)
    all_networks: list[tuple[tuple[Run, ...], Estimate, int]] = []
    all_labels: list[str] = []
    charts: list[_Chart] = []
    for number, (title, unsorted) in enumerate(titled.items()):
        members = sorted(unsorted, key=lambda run: index_of[id(run)])
        networks = same_but_seed(members)
        estimated = estimates(networks)
        places = {group[0].all_but_seed: place for place, group in enumerate(networks)}
        first = len(all_networks)
        all_networks += [(group, estimate, number) for group, estimate in zip(networks, estimated, strict=True)]
        labels = dict(zip(members, map(one_line, network_labels(members)), strict=True))
        all_labels += [labels[group[0]] for group in networks]
        indices = {run: index_of[id(run)] for run in members}
        known = _Known(indices, labels, first, places, estimated, drawn_errors(estimated), cache(_figures))
        charts += [_Chart(number, one_line(title), comparison, known) for comparison in comparisons(members)]
    machines = begin(lambda: [chart.machines() for chart in charts], len(runs))
    contents = [chart.content() for chart in charts]

    def complete(together: Sequence[Sequence[tuple[int, ...]]]) -> None:
        of_sets = [[tuple(runs[index] for index in group) for group in of_set] for of_set in together]
        for chart, content, of_machines in zip(charts, contents, machines(), strict=True):
            of_chart = {*content["runs"]}
            groups = (group for group in of_sets[chart.number] if index_of[id(group[0])] in of_chart)
            content["series"] = [chart.named(group) for group in groups]
            content["machines"] = of_machines

    return Charts([one_line(title) for title in titled], contents, all_networks, all_labels, complete)


@dataclass(frozen=True, eq=False)
class _Known:
    """What the charts of a data set share.

    Attributes:
        index_of: runs' indices on the page.
        labels: what the runs' networks are called.
        first: the first network's index on the page.
        places: networks' indices in `estimates`, by what all but their seed says.
        errors: of `drawn_errors` of these.
        figures: `_figures` of a network, which several charts draw.
    """

    index_of: dict[Run, int]
    labels: dict[Run, str]
    first: int
    places: dict[str, int]
    estimates: Sequence[Estimate]
    errors: Any
    figures: Callable[[tuple[Run, ...], bool], tuple[Costs, dict[str, Any]]]

    def of(self, networks: Sequence[tuple[Run, ...]]) -> tuple[list[Estimate], Any]:
        """Return estimates and drawn errors of networks, drawn again where seeds are missing from them."""
        places = [self.places[group[0].all_but_seed] for group in networks]
        whole = [self.estimates[place] for place in places]
        if all(one.n == len(group) for one, group in zip(whole, networks, strict=True)):
            return whole, self.errors[:, places]
        fewer = estimates(networks)
        return fewer, drawn_errors(fewer)


@dataclass(frozen=True, eq=False)
class _Chart:
    """A comparison of runs, which the charts draw.

    Attributes:
        number, title: of the data set and its protocol.
    """

    number: int
    title: str
    comparison: ComparableRuns
    known: _Known

    def content(self) -> dict[str, Any]:
        """Return what is drawn but what depends on a machine and the series of runs of one curve."""
        runs, index_of = self.comparison.runs, self.known.index_of
        described = next((run for run in runs if run.metric), None)
        as_published = described and described.metric == "test/top1_err" and not any(run.is_reencoded for run in runs)
        machine_of = {index_of[run]: place for place, same in enumerate(self._by_machine.values()) for run in same}
        return {
            "set": self.number,
            "data": self.title,
            "name": runs[0].data,
            "title": one_line(self.comparison.title),
            "mixed": self.comparison.mixed,
            "val_label": score_label(one_line(described.val_label)) if described else "validation error",
            "test_label": score_label(one_line(described.metric_label)) if described else "test error",
            "flipped": described is not None and is_score(described.metric_label),
            "protocol": _protocol_line(runs),
            "runs": [index_of[run] for run in runs],
            **self._placed(runs, physical=False),
            "machine_of": machine_of if len(self._by_machine) > 1 else {},
            "baselines": [{"label": name, "y": value} for name, value in _baseline_errors(runs)],
            "references": [
                {
                    "family": network.family,
                    "source": row.source,
                    "label": network.name,
                    "error": row.figures["top1_err"],
                    "x": {"params": network.params, "macs": network.macs},
                }
                for row, network in (published.reference_points(runs[0].data) if as_published else ())
            ],
        }

    def machines(self) -> list[dict[str, Any]]:
        """Return what depends on a machine, the one with most runs first."""
        return [
            {"label": one_line(name), **self._placed(members, physical=True)}
            for name, members in self._by_machine.items()
        ]

    def named(self, members: tuple[Run, ...]) -> dict[str, Any]:
        """Return label, family and indices of the runs of a point or curve."""
        first = members[0]
        label = self.known.labels[first]
        return {
            "label": f"{label} · {one_line(recipe_title(first))}" if self.comparison.mixed else label,
            "family": legend_key(first),
            "runs": [self.known.index_of[run] for run in members],
        }

    @cached_property
    def _by_machine(self) -> dict[str, tuple[Run, ...]]:
        members = grouped(self.comparison.runs, machine).items()
        return {name: tuple(same) for name, same in sorted(members, key=lambda one: -len(one[1]))}

    def _placed(self, members: tuple[Run, ...], physical: bool) -> dict[str, Any]:
        """Return the networks of runs at the axes that depend on a machine or on none, and the fronts over each axis."""
        networks = same_but_seed(members)
        figures = [self.known.figures(group, physical) for group in networks]
        points: list[dict[str, Any]] = [
            {
                "id": self.known.first + self.known.places[group[0].all_but_seed],
                **self.named(group),
                **point,
                "front": [],
                "probability": {},
            }
            for group, (_, point) in zip(networks, figures, strict=True)
        ]
        fronts = _fronts(networks, points, [costs for costs, _ in figures], self.known, physical)
        return {"networks": points, "fronts": fronts}


def _axes(physical: bool) -> list[Quantity]:
    return [axis for axis in QUANTITIES if axis.physical == physical]


def _figures(members: tuple[Run, ...], physical: bool) -> tuple[Costs, dict[str, Any]]:
    """Return the costs of the seeds at the axes that depend on a machine or on none; their mean error, its range, and mean
    costs but those that a seed is missing."""
    costs = {axis.key: [axis.value(run) for run in members] for axis in _axes(physical)}
    errors = [run.value for run in members if run.value is not None]
    # nothing else can stand on a logarithmic axis
    means = {key: fmean(filter(None, values)) for key, values in costs.items() if all((x or 0) > 0 for x in values)}
    return costs, {"error": fmean(errors), "low": min(errors), "high": max(errors), "x": means}


def _fronts(
    networks: Sequence[tuple[Run, ...]],
    points: Sequence[dict[str, Any]],
    costs: Sequence[Costs],
    known: _Known,
    physical: bool,
) -> dict[str, dict[str, Any]]:
    """Return the line of the front over each axis, and enter the axes into `front` and `probability` of the points.

    `front` is of those on it, `probability` of all whose error has an interval. Counted costs within 1 % are equal.
    """
    lines = {}
    estimated, errors = known.of(networks)
    found: dict[Any, Sequence[float | None]] = {}
    for axis in _axes(physical):
        sign = -1 if axis.more_is_better else 1
        placed = [index for index, point in enumerate(points) if axis.key in point["x"]]
        exact = [sign * points[index]["x"][axis.key] for index in placed]
        equal = exact if physical else matched(exact)
        best = pareto_front([(cost, points[index]["error"]) for cost, index in zip(equal, placed, strict=True)])
        for place in best:
            points[placed[place]]["front"].append(axis.key)
        if len(best) > 1:
            corners = [(points[placed[place]]["x"][axis.key], points[placed[place]]["error"]) for place in best]
            lines[axis.key] = front_line(corners, axis.more_is_better)
        of_seeds = [
            [sign * (value or 0) + (one - own) for value in costs[index][axis.key]]
            for index, own, one in zip(placed, exact, equal, strict=True)
        ]
        # Where seeds cost the same it is the order that matters, in which parameters and MACs of one family mostly agree.
        vary = any(len(set(values)) > 1 for values in of_seeds)
        rank = {cost: place for place, cost in enumerate(sorted({values[0] for values in of_seeds}))}
        key = tuple(placed), tuple(tuple(values) if vary else rank[values[0]] for values in of_seeds)
        if key not in found:
            found[key] = front_probabilities(of_seeds, errors[:, placed], [estimated[index] for index in placed])
        for index, probability in zip(placed, found[key], strict=True):
            if probability is not None:
                points[index]["probability"][axis.key] = round(probability, 3)
    return lines


def _protocol_line(runs: Sequence[Run]) -> str:
    finished = [run for run in runs if run.value is not None]
    checkpoints = dict.fromkeys(str(run.part("protocol").get("checkpoint") or "") for run in finished)
    sizes = dict.fromkeys(count(run.n) for run in runs if run.n is not None)
    if not checkpoints:
        return ""
    return one_line(f"{' or '.join(filter(None, checkpoints))} checkpoint, n = {' or '.join(sizes)} test images")


def _baseline_errors(runs: Sequence[Run]) -> list[tuple[str, float]]:
    """Return baselines in the unit of the reported metric: a Dice of 0.884 beside `test/dice_err` is 11.6."""
    errors: dict[tuple[str, float], None] = {}
    for run in runs:
        for key, value in run.baselines.items():
            method, metric = baseline_names(key, run.definitions)
            if run.metric == f"test/{metric}_err":
                errors[one_line(method), 100 * (1 - value)] = None
            elif run.metric == f"test/{metric}":
                errors[one_line(method), value] = None
    return list(errors)
