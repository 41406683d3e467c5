"""What a run costs and reaches, said once: a quantity's title, unit and value serve the tables, the page and its axes alike."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from benchmarks.records.runs import Run
from benchmarks.units import MISSING, count, duration, number, quantity

THROUGHPUT = "python -m benchmarks throughput"


@dataclass(frozen=True)
class Quantity:
    """A number of a run that can be an axis of the page.

    Attributes:
        unit: `""` (a count), `s`, `ms`, `B` or `J`.
        more_is_better: whether it is a speed and not a cost.
        measured_by: the command that measures it, where a run itself does not.
    """

    key: str
    title: str
    value: Callable[[Run], float | None]
    unit: str = ""
    more_is_better: bool = False
    measured_by: str = ""

    def text(self, run: Run) -> str:
        """Return the value of a run with its unit, as the tables print it."""
        value = self.value(run)
        if value is None:
            return MISSING
        if self.unit == "s":
            return duration(value)
        return f"{value:.3g} ms" if self.unit == "ms" else quantity(value, self.unit).rstrip()


def _recorded(part: str, name: str) -> Callable[[Run], float | None]:
    """Return what reads a number from a part of the record."""
    return lambda run: number(run.part(part).get(name))


def _latency_ms(run: Run) -> float | None:
    latency_s = number(run.part("throughput").get("latency_s"))
    return None if latency_s is None else 1e3 * latency_s


def _alone(key: str, title: str, name: str, unit: str = "") -> Quantity:
    """Return what was measured of the network by itself; without a unit it is a speed."""
    return Quantity(key, title, _recorded("throughput", name), unit, not unit, THROUGHPUT)


MACS = Quantity("macs", "MACs of one image", lambda run: run.macs)
TRAIN_FLOPS = Quantity("train_flops", "training FLOPs", lambda run: run.train_flops)
PARAMETERS = Quantity("params", "parameters", lambda run: run.parameters)
WALL_TIME = Quantity("wall_s", "wall time", lambda run: run.wall_s, "s")
ALONE = (
    Quantity("latency_ms", "latency of one image", _latency_ms, "ms", measured_by=THROUGHPUT),
    _alone("forward_images_per_s", "images/s forward", "forward_images_per_s"),
    _alone("alone_images_per_s", "images/s in training (measured alone)", "train_images_per_s"),
    _alone("alone_memory_bytes", "memory in training (measured alone)", "train_memory_bytes", "B"),
)
QUANTITIES = (
    MACS,
    TRAIN_FLOPS,
    PARAMETERS,
    Quantity("activations", "activations of one image", _recorded("complexity", "activations")),
    WALL_TIME,
    Quantity("images_per_s", "training images per second", _recorded("compute", "images_per_s"), more_is_better=True),
    Quantity("peak_memory_bytes", "peak memory", _recorded("compute", "peak_memory_bytes"), "B"),
    Quantity("energy_j", "energy of training", _recorded("compute", "energy_j"), "J"),
    *ALONE,
)


@dataclass(frozen=True)
class RunColumn:
    """A column of the table of runs.

    Attributes:
        value: what the page sorts by.
        text: what is printed.
        short: its head in the terminal.
    """

    title: str
    value: Callable[[Run], Any]
    text: Callable[[Run], str]
    short: str = ""
    number: bool = True


MODEL, DATA, RECIPE, STATUS = (
    RunColumn(title, attrgetter(name), attrgetter(name), number=False)
    for title, name in (("model", "name"), ("data set", "data"), ("recipe", "recipe"), ("status", "status"))
)
ERROR = RunColumn("test error", lambda run: run.value, lambda run: run.value_text, "test\nerror")
RUN_COLUMNS = (
    MODEL,
    DATA,
    RECIPE,
    RunColumn("seed", lambda run: run.seed, lambda run: str(run.seed)),
    RunColumn("parameters", PARAMETERS.value, PARAMETERS.text, "params"),
    RunColumn("MACs", MACS.value, MACS.text),
    RunColumn("training FLOPs", TRAIN_FLOPS.value, TRAIN_FLOPS.text, "train\nFLOPs"),
    ERROR,
    RunColumn("n", lambda run: run.n, lambda run: count(run.n)),
    RunColumn("wall time", WALL_TIME.value, WALL_TIME.text, "wall\ntime"),
    STATUS,
)
