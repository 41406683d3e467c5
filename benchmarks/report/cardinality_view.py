"""What cardinality costs and buys at a constant cost, as a page."""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import terminal
from benchmarks.analysis import published
from benchmarks.analysis.seeds import same_but_seed
from benchmarks.complexity.profile import layers_in_order
from benchmarks.config.compose import expand_all
from benchmarks.config.trial import ConfigurationError, Trial, config_hash
from benchmarks.records.runs import Run, load_runs, overrides_text
from benchmarks.report.figures import bars, figure, hollow, seeds_caption, seeds_over, ticks
from benchmarks.report.style import family_look
from benchmarks.report.view import Figure, View, add_out, path_of, write
from benchmarks.units import grouped, si

EXPERIMENT = "group_convolution"
OF_EACH = ("model.base_channels", "recipe.optimizer.lr")  # what networks of one cost have each of its own


@dataclass(frozen=True)
class Point:
    """A network of a sweep over cardinality: its cost, its finished runs, which differ in the seed alone, the paper's error."""

    cardinality: int
    width: int
    macs: int
    params: int
    runs: tuple[Run, ...]
    paper: float | None

    @property
    def label(self) -> str:
        return f"{self.cardinality}×{self.width}d"


def _check(trials: Sequence[Trial]) -> None:
    for trial in trials:
        if "cardinality" not in trial.config["model"]:
            raise ConfigurationError(f"{trial.config['name']} has no cardinality, model=resnext has one")


def cardinality_view(trials: Sequence[Trial]) -> View:
    """Return error and cost over cardinality, a chart for each data set, recipe and depth.

    Raises:
        ValueError: a network that cannot be, that does not take the data set's images, or that has no cardinality.
    """
    _check(trials)
    by_folder = {trial.directory.parent: trial for trial in trials}
    figures = []
    for title, kind in _kinds(list(by_folder.values())).items():
        points = sorted(map(_point, kind), key=lambda point: point.cardinality)
        figures.append(Figure(title, _caption(points), [_over_cardinality(points)], height=560, width=640))
    return View(
        "Cardinality at constant cost",
        "The same depth and, as nearly as whole numbers allow, the same cost: what differs is into how many groups "
        "(cardinality) of how many channels (d) the 3×3 convolutions are split (Xie et al. 2017, Table 2).",
        figures,
    )


def _kinds(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Return the trials by the title of their chart. In one that has a cardinality once, each may have a rate of its own."""
    kinds: dict[str, list[Trial]] = {}
    for title, kind in grouped(trials, _title).items():
        once = len({trial.config["model"]["cardinality"] for trial in kind}) == len(kind)
        kinds |= {title: kind} if once else grouped(kind, lambda trial: _title(trial, own=()))
    return kinds


def _title(trial: Trial, own: Collection[str] = OF_EACH) -> str:
    others = {key: value for key, value in trial.overrides.items() if key not in own}
    recipe = ", ".join(filter(None, (trial.config["recipe"]["name"], overrides_text(others))))
    return f"{trial.config['model']['depth']} layers on {trial.config['data']['name']}, {recipe}"


def _point(trial: Trial) -> Point:
    """Return the point with its finished runs; where their conditions differ, the largest group that may be averaged."""
    model, (cost, _) = trial.config["model"], layers_in_order(trial)
    every = load_runs(trial.directory.parent)[0] if trial.directory.parent.is_dir() else []
    equal = [run for run in every if run.record.get("config_hash") == config_hash({**trial.config, "seed": run.seed})]
    runs: tuple[Run, ...] = max(same_but_seed(equal), key=len, default=())
    table = published.tables().get(str(trial.config["experiment"]))
    rows = [row for row in table.rows if row.row == trial.config["row"]] if table else []
    paper = next((row.figures.get("top1_err") for row in rows if row.data == trial.config["data"]["name"]), None)
    return Point(model["cardinality"], model["base_width"], cost.macs, cost.params, runs, paper)


def _caption(points: Sequence[Point]) -> str:
    """Return what the chart shows, in words."""
    counts = [len(point.runs) for point in points if point.runs]
    caption = "No run has finished: run.py with the same overrides and several seeds makes them."
    if counts:
        caption = f"{seeds_caption(counts)}."
    if any(point.paper is not None for point in points):
        caption += " Hollow: Xie et al. 2017, Table 3."
    for word, costs in (("MACs", [point.macs for point in points]), ("Parameters", [point.params for point in points])):
        caption += (
            f" {word} from {si(min(costs))} to {si(max(costs))}, {100 * (max(costs) / min(costs) - 1):.1f} % apart."
        )
    return caption


def _over_cardinality(points: Sequence[Point]) -> dict[str, Any]:
    """Return the figure: error above, cost below."""
    look = family_look("resnext")
    papers = {place: point.paper for place, point in enumerate(points) if point.paper is not None}
    label = next((run.metric_label for point in points for run in point.runs), "top-1 error (%)")
    finished = {place: point.runs for place, point in enumerate(points) if point.runs}
    traces = seeds_over(finished, look, "", {place: points[place].label for place in finished})
    if papers:
        paper = hollow(
            list(papers),
            list(papers.values()),
            look,
            name="Xie et al. 2017",
            line={"color": "--soft", "width": 1, "dash": "dot"},
            hovertext=[f"<b>{points[place].label}</b><br>{error} % in the paper" for place, error in papers.items()],
        )
        marker = {**paper["marker"], "color": "--soft", "size": 9, "line": {"width": 1}}
        traces.append({**paper, "mode": "lines+markers", "marker": marker})
    has_errors = bool(traces)
    for word, alpha, costs in (
        ("MACs", "", [point.macs for point in points]),
        ("parameters", "80", [point.params for point in points]),
    ):
        hover = [
            f"<b>{point.label}</b><br>{cost:,} {word}, {cost / costs[0]:.3f} of the first"
            for point, cost in zip(points, costs, strict=True)
        ]
        shares, marker = [cost / costs[0] for cost in costs], {"color": look.colour + alpha}
        traces.append(bars(range(len(points)), shares, marker, hover, values=costs, name=word, yaxis="y2"))
    return figure(
        traces,
        {
            "title": "cardinality × channels of a group",
            **ticks(range(len(points)), [point.label for point in points]),
            "range": [-0.5, len(points) - 0.5],
            "anchor": "y2",
            "showgrid": False,
        },
        {"title": label, "domain": [0.42, 1], "visible": has_errors},
        yaxis2={
            "title": {"text": "cost, the first’s = 1"},
            "domain": [0, 0.3 if has_errors else 0.95],
            "rangemode": "tozero",
            "nticks": 4,
        },
        bargap=0.4,
        bargroupgap=0.08,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view cardinality``."""
    parser.description = (
        f"Test error over cardinality from the finished runs of experiment={EXPERIMENT}, or of another that is named, "
        "in a band from the lowest to the highest seed, and below it what the networks cost. Without runs the cost alone."
    )
    terminal.add_overrides(parser, ": data=digits …")
    add_out(parser, "cardinality")


def run(arguments: argparse.Namespace) -> None:
    """Write the view of cardinality. Raises ConfigurationError, as for a network that has no cardinality."""
    named = any(override.startswith("experiment=") for override in arguments.overrides)
    if not named:
        # Before the experiment's rows set keys that another network has not.
        _check(expand_all([one for one in arguments.overrides if not one.startswith("row=")]))
    trials = expand_all([*([] if named else [f"experiment={EXPERIMENT}"]), *arguments.overrides])
    write(cardinality_view(trials), arguments, path_of(trials[0].config["output_root"], "cardinality"))
