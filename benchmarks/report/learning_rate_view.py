"""Validation loss over learning rate, and the rate that each network gets, as a page."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.analysis.comparisons import network_labels, recipe_title
from benchmarks.analysis.learning_rates import RATE, RateTrials, rate_trials, without_a_loss
from benchmarks.analysis.seeds import short_condition
from benchmarks.records.runs import debugging_left_out, load_runs
from benchmarks.report.figures import Trace, figure, line, log_axis, mean_of_seeds, plain, points, ticks
from benchmarks.report.style import look_of
from benchmarks.report.view import Figure, View, add_root, path_of, write
from benchmarks.units import grouped, plural, si


def networks_tried(output_root: Path) -> list[RateTrials]:
    """Return the networks that have finished at two learning rates or more, with a validation loss.

    Raises:
        FileNotFoundError: there is no such folder. ValueError: no network in it has finished at two rates.
    """
    runs, _ = load_runs(output_root)
    networks = rate_trials(runs)
    if not networks:
        count = without_a_loss(runs)
        lacking = f" ({plural(count, 'run')} without a validation loss, by which rates are compared)" if count else ""
        raise ValueError(
            f"no network has finished at two learning rates in {output_root}{debugging_left_out(runs)}{lacking}: "
            f"run.py experiment=learning_rates, or run.py -m {RATE}=0.05,0.1,0.2 …"
        )
    return networks


def learning_rate_view(networks: Sequence[RateTrials]) -> View:
    """Return validation loss over learning rate: a chart for each data set and family, a line for each network."""
    kinds = grouped(networks, lambda network: (network.first.data, network.first.family))
    cost = sum(network.train_flops for network in networks)
    return View(
        "Learning rates",
        "Each network has the rate with the lowest validation loss at the end of training (large mark), mean over the seeds. "
        f"Test images take no part in it. Finding the rates took {si(cost)}FLOPs of training.",
        [
            Figure(f"{family} on {data}", _caption(shown), [_over_rate(shown)], height=420, width=640)
            for (data, family), shown in kinds.items()
        ],
    )


def rate_lines(networks: Sequence[RateTrials]) -> list[str]:
    """Return a line for each network: its rate, and whether one beyond those tried could be better."""
    names = _told_apart([network.first.network for network in networks], networks)
    return [
        f"{network.first.data}  {name}  {RATE}={network.best:g}" + ", at an end of those tried" * network.is_at_an_end
        for network, name in zip(networks, names, strict=True)
    ]


def _told_apart(names: Sequence[str], networks: Sequence[RateTrials]) -> list[str]:
    """Return the names, equal ones with recipe and budget, and where data sets have one name with the checksum."""
    keys = [(network.first.data, name) for network, name in zip(networks, names, strict=True)]
    data = [(network.first.data, network.first.part("dataset").get("sha256")) for network in networks]
    several = [name for name, count in Counter(name for name, _ in set(data)).items() if count > 1]
    notes = [f"data {short_condition(sha256)}" if name in several else "" for name, sha256 in data]
    return [
        f"{name} ({', '.join(filter(None, (recipe_title(network.first, but=RATE), note)))})"
        if keys.count(key) > 1
        else name
        for key, name, network, note in zip(keys, names, networks, notes, strict=True)
    ]


def _names(networks: Sequence[RateTrials]) -> list[str]:
    """Return what the charts call the networks."""
    return _told_apart(network_labels([network.first for network in networks]), networks)


def _caption(networks: Sequence[RateTrials]) -> str:
    counts = [len(runs) for network in networks for runs in network.runs.values()]
    missing = [
        f"{name} at {', '.join(f'{rate:g}' for rate in network.unfinished)}"
        for network, name in zip(networks, _names(networks), strict=True)
        if network.unfinished
    ]
    unfinished = f" Diverged, or not finished with all seeds: {', '.join(missing)}." if missing else ""
    mean = mean_of_seeds(counts)
    return (f"{mean}, each as a small mark." if mean else "One seed at each rate, as a small mark.") + unfinished


def _over_rate(networks: Sequence[RateTrials]) -> dict[str, Any]:
    traces: list[Trace] = []
    networks = sorted(networks, key=lambda network: network.first.macs or 0)
    for place, (network, title) in enumerate(zip(networks, _names(networks), strict=True)):
        look, name = look_of(network.first), plain(title)
        losses, opacity = network.losses, 0.45 + 0.55 * (place + 1) / len(networks)
        runs = [(rate, run) for rate, runs in network.runs.items() for run in runs]
        hover = [f"<b>{name}</b><br>rate {rate:g}, validation loss {loss:.4g}" for rate, loss in losses.items()]
        small = {"size": 4, "opacity": opacity}
        traces += [
            points(
                [rate for rate, _ in runs],
                [run.history[-1]["val/loss"] for _, run in runs],
                look,
                showlegend=False,
                marker=small,
                hoverinfo="skip",
            ),
            line(list(losses), list(losses.values()), look, name=name, opacity=opacity, hovertext=hover),
            points([network.best], [losses[network.best]], look, showlegend=False, hoverinfo="skip"),
        ]
        traces[-2]["line"]["width"] = 1 + min(1, 4 / len(networks)) * place
    rates = sorted({rate for network in networks for rate in network.runs})
    return figure(
        traces,
        {"title": "learning rate", "type": "log", **ticks(rates, [f"{rate:g}" for rate in rates])},
        {"title": "validation loss (nats)", **log_axis([loss for trace in traces for loss in trace["y"]])},
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``view learning_rates``."""
    parser.description = (
        "Validation loss over learning rate, and each network's rate: of the networks that have finished at two rates or "
        "more, as with experiment=learning_rates."
    )
    add_root(parser, "learning_rates")


def run(arguments: argparse.Namespace) -> None:
    """Write the view of learning rates, and print the rates."""
    networks = networks_tried(arguments.output_root)
    print(*rate_lines(networks), sep="\n")
    write(learning_rate_view(networks), arguments, path_of(arguments.output_root, "learning_rates"))
