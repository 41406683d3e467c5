"""What a run costs and reaches, said once: a quantity's title, unit and value serve the tables, the page and its axes alike."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from benchmarks.records.runs import Run
from benchmarks.units import MISSING, count, duration, is_score, number, quantity, reported_text, score

THROUGHPUT = "python -m benchmarks throughput"


@dataclass(frozen=True)
class Rate:
    """A price or factor that the reader of the page gives, and what a quantity becomes by it.

    Attributes:
        per: how much of the quantity the rate is for.
    """

    key: str
    question: str
    title: str
    per: float
    unit: str = ""


PRICE = Rate("price", "price of a device-hour", "cost of training", 3600)
GRID = Rate("grid", "g CO₂ per kWh", "CO₂ of training", 3.6e6, "g")


@dataclass(frozen=True)
class Quantity:
    """A number of a run that can be an axis of the page.

    Attributes:
        unit: `""` (a count), `s`, `ms`, `B` or `J`.
        more_is_better: whether it is a speed and not a cost.
        measured_by: the command that measures it, where a run itself does not.
        physical: whether it depends on the machine, so that only runs of one machine are held against each other.
        rate: what a reader may multiply it by, if anything.
    """

    key: str
    title: str
    value: Callable[[Run], float | None]
    unit: str = ""
    more_is_better: bool = False
    measured_by: str = ""
    physical: bool = False
    rate: Rate | None = None

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


def _device_s(run: Run) -> float | None:
    """Return the wall time of all devices in seconds."""
    devices = number(run.part("parallel").get("world_size"))
    return None if run.wall_s is None or devices is None else number(devices * run.wall_s)


def _alone(key: str, title: str, name: str, unit: str = "") -> Quantity:
    """Return what was measured of the network by itself; without a unit it is a speed."""
    return Quantity(key, title, _recorded("throughput", name), unit, not unit, THROUGHPUT, True)


MACS = Quantity("macs", "MACs of one image", lambda run: run.macs)
TRAIN_FLOPS = Quantity("train_flops", "training FLOPs", lambda run: run.train_flops)
PARAMETERS = Quantity("params", "parameters", lambda run: run.parameters)
WALL_TIME = Quantity("wall_s", "wall time", lambda run: run.wall_s, "s", physical=True)
ALONE = (
    Quantity("latency_ms", "latency of one image", _latency_ms, "ms", measured_by=THROUGHPUT, physical=True),
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
    Quantity("device_s", "device time", _device_s, "s", physical=True, rate=PRICE),
    Quantity(
        "images_per_s",
        "training images per second",
        _recorded("compute", "images_per_s"),
        more_is_better=True,
        physical=True,
    ),
    Quantity("peak_memory_bytes", "peak memory", _recorded("compute", "peak_memory_bytes"), "B", physical=True),
    Quantity("energy_j", "energy of training", _recorded("compute", "energy_j"), "J", physical=True, rate=GRID),
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
    for title, name in (("model", "name"), ("data set", "data"), ("recipe", "recipe"), ("status", "state"))
)


def shown_result(run: Run) -> str:
    """Return the reported metric as people know it: `1.78 %`, and of 100 − Dice `Dice 93.48 %`."""
    return MISSING if run.value is None else reported_text(run.value, run.metric_label)


def result_title(runs: Iterable[Run]) -> str:
    """Return the head of a column of results: errors, or scores too; of what runs will have that have none yet is not known."""
    known = [run for run in runs if run.metric]
    return "test error" if known and not any(is_score(run.metric_label) for run in known) else "test result"


def _known_result(run: Run) -> float | None:
    """Return the number that ``shown_result`` prints."""
    return None if run.value is None else score(run.value, run.metric_label)[1]


ERROR = RunColumn("test error", _known_result, shown_result, "test\nerror")
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
