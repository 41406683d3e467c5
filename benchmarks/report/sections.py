"""What runs say together, as tables: means, differences, baselines, scores, and what has not finished."""

from collections import Counter
from collections.abc import Container, Sequence

from benchmarks import terminal
from benchmarks.analysis import published
from benchmarks.analysis.differences import differences
from benchmarks.analysis.estimates import ALIKE, FEWEST_MASKS
from benchmarks.analysis.scaling import equal_errors, families
from benchmarks.analysis.seeds import baseline_comparisons, seed_groups, short_labels
from benchmarks.complexity.cost import uncounted_line
from benchmarks.records.measured_speed import BLOCK, LOAD
from benchmarks.records.runs import Run
from benchmarks.report.quantities import ALONE
from benchmarks.report.status import STATES, TrialState
from benchmarks.report.style import look_of
from benchmarks.report.tables import Cell, Row, Table
from benchmarks.units import MISSING, count, grouped, metric_text, number, plural

OVERLAPS = ("dice", "iou")
STOPPED = ("killed", "failed", "interrupted", "preempted")
BUSY_MARK = " *"
MOST_PAIRS = 100  # of networks, in a table
SEEDS_NAMED = 12  # of those not started, in one line


def means(runs: Sequence[Run], said: Container[str]) -> Table:
    """Return the means of the runs that may be averaged. The overrides of `said` are said elsewhere."""
    groups = seed_groups(runs)
    labels = short_labels([group.runs[0] for group in groups], seeds=False, said=said)
    rows: list[Row] = []
    for group, label in zip(groups, labels, strict=True):
        run, basis = group.runs[0], group.estimate.missing or group.estimate.basis_text
        of = ", ".join(filter(None, (group.seeds_text, f"n = {count(run.n)}", basis)))
        network, mean = Cell(label, look=look_of(run)), Cell(group.text, style="bold")
        rows.append([run.data, network, mean, group.interval_text, of, group.sampling_text])
    heads = ("data set", "network", "mean ± std", "95 % interval", "of", "sampling")
    explained = (
        "Mean and sample standard deviation over seeds, and the 95 % interval of the mean over other trainings and other test "
        "images. Seeds alone: over other trainings only, as the outcomes of test images are not stored or are of fewer than "
        f"{FEWEST_MASKS} masks; sampling is the standard error that the choice of test images adds. Pooled: the spread of "
        f"the seeds of several networks {ALIKE}, as Bartlett's test tells no difference."
    )
    left_out = dict.fromkeys(f"Left out: {text}." for group in groups for text in group.estimate.left_out)
    numbers = ("mean ± std", "95 % interval", "sampling")
    return Table("Means over seeds", heads, rows, numbers, notes=[explained, *left_out])


def network_differences(runs: Sequence[Run], said: Container[str]) -> Table:
    """Return the differences between networks on the same test images. The overrides of `said` are said elsewhere."""
    heads = ("data set", "networks", "difference")
    if len(runs) > terminal.STYLED:  # to compare all would take minutes
        several = len({run.all_but_seed for run in runs}) > 1
        limited: list[Row] = (
            [["", "", f"compared, and curves fitted, of up to {terminal.STYLED} runs"]] if several else []
        )
        return Table("Differences between networks on the same test images", heads, limited)
    found = differences(runs, said)
    # What would show a difference takes 30 ms to compute.
    shown = found if len(found) <= MOST_PAIRS else sorted(found, key=lambda one: one.p)[:MOST_PAIRS]
    notes = [f"Of {len(found):,} pairs those of the lowest p."] if len(shown) < len(found) else []
    rows: list[Row] = [[one.data, f"{one.first} against {one.second}", one.text] for one in shown]
    return Table("Differences between networks on the same test images", heads, rows, notes=notes)


def scaling(runs: Sequence[Run]) -> list[Table]:
    """Return how the error of each family falls with training compute, and families at equal error."""
    small = len(runs) <= terminal.STYLED  # of more, a table of families would take seconds
    members = families(runs) if small else []
    rows = [[one.data, one.name, one.formula, one.held_out()] for one in members]
    heads = ("data set", "family", "error by training FLOPs C", "largest cost, from the others")
    lead = (
        "A power law with a floor, fitted to the means over seeds of all networks and budgets of a family that have an "
        "interval; at least four different costs. Networks of another kind, as those without a shortcut, have their own; so do "
        "recipes, where one network was trained under several. Of a network that was trained at several learning rates the one "
        "with the lowest validation loss counts. "
        "Where there are five, the largest is predicted from the others."
    )
    pairs = equal_errors(members)
    equal: list[Row] = [[one.first.data, f"{one.first.name} against {one.second.name}", one.text] for one in pairs]
    return [
        Table("Error over training compute", heads, rows, lead=lead),
        Table("Families at equal error", ("data set", "families", "training compute"), equal),
    ]


def baselines(runs: Sequence[Run]) -> Table:
    """Return the figures of methods without learning, each above those of the networks."""
    rows: list[Row] = []
    for baseline in baseline_comparisons(runs):
        for name, figure in [(f"{baseline.method} (baseline)", baseline.value), *baseline.nets]:
            rows.append([baseline.data, name, baseline.title, _figure_text(baseline.metric, figure)])
    return Table("Baselines", ("data set", "method", "metric", "value"), rows, ("value",))


