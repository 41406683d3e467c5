"""Which networks of a data set differ, and by how much: on the same test images, whatever their seeds."""

import itertools
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.analysis.error_rates import holm
from benchmarks.analysis.estimates import Comparison, compare, estimates, percent_of
from benchmarks.analysis.seeds import same_but_seed, short_labels
from benchmarks.records.runs import Run
from benchmarks.units import grouped, is_score, score

ALL_PAIRS_UP_TO = 6  # networks
EQUAL_COST = 0.05  # of more networks, those whose MACs are that near each other are compared


@dataclass(frozen=True)
class Difference:
    """Two networks on a data set: the first's reported metric minus the second's, as people know it (of 100 − Dice, Dice).

    Attributes:
        folders: of the seeds of both.
        p: that of the comparison, corrected over all of the data set (Holm 1979).
    """

    data: str
    first: str
    second: str
    folders: tuple[Path, Path]
    unit: str
    comparison: Comparison
    p: float
    compared: int

    @property
    def text(self) -> str:
        return self.comparison.text(self.unit, self.p, self.compared)


def differences(runs: Iterable[Run], said: Container[str] = ()) -> list[Difference]:
    """The differences of all networks of a data set that have at least two seeds, of many those at equal cost.

    Each with everything else equal but the network, its recipe and its overrides: the same metric of the same
    definition on the same test images.

    Args:
        said: overrides that the names of networks leave out.
    """
    groups = [group for group in same_but_seed(runs) if len(group) > 1]
    estimated = estimates(groups)
    result = []
    for data, here in grouped(range(len(groups)), lambda index: groups[index][0].data).items():
        first = {index: groups[index][0] for index in here}
        tested = Counter(run.test_key for run in first.values())  # a data set may have several test sets, as folds are
        labels = dict(zip(here, short_labels(list(first.values()), seeds=False, said=said), strict=True))
        pairs = [
            (one, other, compare(estimated[one], estimated[other]))
            for one, other in itertools.combinations(here, 2)
            if _comparable(first[one], first[other], tested[first[one].test_key])
        ]
        corrected = holm([comparison.p for *_, comparison in pairs])
        for (one, other, comparison), p in zip(pairs, corrected, strict=True):
            unit = "points" if percent_of(first[one]) else ""
            if is_score(label := first[one].metric_label):
                unit = " of ".join(filter(None, (unit, score(0, label)[0].removeprefix("test "))))
                comparison = comparison.of_scores
            folders = _folder(first[one]), _folder(first[other])
            result.append(Difference(data, labels[one], labels[other], folders, unit, comparison, p, len(pairs)))
    return result


def _folder(run: Run) -> Path:
    return run.directory.parent.resolve()


def _comparable(one: Run, other: Run, networks: int) -> bool:
    low, high = sorted((one.macs or 0, other.macs or 0))
    return one.test_key == other.test_key and (networks <= ALL_PAIRS_UP_TO or high <= (1 + EQUAL_COST) * low)
