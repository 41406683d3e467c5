"""A published table beside the runs of it: lines, differences in conditions, verdicts."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from benchmarks.analysis.error_rates import wilson_limits
from benchmarks.analysis.estimates import Estimate, estimates, half_width_of_seeds, p_value_of_seeds
from benchmarks.analysis.published import FIGURES, PublishedRow, PublishedTable
from benchmarks.analysis.seeds import differing_conditions, same_but_seed
from benchmarks.records.files import CONFIG, read_config
from benchmarks.records.runs import Run
from benchmarks.units import number, plural, short_value

NOT_RUN, UNDER_POWERED, REPRODUCED, DIFFERS = "not run", "under-powered", "reproduced", "differs"
MOST_SEEDS = 100
SCORE_MARGIN = 0.1  # of a score's distance from perfect; there is no binomial error of a score of masks
# Follow from the choice of data.
OF_DATA = ("data.", "model.in_channels", "model.num_classes", "model.stem")
DERIVED = ("seed", "name", "recipe.name", "recipe.scheduler.T_max", "trainer.max_epochs")  # from other keys, or a label


@dataclass(frozen=True)
class Line:
    """One figure of one row, beside our runs of one configuration and code; ``runs`` is empty where there are none.

    Attributes:
        values: ours, one per seed.
        differences: what the runs' configuration has, and the paper's in brackets.
        estimate: of our mean; None without values.
        forecast: what a row that was not run would cost, where that was forecast.
    """

    row: PublishedRow
    figure: str
    runs: tuple[Run, ...]
    differences: tuple[str, ...]
    estimate: Estimate | None = None
    forecast: str = ""

    @property
    def paper(self) -> float | None:
        return self.row.figures.get(self.figure)

    @property
    def values(self) -> list[float]:
        values = (number(run.part("metrics").get(f"test/{self.figure}")) for run in self.runs)
        return [value for value in values if value is not None]

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's, on the same data set."""
        if self.estimate is None or self.paper is None or self.on_other_data:
            return None
        return self.estimate.mean - self.paper

    @property
    def on_other_data(self) -> bool:
        """Whether the runs are the row's network on another data set than the paper's, or on its images compressed again."""
        return bool(self.runs) and on_other_data(self.runs[0], self.row)

    @property
    def imported(self) -> bool:
        """Whether the weights came from elsewhere and were only tested here."""
        return any(map(is_imported, self.runs))

    def verdict(self) -> tuple[str, str]:
        """The verdict, and in words what it rests on; see `judge`."""
        if not self.row.runnable or self.paper is None:
            return "", ""
        if self.on_other_data:
            return NOT_RUN, "on other data"
        if self.imported:
            return NOT_RUN, "imported weights"
        images = self.runs[0].n if self.runs else None
        if self.estimate is None:
            return NOT_RUN, ""
        if images is None and FIGURES[self.figure].percent:
            return UNDER_POWERED, "the number of test images is not recorded"
        return judge(self.estimate, self.paper, self.row.runs, margin(self.figure, self.paper, images))

    @property
    def p_value(self) -> float:
        """The p-value of no difference from the paper's figure, over trainings; 1 of a figure that does not differ."""
        if self.estimate is None or self.paper is None or self.verdict()[0] != DIFFERS:
            return 1.0
        return p_value_of_seeds(self.estimate, self.paper, self.row.runs)


def margin(figure: str, paper: float, images: int | None) -> float:
    """The largest difference from the paper's figure that counts as none.

    Of an error rate: the 95 % half-width of the paper's own figure under resampling of the test images (Wilson 1927). Two test
    sets of that size would differ by more, by √2 times as much. Of a score of masks: a tenth of its distance from perfect.
    """
    if FIGURES[figure].percent:
        low, high = wilson_limits(paper / 100, images)
        return float(100 * (high - low) / 2)
    return SCORE_MARGIN * (1 - paper if FIGURES[figure].high else paper)


def judge(ours: Estimate | None, paper: float, runs: int | None, margin: float) -> tuple[str, str]:
    """Whether runs agree with a published figure: the verdict, and a line of reasons.

    The difference of the means has a 95 % interval over trainings, where the paper's runs are taken to spread as ours; `runs`
    is their number, None for the best of several, which is no estimate of a mean. Other test images are the margin's part.
    `reproduced`: the whole interval is within `margin` (two one-sided tests, Schuirmann 1987). `differs`: the interval leaves
    out zero, and is not within it. `under-powered`: neither can be told.
    """
    if ours is None:
        return NOT_RUN, ""
    half = half_width_of_seeds(ours, ours.n, runs)
    if half is None:
        return UNDER_POWERED, ours.missing
    difference = ours.mean - paper
    text = f"{difference:+.3g} ± {half:.2g}, margin ± {margin:.2g}"
    if abs(difference) + half <= margin:
        return REPRODUCED, text
    if abs(difference) > half:
        return DIFFERS, text
    planned = range(ours.n + 1, MOST_SEEDS + 1)
    # A half-width below it leaves out zero or keeps within the margin.
    telling = max(abs(difference), margin - abs(difference))
    enough = bisect_left(planned, True, key=lambda seeds: (half_width_of_seeds(ours, seeds, runs) or 0) < telling)
    needed = enough < len(planned)
    reason = f"about {plural(enough + 1, 'more seed')} would tell" if needed else f"{MOST_SEEDS} seeds would not tell"
    return UNDER_POWERED, f"{text}; {reason}"


