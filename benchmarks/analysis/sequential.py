"""`seed=auto`: more seeds where a comparison of networks is open, by a rule that holds however often it looks.

The looks are stated before: at 3, 5, 8 and 12 seeds of each network. Each has a quarter of the 5 %, so that the chance of any
false claim is bounded over all looks (Bonferroni), whichever runs are added in between; within a look Holm's correction bounds
it over the pairs of a data set. A pair that differs by less than about two thirds of its standard error (p > 0.5) is left from
the second look on: that ends work and claims nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.analysis.differences import Difference, differences
from benchmarks.analysis.error_rates import CONFIDENCE
from benchmarks.analysis.seeds import differing_conditions, same_but_seed
from benchmarks.records.runs import Run
from benchmarks.units import grouped

LOOKS = (3, 5, 8, 12)  # seeds of each network
LEVEL = (1 - CONFIDENCE) / len(LOOKS)
LEFT_ABOVE = 0.5  # p-value of a pair alone


@dataclass(frozen=True)
class Judged:
    """A pair of networks after a look.

    Attributes:
        seeds: after how many it was decided or left, or is open; of two numbers the larger.
        state: `differs`, `left` or `open`.
    """

    difference: Difference
    seeds: int
    state: str

    @property
    def text(self) -> str:
        """Which networks, how the comparison ended, and why there are no more seeds."""
        one = self.difference
        reason = {
            "differs": f"differ, decided with {self.seeds} seeds (p = {one.p:.2g}, at most {LEVEL:.3g} at a look)",
            "left": f"no difference to be seen, left after {self.seeds} seeds",
            "open": f"open after {self.seeds} seeds",
        }[self.state]
        return f"{one.first} against {one.second}: {reason}: {one.text}"


Pair = tuple[Path, Path]  # folders of two networks' seeds


def judge(runs: Iterable[Run], look: int, before: Mapping[Pair, Judged]) -> dict[Pair, Judged]:
    """Return the pairs of networks as this look leaves them; a claim of an earlier look stays.

    Args:
        runs: of all seeds; those that the look does not ask for are passed over, so that a repeated look sees the same.
        look: the number of the look, from 0.
        before: what the look before has returned.
    """
    seen = [run for run in runs if run.seed < LOOKS[look]]
    result: dict[Pair, Judged] = {}
    for one in differences(seen):
        pair = one.folders
        if pair in before and before[pair].state == "differs":
            result[pair] = before[pair]
        else:
            state = "differs" if differs(one.p) else "left" if left(one.comparison.p, look) else "open"
            result[pair] = Judged(one, max(one.comparison.n), state)  # fewer than at this look of a pair that was left
    return result


def mixed_seeds(runs: Iterable[Run]) -> str:
    """Say which network's runs differ in more than the seed, as after a change of the code; empty where none do."""
    for members in grouped(runs, lambda run: run.directory.parent).values():
        groups = [group[0] for group in same_but_seed(members)]
        if len(groups) > 1:
            notes = " and ".join(", ".join(note) for note in differing_conditions(groups))
            mend = "launch.rerun=stale runs those of other code again; move others away"
            return f"runs of {groups[0].name} differ in more than the seed, {notes}: {mend}"
    return ""


def differs(p: Any) -> Any:
    """Return whether a difference is claimed at a look, by its p-value corrected over its data set; elementwise."""
    return p <= LEVEL


def left(p: Any, look: int) -> Any:
    """Return whether a pair is left without a claim, by its own p-value; elementwise."""
    return (p > LEFT_ABOVE) & (look > 0)
