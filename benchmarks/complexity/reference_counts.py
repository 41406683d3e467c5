"""The papers' parameters and multiply-adds, and the check that a network of their name has them."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.complexity.cost import Complexity

TABLES = Path(__file__).parents[1] / "tables"
COSTLESS = ("model.dropout",)  # arguments of a network that change no count


@dataclass(frozen=True)
class ReferenceCounts:
    """The exact counts of a published network, for one image.

    Attributes:
        network, family: the name of its runs, with the arguments that the name does not show, as in the tables.
        input_size: of the image (C, H, W).
        source: where the network is described.
        status: `verified`: the number of parameters is published to the digit; `computed`: it is not.
    """

    network: str
    family: str
    input_size: tuple[int, ...]
    num_classes: int
    params: int
    macs: int
    source: str
    status: str

    @property
    def name(self) -> str:
        return self.network.split()[0]


@cache
def all_reference_counts() -> tuple[ReferenceCounts, ...]:
    """Return all of ``benchmarks/tables/certificates.csv``."""
    with (TABLES / "certificates.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            ReferenceCounts(
                network=line["network"],
                family=line["family"],
                input_size=tuple(json.loads(line["input_size"])),
                num_classes=json.loads(line["arguments"])["num_classes"],
                params=int(line["params"]),
                macs=int(line["macs"]),
                source=line["source"],
                status=line["status"],
            )
            for line in csv.DictReader(file)
        )


@cache
def _by_network() -> dict[tuple[str, tuple[int, ...], int], ReferenceCounts]:
    return {(c.network, c.input_size, c.num_classes): c for c in all_reference_counts()}


def reference_counts_of(network: str, input_size: Sequence[int], num_classes: int) -> ReferenceCounts | None:
    """Return the reference counts of a network for images (C, H, W) and a number of classes; dropout changes no count."""
    words = " ".join(word for word in network.split() if word.split("=")[0] not in COSTLESS)
    return _by_network().get((words, tuple(input_size), num_classes))


def check(name: str, num_classes: int, complexity: Complexity) -> None:
    """Check that a network has the counts of the published one of its name, image size and classes, where there is one.

    Raises:
        ValueError: the network is not what its name says.
    """
    size = tuple(complexity.input_size)
    known = [c for c in all_reference_counts() if (c.name, c.input_size, c.num_classes) == (name, size, num_classes)]
    if not known or (complexity.params, complexity.macs) in {(c.params, c.macs) for c in known}:
        return
    if complexity.params not in {c.params for c in known}:
        unit, ours, published = "parameters", complexity.params, {c.params for c in known}
    else:
        unit, ours, published = "MACs", complexity.macs, {c.macs for c in known}
    numbers = " or ".join(f"{number:,}" for number in sorted(published))
    raise ValueError(
        f"the network called {name} has {ours:,} {unit}, the paper's has {numbers}: name=… gives it another name"
    )