def lines(table: PublishedTable, runs: Iterable[Run]) -> list[Line]:
    """Return a line for each figure of each row of the table; runs of other configurations or code have lines of their own.

    A run belongs to a row if it was launched as that row, or has its network, data and recipe.
    Raises ConfigurationError where the experiment does not compose.
    """
    finished = [run for run in runs if run.status == "ok"]
    result = []
    for row in table.rows:
        groups = same_but_seed(run for run in finished if row.runnable and belongs(run, table.name, row))
        described = [
            ((*_differences(group[0], *_references(table.name)[row.row]), *conditions), group)
            for group, conditions in zip(groups, differing_conditions([group[0] for group in groups]), strict=True)
        ]
        for differences, group in sorted(described, key=lambda pair: len(pair[0])) or [((), ())]:
            measured = group[0].part("metrics") if group else {}
            figures = [name for name in table.figures if name in row.printed or f"test/{name}" in measured]
            result += [Line(row, figure, group, differences) for figure in figures or [""]]
    return _with_estimates(result)


def configurations_of(table: str) -> dict[str, dict[str, Any]]:
    """Return the configuration that the table's experiment composes for each row."""
    return {row: config for row, (config, _) in _references(table).items()}


def _with_estimates(rows: Sequence[Line]) -> list[Line]:
    """The lines with their means, each figure's spread over seeds pooled over the table's rows where a test allows it."""
    result = list(rows)
    for figure in dict.fromkeys(line.figure for line in rows if line.values):
        places = [index for index, line in enumerate(rows) if line.figure == figure and line.values]
        estimated = estimates([rows[index].runs for index in places], figure, FIGURES[figure].percent)
        for index, estimate in zip(places, estimated, strict=True):
            result[index] = replace(rows[index], estimate=estimate)
    return result


def belongs(run: Run, table: str, row: PublishedRow) -> bool:
    """Whether a run is of a row: launched as that, or of its network, data and recipe."""
    if (run.record.get("experiment"), run.record.get("row")) == (table, row.row):
        return True
    return (run.data, run.network, run.record["recipe"]) == (row.data, row.network, row.recipe)


def on_other_data(run: Run, row: PublishedRow) -> bool:
    """Whether a run of a row is of another data set than the paper's, or of its images compressed again."""
    return run.data != row.data or run.is_reencoded


def is_imported(run: Run) -> bool:
    """Whether a run's weights came from elsewhere and were only tested here."""
    return run.part("protocol").get("checkpoint") == "imported"


@cache
def _references(table: str) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What the experiment composes for each row, and the facts of the paper that it states."""
    from benchmarks.config.compose import expand, paper_facts
    from benchmarks.config.trial import Trial

    facts = paper_facts(table)
    trials = expand([f"experiment={table}"], multirun=True)
    return {trial.config["row"]: (trial.config, facts) for trial in trials if isinstance(trial, Trial)}


def _differences(run: Run, reference: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[str, ...]:
    """`epochs 30 (300)`: what the run's configuration has, and in brackets the paper's."""
    from benchmarks.config.trial import differing_keys, flatten

    try:
        config = read_config(run.directory)
        differing = differing_keys(config, reference)
    except (OSError, ValueError):  # copied in part, or torn
        return (f"what its {CONFIG}, which cannot be read, would tell",)
    differences = {key: values for key, values in differing.items() if key not in DERIVED}
    result = []
    if run.data != reference["data"]["name"]:
        result.append(f"data {run.data} ({reference['data']['name']})")
        differences = {key: values for key, values in differences.items() if not key.startswith(OF_DATA)}
    if run.is_reencoded:
        result.append("images compressed again (as published)")
    flat = flatten(config)
    for key, paper in facts.items():
        differences.pop(key, None)
        fact, _, of_data = key.partition(".")
        if fact == "train_images":  # of one data set, or by data set
            if of_data not in ("", reference["data"]["name"]):
                continue
            key, ours = fact, run.part("counts").get("train")
        else:
            ours = flat.get(key)
        if ours != paper:
            result.append(f"{_words(key)} {_shown(ours)} ({_shown(paper)})")
    grouped: dict[str, dict[str, tuple[Any, Any]]] = {}
    for key, values in differences.items():
        home, _, rest = key.partition(".")
        name, _, leaf = rest.partition(".")
        grouped.setdefault(f"{home}.{name}" if rest else home, {})[leaf] = values
    for name, leaves in grouped.items():
        ours, paper = (_side({leaf: values[side] for leaf, values in leaves.items()}) for side in (0, 1))
        result.append(f"{_words(name)} {ours} ({paper})")
    return tuple(result)


def _side(leaves: Mapping[str, Any]) -> str:
    """The values of one key, or of the leaves below it: `CosineAnnealingLR T_max=30`."""
    if set(leaves) == {""}:
        return _shown(leaves[""])
    parts = [
        _shown(value) if leaf == "_target_" else f"{leaf}={_shown(value)}"
        for leaf, value in sorted(leaves.items())
        if value is not None
    ]
    return " ".join(parts) or "none"


def _words(key: str) -> str:
    words = key.removeprefix("recipe.").removeprefix("trainer.").removeprefix("model.")
    return words.replace("_", " ").replace(".", " ")


def _shown(value: Any) -> str:
    """`none` for nothing, a class by its last word."""
    text = "none" if value is None else short_value(value)
    return text.rpartition(".")[2] if isinstance(value, str) and value.startswith("torch.") else text


def common_differences(rows: Sequence[Line]) -> tuple[str, ...]:
    """Return the differences from the paper that all lines with runs share."""
    all_of_them = [line.differences for line in rows if line.runs]
    first = all_of_them[0] if len(all_of_them) > 1 else ()
    return tuple(difference for difference in first if all(difference in other for other in all_of_them))