def alone(runs: Sequence[Run]) -> Table:
    """Return the measurements of networks by themselves, each once, whatever number of runs it holds for."""
    measured = [run for run in runs if all(quantity.value(run) is not None for quantity in ALONE)]
    labels = short_labels(measured, seeds=False)
    busy = [run.part(BLOCK).get(LOAD) is not None for run in measured]
    rows = dict.fromkeys(
        (run.data, label + BUSY_MARK * beside_others, *(quantity.text(run) for quantity in ALONE))
        for run, label, beside_others in zip(measured, labels, busy, strict=True)
    )
    notes = [f"{BUSY_MARK.strip()} The machine had other work, so speeds are too low: measure again when it is free."]
    titles = [quantity.title.removesuffix(" (measured alone)") for quantity in ALONE]
    title = "Networks alone, as python -m benchmarks throughput measured them"
    return Table(title, ("data set", "network", *titles), list(rows), titles, notes=notes if any(busy) else ())


def uncounted(runs: Sequence[Run]) -> Table:
    """Return the networks whose counts leave out operators, and which."""
    counted = [run for run in runs if run.uncounted]
    rows = dict.fromkeys((run.data, run.name, uncounted_line(run.uncounted)) for run in counted)
    return Table("Not counted", ("data set", "network", "what MACs and FLOPs leave out"), list(rows))


def scores(runs: Sequence[Run]) -> list[Table]:
    """Return, for every data set of masks, the scores of the finished runs and the published ones below them."""
    tables = []
    finished = [
        (index, run)
        for index, run in enumerate(runs)
        if run.status == "ok"
        and not run.is_debug
        and (run.record.get("task") == "segmentation" or published.scores_of(run))
    ]
    for data, members in grouped(finished, lambda one: one[1].data).items():
        figures = [_scores(run) for _, run in members]
        names = list(dict.fromkeys(name for scores in figures for name in scores))
        labels = short_labels([run for _, run in members])
        rows: list[Row] = [
            [Cell(label, look=look_of(run), run=index), *(_figure_text(name, scores.get(name)) for name in names), ""]
            for (index, run), label, scores in zip(members, labels, figures, strict=True)
        ]
        rows += [
            [row.label, *(_figure_text(name, row.figures.get(name)) for name in names), row.source]
            for row in published.scores(data)
        ]
        titles = [name.replace("_", " ") for name in names]
        notes = dict.fromkeys(str(run.part("dataset").get("notes") or "") for _, run in members)
        tables.append(
            Table(
                f"Scores on {data}",
                ("network", *titles, "published in"),
                rows,
                titles,
                notes=[f"Ours: {note}." for note in notes if note],
                data=data,
            )
        )
    return tables


def _scores(run: Run) -> dict[str, float]:
    overlap = {name: number(run.part("metrics").get(f"test/{name}")) for name in OVERLAPS}
    return {name: value for name, value in overlap.items() if value is not None} | published.scores_of(run)


def _figure_text(name: str, value: float | None) -> str:
    """Return a figure in the unit of the table of runs: percent of error rates, overlaps and average precisions; any other, as
    V_Rand, as its papers print it, with four decimals, small ones with six."""
    if value is None:
        return MISSING
    if name in published.FIGURES and published.FIGURES[name].percent:
        return metric_text(value, "%")
    if name in OVERLAPS or "_ap" in name:
        return metric_text(100 * value, "%")
    return f"{value:.4f}" if value >= 0.01 else f"{value:.6f}"


def not_finished(runs: Sequence[Run], states: Sequence[TrialState] = ()) -> Table:
    """Return runs that stopped, with their causes, and trials of a sweep that never began."""
    stopped = [(index, run) for index, run in enumerate(runs) if run.state in STOPPED]
    labels = short_labels(runs) if stopped else []  # a seed may be all that tells a run from those that finished
    rows: list[Row] = [
        [Cell(run.state, status=run.state), run.data, Cell(labels[index], run=index), _cause(run)]
        for index, run in stopped
    ]
    missing = (trial for trial in states if trial.state == "missing")
    for (data, row), seeds in grouped(missing, lambda trial: (trial.data, trial.row)).items():
        named = ", ".join(str(trial.seed) for trial in seeds[:SEEDS_NAMED])
        text = f"seed{'s' if len(seeds) > 1 else ''} {named}"
        more = f" and {len(seeds) - SEEDS_NAMED:,} more" if len(seeds) > SEEDS_NAMED else ""
        rows.append([Cell("not started", status="missing"), data, row, text + more])
    return Table("Not finished", ("status", "data set", "run", "cause"), rows)


def _cause(run: Run) -> str:
    return STATES["killed"][2] if run.state == "killed" else run.error or "no cause was recorded"


def summary(runs: Sequence[Run], states: Sequence[TrialState]) -> str:
    """Return how many runs there are, and how many in each state."""
    counts = Counter({"ok": "finished"}.get(run.state, run.state) for run in runs)
    counts["not started"] = sum(trial.state == "missing" for trial in states)
    words = ("finished", "running", *STOPPED, "not started")
    parts = ", ".join(f"{counts[word]:,} {word}" for word in words if counts[word] > 0)
    total = plural(len(runs), "run") if runs else "No runs yet"
    return f"{total}: {parts}" if parts else total
