"""The papers' tables as `benchmarks/tables/` holds them, a file per table, a line per row. Imports no torch."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.complexity.reference_counts import TABLES, ReferenceCounts, reference_counts_of
from benchmarks.config.folders import read_option
from benchmarks.records.runs import Run
from benchmarks.units import nearest, number

WORDS = ("row", "label", "data", "network", "recipe", "params", "macs", "statistic", "source", "status", "note")


@dataclass(frozen=True)
class Figure:
    """A column of figures, by the name that a test's metric has without its `test/`.

    Attributes:
        percent: whether it is an error rate in percent, over images; else a score or error of masks, as a fraction.
        high: whether more is better.
    """

    title: str
    percent: bool = False
    high: bool = False


FIGURES = {
    "top1_err": Figure("top-1 err.", percent=True),
    "top5_err": Figure("top-5 err.", percent=True),
    "top1_err_10crop": Figure("top-1 err., 10-crop", percent=True),
    "top5_err_10crop": Figure("top-5 err., 10-crop", percent=True),
    "top1_err_320": Figure("top-1 err., 320", percent=True),
    "top5_err_320": Figure("top-5 err., 320", percent=True),
    "warping_error": Figure("warping error"),
    "rand_error": Figure("Rand error"),
    "pixel_error": Figure("pixel error"),
    "v_rand": Figure("V_Rand", high=True),
    "v_info": Figure("V_Info", high=True),
    "seg": Figure("SEG", high=True),
    **{
        f"{kind}_ap{name}": Figure(f"{kind} AP{name.replace('_', ', ')}", high=True)
        for kind in ("mask", "box")
        for name in ("", "50", "75", "_small", "_medium", "_large")
    },
}


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table.

    Attributes:
        row: its name in the experiment of the same name, empty for a reference line, which names a network that is not here.
        label: as the paper prints it.
        data, network, recipe: what its run is called; `network` has the arguments that the name does not show.
        params, macs: as printed (`25.0e6`); empty where they are not.
        printed: figures as the paper prints them, by the names of FIGURES.
        statistic: of what the figures are: `1`, `mean of 10`, `median of 5`, `best of 5`.
        status: how the figures were obtained: `verified`, `computed`, `memory-only`, ….
        note: a known discrepancy with its reason, or what a reader must know.
    """

    row: str
    label: str
    data: str
    network: str
    recipe: str
    params: str
    macs: str
    printed: dict[str, str]
    statistic: str
    source: str
    status: str
    note: str

    @property
    def figures(self) -> dict[str, float]:
        return {name: float(text) for name, text in self.printed.items()}

    @property
    def runnable(self) -> bool:
        return bool(self.network)

    @property
    def runs(self) -> int | None:
        """How many runs the paper's figure is a mean or median of; 1 unless it says so, None for the best of several."""
        kind, _, number = self.statistic.partition(" of ")
        if kind == "best":
            return None
        return int(number) if number else 1


@dataclass(frozen=True)
class PublishedTable:
    """A published table.

    Attributes:
        name: of its file and of the experiment that trains its rows.
    """

    name: str
    title: str
    paper: str
    rows: tuple[PublishedRow, ...]

    @property
    def figures(self) -> list[str]:
        """Names of the columns of figures that any row has."""
        return [name for name in FIGURES if any(name in row.printed for row in self.rows)]

    def pick(self, names: Sequence[str]) -> "PublishedTable":
        """Return the table with these rows alone. Raises ValueError for an unknown row, naming the known ones."""
        known = [row.row for row in self.rows if row.runnable]
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{self.name} has no row {name!r}{nearest(name, known)}; there are {', '.join(known) or 'none'}"
                )
        return PublishedTable(self.name, self.title, self.paper, tuple(row for row in self.rows if row.row in names))


@cache
def tables() -> dict[str, PublishedTable]:
    """All tables by name, in the order of `tables.csv`."""
    return {
        line["table"]: PublishedTable(line["table"], line["title"], line["paper"], _rows(line["table"]))
        for line in _lines(TABLES / "tables.csv")
    }


def scores(data: str) -> list[PublishedRow]:
    """Rows on a data set of masks, of all tables."""
    masks = {name for name, figure in FIGURES.items() if not figure.percent}
    return [row for table in tables().values() for row in table.rows if row.data == data and masks & row.printed.keys()]


@cache
def reference_points(data: str) -> list[tuple[PublishedRow, ReferenceCounts]]:
    """Networks of this suite with a published top-1 error on a data set, once each and error, with their exact counts."""
    config = read_option("data", data)
    if not config:  # of another version
        return []
    image = (config["in_channels"], *config["image_size"])
    points: dict[tuple[str, str], tuple[PublishedRow, ReferenceCounts]] = {}
    for row in (row for table in tables().values() for row in table.rows):
        if row.runnable and row.data == data and "top1_err" in row.printed:
            known = reference_counts_of(row.network, image, config["num_classes"])
            if known is not None:
                points.setdefault((known.network, row.printed["top1_err"]), (row, known))
    return list(points.values())


def _rows(table: str) -> tuple[PublishedRow, ...]:
    path = TABLES / f"{table}.csv"
    if not path.exists():
        return ()
    return tuple(
        PublishedRow(
            **{word: line[word] for word in WORDS}, printed={name: line[name] for name in FIGURES if line.get(name)}
        )
        for line in _lines(path)
    )


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scores_of(run: Run) -> dict[str, float]:
    """Test scores of a finished run by name: those that a published table has for its data set."""
    values = {name: number(run.part("metrics").get(f"test/{name}")) for name in _score_names(run.data)}
    return {name: value for name, value in values.items() if value is not None and run.status == "ok"}


@cache
def _score_names(data: str) -> list[str]:
    names = dict.fromkeys(name for row in scores(data) for name in row.figures)
    return [*names, "threshold_v_rand", "seg"]
