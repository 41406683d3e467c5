"""Which networks differ, and by how much, on the seeds that both have: paired differences of a data set's networks."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.analysis.seeds import same_but_seed, short_labels
from benchmarks.analysis.statistics import Comparison, compare, holm
from benchmarks.records.runs import Run

ALL_PAIRS_UP_TO = 6  # networks
EQUAL_COST = 0.05  # of more networks, those whose MACs are that near each other are compared


@dataclass(frozen=True)
class Difference:
    """Two networks on a data set: the first's reported metric minus the second's.

    `p` is that of the comparison, corrected over all of the data set (Holm 1979).
    """

    data: str
    first: str
    second: str
    unit: str
    comparison: Comparison
    p: float
    compared: int

    @property
    def text(self) -> str:
        text = self.comparison.text(self.unit)
        return f"{text} (Holm over {self.compared} pairs: {self.p:.2g})" if self.compared > 1 else text


def differences(runs: Iterable[Run]) -> list[Difference]:
    """The differences of all networks of a data set that share at least two seeds, of many those at equal cost.

    Each with everything else equal but the network, its recipe and its overrides: the same metric on the same test images.
    """
    groups = [group for group in same_but_seed(runs) if len(group) > 1]
    result = []
    for data in dict.fromkeys(group[0].data for group in groups):
        here = [group for group in groups if group[0].data == data]
        labels = short_labels([group[0] for group in here], seeds=False)
        pairs = [
            (labels[one], labels[other], here[one][0], _compared(here[one], here[other]))
            for one, other in itertools.combinations(range(len(here)), 2)
            if _comparable(here[one][0], here[other][0], len(here))
        ]
        known = [(first, second, run, comparison) for first, second, run, comparison in pairs if comparison is not None]
        corrected = holm([comparison.p for *_, comparison in known])
        result += [
            Difference(data, first, second, "points" if "%" in run.metric_label else "", comparison, p, len(known))
            for (first, second, run, comparison), p in zip(known, corrected, strict=True)
        ]
    return result


def _comparable(one: Run, other: Run, networks: int) -> bool:
    same_test = [(run.metric, run.n, run.part("dataset").get("sha256")) for run in (one, other)]
    if same_test[0] != same_test[1]:
        return False
    costs = sorted((one.macs or 0, other.macs or 0))
    return networks <= ALL_PAIRS_UP_TO or costs[1] <= (1 + EQUAL_COST) * costs[0]


def _compared(one: Sequence[Run], other: Sequence[Run]) -> Comparison | None:
    """On the seeds that both have; None if these are fewer than two."""
    first, second = ({run.seed: run.value for run in group if run.value is not None} for group in (one, other))
    return compare(first, second) if len(first.keys() & second.keys()) > 1 else None
