"""Learning curves for the page: each run's history by column, thinned to what can be seen."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.analysis.comparisons import protocols
from benchmarks.analysis.seeds import same_but_seed
from benchmarks.records.runs import Run
from benchmarks.units import number, one_line

POINTS = 40_000  # of all curves of a page
FEWEST, MOST = 40, 400  # of one curve
BESIDE = ("val/loss", "train/loss", "lr")  # what is drawn beside the metric

# The rows of `Run.curve` by column: `epoch`, `train_flops`, `wall_s`, `error`, which is the metric on the validation set, and
# `BESIDE`; None where a row lacks it, and in place of a column of `BESIDE` that has nothing.
Columns = dict[str, Any]


@dataclass
class Curves:
    """Learning curves of a page's runs, which go by their index.

    Attributes:
        points: what `thinned` returns of every run that has a curve.
        together: for each data set and protocol, the runs that are drawn as one curve.
        problems: histories that cannot be read.
    """

    points: dict[int, dict[str, Any]] = field(default_factory=dict)
    together: list[list[tuple[int, ...]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def columns_of(run: Run) -> Columns:
    """Return the columns of a run. Raises ValueError as `read_history` does."""
    rows = run.curve()
    return {
        "epoch": [number(row.get("epoch")) for row in rows],
        "train_flops": [row["train_flops"] for row in rows],
        "wall_s": [number(row.get("wall_s")) for row in rows],
        "error": _short(row[run.val_metric] for row in rows),
        **{name: _short(row.get(name) for row in rows) for name in BESIDE},
    }


def curves_of(runs: Sequence[Run], read: Callable[[Run], Columns]) -> Curves:
    """Return the curves of all runs; `read` returns the columns of one."""
    index_of = {id(run): index for index, run in enumerate(runs)}
    limit = points_per_curve(runs)
    curves = Curves()
    for unsorted in protocols(runs).values():
        members = sorted(unsorted, key=lambda run: index_of[id(run)])
        columns = read_curves(members, read, curves.problems)
        together = drawn_together(members, same_but_seed(members), columns)
        curves.together.append([tuple(index_of[id(run)] for run in group) for group in together])
        for group, indices in zip(together, curves.together[-1], strict=True):
            curves.points |= zip(indices, thinned([columns[id(run)] for run in group], limit), strict=True)
    return curves


def points_per_curve(runs: Sequence[Run]) -> int:
    """Return how many points each curve keeps, so that the page of any number of runs stays small."""
    return max(FEWEST, min(MOST, POINTS // max(1, len(runs))))


def read_curves(runs: Iterable[Run], read: Callable[[Run], Columns], problems: list[str]) -> dict[int, Columns]:
    """Return the columns by the identity of their run; what `read` cannot read is added to `problems`, and is left out."""
    columns: dict[int, Columns] = {}
    for run in runs:
        try:
            columns[id(run)] = read(run)
        except (OSError, ValueError) as error:
            problems.append(one_line(str(error)))
    return columns


def drawn_together(
    runs: Iterable[Run], networks: Iterable[tuple[Run, ...]], columns: dict[int, Columns]
) -> list[tuple[Run, ...]]:
    """Return the runs that are drawn as one curve: seeds of a network that were evaluated at the same compute.

    Any other run is a curve of its own. In the order of `runs`; those without a row are left out.
    """
    flops = {key: own["train_flops"] for key, own in columns.items()}
    first_of: dict[int, tuple[Run, ...]] = {}
    together: set[int] = set()
    for members in networks:
        first, *others = (flops.get(id(run), []) for run in members)
        if all(other == first for other in others):
            first_of[id(members[0])] = members
            together |= {id(run) for run in members}
    alone = [first_of.get(id(run), () if id(run) in together else (run,)) for run in runs]
    return [members for members in alone if members and flops.get(id(members[0]))]


def thinned(each: Sequence[Columns], limit: int) -> list[Columns]:
    """Return the columns of runs of `drawn_together` at the same points, about `limit` at most."""
    flops = each[0]["train_flops"]
    if len(flops) <= limit:
        return list(each)
    errors = list(zip(*(own["error"] for own in each), strict=True))
    picks = _visible(flops, [min(at) for at in errors], [max(at) for at in errors], limit)
    return [{name: values and [values[pick] for pick in picks] for name, values in own.items()} for own in each]


def _short(values: Iterable[Any]) -> list[float | None] | None:
    """Return six digits of each number; None without any."""
    numbers = [None if (value := number(one)) is None else float(f"{value:.6g}") for one in values]
    return numbers if any(one is not None for one in numbers) else None


def _visible(x: Sequence[float], low: Sequence[float], high: Sequence[float], limit: int) -> list[int]:
    """Return the indices of at most about `limit` points whose band looks as that of all, x being drawn on a logarithmic axis.

    Of every stretch of the axis the lowest and the highest are picks, and the first and the last of all.
    """
    stretches = limit // 2
    scale = stretches / (math.log(x[-1] / x[0]) or 1)
    picks = {0, len(x) - 1}
    start = 0
    for index in range(1, len(x) + 1):
        if index == len(x) or int(math.log(x[index] / x[0]) * scale) != int(math.log(x[start] / x[0]) * scale):
            picks |= {min(range(start, index), key=low.__getitem__), max(range(start, index), key=high.__getitem__)}
            start = index
    return sorted(picks)
